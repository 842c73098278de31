"""Bias, activation, gain, clamp: in this order (EG3D spec 1.2)."""

import math
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Activation = Literal["linear", "lrelu"]


def bias_act(
    x: Float[Tensor, "batch channels *space"],
    bias: Float[Tensor, " channels"] | Float[Tensor, "batch channels"],
    *,
    activation: Activation,
    clamp: float | None = None,
) -> Float[Tensor, "batch channels *space"]:
    """Add a bias per channel, activate, bound to [-clamp, clamp].

    `lrelu` has slope 0.2 and gain sqrt(2); `linear` changes nothing. The dtype is that of `x`.
    """
    x = x + bias.reshape(*bias.shape, *(1,) * (x.ndim - 2)).to(x.dtype)
    if not x.requires_grad:  # nothing to remember: work in the fresh tensor
        x = F.leaky_relu_(x, 0.2).mul_(math.sqrt(2)) if activation == "lrelu" else x
        return x if clamp is None else x.clamp_(-clamp, clamp)
    if activation == "lrelu":
        x = F.leaky_relu(x, 0.2) * math.sqrt(2)
    return x if clamp is None else x.clamp(-clamp, clamp)
