"""Photos to an album with a contact sheet: what every use of photos begins with."""

from pathlib import Path
from typing import Any

from my3dgen.apps.sheet import sheet
from my3dgen.errors import UserError
from my3dgen.faces.album import check_free
from my3dgen.faces.build import make_album
from my3dgen.faces.photos import find_photos
from my3dgen.progress import say, track


def album_of(source: Path, folder: Path, **options: Any) -> dict[str, Any]:
    """Write an album of the photos in `source` with a contact sheet; returns its report.

    `options` are those of `faces.build.make_album`. Says on stderr what becomes of the photos. Raises
    UserError when none is usable or `folder` holds other things.
    """
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
