#!/usr/bin/env bash
# Two shards of M87 as a Slurm job array, one of them killed after its first checkpoint and started again, then merged.
#
#     tests/scale/one_node_slurm.sh start; export SLURM_CONF=/tmp/one-node-slurm/slurm.conf; tests/scale/slurm_array.sh
#
# Made by hand, not by `make test`. Takes minutes; leaves everything in the folder that it prints.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PWD/target/release:$PATH
data=$PWD/data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits
folder=$(mktemp -d /tmp/slurm-array.XXXXXX)
echo "in $folder"

# A run of a minute: settings from the environment reach the tasks.
export ANTUMBRA_SAMPLES=16
export ANTUMBRA_SOLVER__MATCHING__PARTICLES=4 ANTUMBRA_SOLVER__MATCHING__STEPS=5
export ANTUMBRA_SOLVER__CORRECTION__GIBBS__CYCLES=4 ANTUMBRA_SOLVER__CORRECTION__GIBBS__ANNEAL=20
export ANTUMBRA_SOLVER__CORRECTION__GIBBS__LEAPS=8 ANTUMBRA_SOLVER__CORRECTION__GIBBS__DENOISE=2
export ANTUMBRA_SOLVER__CORRECTION__GIBBS__RESTART__THRESHOLD=1e6

options=(--parsable --array=1-2 --cpus-per-task=1 --mem=0 --chdir="$folder")
job=$(sbatch "${options[@]}" examples/slurm/shards.sbatch "$data" "$folder/m87")

state() { scontrol show job "$1" | grep -o 'JobState=[A-Z]*' | head -1 | cut -d= -f2; }

until [ -f "$folder/m87/shard-2/checkpoint.safetensors" ]; do sleep 0.2; done
scancel --signal=KILL "${job}_2"
until [ "$(state "${job}_2")" != RUNNING ]; do sleep 0.2; done
echo "killed task 2: $(state "${job}_2"), $(tail -1 "$folder/m87/shard-2/log.txt")"
scontrol requeue "${job}_2"
merge=$(sbatch --parsable --dependency=afterany:"$job" --mem=0 --chdir="$folder" --output=merge.log \
    --wrap "antumbra merge $folder/m87/shard-1 $folder/m87/shard-2 -o $folder/m87/merged || test \$? -eq 1")
until [ "$(state "$merge")" = COMPLETED ]; do sleep 1; done

grep -h 'resumed' "$folder/m87/shard-2/log.txt"
for run in shard-1 shard-2 merged; do
    python3 - "$folder/m87/$run" <<'END'
import json, sys
found = json.load(open(sys.argv[1] + "/diagnostics.json"))
print(sys.argv[1], {name: found[name] for name in ("samples", "chains", "rhat_max", "ess_bulk_min")})
END
done
