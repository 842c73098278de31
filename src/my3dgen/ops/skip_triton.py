"""The skip connection of the image branch, one kernel each way, channels-last (CUDA, Triton).

Twin of the readable case in `my3dgen.ops.skip`. Forward, one pass reads the product of toRGB and the image
so far and writes the new image. Backward, one pass reads the image's gradient, and the product if it was
clamped, and writes the gradients of product, bias and former image.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

ELEMENTS = 1024
"""Pixels times channels a program handles at once: part of one row."""


@triton.jit
@no_type_check  # the compiler reads the function itself
def _forward(
    image, contribution, biases, out, clamp, bias_stride, height, width,
    UP: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    number = (tl.program_id(0) // height).to(tl.int64)
    row = tl.program_id(0) % height
    column = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    channel = tl.program_id(2) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    real, inside = channel < CHANNELS, column < width
    mask = inside[:, None] & real[None]
    place = (((number * height + row) * width + column) * CHANNELS)[:, None] + channel[None]
    bias = tl.load(biases + number * bias_stride + channel, mask=real, other=0.0)
    x = tl.load(contribution + place, mask=mask, other=0.0).to(tl.float32) + bias[None]
    if clamp is not None:
        x = tl.where(x > clamp, clamp, tl.where(x < -clamp, -clamp, x))
    if image is not None:
        if UP:  # 3/4 of the nearer row and column, 1/4 of the farther
            total = tl.zeros((BLOCK_WIDTH, BLOCK_CHANNELS), tl.float32)
            for i in tl.static_range(2):
                source_row = row // 2 + i * (row % 2 * 2 - 1)
                for j in tl.static_range(2):
                    source_column = column // 2 + j * (column % 2 * 2 - 1)
                    there = (source_row >= 0) & (source_row < height // 2)
                    there = there & (source_column >= 0) & (source_column < width // 2)
                    texel = ((number * (height // 2) + source_row) * (width // 2) + source_column) * CHANNELS
                    value = tl.load(
                        image + texel[:, None] + channel[None], mask=mask & there[:, None], other=0.0
                    )
                    total += ((3 - 2 * i) * (3 - 2 * j) / 16) * value
            x += total
        else:
            x += tl.load(image + place, mask=mask, other=0.0)
    tl.store(out + place, x, mask=mask)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _backward(
    gradient, contribution, biases, by_image, by_contribution, by_biases, clamp, bias_stride, height, width,
    UP: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    # with UP a pixel is one of the former image: it gathers from 4 x 4 new ones, and the inner 2 x 2 are its
    STEP: tl.constexpr = 2 if UP else 1
    BEFORE: tl.constexpr = 1 if UP else 0
    TAPS: tl.constexpr = 4 if UP else 1
    number = (tl.program_id(0) // (height // STEP)).to(tl.int64)
    row = tl.program_id(0) % (height // STEP)
    column = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    channel = tl.program_id(2) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    real, inside = channel < CHANNELS, column < width // STEP
    total = tl.zeros((BLOCK_WIDTH, BLOCK_CHANNELS), tl.float32)
    bias_sum = tl.zeros((BLOCK_WIDTH, BLOCK_CHANNELS), tl.float32)
    if clamp is not None:
        bias = tl.load(biases + number * bias_stride + channel, mask=real, other=0.0)
    for i in tl.static_range(TAPS):
        y = row * STEP + i - BEFORE
        for j in tl.static_range(TAPS):
            x = column * STEP + j - BEFORE
            there = inside & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            mask = there[:, None] & real[None]
            place = (((number * height + y) * width + x) * CHANNELS)[:, None] + channel[None]
            incoming = tl.load(gradient + place, mask=mask, other=0.0)
            if UP:
                total += (3 if i == 1 or i == 2 else 1) * (3 if j == 1 or j == 2 else 1) / 16 * incoming
            if not UP or ((i == 1 or i == 2) and (j == 1 or j == 2)):
                if clamp is not None:
                    shifted = tl.load(contribution + place, mask=mask, other=0.0).to(tl.float32) + bias[None]
                    incoming = tl.where((shifted > clamp) | (shifted < -clamp), 0.0, incoming)
                tl.store(by_contribution + place, incoming.to(by_contribution.dtype.element_ty), mask=mask)
                bias_sum += incoming
    if UP:
        place = ((number * (height // 2) + row) * (width // 2) + column) * CHANNELS
        tl.store(by_image + place[:, None] + channel[None], total, mask=inside[:, None] & real[None])
    if by_biases is not None:
        sums = tl.sum(bias_sum, 0)
        tl.atomic_add(by_biases + number * CHANNELS + channel, sums, mask=real, sem="relaxed")


def _blocks(width: int, channels: int) -> tuple[int, int]:
    """Pixels and channels of a program: channels without a remainder if 32 or 64 go into them."""
    whole = min(channels & -channels, 64)
    block_channels = whole if whole >= 32 else min(64, triton.next_power_of_2(channels))
    return min(ELEMENTS // block_channels, triton.next_power_of_2(width)), block_channels


class _AddSkip(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, image: Tensor | None, contribution: Tensor, biases: Tensor, clamp: float | None, up: bool
    ) -> Tensor:
        contribution = contribution.contiguous(memory_format=torch.channels_last)
        if image is not None:
            image = image.contiguous(memory_format=torch.channels_last)
        images, channels, height, width = contribution.shape
        out = torch.empty_like(contribution, dtype=torch.float32)
        ctx.clamp, ctx.up, ctx.dtype = clamp, up and image is not None, contribution.dtype
        ctx.save_for_backward(biases, None if clamp is None else contribution)
        block_width, block_channels = _blocks(width, channels)
        grid = (images * height, triton.cdiv(width, block_width), triton.cdiv(channels, block_channels))
        _forward[grid](
            image, contribution, biases, out, clamp, biases.stride(0), height, width,
            up, channels, block_width, block_channels,
        )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        biases, contribution = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        images, channels, height, width = gradient.shape
        gathers = ctx.up and ctx.needs_input_grad[0]
        rows, columns = (height // 2, width // 2) if gathers else (height, width)
        by_image = gradient
        if gathers:
            by_image = torch.empty(
                (images, channels, rows, columns), device=gradient.device, dtype=gradient.dtype,
                memory_format=torch.channels_last,
            )  # fmt: skip
        by_contribution = torch.empty_like(gradient, dtype=ctx.dtype)
        by_biases = None
        if ctx.needs_input_grad[2]:
            by_biases = torch.zeros((images, channels), device=gradient.device, dtype=torch.float32)
        block_width, block_channels = _blocks(columns, channels)
        grid = (images * rows, triton.cdiv(columns, block_width), triton.cdiv(channels, block_channels))
        _backward[grid](
            gradient, contribution, biases, by_image, by_contribution, by_biases, ctx.clamp,
            biases.stride(0), height, width, gathers, channels, block_width, block_channels,
        )  # fmt: skip
        return by_image if ctx.needs_input_grad[0] else None, by_contribution, by_biases, None, None


def add_skip_fused(
    image: Float[Tensor, "images channels old_height old_width"] | None,
    contribution: Float[Tensor, "contributions channels height width"],
    bias: Float[Tensor, " channels"] | Float[Tensor, "biases channels"],
    clamp: float | None,
    *,
    up: bool,
) -> Float[Tensor, "batch channels height width"]:
    """The image, with `up` at twice its resolution, plus contribution and bias, clamped; in float32.

    Image, contribution and bias are per image or shared. First derivatives only.
    """
    batch = max(len(contribution), len(bias) if bias.ndim == 2 else 1, 1 if image is None else len(image))
    if image is not None:
        image = image.float().expand(batch, -1, -1, -1)
    return _AddSkip.apply(
        image,
        contribution.expand(batch, -1, -1, -1),
        bias.float().contiguous().expand(batch, -1),
        clamp,
        up,
    )
