"""Colours for a mesh from pictures of it: what each vertex looks like from the views that see it best."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d

from my3dgen.apps.subject import Subject
from my3dgen.cameras import project
from my3dgen.progress import track

VIEWS = ((0, 0), (30, 0), (-30, 0), (60, 0), (-60, 0), (0, 17), (0, -17))
"""Yaw and pitch in degrees: within what priors are trained on. Beyond it they never saw a colour."""
VISIBILITY_GRID = 96
FACING_POWER = 4
LEAST = 0.05
"""A vertex with less weight than this, over all views, was not seen."""
STIFFNESS = 0.01
"""Of the surface's colours, against the weight of what was seen."""
SWEEPS = 300


@torch.no_grad()
def paint(
    subject: Subject,
    ws: Float[Tensor, "1 num_ws w_dim"],
    planes: Float[Tensor, "1 3 features side side"],
    vertices: np.ndarray,
    normals: np.ndarray,
    faces: np.ndarray,
    tolerance: float = 0.02,
) -> np.ndarray:
    """8-bit RGB of vertices, given in world units with outward normals.

    A point of the field alone has no colour that means much: a picture's colour is the sum along a ray.
    So the vertices are looked up in super-resolved pictures from where the prior has seen heads, weighted
    by how squarely each view sees them. What those views miss, such as the back of the head and all that
    lies outside the frame, takes the colours around it: see `spread`. `tolerance` is how far behind the
    first vertex in its direction, in world units, a vertex still counts as seen.
    """
    points = torch.tensor(vertices, dtype=torch.float32).to(planes)
    facing = torch.tensor(normals, dtype=torch.float32).to(planes)
    total = points.new_zeros(len(points), 3)
    weight = points.new_zeros(len(points), 1)
    for yaw, pitch in track(VIEWS, "colours"):
        camera = subject.camera(math.radians(yaw), math.radians(pitch))
        picture = subject.generator.render(planes, camera, ws, subject.adapter)
        place = 2 * project(points[None], camera)[:, None] - 1
        # the rim of a silhouette is mixed with the background, and one pixel further after enlarging
        solid = -max_pool2d(-picture.opacity, 3, 1, 1)
        solid = grid_sample(solid, place, align_corners=False)[0, 0, 0][:, None]
        seen = see(points, facing, camera, tolerance)[:, None] * solid.pow(8)
        total += seen * grid_sample(picture.image, place, align_corners=False)[0, :, 0].T
        weight += seen
    colours = (total / weight.clamp_min(1e-12)).double().cpu().numpy()
    trust = weight[:, 0].double().cpu().numpy()
    trust[trust < LEAST] = 0
    colours = spread(fill(vertices, colours, trust > 0), trust, faces)
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


def spread(colours: np.ndarray, trust: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Colours as given where they are trusted, and as smooth as the surface allows elsewhere.

    They minimise the sum of trust * (colour - given)^2 over the vertices and of STIFFNESS * difference^2
    over the edges of the faces: a linear system, solved by at most SWEEPS conjugate gradients from the
    given colours, which for vertices without trust are a first guess.
    """
    from scipy.sparse import coo_matrix, diags
    from scipy.sparse.linalg import cg

    if not trust.any():
        return colours
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    links = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(colours),) * 2)
    links = (links + links.T).tocsr()
    degree = np.asarray(links.sum(1)).ravel()
    system = diags(trust + STIFFNESS * degree) - STIFFNESS * links
    scale = diags(1 / system.diagonal().clip(1e-12))
    solved = [
        cg(system, trust * channel, x0=channel, rtol=1e-4, maxiter=SWEEPS, M=scale)[0]
        for channel in colours.T
    ]
    return np.stack(solved, axis=1)
