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
    views: tuple[tuple[Image.Image, ...], ...]
    """Of every strength, what each camera saw."""

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
        tuple(one.views for one in edits),
    )


def edit_picture(report: EditReport, width: int = 720) -> Image.Image:
    """The edits in columns, each camera a row, above charts: scores of the edited attributes that can be
    measured, likeness, and distance from the hull."""
    marks = {strength: signed(strength) for strength in report.strengths}
    span = (min(report.strengths), max(report.strengths))
    columns = len(report.strengths)
    images = [view for row in zip(*report.views, strict=True) for view in row]
    captions = [""] * (len(images) - columns) + list(marks.values())
    panels = [sheet(images, captions, columns=columns, cell=round(0.9 * width / max(columns, 3)))]

    def add(title: str, curves: Sequence[Curve], **options: Any) -> None:
        panels.append(
            chart(curves, title=title, width=width, height=220, marks=marks, x_span=span, **options)
        )

    def dotted(values: Sequence[float], label: str = "") -> Curve:
        return Curve(label, report.strengths, values, dots=True)

    shown = {
        name: values
        for name, values in report.scores.items()
        if name in report.direction and any(value == value for value in values)
    }
    if shown:
        add("Score against strength", [dotted(values, name) for name, values in shown.items()])
    title = f"Identity ({IDENTITY_NETWORK}): similarity to the unedited picture"
    add(title, [dotted(report.identity)], y_span=(0.5, 1.0))
    if report.distance:
        title = "How far outside the anchors' hull, in units of their spread"
        add(title, [dotted(report.distance)], y_span=(0.0, 0.5))
    return stacked(panels)


def edit_sheet(edits: Sequence[Edited], yaws: Sequence[float | int], word: str) -> Image.Image:
    """Edits as a sheet: seen once, a row of strengths; seen from several yaws (degrees), a row a strength.

    `word` says what is edited.
    """
    images = [view for one in edits for view in one.views]
    strengths = [signed(one.strength) for one in edits]
    if len(yaws) == 1:
        beyond = [" (outside)" if one.outside else "" for one in edits]
        captions = [f"{word} {much}{far}" for much, far in zip(strengths, beyond, strict=True)]
        return sheet(images, captions, columns=min(len(images), 9), cell=images[0].width)
    below = [""] * (len(images) - len(yaws)) + [f"yaw {signed(yaw)}°" for yaw in yaws]
    cell, title = images[0].width, f"Strength of {word}"
    return sheet(images, below, columns=len(yaws), row_titles=strengths, cell=cell, title=title)


def signed(number: float | int) -> str:
    """A number with its sign; 0 has none."""
    return f"{number:+g}" if number else "0"
