"""Makes crescent.txt and the chi-squares of crescent.json with eht-imaging 1.3.2: python tests/reference/compare_with_ehtim.py

Direct Fourier transform, triangle pulse, systematic_noise 0, the files of data/.
"""
import json
import os

import ehtim as eh
import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
N, PIXEL = 24, 5e-6  # arcsec
east = (N / 2 - 0.5 - np.arange(N)) * PIXEL
x, y = np.meshgrid(east, east)
r = np.hypot(x, y)
image = np.exp(-(((r - 21e-6) / 7e-6) ** 2)) * (1 - 0.6 * y / r + 0.2 * x / r)
image *= 0.6 / image.sum()
header = f"""# SRC: M87
# RA: 12 h 30 m 49.4234 s
# DEC: 12 deg 23 m 28.0437 s
# MJD: 57848.0000
# RF: 227.0707 GHz
# FOVX: {N} pix {N * PIXEL:.8f} as
# FOVY: {N} pix {N * PIXEL:.8f} as
# ------------------------------------
# x (as)     y (as)       I (Jy/pixel)
"""
with open(f"{here}/crescent.txt", "w") as out:
    out.write(header)
    for row in zip(x.ravel(), y.ravel(), image.ravel()):
        out.write("%.10f %.10f %.10f\n" % row)

image = eh.image.load_image(f"{here}/crescent.txt")
fits = {}
for name in ("SR1_M87_2017_095_lo", "SR1_M87_2017_101_hi"):
    name += "_hops_netcal_StokesI.uvfits"
    obs = eh.obsdata.load_uvfits(f"{here}/../../data/{name}")
    obs.add_scans()
    scan = obs.avg_coherent(0, scan_avg=True)
    fits[name] = {}
    for key, data in (("none", obs), ("ehtim-scan", scan), ("ehtim-scan 2 %", scan.add_fractional_noise(0.02))):
        fits[name][key] = {
            product: data.chisq(image, dtype=dtype, ttype="direct", debias=True)
            for product, dtype in (
                ("visibility", "vis"),
                ("amplitude", "amp"),
                ("closure_phase", "cphase"),
                ("log_closure_amplitude", "logcamp"),
            )
        }
with open(f"{here}/crescent.json", "w") as out:
    json.dump(fits, out, indent=1)
