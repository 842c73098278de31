"""`my3dgen edit`: change an attribute, such as the smile."""

import math
from dataclasses import dataclass
from typing import Literal

from my3dgen.cli.subject import AppearanceVerb


@dataclass(frozen=True, kw_only=True)
class Edit(AppearanceVerb):
    """Change one attribute of a person at several strengths; writes a sheet.

    my3dgen edit me.safetensors --direction smile -o smile.png
    """

    direction: str = "smile"
    """What to change: one of the prior's directions."""
    strengths: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)
    """How much; 1 is one standard deviation over the prior's faces."""
    space: Literal["alpha", "w"] = "w"
    """w moves along the direction itself, alpha along the nearest one the person's photos span."""
    beta: float = 0.03
    """Alpha-space counts as left when an anchor's weight falls below -beta."""
    keep_inside: bool = False
    """Move results that left alpha-space back to its nearest point."""
    yaw: float = 0.0
    """Degrees to the face's left (positive) or right."""
    pitch: float = 0.0
    """Degrees up."""

    def run(self) -> dict:
        """Write the sheet."""
        from my3dgen.apps.edit import edit
        from my3dgen.apps.sheet import check_picture, save_image, sheet
        from my3dgen.errors import UserError
        from my3dgen.progress import track

        if not self.strengths:
            raise UserError("--strengths needs at least one number")
        check_picture(self.out)
        prior, person = self.load()
        pictures = edit(
            prior,
            person,
            direction=self.direction,
            strengths=self.strengths,
            space=self.space,
            beta=self.beta,
            keep_inside=self.keep_inside,
            anchor=self.anchor,
            alpha=self.weights(),
            yaw=math.radians(self.yaw),
            pitch=math.radians(self.pitch),
            size=self.size,
            resolution=self.resolution,
            seed=self.seed,
        )
        edits = list(track(pictures, "edits", total=len(self.strengths)))
        captions = [
            f"{self.direction} {one.strength:+g}" + (" (outside)" if one.outside else "") for one in edits
        ]
        images = [one.image for one in edits]
        save_image(sheet(images, captions, columns=min(len(images), 9), cell=images[0].width), self.out)
        if not self.json:
            print(f"{self.direction} at {len(edits)} strengths -> {self.out}")
            if edits[0].reach < 0.9:
                print(f"the photos span {edits[0].reach:.0%} of this direction; --space w moves all the way")
        return {
            "sheet": str(self.out),
            "direction": self.direction,
            "strengths": list(self.strengths),
            "space": "w" if person is None else self.space,
            "outside": [one.outside for one in edits],
            "reach": round(edits[0].reach, 4),
        }
