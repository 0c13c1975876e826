"""Compares one pass of the default kind of network with PyTorch on the same CPU: `make bench-pytorch`.

Both sides run as fresh processes per row and take turns, so that both see the same machine. A row holds the fastest
of the repeated passes and the peak memory of either process.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-4
PATIENCE = 180  # seconds


class Worker:
    def __init__(self, command, environment):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self.difference = float(self.line().removeprefix("ready"))
        self.wall, self.cpu, self.memory = float("inf"), float("inf"), 0.0

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args[0]} ended early")
        return line

    def run(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        wall, cpu, memory = map(float, self.line().split())
        self.wall, self.cpu, self.memory = min(self.wall, wall), min(self.cpu, cpu), max(self.memory, memory)

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def idle():
    """The load average once it is low: what built this comparison takes a minute or two to leave it."""
    for _ in range(PATIENCE):
        load = os.getloadavg()[0]
        if load <= 0.5:
            return load
        time.sleep(1)
    sys.exit(f"load average {load:.1f}: other work makes such a comparison worthless; wait, or add --busy")


def compare(folder, worker, op, batch, base, threads, repeats):
    words = [str(folder), op, str(batch), str(base), str(threads)]
    environment = {"OMP_NUM_THREADS": str(threads), "CANDLE_NUM_THREADS": "1"}
    ours = Worker([worker, *words], environment)
    theirs = Worker([sys.executable, str(HERE / "worker.py"), *words], environment)
    for side in (ours, theirs):
        if not side.difference < TOLERANCE:
            sys.exit(f"{side.process.args[0]}: output differs by {side.difference:.1e} of its largest value")
    for _ in range(repeats):
        ours.run()
        theirs.run()
    ours.stop()
    theirs.stop()
    return {
        "op": op,
        "batch": batch,
        "base": base,
        "threads": threads,
        "antumbra_ms": round(ours.wall, 3),
        "pytorch_ms": round(theirs.wall, 3),
        "ratio": round(ours.wall / theirs.wall, 3),
        "antumbra_cpu_ms": round(ours.cpu, 3),
        "pytorch_cpu_ms": round(theirs.cpu, 3),
        "cpu_ratio": round(ours.cpu / theirs.cpu, 3),
        "antumbra_mb": ours.memory,
        "pytorch_mb": theirs.memory,
        "memory_ratio": round(ours.memory / theirs.memory, 3),
        "difference": theirs.difference,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worker", help="the compiled worker.rs")
    parser.add_argument("folder", type=Path, help="where weights and results go")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--ops", nargs="+", default=["forward", "input", "weights"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 16])
    parser.add_argument("--bases", nargs="+", type=int, default=[32, 64])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--busy", action="store_true", help="measure although the machine has other work")
    options = parser.parse_args()
    load = os.getloadavg()[0] if options.busy else idle()
    subprocess.run([options.worker, str(options.folder), "write"], check=True)
    rows = []
    for threads in options.threads:
        for base in options.bases:
            for op in options.ops:
                for batch in options.batches:
                    row = compare(options.folder, options.worker, op, batch, base, threads, options.repeats)
                    rows.append(row)
                    print(
                        f"{op:8} batch {batch:2} base {base} threads {threads}: "
                        f"{row['antumbra_ms']:8.1f} ms, PyTorch {row['pytorch_ms']:8.1f} ms, ratio {row['ratio']:.2f} "
                        f"(CPU {row['cpu_ratio']:.2f}, memory {row['memory_ratio']:.2f})",
                        flush=True,
                    )
    import torch

    result = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "torch": torch.__version__,
        "cpu": next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "?"),
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "rows": rows,
    }
    path = options.folder / "against_pytorch.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"worst ratio {max(row['ratio'] for row in rows):.2f}, worst memory {max(row['memory_ratio'] for row in rows):.2f}: {path}")


main()
