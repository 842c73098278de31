"""An album as what renderings are compared with: photos and pixel weights at every size asked for."""

from collections.abc import Sequence
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
    known: Float[Tensor, "batch 1 size size"] | None = None
    """1 where a photo's pixels count, 0 where they are to be found; None where all count."""
    detail: int | None = None
    """Pixels across that the photos had before they were enlarged; None for their own size."""
    cache: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def at(self, size: int) -> tuple[Float[Tensor, "batch 3 size size"], Float[Tensor, "batch 1 size size"]]:
        """(photos, pixel weights) shrunk to a size, or to their detail where that is less; made once.

        A pixel to which one that is not known contributes weighs nothing.
        """
        if size not in self.cache:
            side = min(size, self.detail or size)
            interest = shrink(self.masks, side) * feature_weights(self.cameras, side, self.world)
            weights = pixel_weights(interest)
            if self.known is not None:
                weights = weights * (shrink(self.known, side) > 0.999)
                weights = weights / weights.mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-8)
            self.cache[size] = (shrink(self.images, side), weights)
        return self.cache[size]

    def like(self, pictures: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 3 size size"]:
        """Pictures of the photos' size with no more detail than the photos have."""
        if self.detail is None or self.detail >= pictures.shape[-1]:
            return pictures
        return shrink(shrink(pictures, self.detail), pictures.shape[-1])

    def only(self, index: int) -> "Targets":
        """One of the photos."""
        part = slice(index, index + 1)
        known = None if self.known is None else self.known[part]
        return Targets(
            self.images[part],
            self.masks[part],
            self.cameras[part],
            self.names[part],
            self.world,
            known,
            self.detail,
        )


def targets_of(
    album: Album,
    config: PriorConfig,
    device: torch.device | str = "cpu",
    *,
    known: Float[Tensor, "batch 1 size size"] | None = None,
    detail: int | None = None,
) -> Targets:
    """The album for a prior: at its resolution and, if the prior renders heads on white, on white.

    Without masks every pixel counts alike. `known` (at the album's size) and `detail` as in `Targets`.
    Raises UserError for an album without photos, and for one of which nothing is known.
    """
    if len(album) == 0:
        raise UserError(f"{album.folder or 'the album'} has no photos; add some and run my3dgen faces")
    size, images = config.img_resolution, album.images.to(device)
    if known is not None:
        known = known.to(device)
        images = torch.where(known > 0.999, images, 0)  # what is not known shall not even shine through
    images = shrink(images, size).clamp(-1, 1)
    if album.masks is None:
        masks = torch.ones_like(images[:, :1])
    else:
        masks = shrink(album.masks.to(device), size).clamp(0, 1)
        images = on_white(images, masks) if config.white_back else images
    if known is not None:
        known = shrink(known, size)
        if empty := [n for n, k in zip(album.names, known, strict=True) if not (k > 0.999).any()]:
            raise UserError(f"nothing of the face in {empty[0]} is known; mask less of it")
    cameras = album.cameras.to(device)
    return Targets(images, masks, cameras, album.names, world_of(config), known, detail)


def joined(several: Sequence[Targets]) -> Targets:
    """Photos of several albums, in their order. Raises ValueError if some are known in parts or blurred."""
    first = several[0]
    if len(several) == 1:
        return first
    if any(one.known is not None or one.detail is not None for one in several):
        raise ValueError("only photos that are known as a whole and at their size can be joined")
    images, masks, cameras = (
        torch.cat([getattr(one, name) for one in several]) for name in ("images", "masks", "cameras")
    )
    return Targets(images, masks, cameras, tuple(n for one in several for n in one.names), first.world)


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
