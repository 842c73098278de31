"""The benchmark's sheets, like the paper's figures: one person, a row a method below what is true."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from my3dgen.apps.sheet import save_image, sheet
from my3dgen.evaluate.method_bench import pictures_of
from my3dgen.evaluate.method_plots import PREFIX, TITLES, leading, title_of
from my3dgen.evaluate.method_protocol import BENT, CHANGING, name_of
from my3dgen.evaluate.method_summary import group_of

CELL = 144
ALIKE = ("lora-int8", "lora-small", "lora-placed")
"""Methods that sheets leave out, for their pictures look like those of LoRA."""
LEFT_OUT = {
    "views": (*ALIKE, *CHANGING),
    "photos": (*ALIKE, *CHANGING),
    # there is no photo to bend around
    "samples": (*ALIKE, *CHANGING, *BENT),
    "interpolation": (*ALIKE, *CHANGING, *BENT),
}
"""Methods that sheets of methods leave out."""
GIVEN = ("truth", "held-out photos", "learned from")
"""Rows that no method drew."""
Titled = Mapping[str, Mapping[str, Any]]
"""Entries of a summary by their titles."""


def draw_sheets(results: Mapping[str, Any], work: Path, folder: Path) -> dict[str, str | None]:
    """`views`, `photos`, `samples` and `interpolation`; `fewer`, the views by all weights and LoRA that had
    fewer photos, too; and `changing`, photos between which the person changes, and what was learned from
    them. Names of files, None where there are no pictures.

    The person is who has most pictures there: rows of another run have none.
    """
    summary = results["summary"]
    people = list(dict.fromkeys(row["person"] for row in results["rows"] if "error" not in row))
    people.sort(key=lambda person: -len(list(pictures_of(work, person).glob("*.views.jpg"))))
    yaws = [f"{yaw:+d}°" if yaw else "inverted" for yaw in results["protocol"]["yaws"]]
    made: dict[str, str | None] = dict.fromkeys([*LEFT_OUT, "fewer", "changing"])
    for person in people[:1]:
        pictures = pictures_of(work, person)
        rows = {
            **{kind: methods_rows(pictures, kind, summary) for kind in LEFT_OUT},
            "fewer": rows_of(pictures, "views", few_and_many(summary)),
            "changing": changing_rows(pictures, summary),
        }
        for name, files in rows.items():
            page = rows_sheet(files, yaws if name in ("views", "fewer") else None)
            if page is not None:
                # in few bytes, for pages are part of every clone
                made[name] = save_image(page, folder / f"{PREFIX}{name}.jpg", quality=70).name
    return made


def methods_rows(pictures: Path, kind: str, summary: Sequence[Mapping[str, Any]]) -> dict[str, Path]:
    """Rows of a sheet of methods: each at its most photos, and what looks alike once."""
    shown = [entry for entry in leading(summary) if entry["method"] not in LEFT_OUT[kind]]
    return rows_of(pictures, kind, {title_of(entry): entry for entry in shown})


def few_and_many(summary: Sequence[Mapping[str, Any]]) -> Titled:
    """All weights and LoRA of rank 1 at the fewest, a middling and the most number of photos that both have;
    none if there is but one number."""
    entries = {(e["photos"], e["method"]): e for e in summary if e["rank"] <= 1 and e["anchors"] == "w"}
    counts = sorted({n for n, _ in entries if (n, "full") in entries and (n, "lora") in entries})
    if len(counts) < 2:
        return {}
    return {
        f"{TITLES[method]}, {count} photo{'' if count == 1 else 's'}": entries[count, method]
        for count in sorted({counts[0], counts[len(counts) // 2], counts[-1]})
        for method in ("full", "lora")
    }


def changing_rows(pictures: Path, summary: Sequence[Mapping[str, Any]]) -> dict[str, Path]:
    """Photos as learned from, and held-out ones as inverted by what learned from such photos."""
    entries = [entry for entry in leading(summary) if entry["method"] in CHANGING]
    learned = [file for entry in entries if (file := picture_of(pictures, entry, "learned")).is_file()]
    inverted = rows_of(pictures, "photos", {title_of(entry): entry for entry in entries})
    return {"learned from": learned[0], **inverted} if learned else inverted


def rows_of(pictures: Path, kind: str, entries: Titled) -> dict[str, Path]:
    """Files by titles, the truth first: its views, or else its photos."""
    title, true = ("truth", "views") if kind == "views" else ("held-out photos", "photos")
    return {
        title: pictures / f"truth.{true}.jpg",
        **{title: picture_of(pictures, entry, kind) for title, entry in entries.items()},
    }


def picture_of(pictures: Path, entry: Mapping[str, Any], kind: str) -> Path:
    """The file of a method's pictures of one kind, as the benchmark names it."""
    return pictures / f"{name_of(*group_of(entry))}.{kind}.jpg"


def rows_sheet(files: Mapping[str, Path], captions: Sequence[str] | None) -> Image.Image | None:
    """The rows that are there as a sheet; None if there is no row of a method. `captions` stand below the
    last row if there is one for each column."""
    strips = {title: squares(path) for title, path in files.items() if path.is_file()}
    if not set(strips) - set(GIVEN):
        return None
    columns = max(map(len, strips.values()))
    blank = Image.new("RGB", (CELL, CELL), "white")
    pictures = [p for some in strips.values() for p in [*some, *[blank] * (columns - len(some))]]
    words = None
    if captions is not None and len(captions) == columns:
        words = [*[""] * (len(pictures) - columns), *captions]
    return sheet(pictures, words, columns=columns, row_titles=list(strips), cell=CELL)


def squares(path: Path) -> list[Image.Image]:
    """The pictures that were saved side by side."""
    with Image.open(path) as page:
        side = page.height
        return [page.crop((x, 0, x + side, side)).convert("RGB") for x in range(0, page.width, side)]
