"""How well holes are filled and small photos enlarged, on photos whose truth is known.

The person of `my3dgen demo` and photos it did not learn from:

    album = read_album("out/demo/album")
    picture, figures = enhancement(prior, person, select(album, ["photo05.png", "photo11.png"]))
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from my3dgen.apps.enhance import enlarge, erase, fill, hole_of
from my3dgen.apps.framed import Photo, frame
from my3dgen.apps.sheet import sheet, to_image
from my3dgen.cameras import project
from my3dgen.evaluate.metrics import Judge, load_judge, psnr
from my3dgen.evaluate.protocol import select
from my3dgen.faces.album import Album
from my3dgen.faces.build import pixels
from my3dgen.faces.canonical import canonical_face
from my3dgen.invert import QUALITIES, InvertConfig
from my3dgen.person import Person
from my3dgen.prior.store import Prior
from my3dgen.targets import world_of
from my3dgen.tune import TuneConfig

HOLES = {  # landmarks to hide, and by how much more than their own extent, in widths of the picture
    "mouth": ((61, 291, 0, 17), 0.06),
    "eyes": ((33, 263, 105, 334, 230, 450), 0.03),
    "left side": ((234, 1, 10, 152), 0.02),
}


@dataclass(frozen=True)
class Figures:
    """Decibels over the hole, and over the head of an enlarged photo; and other figures of that."""

    photo: str
    hole: str
    filled: float
    bridged: float
    """The hole filled with a membrane of what is around it."""
    enlarged: float
    bicubic: float
    enlarged_perceptual: float
    bicubic_perceptual: float
    enlarged_identity: float
    bicubic_identity: float


def hole_picture(camera: Float[Tensor, "1 25"], prior: Prior, hole: str, size: int) -> Image.Image:
    """A mask with an ellipse or, for a side of the face, a rectangle painted white."""
    landmarks, more = HOLES[hole]
    face = canonical_face(world_of(prior.config)).to(camera)[list(landmarks)]
    places = project(face[None], camera)[0]
    low, high = ((places.amin(0) - more) * size).tolist(), ((places.amax(0) + more) * size).tolist()
    mask = Image.new("L", (size, size))
    draw = ImageDraw.Draw(mask)
    (draw.rectangle if hole == "left side" else draw.ellipse)((*low, *high), fill=255)
    return mask


def enhancement(
    prior: Prior,
    person: Person,
    album: Album,
    *,
    config: InvertConfig = QUALITIES["standard"],
    scale: int = 8,
    tune: TuneConfig | None = None,
    judge: Judge | None = None,
) -> tuple[Image.Image, list[Figures]]:
    """(sheet, figures): each photo, the photo with a hole and filled, made small, and enlarged again.

    The album's size is a multiple of `scale` and no less than the prior's. Holes take turns.
    """
    judge = judge or load_judge()
    pictures, captions, figures = [], [], []
    for i, name in enumerate(album.names):
        one, hole = select(album, [name]), list(HOLES)[i % len(HOLES)]
        truth = one.images
        photo = Photo(to_image(truth), name, one)
        mask = hole_picture(one.cameras, prior, hole, truth.shape[-1])
        here = hole_of(mask, photo.image)
        erased = erase(photo.image, here)
        filled = fill(prior, person, frame(photo, erased, prior.config), here, config, tune=tune).image
        hidden = photo.image.copy()
        hidden.paste("black", mask=mask)

        little = F.avg_pool2d(truth, scale)
        masks = None if one.masks is None else F.avg_pool2d(one.masks, scale)
        small = Photo(to_image(little), name, Album(little, one.cameras, masks, (name,)))
        bicubic = small.image.resize(photo.image.size, Image.Resampling.BICUBIC)
        large = enlarge(prior, person, small.image, frame(small, bicubic, prior.config), config).image

        inside = [float(psnr(pixels(x)[None], truth, here.float()[None])) for x in (filled, erased)]
        scores = [judge.score(pixels(x)[None], truth, one.masks, one.cameras)[0] for x in (large, bicubic)]
        figures.append(
            Figures(
                name,
                hole,
                *inside,
                *(score.psnr for score in scores),
                *(score.perceptual for score in scores),
                *(score.identity for score in scores),
            )
        )
        blocks = small.image.resize(photo.image.size, Image.Resampling.NEAREST)
        pictures += [photo.image, hidden, filled, blocks, large]
        captions += ["photo", "a hole", f"filled, {inside[0]:.1f} dB"]
        captions += [f"{little.shape[-1]} pixels", f"enlarged {scale} times"]
    return sheet(pictures, captions, columns=5, cell=200), figures
