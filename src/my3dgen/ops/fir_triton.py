"""The [1, 3, 3, 1] low-pass filter at stride 1, channels-last, as one kernel (CUDA, Triton).

Twin of the stride-1 case in `my3dgen.ops.fir`. The filter is linear and symmetric, so its adjoint is
itself with another offset: derivatives of any order work. Without derivatives the same kernel also does what
follows in a layer, norm, noise, bias and leaky ReLU (`my3dgen.ops.finish_triton`), so that filtered features
are written once and never read.

A program goes down a strip: a row of the source is filtered across once and used by four rows of the result.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from my3dgen.ops.finish_triton import GAIN, Few, arguments_of, held_factors, stride_of, tensor_or, with_few

ROWS = 8
"""Rows of the result that a program makes."""
ELEMENTS = 512
"""Pixels times channels of a row, at least: with a few channels a program takes more pixels than 32."""


@triton.jit
@no_type_check  # the compiler reads the function itself
def _across(
    source, y, column, channel, source_height, source_width,
    CHANNELS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Row y of the source, filtered from left to right; zeros beyond its borders."""
    total = tl.zeros((BLOCK_WIDTH, BLOCK_CHANNELS), tl.float32)
    for j in tl.static_range(4):
        x = column + j
        inside = (y >= 0) & (y < source_height) & (x >= 0) & (x < source_width)
        texel = (y * source_width + x) * CHANNELS
        mask = inside[:, None] & (channel < CHANNELS)[None]
        value = tl.load(source + texel[:, None] + channel[None], mask=mask, other=0.0).to(tl.float32)
        total += value * 3.0 if (j == 1 or j == 2) else value
    return total


@triton.jit
@no_type_check  # the compiler reads the function itself
def _filter(
    source, out, norms, biases, noise, few, factors,
    source_height, source_width, height, width, offset, gain, noise_stride, clamp,
    CHANNELS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, ROWS: tl.constexpr,
    FINISH: tl.constexpr, NOISY: tl.constexpr, CLAMPED: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    strips = tl.cdiv(height, ROWS)
    image = (tl.program_id(0) // strips).to(tl.int64)
    top = tl.program_id(0) % strips * ROWS
    column = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    channel = tl.program_id(2) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    real = channel < CHANNELS
    source += image * source_height * source_width * CHANNELS
    if FINISH:
        norm = tl.load(norms + image * CHANNELS + channel, mask=real, other=0.0)
        few += image * height * width * INNER
        factors += image * CHANNELS * INNER
        held = held_factors(factors, channel, CHANNELS, INNER)
        bias = tl.load(biases + image * CHANNELS + channel, mask=real, other=0.0)
    first = column + offset
    a = _across(
        source, top + offset, first, channel, source_height, source_width,
        CHANNELS, BLOCK_WIDTH, BLOCK_CHANNELS,
    )  # fmt: skip
    b = _across(
        source, top + offset + 1, first, channel, source_height, source_width,
        CHANNELS, BLOCK_WIDTH, BLOCK_CHANNELS,
    )  # fmt: skip
    c = _across(
        source, top + offset + 2, first, channel, source_height, source_width,
        CHANNELS, BLOCK_WIDTH, BLOCK_CHANNELS,
    )  # fmt: skip
    for round in range(ROWS):
        row = top + round
        d = _across(
            source, row + offset + 3, first, channel, source_height, source_width,
            CHANNELS, BLOCK_WIDTH, BLOCK_CHANNELS,
        )  # fmt: skip
        total = (a + 3.0 * (b + c) + d) * (gain / 64)
        there = (column < width) & (row < height)
        if FINISH:
            if INNER:
                total = with_few(
                    total, few, factors, held, row * width + column, there, channel, CHANNELS, INNER
                )
            total = total * norm[None] + bias[None]
            if NOISY:
                at = noise + image * noise_stride + row * width + column
                total += tl.load(at, mask=there, other=0.0)[:, None]
            total = tl.where(total >= 0, total, total * 0.2) * GAIN
            if CLAMPED:
                total = tl.minimum(tl.maximum(total, -clamp), clamp)
        place = ((image * height + row) * width + column) * CHANNELS
        mask = there[:, None] & real[None]
        tl.store(out + place[:, None] + channel[None], total.to(out.dtype.element_ty), mask=mask)
        a, b, c = b, c, d


def _run(
    source: Tensor,
    offset: int,
    height: int,
    width: int,
    gain: float,
    finish: tuple[Tensor, Tensor, Tensor | None, Few | None, float | None] | None = None,
) -> Tensor:
    """Filter, from `offset` before each place; `finish` is norms, biases, noise, the few channels, clamp."""
    source = source.contiguous(memory_format=torch.channels_last)
    images, channels, source_height, source_width = source.shape
    out = torch.empty(
        (images, channels, height, width), device=source.device, dtype=source.dtype,
        memory_format=torch.channels_last,
    )  # fmt: skip
    block_channels = min(64, triton.next_power_of_2(channels))
    block_width = min(max(32, ELEMENTS // block_channels), triton.next_power_of_2(width))
    norms, biases, noise, few, clamp = finish or (source, source, None, None, None)
    few_channels, factors, inner = arguments_of(few, source)
    grid = (
        images * triton.cdiv(height, ROWS), triton.cdiv(width, block_width),
        triton.cdiv(channels, block_channels),
    )  # fmt: skip
    _filter[grid](
        source, out, norms, biases, tensor_or(noise, source), few_channels, factors,
        source_height, source_width, height, width, offset, gain, stride_of(noise), clamp or 0.0,
        channels, block_width, block_channels, ROWS,
        finish is not None, noise is not None, clamp is not None, inner,
    )  # fmt: skip
    return out


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, source: Tensor, offset: int, height: int, width: int, gain: float) -> Tensor:
        ctx.adjoint = (-offset - 3, source.shape[2], source.shape[3], gain)
        return _run(source, offset, height, width, gain)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return _Filter.apply(gradient, *ctx.adjoint), None, None, None, None


def low_pass_fused(x: Tensor, pad: tuple[int, int], gain: float) -> Tensor:
    """Filter `batch channels height width` with zero padding (before, after) on both axes."""
    before, after = pad
    height = x.shape[2] + before + after - 3
    width = x.shape[3] + before + after - 3
    return _Filter.apply(x, -before, height, width, gain)


@torch.no_grad()
def low_pass_and_finish(
    x: Float[Tensor, "batch channels height width"],
    gain: float,
    norms: Float[Tensor, "norms_batch channels"],
    bias: Float[Tensor, " channels"] | Float[Tensor, "batch channels"],
    noise: Float[Tensor, "noise_batch 1 new_height new_width"] | None,
    clamp: float | None,
    few: Few | None = None,
) -> Float[Tensor, "batch channels new_height new_width"]:
    """`finish_fused` of `low_pass_fused` with padding (1, 1), in one kernel; no derivatives.

    `few` is at the new resolution.
    """
    shape = x.shape[:2]
    norms, bias = (tensor.float().expand(shape).contiguous() for tensor in (norms, bias))
    noise = None if noise is None else noise.float().contiguous()
    return _run(x, -1, x.shape[2] - 1, x.shape[3] - 1, gain, (norms, bias, noise, few, clamp))
