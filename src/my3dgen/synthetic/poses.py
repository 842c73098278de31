"""Cameras of a synthetic dataset: mostly near the front, some wide, so that cheeks and hair are seen."""

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.cameras import camera_from_angles
from my3dgen.synthetic.factors import normals

_STREAM = 1  # of the random numbers; 0 holds the factors


def dataset_cameras(
    seeds: list[int], views: int, device: str | torch.device = "cpu"
) -> Float[Tensor, "scene view 25"]:
    """Cameras on EG3D's sphere, by seed: 60 % yaw N(0, 0.32), 40 % uniform within 1.0, clipped at 1.15;
    pitch N(0.02, 0.14), clipped at 0.4; radians."""
    chance = normals(seeds, 4 * views, stream=_STREAM, device=device).unflatten(1, (views, 4))
    near, wide = 0.32 * chance[..., 0], 2 * torch.special.ndtr(chance[..., 1]) - 1
    yaw = torch.where(torch.special.ndtr(chance[..., 2]) < 0.6, near, wide).clamp(-1.15, 1.15)
    pitch = (0.02 + 0.14 * chance[..., 3]).clamp(-0.4, 0.4)
    return camera_from_angles(yaw.flatten(), pitch.flatten()).unflatten(0, (len(seeds), views))
