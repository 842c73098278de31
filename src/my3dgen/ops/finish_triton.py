"""Around a modulated convolution, one kernel each: the styles; norm, noise, bias, leaky ReLU, gain, clamp
(CUDA, Triton).

Twin of `y * norms + noise` followed by `my3dgen.ops.bias_act.bias_act`. One pass over the features forward,
one backward, which also sums the gradients of norms, noise and bias.
"""

import math
from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

ELEMENTS = 4096
"""Numbers a program handles at once, in registers."""
ROUNDS = 8
"""Times a program works backward, on half as many numbers, to share the cost of its sums."""
GAIN = tl.constexpr(math.sqrt(2))
HELD = tl.constexpr(4)
"""Few channels whose factors stay in registers, at most."""


@triton.jit
@no_type_check  # the compiler reads the function itself
def held_factors(factors, channel, CHANNELS: tl.constexpr, INNER: tl.constexpr):
    """An image's factors, `inner channel`, as vectors to keep while rows go by; none if they are many."""
    held = ()
    if INNER <= HELD:
        for i in tl.static_range(INNER):
            held += (tl.load(factors + i * CHANNELS + channel, mask=channel < CHANNELS, other=0.0),)
    return held


@triton.jit
@no_type_check  # the compiler reads the function itself
def with_few(
    total, few, factors, held, pixel, inside, channel, CHANNELS: tl.constexpr, INNER: tl.constexpr
):  # fmt: skip
    """`total`, `pixel channel`, plus an image's few channels, `pixel inner`, times factors, `inner channel`.

    Adding to `total`, not to zeros, keeps the threads' pixels and channels those of `total`.
    """
    for i in tl.static_range(INNER):
        one = tl.load(few + pixel * INNER + i, mask=inside, other=0.0)
        if INNER <= HELD:
            factor = held[i]
        else:
            factor = tl.load(factors + i * CHANNELS + channel, mask=channel < CHANNELS, other=0.0)
        total += one[:, None] * factor[None]
    return total


@triton.jit
@no_type_check  # the compiler reads the function itself
def _forward(
    features, norms, biases, noise, few, factors, out, pixels, noise_stride, clamp,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr, CLAMPED: tl.constexpr,
    ACTIVATE: tl.constexpr, NOISY: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, BLOCK)
    real = channel < CHANNELS
    mask = (pixel < pixels)[:, None] & real[None]
    place = (image * pixels + pixel)[:, None] * CHANNELS + channel[None]
    norm = tl.load(norms + image * CHANNELS + channel, mask=real, other=0.0)
    bias = tl.load(biases + image * CHANNELS + channel, mask=real, other=0.0)
    x = tl.load(features + place, mask=mask, other=0.0).to(tl.float32)
    if INNER:
        few += image * pixels * INNER
        factors += image * CHANNELS * INNER
        held = held_factors(factors, channel, CHANNELS, INNER)
        x = with_few(x, few, factors, held, pixel, pixel < pixels, channel, CHANNELS, INNER)
    x = x * norm[None] + bias[None]
    if NOISY:
        x += tl.load(noise + image * noise_stride + pixel, mask=pixel < pixels, other=0.0)[:, None]
    if ACTIVATE:
        x = tl.where(x >= 0, x, x * 0.2) * GAIN
    if CLAMPED:
        x = tl.minimum(tl.maximum(x, -clamp), clamp)
    tl.store(out + place, x.to(out.dtype.element_ty), mask=mask)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _backward(
    gradient, known, norms, biases, noise, by_features, sums, by_noise, pixels, noise_stride, clamp,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr, ROUNDS: tl.constexpr,
    CLAMPED: tl.constexpr, ACTIVATE: tl.constexpr, NOISY: tl.constexpr, TO_NOISE: tl.constexpr,
):  # fmt: skip
    # if activated, results are known, from which features follow where a gradient passes; else features
    image = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    real = channel < CHANNELS
    norm = tl.load(norms + image * CHANNELS + channel, mask=real, other=1.0)
    bias = tl.load(biases + image * CHANNELS + channel, mask=real, other=0.0)
    by_norm = tl.zeros((PIXELS, BLOCK), tl.float32)
    by_bias = tl.zeros((PIXELS, BLOCK), tl.float32)
    for round in range(ROUNDS):
        pixel = (tl.program_id(0) * ROUNDS + round) * PIXELS + tl.arange(0, PIXELS)
        mask = (pixel < pixels)[:, None] & real[None]
        place = (image * pixels + pixel)[:, None] * CHANNELS + channel[None]
        x = tl.load(known + place, mask=mask, other=0.0).to(tl.float32)
        through = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float32)
        if ACTIVATE:
            if CLAMPED:  # to the bound as results hold it
                bound = tl.full((1, 1), clamp, tl.float32).to(known.dtype.element_ty).to(tl.float32)
                through = tl.where(tl.abs(x) >= bound, 0.0, through)
            through *= tl.where(x >= 0, 1.0, 0.2) * GAIN
            x = x * (tl.where(x >= 0, 1.0, 5.0) / GAIN) - bias[None]
            if NOISY:
                x -= tl.load(noise + image * noise_stride + pixel, mask=pixel < pixels, other=0.0)[:, None]
        tl.store(by_features + place, (through * norm[None]).to(by_features.dtype.element_ty), mask=mask)
        by_norm += through * x
        by_bias += through
        if TO_NOISE:
            tl.store(by_noise + image * pixels + pixel, tl.sum(through, 1), mask=pixel < pixels)
    # programs of a column add up what they met; the next kernel adds up programs
    place = (image * tl.num_programs(0) + tl.program_id(0)) * CHANNELS + channel
    half = tl.num_programs(1).to(tl.int64) * tl.num_programs(0) * CHANNELS
    by_norm = tl.sum(by_norm, 0)
    if ACTIVATE:  # until here it met features times norms
        by_norm /= norm
    tl.store(sums + place, by_norm, mask=real)
    tl.store(sums + half + place, tl.sum(by_bias, 0), mask=real)


