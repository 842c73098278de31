"""Line charts for reports: a few curves on common axes, in the look of the sheets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from my3dgen.apps.sheet import INK, PAPER, QUIET

COLOURS = ((26, 115, 232), (217, 48, 37), (24, 128, 56), (249, 148, 0), (132, 48, 206))
RULE = (222, 224, 228)
FINER = 3  # drawn this much larger, then averaged down: Pillow's lines have hard edges


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    label: str
    """'' leaves it out of the legend."""
    x: Sequence[float | int]
    y: Sequence[float | int]
    """As many as `x`; a gap where one is not finite."""
    dots: bool = False
    """Whether each point is marked."""


def chart(
    curves: Sequence[Curve],
    *,
    title: str,
    below: str = "",
    width: int = 720,
    height: int = 260,
    marks: Mapping[float, str] | None = None,
    level: tuple[float, str] | None = None,
    x_span: tuple[float, float] | None = None,
    y_span: tuple[float, float] | None = None,
) -> Image.Image:
    """Curves over x. `below` names the x axis and `title` what is drawn; `marks` are x values with words in
    place of ticks; `level` is a value of y with a word, drawn as a thin line; the axes show at least `x_span`
    and `y_span`.

    Raises ValueError when there is nothing finite to draw or a curve's x and y differ in number.
    """
    if any(len(curve.x) != len(curve.y) for curve in curves):
        raise ValueError("a curve has as many x as y")
    points = [(x, y) for curve in curves for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(y)]
    if not points:
        raise ValueError("no finite value to draw")
    xs = [x for x, _ in points] + list(marks or ()) + list(x_span or ())
    ys = [y for _, y in points] + list(y_span or ()) + ([level[0]] if level else [])
    left, right = float(min(xs)), float(max(xs))
    x_ticks = marks or {x: f"{x:g}" for x in ticks(left, right) if left <= x <= right}
    y_ticks = ticks(min(ys), max(ys))
    low, high = y_ticks[0], y_ticks[-1]

    s = FINER
    page = Image.new("RGB", (width * s, height * s), PAPER)
    draw = ImageDraw.Draw(page)
    text, heading = ImageFont.load_default(size=13 * s), ImageFont.load_default(size=16 * s)
    digits = max(text.getlength(f"{y:g}") for y in y_ticks)
    box = (18 * s + digits, 44 * s, (width - 24) * s, (height - (46 if below else 30)) * s)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            box[0] + (x - left) / max(right - left, 1e-12) * (box[2] - box[0]),
            box[3] - (y - low) / (high - low) * (box[3] - box[1]),
        )

    for y in y_ticks:
        height_of = place(left, y)[1]
        draw.line([(box[0], height_of), (box[2], height_of)], RULE, s)
        draw.text((box[0] - 8 * s, height_of), f"{y:g}", QUIET, text, anchor="rm")
    for x, word in x_ticks.items():
        across = place(x, low)[0]
        draw.line([(across, box[1]), (across, box[3])], RULE, s)
        room = text.getlength(word) / 2 + 4 * s
        centre = min(max(across, room), width * s - room)
        draw.text((centre, box[3] + 6 * s), word, QUIET, text, anchor="ma")
    if level:
        height_of = place(left, level[0])[1]
        draw.line([(box[0], height_of), (box[2], height_of)], QUIET, s)
        draw.text((box[2], height_of - 3 * s), level[1], QUIET, text, anchor="rd")
    after = box[2]
    for number, curve in reversed(list(enumerate(curves))):
        colour = COLOURS[number % len(COLOURS)]
        for run in unbroken(curve):
            spots = [place(x, y) for x, y in run]
            draw.line(spots, colour, 2 * s, joint="curve")
            for x, y in spots if curve.dots or len(spots) == 1 else []:
                draw.ellipse((x - 4 * s, y - 4 * s, x + 4 * s, y + 4 * s), colour)
        if curve.label:
            after -= text.getlength(curve.label)
            draw.text((after, 26 * s), curve.label, INK, text, anchor="lm")
            draw.line([(after - 24 * s, 26 * s), (after - 6 * s, 26 * s)], colour, 2 * s)
            after -= 36 * s
    draw.text((12 * s, 12 * s), title, INK, heading)
    if below:
        draw.text(((box[0] + box[2]) / 2, (height - 20) * s), below, QUIET, text, anchor="ma")
    return page.resize((width, height), Image.Resampling.BOX)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers, roughly `about` of them, that cover low to high."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]


def unbroken(curve: Curve) -> list[list[tuple[float, float]]]:
    """The curve's runs of finite points."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(curve.x, curve.y, strict=True):
        if math.isfinite(y):
            runs[-1].append((float(x), float(y)))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def stacked(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures below each other on white paper, each in the middle of the widest."""
    width = max(image.width for image in images)
    page = Image.new("RGB", (width, sum(image.height for image in images)), PAPER)
    top = 0
    for image in images:
        page.paste(image, ((width - image.width) // 2, top))
        top += image.height
    return page
