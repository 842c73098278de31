"""Tri-plane lookups on a CPU as sums of whole texels, all features of which lie together in memory.

A feature is a weighted mean of four texels a plane, which is what `embedding_bag` computes, many numbers at
once; `grid_sample` goes feature by feature. The gradient of the planes is the same kind of sum, over the
points of a cell: points are sorted by cell, so nothing is added to memory out of order. The gradient of a
point is a sum of differences of texels, times the gradient of its features.

Texels and weights of points are made by small products: a matrix that picks a coordinate for every corner of
every plane gives them in the order in which `embedding_bag` wants them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))
"""Of a cell, in texels to the right and down."""

Coordinates = Sequence[tuple[int, int]]
"""Per plane the point's coordinates that run along its (width, height)."""


def sample_planes_by_rows(
    planes: Float[Tensor, "batch planes features side side"],
    points: Float[Tensor, "batch points 3"],
    coordinates: Coordinates,
) -> Float[Tensor, "batch points features"]:
    """The mean over planes of their bilinear features at `points`, in one precision.

    The planes span [-1, 1]^3 and are zero outside. First derivatives only. Planes that are stacked
    channels-last are copied once, others are slower.
    """
    side = planes.shape[-1]
    places = (points * (side / 2) + (side + 1) / 2).clamp(0, side + 1)
    return _Lookup.apply(planes.permute(0, 3, 4, 1, 2), places, tuple(coordinates))


class _Lookup(torch.autograd.Function):
    """Texels are `batch side side planes features`; places count from the centre of one before the first."""

    @staticmethod
    def forward(ctx, texels: Tensor, places: Tensor, coordinates: tuple[tuple[int, int], ...]) -> Tensor:
        texels = F.pad(texels, (0, 0, 0, 0, 1, 2, 1, 2))  # what is outside, too
        ctx.coordinates = coordinates
        ctx.save_for_backward(texels, places)
        low, beyond = _split(places)
        entries = [(plane, corner) for plane in range(len(coordinates)) for corner in CORNERS]
        across = [(coordinates[plane][0], corner[0], 1 / len(coordinates)) for plane, corner in entries]
        along = [(coordinates[plane][1], corner[1], 1.0) for plane, corner in entries]
        weights = _shares(beyond, across).mul_(_shares(beyond, along))
        return _sums(texels, _rows(low, texels, coordinates, entries), weights).unflatten(0, places.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        texels, places = ctx.saved_tensors
        gradient = gradient.flatten(0, 1).contiguous()
        by_texels = by_places = None
        if ctx.needs_input_grad[0]:
            by_texels = _by_texels(gradient, texels, places, ctx.coordinates)
        if ctx.needs_input_grad[1]:
            by_places = _by_places(gradient, texels, places, ctx.coordinates).view_as(places)
        return by_texels, by_places, None


def _split(places: Tensor) -> tuple[Tensor, Float[Tensor, "points 3"]]:
    """The texels before places along the axes, and how far places are beyond them: in [0, 1), or NaN."""
    low = places.floor().nan_to_num(0)
    return low, (places - low).flatten(0, 1)


def _sums(texels: Tensor, rows: Tensor, weights: Tensor) -> Float[Tensor, "points features"]:
    """Weighted sums of texels, which are numbered in the order of memory."""
    return F.embedding_bag(rows, texels.flatten(0, 3), mode="sum", per_sample_weights=weights)


def _rows(
    low: Float[Tensor, "batch points 3"],
    texels: Tensor,
    coordinates: Coordinates,
    entries: Sequence[tuple[int, tuple[int, int]]],
) -> Tensor:
    """Numbers of texels, `points entries`; an entry is a plane and a corner."""
    _, height, width, planes, _ = texels.shape
    picked, firsts = low.new_zeros(3, len(entries)), low.new_zeros(len(entries))
    for place, (plane, (right, down)) in enumerate(entries):
        across, along = coordinates[plane]
        picked[across, place] += planes
        picked[along, place] += width * planes
        firsts[place] = (right + width * down) * planes + plane
    picture = torch.arange(len(low), dtype=torch.int32) * (height * width * planes)
    rows = torch.addmm(firsts, low.flatten(0, 1), picked).int()  # exact: small whole numbers
    return rows.unflatten(0, low.shape[:2]).add_(picture[:, None, None]).flatten(0, 1)


def _shares(
    beyond: Float[Tensor, "points 3"], wanted: Sequence[tuple[int, int, float]]
) -> Float[Tensor, "points wanted"]:
    """Along an axis the share of the texel before (0) or behind (1) a point, times a factor."""
    picked, firsts = beyond.new_zeros(3, len(wanted)), beyond.new_zeros(len(wanted))
    for place, (axis, behind, factor) in enumerate(wanted):
        picked[axis, place] = factor if behind else -factor
        firsts[place] = 0 if behind else factor
    return torch.addmm(firsts, beyond, picked)


def _by_texels(
    gradient: Float[Tensor, "points features"], texels: Tensor, places: Tensor, coordinates: Coordinates
) -> Tensor:
    """The gradient of texels, plane by plane and corner by corner; none of what is outside."""
    total, (low, beyond) = torch.empty_like(texels[:, 1:-2, 1:-2]), _split(places)
    width, count = texels.shape[2], texels.shape[:3].numel()
    first = torch.arange(len(low), dtype=torch.int32)[:, None] * (count // len(low))
    for plane, (across, along) in enumerate(coordinates):
        cells = ((low[..., along] * width + low[..., across]).int() + first).flatten()
        order = cells.argsort()
        ends = F.pad(torch.bincount(cells, minlength=count).cumsum(0), (1, 0))
        u, v = (beyond[:, axis].index_select(0, order) for axis in (across, along))
        left, right = (1 - u) / len(coordinates), u / len(coordinates)
        weights = left * (1 - v), right * (1 - v), left * v, right * v
        parts = [
            F.embedding_bag(
                order, gradient, ends, mode="sum", per_sample_weights=weight, include_last_offset=True
            )
            for weight in weights
        ]
        for part, (beside, below) in zip(parts[1:], CORNERS[1:], strict=True):
            step = beside + width * below
            parts[0][step:] += part[: count - step]  # what is left out belongs to cells without points
        total[:, :, :, plane] = parts[0].unflatten(0, texels.shape[:3])[:, 1:-2, 1:-2]
    return total


def _by_places(
    gradient: Float[Tensor, "points features"], texels: Tensor, places: Tensor, coordinates: Coordinates
) -> Float[Tensor, "points 3"]:
    """The gradient of places: how features change along each axis, times their gradient."""
    (low, beyond), ones, columns = _split(places), gradient.new_ones(gradient.shape[1]), []
    for axis in range(3):
        entries, slopes = [], []
        for plane, pair in enumerate(coordinates):
            if axis not in pair:
                continue
            this = pair.index(axis)
            for corner in CORNERS:
                entries.append((plane, corner))
                slopes.append((pair[1 - this], corner[1 - this], (2 * corner[this] - 1) / len(coordinates)))
        change = _sums(texels, _rows(low, texels, coordinates, entries), _shares(beyond, slopes))
        columns.append(change.mul_(gradient) @ ones)
    return torch.stack(columns, 1)
