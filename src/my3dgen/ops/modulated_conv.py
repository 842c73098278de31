"""Convolution whose input channels are scaled per image (EG3D spec 1.3), with a low-rank change.

The weight of image n is (W + change)[o, i] * s[n, i], normalised over (i, taps) if demodulating.
Scaling the input by s and the output by the norm d keeps one shared weight for the batch:

    y = d * [ conv(W, s x)  +  scale * B conv_A(s x) ]

    x ──*s──┬── conv W ───────────────┐
            └── conv A ── 1x1 B ─────(+)──*d── y
                (rank*k channels)

so a frozen W needs no weight gradient, and images with different changes share the batch. The
norm uses the closed form of |(W + scale B A) s|^2, exact and without forming B A. Where forming the
weight costs less than passing over the features, it is formed: for 1x1 kernels, for one style without
gradients on a CPU, and for one change on a GPU, where a convolution with few channels, or one's gradient by
its weight, takes no longer with many.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from my3dgen.ops.dense import product
from my3dgen.ops.low_pass import HAS_TRITON, low_pass
from my3dgen.ops.low_rank import LowRank

GAIN = math.sqrt(2)
"""Of the leaky ReLU (EG3D spec 1.2)."""
PART = 4096
"""Pixels in a part of a product on a GPU, at least."""
UP_GAIN = 4.0
"""Of the filter after a transposed convolution with stride 2, which leaves three of four pixels empty."""


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
    if weight.shape[-1] == 1 and not (demodulate or upsample):
        return _pointwise(x, _styled(weight, styles, change)[..., 0, 0])
    y = _styled_conv(x, weight, styles, upsample, change)
    y = _low_pass(y) if upsample else y
    if demodulate:
        y = y * _demodulation(weight, styles, change)[:, :, None, None].to(y.dtype)
    return y


def modulated_layer(
    x: Float[Tensor, "batch inputs height width"],
    weight: Float[Tensor, "outputs inputs k k"],
    styles: Float[Tensor, "styles_batch inputs"],
    bias: Float[Tensor, " outputs"] | Float[Tensor, "batch outputs"],
    *,
    noise: Float[Tensor, "noise_batch 1 new_height new_width"] | None = None,
    upsample: bool = False,
    change: LowRank | None = None,
    clamp: float | None = None,
    fresh: bool = False,
) -> Float[Tensor, "batch outputs new_height new_width"]:
    """A demodulated convolution, noise, bias and leaky ReLU; one kernel after the convolution on CUDA.

    Styles, bias and noise are per image or shared. `fresh` features are needed by nobody else, and may be
    written over without gradients.
    """
    if _forms(x, weight, styles, bias, noise, change):
        return _formed_layer(x, weight, styles, bias, noise, upsample, change, clamp)
    if x.is_cuda and HAS_TRITON:
        return _fused_layer(x, weight, styles, bias, noise, upsample, change, clamp, fresh)
    y = _styled_conv(x, weight, styles, upsample, change)
    norms = _demodulation(weight, styles, change)
    y = _low_pass(y) if upsample else y
    # a leaky ReLU passes on a positive factor, so its gain can be part of what is applied anyway
    biases = (bias * GAIN).reshape(-1, len(weight), 1, 1).to(y.dtype)
    y = torch.addcmul(biases, y, (norms * GAIN)[:, :, None, None].to(y.dtype))
    if noise is not None:
        y = y.add_((noise * GAIN).to(y.dtype))
    return _activated(y, clamp)


def _fused_layer(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    upsample: bool,
    change: LowRank | None,
    clamp: float | None,
    fresh: bool,
) -> Tensor:
    """`modulated_layer` on a GPU: between convolutions everything is one kernel, two with derivatives."""
    from my3dgen.ops.change_triton import prepared
    from my3dgen.ops.finish_triton import Few, finish_fused, finish_over, scale_fused
    from my3dgen.ops.fir_triton import low_pass_and_finish
    from my3dgen.ops.low_rank_triton import conv_each_fused

    if change is not None and not change.batched:
        weight, change = weight + change.product().reshape(weight.shape), None
    if torch.is_grad_enabled():
        norms = _demodulation(weight, styles, change)
        y = _styled_conv(x, weight, styles, upsample, change)
        return finish_fused(_low_pass(y) if upsample else y, norms, bias, noise, clamp)
    x, few = scale_fused(x, styles, over=fresh), None
    if change is None:
        norms = _demodulation(weight, styles, None)
    else:
        weight, norms, down, up = prepared(weight, styles, change, x.dtype)
        channels = conv_each_fused(x, down, up.shape[1], upsample)
        few = Few(_low_pass(channels) if upsample else channels, up)
    y = _conv(x, weight.to(x.dtype), upsample)
    if upsample:
        return low_pass_and_finish(y, UP_GAIN, norms, bias, noise, clamp, few)
    return finish_over(y, norms, bias, noise, clamp, few)


def _activated(y: Tensor, clamp: float | None) -> Tensor:
    """The leaky ReLU without its gain and the bound, on a fresh tensor that nobody else holds."""
    y = F.leaky_relu_(y, 0.2)
    if clamp is None:
        return y
    return y.clamp(-clamp, clamp) if y.requires_grad else y.clamp_(-clamp, clamp)


def _forms(
    x: Tensor, weight: Tensor, styles: Tensor, bias: Tensor, noise: Tensor | None, change: LowRank | None
) -> bool:
    """Whether all images have one weight, and forming it is less work than passing over the features.

    A change does not decide: one that is zero changes nothing, to the last bit.
    """
    if x.device.type != "cpu" or x.numel() < weight.numel() or len(styles) > 1:
        return False
    if (bias.ndim == 2 and len(bias) > 1) or (change is not None and change.batched and len(change.A) > 1):
        return False
    involved = [x, weight, styles, bias, *(() if noise is None else (noise,))]
    involved += [] if change is None else [change.A, change.B]
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in involved))


def _formed_layer(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    upsample: bool,
    change: LowRank | None,
    clamp: float | None,
) -> Tensor:
    """`modulated_layer` with styles, norms, change and gain in the weight."""
    formed = _styled(weight, styles, change)[0]
    norms = torch.rsqrt(formed.square().sum((1, 2, 3)) + 1e-8) * GAIN
    formed = (formed * norms[:, None, None, None]).to(x.dtype)
    biases = (bias * GAIN).reshape(-1).to(x.dtype)
    if upsample:
        y = _low_pass(_conv(x, formed, upsample=True)) + biases[:, None, None]
    else:
        y = F.conv2d(x, formed, biases, padding=weight.shape[-1] // 2)
    if noise is not None:
        y = y.add_((noise * GAIN).to(y.dtype))
    return _activated(y, clamp)


def _styled(
    weight: Float[Tensor, "outputs inputs k k"], styles: Tensor, change: LowRank | None
) -> Float[Tensor, "some_batch outputs inputs k k"]:
    """The changed weight times the styles, one per image or one for all, in the dtype of the styles."""
    changed = weight.to(styles.dtype)[None]
    if change is not None:
        changed = changed + change.product().reshape(-1, *weight.shape)
    return changed * styles[:, None, :, None, None]


def _pointwise(
    x: Float[Tensor, "batch inputs height width"], weights: Float[Tensor, "some_batch outputs inputs"]
) -> Float[Tensor, "batch outputs height width"]:
    """A 1x1 convolution with weights per image, in the memory order and dtype of `x`."""
    weights = weights.to(x.dtype)
    if x.is_contiguous():
        return (weights @ x.flatten(2)).unflatten(2, x.shape[2:])
    pixels = _pixels(x)
    if x.is_cuda:
        return _few_at_once(pixels, weights).mT.unflatten(2, x.shape[2:])
    if len(weights) == 1:
        y = product(pixels.flatten(0, 1), weights[0]).unflatten(0, pixels.shape[:2])
    else:
        y = pixels @ weights.mT
    return y.mT.unflatten(2, x.shape[2:])


def _few_at_once(
    pixels: Float[Tensor, "batch pixels inputs"], weights: Float[Tensor, "some_batch outputs inputs"]
) -> Float[Tensor, "batch pixels outputs"]:
    """`pixels @ weights.mT`, in parts: the weights' gradient is a sum over pixels, which one product of few
    rows and columns would leave to a corner of a GPU."""
    count = pixels.shape[1]
    parts = math.gcd(count, 1 << max(0, (count // PART).bit_length() - 1))
    return (pixels.unflatten(1, (parts, -1)) @ weights.mT[:, None]).flatten(1, 2)


def _pixels(x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch pixels inputs"]:
    """The same numbers as rows of pixels, without a copy where `x` is contiguous or channels-last."""
    if x.is_contiguous():
        return x.flatten(2).mT
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _styled_conv(x: Tensor, weight: Tensor, styles: Tensor, upsample: bool, change: LowRank | None) -> Tensor:
    """Convolution of the styled input with the changed weight, neither demodulated nor filtered."""
    weight = weight.to(x.dtype)
    if x.is_cuda and HAS_TRITON and change is None:
        from my3dgen.ops.scaled_conv_triton import scaled_conv

        return scaled_conv(x, weight, styles, upsample=upsample)
    if x.is_cuda and HAS_TRITON:
        from my3dgen.ops.finish_triton import scale_fused

        x = scale_fused(x, styles)
    else:
        x = x * styles[:, :, None, None].to(x.dtype)
    y = _conv(x, weight, upsample)
    return y if change is None else y + _low_rank_conv(x, change, weight.shape[-1], upsample)


def _low_pass(y: Float[Tensor, "batch channels height width"]) -> Tensor:
    """What makes a transposed convolution with stride 2 smooth, at twice the side of its input."""
    return low_pass(y, (1, 1), gain=UP_GAIN)


def _conv(x: Tensor, weight: Tensor, upsample: bool) -> Tensor:
    """Convolve keeping the resolution, or transposed with stride 2 to side 2 * height + 1."""
    if not upsample:
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)


def _low_rank_conv(x: Tensor, change: LowRank, k: int, upsample: bool) -> Tensor:
    """The change's own convolution: A as a k x k convolution, then B as a 1 x 1."""
    down = change.A.to(x.dtype).unflatten(-1, (-1, k, k))
    up = change.B.to(x.dtype) * change.scale
    if not change.batched:
        return F.conv2d(_conv(x, down, upsample), up[:, :, None, None])
    return _pointwise(_conv_each(x, down, upsample), up)


