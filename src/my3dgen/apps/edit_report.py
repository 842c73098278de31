"""What an edit does at every strength: the attributes' scores, and the likeness to the unedited person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from my3dgen.apps.attributes import attributes_from
from my3dgen.apps.chart import Curve, chart, stacked
from my3dgen.apps.edit import Edited
from my3dgen.apps.likeness import IDENTITY_NETWORK, embed, nearest
from my3dgen.apps.sheet import sheet
from my3dgen.cameras import angles_from_camera
from my3dgen.faces.build import pixels


@dataclass(frozen=True)
class EditReport:
    """Figures of an edit, strength by strength, in rising order."""

    direction: Mapping[str, float]
    strengths: tuple[float, ...]
    scores: Mapping[str, tuple[float, ...]]
    """Every attribute that can be measured on a picture; NaN where no face was found."""
    identity: tuple[float, ...]
    """Similarity to the unedited picture from the same side; 1 is the same picture."""
    distance: tuple[float, ...] | None
    """How far outside the person's dilated hull, in units of the anchors' spread."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values; a score that could not be measured is null."""
        scores = {
            name: [None if value != value else round(value, 4) for value in values]
            for name, values in self.scores.items()
        }
        return {
            "direction": dict(self.direction),
            "strengths": list(self.strengths),
            "scores": scores,
            "identity_network": IDENTITY_NETWORK,
            "identity": [round(value, 4) for value in self.identity],
            "distance": self.distance and [round(value, 4) for value in self.distance],
        }


def measure_edit(edits: Sequence[Edited], direction: Mapping[str, float]) -> EditReport:
    """Figures of an edit's most frontal view. Raises ValueError unless one of the strengths is 0."""
    edits = sorted(edits, key=lambda one: one.strength)
    unedited = next((one for one in edits if one.strength == 0), None)
    if unedited is None:
        raise ValueError("the unedited picture, at strength 0, is missing")
    cameras = unedited.cameras
    front = int(angles_from_camera(cameras)[0].abs().argmin())
    camera = cameras[front : front + 1]
    score = attributes_from(camera)
    scored = [score(pixels(one.views[front])[None]) for one in edits]
    who = embed([one.views[front] for one in edits], camera.expand(len(edits), -1))
    alike, _ = nearest(who, embed([unedited.views[front]], camera))
    distances = [one.distance for one in edits]
    return EditReport(
        direction,
        tuple(one.strength for one in edits),
        {name: tuple(float(one[name]) for one in scored) for name in scored[0]},
        tuple(alike),
        None if None in distances else tuple(x for x in distances if x is not None),
    )


def edit_picture(report: EditReport, width: int = 720) -> Image.Image:
    """Charts below each other: scores of the edited attributes that can be measured, likeness, distance."""
    marks = {strength: f"{strength:+g}" for strength in report.strengths}
    span = (min(report.strengths), max(report.strengths))

    def panel(title: str, curves: Sequence[Curve], below: str = "", **options: Any) -> Image.Image:
        return chart(
            curves, title=title, below=below, width=width, height=220, marks=marks, x_span=span, **options
        )

    panels = []
    shown = {
        name: values
        for name, values in report.scores.items()
        if name in report.direction and any(value == value for value in values)
    }
    if shown:
        curves = [Curve(name, report.strengths, values, dots=True) for name, values in shown.items()]
        panels.append(panel("Score of the attribute" + "s" * (len(shown) > 1), curves))
    same = [Curve("", report.strengths, report.identity, dots=True)]
    title = f"Identity ({IDENTITY_NETWORK}): similarity to the unedited picture"
    panels.append(panel(title, same, "" if report.distance else "strength", y_span=(0.5, 1.0)))
    if report.distance:
        far = [Curve("", report.strengths, report.distance, dots=True)]
        panels.append(
            panel(
                "How far outside the anchors' hull, in units of their spread",
                far,
                "strength",
                y_span=(0.0, 0.5),
            )
        )
    return stacked(panels)


def edit_sheet(
    edits: Sequence[Edited], yaws: Sequence[float | int], word: str, title: str | None = None
) -> Image.Image:
    """Edits as a sheet: seen once, a row of strengths; seen from several yaws (degrees), a row a strength."""
    images = [view for one in edits for view in one.views]
    beyond = [" (outside)" if one.outside else "" for one in edits]
    if len(yaws) == 1:
        captions = [f"{word} {one.strength:+g}{far}" for one, far in zip(edits, beyond, strict=True)]
        return sheet(images, captions, columns=min(len(images), 9), cell=images[0].width, title=title)
    below = [""] * (len(images) - len(yaws)) + [f"yaw {yaw:+g}°" for yaw in yaws]
    rows = [f"{word} {one.strength:+g}" for one in edits]
    return sheet(images, below, columns=len(yaws), row_titles=rows, cell=images[0].width, title=title)
