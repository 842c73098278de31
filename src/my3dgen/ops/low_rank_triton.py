"""The first half of a low-rank change with factors per image: convolutions to a few channels (CUDA, Triton).

Twin of `_conv_each` in `my3dgen.ops.modulated_conv`, without derivatives. A grouped convolution to three
channels leaves tensor cores idle and reads the features nine times. Here a program goes down a strip and
reads a row once: one product gives every pixel's shares of the results around it,

    shares[pixel, (i, j, inner)] = features[pixel, :] @ factors[:, (i, j, inner)]

and the few shares, not the many features, are shifted by the taps' columns j and summed.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

PIXELS = 64
"""Columns of the features that a program reads, of which it owns all but the first and the last."""
DEPTH = 256
"""Channels that are multiplied at once, at most: 64 KB of features, 32 KB of factors."""
ROWS = 16
"""Rows of the features that a program goes down, at most."""
PROGRAMS = 128
"""As many at least, if there are rows enough: about one per multiprocessor."""


@triton.jit
@no_type_check  # the compiler reads the function itself
def _factor(factors, first, CHANNELS: tl.constexpr, DEPTH: tl.constexpr):
    """`channel share`, from channel `first`."""
    channel = first + tl.arange(0, DEPTH)
    place = (channel * 64)[:, None] + tl.arange(0, 64)[None]
    return tl.load(factors + place, mask=(channel < CHANNELS)[:, None], other=0.0)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _of_row(shares, row, PIXELS: tl.constexpr):
    """`pixel (j, inner)`: the shares through one row of taps."""
    i = tl.arange(0, 4)[None, :, None]
    return tl.sum(tl.where(i == row, tl.reshape(shares, (PIXELS, 4, 16)), 0.0), 1)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _store(
    shares, out, row, x, inside, first, new_width, INNER: tl.constexpr, UP: tl.constexpr, PIXELS: tl.constexpr
):  # fmt: skip
    """Sum a row's shares over the columns of taps.

    With UP a pixel has two results: its taps 0 and 1 are shares of the even and the odd one, and tap 2 of its
    left neighbour is another share of the even one.
    """
    tap = tl.arange(0, 16)[None] // 4
    source = tl.arange(0, PIXELS)[:, None] + (0 - tap // 2 if UP else tap - 1)
    moved = tl.gather(shares, tl.minimum(tl.maximum(source, 0), PIXELS - 1), 0)
    if UP:
        column = tl.arange(0, 8)
        total = tl.sum(tl.reshape(moved, (PIXELS, 2, 8)), 1)
        x = 2 * x[:, None] + (column // 4)[None]
        inner = first + column % 4
    else:
        total = tl.sum(tl.reshape(moved, (PIXELS, 4, 4)), 1)
        x = x[:, None]
        inner = first + tl.arange(0, 4)
    mask = inside[:, None] & (x < new_width) & (inner < INNER)[None]
    tl.store(out + (row * new_width + x) * INNER + inner[None], total, mask=mask)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _reduce(
    features, factors, out, height, width, new_height, new_width, blocks, step,
    CHANNELS: tl.constexpr, INNER: tl.constexpr, UP: tl.constexpr,
    ROWS: tl.constexpr, PIXELS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """`factors` are as in `conv_each_fused`; results `image pixel inner`, in float32."""
    PARTS: tl.constexpr = (INNER + 3) // 4
    part = tl.program_id(0) % PARTS
    block = tl.program_id(0) // PARTS % blocks
    top = tl.program_id(0) // PARTS // blocks * ROWS
    image = tl.program_id(1).to(tl.int64)
    x = block * step - 1 + tl.arange(0, PIXELS)
    there = (x >= 0) & (x < width)
    owned = (x >= block * step) & (x < (block + 1) * step)
    depth = tl.arange(0, DEPTH)
    features += image * height * width * CHANNELS
    factors += (image * PARTS + part) * CHANNELS * 64
    out += image * new_height * new_width * INNER
    if DEPTH >= CHANNELS:
        factor = _factor(factors, 0, CHANNELS, DEPTH)
    # what is known of results of row y - 1 and y, or with UP of row 2 y
    early = tl.zeros((PIXELS, 16), tl.float32)
    late = tl.zeros((PIXELS, 16), tl.float32)
    for round in range(ROWS + (1 if UP else 2)):
        y = top - 1 + round
        heard = there & (y >= 0) & (y < height)
        pixel = (y * width + x) * CHANNELS
        shares = tl.zeros((PIXELS, 64), tl.float32)
        if DEPTH >= CHANNELS:
            mask = heard[:, None] & (depth < CHANNELS)[None]
            seen = tl.load(features + pixel[:, None] + depth[None], mask=mask, other=0.0)
            shares = tl.dot(seen, factor, shares, input_precision="ieee")
        else:
            for first in range(0, CHANNELS, DEPTH):
                mask = heard[:, None] & (first + depth < CHANNELS)[None]
                seen = tl.load(features + (pixel + first)[:, None] + depth[None], mask=mask, other=0.0)
                factor = _factor(factors, first, CHANNELS, DEPTH)
                shares = tl.dot(seen, factor, shares, input_precision="ieee")
        if UP:  # the source's (y, x) is heard by the result's (2 y + i, 2 x + j)
            even = early + _of_row(shares, 0, PIXELS)
            inside = owned & (y >= top) & (y <= height)
            _store(even, out, 2 * y, x, inside, part * 4, new_width, INNER, UP, PIXELS)
            odd = _of_row(shares, 1, PIXELS)
            inside = inside & (y < height)
            _store(odd, out, 2 * y + 1, x, inside, part * 4, new_width, INNER, UP, PIXELS)
            early = _of_row(shares, 2, PIXELS)
        else:  # by (y + 1 - i, x + 1 - j)
            done = early + _of_row(shares, 2, PIXELS)
            inside = owned & (y > top) & (y <= height)
            _store(done, out, y - 1, x, inside, part * 4, new_width, INNER, UP, PIXELS)
            early = late + _of_row(shares, 1, PIXELS)
            late = _of_row(shares, 0, PIXELS)


def _shape(x: Tensor, rows: int, blocks: int) -> dict[str, int]:
    """Of a program for `rows` rows in `blocks` blocks of columns."""
    images, channels = x.shape[:2]
    depth = max(16, triton.next_power_of_2(channels))
    if x.element_size() > 2:  # without tensor cores
        depth = min(depth, 32)
    elif depth > DEPTH or (x.is_cuda and _is_small(x.device)):
        depth = min(depth, DEPTH // 2)
    share = max(1, min(ROWS, images * blocks * rows // PROGRAMS))
    return {
        "ROWS": 2 ** (share.bit_length() - 1),
        "PIXELS": PIXELS,
        "DEPTH": depth,
        "num_stages": 2 if depth == DEPTH else 3,
    }


def _is_small(device: torch.device) -> bool:
    """Whether a GPU's programs share too little memory for `DEPTH` channels."""
    return torch.cuda.get_device_properties(device).shared_memory_per_multiprocessor < 120 * 1024


