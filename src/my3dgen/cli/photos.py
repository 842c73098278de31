"""What `personalize` and `invert` take: an album, or photos that become one beside the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from my3dgen.faces.album import Album
    from my3dgen.prior.store import Prior


def album_at(source: Path, prior: Prior, beside: Path) -> Album:
    """The album in `source` at the prior's resolution; photos are first made one in the folder `beside`.

    Raises UserError when there is nothing usable.
    """
    from my3dgen.apps.album import album_of
    from my3dgen.faces.album import read_album
    from my3dgen.targets import world_of

    resolution = prior.config.img_resolution
    if not (source / "dataset.json").is_file():
        album_of(source, beside, resolution=resolution, world=world_of(prior.config))
        source = beside
    return read_album(source, resolution)
