"""Writes the stacks of this folder with tifffile 2026.3.3, imagecodecs, h5py and numpy: python make_stacks.py

The value at (t, c, z, y, x) is (100 t + 31 c + 57 z + 7 y + 3 x) % 251, plus 0.25 in files of floats.
"""

import struct

import h5py
import numpy as np
import tifffile


def stack(t, c, z, y, x, dtype):
    axes = np.meshgrid(*(np.arange(n) for n in (t, c, z, y, x)), indexing="ij")
    values = sum(factor * axis for factor, axis in zip((100, 31, 57, 7, 3), axes)) % 251
    dtype = np.dtype(dtype)
    return (values + 0.25 if dtype.kind == "f" else values).astype(dtype)


def volume(dtype):
    return stack(1, 1, 2, 20, 22, dtype)[0, 0]


def plain():
    grey = dict(photometric="minisblack", metadata=None)
    variants = {
        "u8_strips": ("u1", dict(rowsperstrip=7)),
        "u8_packbits": ("u1", dict(compression="packbits")),
        "i8_none": ("i1", {}),
        "u16_deflate_predictor": ("u2", dict(compression="zlib", predictor=2, rowsperstrip=6)),
        "u16_lzw_predictor_tiles": ("u2", dict(compression="lzw", predictor=2, tile=(16, 16))),
        "i16_big_endian": (">i2", dict(byteorder=">")),
        "u16_bigtiff": ("u2", dict(bigtiff=True)),
        "u16_tiles": ("u2", dict(tile=(16, 16))),
        "i32_zstd_predictor": ("i4", dict(compression="zstd", predictor=2)),
        "u32_zstd": ("u4", dict(compression="zstd")),
        "f32_zstd_predictor_tiles": ("f4", dict(compression="zstd", predictor=3, tile=(16, 16))),
        "f32_deflate_predictor_big_endian": (">f4", dict(compression="zlib", predictor=3, byteorder=">")),
        "f64_lzw": ("f8", dict(compression="lzw")),
        "u8_white_is_zero": ("u1", dict(photometric="miniswhite")),
    }
    for name, (dtype, options) in variants.items():
        options = grey | options
        for level in range(2):
            tifffile.imwrite(f"{name}.tif", volume(dtype)[level], append=level > 0, **options)
    rgb = stack(1, 3, 1, 20, 22, "u1")[0, :, 0]
    tifffile.imwrite("rgb.tif", np.moveaxis(rgb, 0, -1), photometric="rgb", metadata=None, compression="lzw")
    tifffile.imwrite("rgb_planes.tif", rgb, photometric="rgb", planarconfig="separate", metadata=None)
    colormap = np.zeros((3, 256), "u2")
    tifffile.imwrite("u8_palette.tif", volume("u1")[0], photometric="palette", colormap=colormap, metadata=None)
    tifffile.imwrite("shaped.tif", stack(2, 2, 3, 6, 8, "u2"), metadata=dict(axes="TCZYX"), photometric="minisblack")


def ome():
    data = stack(2, 2, 3, 6, 8, "u2")
    metadata = dict(
        axes="TCZYX",
        PhysicalSizeX=65.0, PhysicalSizeXUnit="nm", PhysicalSizeY=65.0, PhysicalSizeYUnit="nm",
        PhysicalSizeZ=0.2, PhysicalSizeZUnit="µm",
        Channel=dict(Name=["actin", "tubulin"], EmissionWavelength=[525.0, 600.0], EmissionWavelengthUnit=["nm", "nm"]),
    )
    tifffile.imwrite("tczyx.ome.tif", data, metadata=metadata, photometric="minisblack", compression="zlib")
    zct = np.transpose(data, (2, 1, 0, 3, 4))
    tifffile.imwrite("zctyx.ome.tif", zct, metadata=dict(axes="ZCTYX"), photometric="minisblack", compression="zlib")
    # Pages in reverse, objective and immersion, lengths without units.
    order = [(t, c, z) for t in range(2) for c in range(2) for z in range(3)]
    blocks = "".join(
        f'<TiffData IFD="{len(order) - 1 - number}" FirstT="{t}" FirstC="{c}" FirstZ="{z}" PlaneCount="1"/>'
        for number, (t, c, z) in enumerate(order)
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Instrument ID="Instrument:0"><Objective ID="Objective:0" LensNA="1.2"/><Objective ID="Objective:1" '
        'LensNA="1.4"/></Instrument><Image ID="Image:0"><ObjectiveSettings ID="Objective:1" RefractiveIndex="1.515"/>'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="8" SizeY="6" SizeZ="3" SizeC="2" SizeT="2" '
        'PhysicalSizeX="0.1" PhysicalSizeY="0.1"><Channel ID="Channel:0:0" Name="a &amp; b" EmissionWavelength="525"/>'
        f'<Channel ID="Channel:0:1"/>{blocks}</Pixels></Image></OME>'
    )
    with tifffile.TiffWriter("shuffled.ome.tif") as file:
        for number, (t, c, z) in enumerate(reversed(order)):
            text = xml if number == 0 else None
            file.write(data[t, c, z], description=text, metadata=None, photometric="minisblack")


