"""Which tri-plane fields a device renders in a few kernels, and what comes out of them (CUDA, Triton)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.config import PlaneMode
from my3dgen.ops.low_pass import HAS_TRITON

OLDEST = (8, 0)
"""Compute capability of the oldest GPUs served: the first that multiply bfloat16 and TF32."""
MOST_PAIRS = 256 * 256
"""Coarse times fine samples, each rounded up to a power of two, that one program can merge."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How the kernels share the work. Results do not depend on it, but for the order of sums."""

    rays: int = 64
    """Rays of a program; a power of two of at least 16."""
    chunk: int = 16
    """Samples of a ray that a program takes where samples are independent of one another."""
    warps: int = 4
    stages: int = 2
    """Samples whose texels are on their way at once."""

    @classmethod
    def of(cls, dtype: torch.dtype) -> "Tuning":
        """What fits the registers and the 96 KiB of shared memory of a program on any GPU served."""
        return cls(rays=16, warps=1, stages=1) if dtype == torch.float32 else cls()


class Perceptron(NamedTuple):
    """The decoder's weights with their gains; the first output is the density."""

    w_in: Float[Tensor, "hidden features"]
    b_in: Float[Tensor, " hidden"]
    w_out: Float[Tensor, "outputs hidden"]
    b_out: Float[Tensor, " outputs"]


class RaySums(NamedTuple):
    """What was met along rays, in float32. The last two get no gradient."""

    colours: Float[Tensor, "batch rays colours"]
    """Weighted sum of colours."""
    opacity: Float[Tensor, "batch rays"]
    """Sum of weights."""
    moment: Float[Tensor, "batch rays"]
    """Weighted sum of depths."""
    nearest: Float[Tensor, ""]
    """Smallest depth of any sample."""
    farthest: Float[Tensor, ""]
    """Largest depth of any sample."""


@dataclass(frozen=True)
class FusedField:
    """Tri-planes and a decoder as data, where the readable renderer takes any function of points."""

    planes: Float[Tensor, "#batch 3 features side side"]
    decoder: Perceptron
    axes: PlaneMode
    box_warp: float
    """Side of the cube covered by the planes, in world units."""
    dtype: torch.dtype
    """Precision of texels, of the decoder's weights and of what enters its layers."""
    tuning: Tuning | None = None
    """None for what suits the dtype."""

    def serves(self, origins: Tensor, directions: Tensor, coarse: int, fine: int) -> bool:
        """Whether the kernels render this: on CUDA, without a gradient of the rays, in sizes they know."""
        return (
            self.planes.is_cuda
            and HAS_TRITON
            and torch.cuda.get_device_capability(self.planes.device) >= OLDEST
            and not (origins.requires_grad or directions.requires_grad)
            and self.dtype in (torch.float32, torch.bfloat16)
            and self.fits(coarse, fine)
        )

    def fits(self, coarse: int, fine: int) -> bool:
        """Whether the sizes are ones the kernels know."""
        outputs, hidden = self.decoder.w_out.shape
        widths = self.planes.shape[2], hidden, outputs - 1
        if not all(width >= 16 and _is_power(width) for width in widths):
            return False
        # importance sampling uses the inner intervals, of which there are coarse - 3
        return fine == 0 or (coarse >= 4 and _up(coarse) * _up(fine) <= MOST_PAIRS)

    def render(
        self,
        origins: Float[Tensor, "batch rays 3"],
        directions: Float[Tensor, "batch rays 3"],
        depths: Float[Tensor, "batch rays coarse"],
        fine: int,
        quantiles: Float[Tensor, "batch rays fine"] | None,
    ) -> RaySums:
        """March through coarse depths, which are in order, and `fine` further ones.

        `quantiles` in [0, 1) pick the fine ones as in `my3dgen.prior.importance`; None for
        (k + 0.5) / fine. Planes and decoder get first derivatives.
        """
        from my3dgen.ops.render_triton import Options, render_fused

        three = self.axes != "xy_xz_zx"  # there it repeats the second plane transposed
        options = Options(fine, three, 2 / self.box_warp, self.dtype, self.tuning or Tuning.of(self.dtype))
        colours, opacity, moment, sorted_depths = render_fused(
            self.planes, self.decoder, origins, directions, depths, quantiles, options
        )
        nearest, farthest = sorted_depths[:, 0].amin(), sorted_depths[:, -1].amax()
        return RaySums(colours, opacity, moment, nearest, farthest)


def _up(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()


def _is_power(number: int) -> bool:
    return number & (number - 1) == 0
