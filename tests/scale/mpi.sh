#!/usr/bin/env bash
# A run shared by two processes against the same run in one, then with either process killed and the run resumed: mpi.sh [BINARY]
#
# Made by hand, not by `make test`: needs libopenmpi-dev, openmpi-bin and a binary of `cargo build --release --features mpi`.
set -euo pipefail
binary=$(realpath "${1:-$(dirname "$0")/../../target/release/antumbra}")
cd "$(dirname "$0")/../.."
data=data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits
folder=$(mktemp -d /tmp/mpi.XXXXXX)
echo "in $folder"
short=(-j 1 --samples 32 --no-plots)
for setting in matching.particles=8 matching.steps=6 matching.draw_steps=8 correction.gibbs.cycles=3 correction.gibbs.anneal=24 \
    correction.gibbs.restart.threshold=1e6; do
    short+=(--set "solver.$setting")
done
antumbra=("$binary" reconstruct "$data" "${short[@]}")
mpi=(mpirun -n 2 --allow-run-as-root --oversubscribe)

# Status 1: so short a run fails its checks.
run() { local status=0; "$@" >>"$folder/log" 2>&1 || status=$?; [ "$status" -le 1 ] || { tail -20 "$folder/log"; return "$status"; }; }

# Kills the first or the last process of the run NAME after its first checkpoint: lose NAME head|tail
lose() {
    "${mpi[@]}" "${antumbra[@]}" -o "$folder/$1" >"$folder/$1.log" 2>&1 &
    local launcher=$!
    until [ -f "$folder/$1/checkpoint.safetensors" ]; do
        kill -0 "$launcher" || { tail -20 "$folder/$1.log"; return 1; }
        sleep 0.2
    done
    kill -9 "$(pgrep -P "$launcher" | "$2" -1)"
    wait "$launcher" || echo "$1: mpirun ended with status $?, $(wc -l <"$folder/$1/metrics.jsonl") steps in metrics.jsonl"
    grep -i 'signal' "$folder/$1.log" || tail -5 "$folder/$1.log"
    if pgrep -f "$folder/$1" >/dev/null; then echo "a process of $1 is left"; return 1; fi
}

same() { cmp "$folder/$1/$3" "$folder/$2/$3" && echo "$2/$3: the same bytes as $1/$3"; }

time run "${antumbra[@]}" -o "$folder/one"
time run "${mpi[@]}" "${antumbra[@]}" -o "$folder/two"
paste -d'\n' <(head -6 "$folder/one/metrics.jsonl") <(head -6 "$folder/two/metrics.jsonl")
cmp <(grep network_passes "$folder/one/manifest.json") <(grep network_passes "$folder/two/manifest.json")
echo "as many network passes"

lose last tail
run "${mpi[@]}" "${antumbra[@]}" -o "$folder/last" --resume
grep -h 'resumed' "$folder/last/log.txt"
for name in metrics.jsonl posterior.h5; do same two last "$name"; done

# Another number of processes goes on from the same checkpoint: what it held is not made again.
lose first head
run "${antumbra[@]}" -o "$folder/first" --resume
grep -h 'resumed' "$folder/first/log.txt"
cmp <(head -20 "$folder/two/metrics.jsonl") <(head -20 "$folder/first/metrics.jsonl") && echo "first: the checkpointed steps are kept"
