"""A prior's evaluation for people: a page, a short table, and the sheets of pictures."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from my3dgen.apps.attributes import attributes_from
from my3dgen.apps.sheet import save_image, sheet, to_image
from my3dgen.evaluate.prior_people import People, offsets
from my3dgen.evaluate.prior_samples import (
    PSI,
    SMILE,
    STRENGTH,
    WAY,
    Latents,
    draw_latents,
    line,
    pictures,
)
from my3dgen.evaluate.report import readable_time
from my3dgen.output import whole
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior
from my3dgen.progress import track

SHOWN = 8
"""Heads on a sheet."""
DRAWN = 64
"""Samples on their sheet."""
ACROSS = 16
SAMPLE_YAWS = (-45, 0, 45)
WAYS_SHOWN = 4
CELL, SMALL = 192, 128
BATCH = 4

# figure -> (what it is, unit, digits, which way is better)
FIGURES: dict[str, tuple[str, str, int, str]] = {
    "inversion_psnr": ("Inverted, source view", "dB", 2, "higher"),
    "view15_psnr": ("Inverted, seen 15° aside", "dB", 2, "higher"),
    "view30_psnr": ("Inverted, seen 30° aside", "dB", 2, "higher"),
    "view45_psnr": ("Inverted, seen 45° aside", "dB", 2, "higher"),
    "encoder_psnr": ("Encoder alone, source view", "dB", 2, "higher"),
    "encoder_view30_psnr": ("Encoder alone, seen 30° aside", "dB", 2, "higher"),
    "encoder50_psnr": ("Encoder and 50 steps, source view", "dB", 2, "higher"),
    "encoder50_view30_psnr": ("Encoder and 50 steps, seen 30° aside", "dB", 2, "higher"),
    "inversion_perceptual": ("Inverted, perceptual distance", "", 3, "lower"),
    "inversion_identity": ("Inverted, identity", "", 3, "higher"),
    "view15_identity": ("Identity, seen 15° aside", "", 3, "higher"),
    "view30_identity": ("Identity, seen 30° aside", "", 3, "higher"),
    "view45_identity": ("Identity, seen 45° aside", "", 3, "higher"),
    "encoder_identity": ("Encoder alone, identity", "", 3, "higher"),
    "encoder50_identity": ("Encoder and 50 steps, identity", "", 3, "higher"),
    "depth_error": ("Depth, mean absolute error", "world units", 4, "lower"),
    "depth_missed": ("Rays of the head without depth", "share", 4, "lower"),
    "kid": ("Samples against true heads, KID", "", 4, "lower"),
    "kid_floor": ("True heads against true heads, KID", "", 4, ""),
    "smile_gain": ("Smile at +2, gain of the score", "of 1", 3, "higher"),
    "smile_identity": ("Smile at +2, cosine of identity", "", 4, "higher"),
    "smile_identity_similarity": ("Smile at +2, identity", "", 3, "higher"),
    "smile_removed": ("Smile at -2, loss of the score", "of 1", 3, "higher"),
    "smile_removed_identity": ("Smile at -2, cosine of identity", "", 4, "higher"),
    "interpolation_smoothness": ("Interpolation, longest step over mean", "", 3, "lower"),
}
HEADINGS = {
    "worst": "The worst inversions",
    "median": "The middling inversions",
    "samples": f"Samples, unpicked, psi {PSI}",
    "smile": "A smile taken and given",
    "interpolation": "From one head to another",
}
GROUP_FIGURES = {
    "inversion_psnr": "inverted",
    "encoder_psnr": "encoder alone",
    "view30_psnr": "30° aside",
}


def draw_all(
    prior: Prior,
    people: People,
    ws: Mapping[str, Latents],
    ways: Mapping[str, Any],
    samples: Float[Tensor, "samples num_ws w_dim"],
    out: Path,
    seed: int,
) -> dict[str, str]:
    """All sheets: name -> path relative to `out`. `ws` and `ways` are by way to invert."""
    folder, generator = out / "pictures", prior.generator
    order = torch.tensor(ways["inversion"]["0"]["psnr"]).argsort().tolist()
    middle = max(0, (len(order) - SHOWN) // 2)
    chosen = {"worst": order[:SHOWN], "median": order[middle : middle + SHOWN]}
    made = {
        name: save_image(inversions(prior, people, ws, ways, rows), folder / f"{name}.jpg").name
        for name, rows in chosen.items()
    }
    rng = torch.Generator().manual_seed(seed)
    drawn = draw_latents(generator, DRAWN, PSI, rng)
    made["samples"] = save_image(turning(generator, drawn), folder / "samples.png").name
    if SMILE in prior.directions:
        made["smile"] = save_image(smiling(prior, samples[:SHOWN]), folder / "smile.jpg").name
    made["interpolation"] = save_image(mixing(generator, drawn), folder / "interpolation.jpg").name
    return {name: f"pictures/{file}" for name, file in made.items()}


def inversions(
    prior: Prior,
    people: People,
    ws: Mapping[str, Latents],
    ways: Mapping[str, Any],
    rows: Sequence[int],
) -> Image.Image:
    """A column a head: truth, what each way makes of it, and the view 30 degrees aside, true and made."""
    device, aside = prior.generator.w_avg.device, offsets().index(30)

    def true(view: int) -> list[Image.Image]:
        return [to_image(people.image(slice(row, row + 1), view, device)) for row in rows]

    def made(way: str, view: int) -> list[Image.Image]:
        return _images(pictures(prior.generator, ws[way][rows], people.cameras[rows, view], BATCH))

    titles = {"encoder": "encoder", "encoder50": "encoder + 50", "inversion": "inverted"}
    columns: dict[str, tuple[list[Image.Image], list[str]]] = {"truth": (true(0), [""] * len(rows))}
    for way, title in titles.items():
        if way in ws:
            columns[title] = made(way, 0), _decibels(ways[way]["0"]["psnr"], rows)
    columns["true, 30° aside"] = true(aside), [""] * len(rows)
    columns["made, 30° aside"] = made("inversion", aside), _decibels(ways["inversion"]["+30"]["psnr"], rows)
    return sheet(
        [picture for column, _ in columns.values() for picture in column],
        [caption for _, captions in columns.values() for caption in captions],
        columns=len(rows),
        row_titles=list(columns),
        cell=CELL,
    )


@torch.no_grad()
def turning(generator: Generator, ws: Latents) -> Image.Image:
    """Samples, each seen from the left, the front and the right, one above the other."""
    cameras = generator.cameras(torch.tensor(SAMPLE_YAWS).deg2rad())
    seen = []
    for one in track(ws.split(1), "samples"):
        planes = generator.planes(one)
        seen.append(_images(generator.render(planes, camera, one).image for camera in cameras.split(1)))
    across = min(ACROSS, len(ws))
    rows = [seen[first : first + across] for first in range(0, len(ws), across)]
    shown = [sides[side] for row in rows for side in range(len(SAMPLE_YAWS)) for sides in row]
    titles = [f"{yaw:+d}°" if yaw else "0°" for yaw in SAMPLE_YAWS] * len(rows)
    return sheet(shown, columns=across, row_titles=titles, cell=SMALL)


def smiling(prior: Prior, ws: Latents) -> Image.Image:
    """Heads with the smile taken away, as they are, and with a smile given; captions are smile scores."""
    generator = prior.generator
    camera, direction = generator.cameras(), prior.directions[SMILE].to(ws)
    score = attributes_from(camera)
    shown, captions, strengths = [], [], (-STRENGTH, 0.0, STRENGTH)
    for strength in strengths:
        for some in pictures(generator, ws + strength * direction, camera, BATCH):
            shown += _images([some])
            captions += [
                f"{value:.2f}" if value == value else "no face" for value in score(some)[SMILE].tolist()
            ]
    titles = [f"{strength:+g}" if strength else "as it is" for strength in strengths]
    return sheet(shown, captions, columns=len(ws), row_titles=titles, cell=CELL)


def mixing(generator: Generator, ws: Latents) -> Image.Image:
    """Straight lines in W between pairs of samples, one a row."""
    lines = line(ws[: 2 * WAYS_SHOWN : 2], ws[1 : 2 * WAYS_SHOWN : 2])
    shown = _images(pictures(generator, lines.flatten(0, 1), generator.cameras(), BATCH))
    return sheet(shown, columns=WAY, cell=SMALL)


def _images(batches: Any) -> list[Image.Image]:
    return [to_image(image) for some in batches for image in some]


def _decibels(values: Sequence[float], rows: Sequence[int]) -> list[str]:
    return [f"{values[row]:.1f} dB" for row in rows]


def table(report: Mapping[str, Any]) -> str:
    """The figures for a terminal, those the prior has."""
    width = max(len(about) for about, *_ in FIGURES.values())
    lines = [
        f"{about:<{width}}  {report[name]:>8.{digits}f} {unit}".rstrip()
        for name, (about, unit, digits, _) in FIGURES.items()
        if report.get(name) is not None
    ]
    worst = report["worst_group"]
    lines.append(worst_sentence(worst))
    return "\n".join(lines)


def worst_sentence(worst: Mapping[str, Any]) -> str:
    """Who fares worst, in words."""
    heads = "1 head" if worst["count"] == 1 else f"{worst['count']} heads"
    return (
        f"farthest below the mean: {worst['attribute']} {worst['group']} ({heads}), "
        f"{GROUP_FIGURES[worst['figure']]}, {worst['difference']:+.2f} dB"
    )


def page(report: Mapping[str, Any]) -> str:
    """The report as one HTML page; its pictures are linked relative to it."""
    import jinja2

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # the demo's page and this one look alike
    style = re.search(r"<style>.*?</style>", (here / "report.html.jinja").read_text("utf-8"), re.DOTALL)
    return environment.get_template("prior_report.html.jinja").render(
        report=report,
        style="" if style is None else style.group(),
        figures=FIGURES,
        headings=HEADINGS,
        group_figures={k: v for k, v in GROUP_FIGURES.items() if report[k] is not None},
        captions=captions_of(report),
        worst=worst_sentence(report["worst_group"]).replace("farthest", "Farthest", 1),
        minutes=readable_time,
    )


def captions_of(report: Mapping[str, Any]) -> dict[str, str]:
    """What each sheet shows, in words."""
    rows = "From above: the true source view, "
    rows += "the encoder, the encoder and 50 steps, " if report["encoder_psnr"] is not None else ""
    rows += "the inversion, and the view 30° to the right, true and made from the inversion."
    return {
        "worst": f"The heads with the lowest PSNR of {report['identities']}. {rows}",
        "median": f"The heads around the median PSNR. {rows}",
        "samples": "Random heads of the prior from three sides, none left out.",
        "smile": f"Samples at strength -2, 0 and +2 of the direction `{SMILE}`, with their smile scores.",
        "interpolation": "Each row goes from one sample to another in even steps in W.",
    }


def write_page(report: Mapping[str, Any], path: Path) -> None:
    """Write the page beside its place and rename it there."""
    with whole(path) as beside:
        beside.write_text(page(report), encoding="utf-8")