def imagej():
    data = stack(2, 2, 3, 6, 8, "u2")
    tzcyx = np.transpose(data, (0, 2, 1, 3, 4))
    labels = [name for _ in range(6) for name in ("actin", "tubulin")]
    metadata = dict(axes="TZCYX", unit="um", spacing=0.25, Labels=labels)
    scale = (1 / 0.065, 1 / 0.065)
    tifffile.imwrite("tzcyx_imagej.tif", tzcyx, imagej=True, resolution=scale, metadata=metadata)
    # One directory for all images, as ImageJ writes files beyond 4 GiB.
    metadata = dict(axes="TZCYX", unit="nm", spacing=250.0)
    scale = (1 / 65, 1 / 65)
    tifffile.imwrite("one_directory_imagej.tif", tzcyx, imagej=True, resolution=scale, metadata=metadata, truncate=True)


def deltavision():
    data = stack(2, 2, 3, 6, 8, "u2")
    for sequence, axes in enumerate([(1, 0, 2), (0, 2, 1), (0, 1, 2)]):
        order = "<" if sequence < 2 else ">"
        header = bytearray(1024)
        struct.pack_into(order + "4i", header, 0, 8, 6, 12, 6)
        struct.pack_into(order + "3f", header, 40, 0.1, 0.1, 0.3)
        struct.pack_into(order + "3i", header, 64, 1, 2, 3)
        struct.pack_into(order + "ih", header, 92, 16, -16224)
        struct.pack_into(order + "2h", header, 180, 2, sequence)
        struct.pack_into(order + "3h", header, 196, 2, 525, 600)
        planes = np.transpose(data, (*axes, 3, 4)).astype(order + "u2")
        with open(f"sequence{sequence}.dv", "wb") as file:
            file.write(bytes(header) + bytes(16) + planes.tobytes())


def others():
    np.save("czyx_big_endian.npy", stack(1, 2, 3, 6, 8, ">i4")[0])
    # BigDataViewer stores unsigned values as signed ones: 40000 is added so that they wrap.
    data = (stack(2, 2, 3, 6, 8, "u2") + 40000).astype("u2").view("i2")
    with h5py.File("bigdataviewer.h5", "w", libver="latest") as file:
        for t in range(2):
            for c in range(2):
                file.create_dataset(
                    f"t{t:05}/s{c:02}/0/cells", data=data[t, c], chunks=(3, 6, 8), compression="gzip", shuffle=True
                )
    setups = "".join(
        f"<ViewSetup><id>{c}</id><name>{name}</name><size>8 6 3</size><voxelSize><unit>µm</unit>"
        "<size>0.1 0.1 0.3</size></voxelSize></ViewSetup>"
        for c, name in enumerate(("actin", "tubulin"))
    )
    with open("bigdataviewer.xml", "w", encoding="utf-8") as file:
        file.write(f"<SpimData><SequenceDescription><ViewSetups>{setups}</ViewSetups></SequenceDescription></SpimData>")
    with h5py.File("datasets.h5", "w", libver="latest") as file:
        labelled = file.create_dataset("data/zct", data=np.transpose(stack(2, 2, 3, 6, 8, "f4"), (2, 1, 0, 3, 4)))
        for dimension, label in zip(labelled.dims, "zctyx"):
            dimension.label = label
        plain = file.create_dataset("data/volume", data=stack(1, 1, 3, 6, 8, "u1")[0, 0])
        plain.attrs["element_size_um"] = [0.3, 0.1, 0.1]
        file["data/table"] = np.arange(4)


for write in (plain, ome, imagej, deltavision, others):
    write()
