"""Mend a photo of a person with what their own photos tell: fill a hole in it, or enlarge it.

A point of the person's alpha-space is found whose rendering matches what the photo shows, and the rendering
stands in for what it does not (MyStyle, arXiv 2203.17272; EG3D spec 5.8).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from scipy.ndimage import maximum_filter
from torch import Tensor

from my3dgen.apps.framed import Framed
from my3dgen.apps.membrane import membrane
from my3dgen.apps.sheet import to_image
from my3dgen.errors import UserError
from my3dgen.faces.build import pixels
from my3dgen.invert import QUALITIES, InvertConfig
from my3dgen.lora import Adapter
from my3dgen.losses import shrink
from my3dgen.person import Person
from my3dgen.pivot import tune_on_photos
from my3dgen.place import Placed, place
from my3dgen.prior.store import Prior
from my3dgen.tune import TuneConfig

GROWN = 1 / 128  # of the photo's shorter side: how much a hole grows
UNLIKE = 0.5  # in colour or opacity: at a seam, what differs by more is not the same thing
FAINT = 0.05  # opacity below which nobody is there
SOFT = 0.06  # of the square's side: where an enlargement fades into the rendering
SHARP = 0.25  # of the range -1 to 1: an edge's difference to a small photo, not light's


@dataclass(frozen=True, eq=False)
class Enhanced:
    """A photo mended."""

    image: Image.Image
    """The whole photo."""
    rendering: Float[Tensor, "1 3 size size"]
    """The face's square as the person's model shows it, with the photo's detail."""
    shown: Float[Tensor, "1 3 size size"]
    """The same square of the photo."""
    weights: Float[Tensor, "1 1 size size"]
    """1 where the two can be compared: where the photo is known and shows the person."""
    placed: Placed
    beyond: float = 0.0
    """Share of the hole that lies outside the square, where nothing is known but the surroundings."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A rendering at the prior's size."""

    image: Float[Tensor, "1 3 size size"]
    opacity: Float[Tensor, "1 1 size size"]
    """1 where the person is; 1 everywhere for a prior that renders backgrounds, too."""


def erase(photo: Image.Image, hole: Bool[Tensor, "1 height width"]) -> Image.Image:
    """The photo with nothing left of what was in the hole: a membrane of what is around it."""
    rows, columns = hole[0].any(1).nonzero(), hole[0].any(0).nonzero()
    left, top = max(0, int(columns.min()) - 1), max(0, int(rows.min()) - 1)
    right, bottom = min(photo.width, int(columns.max()) + 2), min(photo.height, int(rows.max()) + 2)
    here = hole[:, top:bottom, left:right]
    film = to_image(membrane(pixels(photo.crop((left, top, right, bottom))), ~here))
    erased = photo.copy()
    erased.paste(film, (left, top), Image.fromarray(here[0].numpy().astype(np.uint8) * 255))
    return erased


def hole_of(mask: Image.Image, photo: Image.Image) -> Bool[Tensor, "1 height width"]:
    """Where a mask is white (over half), grown a little: a brush's edge shows what it hides.

    Raises UserError, to follow the mask's name, for a mask of another size or without black or white.
    """
    if mask.size != photo.size:
        raise UserError(
            f"is {mask.width} x {mask.height} pixels, the upright photo {photo.width} x {photo.height}; "
            "paint it on the photo itself"
        )
    white = np.array(mask.convert("L")) > 127
    if not white.any():
        raise UserError("has no white pixels; paint white what is to be filled")
    grown = max(1, round(min(photo.size) * GROWN))
    hole = torch.from_numpy(maximum_filter(white, 2 * grown + 1))[None]
    if hole.all():
        raise UserError("leaves nothing of the photo; paint what is to be filled white on black")
    return hole


