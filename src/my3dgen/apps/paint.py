"""Colours for a mesh from pictures of it: what each vertex looks like from the views that see it best."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from my3dgen.apps.subject import Subject, with_fov
from my3dgen.cameras import project
from my3dgen.progress import track

AROUND = (0.0, 35.0, -35.0, 70.0, -70.0, 110.0, -110.0, 145.0, -145.0, 180.0)
FRONT = AROUND[:5]
ABOVE = (40.0, -30.0)
WIDE = 32.0  # diagonal degrees: the whole box is in the picture
VISIBILITY_GRID = 96
FACING_POWER = 4


@torch.no_grad()
def paint(
    subject: Subject,
    ws: Float[Tensor, "1 num_ws w_dim"],
    planes: Float[Tensor, "1 3 features side side"],
    vertices: np.ndarray,
    normals: np.ndarray,
    tolerance: float = 0.02,
) -> np.ndarray:
    """8-bit RGB of vertices, given in world units with outward normals.

    A point of the field alone has no colour that means much: a picture's colour is the sum along a ray.
    So the vertices are looked up in super-resolved pictures from around the head (only from the front
    where the prior also models a background), weighted by how squarely each view sees them; what those
    miss, such as shoulders outside the frame, comes from wide volume-rendered pictures, and what no view
    sees from its nearest neighbour. `tolerance` is how far behind the first vertex in its direction, in
    world units, a vertex still counts as seen.
    """
    points = torch.tensor(vertices, dtype=torch.float32).to(planes)
    facing = torch.tensor(normals, dtype=torch.float32).to(planes)
    total = points.new_zeros(len(points), 3)
    weight = points.new_zeros(len(points), 1)
    yaws = AROUND if subject.generator.config.white_back else FRONT
    degrees = [(yaw, 0.0, None) for yaw in yaws] + [(0.0, pitch, None) for pitch in ABOVE]
    degrees += [(yaw, 0.0, WIDE) for yaw in yaws]
    for yaw, pitch, fov in track(degrees, "colours"):
        camera = with_fov(subject.camera(math.radians(yaw), math.radians(pitch)), fov)
        picture = subject.generator.render(planes, camera, ws, subject.adapter)
        image = picture.image if fov is None else picture.image_raw
        seen = see(points, facing, camera, tolerance)[:, None] * (1.0 if fov is None else 1e-3)
        place = 2 * project(points[None], camera)[:, None] - 1
        solid = grid_sample(picture.opacity, place, align_corners=False)[0, 0, 0][:, None]
        seen = seen * solid.pow(8)  # the rim of a silhouette is mixed with the background
        total += seen * grid_sample(image, place, align_corners=False)[0, :, 0].T
        weight += seen
    colours = (total / weight.clamp_min(1e-12)).cpu().numpy()
    colours = fill(vertices, colours, (weight[:, 0] > 1e-6).cpu().numpy())
    return (colours * 127.5 + 128).clip(0, 255).astype(np.uint8)


def see(
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    camera: Float[Tensor, "1 25"],
    tolerance: float,
) -> Float[Tensor, " points"]:
    """How squarely a camera sees each point of a dense surface: 0 if hidden or outside the picture, else
    the cosine between normal and view to a power that prefers the squarest view."""
    toward = camera[0, [3, 7, 11]] - points
    distance = toward.norm(dim=1)
    cosine = (toward * normals).sum(1) / distance
    place = project(points[None], camera)[0]
    inside = ((place > 0) & (place < 1)).all(1)
    cell = (place.clamp(0, 1 - 1e-6) * VISIBILITY_GRID).long()
    cell = cell[:, 1] * VISIBILITY_GRID + cell[:, 0]
    first = distance.new_full((VISIBILITY_GRID**2,), math.inf)
    first = first.scatter_reduce(0, cell[inside], distance[inside], "amin")
    visible = inside & (distance < first[cell] + tolerance)
    return visible * cosine.clamp_min(0).pow(FACING_POWER)


def fill(vertices: np.ndarray, colours: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The colours with those of unknown vertices taken from the nearest known one."""
    from scipy.spatial import KDTree

    if known.all() or not known.any():
        return colours
    filled = colours.copy()
    _, nearest = KDTree(vertices[known]).query(vertices[~known])
    filled[~known] = colours[known][nearest]
    return filled
