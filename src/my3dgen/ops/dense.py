"""The equalized dense layer (EG3D spec 1.2), and products of many rows with few columns."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from my3dgen.ops.bias_act import Activation
from my3dgen.ops.low_pass import HAS_TRITON
from my3dgen.ops.low_rank import LowRank

MANY_ROWS = 4096


def dense(
    x: Float[Tensor, "batch inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | Float[Tensor, "batch outputs"],
    *,
    lr_mul: float = 1.0,
    activation: Activation = "linear",
    change: LowRank | None = None,
) -> Float[Tensor, "batch outputs"]:
    """act(x W^T * lr_mul / sqrt(inputs) + bias * lr_mul).

    A `change` is added after the gain: it is not divided by sqrt(inputs) (EG3D spec 5.3).
    """
    weight, bias, gain = weight.to(x.dtype), bias.to(x.dtype), lr_mul / math.sqrt(weight.shape[1])
    if x.is_cuda and HAS_TRITON and change is not None and bias.ndim == 2 and not torch.is_grad_enabled():
        y = _fused(x, weight, bias, gain, lr_mul, change)
    else:
        y = _readable(x, weight, bias, gain, lr_mul, change)
    return F.leaky_relu(y, 0.2) * math.sqrt(2) if activation == "lrelu" else y


def _readable(
    x: Tensor, weight: Tensor, bias: Tensor, gain: float, bias_gain: float, change: LowRank | None
) -> Tensor:
    """A dense layer before its activation."""
    if bias.ndim == 1:
        y = product(x, weight * gain, bias * bias_gain)
    else:
        y = torch.addmm(bias, x.expand(max(len(x), len(bias)), -1), weight.T, beta=bias_gain, alpha=gain)
    return y if change is None else change.added(y, x)


def _fused(x: Tensor, weight: Tensor, bias: Tensor, gain: float, bias_gain: float, change: LowRank) -> Tensor:
    """`_readable` on a GPU without derivatives: one kernel after the product, if the change is small."""
    from my3dgen.ops.dense_triton import finish_dense, fits

    if not fits(x, bias, change):
        return _readable(x, weight, bias, gain, bias_gain, change)
    return finish_dense(F.linear(x, weight), bias, x, change, gain, bias_gain)


def product(
    x: Float[Tensor, "rows inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "rows outputs"]:
    """x W^T + bias.

    With many rows on a CPU the convolution library does it: where products come from another one, such as
    MKL on AMD's processors, it takes half the time.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or len(x) < MANY_ROWS or len(x) % 16:
        return F.linear(x, weight, bias)
    # 16 pictures of one column: fewer pictures go to a loop of PyTorch's own
    pictures = x.unflatten(0, (16, -1, 1)).permute(0, 3, 1, 2)
    y = F.conv2d(pictures.contiguous(memory_format=torch.channels_last), weight[:, :, None, None], bias)
    return y.permute(0, 2, 3, 1).flatten(0, 2)