class Few(NamedTuple):
    """The second half of a low-rank change with factors per image: added to the features it belongs to."""

    channels: Float[Tensor, "batch inner height width"]
    """In float32, channels-last."""
    factors: Float[Tensor, "batch inner channels"]
    """In float32, contiguous."""


class _Options(NamedTuple):
    """What is no tensor."""

    clamp: float | None
    activate: bool

    def flags(self, noise: Tensor | None) -> dict[str, bool]:
        """What the kernels are compiled for."""
        return {
            "CLAMPED": self.clamp is not None,
            "ACTIVATE": self.activate,
            "NOISY": noise is not None,
        }


SCALING = _Options(None, False)


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, features: Tensor, norms: Tensor, biases: Tensor, noise: Tensor | None, options: _Options
    ) -> Tensor:
        features = features.contiguous(memory_format=torch.channels_last)
        result = _run(features, norms, biases, noise, None, options, over=False)
        # a result is kept by the next layer anyway, and features need not be
        ctx.save_for_backward(result if options.activate else features, norms, biases, noise)
        ctx.options = options
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        known, norms, biases, noise = ctx.saved_tensors
        found = _through(
            gradient, known, norms, biases, noise, ctx.options, to_noise=ctx.needs_input_grad[3], over=False
        )
        return *found, None


