"""The two questions put to every method, in the same way.

1. Held-out photos: invert a photo the method has not seen, render it by its own camera, compare.
2. Novel views: invert a frontal view, render the others, compare with the truth seen from there. Only a
   synthetic person has that truth: same head, same expression, same light (`my3dgen.evaluate.true_views`).

How each method inverts is told in `my3dgen.evaluate.methods`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.evaluate.methods import Found, Method, Model
from my3dgen.evaluate.metrics import Images, Judge, Score
from my3dgen.evaluate.true_views import Moment, seen_from
from my3dgen.faces.album import Album
from my3dgen.invert import FEW
from my3dgen.lora import Adapter
from my3dgen.prior.generator import Generator
from my3dgen.targets import targets_of


@dataclass(frozen=True)
class Reproduction:
    """Pictures a method made, and how near they come to what they should show."""

    images: Images
    scores: list[Score]


@dataclass(frozen=True, eq=False)
class Seen(Reproduction):
    """One latent from several sides, with its shape."""

    cameras: Float[Tensor, "batch 25"]
    """Of the views, in the world of the latent."""
    depth: Float[Tensor, "batch r r"]
    """Distances along the rays, world units."""
    opacity: Float[Tensor, "batch r r"]
    """Share of light that the rays lose to the head, in [0, 1]."""


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


def joined(albums: Sequence[Album]) -> Album:
    """The photos of all albums in one, under their names and a number."""
    masks = [album.masks for album in albums if album.masks is not None]
    return Album(
        images=torch.cat([album.images for album in albums]),
        cameras=torch.cat([album.cameras for album in albums]),
        masks=torch.cat(masks) if len(masks) == len(albums) else None,
        names=tuple(f"{place}.{name}" for place, album in enumerate(albums) for name in album.names),
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


def found_pictures(method: Method, found: Found) -> Images:
    """The photos as a method found them, each by its own camera."""
    device = method.generator.w_avg.device
    ws, cameras = found.ws.to(device), found.cameras.to(device)
    each = zip(method.models(found), ws.split(1), cameras.split(1), strict=True)
    return torch.cat([reproduce(*model, w, camera) for model, w, camera in each])


def held_out(method: Method, album: Album, judge: Judge) -> Reproduction:
    """Question 1, for photos the method never saw."""
    device = method.generator.w_avg.device
    found, wanted = method.invert(album, True), targets_of(album, method.generator.config, device)
    images = found_pictures(method, found)
    return Reproduction(images, judge.score(images, wanted.images, wanted.masks, found.cameras.to(device)))


def novel_views(method: Method, moments: Sequence[Moment], judge: Judge) -> list[Seen]:
    """Question 2: invert the moments' sources, render all their views. Means should leave the source out.

    A few sources are inverted at once, which is faster, and so few that none learns from the others.
    """
    seen = []
    for first in range(0, len(moments), FEW - 1):
        some = moments[first : first + FEW - 1]
        sources = [select(moment.album, [moment.album.names[moment.source]]) for moment in some]
        found = method.invert(joined(sources), True)
        for place, moment in enumerate(some):
            cameras = seen_from(found.cameras[place], moment.exact, moment.source)
            model = method.models(found)[place]
            seen.append(_seen(model, found.ws[place : place + 1], cameras, moment.album, judge))
    return seen


@torch.no_grad()
def _seen(
    model: Model,
    ws: Float[Tensor, "1 num_ws w_dim"],
    cameras: Float[Tensor, "batch 25"],
    views: Album,
    judge: Judge,
) -> Seen:
    generator, adapter = model
    ws, cameras = ws.to(generator.w_avg.device), cameras.to(generator.w_avg.device)
    wanted = targets_of(views, generator.config, ws.device)
    planes = generator.planes(ws, adapter)
    made = [generator.render(planes, camera, ws, adapter) for camera in cameras.split(1)]
    images = torch.cat([one.image for one in made]).clamp(-1, 1)
    depth, opacity = (torch.cat([getattr(one, name)[:, 0] for one in made]) for name in ("depth", "opacity"))
    scores = judge.score(images, wanted.images, wanted.masks, cameras)
    return Seen(images, scores, cameras, depth, opacity)
