"""A convolution of features that are scaled per image and channel, without keeping the scaled ones (CUDA,
Triton).

Twin of `_conv(x * scales, weight)` in `my3dgen.ops.modulated_conv`. The weight's gradient needs the scaled
features; backward makes them again, which takes one pass, and only if that gradient is wanted.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from my3dgen.ops.finish_triton import scaled, through_scaled


class _ScaledConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, scales: Tensor, stride: int, padding: int, transposed: bool):
        ctx.places = [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1
        ctx.save_for_backward(x, weight, scales)
        return torch.ops.aten.convolution(scaled(x, scales), weight, None, *ctx.places)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        x, weight, scales = ctx.saved_tensors
        to_weight = ctx.needs_input_grad[1]
        by_scaled, by_weight, _ = torch.ops.aten.convolution_backward(
            gradient, scaled(x, scales) if to_weight else x, weight, None, *ctx.places,
            [True, to_weight, False],
        )  # fmt: skip
        by_x, by_scales = through_scaled(by_scaled, x, scales)
        return by_x, by_weight, by_scales, None, None, None


def scaled_conv(
    x: Float[Tensor, "batch inputs height width"],
    weight: Float[Tensor, "outputs inputs k k"],
    scales: Float[Tensor, "scales_batch inputs"],
    *,
    upsample: bool,
) -> Float[Tensor, "batch outputs new_height new_width"]:
    """Convolve x * scales keeping the resolution, or transposed with stride 2 to side 2 * height + 1.

    In the dtype of `x`, which is that of the weight. First derivatives only.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    scales = scales.float().expand(x.shape[:2]).contiguous()
    if upsample:
        return _ScaledConv.apply(x, weight.transpose(0, 1), scales, 2, 0, True)
    return _ScaledConv.apply(x, weight, scales, 1, weight.shape[-1] // 2, False)
