"""What `personalize` and `invert` take: an album, or photos that become one beside the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from my3dgen.faces.album import Album
    from my3dgen.prior.store import Prior


def album_at(source: Path, prior: Prior, beside: Path) -> Album:
    """The album in `source` at the prior's resolution; photos are first made one in the folder `beside`.

    Raises UserError when there is nothing usable.
    """
    from my3dgen.faces.album import read_album
    from my3dgen.targets import world_of

    resolution = prior.config.img_resolution
    if not (source / "dataset.json").is_file():
        make_album_of(source, beside, resolution=resolution, world=world_of(prior.config))
        source = beside
    return read_album(source, resolution)


def make_album_of(source: Path, folder: Path, **options: Any) -> dict:
    """Write an album of the photos in `source` with a contact sheet; returns its report.

    `options` are those of `faces.build.make_album`. Says on stderr what becomes of the photos. Raises
    UserError when none is usable or `folder` holds other things.
    """
    from my3dgen.apps.sheet import sheet
    from my3dgen.errors import UserError
    from my3dgen.faces.album import check_free
    from my3dgen.faces.build import make_album
    from my3dgen.faces.photos import find_photos
    from my3dgen.progress import say, track

    check_free(folder)
    found, others = find_photos(source)
    outcome = make_album(
        track(found, "photos"),
        folder,
        others=others,
        say=say,
        draw=lambda images, captions: sheet(images, captions, cell=200),
        **options,
    )
    if outcome.album is None:
        reasons = "; ".join(f"{d['file']}: {d['reason']}" for d in outcome.report["dropped"][:3])
        raise UserError(f"none of the {len(found)} photos in {source} is usable ({reasons})")
    return outcome.report
