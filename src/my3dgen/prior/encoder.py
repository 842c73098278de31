"""Image to latent in one pass: where inversion starts, and what shapes W while a prior is trained."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class EncoderConfig:
    """Size of an encoder."""

    img_resolution: int = 256
    """Side of its input, pixels; at least 16."""
    w_dim: int = 256
    """Width of the latent."""
    widths: tuple[int, ...] = (32, 64, 96, 128, 160, 192)
    """Channels after each halving; the last resolution is flattened."""


class Residual(nn.Module):
    """Two normalised convolutions around a shortcut."""

    def __init__(self, width: int):
        super().__init__()
        self.norm0, self.norm1 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv0 = nn.Conv2d(width, width, 3, padding=1)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv1.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Shape is kept."""
        silu = nn.functional.silu
        return x + self.conv1(silu(self.norm1(self.conv0(silu(self.norm0(x))))))


class Encoder(nn.Module):
    """A convolutional network from one face crop to a W latent, ."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        inputs = 3
        for stage, width in enumerate(config.widths):
            layers.append(nn.Conv2d(inputs, width, 4, stride=2, padding=1))
            if stage > 0:
                layers.append(Residual(width))
            inputs = width
        self.trunk = nn.Sequential(*layers)
        side = config.img_resolution >> len(config.widths)
        self.norm = nn.GroupNorm(8, inputs)
        self.head = nn.Linear(inputs * side * side, config.w_dim)
        # latents of about unit variance from the start, as the style layers expect
        nn.init.normal_(self.head.weight, std=1.7 * (inputs * side * side) ** -0.5)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], *, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "batch w_dim"]:
        """Latents for images in [-1, 1] on the prior's background."""
        device = images.device.type
        x = images.to(memory_format=torch.channels_last)
        with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
            x = nn.functional.silu(self.norm(self.trunk(x)))
        return self.head(x.float().flatten(1))
