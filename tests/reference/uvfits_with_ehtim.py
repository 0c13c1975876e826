"""Compare two UVFITS files as eht-imaging reads them, row by row.

    cargo run --release --example copy_uvfits IN.uvfits OUT.uvfits
    python uvfits_with_ehtim.py IN.uvfits OUT.uvfits

Needs eht-imaging (1.3.2). Prints the largest difference of every quantity and fails if one exceeds what single
precision explains.
"""

import sys

import numpy as np
import ehtim as eh

first, second = (eh.obsdata.load_uvfits(name) for name in sys.argv[1:3])
failed = []


def show(name, difference, limit):
    print(f"{name:24s} {difference:12.3e}  (at most {limit:.1e})")
    if not difference <= limit:
        failed.append(name)


def rows(obs):
    """Rows in one order, by time, then stations in the order of the first file's table."""
    order = [obs.tkey[t1] * 1000 + obs.tkey[t2] for t1, t2 in zip(obs.data["t1"], obs.data["t2"])]
    return obs.data[np.lexsort((order, np.round(obs.data["time"] * 3.6e6)))]


def relative(name):
    return np.max(np.abs(a[name] - b[name]) / np.maximum(np.abs(a[name]), 1e-30))


assert list(first.tarr["site"]) == list(second.tarr["site"]), "stations differ"
a, b = rows(first), rows(second)
print(f"{len(a)} and {len(b)} visibilities, source {first.source} and {second.source}, mjd {first.mjd} and {second.mjd}")
assert len(a) == len(b) and first.mjd == second.mjd and first.source == second.source
assert (a["t1"] == b["t1"]).all() and (a["t2"] == b["t2"]).all(), "baselines differ"
show("visibility (relative)", relative("vis"), 2e-7)
show("sigma (relative)", relative("sigma"), 2e-7)
length = np.hypot(a["u"], a["v"])
show("u, v (of baseline)", max(np.max(np.abs(a[k] - b[k]) / np.maximum(length, 1)) for k in "uv"), 2e-7)
show("time (seconds)", np.max(np.abs(a["time"] - b["time"])) * 3600, 3e-3)
show("integration (relative)", relative("tint"), 2e-7)
show("station positions (m)", max(np.max(np.abs(first.tarr[k] - second.tarr[k])) for k in "xyz"), 1e-6)
show("frequency (relative)", abs(first.rf / second.rf - 1), 1e-12)
show("bandwidth (relative)", abs(first.bw / second.bw - 1), 1e-7)
show("right ascension (h)", abs(first.ra - second.ra), 1e-9)
show("declination (deg)", abs(first.dec - second.dec), 1e-9)
sys.exit(f"differ: {', '.join(failed)}" if failed else 0)
