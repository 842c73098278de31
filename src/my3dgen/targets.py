"""An album as what renderings are compared with: photos and pixel weights at every size asked for."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.config import PriorConfig
from my3dgen.errors import UserError
from my3dgen.faces.album import Album
from my3dgen.losses import on_white, pixel_weights, shrink


@dataclass(frozen=True, eq=False)
class Targets:
    """Photos in [-1, 1] and masks in [0, 1] at the prior's resolution, with cameras and names."""

    images: Float[Tensor, "batch 3 size size"]
    masks: Float[Tensor, "batch 1 size size"]
    cameras: Float[Tensor, "batch 25"]
    names: tuple[str, ...]
    cache: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def at(self, size: int) -> tuple[Float[Tensor, "batch 3 size size"], Float[Tensor, "batch 1 size size"]]:
        """(photos, pixel weights) shrunk to a size; made once."""
        if size not in self.cache:
            self.cache[size] = (shrink(self.images, size), pixel_weights(shrink(self.masks, size)))
        return self.cache[size]

    def only(self, index: int) -> "Targets":
        """One of the photos."""
        part = slice(index, index + 1)
        return Targets(self.images[part], self.masks[part], self.cameras[part], self.names[part])


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
    return Targets(images, masks, album.cameras.to(device), album.names)
