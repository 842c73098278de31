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
        from my3dgen.apps.album import album_of
        from my3dgen.errors import UserError
        from my3dgen.faces.album import check_free

        if not 64 <= self.resolution <= 2048:
            raise UserError(f"--resolution {self.resolution} is outside 64 to 2048")
        check_free(self.out)
        if self.out.resolve() in (self.photos.resolve(), *self.photos.resolve().parents):
            raise UserError(
                f"{self.out}: the album would replace the photos it is made of; choose another -o"
            )
        report = album_of(
            self.photos,
            self.out,
            resolution=self.resolution,
            background=self.background,
            world=self.world,
        )
        kept = report["kept"]
        if not self.json:
            print(f"{len(kept)} of {report['photos']} photos -> {self.out}")
            print(f"look at {self.out / 'sheet.png'}; reasons are in {self.out / 'report.json'}")
        return {
            "album": str(self.out),
            "photos": report["photos"],
            "kept": len(kept),
            "dropped": report["dropped"],
            "noted": [{"file": k["file"], "notes": k["notes"]} for k in kept if k["notes"]],
            "other_files": report["other_files"],
        }
