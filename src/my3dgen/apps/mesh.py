"""A person's shape: the density of the tri-planes on a grid, marching cubes, colours, GLB and PLY.

Vertices are in the prior's world units: y up, the face toward +z, as glTF wants it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor
from trimesh.visual import ColorVisuals

from my3dgen.apps.paint import paint
from my3dgen.apps.subject import Subject, subject_of
from my3dgen.errors import UserError
from my3dgen.output import check_output, whole
from my3dgen.person import Person
from my3dgen.prior.generator import Generator
from my3dgen.prior.rays import camera_rays
from my3dgen.prior.store import Prior
from my3dgen.progress import track

RESOLUTIONS = (16, 512)
EMPTY = -1000.0
FFHQ_LEVEL = 10.0
BOX_NEAR, BOX_FAR = -0.87, 0.87  # the box's corners, in sides from its centre
RAY_SAMPLES = 96


@dataclass(frozen=True)
class MeshReport:
    """What was made, for people who will print or animate it."""

    vertices: int
    faces: int
    level: float
    """Raw density on the surface."""
    watertight: bool
    floaters: int
    """Separate pieces that were dropped."""
    floating_share: float
    """Their share of all faces."""
    size: tuple[float, float, float]
    """Width, height and depth in world units."""


@torch.no_grad()
def export_mesh(
    prior: Prior,
    person: Person | None = None,
    *,
    anchor: int | None = None,
    alpha: Mapping[int, float] | None = None,
    seed: int = 0,
    resolution: int = 256,
    level: float | int | None = None,
    trim: float | int | None = None,
    smooth: float | int = 0.5,
) -> tuple[trimesh.Trimesh, MeshReport]:
    """A coloured mesh of one appearance of a person, or of a face drawn from the prior.

    `resolution` voxels span the box of the planes in each direction. `level` is the raw density of the
    surface; without it `surface_level` finds the one that agrees with the rendered pictures. `trim` is
    the share of the box cut off on every side: EG3D's 30/256 where the prior also models a background,
    one voxel where it does not (EG3D spec 1.15). `smooth` is the width, in texels of the planes, of the
    filter that takes the ripples of their bilinear lookup away. Pieces that float beside the largest are
    dropped.

    Raises UserError when the resolution is out of range or no surface has this level.
    """
    if not 0 <= smooth <= 4:
        raise UserError(f"smoothing {smooth:g} is out of range; choose 0 to 4 texels")
    if trim is not None and not 0 <= trim < 0.4:
        raise UserError(f"trim {trim:g} is out of range; choose 0 to 0.4 of the box")
    if not RESOLUTIONS[0] <= resolution <= RESOLUTIONS[1]:
        low, high = RESOLUTIONS
        raise UserError(f"resolution {resolution} is out of range; choose {low} to {high}")
    subject = subject_of(prior, person, seed=seed, wanted=[anchor or 0, *(alpha or {})])
    ws = subject.latent(anchor, alpha)
    generator = subject.generator
    planes = generator.planes(ws, subject.adapter)
    config = generator.config
    trim = (0.0 if config.white_back else 30 / 256) if trim is None else trim
    level = surface_level(subject, ws, planes) if level is None else level
    grid = density_grid(generator, planes, resolution)
    grid = soften(grid, level, smooth * resolution / config.plane_resolution)
    vertices, faces = extract_surface(grid, level, config.box_warp, max(1, round(trim * resolution)))
    vertices, faces, floaters, share = keep_largest(vertices, faces)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    colours = paint(subject, ws, planes, vertices, np.asarray(mesh.vertex_normals), faces)
    mesh.visual = ColorVisuals(mesh, vertex_colors=colours)
    width, height, depth = (float(x) for x in mesh.extents)
    return mesh, MeshReport(
        vertices=len(vertices),
        faces=len(faces),
        level=float(level),
        watertight=bool(mesh.is_watertight),
        floaters=floaters,
        floating_share=share,
        size=(width, height, depth),
    )


def check_format(path: str | os.PathLike) -> Path:
    """The path, if a mesh can be written there. Raises UserError, before any work is done."""
    return check_output(path, (".glb", ".ply"), "a mesh ends in .glb or .ply")


def save_mesh(mesh: trimesh.Trimesh, path: str | os.PathLike) -> Path:
    """Write .glb or .ply with vertex normals and colours, beside its place first, then renamed.

    Colours in a GLB are linear floats, as glTF has it, on a rough, non-metallic material; in a PLY
    they are 8-bit sRGB. Raises UserError as `check_format`.
    """
    path = check_format(path)
    data = _glb(mesh) if path.suffix.lower() == ".glb" else mesh.export(file_type="ply", vertex_normal=True)
    with whole(path) as beside:
        beside.write_bytes(data)  # pyright: ignore
    return path


@torch.no_grad()
def density_grid(
    generator: Generator,
    planes: Float[Tensor, "1 3 features height width"],
    resolution: int,
    chunk: int = 2**17,
) -> np.ndarray:
    """Raw densities, float32 indexed [x, y, z], at the centres of `resolution`^3 voxels of the box.

    `chunk` points are looked up at once, which bounds the memory beside the grid itself.
    """
    axis = voxel_centres(resolution, generator.config.box_warp)
    grid = np.empty(resolution**3, np.float32)
    where = torch.from_numpy(axis).float().to(planes)
    for start in track(range(0, len(grid), chunk), "density"):
        index = torch.arange(start, min(start + chunk, len(grid)), device=planes.device)
        cells = torch.stack(
            [index // resolution**2, index // resolution % resolution, index % resolution], dim=-1
        )
        _, sigma = generator.query(planes, where[cells][None])
        grid[start : start + len(index)] = sigma.flatten().float().cpu().numpy()
    return grid.reshape(resolution, resolution, resolution)


def voxel_centres(resolution: int, box: float) -> np.ndarray:
    """Coordinates of voxel centres along one side of the box, ascending."""
    return ((np.arange(resolution) + 0.5) / resolution - 0.5) * box


@torch.no_grad()
def surface_level(
    subject: Subject,
    ws: Float[Tensor, "1 num_ws w_dim"],
    planes: Float[Tensor, "1 3 features side side"],
) -> float:
    """The raw density whose surface has the outlines of the rendered pictures.

    Along rays that pass the rim of the head in five views, those that are half stopped (opacity 0.35 to
    0.65), the largest density is looked up; the level is the median. It depends on how sharp a prior's
    surfaces are: EG3D's documented 10 is for FFHQ checkpoints (EG3D spec 1.15). Falls back to that 10
    when no ray is half stopped, as where a background fills the picture.
    """
    generator = subject.generator
    cameras = subject.camera(
        torch.tensor([0.0, -0.7, 0.7, -1.4, 1.4]), torch.tensor([0.0, 0.0, 0.0, 0.2, 0.2])
    )
    found = []
    for camera in cameras.split(1):
        rendered = generator.render(planes, camera, ws, subject.adapter)
        rim = ((rendered.opacity > 0.35) & (rendered.opacity < 0.65)).flatten()
        if not rim.any():
            continue
        origins, directions = camera_rays(camera, rendered.opacity.shape[-1])
        depths = torch.linspace(0, 1, RAY_SAMPLES, device=planes.device) * (BOX_FAR - BOX_NEAR) + BOX_NEAR
        depths = depths * generator.config.box_warp + origins.norm(dim=-1)[0, :1, None]
        points = origins[:, rim, None] + directions[:, rim, None] * depths[..., None]
        _, sigma = generator.query(planes, points.flatten(1, 2))
        found.append(sigma.reshape(-1, RAY_SAMPLES).amax(1))
    peaks = torch.cat(found) if found else planes.new_zeros(0)
    return float(peaks.median()) if len(peaks) >= 20 else FFHQ_LEVEL


def soften(grid: np.ndarray, level: float | int, sigma: float) -> np.ndarray:
    """Densities through a Gaussian of `sigma` voxels, first limited to a band around `level`.

    Without the limits the large densities deep inside would push the surface outward.
    """
    from scipy.ndimage import gaussian_filter

    band = 2 * abs(level) + 10
    return gaussian_filter(grid.clip(level - band, level + band), sigma) if sigma > 0 else grid


def extract_surface(
    grid: np.ndarray, level: float | int, box: float, border: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(vertices, faces) where a density grid [x, y, z] crosses `level`; normals point to lower density.

    `border` voxels on every side count as empty, which closes the surface. Raises UserError when
    nothing crosses the level.
    """
    from skimage.measure import marching_cubes

    resolution = len(grid)
    inner = np.full_like(grid, min(EMPTY, level - 1))
    keep = slice(border, resolution - border)
    inner[keep, keep, keep] = grid[keep, keep, keep]
    if not level < inner.max():
        raise UserError(
            f"no surface at density {level:g}: the largest inside is {inner.max():g}; choose a lower --level"
        )
    # the step to the empty border must not bend the surface's last layer
    inner = inner.clip(min=2 * level - inner.max())
    vertices, faces, _, _ = marching_cubes(inner, level, gradient_direction="ascent", allow_degenerate=False)
    return ((vertices + 0.5) / resolution - 0.5) * box, faces.astype(np.int64)


