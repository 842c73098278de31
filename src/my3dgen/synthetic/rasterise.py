"""Which surface does each pixel see? A z-buffer for all views at once, in plain tensor operations.

A pixel holds one int64: the float bits of the depth in the upper half and the number of the primitive in
the lower half. For positive floats the order of the bits is the order of the values, so an atomic minimum
over keys keeps the nearest primitive, and ties go to the smaller number: the result does not depend on the
order of the writes and is bit-exact on any device.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

EMPTY = (1 << 63) - 1
"""The key of a pixel that sees nothing: larger than any depth's bits."""

_TILES = (
    2,
    4,
    6,
    9,
    12,
    16,
    24,
    48,
    128,
    512,
)  # sides of the square of pixels tested per triangle, by its extent
_BATCH = 24_000_000  # candidate pixels tested at once


def new_buffer(views: int, size: int, device: str | torch.device) -> Int[Tensor, " pixel"]:
    """An empty z-buffer for `views` square pictures, flattened view by view, row by row."""
    return torch.full((views * size * size,), EMPTY, dtype=torch.int64, device=device)


def unpack(
    buffer: Int[Tensor, " pixel"],
) -> tuple[Float[Tensor, " pixel"], Int[Tensor, " pixel"], Bool[Tensor, " pixel"]]:
    """Depth (along the optical axis), primitive and whether anything was hit at all, per pixel."""
    depth = (buffer >> 32).int().view(torch.float32)
    return depth, buffer & 0xFFFFFFFF, buffer != EMPTY


def _key(depth: Tensor, primitive: Tensor) -> Tensor:
    return (depth.contiguous().view(torch.int32).long() << 32) | primitive


