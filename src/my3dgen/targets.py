"""An album as what renderings are compared with: photos and pixel weights at every size asked for."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.cameras import project
from my3dgen.config import PriorConfig
from my3dgen.errors import UserError
from my3dgen.faces.album import Album
from my3dgen.faces.canonical import World, canonical_face
from my3dgen.losses import on_white, pixel_weights, shrink

FEATURES = ((33, 133), (362, 263), (61, 61), (291, 291), (13, 14))
"""Pairs of landmarks whose middles are the eyes, the corners and the middle of the mouth."""
REACH = 0.05  # of the picture's width: the standard deviation of a feature's extra weight
BOOST = 4.0  # weight of a feature's pixels over that of the rest of the head, less 1


@dataclass(frozen=True, eq=False)
class Targets:
    """Photos in [-1, 1] and masks in [0, 1] at the prior's resolution, with cameras and names."""

    images: Float[Tensor, "batch 3 size size"]
    masks: Float[Tensor, "batch 1 size size"]
    cameras: Float[Tensor, "batch 25"]
    names: tuple[str, ...]
    world: World = "mini"
    """Where in the cameras' world faces are."""
    cache: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def at(self, size: int) -> tuple[Float[Tensor, "batch 3 size size"], Float[Tensor, "batch 1 size size"]]:
        """(photos, pixel weights) shrunk to a size; made once."""
        if size not in self.cache:
            interest = shrink(self.masks, size) * feature_weights(self.cameras, size, self.world)
            self.cache[size] = (shrink(self.images, size), pixel_weights(interest))
        return self.cache[size]

    def only(self, index: int) -> "Targets":
        """One of the photos."""
        part = slice(index, index + 1)
        return Targets(self.images[part], self.masks[part], self.cameras[part], self.names[part], self.world)


def targets_of(album: Album, config: PriorConfig, device: torch.device | str = "cpu") -> Targets:
    """The album for a prior: at its resolution and, if the prior renders heads on white, on white.

    Without masks every pixel counts alike. Raises UserError for an album without photos.
    """
    if len(album) == 0:
        raise UserError(f"{album.folder or 'the album'} has no photos; add some and run my3dgen faces")
    size = config.img_resolution
    images = shrink(album.images.to(device), size).clamp(-1, 1)
    if album.masks is None:
        masks = torch.ones_like(images[:, :1])
    else:
        masks = shrink(album.masks.to(device), size).clamp(0, 1)
        images = on_white(images, masks) if config.white_back else images
    return Targets(images, masks, album.cameras.to(device), album.names, world_of(config))


def world_of(config: PriorConfig) -> World:
    """Where a prior puts faces: one that renders on white learned from our heads, others from FFHQ."""
    return "mini" if config.white_back else "ffhq"


def feature_weights(
    cameras: Float[Tensor, "batch 25"], size: int, world: World
) -> Float[Tensor, "batch 1 size size"]:
    """1 everywhere, more around the eyes and the mouth, `1 + BOOST` at their middles.

    They make the likeness and the expression, yet are 2 % of the pixels.
    """
    face = canonical_face(world).to(cameras)
    middles = torch.stack([(face[a] + face[b]) / 2 for a, b in FEATURES])
    places = project(middles.expand(len(cameras), -1, -1), cameras)
    centres = (torch.arange(size, device=cameras.device) + 0.5) / size
    across = (centres - places[..., :1]).square()[:, :, None, :]
    down = (centres - places[..., 1:]).square()[:, :, :, None]
    near = torch.exp(-(across + down) / (2 * REACH**2)).amax(1, keepdim=True)
    return 1 + BOOST * near