@torch.no_grad()
def conv_each_fused(
    x: Float[Tensor, "batch inputs height width"],
    factors: Float[Tensor, "batch parts inputs 4 4 4"],
    inner: int,
    upsample: bool,
) -> Float[Tensor, "batch inner new_height new_width"]:
    """Each image convolved with its own weights, in float32 and channels-last.

    `factors` are the weights in the dtype of `x`, those of four results a part, `channel i j result`, with
    zeros for the fourth taps and beyond the `inner` results. The side stays, or becomes 2 * height + 1 by a
    transposed convolution with stride 2.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    images, channels, height, width = x.shape
    size = (2 * height + 1, 2 * width + 1) if upsample else (height, width)
    rows, columns = (height + 1, width + 1) if upsample else size
    out = torch.empty(
        (images, inner, *size), device=x.device, dtype=torch.float32, memory_format=torch.channels_last
    )
    parts, blocks = triton.cdiv(inner, 4), triton.cdiv(columns, PIXELS - 2)
    shape = _shape(x, rows, blocks)
    _reduce[(triton.cdiv(rows, shape["ROWS"]) * blocks * parts, images)](
        x, factors, out, height, width, *size, blocks, triton.cdiv(columns, blocks),
        channels, inner, upsample, **shape,
    )  # fmt: skip
    return out
