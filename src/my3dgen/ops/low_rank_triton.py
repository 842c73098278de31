"""The first half of a low-rank change with factors per image: convolutions to a few channels (CUDA, Triton).

Twin of `_conv_each` in `my3dgen.ops.modulated_conv`, without derivatives. A grouped convolution to three
channels leaves tensor cores idle and reads the features nine times. Here a program goes down a strip and
reads a row once: one product per row of taps gives every pixel's shares of the results around it,

    shares[pixel, (j, inner)] = features[pixel, :] @ factors[i, :, (j, inner)]

which are summed over three rows by the products themselves, and over three columns by a shift of the few
shares instead of the many features.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

PROGRAMS = 128
"""As many at least, if there are rows enough: about one per multiprocessor."""
ROWS = 16
"""Rows of the features that a program goes down, at most."""


@triton.jit
@no_type_check  # the compiler reads the function itself
def _factor(factors, row, first, CHANNELS: tl.constexpr, DEPTH: tl.constexpr, WIDE: tl.constexpr):
    """`channel share`: the factors of a row of taps, from channel `first`."""
    channel = first + tl.arange(0, DEPTH)
    place = ((row * CHANNELS + channel) * WIDE)[:, None] + tl.arange(0, WIDE)[None]
    return tl.load(factors + place, mask=(channel < CHANNELS)[:, None], other=0.0)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _store(
    shares, out, row, x, inside, new_width,
    INNER: tl.constexpr, UP: tl.constexpr, PIXELS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Sum the shares of a row of the result over its columns of taps.

    With UP a pixel has two results: its own shares of the even one, and of the odd one, are taps 0 and 1, and
    its left neighbour's share of the even one is tap 2.
    """
    EACH: tl.constexpr = WIDE // 4
    tap = tl.arange(0, WIDE)[None] // EACH
    source = tl.arange(0, PIXELS)[:, None] + (0 - tap // 2 if UP else tap - 1)
    moved = tl.gather(shares, tl.minimum(tl.maximum(source, 0), PIXELS - 1), 0)
    if UP:
        column = tl.arange(0, 2 * EACH)
        total = tl.sum(tl.reshape(moved, (PIXELS, 2, 2 * EACH)), 1)
        x = 2 * x[:, None] + (column // EACH)[None]
        inner = column % EACH
    else:
        total = tl.sum(tl.reshape(moved, (PIXELS, 4, EACH)), 1)
        x = x[:, None]
        inner = tl.arange(0, EACH)
    mask = inside[:, None] & (x < new_width) & (inner < INNER)[None]
    tl.store(out + (row * new_width + x) * INNER + inner[None], total, mask=mask)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _reduce(
    features, factors, out, height, width, new_height, new_width, blocks, step,
    CHANNELS: tl.constexpr, INNER: tl.constexpr, UP: tl.constexpr,
    ROWS: tl.constexpr, PIXELS: tl.constexpr, DEPTH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """`factors` are `image tap_row channel (tap_column inner)`; results `image pixel inner`, in float32."""
    image = tl.program_id(1).to(tl.int64)
    top = tl.program_id(0) // blocks * ROWS
    start = tl.program_id(0) % blocks * step
    x = start - 1 + tl.arange(0, PIXELS)
    there = (x >= 0) & (x < width)
    owned = (x >= start) & (x < start + step)
    depth = tl.arange(0, DEPTH)
    features += image * height * width * CHANNELS
    factors += image * 3 * CHANNELS * WIDE
    out += image * new_height * new_width * INNER
    FIRST: tl.constexpr = 0 if UP else 2  # the row of taps of the row that is finished next
    WHOLE: tl.constexpr = DEPTH >= CHANNELS
    if WHOLE:
        f = _factor(factors, FIRST, 0, CHANNELS, DEPTH, WIDE)
        g = _factor(factors, 1, 0, CHANNELS, DEPTH, WIDE)
        h = _factor(factors, 2 - FIRST, 0, CHANNELS, DEPTH, WIDE)
    # shares of three rows of the result: y - 1, y, y + 1, or with UP 2 y, 2 y + 1, 2 y + 2
    a = tl.zeros((PIXELS, WIDE), tl.float32)
    b = tl.zeros((PIXELS, WIDE), tl.float32)
    for round in range(ROWS + (1 if UP else 2)):
        y = top - 1 + round
        c = tl.zeros((PIXELS, WIDE), tl.float32)
        heard = there & (y >= 0) & (y < height)
        pixel = (y * width + x) * CHANNELS
        if WHOLE:
            mask = heard[:, None] & (depth < CHANNELS)[None]
            seen = tl.load(features + pixel[:, None] + depth[None], mask=mask, other=0.0)
            a = tl.dot(seen, f, a, input_precision="ieee")
            b = tl.dot(seen, g, b, input_precision="ieee")
            c = tl.dot(seen, h, c, input_precision="ieee")
        else:
            for first in range(0, CHANNELS, DEPTH):
                mask = heard[:, None] & (first + depth < CHANNELS)[None]
                seen = tl.load(features + (pixel + first)[:, None] + depth[None], mask=mask, other=0.0)
                f = _factor(factors, FIRST, first, CHANNELS, DEPTH, WIDE)
                g = _factor(factors, 1, first, CHANNELS, DEPTH, WIDE)
                h = _factor(factors, 2 - FIRST, first, CHANNELS, DEPTH, WIDE)
                a = tl.dot(seen, f, a, input_precision="ieee")
                b = tl.dot(seen, g, b, input_precision="ieee")
                c = tl.dot(seen, h, c, input_precision="ieee")
        if UP:
            inside = owned & (y >= top)
            _store(a, out, 2 * y, x, inside & (y <= height), new_width, INNER, UP, PIXELS, WIDE)
            _store(b, out, 2 * y + 1, x, inside & (y < height), new_width, INNER, UP, PIXELS, WIDE)
            a, b = c, tl.zeros((PIXELS, WIDE), tl.float32)
        else:
            inside = owned & (y > top) & (y <= height)
            _store(a, out, y - 1, x, inside, new_width, INNER, UP, PIXELS, WIDE)
            a, b = b, c


def _blocks(images: int, channels: int, rows: int, columns: int, wide: int, size: int) -> dict[str, int]:
    """Shape of a program, for features of `size` bytes; all it shares stays within 96 KB."""
    depth = max(16, min(256 if channels <= 256 else 128, 4096 // wide, triton.next_power_of_2(channels)))
    if size > 2:  # without tensor cores
        depth = min(depth, 32)
    pixels = 128 if size == 2 and wide == 16 and depth <= 128 and columns > 62 else 64
    blocks = triton.cdiv(columns, pixels - 2)
    share = max(1, min(ROWS, images * blocks * rows // PROGRAMS))
    return {
        "ROWS": 2 ** (share.bit_length() - 1),
        "PIXELS": pixels,
        "DEPTH": depth,
        "num_warps": 4 if wide <= 32 else 8,
        "num_stages": 3 if depth <= 128 and pixels == 64 else 2,
    }


@torch.no_grad()
def conv_each_fused(
    x: Float[Tensor, "batch inputs height width"],
    weights: Float[Tensor, "batch inner inputs 3 3"],
    upsample: bool,
) -> Float[Tensor, "batch inner new_height new_width"]:
    """Each image convolved with its own weights, in float32 and channels-last.

    The side stays, or becomes 2 * height + 1 by a transposed convolution with stride 2.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    images, channels, height, width = x.shape
    inner = weights.shape[1]
    size = (2 * height + 1, 2 * width + 1) if upsample else (height, width)
    rows, columns = (height + 1, width + 1) if upsample else size
    each = max(4, triton.next_power_of_2(inner))
    factors = x.new_zeros(images, 3, channels, 4, each)
    factors[..., :3, :inner] = weights.permute(0, 3, 2, 4, 1)
    out = torch.empty(
        (images, inner, *size), device=x.device, dtype=torch.float32, memory_format=torch.channels_last
    )
    shape = _blocks(images, channels, rows, columns, 4 * each, x.element_size())
    blocks = triton.cdiv(columns, shape["PIXELS"] - 2)
    _reduce[(triton.cdiv(rows, shape["ROWS"]) * blocks, images)](
        x, factors, out, height, width, *size, blocks, triton.cdiv(columns, blocks),
        channels, inner, upsample, WIDE=4 * each, **shape,
    )  # fmt: skip
    return out
