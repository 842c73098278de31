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
    from my3dgen.apps.sheet import sheet
    from my3dgen.errors import UserError
    from my3dgen.faces.album import check_free, read_album
    from my3dgen.faces.build import make_album
    from my3dgen.faces.photos import find_photos
    from my3dgen.progress import say, track
    from my3dgen.targets import world_of

    if (source / "dataset.json").is_file():
        return read_album(source, prior.config.img_resolution)
    found, others = find_photos(source)
    check_free(beside)
    outcome = make_album(
        track(found, "photos"),
        beside,
        resolution=prior.config.img_resolution,
        world=world_of(prior.config),
        others=others,
        say=say,
        draw=lambda images, captions: sheet(images, captions, cell=200),
    )
    if outcome.album is None:
        reasons = "; ".join(f"{d['file']}: {d['reason']}" for d in outcome.report["dropped"][:3])
        raise UserError(f"none of the {len(found)} photos in {source} is usable ({reasons})")
    return read_album(outcome.album, prior.config.img_resolution)