def _through(
    gradient: Tensor,
    known: Tensor,
    norms: Tensor,
    biases: Tensor,
    noise: Tensor | None,
    options: _Options,
    *,
    to_noise: bool,
    over: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Backward: gradients of features, norms, biases and noise; the first is written `over` the incoming one
    or is fresh."""
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    images, channels, height, width = known.shape
    by_features = gradient if over else torch.empty_like(known)
    by_noise = norms.new_empty(images, 1, height, width) if to_noise else None
    block = triton.next_power_of_2(channels)
    pixels = max(1, ELEMENTS // 2 // block)
    programs = triton.cdiv(height * width, pixels * ROUNDS)
    sums = norms.new_empty(2, images, programs, channels)
    _backward[(programs, images)](
        gradient, known, norms, biases, tensor_or(noise, norms), by_features, sums,
        tensor_or(by_noise, norms), height * width, stride_of(noise), options.clamp or 0.0,
        CHANNELS=channels, BLOCK=block, PIXELS=pixels, ROUNDS=ROUNDS, TO_NOISE=to_noise,
        **options.flags(noise),
    )  # fmt: skip
    if by_noise is not None and noise is not None and len(noise) == 1:
        by_noise = by_noise.sum(0, keepdim=True)
    by_norms, by_biases = sums.sum(2).unbind()
    return by_features, by_norms, by_biases, by_noise


def _run(
    features: Tensor,
    norms: Tensor,
    biases: Tensor,
    noise: Tensor | None,
    few: Few | None,
    options: _Options,
    *,
    over: bool,
) -> Tensor:
    """Forward, of features in channels-last, which are written `over` or stay."""
    images, channels, height, width = features.shape
    out = features if over else torch.empty_like(features)
    block = triton.next_power_of_2(channels)
    pixels = max(1, ELEMENTS // block)
    few_channels, factors, inner = arguments_of(few, norms)
    _forward[(triton.cdiv(height * width, pixels), images)](
        features, norms, biases, tensor_or(noise, norms), few_channels, factors, out,
        height * width, stride_of(noise), options.clamp or 0.0,
        CHANNELS=channels, BLOCK=block, PIXELS=pixels, INNER=inner, **options.flags(noise),
    )  # fmt: skip
    return out


def arguments_of(few: Few | None, other: Tensor) -> tuple[Tensor, Tensor, int]:
    """Few channels, factors and their number; 0 without any."""
    if few is None:
        return other, other, 0
    channels = few.channels.contiguous(memory_format=torch.channels_last)
    return channels, few.factors, few.factors.shape[1]


def tensor_or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A pointer is needed even where nothing is read."""
    return other if tensor is None else tensor


def stride_of(noise: Tensor | None) -> int:
    """From one image's noise to the next one's; 0 if they share it."""
    return 0 if noise is None or len(noise) == 1 else noise[0].numel()


def finish_fused(
    features: Float[Tensor, "batch channels height width"],
    norms: Float[Tensor, "norms_batch channels"],
    bias: Float[Tensor, " channels"] | Float[Tensor, "batch channels"],
    noise: Float[Tensor, "noise_batch 1 height width"] | None,
    clamp: float | None,
) -> Float[Tensor, "batch channels height width"]:
    """sqrt(2) * leaky_relu(features * norms + noise + bias), clamped, in the features' dtype.

    Norms, bias and noise are per image or shared. First derivatives only. They come from the result as
    it is rounded: no norm may be 0, and what rounds to the clamp counts as beyond it.
    """
    shape, options = features.shape[:2], _Options(clamp, True)
    norms, bias = (tensor.float().expand(shape).contiguous() for tensor in (norms, bias))
    noise = None if noise is None else noise.float().contiguous()
    return _Finish.apply(features, norms, bias, noise, options)


@torch.no_grad()
def finish_over(
    features: Float[Tensor, "batch channels height width"],
    norms: Float[Tensor, "norms_batch channels"],
    bias: Float[Tensor, " channels"] | Float[Tensor, "batch channels"],
    noise: Float[Tensor, "noise_batch 1 height width"] | None,
    clamp: float | None,
    few: Few | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """`finish_fused` of features + few, without derivatives, in the memory of the features."""
    shape, options = features.shape[:2], _Options(clamp, True)
    norms, bias = (tensor.float().expand(shape).contiguous() for tensor in (norms, bias))
    noise = None if noise is None else noise.float().contiguous()
    features = features.contiguous(memory_format=torch.channels_last)
    return _run(features, norms, bias, noise, few, options, over=True)


def scale_fused(
    features: Float[Tensor, "batch channels height width"],
    scales: Float[Tensor, "scales_batch channels"],
    *,
    over: bool = False,
) -> Float[Tensor, "batch channels height width"]:
    """features * scales, in the features' dtype. First derivatives only, none if they are written `over`."""
    scales = scales.float().expand(features.shape[:2]).contiguous()
    if not over:
        return _Finish.apply(features, scales, torch.zeros_like(scales), None, SCALING)
    with torch.no_grad():
        features = features.contiguous(memory_format=torch.channels_last)
        return scaled(features, scales, over=True)


def scaled(features: Tensor, scales: Float[Tensor, "batch channels"], *, over: bool = False) -> Tensor:
    """features * scales without derivatives: channels-last, and contiguous in float32."""
    return _run(features, scales, torch.zeros_like(scales), None, None, SCALING, over=over)


def through_scaled(gradient: Tensor, features: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """From the gradient of `scaled` those of features, in the gradient's own memory, and of scales."""
    nothing = torch.zeros_like(scales)
    return _through(gradient, features, scales, nothing, None, SCALING, to_noise=False, over=True)[:2]
