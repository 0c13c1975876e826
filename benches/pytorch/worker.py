"""Times one pass of the network in PyTorch; obeys the same lines as worker.rs."""

import resource
import sys
import time

import torch
from network import UNet, load_safetensors


def main():
    folder, op, batch, base, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    torch.set_num_threads(threads)
    tensors = load_safetensors(f"{folder}/network{base}.safetensors")
    noisy = tensors.pop("noisy")[:batch].clone()
    level = tensors.pop("level")[:batch].clone()
    expected = tensors.pop("expected")
    network = UNet(tensors, [base, 2 * base, 2 * base, 2 * base], patch=1, blocks=2, groups=8, data_std=0.5)
    for parameter in network.parameters():
        parameter.requires_grad_(op == "weights")

    def run():
        if op == "forward":
            with torch.no_grad():
                return network(noisy, level)
        image = noisy.clone().requires_grad_(op == "input")
        network.zero_grad(set_to_none=True)
        output = network(image, level)
        output.square().sum().backward()
        return output.detach()

    worst = (run()[:1] - expected[:1]).abs().max().item() / expected.abs().max().item()
    print(f"ready {worst:.3e}", flush=True)
    for _ in sys.stdin:
        cpu, start = time.process_time(), time.perf_counter()
        run()
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{1e3 * wall:.4f} {1e3 * cpu:.4f} {memory:.1f}", flush=True)


main()
