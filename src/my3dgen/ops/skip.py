"""The skip connection of StyleGAN2's image branch (EG3D spec 1.5): one kernel on CUDA."""

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.ops.bias_act import bias_act
from my3dgen.ops.fir import lowpass_filter, upsample2d
from my3dgen.ops.low_pass import HAS_TRITON


def add_skip(
    image: Float[Tensor, "images channels old_height old_width"] | None,
    contribution: Float[Tensor, "contributions channels height width"],
    bias: Float[Tensor, " channels"] | Float[Tensor, "biases channels"],
    clamp: float | None,
    *,
    up: bool,
) -> Float[Tensor, "batch channels height width"]:
    """The image so far plus a block's contribution, to which a bias is added and a bound applied first.

    With `up` the image has half the contribution's resolution. Image, contribution and bias are per image
    or shared; the sum is float32. On CUDA all is one kernel, with first derivatives only.
    """
    if contribution.is_cuda and HAS_TRITON:
        from my3dgen.ops.skip_triton import add_skip_fused

        return add_skip_fused(image, contribution, bias, clamp, up=up)
    contribution = bias_act(contribution, bias, activation="linear", clamp=clamp)
    contribution = contribution.to(torch.promote_types(contribution.dtype, torch.float32))
    if image is None:
        return contribution
    if up:
        image = upsample2d(image, lowpass_filter().to(image.device))
    return image + contribution
