"""The demo's report as a page: figures, pictures, and what to make of them."""

from pathlib import Path
from typing import Any

from my3dgen.evaluate.metrics import LOWER_IS_BETTER
from my3dgen.output import whole

FIGURES = (
    ("psnr", "head PSNR, dB", 2),
    ("psnr_image", "PSNR, dB", 2),
    ("perceptual", "perceptual", 3),
    ("identity", "identity", 3),
)
TITLES = {
    "prior": "prior alone",
    "lora": "personalised, LoRA",
    "full": "all weights tuned",
}
PARTS = (
    ("heldout", "Held-out photos: each is inverted, rendered by its own camera, and compared with itself."),
    ("views", "Novel views: a held-out photo is inverted, then rendered where only the truth was."),
)


def best_method(report: dict[str, Any], part: str, figure: str) -> str:
    """The name of the method with the best figure in "heldout" or "views"."""
    methods = report["methods"]
    choose = min if figure in LOWER_IS_BETTER else max
    return choose(methods, key=lambda name: methods[name][part][figure])


def page(report: dict[str, Any]) -> str:
    """The report as one self-contained HTML page; its pictures are linked relative to it."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        report=report,
        figures=FIGURES,
        parts=PARTS,
        titles=TITLES,
        best=lambda part, figure: best_method(report, part, figure),
        size=readable_size,
        minutes=readable_time,
    )


def write_page(report: dict[str, Any], path: Path) -> None:
    """Write the page beside its place and rename it there."""
    with whole(path) as beside:
        beside.write_text(page(report), encoding="utf-8")


def readable_size(count: int) -> str:
    """Bytes in the unit a person would choose."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def readable_time(seconds: float) -> str:
    """Seconds in the unit a person would choose."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def table(report: dict[str, Any]) -> str:
    """The figures as a short table for a terminal."""
    rows = [("", *(f"{part} {key}" for part, _ in PARTS for key in ("psnr", "perceptual", "identity")))]
    for name, method in report["methods"].items():
        cells = [
            f"{method[part][key]:.3f}" for part, _ in PARTS for key in ("psnr", "perceptual", "identity")
        ]
        rows.append((TITLES[name], *cells))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    first, *others = widths
    return "\n".join(
        "  ".join([row[0].ljust(first), *(cell.rjust(w) for cell, w in zip(row[1:], others, strict=True))])
        for row in rows
    )
