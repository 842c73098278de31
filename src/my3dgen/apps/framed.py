"""A photo and the square of it that an album would show: there, and back into the photo."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from my3dgen.config import PriorConfig
from my3dgen.faces.album import Album
from my3dgen.faces.align import Square, cut, into_square
from my3dgen.faces.build import pixels, portrait
from my3dgen.faces.quality import LIMITS
from my3dgen.losses import shrink
from my3dgen.targets import world_of

LEAST = 12.0  # pixels of a photo across a face's crop: fewer do not even show which way it looks


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo to be mended."""

    image: Image.Image
    """Upright, RGB."""
    name: str
    album: Album | None = None
    """This picture alone, with its camera, if it is an album's; None if its face is yet to be found."""


@dataclass(frozen=True, eq=False)
class Framed:
    """A photo and where the face's square is in it."""

    photo: Image.Image
    """Upright, RGB."""
    square: Square
    """In the photo's pixels."""
    album: Album
    """The square alone, with its camera and mask."""

    @property
    def window(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the photo's part that the square touches."""
        turn = abs(math.cos(self.square.angle)) + abs(math.sin(self.square.angle))
        reach = self.square.side * turn / 2
        left, top = (max(0, math.floor(at - reach)) for at in (self.square.x, self.square.y))
        right = min(self.photo.width, math.ceil(self.square.x + reach))
        return left, top, right, min(self.photo.height, math.ceil(self.square.y + reach))

    def cut(self, picture: Image.Image) -> Float[Tensor, "1 3 size size"]:
        """The square of another picture of the photo's size."""
        return pixels(cut(picture.convert("RGB"), self.square, self.album.images.shape[-1])[0])[None]

    def paste(
        self, picture: Float[Tensor, "1 channels size size"]
    ) -> tuple[Float[Tensor, "channels height width"], Float[Tensor, "1 height width"]]:
        """(values, depth): a picture of the square seen in the photo's `window`, and how deep in the square
        each pixel lies, in widths of it: at most 0.5, in its middle, and below 0 outside."""
        left, top, right, bottom = self.window
        small = shrink(picture, min(picture.shape[-1], max(1, math.ceil(self.square.side))))
        y, x = torch.meshgrid(torch.arange(top, bottom), torch.arange(left, right), indexing="ij")
        places = into_square(torch.stack([x, y], -1).reshape(-1, 2) + 0.5, self.square)
        places = places.float().reshape(1, bottom - top, right - left, 2).to(picture.device)
        seen = F.grid_sample(
            small, places * 2 - 1, mode="bicubic", padding_mode="border", align_corners=False
        )
        depth = torch.minimum(places, 1 - places).amin(-1)
        return seen[0], depth


def frame(photo: Photo, image: Image.Image, config: PriorConfig, *, least: float | int = LEAST) -> Framed:
    """The face's square for a prior, in `image`: the photo, erased in part or enlarged.

    A picture of an album is all square. In other photos `least` is how many pixels must be across it; they
    need not be good enough to learn a person from: they may be unsharp or show closed eyes. Raises
    PhotoError when there is no face, or no usable one.
    """
    size = config.img_resolution
    if photo.album is None:
        limits = replace(LIMITS, side=float(least), sharpness=0.0, blink=1.1)
        found = portrait(image, size, world=world_of(config), limits=limits)
        mask = (pixels(found.mask.convert("RGB"))[None, :1] + 1) / 2
        album = Album(pixels(found.image)[None], found.camera[None], mask, (photo.name,))
        return Framed(image, found.square, album)
    masks = None if photo.album.masks is None else shrink(photo.album.masks, size).clamp(0, 1)
    square = Square(image.width / 2, image.height / 2, float(image.width))
    picture = pixels(cut(image, square, size)[0])[None]
    return Framed(image, square, Album(picture, photo.album.cameras, masks, (photo.name,)))
