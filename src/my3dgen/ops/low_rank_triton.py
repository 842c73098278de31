"""The first half of a low-rank change with factors per image: convolutions to a few channels (CUDA, Triton).

Twin of `_conv_each` in `my3dgen.ops.modulated_conv`, without derivatives. A grouped convolution to three
channels leaves tensor cores idle and reads the features nine times; here a program gathers the taps of a
strip of pixels from the cache and multiplies them at once.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

PIXELS = 64
"""Pixels of a program."""
DEPTH = 64
"""Channels that are multiplied at once, at most."""


@triton.jit
@no_type_check  # the compiler reads the function itself
def _reduce(
    features, factors, out, height, width, new_height, new_width,
    CHANNELS: tl.constexpr, INNER: tl.constexpr, K: tl.constexpr, UP: tl.constexpr,
    PIXELS: tl.constexpr, DEPTH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """`factors` are `image tap channel inner`; results `image pixel inner`, in float32."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    row, column = pixel // new_width, pixel % new_width
    inside = pixel < new_height * new_width
    depth, inner = tl.arange(0, DEPTH), tl.arange(0, WIDE)
    features += image * height * width * CHANNELS
    factors += image * K * K * CHANNELS * INNER
    total = tl.zeros((PIXELS, WIDE), tl.float32)
    for tap in range(K * K):
        if UP:  # the result's pixel (2 y + i, 2 x + j) hears of the source's (y, x) through tap (i, j)
            y, x = row - tap // K, column - tap % K
            heard = inside & (y % 2 == 0) & (x % 2 == 0) & (y >= 0) & (x >= 0)
            y, x = y // 2, x // 2
        else:
            y, x = row + tap // K - K // 2, column + tap % K - K // 2
            heard = inside & (y >= 0) & (x >= 0)
        heard = heard & (y < height) & (x < width)
        for first in range(0, CHANNELS, DEPTH):
            real = first + depth < CHANNELS
            seen = tl.load(
                features + ((y * width + x) * CHANNELS + first)[:, None] + depth[None],
                mask=heard[:, None] & real[None],
                other=0.0,
            )
            factor = tl.load(
                factors + ((tap * CHANNELS + first + depth) * INNER)[:, None] + inner[None],
                mask=real[:, None] & (inner < INNER)[None],
                other=0.0,
            )
            total = tl.dot(seen, factor, total, input_precision="ieee")
    place = (image * new_height * new_width + pixel)[:, None] * INNER + inner[None]
    tl.store(out + place, total, mask=inside[:, None] & (inner < INNER)[None])


@torch.no_grad()
def conv_each_fused(
    x: Float[Tensor, "batch inputs height width"],
    weights: Float[Tensor, "batch inner inputs k k"],
    upsample: bool,
) -> Float[Tensor, "batch inner new_height new_width"]:
    """Each image convolved with its own weights, in float32 and channels-last.

    The side stays, or becomes 2 * height + 1 by a transposed convolution with stride 2.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    images, channels, height, width = x.shape
    inner, k = weights.shape[1], weights.shape[-1]
    size = (2 * height + 1, 2 * width + 1) if upsample else (height, width)
    factors = weights.to(x.dtype).permute(0, 3, 4, 2, 1).contiguous()
    out = torch.empty(
        (images, inner, *size), device=x.device, dtype=torch.float32, memory_format=torch.channels_last
    )
    _reduce[(triton.cdiv(size[0] * size[1], PIXELS), images)](
        x, factors, out, height, width, *size,
        channels, inner, k, upsample, PIXELS, max(16, min(DEPTH, triton.next_power_of_2(channels))),
        max(16, triton.next_power_of_2(inner)),
    )  # fmt: skip
    return out