def _conv_each(
    x: Float[Tensor, "batch inputs height width"],
    weights: Float[Tensor, "batch inner inputs k k"],
    upsample: bool,
) -> Float[Tensor, "batch inner new_height new_width"]:
    """`_conv` with few outputs and a weight per image.

    Grouped convolutions are slow. Here one product per image gives every tap's share of every output, and
    the shares are summed where they belong.
    """
    k, (height, width) = weights.shape[-1], x.shape[2:]
    size = (2 * height + 1, 2 * width + 1) if upsample else (height, width)
    taps = (weights if upsample else weights.flip(-2, -1)).permute(0, 1, 3, 4, 2).flatten(1, 3)
    shares = (taps @ _pixels(x).mT).to(torch.promote_types(x.dtype, torch.float32))
    padding, stride = (0, 2) if upsample else (k // 2, 1)
    return F.fold(shares, size, k, padding=padding, stride=stride).to(x.dtype)


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
        scaled = (change.A.unflatten(-1, (-1, taps)) * power[:, None, :, None]).flatten(2)
        cross, gram = scaled @ weight.flatten(1).T, scaled @ change.A.mT
        both = torch.add(cross.mT, change.B @ gram, alpha=change.scale / 2)  # batch outputs inner
        total = torch.add(total, (both * change.B).sum(-1), alpha=2 * change.scale)
        total = total.clamp_min(0)  # rounding may leave a vanishing norm below zero
    return torch.rsqrt(total + 1e-8)
