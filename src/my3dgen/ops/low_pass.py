"""The [1, 3, 3, 1] filter without a change of resolution: reference, and one kernel on CUDA."""

from importlib.util import find_spec

from jaxtyping import Float
from torch import Tensor

from my3dgen.ops.fir import lowpass_filter, upfirdn

HAS_TRITON = find_spec("triton") is not None


def low_pass(
    x: Float[Tensor, "batch channels height width"], padding: tuple[int, int], gain: float = 1.0
) -> Float[Tensor, "batch channels new_height new_width"]:
    """Filter with zero padding (before, after) on both axes; the side grows by their sum less 3.

    On CUDA the fused kernel runs, channels-last, with float32 sums; derivatives of any order work.
    """
    if x.is_cuda and HAS_TRITON:
        from my3dgen.ops.fir_triton import low_pass_fused

        return low_pass_fused(x, padding, gain)
    taps = lowpass_filter().to(x)
    return upfirdn(x, taps, padding=(padding[0], padding[1], padding[0], padding[1]), gain=gain)