def keep_largest(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, float]:
    """The connected piece with most faces, how many pieces were dropped, and their share of the faces."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    links = coo_matrix((np.ones(len(edges), bool), edges.T), shape=(len(vertices),) * 2)
    pieces, piece = connected_components(links, directed=False)
    of_face = piece[faces[:, 0]]
    largest = np.bincount(of_face, minlength=pieces).argmax()
    kept = faces[of_face == largest]
    used, renumbered = np.unique(kept, return_inverse=True)
    return vertices[used], renumbered.reshape(kept.shape), pieces - 1, 1 - len(kept) / len(faces)


def _glb(mesh: trimesh.Trimesh) -> bytes:
    """glTF wants linear colours; trimesh would store 8 bits, too few for dark hair in linear light."""
    from trimesh.exchange.gltf import export_glb
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    display = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255  # pyright: ignore
    linear = np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
    copy = trimesh.Trimesh(
        mesh.vertices,
        mesh.faces,
        vertex_normals=mesh.vertex_normals,
        visual=TextureVisuals(material=PBRMaterial(metallicFactor=0.0, roughnessFactor=1.0)),
        vertex_attributes={"_COLOR": linear.astype(np.float32)},
        process=False,
    )

    def name_colours(tree: dict) -> None:
        for part in tree["meshes"]:
            attributes = part["primitives"][0]["attributes"]
            attributes["COLOR_0"] = attributes.pop("_COLOR")

    return export_glb(copy.scene(), include_normals=True, tree_postprocessor=name_colours)
