"""How much light from each direction reaches a point? Shadow maps for all scenes and directions at once."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from my3dgen.synthetic.noise import smoothstep

_FAR = 9.0


@dataclass(frozen=True)
class ShadowMaps:
    """One square orthographic map per scene and direction, looking against the light at the origin."""

    directions: Float[Tensor, "direction 3"]
    across: Float[Tensor, "direction 3"]
    along: Float[Tensor, "direction 3"]
    solid: Float[Tensor, "scene cell"]
    """Distance along the light of the nearest solid surface, per cell of every direction's map."""
    hair: Float[Tensor, "scene cell"]
    """The same for hair."""
    cover: Float[Tensor, "scene cell"]
    """How much hair lies in a cell, saturating at 1."""
    size: int
    extent: float


def _axes(directions: Tensor) -> tuple[Tensor, Tensor]:
    up = torch.zeros_like(directions)
    steep = directions[:, 1].abs() > 0.9
    up[:, 0], up[:, 1] = steep.float(), (~steep).float()
    across = F.normalize(torch.linalg.cross(up, directions), dim=1)
    return across, torch.linalg.cross(directions, across)


def _cells(
    points: Float[Tensor, "scene point 3"],
    directions: Tensor,
    across: Tensor,
    along: Tensor,
    size: int,
    extent: float,
) -> tuple[Int[Tensor, "scene entry"], Float[Tensor, "scene entry"]]:
    column = ((points @ across.T) * (size / extent) + size / 2).long().clamp_(0, size - 1)
    row = ((points @ along.T) * (size / extent) + size / 2).long().clamp_(0, size - 1)
    base = torch.arange(len(directions), device=points.device) * (size * size)
    return (row * size + column + base).flatten(1), -(points @ directions.T).flatten(1)


def shadow_maps(
    solid: Float[Tensor, "scene point 3"],
    hair: Float[Tensor, "scene hairpoint 3"],
    directions: Float[Tensor, "direction 3"],
    *,
    size: int = 112,
    extent: float = 1.3,
    dense: float = 2.5,
) -> ShadowMaps:
    """Maps of points scattered densely over the occluders; `dense` hair points fill a cell.

    Depths use an atomic minimum and cells count in whole numbers, so the maps are bit-exact.
    """
    across, along = _axes(directions)
    scenes, cells = len(solid), len(directions) * size * size
    frame = (directions, across, along, size, extent)

    index, depth = _cells(solid, *frame)
    nearest = torch.full((scenes, cells), _FAR, device=solid.device).scatter_reduce_(1, index, depth, "amin")
    pictures = nearest.view(scenes * len(directions), 1, size, size)
    pictures = -F.max_pool2d(-pictures, 3, 1, 1)  # closes the holes between points

    index, depth = _cells(hair, *frame)
    strands = torch.full((scenes, cells), _FAR, device=solid.device).scatter_reduce_(1, index, depth, "amin")
    count = torch.zeros(scenes, cells, device=solid.device).scatter_add_(1, index, torch.ones_like(depth))
    count = F.avg_pool2d(count.view_as(pictures), 3, 1, 1).flatten()
    return ShadowMaps(
        directions, across, along, pictures.reshape(scenes, cells), strands,
        (count / dense).clamp(0, 1).view(scenes, cells), size, extent,
    )  # fmt: skip


def visibility(
    maps: ShadowMaps,
    points: Float[Tensor, "scene point 3"],
    *,
    bias: float = 0.014,
    hair_density: float = 30.0,
) -> Float[Tensor, "scene point direction"]:
    """Fraction of light that arrives, in [0, 1]: solids cast soft-edged shadows, hair dims with depth."""
    index, depth = _cells(points, maps.directions, maps.across, maps.along, maps.size, maps.extent)
    free = 1 - smoothstep(depth - maps.solid.gather(1, index), bias, bias * 2.5)
    inside = (depth - maps.hair.gather(1, index) - 0.004).clamp(0, 0.08)
    free = free * torch.exp(-hair_density * inside * maps.cover.gather(1, index))
    return free.view(*points.shape[:2], -1)