def fill(
    prior: Prior,
    person: Person,
    framed: Framed,
    hole: Bool[Tensor, "1 height width"],
    config: InvertConfig = QUALITIES["standard"],
    *,
    beta: float | None = 0.03,
    tune: TuneConfig | None = None,
) -> Enhanced:
    """Fill a hole in a photo with the person; `framed.photo` has been erased there.

    Outside the hole the photo stays as it is, bit by bit; at the seam the filling takes on the photo's
    colours. With `tune` the adapter is bent around what is known of the photo first. Raises UserError when
    the hole is not in the face's square, or hides all of it.
    """
    left, top, right, bottom = framed.window
    missing = framed.cut(Image.fromarray(hole[0].numpy().astype(np.uint8) * 255))[:, :1]
    known = (missing <= -1).float()
    if known.all():
        raise UserError("the mask is not white anywhere near the face; there is nothing to fill")
    placed = place(prior, person, framed.album, config, beta=beta, known=known)
    drawn = draw(prior, person.adapter, placed)
    within = hole[:, top:bottom, left:right].to(drawn.image.device)
    if tune:
        # what has been found stays in the hole, and in the rest the photo draws
        patch = torch.where(known > 0, framed.album.images, drawn.image.cpu())
        album = replace(framed.album, images=patch.clamp(-1, 1))
        (adapter,) = tune_on_photos(prior, person.adapter, album, placed, tune)
        drawn = draw(prior, adapter, placed)
    scene = scene_of(framed, drawn, ~within)
    # the seam: a membrane of the difference to the photo, where that is known
    picture = scene.picture + membrane(scene.photo - scene.picture, ~within & scene.alike)
    values = np.array(framed.photo)
    part, here = values[top:bottom, left:right], (within & (scene.depth > 0))[0].cpu().numpy()
    part[here] = np.asarray(to_image(picture))[here]
    return Enhanced(
        Image.fromarray(values),
        drawn.image.cpu(),
        framed.album.images,
        known if framed.album.masks is None else known * framed.album.masks,
        placed,
        1 - float(here.sum() / hole.sum()),
    )


@dataclass(frozen=True, eq=False)
class Scene:
    """A photo's window with the person drawn into it; the tensors are "channels height width"."""

    photo: Float[Tensor, "3 height width"]
    picture: Float[Tensor, "3 height width"]
    """The rendering before the photo's own background."""
    depth: Float[Tensor, "1 height width"]
    """How deep in the face's square a pixel lies (`Framed.paste`); the picture is nothing below 0."""
    opacity: Float[Tensor, "1 height width"]
    """1 where the person is."""
    alike: Bool[Tensor, "1 height width"]
    """Where rendering and photo agree on what is person and what is not."""


