"""The U-Net of src/prior/unet.rs in PyTorch, with the weights that the Rust side wrote."""

import json
import math
import struct

import torch
import torch.nn.functional as F

FREQUENCIES = [0.5, 1.0, 2.0, 3.0, 4.5, 6.5, 9.0, 12.0]


def load_safetensors(path):
    """Tensors by name, single precision."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["dtype"] == "F32", name
            start, end = entry["data_offsets"]
            tensors[name] = torch.frombuffer(data[start:end], dtype=torch.float32).reshape(entry["shape"]).clone()
    return tensors


class UNet(torch.nn.Module):
    def __init__(self, weights, widths, patch, blocks, groups, data_std):
        super().__init__()
        self.names = {name: name.replace(".", "_") for name in weights}
        for name, tensor in weights.items():
            self.register_parameter(self.names[name], torch.nn.Parameter(tensor))
        self.widths, self.patch, self.blocks, self.groups = widths, patch, blocks, groups
        self.data_std = data_std

    def weight(self, name):
        return getattr(self, self.names[name])

    def convolve(self, name, x):
        weight = self.weight(f"{name}.weight")
        return F.conv2d(x, weight, self.weight(f"{name}.bias"), padding=weight.shape[2] // 2)

    def linear(self, name, x):
        return F.linear(x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))

    def modulate(self, name, x, embedding):
        scale, shift = self.linear(name, embedding)[:, :, None, None].chunk(2, 1)
        return F.silu(F.group_norm(x, self.groups) * (1 + scale) + shift)

    def block(self, name, x, embedding):
        h = self.convolve(f"{name}.first", self.modulate(f"{name}.before", x, embedding))
        h = self.convolve(f"{name}.second", self.modulate(f"{name}.between", h, embedding))
        return h + (self.convolve(f"{name}.skip", x) if f"{name}.skip.weight" in self.names else x)

    def network(self, x, embedding):
        h = self.convolve("stem", F.pixel_unshuffle(x, self.patch))
        skips = []
        for level in range(len(self.widths)):
            h = F.avg_pool2d(h, 2) if level else h
            for block in range(self.blocks):
                h = self.block(f"down.{level}.{block}", h, embedding)
            skips.append(h)
        for level in reversed(range(len(self.widths) - 1)):
            h = F.interpolate(self.convolve(f"narrow.{level}", h), scale_factor=2, mode="nearest")
            h = torch.cat([h, skips[level]], 1)
            for block in range(self.blocks):
                h = self.block(f"up.{level}.{block}", h, embedding)
        return F.pixel_shuffle(self.convolve("head", self.modulate("last", h, embedding)), self.patch)

    def embed(self, level):
        angles = (level.log() / 4)[:, None] * torch.tensor(FREQUENCIES, device=level.device)
        hidden = F.silu(self.linear("embed.0", torch.cat([angles.cos(), angles.sin()], 1)))
        return F.silu(self.linear("embed.1", hidden))

    def forward(self, noisy, level):
        square, variance = level.square()[:, None, None, None], self.data_std**2
        total = square + variance
        network = self.network(noisy / total.sqrt(), self.embed(level))
        return noisy * (variance / total) + network * (square.sqrt() * self.data_std / total.sqrt())
