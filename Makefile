# make demo    install what is missing, build, reconstruct the real M87* file into runs/m87
# make demo-microscope   the same for a real image of microtubules, into runs/microtubules
# make test    install what is missing, check formatting and lints, run every test
# make bench   time single operations, the network, one step of each sampler and one likelihood gradient
# make bench-pytorch   the same network in PyTorch, side by side; installs PyTorch into target/bench/venv
# make cuda    a second binary for NVIDIA GPUs, target/cuda/build/release/antumbra; see docs/gpu.md
# make deny    licences, sources and duplicate versions of all dependencies

export PATH := $(CURDIR)/.tools/bin:$(HOME)/.cargo/bin:$(PATH)
ANTUMBRA := target/release/antumbra

.PHONY: demo demo-microscope build test bench bench-pytorch cuda deny clean

build: .tools/bin/cmake
	cargo build --release

# Exit status 1 means: done, but a check failed. The summary and the report say which.
demo: build
	$(ANTUMBRA) reconstruct data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits -o runs/m87 --samples 168 --force || test $$? -eq 1

demo-microscope: build
	$(ANTUMBRA) reconstruct data/microtubules/mt_widefield.ome.tif --instrument data/microtubules/microscope.yaml -o runs/microtubules --force || test $$? -eq 1

# Without the first variable candle reads /proc/cpuinfo for every matrix product; the second keeps its threads from spinning.
test: .tools/bin/cmake .tools/bin/tifffile
	cargo fmt --check
	cargo clippy --release --all-targets -- -D warnings
	RAYON_NUM_THREADS=$$(nproc) CANDLE_NUM_THREADS=1 cargo test --release

bench: .tools/bin/cmake
	cargo bench

# BENCH=--busy measures on a machine that has other work; its numbers are not worth quoting.
bench-pytorch: .tools/bin/cmake target/bench/venv/bin/torchrun
	cargo build --release --bench pytorch
	target/bench/venv/bin/python benches/pytorch/against.py "$$(ls -t target/release/deps/pytorch-* | grep -v '\.' | head -1)" target/bench $(BENCH)

target/bench/venv/bin/torchrun:
	mkdir -p target/bench
	python3 -m venv --clear target/bench/venv
	target/bench/venv/bin/pip install --quiet 'torch>=2.6,<3'

cuda: .tools/bin/cmake
	cuda/toolkit.sh target/cuda >target/cuda.environment
	. target/cuda.environment && cargo build --release --features cuda --target-dir target/cuda/build

deny:
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check licenses bans sources

clean:
	rm -rf target .tools

# A test opens posterior stacks in it.
.tools/bin/tifffile: .tools/bin/cmake
	.tools/bin/pip install --quiet 'tifffile>=2024'

# The vendored HDF5 library needs a cmake newer than Debian 12's; the wheel on PyPI brings one.
.tools/bin/cmake:
	python3 -m venv --clear .tools || { apt-get update && apt-get install -y python3-venv && python3 -m venv --clear .tools; }
	.tools/bin/pip install --quiet 'cmake>=3.26,<5'
