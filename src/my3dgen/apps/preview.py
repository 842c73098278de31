"""A look at a mesh without a viewer: turned, rasterised with a depth buffer, shaded by its normals."""

import math

import numpy as np
import trimesh
from PIL import Image

from my3dgen.apps.sheet import sheet

YAWS = (-0.7, 0.0, 1.3)
OVERSAMPLING = 2
TILE = 2**22  # candidate pixels handled at once


def preview(mesh: trimesh.Trimesh, yaws: tuple[float, ...] = YAWS, size: int = 384) -> Image.Image:
    """A sheet of the mesh from several yaws in radians: clay shaded by the normals, then its colours.

    The mesh has y up and faces +z; every view is orthographic, at one scale that fits them all.
    """
    views = [look(mesh, yaw, size) for yaw in yaws]
    pictures = [clay for clay, _ in views] + [paint for _, paint in views]
    captions = [f"yaw {math.degrees(yaw):.0f}°" for yaw in yaws]
    titles = ["shape", "colour"]
    return sheet(pictures, captions * 2, columns=len(yaws), row_titles=titles, cell=size)


def look(mesh: trimesh.Trimesh, yaw: float, size: int) -> tuple[Image.Image, Image.Image]:
    """(clay, colours): the mesh as an orthographic camera at `yaw` (radians; > 0 stands at +x) sees it."""
    side = size * OVERSAMPLING
    middle = mesh.bounds.mean(0)
    offset = mesh.vertices - middle
    reach = max(np.hypot(offset[:, 0], offset[:, 2]).max(), np.abs(offset[:, 1]).max()) * 1.02
    sine, cosine = math.sin(yaw), math.cos(yaw)
    world_to_view = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])  # z toward the camera
    seen = offset @ world_to_view.T
    pixels = np.stack([seen[:, 0] / reach + 1, 1 - seen[:, 1] / reach], axis=1) * (side / 2)
    face, weights = rasterise(pixels, seen[:, 2], mesh.faces, side)
    hit = face >= 0
    corners = mesh.faces[face[hit]]
    normals = np.einsum("pk,pkc->pc", weights[hit], mesh.vertex_normals[corners]) @ world_to_view.T
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-9)
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255  # pyright: ignore
    paint = np.einsum("pk,pkc->pc", weights[hit], colours[corners])
    return _picture(hit, _shade(normals), size), _picture(hit, paint, size)


def rasterise(
    pixels: np.ndarray, nearness: np.ndarray, faces: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which face each pixel of a `side` x `side` picture shows, -1 for none, and its barycentric weights.

    `pixels` are vertex positions (right, down) in pixels, `nearness` grows toward the camera.
    Faces turned away are drawn too. Pixels are sampled at their centres.
    """
    corners = pixels[faces]  # face, corner, (x, y)
    low = np.ceil(corners.min(1) - 0.5).clip(0).astype(np.int64)
    high = np.floor(corners.max(1) - 0.5).clip(max=side - 1).astype(np.int64)
    extent = (high - low + 1).max(1, initial=0)
    inside = (high >= low).all(1)
    best = np.full(side * side, -np.inf)
    shown = np.full(side * side, -1, np.int64)
    weights = np.zeros((side * side, 3))
    reach = 1
    while inside.any() and reach // 2 < extent[inside].max():
        group = np.flatnonzero(inside & (extent > reach // 2) & (extent <= reach))
        for some in np.array_split(group, max(1, math.ceil(len(group) * reach**2 / TILE))):
            down, right = np.divmod(np.arange(reach**2), reach)
            x, y = low[some, 0, None] + right, low[some, 1, None] + down
            bary = _barycentric(corners[some], x + 0.5, y + 0.5)
            ok = (bary >= 0).all(-1) & (x < side) & (y < side)
            where = (y * side + x)[ok]
            depth = np.einsum("fpk,fk->fp", bary, nearness[faces[some]])[ok]
            order = np.argsort(depth, kind="stable")  # the last write to a pixel is the nearest
            where, depth, order = where[order], depth[order], order[::-1]
            nearest, first = np.unique(where[::-1], return_index=True)
            better = depth[::-1][first] > best[nearest]
            nearest, chosen = nearest[better], order[first[better]]
            best[nearest] = depth[::-1][first[better]]
            shown[nearest] = np.broadcast_to(some[:, None], ok.shape)[ok][chosen]
            weights[nearest] = bary[ok][chosen]
        reach *= 2
    return shown.reshape(side, side), weights.reshape(side, side, 3)


def _barycentric(corners: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (ax, ay), (bx, by), (cx, cy) = (corners[:, k].T[..., None] for k in range(3))
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    area = np.where(np.abs(area) < 1e-12, np.nan, area)  # edge-on: comparisons with NaN are false
    first = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
    second = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
    return np.stack([first, second, 1 - first - second], axis=-1)


def _shade(normals: np.ndarray) -> np.ndarray:
    """Clay in the light of a lamp up left, with a little from below and around."""
    lamp = np.array([-0.4, 0.55, 0.75]) / np.linalg.norm([-0.4, 0.55, 0.75])
    key = (normals @ lamp).clip(0)
    fill = 0.5 + 0.5 * normals[:, 1]
    rim = normals[:, 2].clip(0, 1)
    return (0.15 + 0.6 * key + 0.12 * fill + 0.13 * rim)[:, None] * np.array([0.93, 0.9, 0.86])


def _picture(hit: np.ndarray, colours: np.ndarray, size: int) -> Image.Image:
    """Colours in [0, 1] where something was hit, white elsewhere, averaged down to `size`."""
    pixels = np.ones((*hit.shape, 3))
    pixels[hit] = colours
    full = Image.fromarray((pixels * 255).clip(0, 255).astype(np.uint8))
    return full.resize((size, size), Image.Resampling.BOX)
