"""Whom a prior is judged on: synthetic heads that no training has seen, from exactly known cameras.

Seeds: evaluation number `seed` owns `SPAN` of the seeds kept out of training (`HELD_OUT_SEEDS`), after the
first `RESERVED`, which training's monitor looks at: seeds RESERVED + seed * SPAN onward. The first half of
the span are the heads to invert, the second half those whose pictures the prior's own are compared with. So
different evaluations share no head, a longer one begins with the heads of a shorter one, and none shares
one with training or its monitor.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from my3dgen.cameras import angles_from_camera, camera_from_angles
from my3dgen.config import PriorConfig
from my3dgen.synthetic.factors import HELD_OUT_SEEDS, normals, sample_factors
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import build_scenes

RESERVED = 64
SPAN = 20_000
MOST_HEADS = SPAN // 2
MOST_SEEDS = (len(HELD_OUT_SEEDS) - RESERVED) // SPAN
CAMERA_STREAM = 11
TURNS = (15, 30, 45)
"""Degrees by which the camera moves to either side of the source view."""
PHOTO = {"cpu": 1, "cuda": 8}
"""Heads rendered at once, by kind of device; each view takes about half a GB."""


def inverted_seeds(seed: int, count: int) -> range:
    """Seeds of the heads that evaluation `seed` inverts."""
    return _seeds(seed, 0, count)


def compared_seeds(seed: int, count: int) -> range:
    """Seeds of the heads whose pictures evaluation `seed` compares the prior's own with."""
    return _seeds(seed, MOST_HEADS, count)


def _seeds(seed: int, first: int, count: int) -> range:
    if not 0 <= seed < MOST_SEEDS or not 0 < count <= MOST_HEADS:
        raise ValueError(f"no {count} heads for evaluation {seed}")
    start = RESERVED + seed * SPAN + first
    return HELD_OUT_SEEDS[start : start + count]


def source_cameras(seeds: Sequence[int], config: PriorConfig) -> Float[Tensor, "batch 25"]:
    """Cameras like those of photos: yaw N(0, 0.25) within 0.5, pitch N(0.02, 0.1) within 0.4, radians.

    A head's camera depends on its seed alone.
    """
    yaw, pitch = normals(seeds, 2, stream=CAMERA_STREAM).unbind(1)
    return _cameras((0.25 * yaw).clamp(-0.5, 0.5), (0.02 + 0.1 * pitch).clamp(-0.4, 0.4), config)


def turned(cameras: Float[Tensor, "batch 25"], degrees: float | int, config: PriorConfig) -> Tensor:
    """The cameras moved around the head by a yaw, their pitch kept: `batch 25`."""
    yaw, pitch = angles_from_camera(cameras)
    return _cameras(yaw + math.radians(degrees), pitch, config)


def _cameras(yaw: Tensor, pitch: Tensor, config: PriorConfig) -> Tensor:
    return camera_from_angles(
        yaw, pitch, radius=config.camera_radius, pivot=config.camera_pivot, focal=config.focal
    )


def offsets() -> tuple[int, ...]:
    """Yaws of a head's views relative to the source, degrees: 0 first, then each turn to both sides."""
    return (0, *(sign * turn for turn in TURNS for sign in (-1, 1)))


@dataclass(frozen=True, eq=False)
class People:
    """Heads with their true views, on the CPU, as bytes."""

    factors: Float[Tensor, "batch factors"]
    cameras: Float[Tensor, "batch view 25"]
    rgb: UInt8[Tensor, "batch view 3 size size"]
    masks: Bool[Tensor, "batch view size size"]
    """Where the head covers more than half of a pixel."""
    depth: Float[Tensor, "batch 64 64"]
    """float16: distance along the ray in the source view, world units; 0 where empty."""

    def __len__(self) -> int:
        return len(self.factors)

    def image(self, rows: slice, view: int, device: torch.device | str) -> Float[Tensor, "batch 3 size size"]:
        """Pictures of a view in [-1, 1]."""
        return self.rgb[rows, view].to(device).float() / 127.5 - 1

    def mask(self, rows: slice, view: int, device: torch.device | str) -> Float[Tensor, "batch 1 size size"]:
        """Masks of a view, 0 or 1."""
        return self.masks[rows, view, None].to(device).float()

    def camera(self, rows: slice, view: int, device: torch.device | str) -> Float[Tensor, "batch 25"]:
        """Cameras of a view."""
        return self.cameras[rows, view].to(device)


def together(device: torch.device | str, views: int) -> int:
    """Heads to render at once with that many views each."""
    most = PHOTO.get(torch.device(device).type, 1)
    return most if views > 1 else 4 * most


def photograph_people(
    seeds: Sequence[int], config: PriorConfig, device: torch.device | str
) -> Iterator[People]:
    """True views of heads, some at a time, at the prior's resolution; `offsets()` are the views' yaws."""
    for first in range(0, len(seeds), together(device, len(offsets()))):
        some = seeds[first : first + together(device, len(offsets()))]
        factors, source = sample_factors(some), source_cameras(some, config)
        cameras = torch.stack([turned(source, degrees, config) for degrees in offsets()], 1)
        scenes = build_scenes(factors.to(device), device)
        views = render_views(scenes, cameras.to(device), size=config.img_resolution)
        yield People(
            factors=factors,
            cameras=cameras,
            rgb=views.rgb.cpu(),
            masks=(views.alpha > 127).cpu(),
            depth=views.depth[:, 0].cpu(),
        )


def gather(parts: Sequence[People]) -> People:
    """All of them in one."""
    join = lambda name: torch.cat([getattr(part, name) for part in parts])  # noqa: E731
    return People(join("factors"), join("cameras"), join("rgb"), join("masks"), join("depth"))
