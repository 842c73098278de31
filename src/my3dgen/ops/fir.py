"""Low-pass filtering with a change of resolution (EG3D spec 1.2)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def lowpass_filter() -> Float[Tensor, "4 4"]:
    """The separable filter [1, 3, 3, 1], normalised to sum 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def upfirdn(
    x: Float[Tensor, "batch channels height width"],
    taps: Float[Tensor, "rows cols"],
    *,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    gain: float = 1.0,
) -> Float[Tensor, "batch channels new_height new_width"]:
    """Insert up-1 zeros after each sample, pad, filter with `taps` * gain, keep every `down`-th sample.

    The readable reference of `upsample2d` and `my3dgen.ops.low_pass.low_pass`, which are what runs.
    `padding` is (left, right, top, bottom) in samples of the up-sampled image.
    """
    batch, channels, height, width = x.shape
    if up > 1:
        x = x.reshape(batch, channels, height, 1, width, 1)
        x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1)).reshape(batch, channels, height * up, width * up)
    x = F.pad(x, padding)
    kernel = (taps * gain).flip(0, 1).to(x.dtype).expand(channels, 1, *taps.shape)
    return F.conv2d(x, kernel, stride=down, groups=channels)


def upsample2d(
    x: Float[Tensor, "batch channels height width"], taps: Float[Tensor, "4 4"]
) -> Float[Tensor, "batch channels new_height new_width"]:
    """An image at twice the resolution. `taps` must be symmetric."""
    # equal to upfirdn(up=2, padding=(2, 1, 2, 1), gain=4) without visiting the inserted zeros
    if x.is_cuda:  # the filter is bilinear interpolation, but for zeros instead of repeats at the border
        padded = F.pad(x, (1, 1, 1, 1))
        doubled = F.interpolate(padded, scale_factor=2, mode="bilinear", align_corners=False)
        return doubled[..., 2:-2, 2:-2]
    kernel = (taps * 4).to(x.dtype).expand(x.shape[1], 1, 4, 4)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])
