"""Prints what tifffile says about a stack, as JSON: python describe_with_tifffile.py FILE"""

import json
import sys
import xml.etree.ElementTree as xml

import tifffile

NAMESPACE = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"

with tifffile.TiffFile(sys.argv[1]) as file:
    series = file.series[0]
    values = series.asarray()
    found = {
        "kind": series.kind,
        "axes": series.axes,
        "shape": list(series.shape),
        "dtype": str(series.dtype),
        "big": file.is_bigtiff,
        "sum": float(values.sum(dtype="f8")),
        "last": float(values.flat[-1]),
    }
    if file.is_ome:
        root = xml.fromstring(file.ome_metadata)
        pixels = next(root.iter(NAMESPACE + "Pixels"))
        channels = list(pixels.iter(NAMESPACE + "Channel"))
        found |= {
            "size": [pixels.get(f"PhysicalSize{axis}") + pixels.get(f"PhysicalSize{axis}Unit") for axis in "ZYX"],
            "names": [channel.get("Name") for channel in channels],
            "emission": [channel.get("EmissionWavelength") for channel in channels],
            "aperture": next(root.iter(NAMESPACE + "Objective")).get("LensNA"),
            "index": next(root.iter(NAMESPACE + "ObjectiveSettings")).get("RefractiveIndex"),
            "image": next(root.iter(NAMESPACE + "Image")).get("Name"),
        }
    if file.is_imagej:
        metadata = file.imagej_metadata
        numerator, denominator = file.pages[0].tags["XResolution"].value
        found |= {key: metadata[key] for key in ("unit", "spacing", "channels", "slices", "frames", "Labels")}
        found["pixel"] = denominator / numerator
json.dump(found, sys.stdout)
