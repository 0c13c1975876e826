"""Compares a step of Principled Posterior Matching with PyTorch on the same GPU.

`gpu.py WORKER FOLDER`, WORKER being worker.rs compiled with `--features cuda`. Each row is a fresh process, one after the
other. A row holds the median and the fastest of the repeated steps.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-4


class Worker:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.difference = float(self.line().removeprefix("ready"))
        self.times = []

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args} ended early")
        return line

    def run(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.times.append(float(self.line().split()[0]))

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--pixels", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--modes", nargs="+", choices=["eager", "compile"], default=["eager", "compile"])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([options.worker, str(options.folder), "write-ppm"], check=True)
    rows = []
    for pixels in options.pixels:
        words = [str(options.folder), str(pixels), str(options.particles), options.device]
        sides = {
            f"antumbra {precision}": [options.worker, words[0], "ppm", *words[1:], precision]
            for precision in ("full", "tf32", "bf16")
        } | {f"pytorch {mode}": [sys.executable, str(HERE / "ppm.py"), *words, mode] for mode in options.modes}
        for side, command in sides.items():
            worker = Worker(command)
            # Reduced precision shows in the output; how much is written down, and full precision must agree.
            if side in ("antumbra full", "pytorch eager") and not worker.difference < TOLERANCE:
                sys.exit(f"{side}: output differs by {worker.difference:.1e} of its largest value")
            for _ in range(options.repeats):
                worker.run()
            worker.stop()
            row = {
                "side": side,
                "pixels": pixels,
                "particles": options.particles,
                "median_ms": statistics.median(worker.times),
                "fastest_ms": min(worker.times),
                "difference": worker.difference,
            }
            rows.append(row)
            print(row, flush=True)
    import torch

    result = {"card": torch.cuda.get_device_name(0), "torch": torch.__version__, "rows": rows}
    (options.folder / "gpu.json").write_text(json.dumps(result, indent=1) + "\n")


main()
