"""The end of a dense layer whose bias and low-rank change are each image's own, as one kernel (CUDA, Triton).

Twin of what follows the product in `my3dgen.ops.dense`, without derivatives. The change has few components:
every program computes them all anew.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from my3dgen.ops.low_rank import LowRank

COMPONENTS = 8
"""Of a change, at most; they come one after the other."""
OUTPUTS = 128
"""Numbers that a program makes."""


@triton.jit
@no_type_check  # the compiler reads the function itself
def _finish(
    y, bias, x, A, B, out, x_stride, gain, bias_gain, scale,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, INNER: tl.constexpr,
    DEPTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """gain * y + bias_gain * bias + scale * B A x, in float32."""
    image = tl.program_id(1)
    output = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = output < OUTPUTS
    depth = tl.arange(0, DEPTH)
    seen = tl.load(x + image * x_stride + depth, mask=depth < INPUTS, other=0.0)
    total = tl.load(y + image * OUTPUTS + output, mask=real, other=0.0) * gain
    total += tl.load(bias + image * OUTPUTS + output, mask=real, other=0.0) * bias_gain
    for inner in tl.static_range(INNER):
        row = tl.load(A + (image * INNER + inner) * INPUTS + depth, mask=depth < INPUTS, other=0.0)
        factor = tl.load(B + (image * OUTPUTS + output) * INNER + inner, mask=real, other=0.0)
        total += factor * (tl.sum(row * seen, 0) * scale)
    tl.store(out + image * OUTPUTS + output, total, mask=real)


def fits(x: Tensor, bias: Tensor, change: LowRank) -> bool:
    """Whether the kernel takes a layer: all float32, a bias and a small change of each image."""
    if not change.batched or change.A.shape[1] > COMPONENTS or x.stride(1) != 1:
        return False
    images = len(x)
    alike = len(bias) == images and len(change.A) == images and len(change.B) == images
    return alike and all(t.dtype == torch.float32 for t in (x, bias, change.A, change.B))


@torch.no_grad()
def finish_dense(
    y: Float[Tensor, "batch outputs"],
    bias: Float[Tensor, "batch outputs"],
    x: Float[Tensor, "batch inputs"],
    change: LowRank,
    gain: float,
    bias_gain: float,
) -> Float[Tensor, "batch outputs"]:
    """`y`, the product of `x` and the weight, times `gain`, plus the bias times its gain, plus the change."""
    (images, outputs), (inner, inputs) = y.shape, change.A.shape[1:]
    y, bias, A, B = (tensor.contiguous() for tensor in (y, bias, change.A, change.B))
    out = torch.empty_like(y)
    _finish[(triton.cdiv(outputs, OUTPUTS), images)](
        y, bias, x, A, B, out, x.stride(0), gain, bias_gain, change.scale,
        inputs, outputs, inner, triton.next_power_of_2(inputs), OUTPUTS,
    )  # fmt: skip
    return out
