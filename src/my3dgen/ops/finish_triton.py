"""Around a modulated convolution, one kernel each: the styles; norm, bias, leaky ReLU, gain, clamp (CUDA).

Twin of `y * norms` followed by `my3dgen.ops.bias_act.bias_act`. One pass over the features forward, one
backward, which also sums the gradients of norms and bias.
"""

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

PIXELS = 32
"""Pixels a program handles at once."""
ROUNDS = 8
"""Times it does so, to share the cost of its sums."""
GAIN = tl.constexpr(math.sqrt(2))


@triton.jit
@no_type_check  # the compiler reads the function itself
def _forward(
    features, norms, biases, out, pixels, clamp,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr, CLAMPED: tl.constexpr,
    ACTIVATE: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, BLOCK)
    real = channel < CHANNELS
    mask = (pixel < pixels)[:, None] & real[None]
    place = (image * pixels + pixel)[:, None] * CHANNELS + channel[None]
    norm = tl.load(norms + image * CHANNELS + channel, mask=real, other=0.0)
    bias = tl.load(biases + image * CHANNELS + channel, mask=real, other=0.0)
    x = tl.load(features + place, mask=mask, other=0.0).to(tl.float32) * norm[None] + bias[None]
    if ACTIVATE:
        x = tl.where(x >= 0, x, x * 0.2) * GAIN
    if CLAMPED:
        x = tl.minimum(tl.maximum(x, -clamp), clamp)
    tl.store(out + place, x.to(out.dtype.element_ty), mask=mask)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _backward(
    gradient, features, norms, biases, by_features, by_norms, by_biases, pixels, clamp,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr, ROUNDS: tl.constexpr,
    CLAMPED: tl.constexpr, ACTIVATE: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    real = channel < CHANNELS
    norm = tl.load(norms + image * CHANNELS + channel, mask=real, other=0.0)
    bias = tl.load(biases + image * CHANNELS + channel, mask=real, other=0.0)
    norm_sum = tl.zeros((BLOCK,), tl.float32)
    bias_sum = tl.zeros((BLOCK,), tl.float32)
    for round in range(ROUNDS):
        pixel = (tl.program_id(0) * ROUNDS + round) * PIXELS + tl.arange(0, PIXELS)
        mask = (pixel < pixels)[:, None] & real[None]
        place = (image * pixels + pixel)[:, None] * CHANNELS + channel[None]
        y = tl.load(features + place, mask=mask, other=0.0).to(tl.float32)
        incoming = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float32)
        x = y * norm[None] + bias[None]
        slope = tl.where(x >= 0, 1.0, 0.2) * GAIN if ACTIVATE else tl.full(x.shape, 1.0, tl.float32)
        if CLAMPED:
            slope = tl.where((x * slope > clamp) | (x * slope < -clamp), 0.0, slope)
        through = incoming * slope
        tl.store(by_features + place, (through * norm[None]).to(by_features.dtype.element_ty), mask=mask)
        norm_sum += tl.sum(through * y, 0)
        bias_sum += tl.sum(through, 0)
    tl.atomic_add(by_norms + image * CHANNELS + channel, norm_sum, mask=real, sem="relaxed")
    tl.atomic_add(by_biases + image * CHANNELS + channel, bias_sum, mask=real, sem="relaxed")


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, features: Tensor, norms: Tensor, biases: Tensor, clamp: float | None, activate: bool
    ) -> Tensor:
        features = features.contiguous(memory_format=torch.channels_last)
        images, channels, height, width = features.shape
        out = torch.empty_like(features)
        ctx.save_for_backward(features, norms, biases)
        ctx.clamp, ctx.activate = clamp, activate
        grid = (triton.cdiv(height * width, PIXELS), images)
        _forward[grid](
            features, norms, biases, out, height * width, clamp or 0.0,
            channels, triton.next_power_of_2(channels), PIXELS, clamp is not None, activate,
        )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        features, norms, biases = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        images, channels, height, width = features.shape
        by_features = torch.empty_like(features)
        by_norms, by_biases = torch.zeros_like(norms), torch.zeros_like(biases)
        grid = (triton.cdiv(height * width, PIXELS * ROUNDS), images)
        _backward[grid](
            gradient, features, norms, biases, by_features, by_norms, by_biases,
            height * width, ctx.clamp or 0.0,
            channels, triton.next_power_of_2(channels), PIXELS, ROUNDS, ctx.clamp is not None, ctx.activate,
        )  # fmt: skip
        return by_features, by_norms, by_biases, None, None


def finish_fused(
    features: Float[Tensor, "batch channels height width"],
    norms: Float[Tensor, "norms_batch channels"],
    bias: Float[Tensor, " channels"] | Float[Tensor, "batch channels"],
    clamp: float | None,
) -> Float[Tensor, "batch channels height width"]:
    """sqrt(2) * leaky_relu(features * norms + bias), clamped, in the features' dtype.

    Norms and bias are per image or shared. First derivatives only.
    """
    shape = features.shape[:2]
    return _Finish.apply(
        features,
        norms.float().expand(shape).contiguous(),
        bias.float().expand(shape).contiguous(),
        clamp,
        True,
    )


def scale_fused(
    features: Float[Tensor, "batch channels height width"], scales: Float[Tensor, "scales_batch channels"]
) -> Float[Tensor, "batch channels height width"]:
    """features * scales, in the features' dtype. First derivatives only."""
    scales = scales.float().expand(features.shape[:2]).contiguous()
    return _Finish.apply(features, scales, torch.zeros_like(scales), None, False)
