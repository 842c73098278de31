"""The benchmark of methods for people: a table for a terminal, and a page with plots and pictures."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from my3dgen.config import PRESETS
from my3dgen.evaluate.method_claims import CLAIMS, ENOUGH, Claim, Comparison, compare
from my3dgen.evaluate.method_findings import costs_of_changes, findings
from my3dgen.evaluate.method_learn import tuned_numbers
from my3dgen.evaluate.method_plots import PREFIX, TITLES, anchors_of, plot_all, title_of
from my3dgen.evaluate.method_sheets import draw_sheets
from my3dgen.evaluate.method_summary import COSTS, settled, summarise
from my3dgen.evaluate.method_words import interval, number, signed
from my3dgen.lora import new_adapter, trainable_parameters
from my3dgen.output import whole
from my3dgen.prior.generator import Generator

PAGE = "results.md"
COLUMNS = {
    "heldout_psnr": "held-out PSNR, dB",
    "heldout_ssim": "SSIM",
    "heldout_perceptual": "perceptual",
    "heldout_identity": "identity",
    "view15_identity": "15° identity",
    "view30_identity": "30° identity",
    "view45_identity": "45° identity",
    "views_psnr": "views PSNR, dB",
    "views_perceptual": "perceptual",
    "samples_identity": "samples identity",
    "samples_diversity": "diversity",
    "interpolation_least": "ways, least identity",
    "floaters": "floaters",
    "depth_error": "depth error",
}
KEPT = ("prior-w", "lora", "lora-placed", "lora-small", "lora-int8", "control")
"""Methods that are set against all weights; the prior and another's adapter show what is worth how much."""
AGAINST_FULL = {
    "heldout_identity": "held-out identity",
    "heldout_psnr": "held-out PSNR, dB",
    "view30_psnr": "PSNR 30° aside, dB",
    "view30_perceptual": "perceptual distance 30° aside",
    "view30_identity": "identity 30° aside",
}
CAPTIONS = {
    "yaw.png": "Identity and PSNR over yaw",
    "photos.png": "Quality over the number of photos",
    "rank.png": "Quality over the adapter's rank",
    "bytes.png": "Likeness against bytes",
    "views.jpg": "One photo inverted by methods that look different, then seen from other sides",
    "photos.jpg": "Held-out photos of one person, inverted by methods that look different",
    "fewer.jpg": "One person learned from few and many photos, one photo inverted and seen from other sides; "
    "the truth on top",
    "changing.jpg": "Photos in which hair, clothes, skin and weight of one person change, and held-out ones "
    "as inverted by what learned from such photos",
    "samples.jpg": "Samples of one person's alpha-space by methods that look different",
    "interpolation.jpg": "From one photo to another, by methods that look different",
}
"""What plots and sheets show, by the ends of their files' names."""
SHORT = ("heldout_psnr", "heldout_perceptual", "heldout_identity", "views_psnr", "views_identity", "bytes")
VERDICTS = {"agrees": "in agreement", "does not agree": "not in agreement", "open": "open"}


def cell(entry: Mapping[str, Any], figure: str) -> str:
    """A mean with its interval; a dash for what a method does not have."""
    value = entry["figures"].get(figure)
    if value is None:
        return "-"
    return number(figure, value["mean"]) + interval(figure, value["low"], value["high"])


def table(results: Mapping[str, Any]) -> str:
    """The main figures for a terminal, a line for each kind of row."""
    rows: list[Sequence[str]] = [("method", "photos", "people", *SHORT)]
    for entry in results["summary"]:
        figures = [
            number(name, entry["figures"][name]["mean"]) if name in entry["figures"] else "-"
            for name in SHORT
        ]
        rows.append((title_of(entry), str(entry["photos"]), str(entry["people"]), *figures))
    lines = aligned(rows)
    if results.get("left"):
        lines.append(f"{results['left']} rows are not measured yet: the run is at work, or was stopped")
    if results.get("failed"):
        first = next(row for row in results["rows"] if "error" in row)
        lines.append(
            f"{results['failed']} of {len(results['rows'])} rows failed, the first with: {first['error']}"
        )
    return "\n".join(lines)


def rates_table(rates: Sequence[Mapping[str, Any]]) -> str:
    """Figures of a method by rate, for a terminal."""
    names = list(
        dict.fromkeys(n for r in rates for n in r if n not in ("method", "rate", "people", "errors"))
    )
    rows = [("rate", *names)]
    for rate in rates:
        rows.append((f"{rate['rate']:g}", *(number(n, rate[n]) if n in rate else "-" for n in names)))
    lines = aligned(rows)
    lines += [f"{rate['rate']:g}: {error}" for rate in rates for error in rate["errors"]]
    return "\n".join(lines)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells in columns, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def write_docs(results: Mapping[str, Any], work: Path, docs: Path) -> Path:
    """Write `docs`/results.md, its plots and its sheets; pictures of rows are taken from the folder `work`
    where they are. If `work` has none, as beside results in a repository, sheets of before stay. Returns the
    page. Raises UserError without matplotlib."""
    folder = docs / "pictures"
    results = settled_results(results)
    plots, sheets = plot_all(results, folder), draw_sheets(results, work, folder)
    pictures = {*plots.values(), *filter(None, sheets.values())}
    if not any(sheets.values()):
        pictures |= {path.name for name in sheets if (path := folder / f"{PREFIX}{name}.jpg").is_file()}
    with whole(docs / PAGE) as beside:
        beside.write_text(page_of(results, pictures), encoding="utf-8")
    return docs / PAGE


