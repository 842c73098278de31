"""Convolution whose input channels are scaled per image (EG3D spec 1.3), with a low-rank change.

The weight of image n is (W + change)[o, i] * s[n, i], normalised over (i, taps) if demodulating.
Scaling the input by s and the output by the norm d keeps one shared weight for the batch:

    y = d * [ conv(W, s x)  +  scale * B conv_A(s x) ]

    x ──*s──┬── conv W ───────────────┐
            └── conv A ── 1x1 B ─────(+)──*d── y
                (rank*k channels)

so a frozen W needs no weight gradient, and images with different changes share the batch. The
norm uses the closed form of |(W + scale B A) s|^2, exact and without forming B A.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from my3dgen.ops.bias_act import bias_act
from my3dgen.ops.low_pass import HAS_TRITON, low_pass
from my3dgen.ops.low_rank import LowRank


def modulated_conv2d(
    x: Float[Tensor, "batch inputs height width"],
    weight: Float[Tensor, "outputs inputs k k"],
    styles: Float[Tensor, "styles_batch inputs"],
    *,
    demodulate: bool = True,
    upsample: bool = False,
    change: LowRank | None = None,
) -> Float[Tensor, "batch outputs new_height new_width"]:
    """Convolve with per-image weights; with `upsample` also double the resolution.

    `styles` has one row per image or a single row for all. Convolutions run in the dtype of `x`,
    norms in that of `styles`.
    """
    y = _styled_conv(x, weight, styles, upsample, change)
    if demodulate:
        y = y * _demodulation(weight, styles, change)[:, :, None, None].to(y.dtype)
    return y


def modulated_layer(
    x: Float[Tensor, "batch inputs height width"],
    weight: Float[Tensor, "outputs inputs k k"],
    styles: Float[Tensor, "styles_batch inputs"],
    bias: Float[Tensor, " outputs"] | Float[Tensor, "batch outputs"],
    *,
    upsample: bool = False,
    change: LowRank | None = None,
    clamp: float | None = None,
) -> Float[Tensor, "batch outputs new_height new_width"]:
    """A demodulated convolution, bias and leaky ReLU; one kernel after the convolution on CUDA."""
    if x.is_cuda and HAS_TRITON:
        from my3dgen.ops.finish_triton import finish_fused

        y = _styled_conv(x, weight, styles, upsample, change)
        return finish_fused(y, _demodulation(weight, styles, change), bias, clamp)
    y = modulated_conv2d(x, weight, styles, upsample=upsample, change=change)
    return bias_act(y, bias, activation="lrelu", clamp=clamp)


def _styled_conv(x: Tensor, weight: Tensor, styles: Tensor, upsample: bool, change: LowRank | None) -> Tensor:
    """Convolution of the styled input with the changed weight, not demodulated."""
    if x.is_cuda and HAS_TRITON:
        from my3dgen.ops.finish_triton import scale_fused

        x = scale_fused(x, styles)
    else:
        x = x * styles[:, :, None, None].to(x.dtype)
    y = _conv(x, weight.to(x.dtype), upsample)
    if change is not None:
        y = y + _low_rank_conv(x, change, weight.shape[-1], upsample)
    if upsample:
        y = low_pass(y, (1, 1), gain=4.0)
    return y


def _conv(x: Tensor, weight: Tensor, upsample: bool, groups: int = 1) -> Tensor:
    """Convolve keeping the resolution, or transposed with stride 2 to side 2 * height + 1."""
    if not upsample:
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
    # (groups * out, in, k, k) -> (groups * in, out, k, k)
    weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return F.conv_transpose2d(x, weight, stride=2, groups=groups)


def _low_rank_conv(x: Tensor, change: LowRank, k: int, upsample: bool) -> Tensor:
    """The change's own convolution: A as a k x k convolution, then B as a 1 x 1."""
    down = change.A.to(x.dtype).unflatten(-1, (-1, k, k))
    up = change.B.to(x.dtype) * change.scale
    if not change.batched:
        return F.conv2d(_conv(x, down, upsample), up[:, :, None, None])
    batch = len(x)
    hidden = _conv(x.flatten(0, 1)[None], down.flatten(0, 1), upsample, groups=batch)
    hidden = hidden.unflatten(1, (batch, -1))[0]
    return (up @ hidden.flatten(2)).unflatten(2, hidden.shape[2:])


def _demodulation(
    weight: Float[Tensor, "outputs inputs k k"],
    styles: Float[Tensor, "styles_batch inputs"],
    change: LowRank | None,
) -> Float[Tensor, "some_batch outputs"]:
    """1 / sqrt(|(W + scale B A) s|^2 + 1e-8) per image and output channel."""
    power = styles.square()
    total = power @ weight.square().sum((2, 3)).T
    if change is not None:
        # |W s|^2 + 2 scale <W s, B A s> + scale^2 |B A s|^2
        taps = weight.shape[2] * weight.shape[3]
        scaled = change.A * power.repeat_interleave(taps, dim=1)[:, None]
        cross = (scaled @ weight.flatten(1).T).mT  # batch outputs inner
        gram = scaled @ change.A.mT  # batch inner inner
        total = total + 2 * change.scale * (cross * change.B).sum(-1)
        total = total + change.scale**2 * ((change.B @ gram) * change.B).sum(-1)
        total = total.clamp_min(0)  # rounding may leave a vanishing norm below zero
    return torch.rsqrt(total + 1e-8)
