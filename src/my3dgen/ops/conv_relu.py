"""A frozen convolution and a ReLU: one cuDNN kernel on CUDA, where bias and ReLU take as long as it alone."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _ConvRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, stride: tuple, padding: tuple) -> Tensor:
        ctx.places = stride, padding, (1, 1)
        y = torch.cudnn_convolution_relu(x, weight, bias, *ctx.places, 1)
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        x, weight, y = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, y, 0)
        by_x, _, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, *ctx.places, False, [0, 0], 1, [True, False, False]
        )
        return by_x, None, None, None, None


def conv_relu(
    x: Float[Tensor, "batch inputs height width"], layer: nn.Conv2d
) -> Float[Tensor, "batch outputs new_height new_width"]:
    """max(0, layer(x)) of a layer with a bias. On CUDA, if the layer is frozen, first derivatives alone."""
    if x.is_cuda and x.dtype == torch.float32 and not layer.weight.requires_grad:
        return _ConvRelu.apply(x, layer.weight, layer.bias, layer.stride, layer.padding)
    return F.relu(layer(x), inplace=True)
