"""What a way through a person's appearances does to the likeness, and how evenly it moves."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from my3dgen.apps.chart import Curve, chart, stacked
from my3dgen.apps.interpolate import Between
from my3dgen.apps.likeness import (
    IDENTITY_NETWORK,
    PERCEPTUAL_NETWORK,
    Change,
    Embeddings,
    embed,
    least_alike,
    nearest,
    unevenness,
)
from my3dgen.apps.sheet import sheet

STRIP = 9
"""Pictures of a strip."""


@dataclass(frozen=True)
class WalkReport:
    """Figures of a walk, picture by picture."""

    positions: tuple[float, ...]
    identity: tuple[float, ...]
    """Similarity of every picture to the reference it is most like; 1 is the same picture."""
    nearest: tuple[int, ...]
    """Which reference that is: its place among them, from 0."""
    apart: float | None
    """Lowest similarity of two references."""
    steps: tuple[float, ...]
    """How much changes from each picture to the next; of a closed walk also from the last to the first."""
    strip: tuple[Image.Image, ...]
    """Some of the pictures, evenly chosen."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values; the networks are named, for figures of others cannot be compared."""
        return {
            "identity_network": IDENTITY_NETWORK,
            "identity_mean": round(statistics.mean(self.identity), 4),
            "identity_least": round(min(self.identity), 4),
            "references_least_alike": None if self.apart is None else round(self.apart, 4),
            "perceptual_network": PERCEPTUAL_NETWORK,
            "step_mean": round(statistics.mean(self.steps), 5),
            "step_largest": round(max(self.steps), 5),
            "step_unevenness": round(unevenness(self.steps), 4),
            "pictures": [
                {"position": round(position, 4), "identity": round(alike, 4), "nearest": which}
                for position, alike, which in zip(self.positions, self.identity, self.nearest, strict=True)
            ],
            "steps": [round(step, 5) for step in self.steps],
        }


class Watch:
    """Measures a walk of `count` pictures while they pass by, and keeps few of them."""

    def __init__(self, references: Embeddings, count: int, closed: bool = False) -> None:
        self.references, self.closed = references, closed
        last = count - 1
        self.shown = {round(k * last / (STRIP - 1)) for k in range(STRIP)} if count > STRIP else range(count)
        self.positions: list[float] = []
        self.who: list[Embeddings] = []
        self.change = Change()
        self.strip: list[Image.Image] = []

    def over(self, walk: Iterable[Between]) -> Iterator[Between]:
        """The same pictures, one by one."""
        for index, one in enumerate(walk):
            self.positions.append(one.position)
            self.who.append(embed([one.image], one.camera[None]))
            self.change.see(one.image)
            if index in self.shown:
                self.strip.append(one.image)
            yield one

    def report(self) -> WalkReport:
        """What was measured."""
        alike, which = nearest(torch.cat(self.who), self.references)
        steps = self.change.steps(self.closed)
        apart = least_alike(self.references)
        return WalkReport(
            tuple(self.positions), tuple(alike), tuple(which), apart, tuple(steps), tuple(self.strip)
        )


def walk_picture(report: WalkReport, stops: Mapping[float, str], width: int = 1100) -> Image.Image:
    """A strip of the walk above two charts over its pictures: likeness, and how much changes.

    `stops` are words for positions, such as {0.0: "anchor 3", 1.0: "anchor 17"}.
    """
    count = len(report.positions)
    strip = sheet(report.strip, columns=len(report.strip), cell=(width - 60) // len(report.strip) - 8)
    closed = len(report.steps) == count
    axis = (0.0, float(count - 1 + closed))
    ends = {0: 0.0, max(stops): axis[1]}
    marks = {ends.get(stop, float(passed_at(report.positions, stop))): word for stop, word in stops.items()}
    level = None if report.apart is None else (report.apart, "least alike references")
    alike = chart(
        [Curve("", range(count + closed), report.identity + report.identity[:closed])],
        title=f"Identity ({IDENTITY_NETWORK}): similarity to the nearest of the references",
        width=width,
        marks=marks,
        level=level,
        x_span=axis,
        y_span=(0.5, 1.0),
    )
    moved = chart(
        [Curve("", [k + 0.5 for k in range(len(report.steps))], report.steps)],
        title=f"Change from picture to picture ({PERCEPTUAL_NETWORK}), "
        f"standard deviation {100 * unevenness(report.steps):.0f} % of the mean",
        below="pictures, at equal times",
        width=width,
        marks=marks,
        x_span=axis,
        y_span=(0.0, 0.0),
    )
    return stacked([strip, alike, moved])


def passed_at(positions: Sequence[float], stop: float) -> int:
    """Which picture is nearest to a stop."""
    return min(range(len(positions)), key=lambda k: abs(positions[k] - stop))