def settled_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results without what few people were learned by yet: `asked` is how many rows there were, `early` how
    many of the protocol are left out or not measured."""
    every = results["rows"]
    rows = settled(every)
    early = sum("error" not in row for row in every if row not in rows) + results.get("left", 0)
    summary = summarise(rows, results["seed"])
    return {**results, "rows": rows, "summary": summary, "asked": len(every), "early": early}


def page_of(results: Mapping[str, Any], pictures: Collection[str]) -> str:
    """`settled_results` as a page in Markdown, with those of its plots and sheets that are `pictures`."""
    import jinja2

    claims = [(claim, compare(results["summary"], claim)) for claim in CLAIMS]
    most = max((entry["photos"] for entry in results["summary"]), default=0)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown of our own numbers and names
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("method_report.md.jinja").render(
        results=results,
        whole=not results["early"] and all(e["people"] == results["people"] for e in results["summary"]),
        claims=claims,
        compared=compared,
        found=findings(results["summary"]),
        verdicts=verdicts,
        changes=costs_of_changes(results["summary"]),
        hours=sum(row.get("seconds", 0) for row in results["rows"]) / 3600,
        most=most,
        tally=tally,
        main=[entry for entry in results["summary"] if entry["photos"] in (0, most)],
        columns=[name for name in COLUMNS if any(name in e["figures"] for e in results["summary"])],
        headings=COLUMNS,
        costs=COSTS,
        enough=ENOUGH,
        kept=kept_of_full(results["summary"]),
        against_full=AGAINST_FULL,
        large=sizes_of("ffhq512-128"),
        shown=lambda names: shown(names, pictures),
        title_of=title_of,
        cell=cell,
    )
    return text.rstrip() + "\n"


def tally(claim: Claim, comparisons: Sequence[Comparison]) -> str:
    """How many of a claim's comparisons agree, and what explains those that do not."""
    counts = Counter(comparison.verdict for comparison in comparisons)
    said = ", ".join(f"{words} {counts[verdict]}" for verdict, words in VERDICTS.items() if counts[verdict])
    against = {comparison.other for comparison in comparisons if comparison.verdict == "does not agree"}
    reasons = [reason for other, reason in claim.why.items() if other in against]
    return " ".join([f"Of {len(comparisons)} compared: {said}.", *reasons])


def verdicts(c: Comparison, comparisons: Sequence[Comparison]) -> str:
    """Of all figures in which an adapter and another's group are compared as in `c`, how many agree, do not
    and are open, as a cell of a table."""
    alike = [o for o in comparisons if (o.other, o.photos, o.anchors) == (c.other, c.photos, c.anchors)]
    counts = Counter(o.verdict for o in alike)
    return " / ".join(str(counts[verdict]) for verdict in VERDICTS)


def shown(names: Sequence[str], files: Collection[str]) -> list[str]:
    """Plots and sheets for a page, of those in `files`."""
    return [f"![{CAPTIONS[name]}](pictures/{PREFIX}{name})" for name in names if f"{PREFIX}{name}" in files]


def compared(c: Comparison) -> str:
    """A comparison as cells of a table."""
    counts = " and ".join(map(str, dict.fromkeys(c.photos)))
    cells = (
        *(TITLES[m] + anchors_of(m, a) for m, a in zip((c.adapter, c.other), c.anchors, strict=True)),
        counts if all(c.photos) else "the one",
        c.name,
        number(c.figure, c.ours),
        number(c.figure, c.theirs),
        signed(c.figure, c.difference) + interval(c.figure, c.low, c.high),
        f"**{c.verdict}**" if c.verdict == "does not agree" else c.verdict,
    )
    return " | ".join(cells)


def kept_of_full(summary: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What adapters learned from the most photos cost and keep, against all weights on the same photos and
    anchors, as cells of a table: how many times fewer numbers and smaller files, the share of held-out
    identity, and differences of the figures in `AGAINST_FULL` in people who have both."""
    most = max((entry["photos"] for entry in summary if entry["method"] == "full"), default=0)
    full = {e["anchors"]: e["figures"] for e in summary if e["method"] == "full" and e["photos"] == most}
    made = []
    for entry in summary:
        if entry["method"] not in KEPT or entry["photos"] != most or entry["anchors"] not in full:
            continue
        theirs, apart = full[entry["anchors"]], entry["differences_full"]
        if not apart:  # nobody has both
            continue
        cells = [title_of(entry)]
        for name in ("parameters", "bytes"):
            ours = entry["figures"][name]["mean"]
            cells.append(f"{theirs[name]['mean'] / ours:.0f}" if ours else "-")
        lost = apart.get("heldout_identity")
        cells.append(
            f"{100 + 100 * lost['mean'] / theirs['heldout_identity']['mean']:.1f} %" if lost else "-"
        )
        for name in AGAINST_FULL:
            value = apart.get(name)
            mean = value and signed(name, value["mean"]) + interval(name, value["low"], value["high"])
            cells.append(mean or "-")
        made.append(cells)
    return made


def sizes_of(preset: str) -> dict[str, Any]:
    """How many numbers full tuning of a preset changes, and how many an adapter of rank 1 has."""
    generator = Generator(PRESETS[preset])
    adapter = sum(tensor.numel() for tensor in trainable_parameters(new_adapter(generator, 1, 1.0)))
    return {"name": preset, "weights": tuned_numbers(generator), "adapter": adapter}
