"""The dual discriminator: it sees the final image and the upsampled raw render together, and the camera.

EG3D spec 4.1. Nothing of it ships with a prior; it is kept to resume training.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from my3dgen.ops.low_pass import low_pass

CAMERA = 25


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Size of a discriminator."""

    img_resolution: int = 256
    """Side of the images it judges, pixels; a power of two."""
    channel_base: int = 8192
    """Channels at resolution r are min(channel_base / r, channel_max)."""
    channel_max: int = 192
    """Upper limit of channels, also the width of the camera code."""
    mapping_layers: int = 4
    """Dense layers between camera and camera code."""

    def channels(self, resolution: int) -> int:
        """Channels at a resolution."""
        return min(self.channel_base // resolution, self.channel_max)


class EqualConv(nn.Module):
    """Convolution with N(0, 1) weights scaled at run time, optional bias, activation and 2x reduction."""

    def __init__(self, inputs: int, outputs: int, size: int, *, down: bool = False, plain: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = None if plain else nn.Parameter(torch.zeros(outputs))
        self.gain = 1 / math.sqrt(inputs * size * size)
        self.down = down

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """Convolve, activate (unless plain), multiply by `gain`, clamp to 256 times the gain."""
        size = self.weight.shape[-1]
        weight = (self.weight * self.gain).to(x.dtype)
        if self.down and size == 1:
            x = low_pass(x, (1, 1))[:, :, ::2, ::2]
        elif self.down:
            x = low_pass(x, (2, 2))
        stride = 2 if self.down and size > 1 else 1
        padding = 0 if self.down or size == 1 else size // 2
        x = F.conv2d(x, weight, stride=stride, padding=padding)
        if self.bias is None:
            return x * gain
        x = F.leaky_relu(x + self.bias.to(x.dtype)[:, None, None], 0.2) * (math.sqrt(2) * gain)
        return x.clamp(-256 * gain, 256 * gain)


class EqualDense(nn.Module):
    """Dense layer with run-time weight scale; `rate` slows its learning."""

    def __init__(self, inputs: int, outputs: int, *, activate: bool, rate: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain, self.rate, self.activate = rate / math.sqrt(inputs), rate, activate

    def forward(self, x: Tensor) -> Tensor:
        """float32 in and out."""
        x = F.linear(x.float(), self.weight * self.gain, self.bias * self.rate)
        return F.leaky_relu(x, 0.2) * math.sqrt(2) if self.activate else x


class Block(nn.Module):
    """Residual block that halves the resolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv0 = EqualConv(inputs, inputs, 3)
        self.conv1 = EqualConv(inputs, outputs, 3, down=True)
        self.skip = EqualConv(inputs, outputs, 1, down=True, plain=True)

    def forward(self, x: Tensor) -> Tensor:
        """`batch inputs r r` to `batch outputs r/2 r/2`."""
        half = math.sqrt(0.5)
        return self.skip(x, half) + self.conv1(self.conv0(x), half)


class Discriminator(nn.Module):
    """Judges (image, raw image, camera); one logit an image."""

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        widths, resolution = [], config.img_resolution
        while resolution >= 4:
            widths.append(config.channels(resolution))
            resolution //= 2
        self.fromrgb = EqualConv(6, widths[0], 1)
        self.blocks = nn.ModuleList(Block(a, b) for a, b in pairwise(widths))
        top = widths[-1]
        self.conv = EqualConv(top + 1, top, 3)
        self.fc = EqualDense(top * 16, top, activate=True)
        self.out = EqualDense(top, top, activate=False)
        self.embed = EqualDense(CAMERA, top, activate=False)
        self.mapping = nn.ModuleList(
            EqualDense(top, top, activate=True, rate=0.01) for _ in range(config.mapping_layers)
        )

    def camera_code(self, cameras: Float[Tensor, "batch 25"]) -> Float[Tensor, "batch width"]:
        """The direction in feature space that means 'real, seen from this camera'."""
        code = self.embed(cameras)
        code = code * (code.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mapping:
            code = layer(code)
        return code

    def forward(
        self,
        image: Float[Tensor, "batch 3 height width"],
        image_raw: Float[Tensor, "batch 3 low low"],
        cameras: Float[Tensor, "batch 25"],
        *,
        dtype: torch.dtype = torch.float32,
        group: int = 4,
    ) -> Float[Tensor, " batch"]:
        """Logits. `dtype` is that of the convolutions; the batch must divide by `group`."""
        raw = F.interpolate(image_raw, size=image.shape[2:], mode="bilinear", align_corners=False)
        x = torch.cat([image, raw], 1).to(dtype, memory_format=torch.channels_last)
        x = self.fromrgb(x)
        for block in self.blocks:
            x = block(x)
        x = torch.cat([x, deviation(x, group)], 1)
        x = self.conv(x).float().flatten(1)
        x = self.out(self.fc(x))
        return (x * self.camera_code(cameras)).sum(1) / math.sqrt(x.shape[1])


def deviation(x: Float[Tensor, "batch c h w"], group: int) -> Float[Tensor, "batch 1 h w"]:
    """Mean standard deviation within groups of images, as one more channel (EG3D spec 4.1)."""
    batch, channels, height, width = x.shape
    grouped = x.float().reshape(group, batch // group, channels, height, width)
    spread = (grouped.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return spread.repeat(group)[:, None, None, None].expand(batch, 1, height, width).to(x.dtype)
