"""The two questions put to every method, in the same way.

1. Held-out photos: invert a photo the method has not seen, render it by its own camera, compare.
2. Novel views: invert one frontal view, render the others, compare with the truth seen from there. Only a
   synthetic person has that truth: same head, same expression, same light.

The true views are cropped, and their cameras found, as those of any photo. Cameras of the scene would do
wrong to methods that know a person only from crops: these place a head by its face, a few hundredths of
its width away from where the scene has it.

How each method inverts is told in `my3dgen.evaluate.methods`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from my3dgen.cameras import FOCAL, camera_from_angles
from my3dgen.evaluate.methods import Method
from my3dgen.evaluate.metrics import Images, Judge, Score
from my3dgen.faces.album import Album
from my3dgen.lora import Adapter
from my3dgen.prior.generator import Generator
from my3dgen.synthetic.album import Truth
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import build_scenes
from my3dgen.targets import targets_of

WIDER = 1.5  # sides of the crop that a true view shows


@dataclass(frozen=True)
class Reproduction:
    """Pictures a method made, and how near they come to what they should show."""

    images: Images
    scores: list[Score]


def select(album: Album, names: Sequence[str]) -> Album:
    """The photos of these names, in this order. Raises KeyError for a name that is not there."""
    place = {name: index for index, name in enumerate(album.names)}
    rows = [place[name] for name in names]
    return Album(
        images=album.images[rows],
        cameras=album.cameras[rows],
        masks=None if album.masks is None else album.masks[rows],
        names=tuple(names),
        folder=album.folder,
    )


@torch.no_grad()
def reproduce(
    generator: Generator,
    adapter: Adapter | None,
    ws: Float[Tensor, "batch num_ws w_dim"],
    cameras: Float[Tensor, "batch 25"],
) -> Images:
    """Pictures in [-1, 1] of latents, each from its camera, one at a time to bound the memory."""
    pairs = zip(ws.split(1), cameras.split(1), strict=True)
    made = [generator.synthesis(w, camera, adapter).image for w, camera in pairs]
    return torch.cat(made).clamp(-1, 1)


def held_out(method: Method, album: Album, judge: Judge) -> Reproduction:
    """Question 1, for photos the method never saw."""
    found, wanted = method.invert(album, True), targets_of(album, method.generator.config)
    images = reproduce(method.generator, method.adapter, found.ws, found.cameras)
    return Reproduction(images, judge.score(images, wanted.images, wanted.masks, found.cameras))


def novel_views(method: Method, views: Album, source: int, judge: Judge) -> Reproduction:
    """Question 2: invert the view at place `source`, render all. Means should leave the source out."""
    wanted = targets_of(views, method.generator.config)
    # a correction of this one camera would turn the head against the truth in all other views
    found = method.invert(select(views, [views.names[source]]), False)
    ws = found.ws.expand(len(wanted), -1, -1)
    images = reproduce(method.generator, method.adapter, ws, wanted.cameras)
    return Reproduction(images, judge.score(images, wanted.images, wanted.masks, wanted.cameras))


def photograph(truth: Truth, photo: str, yaws: Sequence[int], size: int) -> list[Image.Image]:
    """The person of a synthetic album in a photo's expression and light, from every yaw (degrees).

    The pictures show more than a crop of `size` pixels needs, at its scale.
    """
    shown = tuple(entry for entry in truth.photos if entry.name == photo)
    scenes = build_scenes(truth.factors(shown), "cpu")
    angles = torch.tensor([math.radians(yaw) for yaw in yaws])
    cameras = camera_from_angles(angles, 0.0, focal=FOCAL / WIDER)
    views = [render_views(scenes, camera[None, None], round(size * WIDER)) for camera in cameras]
    return [Image.fromarray(view.rgb[0, 0].permute(1, 2, 0).numpy()) for view in views]
