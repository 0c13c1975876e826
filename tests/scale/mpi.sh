#!/usr/bin/env bash
# A run shared by two processes against the same run in one, then with a process killed and the run resumed.
#
# Made by hand, not by `make test`: needs libopenmpi-dev, openmpi-bin and a binary of `cargo build --release --features mpi`.
set -euo pipefail
cd "$(dirname "$0")/../.."
data=data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits
folder=$(mktemp -d /tmp/mpi.XXXXXX)
echo "in $folder"
short=(-j 1 --samples 32 --no-plots)
for setting in matching.particles=8 matching.steps=6 matching.draw_steps=8 correction.gibbs.cycles=3 correction.gibbs.anneal=24 \
    correction.gibbs.restart.threshold=1e6; do
    short+=(--set "solver.$setting")
done
antumbra=(target/release/antumbra reconstruct "$data" "${short[@]}")
mpi=(mpirun -n 2 --allow-run-as-root --oversubscribe)

# Status 1: so short a run fails its checks.
run() { local status=0; "$@" >>"$folder/log" 2>&1 || status=$?; [ "$status" -le 1 ] || { tail -20 "$folder/log"; return "$status"; }; }

time run "${antumbra[@]}" -o "$folder/one"
time run "${mpi[@]}" "${antumbra[@]}" -o "$folder/two"
paste -d'\n' <(head -6 "$folder/one/metrics.jsonl") <(head -6 "$folder/two/metrics.jsonl")

"${mpi[@]}" "${antumbra[@]}" -o "$folder/lost" >"$folder/lost.log" 2>&1 &
launcher=$!
until [ -f "$folder/lost/checkpoint.safetensors" ]; do sleep 0.2; done
victim=$(pgrep -P "$launcher" | tail -1)
kill -9 "$victim"
wait "$launcher" || echo "mpirun ended with status $?"
grep -i 'signal' "$folder/lost.log" || tail -5 "$folder/lost.log"
run "${mpi[@]}" "${antumbra[@]}" -o "$folder/lost" --resume
grep -h 'resumed' "$folder/lost/log.txt"
for name in metrics.jsonl posterior.h5; do
    cmp "$folder/two/$name" "$folder/lost/$name" && echo "$name: the same bytes as without the loss"
done
