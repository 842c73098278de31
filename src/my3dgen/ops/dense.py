"""The equalized dense layer (EG3D spec 1.2)."""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from my3dgen.ops.bias_act import Activation, bias_act
from my3dgen.ops.low_rank import LowRank


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
    y = F.linear(x, weight.to(x.dtype) * (lr_mul / math.sqrt(weight.shape[1])))
    if change is not None:
        y = y + change.linear(x)
    return bias_act(y, bias * lr_mul if lr_mul != 1 else bias, activation=activation)
