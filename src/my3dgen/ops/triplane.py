"""Features at points in space: bilinear lookups in three planes (EG3D spec 1.7)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from my3dgen.config import PlaneMode
from my3dgen.ops.low_pass import HAS_TRITON
from my3dgen.ops.triplane_cpu import sample_planes_by_rows

PLANE_AXES: dict[PlaneMode, tuple[tuple[int, int], ...]] = {
    "xy_xz_zx": ((0, 1), (0, 2), (2, 0)),
    "xy_xz_zy": ((0, 1), (0, 2), (2, 1)),
}
"""Per plane the point's coordinates that run along its (width, height)."""


def sample_planes(
    planes: Float[Tensor, "batch 3 features height width"],
    points: Float[Tensor, "batch points 3"],
    axes: PlaneMode,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "batch points features"]:
    """The mean over the three planes of their bilinear features at `points`.

    The planes span [-1, 1]^3 with texel j of n centred at (2 j + 1) / n - 1, and are zero outside.
    The features come in `dtype`. On CUDA one kernel reads texels of that precision and sums in float32,
    unless a gradient of the points is wanted. First derivatives only.
    """
    if planes.is_cuda and HAS_TRITON and not points.requires_grad:
        from my3dgen.ops.triplane_triton import sample_planes_fused

        return sample_planes_fused(planes.to(dtype), points, PLANE_AXES[axes])
    planes = planes.to(points.dtype)
    if planes.device.type == "cpu" and planes.shape[3] == planes.shape[4]:
        return sample_planes_by_rows(planes, points, PLANE_AXES[axes]).to(dtype)
    (first, second, third), coordinates = planes.unbind(1), PLANE_AXES[axes]
    if axes == "xy_xz_zx" and planes.shape[3] == planes.shape[4]:
        # the third plane repeats the second transposed, and bilinear weights are symmetric:
        # adding them first gives the same features from two lookups
        parts = [first, second + third.mT]
    else:
        parts = [first, second, third]
    features = sample_plane(parts[0], _pick(points, coordinates[0]))
    for part, pair in zip(parts[1:], coordinates[1:], strict=False):
        features = features + sample_plane(part, _pick(points, pair))
    return (features / 3).to(dtype)


def sample_plane(
    plane: Float[Tensor, "batch features height width"], positions: Float[Tensor, "batch points 2"]
) -> Float[Tensor, "batch points features"]:
    """Bilinear features of one plane at (width, height) positions in [-1, 1]."""
    sampled = F.grid_sample(plane, positions[:, None], align_corners=False, padding_mode="zeros")
    return sampled[:, :, 0].mT


def _pick(points: Tensor, pair: tuple[int, int]) -> Tensor:
    return torch.stack([points[..., axis] for axis in pair], dim=-1)
