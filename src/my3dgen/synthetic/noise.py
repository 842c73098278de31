"""Common random numbers: every head reads the same noise, so that pictures are functions of factors."""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

CHANNELS = 4
_SIDE = 64


@functools.lru_cache(maxsize=8)
def _table(device: torch.device) -> Tensor:
    rng = torch.Generator().manual_seed(20)
    table = torch.rand(CHANNELS, _SIDE, _SIDE, _SIDE, generator=rng) * 2 - 1
    return F.pad(table[None], (0, 1, 0, 1, 0, 1), mode="circular").to(device)


def value_noise(
    points: Float[Tensor, "*point 3"], frequency: float, offset: float = 0.0
) -> Float[Tensor, "*point 4"]:
    """Four independent channels of smooth noise in [-1, 1], read from one tileable 64^3 table.

    `frequency` is table cells per unit of `points`; `offset` (cells) picks another part of the table.
    A table is several times cheaper than hashing lattice points and is the same on every device.
    """
    shift = torch.tensor([7.13, 3.71, 11.57], device=points.device) * offset
    cells = torch.remainder(points * frequency + shift, float(_SIDE)) * (2.0 / _SIDE) - 1.0
    read = F.grid_sample(
        _table(points.device), cells.reshape(1, 1, 1, -1, 3), align_corners=True, padding_mode="border"
    )
    return read[0, :, 0, 0].T.reshape(*points.shape[:-1], CHANNELS)


def fractal_noise(
    points: Float[Tensor, "*point 3"], frequency: float, offset: float = 0.0, octaves: int = 3
) -> Float[Tensor, "*point 4"]:
    """Octaves of `value_noise`, each at twice the frequency and half the height of the one before."""
    return torch.stack(
        [value_noise(points, frequency * 2**k, offset + 5.0 * k) * 0.5**k for k in range(octaves)]
    ).sum(0)


@functools.lru_cache(maxsize=64)
def common_random(*shape: int, seed: int, device: str | torch.device = "cpu") -> Tensor:
    """Uniform numbers in [0, 1) that are the same for every head: drawn on the CPU, then moved and kept."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


@functools.lru_cache(maxsize=64)
def common_normal(*shape: int, seed: int, device: str | torch.device = "cpu") -> Tensor:
    """Standard normal numbers that are the same for every head: drawn on the CPU, then moved and kept."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def smoothstep(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """0 below `low`, 1 above `high`, a smooth cubic between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def bump(x: Tensor, width: float | Tensor) -> Tensor:
    """A Gaussian of height 1 at x = 0."""
    return torch.exp(-0.5 * (x / width) ** 2)
