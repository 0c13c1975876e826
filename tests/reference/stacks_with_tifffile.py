"""Writes stacks.json: real stacks read with tifffile 2026.3.3, h5py 3.16 and, for MRC and DeltaVision, numpy.

    python stacks_with_tifffile.py FOLDER > stacks.json
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import tifffile

folder = Path(sys.argv[1])
AXES = "TCZYX"


def from_tiff(name):
    with tifffile.TiffFile(folder / name) as file:
        series = file.series[0]
        data, axes = series.asarray(), series.axes.replace("Q", "Z")
    order = [axes.index(axis) for axis in AXES if axis in axes]
    return np.transpose(data, order).reshape([data.shape[axes.index(a)] if a in axes else 1 for a in AXES])


def from_mrc(name, waves=1):
    header = np.fromfile(folder / name, "<i4", 256)
    x, y, sections = header[:3]
    data = np.fromfile(folder / name, "<u2", offset=1024 + header[23])
    return data[: x * y * sections].reshape(1, waves, sections // waves, y, x)


def from_h5(name):
    with h5py.File(folder / name) as file:
        return file["t00000/s00/0/cells"][()].view("u2")[None, None]


stacks = {name: from_tiff(name) for name in sorted(path.name for path in folder.glob("*.tif"))}
stacks |= {"mt_sim_raw9.mrc": from_mrc("mt_sim_raw9.mrc"), "mt_widefield.mrc": from_mrc("mt_widefield.mrc")}
stacks |= {"toxo_2ch_17z.dv": from_mrc("toxo_2ch_17z.dv", 2), "epfl_bead25.h5": from_h5("epfl_bead25.h5")}
probes = np.random.default_rng(3)
found = {}
for name, data in stacks.items():
    places = [tuple(int(probes.integers(size)) for size in data.shape) for _ in range(4)]
    found[name] = {
        "shape": list(data.shape),
        "dtype": data.dtype.name,
        "sum": float(data.sum(dtype="f8")),
        "square_sum": float((data.astype("f8") ** 2).sum()),
        "values": [[*place, float(data[place])] for place in places],
    }
json.dump(found, sys.stdout, indent=1)
print()
