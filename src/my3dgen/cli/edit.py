"""`my3dgen edit`: change attributes, such as the smile, of a person or of a photo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import UseAppendAction

from my3dgen.cli.subject import AppearanceVerb

if TYPE_CHECKING:
    from my3dgen.apps.edit import Edited
    from my3dgen.person import Person
    from my3dgen.prior.store import Prior


@dataclass(frozen=True, kw_only=True)
class Edit(AppearanceVerb):
    """Change attributes of a person, or of a photo, at several strengths; writes a sheet.

    my3dgen edit me.safetensors --direction smile=1.5 --direction age=-1 --yaw -30 0 30 -o edit.png
    """

    direction: Annotated[tuple[str, ...], UseAppendAction] = ()
    """What to change: NAME or NAME=WEIGHT of one of the prior's directions, or of several; else the smile."""
    strengths: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)
    """How much; 1 is one standard deviation over the prior's faces, times the direction's weight."""
    space: Literal["alpha", "w"] = "w"
    """w moves along the direction itself, alpha along the nearest one the person's photos span."""
    beta: float = 0.03
    """Alpha-space counts as left when an anchor's weight falls below -beta."""
    keep_inside: bool = False
    """Move results that left alpha-space back to its nearest point."""
    yaw: tuple[float, ...] = ()
    """Degrees to the face's left (positive) or right; several make a row for each strength."""
    pitch: float = 0.0
    """Degrees up."""
    report: Path | None = None
    """Also write scores and likeness at every strength: .json, and a chart."""
    photo: Path | None = None
    """Edit this photo of the person in place of a mixture of their anchors."""
    tune: bool = False
    """Once more with the person's adapter bent around the photo: nearer to it."""
    quality: Literal["draft", "standard", "max"] = "standard"
    """How long to search for the photo, and to tune."""
    stills: Path | None = None
    """Also write the pictures, or the whole edited photos, as PNG files in this new folder."""

    def run(self) -> dict:
        """Write the sheet, and the report and stills if asked for."""
        from my3dgen.apps.edit import check_strength
        from my3dgen.apps.edit_report import edit_picture, measure_edit
        from my3dgen.apps.report_file import check_report, save_report
        from my3dgen.apps.sheet import check_picture
        from my3dgen.apps.stills import check_stills
        from my3dgen.errors import UserError

        direction = parse_directions(self.direction)
        if not self.strengths:
            raise UserError("--strengths needs at least one number")
        for strength in self.strengths:
            check_strength(strength)
        check_picture(self.out)
        if self.report is not None:
            check_report(self.report)
        if self.stills is not None:
            check_stills(self.stills)
        if self.tune and self.photo is None:
            raise UserError("--tune bends the adapter around a photo; give --photo, too")
        if self.photo is not None and (self.person is None or self.anchor is not None or self.alpha):
            raise UserError(
                "--photo is found in the alpha-space of a person; give a person file and no anchors"
            )
        if self.photo is not None and (self.pitch or self.size is not None or self.resolution is not None):
            raise UserError("--photo is edited as it is; leave out --pitch, --size and --resolution")
        prior, person = self.load()
        if self.photo is None or person is None:
            edits, result = self.of_person(prior, person, direction)
        else:
            edits, result = self.of_photo(prior, person, self.photo, direction)
        if self.report is not None:
            report = measure_edit(edits, direction)
            chart = save_report(report.as_dict(), edit_picture(report), self.report)
            result |= {"report": str(self.report), "chart": str(chart)}
        edits = edits[: len(self.strengths)]
        if not self.json:
            print(f"{name_of(direction)} at {len(edits)} strengths -> {self.out}")
            if edits[0].reach < 0.9:
                print(f"the photos span {edits[0].reach:.0%} of this direction; --space w moves all the way")
            if far := [f"{one.strength:+g}: {one.distance:.2f}" for one in edits if one.distance]:
                moved = ", moved back to its edge" if self.keep_inside else ""
                print(f"outside alpha-space{moved}, in spreads of its anchors: {', '.join(far)}")
        return {
            "sheet": str(self.out),
            "direction": direction,
            "strengths": list(self.strengths),
            "space": "w" if person is None else self.space,
            "outside": [one.outside for one in edits],
            "distance": [one.distance for one in edits],
            "reach": round(edits[0].reach, 4),
        } | result

    def of_person(
        self, prior: Prior, person: Person | None, direction: dict[str, float]
    ) -> tuple[list[Edited], dict]:
        """Edit a mixture of anchors, or a face of the prior; returns what was drawn, and further results.

        Behind the edits asked for comes the unedited picture, if a report has to compare with it.
        """
        from my3dgen.apps.edit import edit
        from my3dgen.apps.edit_report import edit_sheet
        from my3dgen.apps.sheet import save_image
        from my3dgen.apps.stills import save_stills
        from my3dgen.progress import track

        yaws = self.yaw or (0.0,)
        strengths = self.strengths if 0 in self.strengths or not self.report else (*self.strengths, 0.0)
        pictures = edit(
            prior,
            person,
            direction=direction,
            strengths=strengths,
            space=self.space,
            beta=self.beta,
            keep_inside=self.keep_inside,
            anchor=self.anchor,
            alpha=self.weights(),
            yaws=[math.radians(yaw) for yaw in yaws],
            pitch=math.radians(self.pitch),
            size=self.size,
            resolution=self.resolution,
            seed=self.seed,
        )
        edits = list(track(pictures, "edits", total=len(strengths)))
        shown = edits[: len(self.strengths)]
        save_image(edit_sheet(shown, yaws, name_of(direction)), self.out)
        if self.stills is None:
            return edits, {}
        for _ in save_stills((view for one in shown for view in one.views), self.stills, "edit"):
            pass
        return edits, {"stills": str(self.stills)}

    def of_photo(
        self, prior: Prior, person: Person, photo: Path, direction: dict[str, float]
    ) -> tuple[list[Edited], dict]:
        """Edit a photo; returns what the person's model drew, the unedited last, and further results."""
        from my3dgen.apps.framed import Photo, frame
        from my3dgen.apps.photo_edit import edit_photo, photo_edit_sheet
        from my3dgen.apps.sheet import save_image
        from my3dgen.apps.stills import save_stills
        from my3dgen.errors import PhotoError
        from my3dgen.evaluate.metrics import psnr
        from my3dgen.faces.build import pixels
        from my3dgen.faces.photos import open_photo
        from my3dgen.invert import QUALITIES
        from my3dgen.pivot import QUALITIES as PIVOTS

        try:
            image = open_photo(photo)
            framed = frame(Photo(image, photo.name), image, prior.config)
        except PhotoError as error:
            raise PhotoError(f"{photo}: {error}") from None
        made = edit_photo(
            prior,
            person,
            framed,
            direction=direction,
            strengths=self.strengths,
            space=self.space,
            beta=self.beta,
            keep_inside=self.keep_inside,
            yaws=[math.radians(yaw) for yaw in self.yaw],
            config=QUALITIES[self.quality],
            tune=PIVOTS[self.quality] if self.tune else None,
        )
        save_image(photo_edit_sheet(framed, made, self.yaw, name_of(direction)), self.out)
        result: dict = {"photo": str(photo)}
        if self.stills is not None:
            for _ in save_stills(made[-1].photos, self.stills, "photo"):
                pass
            result["stills"] = str(self.stills)
        images, masks = framed.album.images, framed.album.masks
        scores = [float(psnr(pixels(one.unedited.image)[None], images, masks)) for one in made]
        result["psnr"] = [round(score, 2) for score in scores]
        last = made[-1]
        return [*last.edits, last.unedited] if 0 not in self.strengths else list(last.edits), result


def parse_directions(words: Sequence[str]) -> dict[str, float]:
    """`smile=1.5 age=-1` as numbers; smile if empty. Raises UserError."""
    from my3dgen.errors import UserError

    weights: dict[str, float] = {}
    for word in words or ("smile",):
        name, given, weight = word.partition("=")
        try:
            weights[name] = float(weight) if given else 1.0
        except ValueError:
            raise UserError(f"--direction {word}: write NAME or NAME=WEIGHT, such as age=-1") from None
    return weights


def name_of(direction: dict[str, float]) -> str:
    """Directions in words, such as smile, or 1.5 smile - age."""
    first, *rest = direction.items()
    words = [first[0] if first[1] == 1 else f"{first[1]:g} {first[0]}"]
    for name, weight in rest:
        much = "" if abs(weight) == 1 else f"{abs(weight):g} "
        words.append(f"{'-' if weight < 0 else '+'} {much}{name}")
    return " ".join(words)