def scene_of(framed: Framed, drawn: Drawn, known: Bool[Tensor, "1 height width"], halo: int = 1) -> Scene:
    """The person in the photo's window.

    A person rendered on white stands before what is `known` of the photo's background, bridged where the
    photo's person hides it, who shines `halo` pixels beyond the mask.
    """
    photo = pixels(framed.photo.crop(framed.window)).to(drawn.image)
    picture, depth = framed.paste(drawn.image)
    opacity = framed.paste(drawn.opacity)[0].clamp(0, 1)
    alike = depth > 0
    if framed.album.masks is not None:
        person = framed.paste(framed.album.masks.to(drawn.image))[0]
        around = person[None]
        for kernel in ((2 * halo + 1, 1), (1, 2 * halo + 1)):
            around = F.max_pool2d(around, kernel, 1, (kernel[0] // 2, kernel[1] // 2))
        behind = known & alike & (around[0] < 0.02)
        scene = membrane(photo, behind) if behind.any() else photo
        picture = picture + (1 - opacity) * (scene - 1)
        picture = scene + (opacity / FAINT).clamp(0, 1) * (picture - scene)  # a prior's white is not quite
        alike = alike & ((person - opacity).abs() < UNLIKE)
    # a silhouette that is not quite where the photo's is differs, too, but that is no light to take on
    alike = alike & ((photo - picture).abs().amax(0, keepdim=True) < UNLIKE)
    return Scene(photo, picture, depth, opacity, alike)


@torch.no_grad()
def draw(prior: Prior, adapter: Adapter, placed: Placed) -> Drawn:
    """The rendering of a placed photo, through its own camera."""
    device = prior.generator.w_avg.device
    ws, camera = placed.ws.to(device), placed.cameras.to(device)
    made = prior.generator.synthesis(ws, camera, adapter.to(device))
    size = made.image.shape[-1]
    opacity = torch.ones_like(made.image[:, :1])
    if prior.config.white_back:
        opacity = F.interpolate(made.opacity, (size, size), mode="bilinear", align_corners=False)
    return Drawn(made.image.clamp(-1, 1), opacity)


def enlarge(
    prior: Prior,
    person: Person,
    small: Image.Image,
    framed: Framed,
    config: InvertConfig = QUALITIES["standard"],
    *,
    beta: float | None = 0.03,
    pull: bool = True,
) -> Enhanced:
    """A small photo with the person's face in the size of `framed.photo`, which is `small` enlarged.

    The face's square shows the person's rendering, which fades into the enlarged photo at its border. With
    `pull` it takes on the small photo's colours and shading: only what is finer is the person's. Raises
    UserError, to follow the photo's name, when that has all the detail the prior has.
    """
    scale = framed.photo.width // small.width
    detail = round(framed.square.side / scale)
    size = prior.config.img_resolution
    if detail >= size:
        raise UserError(
            f"has {detail} pixels across the face already, and the prior draws {size}; it is large enough"
        )
    placed = place(prior, person, framed.album, config, beta=beta, detail=detail)
    drawn = draw(prior, person.adapter, placed)
    left, top, right, bottom = framed.window
    result = pixels(framed.photo)
    everywhere = torch.ones(1, bottom - top, right - left, dtype=torch.bool, device=drawn.image.device)
    scene = scene_of(framed, drawn, everywhere, halo=2 * scale)
    share = (scene.depth / SOFT).clamp(0, 1)
    if framed.window == (0, 0, *framed.photo.size) and (scene.depth > 0).all():
        share = torch.ones_like(share)  # there is nothing around the square to fade into
    part = (..., slice(top, bottom), slice(left, right))
    result[part] = (share * scene.picture + (1 - share) * scene.photo).cpu()
    if pull:
        mended = pulled(result, pixels(small), scale)
        result[part] += (share * scene.opacity).cpu() * (mended - result)[part]
    masks = framed.album.masks
    masks = torch.ones_like(drawn.opacity).cpu() if masks is None else masks
    made, shown, weights = (shrink(x, detail) for x in (drawn.image.cpu(), framed.album.images, masks))
    return Enhanced(to_image(result), made, shown, weights, placed)


def pulled(
    large: Float[Tensor, "3 height width"], small: Float[Tensor, "3 rows columns"], scale: int
) -> Float[Tensor, "3 height width"]:
    """`large` with its colours and shading moved to those of `small`, `scale` times smaller.

    Iterative back-projection (Irani & Peleg 1991) of what differs smoothly. Edges that do not lie on each
    other differ sharply, and bringing them into agreement would show both: there a membrane bridges.
    """
    missing = small - F.avg_pool2d(large[None].clamp(-1, 1), scale)[0]
    smooth = low_pass(membrane(missing, missing.abs().amax(0, keepdim=True) < SHARP))
    rest = F.interpolate(smooth[None], large.shape[-2:], mode="bicubic", align_corners=False)[0]
    return (large + rest).clamp(-1, 1)


def low_pass(values: Float[Tensor, "3 rows columns"]) -> Float[Tensor, "3 rows columns"]:
    """Smoothed by a binomial filter of five pixels."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]).to(values) / 16
    kernel = torch.outer(taps, taps).expand(len(values), 1, 5, 5)
    return F.conv2d(F.pad(values[None], (2, 2, 2, 2), mode="replicate"), kernel, groups=len(values))[0]
