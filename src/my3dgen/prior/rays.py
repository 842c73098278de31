"""Rays of a camera and the first samples along them (EG3D spec 1.9, 1.10)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from my3dgen.cameras import split_label

Points = Float[Tensor, "batch rays 3"]
Limits = Float[Tensor, "batch rays 1"]


def camera_rays(cameras: Float[Tensor, "batch 25"], resolution: int) -> tuple[Points, Points]:
    """(origins, unit directions) of the rays through all pixel centres, row by row."""
    cam2world, intrinsics = split_label(cameras)
    fx, skew, cx = intrinsics[:, 0].unbind(1)
    fy, cy = intrinsics[:, 1, 1], intrinsics[:, 1, 2]
    centres = (torch.arange(resolution, device=cameras.device, dtype=cameras.dtype) + 0.5) / resolution
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    y = (v.reshape(1, -1) - cy[:, None]) / fy[:, None]
    x = (u.reshape(1, -1) - cx[:, None] - skew[:, None] * y) / fx[:, None]
    directions = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ cam2world[:, :3, :3].mT
    origins = cam2world[:, None, :3, 3].expand_as(directions)
    return origins, normalize(directions, dim=-1)


def box_limits(origins: Points, directions: Points, side: float) -> tuple[Limits, Limits]:
    """Distances where rays enter and leave the cube of a side around the origin; (-1, -2) if never."""
    bounds = (torch.full_like(origins, half) - origins for half in (-side / 2, side / 2))
    low, high = (bound / directions for bound in bounds)
    entry = torch.minimum(low, high).amax(-1, keepdim=True)
    leave = torch.maximum(low, high).amin(-1, keepdim=True)
    hit = entry <= leave
    return torch.where(hit, entry, -1.0), torch.where(hit, leave, -2.0)


def filled_limits(entry: Limits, leave: Limits) -> tuple[Limits, Limits]:
    """The same with rays that miss given the smallest and the largest *entry* of the others.

    Using the largest entry and not the largest exit is EG3D's own slip, kept for equal pictures.
    """
    hit = entry <= leave
    smallest = torch.where(hit, entry, torch.inf).amin()
    largest = torch.where(hit, entry, -torch.inf).amax()
    some = hit.any()
    return (
        torch.where(hit | ~some, entry, smallest),
        torch.where(hit | ~some, leave, largest),
    )


def stratified_depths(
    near: Limits | float,
    far: Limits | float,
    jitter: Float[Tensor, "batch rays samples"],
    *,
    disparity: bool = False,
) -> Float[Tensor, "batch rays samples"]:
    """Distances spread evenly from near to far, each moved on by `jitter` in [0, 1) of a step.

    The last may pass `far` by up to a step. With `disparity` they are even in 1/distance.
    """
    samples = jitter.shape[-1]
    step = torch.arange(samples, device=jitter.device, dtype=jitter.dtype)
    fraction = (step + jitter) / (samples - 1)
    if disparity:
        return 1 / ((1 - fraction) / near + fraction / far)
    return near + fraction * (far - near)
