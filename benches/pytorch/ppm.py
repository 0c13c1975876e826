"""One step of Principled Posterior Matching with particles in PyTorch, as src/posterior/ppm takes it.

Run alone it is a worker that obeys lines like worker.rs: `ppm.py FOLDER PIXELS PARTICLES DEVICE eager|compile`.
"""

import math
import sys
import time

import torch
from network import UNet, load_safetensors

DATA = 16
STD, SMALLEST, LARGEST = 0.5, 0.005, 80.0


def network(folder, device):
    tensors = load_safetensors(f"{folder}/networkppm.safetensors")
    given = [tensors.pop(name) for name in ("noisy", "level", "expected")]
    net = UNet(tensors, [32, 64, 128], patch=2, blocks=2, groups=8, data_std=STD).to(device)
    return net, [tensor[:1].to(device) for tensor in given]


class Matching:
    """Particles, the auxiliary network and both optimisers."""

    def __init__(self, folder, pixels, particles, device, compiled):
        self.prior, _ = network(folder, device)
        self.auxiliary, _ = network(folder, device)
        self.prior.requires_grad_(False)
        self.denoise = {net: torch.compile(net) if compiled else net for net in (self.prior, self.auxiliary)}
        generator = torch.Generator(device).manual_seed(1)
        self.particles = STD * torch.randn(particles, 1, pixels, pixels, device=device, generator=generator)
        self.rows = torch.randn(DATA, pixels * pixels, device=device, generator=generator) / pixels
        self.moving = torch.nn.Parameter(self.particles)
        self.optimisers = [
            torch.optim.Adam([self.moving], lr=0.05 * STD, betas=(0.9, 0.95), eps=1e-12),
            torch.optim.Adam(self.auxiliary.parameters(), lr=1e-4),
        ]

    def losses(self, net, clean, noisy, level):
        """|x - D(x + s n, s)|^2 of each image and its gradient in x, and the gradients of D's weights if it has any."""
        noisy = noisy.detach().requires_grad_(True)
        residual = clean - self.denoise[net](noisy, level)
        loss = residual.square().flatten(1).sum(1)
        weight = (level**2 + STD**2) / (level * STD) ** 2 / clean.numel()
        (loss * weight).sum().backward()
        through = noisy.grad / weight[:, None, None, None]
        return loss.detach(), 2 * residual.detach() + through

    def step(self):
        x = self.moving.detach()
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        image = x.clone().requires_grad_(True)
        log_likelihood = -0.5 * (image.flatten(1) @ self.rows.T / 0.1).square().sum(1)
        (slope,) = torch.autograd.grad(log_likelihood.sum(), image)
        level = torch.exp(torch.empty(len(x), device=x.device).uniform_(math.log(SMALLEST), math.log(LARGEST)))
        noise = torch.randn_like(x) * level[:, None, None, None]
        clean, noisy, level = torch.cat([x, x]), torch.cat([x + noise, x - noise]), torch.cat([level, level])
        own, own_gradient = self.losses(self.auxiliary, clean, noisy, level)
        of_prior, prior_gradient = self.losses(self.prior, clean, noisy, level)
        precision = math.log(LARGEST / SMALLEST) / level**2
        bound = ((of_prior - own) * precision).mean()
        both = (prior_gradient - own_gradient) * precision[:, None, None, None]
        self.moving.grad = both[: len(x)] / 2 + both[len(x) :] / 2 - slope
        torch.nn.utils.clip_grad_norm_(self.auxiliary.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        return bound


def main():
    folder, pixels, particles, device, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
    net, (noisy, level, expected) = network(folder, device)
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    difference = ((net(noisy, level) - expected).abs().max() / expected.abs().max()).item()
    torch.backends.cudnn.allow_tf32 = tf32
    matching = Matching(folder, pixels, particles, device, mode == "compile")
    for _ in range(5):
        matching.step().item()
    print(f"ready {difference:.3e}", flush=True)
    for _ in sys.stdin:
        cpu, start = time.process_time(), time.perf_counter()
        matching.step().item()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        memory = torch.cuda.max_memory_allocated() / 2**20 if device.startswith("cuda") else 0.0
        print(f"{1e3 * wall:.4f} {1e3 * cpu:.4f} {memory:.1f}", flush=True)


if __name__ == "__main__":
    main()
