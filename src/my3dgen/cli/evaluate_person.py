"""`my3dgen evaluate person`: a person file by photos it has not seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class EvaluatePerson(Verb):
    """Find photos that were not learned from among a person's appearances, and compare.

    my3dgen evaluate person me.safetensors --photos new_photos
    """

    person: Positional[Path]
    """Person file."""
    photos: Path
    """A folder of photos of the same person, or an album; none of them learned from."""
    out: Annotated[Path | None, arg(aliases=["-o"])] = None
    """Picture to write, photos above their renderings; FILE with .evaluation.png by default."""
    prior: str | None = None
    """Name or folder of the prior; the person's own by default."""
    beta: float = 0.3
    """How far below 0 an anchor's weight may be."""
    compare: bool = False
    """Put the prior alone to the same test."""
    quality: Literal["draft", "standard", "max"] = "standard"
    """How long to search."""
    seed: int = 0
    """Of everything random."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    def run(self) -> dict:
        """Compare and write the sheet; returns the figures."""
        from my3dgen.apps.sheet import check_picture, save_image
        from my3dgen.cli.photos import album_at
        from my3dgen.cli.subject import load_subject
        from my3dgen.errors import UserError
        from my3dgen.evaluate.person import evaluate_person
        from my3dgen.invert import QUALITIES

        if not 0 <= self.beta <= 1:
            raise UserError(f"--beta {self.beta:g} is outside 0 to 1")
        out = check_picture(self.out or self.person.with_suffix(".evaluation.png"))
        prior, person = load_subject(self.person, self.prior, self.device, self.seed)
        assert person is not None
        album = album_at(self.photos, prior, out.with_suffix(".album"))
        config = replace(QUALITIES[self.quality], seed=self.seed)
        found = evaluate_person(prior, person, album, config, beta=self.beta, compare=self.compare)
        save_image(found.sheet, out)
        if not self.json:
            print(sentence(found.figures))
            if self.compare:
                print(f"by the prior alone: {scores(found.figures['prior'])}")
            print(f"look at {out}")
        return found.figures | {"sheet": str(out)}


def scores(figures: dict) -> str:
    """Scores in words."""
    return (
        f"head PSNR {figures['psnr']:.2f} dB, SSIM {figures['ssim']:.3f}, "
        f"perceptual {figures['perceptual']:.3f}, identity {figures['identity']:.3f}"
    )


def sentence(figures: dict) -> str:
    """All figures in words."""
    count = figures["photos"]
    return (
        f"{count} photo{'s' * (count != 1)}: {scores(figures)}\n"
        f"{figures['inside']:.0%} lie within the person's hull; the mean distance from it is "
        f"{figures['stray_distance']:.2f} of the anchors' spread"
    )
