"""The equalized dense layer (EG3D spec 1.2)."""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from my3dgen.ops.bias_act import Activation
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
    weight, bias = weight.to(x.dtype) * (lr_mul / math.sqrt(weight.shape[1])), bias.to(x.dtype) * lr_mul
    y = F.linear(x, weight, bias) if bias.ndim == 1 else F.linear(x, weight) + bias
    if change is not None:
        y = y + change.linear(x)
    return F.leaky_relu(y, 0.2) * math.sqrt(2) if activation == "lrelu" else y
