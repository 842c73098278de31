"""What a layer with a low-rank change per image needs besides features, from two kernels and a product (CUDA,
Triton).

Twin of `_demodulation` in `my3dgen.ops.modulated_conv`, without derivatives. All of it is small, so that
dozens of launches would take longer than their work. One matrix holds the weight and every image's factors
in the features' dtype: the convolution reads its weight there, and one product of its rows gives the norms
all they need of the changes.
"""

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from my3dgen.ops.low_rank import LowRank

CHANNELS = 32
"""Input channels that a program prepares."""
ELEMENTS = 4096
"""Outputs times components of a program for norms, at most."""


@triton.jit
@no_type_check  # the compiler reads the function itself
def _prepare(
    A, styles, packed, rows, power, style_stride, later,
    CHANNELS: tl.constexpr, INNER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Four components of an image's A: `packed` as `channel i j inner`, and in `rows`, each `i j channel`.

    The same times the styles' squares goes there `later`, by so many numbers; the squares go to `power`.
    """
    part = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = channel < CHANNELS
    A += image * INNER * CHANNELS * 9
    style = tl.load(styles + image * style_stride + channel, mask=real, other=0.0).to(tl.float32)
    square = style * style
    if part == 0:
        tl.store(power + image * CHANNELS + channel, square, mask=real)
    tap = tl.arange(0, 16)[:, None]
    for component in tl.static_range(4):
        inner = part * 4 + component
        mask = (tap < 9) & real[None] & (inner < INNER)
        value = tl.load(A + (inner * CHANNELS + channel[None]) * 9 + tap, mask=mask, other=0.0).to(tl.float32)
        place = ((image * INNER + inner) * 9 + tap) * CHANNELS + channel[None]
        tl.store(rows + place, value.to(rows.dtype.element_ty), mask=mask)
        scaled = (value * square[None]).to(rows.dtype.element_ty)
        tl.store(rows + place + later, scaled, mask=mask)
    share = tl.arange(0, 64)[None]
    i, j, inner = share // 16, share // 4 % 4, part * 4 + share % 4
    mask = (i < 3) & (j < 3) & (inner < INNER) & real[:, None]
    value = tl.load(A + (inner * CHANNELS + channel[:, None]) * 9 + i * 3 + j, mask=mask, other=0.0)
    place = ((image * tl.num_programs(1) + part) * CHANNELS + channel[:, None]) * 64 + share
    tl.store(packed + place, value.to(packed.dtype.element_ty), mask=real[:, None])


@triton.jit
@no_type_check  # the compiler reads the function itself
def _norms(
    plain, products, B, out, up, columns, scale,
    OUTPUTS: tl.constexpr, INNER: tl.constexpr, BLOCK: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    """1 / sqrt(plain + 2 scale <W s, B A s> + scale^2 |B A s|^2 + 1e-8).

    `products` are of an image's scaled components with outputs' weights, then with all images' components.
    `up` gets scale times B, as `image inner output`.
    """
    image = tl.program_id(1).to(tl.int64)
    output = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = output < OUTPUTS
    inner = tl.arange(0, RANK)
    mask = real[:, None] & (inner < INNER)[None]
    B += image * OUTPUTS * INNER
    products += image * INNER * columns
    factor = tl.load(B + (output * INNER)[:, None] + inner[None], mask=mask, other=0.0).to(tl.float32)
    place = (image * INNER + inner)[None] * OUTPUTS + output[:, None]
    tl.store(up + place, factor * scale, mask=mask)
    both = tl.load(products + (inner * columns)[None] + output[:, None], mask=mask, other=0.0).to(tl.float32)
    for other in range(INNER):
        one = tl.load(B + output * INNER + other, mask=real, other=0.0).to(tl.float32)
        pair = inner * columns + OUTPUTS + image * INNER + other
        gram = tl.load(products + pair, mask=inner < INNER, other=0.0).to(tl.float32)
        both += one[:, None] * gram[None] * (scale / 2)
    total = tl.load(plain + image * OUTPUTS + output, mask=real, other=0.0)
    total += tl.sum(both * factor, 1) * (2 * scale)
    total = tl.maximum(total, 0.0)  # rounding may leave a vanishing norm below zero
    tl.store(out + image * OUTPUTS + output, tl.rsqrt(total + 1e-8), mask=real)


class Prepared(NamedTuple):
    """A layer's small tensors."""

    weight: Float[Tensor, "outputs inputs 3 3"]
    """In the features' dtype, channels-last."""
    norms: Float[Tensor, "batch outputs"]
    """Of the changed weights, in float32."""
    down: Float[Tensor, "batch parts inputs 4 4 4"]
    """A, as `my3dgen.ops.low_rank_triton` reads it."""
    up: Float[Tensor, "batch inner outputs"]
    """B times the scale, in float32."""


@torch.no_grad()
def prepared(
    weight: Float[Tensor, "outputs inputs 3 3"],
    styles: Float[Tensor, "styles_batch inputs"],
    change: LowRank,
    dtype: torch.dtype,
) -> Prepared:
    """Of a weight, styles of each image or of all, and a change of each image, for features of `dtype`.

    What the norms know of the change is rounded to `dtype` as well: a small part of them.
    """
    outputs, channels = weight.shape[:2]
    images, inner = change.A.shape[:2]
    A, B, styles = change.A.contiguous(), change.B.contiguous(), styles.contiguous()
    style_stride = 0 if len(styles) == 1 else channels
    parts, components = triton.cdiv(inner, 4), images * inner
    matrix = weight.new_empty(outputs + 2 * components, 9 * channels, dtype=dtype)
    pixels = matrix[:outputs].unflatten(1, (3, 3, channels))
    pixels.copy_(weight.permute(0, 2, 3, 1))
    power = styles.new_empty(images, channels, dtype=torch.float32)
    packed = weight.new_empty(images, parts, channels, 4, 4, 4, dtype=dtype)
    _prepare[(triton.cdiv(channels, CHANNELS), parts, images)](
        A, styles, packed, matrix[outputs:], power, style_stride, components * 9 * channels,
        channels, inner, CHANNELS,
    )  # fmt: skip
    plain = power @ weight.square().sum((2, 3)).T
    products = matrix[outputs + components :] @ matrix[: outputs + components].T
    norms = torch.empty_like(plain)
    up = norms.new_empty(images, inner, outputs)
    rank = triton.next_power_of_2(inner)
    block = min(64, ELEMENTS // rank)
    _norms[(triton.cdiv(outputs, block), images)](
        plain, products, B, norms, up, products.shape[1], change.scale, outputs, inner, block, rank
    )
    return Prepared(pixels.permute(0, 3, 1, 2), norms, packed, up)
