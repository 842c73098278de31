"""A person from chosen views, with depth."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from my3dgen.apps.sheet import to_grey, to_image
from my3dgen.apps.subject import draw, subject_of
from my3dgen.errors import UserError
from my3dgen.output import whole
from my3dgen.person import Person
from my3dgen.prior.generator import Rendered
from my3dgen.prior.store import Prior

SIZES = (16, 4096)


@dataclass(frozen=True)
class View:
    """One rendered picture."""

    yaw: float
    """Radians."""
    pitch: float
    """Radians."""
    image: Image.Image
    depth: np.ndarray
    """Distances along the rays in world units, float32, infinite where there is nothing."""
    made_at: int
    """Side in pixels at which the networks made the picture; other sizes are resampled from it."""


def render(
    prior: Prior,
    person: Person | None = None,
    *,
    yaws: Sequence[float | int] = (0.0,),
    pitch: float | int = 0.0,
    fov: float | int | None = None,
    size: int | None = None,
    resolution: int | None = None,
    anchor: int | None = None,
    alpha: Mapping[int, float | int] | None = None,
    seed: int = 0,
) -> list[View]:
    """One appearance from several yaws (radians): an anchor, a mixture `alpha`, or the person's mean.

    Without a person the face is the prior's for `seed`. `fov` is the diagonal field of view in degrees.
    `resolution` is the side of the volume rendering; a super-resolution head that keeps a larger input
    (4X) then makes a larger picture. The result is resampled to `size`, where it
    differs, with a Lanczos filter.

    Raises UserError for values out of range and PriorMismatchError for a person of another prior.
    """
    check_size(size)
    subject = subject_of(prior, person, seed=seed, wanted=[anchor or 0, *(alpha or {})])
    ws = subject.latent(anchor, alpha)
    cameras = subject.camera(torch.tensor([float(yaw) for yaw in yaws]), float(pitch), fov)
    rendered = draw(subject, ws, cameras, resolution)
    return [
        View(
            float(yaw), float(pitch), resample(to_image(one.image), size), depth_map(one), one.image.shape[-1]
        )
        for yaw, one in zip(yaws, rendered, strict=True)
    ]


def check_size(size: int | None) -> None:
    """Raise UserError unless a picture of this side can be made."""
    if size is not None and not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"size {size} is out of range; choose {SIZES[0]} to {SIZES[1]} pixels")


def resample(image: Image.Image, size: int | None) -> Image.Image:
    """A square picture at another side, through a Lanczos filter; unchanged where it fits already."""
    if size is None or image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.LANCZOS)


def depth_map(rendered: Rendered) -> np.ndarray:
    """Distances along the rays of one picture, infinite where less than half of a ray is stopped."""
    depth = rendered.depth[0, 0].float().cpu().numpy()
    return np.where(rendered.opacity[0, 0].cpu().numpy() < 0.5, np.inf, depth).astype(np.float32)


def depth_picture(depths: Sequence[np.ndarray]) -> list[Image.Image]:
    """Depth maps as grey pictures on one scale: near is white, far is dark, nothing is black."""
    solid = np.concatenate([depth[np.isfinite(depth)] for depth in depths])
    near, far = (float(solid.min()), float(solid.max())) if solid.size else (0.0, 1.0)
    nothing = far + 0.15 * (far - near)
    return [
        to_grey(
            -torch.from_numpy(np.where(np.isfinite(depth), depth, nothing))[None].float(), -nothing, -near
        )
        for depth in depths
    ]


def save_depth(depths: Sequence[np.ndarray], path: str | os.PathLike) -> Path:
    """Write depth maps as one float32 array "views r r" (.npy), beside its place first, then renamed."""
    path = Path(path)
    array = io.BytesIO()
    np.save(array, np.stack(depths))
    with whole(path) as beside:  # not by numpy, whose errors hide that the disk is full
        beside.write_bytes(array.getvalue())
    return path