def draw_triangles(
    buffer: Int[Tensor, " pixel"],
    size: int,
    screen: Float[Tensor, "view vertex 3"],
    triangles: Int[Tensor, "triangle 3"],
    first: int = 0,
) -> None:
    """Draw the same triangles into every view, back faces left out (counter-clockwise seen from outside).

    `screen` is (x, y) in pixels, y down, and depth > 0; pixel centres lie at half-integers. Triangle t gets
    the number `first + t`. Writes into `buffer`.
    """
    views = len(screen)
    corners = screen[:, triangles.reshape(-1)].view(views, -1, 3, 3)
    x, y, _ = corners.unbind(-1)
    area = (x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0]) - (x[..., 2] - x[..., 0]) * (
        y[..., 1] - y[..., 0]
    )
    left, top = ((q.amin(2) - 0.5).ceil().clamp(0, size) for q in (x, y))
    right, bottom = ((q.amax(2) - 0.5).floor().clamp(-1, size - 1) for q in (x, y))
    extent = torch.maximum(right - left, bottom - top) + 1
    seen = (area < -1e-9) & (right >= left) & (bottom >= top)
    bucket = torch.bucketize(extent, torch.tensor(_TILES, device=extent.device, dtype=extent.dtype))
    bucket = torch.where(seen, bucket, len(_TILES)).flatten()
    order = torch.argsort(bucket, stable=True)
    counts = torch.bincount(bucket, minlength=len(_TILES) + 1).tolist()  # the one wait for the device
    at = 0
    for tile, count in zip(_TILES, counts, strict=False):
        for chunk in order[at : at + count].split(max(1, _BATCH // tile**2)):
            _draw_tiles(buffer, size, tile, chunk, corners, area, left, top, first, triangles.shape[0])
        at += count


def _draw_tiles(
    buffer: Tensor, size: int, tile: int, chosen: Tensor, corners: Tensor, area: Tensor,
    left: Tensor, top: Tensor, first: int, per_view: int,
) -> None:  # fmt: skip
    x, y, z = corners.view(-1, 3, 3)[chosen].unbind(-1)
    column, row = left.flatten()[chosen, None], top.flatten()[chosen, None]
    cell = torch.arange(tile * tile, device=buffer.device)
    px, py = column + (cell % tile), row + (cell // tile)
    # edge functions relative to the tile's corner keep float32 accurate
    dx, dy = x - column, y - row
    cx, cy = px - column + 0.5, py - row + 0.5
    inverse = 1 / area.flatten()[chosen, None]
    w0 = ((dx[:, 1:2] - cx) * (dy[:, 2:] - cy) - (dx[:, 2:] - cx) * (dy[:, 1:2] - cy)) * inverse
    w1 = ((dx[:, 2:] - cx) * (dy[:, :1] - cy) - (dx[:, :1] - cx) * (dy[:, 2:] - cy)) * inverse
    w2 = 1 - w0 - w1
    inside = (torch.minimum(torch.minimum(w0, w1), w2) >= 0) & (px < size) & (py < size)
    depth = 1 / (w0 / z[:, :1] + w1 / z[:, 1:2] + w2 / z[:, 2:])
    kept = inside.flatten().nonzero()[:, 0]
    view, triangle = chosen // per_view, chosen % per_view
    pixel = (view[:, None] * (size * size) + (py * size + px).long()).flatten()[kept]
    key = _key(depth.flatten()[kept], (first + triangle)[:, None].expand(-1, tile * tile).flatten()[kept])
    buffer.scatter_reduce_(0, pixel, key, "amin")


def barycentric(
    screen: Float[Tensor, "view vertex 3"],
    triangles: Int[Tensor, "triangle 3"],
    size: int,
    pixel: Int[Tensor, " hit"],
    triangle: Int[Tensor, " hit"],
) -> tuple[Int[Tensor, "hit 3"], Float[Tensor, "hit 3"]]:
    """The corners (vertices of one view) and perspective-correct weights behind each hit pixel."""
    corner = triangles[triangle]
    view = torch.div(pixel, size * size, rounding_mode="floor")
    inside = pixel - view * (size * size)
    row = torch.div(inside, size, rounding_mode="floor")
    x, y, z = screen.reshape(-1, 3)[corner + view[:, None] * screen.shape[1]].unbind(-1)
    dx, dy = x - ((inside - row * size).float() + 0.5)[:, None], y - (row.float() + 0.5)[:, None]
    area = torch.stack([dx[:, b] * dy[:, c] - dx[:, c] * dy[:, b] for b, c in ((1, 2), (2, 0), (0, 1))], 1)
    weight = area / z
    return corner, weight / weight.sum(1, keepdim=True)


STEPS = 64
"""A point's place along its segment is kept in 1/64."""


def draw_segments(
    buffer: Int[Tensor, " pixel"],
    size: int,
    screen: Float[Tensor, "view strand node 3"],
    first: int,
    *,
    taper: bool = False,
    points_at_once: int = 40_000_000,
) -> None:
    """Draw poly-lines, one pixel wide and without gaps, as depth-tested points.

    Segment s of strand i at u in [0, 1) gets the number
    first + ((i * segments + s) * STEPS + int(u * STEPS)).
    Segments of zero length draw nothing. With `taper`, a fixed choice of points is left out, ever more
    towards the ends of strands, so that these grow thin and soft. Writes into `buffer`.
    """
    views, strands, nodes = screen.shape[:3]
    segments = strands * (nodes - 1)
    start, step = (
        screen[:, :, :-1].reshape(views, -1, 3),
        (screen[:, :, 1:] - screen[:, :, :-1]).reshape(views, -1, 3),
    )
    end = start + step
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    on_screen = (high[..., :2] >= 0).all(2) & (low[..., :2] < size).all(2)
    reach = step[..., :2].abs().amax(2)
    points = torch.where(on_screen & (reach > 1e-4), reach.ceil().clamp(1, STEPS), 0.0).long().flatten()
    start, step = start.reshape(-1, 3), step.reshape(-1, 3)
    total = torch.cumsum(points, 0)
    ends = total.tolist() if total.numel() == 0 else [int(total[-1])]  # waits for the device once
    if not ends or ends[0] == 0:
        return
    if ends[0] > points_at_once and views > 1:
        half = views // 2
        rest = buffer.view(views, -1)
        draw_segments(
            rest[:half].view(-1), size, screen[:half], first, taper=taper, points_at_once=points_at_once
        )
        draw_segments(
            rest[half:].view(-1), size, screen[half:], first, taper=taper, points_at_once=points_at_once
        )
        return
    segment = torch.repeat_interleave(points, output_size=ends[0])
    place = torch.arange(ends[0], device=buffer.device) - (total - points)[segment]
    u = (place.float() + 0.5) / points[segment]
    x, y, z = (start[segment] + step[segment] * u[:, None]).unbind(1)
    column, row = x.floor().long(), y.floor().long()
    view = torch.div(segment, segments, rounding_mode="floor")
    pixel = view * (size * size) + row * size + column
    number = first + (segment - view * segments) * STEPS + (u * STEPS).long()
    key = _key(z, number)
    inside = (column >= 0) & (row >= 0) & (column < size) & (row < size)
    if taper:
        along = ((segment % (nodes - 1)).float() + u) / (nodes - 1)
        chance = ((number * 40503) & 0xFFFF).float() * 2.0**-16
        inside &= chance > (along - 0.45) * 1.6
    # most hidden points lose against the mesh already drawn: leave them out before the atomics
    kept = (inside & (key < buffer[pixel.clamp(0, buffer.numel() - 1)])).nonzero()[:, 0]
    buffer.scatter_reduce_(0, pixel[kept], key[kept], "amin")
