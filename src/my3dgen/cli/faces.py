"""`my3dgen faces`: photos of one person to an album."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Faces(Verb):
    """Make an album of the photos in a folder: find the face, level and crop it, find its camera.

    Photos that cannot be used are left out, each with one line that says why. Nothing leaves this
    machine.
    """

    photos: Positional[Path]
    """Folder of photos of one person (or a single photo)."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """Folder for the album; an album already there is replaced."""
    resolution: int = 512
    """Pixels of the album's square pictures."""
    background: Literal["keep", "white"] = "keep"
    """Keep it (priors on white use the masks), or paint it white for good."""

    world: Literal["mini", "ffhq"] = "mini"
    """Whose cameras: those of priors trained on synthetic heads, or on FFHQ with EG3D's labels."""

    def run(self) -> dict:
        """Write the album; returns counts and the photos left out."""
        from my3dgen.errors import UserError
        from my3dgen.faces.album import check_free
        from my3dgen.faces.photos import find_photos

        if not 64 <= self.resolution <= 2048:
            raise UserError(f"--resolution {self.resolution} is outside 64 to 2048")
        check_free(self.out)
        if self.out.resolve() in (self.photos.resolve(), *self.photos.resolve().parents):
            raise UserError(
                f"{self.out}: the album would replace the photos it is made of; choose another -o"
            )
        found, others = find_photos(self.photos)

        from my3dgen.apps.sheet import sheet
        from my3dgen.faces.build import make_album
        from my3dgen.progress import say, track

        outcome = make_album(
            track(found, "photos"),
            self.out,
            resolution=self.resolution,
            background=self.background,
            world=self.world,
            others=others,
            say=say,
            draw=lambda images, captions: sheet(images, captions, cell=200),
        )
        kept, dropped = outcome.report["kept"], outcome.report["dropped"]
        if outcome.album is None:
            reasons = "; ".join(f"{d['file']}: {d['reason']}" for d in dropped[:3])
            raise UserError(f"none of the {len(found)} photos in {self.photos} is usable ({reasons})")
        if not self.json:
            print(f"{len(kept)} of {len(found)} photos -> {self.out}")
            print(f"look at {self.out / 'sheet.png'}; reasons are in {self.out / 'report.json'}")
        return {
            "album": str(self.out),
            "photos": len(found),
            "kept": len(kept),
            "dropped": dropped,
            "noted": [{"file": k["file"], "notes": k["notes"]} for k in kept if k["notes"]],
            "other_files": others,
        }
