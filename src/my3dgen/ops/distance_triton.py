"""The distance of two feature maps' unit vectors, one kernel each way, channels-last (CUDA, Triton).

Twin of the readable case in `my3dgen.perceptual.stage_distance`. A program holds all channels of a few
pixels, so each way reads both maps once; backward computes the dot products again. Of many maps the numbered
ones are read where they are.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

ELEMENTS = 4096
"""Pixels times channels a program handles at once, in registers, of each map."""
TINY = tl.constexpr(1e-10)
"""Added to squared lengths, as in the readable case."""


@triton.jit
@no_type_check  # the compiler reads the function itself
def _places(pixels, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr):
    """`pixel channel`: where a program's numbers are within an image, and which of them exist."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, BLOCK)
    return pixel[:, None] * CHANNELS + channel[None], (pixel < pixels)[:, None] & (channel < CHANNELS)[None]


@triton.jit
@no_type_check  # the compiler reads the function itself
def _load(features, image, stride, pixels, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr):
    """`pixel channel`: a program's part of an image, in float32; 0 beyond its pixels and channels."""
    place, mask = _places(pixels, CHANNELS, BLOCK, PIXELS)
    return tl.load(features + image * stride + place, mask=mask, other=0.0).to(tl.float32)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _counterpart(rows, image):
    """Which map of the others an image is compared with."""
    other = image
    if rows is not None:
        other = tl.load(rows + image).to(tl.int64)
    return other


@triton.jit
@no_type_check  # the compiler reads the function itself
def _forward(
    a, b, rows, out, a_stride, b_stride, pixels,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    x = _load(a, image, a_stride, pixels, CHANNELS, BLOCK, PIXELS)
    y = _load(b, _counterpart(rows, image), b_stride, pixels, CHANNELS, BLOCK, PIXELS)
    aa, bb, ab = tl.sum(x * x, 1), tl.sum(y * y, 1), tl.sum(x * y, 1)
    ra, rb = tl.rsqrt(aa + TINY), tl.rsqrt(bb + TINY)
    apart = aa * ra * ra + bb * rb * rb - 2 * ab * ra * rb  # 0 beyond the pixels
    tl.store(out + image * tl.num_programs(0) + tl.program_id(0), tl.sum(apart, 0) / pixels)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _backward(
    gradient, a, b, rows, by_a, by_b, gradient_stride, a_stride, b_stride, pixels,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    incoming = 2 * tl.load(gradient + image * gradient_stride) / pixels
    x = _load(a, image, a_stride, pixels, CHANNELS, BLOCK, PIXELS)
    y = _load(b, _counterpart(rows, image), b_stride, pixels, CHANNELS, BLOCK, PIXELS)
    aa, bb, ab = tl.sum(x * x, 1), tl.sum(y * y, 1), tl.sum(x * y, 1)
    ra, rb = tl.rsqrt(aa + TINY), tl.rsqrt(bb + TINY)
    cosine = ab * ra * rb
    x, y = x * ra[:, None], y * rb[:, None]  # of length 1
    place, mask = _places(pixels, CHANNELS, BLOCK, PIXELS)
    place += image * pixels * CHANNELS
    # The derivative of ra by aa is -ra^3 / 2. So that of the distance by aa is ra^2 - aa ra^4 + ab rb ra^3,
    # which is ra^2 (ra^2 TINY + cosine); by ab it is -2 ra rb. Those of aa and ab by a are 2 a and b.
    if by_a is not None:
        found = (incoming * ra)[:, None] * (x * (ra * ra * TINY + cosine)[:, None] - y)
        tl.store(by_a + place, found.to(by_a.dtype.element_ty), mask=mask)
    if by_b is not None:
        found = (incoming * rb)[:, None] * (y * (rb * rb * TINY + cosine)[:, None] - x)
        tl.store(by_b + place, found.to(by_b.dtype.element_ty), mask=mask)


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, rows: Tensor | None) -> Tensor:
        ctx.save_for_backward(a, b, rows)
        images, channels, height, width = a.shape
        block, count = _blocks(channels)
        programs = triton.cdiv(height * width, count)
        sums = torch.empty((images, programs), device=a.device, dtype=torch.float32)
        _forward[(programs, images)](
            a, b, rows, sums, a.stride(0), b.stride(0), height * width, channels, block, count
        )
        return sums.sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        a, b, rows = ctx.saved_tensors
        images, channels, height, width = a.shape
        block, count = _blocks(channels)
        by_a, by_b = (
            torch.empty_like(x, memory_format=torch.channels_last) if needed else None
            for x, needed in zip((a, b), ctx.needs_input_grad[:2], strict=True)
        )
        _backward[(triton.cdiv(height * width, count), images)](
            gradient, a, b, rows, by_a, by_b, gradient.stride(0), a.stride(0), b.stride(0), height * width,
            channels, block, count,
        )  # fmt: skip
        return by_a, by_b, None


def _blocks(channels: int) -> tuple[int, int]:
    """Channels of a program, with those that do not exist, and its pixels."""
    block = triton.next_power_of_2(channels)
    return block, max(1, ELEMENTS // block)


def stage_distance_fused(
    a: Float[Tensor, "a_batch channels height width"],
    b: Float[Tensor, "b_batch channels height width"],
    rows: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, " batch"]:
    """Mean over pixels of |a/|a| - b/|b||^2, in float32, of every a with its row of `b`.

    Without `rows` they go in pairs, and either batch may be 1. First derivatives only, by b without `rows`.
    """
    if rows is not None and b.requires_grad:
        b, rows = b.index_select(0, rows), None
    a, b = (x.contiguous(memory_format=torch.channels_last) for x in (a, b))
    if rows is None:
        batch = max(len(a), len(b))
        a, b = (x.expand(batch, -1, -1, -1) for x in (a, b))
    return _Distance.apply(a, b, rows)
