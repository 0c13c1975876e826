# make demo    install what is missing, build, reconstruct the real M87* file into runs/m87
# make test    install what is missing, check formatting and lints, run every test
# make bench   time the network, one step of the engine and one likelihood gradient
# make deny    licences, sources and duplicate versions of all dependencies

export PATH := $(CURDIR)/.tools/bin:$(HOME)/.cargo/bin:$(PATH)
ANTUMBRA := target/release/antumbra

.PHONY: demo build test bench deny clean

build: .tools/bin/cmake
	cargo build --release

# Exit status 1 means: done, but a check failed. The summary and the report say which.
demo: build
	$(ANTUMBRA) reconstruct data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits -o runs/m87 --force || test $$? -eq 1

test: .tools/bin/cmake
	cargo fmt --check
	cargo clippy --release --all-targets -- -D warnings
	cargo test --release

bench: .tools/bin/cmake
	cargo bench

deny:
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check licenses bans sources

clean:
	rm -rf target .tools

# The vendored HDF5 library needs a cmake newer than Debian 12's; the wheel on PyPI brings one.
.tools/bin/cmake:
	python3 -m venv --clear .tools || { apt-get update && apt-get install -y python3-venv && python3 -m venv --clear .tools; }
	.tools/bin/pip install --quiet 'cmake>=3.26,<5'
