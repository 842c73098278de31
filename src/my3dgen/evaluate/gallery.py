"""The demo's pictures: sheets that set methods side by side, and everything a person file can do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from my3dgen.apps.edit import edit
from my3dgen.apps.interpolate import interpolate
from my3dgen.apps.mesh import export_mesh, save_mesh
from my3dgen.apps.orbit import orbit
from my3dgen.apps.preview import preview
from my3dgen.apps.sample import sample
from my3dgen.apps.sheet import save_image, sheet
from my3dgen.apps.video import write_animation
from my3dgen.cameras import angles_from_camera
from my3dgen.evaluate.protocol import reproduce, select
from my3dgen.evaluate.report import TITLES
from my3dgen.faces.album import Album
from my3dgen.invert import Quality
from my3dgen.person import Person
from my3dgen.prior.store import Prior
from my3dgen.progress import track
from my3dgen.targets import targets_of

CELL = 192
SHOWN = 6
"""Photos on a sheet."""


@dataclass(frozen=True)
class Sizes:
    """How much is drawn."""

    frames: int
    """Of the orbit."""
    steps: int
    """Of the interpolation."""
    samples: int
    voxels: int
    """Of the mesh, along each side."""


SIZES: dict[Quality, Sizes] = {
    "draft": Sizes(frames=24, steps=5, samples=6, voxels=96),
    "standard": Sizes(frames=60, steps=7, samples=12, voxels=192),
    "max": Sizes(frames=120, steps=9, samples=18, voxels=256),
}


def draw_all(
    prior: Prior,
    person: Person,
    learn: Album,
    test: Album,
    views: Album,
    yaws: Sequence[int],
    methods: Sequence[str],
    quality: Quality,
    out: Path,
) -> dict[str, str]:
    """All pictures of the report: name -> path relative to `out`.

    What the methods made is read from `out`/compared; `methods` are their names.
    """
    folder, size = out / "pictures", SIZES[quality]
    shown = select(test, test.names[:SHOWN])
    made: dict[str, str] = {}
    for part, album, captions in (
        ("heldout", shown, [Path(name).stem for name in shown.names]),
        ("views", views, [f"yaw {yaw:+d}°" for yaw in yaws]),
    ):
        rows = {"truth": targets_of(album, prior.config).images.split(1)} | {
            TITLES[method]: [Image.open(out / "compared" / part / method / name) for name in album.names]
            for method in methods
        }
        made[part] = comparison(rows, captions, folder / f"{part}.png")
    made["learned"] = learned(prior, person, learn, folder / "learned.png")
    made |= turning(prior, person, folder, size.frames)
    made |= between(prior, person, folder, *widest_pair(learn), size.steps)
    made |= appearances(prior, person, folder, size.samples)
    made |= smiling(prior, person, folder)
    made |= shape(prior, person, folder, size.voxels)
    return {name: f"pictures/{file}" for name, file in made.items()}


def learned(prior: Prior, person: Person, learn: Album, path: Path) -> str:
    """Some learned photos, and their anchors drawn with and without the adapter."""
    rows = [round(k * (len(learn) - 1) / (SHOWN - 1)) for k in range(SHOWN)]
    shown = select(learn, [learn.names[row] for row in rows])
    ws, cameras = person.anchors.ws[rows], person.anchors.cameras[rows]
    pictures = {"photo": targets_of(shown, prior.config).images.split(1)} | {
        TITLES[name]: reproduce(prior.generator, adapter, ws, cameras).split(1)
        for name, adapter in (("prior", None), ("lora", person.adapter))
    }
    return comparison(pictures, [Path(name).stem for name in shown.names], path)


def widest_pair(album: Album) -> tuple[int, int]:
    """Places of the photos seen from farthest left and right: the longest way between two anchors."""
    yaw, _ = angles_from_camera(album.cameras)
    return int(yaw.argmin()), int(yaw.argmax())


def comparison(
    rows: Mapping[str, Sequence[Image.Image | Tensor]], captions: Sequence[str], path: Path
) -> str:
    """A sheet with a row for each method; captions stand below the last row. Returns the file's name."""
    pictures = [picture for row in rows.values() for picture in row]
    below = [""] * (len(pictures) - len(captions)) + list(captions)
    grid = sheet(pictures, below, columns=len(captions), row_titles=list(rows), cell=CELL)
    return save_image(grid, path).name


def turning(prior: Prior, person: Person, folder: Path, frames: int) -> dict[str, str]:
    """The orbit as mp4 and as an animated picture of every second frame, from one drawing."""
    made = list(track(orbit(prior, person, frames=frames), "orbit", total=frames))
    video = write_animation(made, folder / "orbit.mp4", fps=30)
    picture = write_animation(made[::2], folder / "orbit.webp", fps=15)
    return {"orbit_mp4": video.name, "orbit_webp": picture.name}


def between(prior: Prior, person: Person, folder: Path, start: int, end: int, steps: int) -> dict[str, str]:
    """The way from one anchor to another, appearance and camera together."""
    made = [step.image for step in interpolate(prior, person, anchors=(start, end), steps=steps)]
    grid = sheet(made, columns=steps, cell=CELL)
    return {"interpolation": save_image(grid, folder / "interpolation.png").name}


def appearances(prior: Prior, person: Person, folder: Path, count: int) -> dict[str, str]:
    """Random points of the person's alpha-space."""
    made = [one.image for one in sample(prior, person, count=count, yaw_range=math.radians(20))]
    return {"samples": save_image(sheet(made, cell=CELL), folder / "samples.png").name}


def smiling(prior: Prior, person: Person, folder: Path, direction: str = "smile") -> dict[str, str]:
    """The smile edit in W and in alpha-space; nothing if the prior has no such direction."""
    if direction not in prior.directions:
        return {}
    strengths = (-2.0, -1.0, 0.0, 1.0, 2.0)
    made = [
        one.image
        for space in ("w", "alpha")
        for one in edit(prior, person, direction=direction, strengths=strengths, space=space)
    ]
    captions = [""] * len(strengths) + [f"{strength:+g}" for strength in strengths]
    grid = sheet(made, captions, columns=len(strengths), row_titles=["in W", "in alpha-space"], cell=CELL)
    return {"smile": save_image(grid, folder / "smile.png").name}


def shape(prior: Prior, person: Person, folder: Path, resolution: int) -> dict[str, str]:
    """GLB, PLY and a picture of the mesh."""
    mesh, _ = export_mesh(prior, person, resolution=resolution)
    return {
        "glb": save_mesh(mesh, folder / "head.glb").name,
        "ply": save_mesh(mesh, folder / "head.ply").name,
        "mesh": save_image(preview(mesh), folder / "mesh.png").name,
    }
