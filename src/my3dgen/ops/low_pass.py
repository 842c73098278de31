"""The [1, 3, 3, 1] filter without a change of resolution: two passes, or one kernel on CUDA."""

from importlib.util import find_spec

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

HAS_TRITON = find_spec("triton") is not None


def low_pass(
    x: Float[Tensor, "batch channels height width"], padding: tuple[int, int], gain: float = 1.0
) -> Float[Tensor, "batch channels new_height new_width"]:
    """Filter with zero padding (before, after) on both axes; the side grows by their sum less 3.

    Equal to `upfirdn` with EG3D's resampling filter, which is separable. On CUDA the fused kernel runs,
    channels-last, with float32 sums. Derivatives of any order work.
    """
    if x.is_cuda and HAS_TRITON:
        from my3dgen.ops.fir_triton import low_pass_fused

        return low_pass_fused(x, padding, gain)
    channels = x.shape[1]
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8
    if padding[0] != padding[1]:
        x, padding = F.pad(x, (padding[0], padding[1], padding[0], padding[1])), (0, 0)
    rows = taps.reshape(1, 1, 1, 4).expand(channels, 1, 1, 4)
    columns = (taps * gain).reshape(1, 1, 4, 1).expand(channels, 1, 4, 1)
    x = F.conv2d(x, rows, padding=(0, padding[0]), groups=channels)
    return F.conv2d(x, columns, padding=(padding[0], 0), groups=channels)
