"""docs/performance.md and its plots, from benches/results and what git remembers of it.

my3dgen bench render --out benches/results/render.json      # likewise people, personalize, cpu
python scripts/performance_page.py
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parent.parent
RESULTS, DOCS = ROOT / "benches" / "results", ROOT / "docs"
KINDS = ("render", "people", "personalize", "cpu")
PRESET = "ffhq512-128"
FAST = PRESET + " {}, captured bf16"
BACKWARD = f"{PRESET} volume backward, eager bf16"
STEP = f"{PRESET} training step, whole pictures"
WHOLE = "{} personalization of 50 photos"
Where = tuple[str, str, int]
"""A row: its bench, name and batch."""
IMAGES, ONE = ("render", FAST.format("image"), 16), ("render", FAST.format("image"), 1)
VOLUMES = ("render", FAST.format("volume"), 16)
FOUR, SIXTEEN = ("personalize", STEP, 4), ("personalize", STEP, 16)
GOALS: tuple[tuple[str, str, str, Where, str], ...] = (
    ("pictures/s, batch 16", "93.6", ">= 500", IMAGES, "images_per_s"),
    ("GB at most, batch 16", "67", "<= 8", IMAGES, "peak_memory_gb"),
    ("ms a picture, batch 1", "24.8", "<= 5", ONE, "median_ms"),
    ("ms a new view of planes that are kept", "", "<= 2.5", ("render", FAST.format("view"), 1), "median_ms"),
    ("ms an image in the renderer, batch 16", "5.6", "<= 0.6", VOLUMES, "per_image_ms"),
    ("pictures/s in training, batch 4", "25.8", ">= 150", FOUR, "images_per_s"),
    ("GB at most in training, batch 4", "34.6", "<= 12", FOUR, "peak_memory_gb"),
    ("pictures/s in training, batch 16", "", ">= 150", SIXTEEN, "images_per_s"),
    ("GB at most in training, batch 16", "", "<= 12", SIXTEEN, "peak_memory_gb"),
    ("s from 50 photos to `mini`", "", "<= 30", ("personalize", WHOLE.format("mini"), 50), "seconds"),
    ("s from 50 photos to `ffhq512-128`", "", "<= 120", ("personalize", WHOLE.format(PRESET), 50), "seconds"),
)
"""In words, the official implementation's figure, what was aimed at, and which figure of which row."""
RATIOS: tuple[tuple[str, str, Where, Where], ...] = (
    ("backward over forward of the renderer", "<= 3", ("render", BACKWARD, 16), VOLUMES),
    (
        "speed of 16 people in a batch over that of one",
        ">= 0.9",
        ("people", FAST.format("image, 1 person"), 16),
        ("people", FAST.format("image, 16 people"), 16),
    ),
)
"""In words, what was aimed at, and the rows whose times make the ratio."""
HISTORY: tuple[tuple[Where, str, str], ...] = (
    (IMAGES, "images_per_s", "images/s, batch 16"),
    (ONE, "median_ms", "ms, batch 1"),
    (VOLUMES, "per_image_ms", "ms an image in the renderer"),
    (FOUR, "images_per_s", "images/s in training"),
)
STAGES = {"image": "o", "planes": "s", "volume": "^", "superresolution": "D", "view": "v"}
ROOFLINE = "pictures/roofline.png"


def main() -> None:
    """Write the page and its plot."""
    found = {kind: json.loads((RESULTS / f"{kind}.json").read_text()) for kind in KINDS if has(kind)}
    if not found:
        raise SystemExit(f"{RESULTS} holds no results; run my3dgen bench with --out first")
    text = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    parts = {f"table:{kind}": table(found[kind]) if kind in found else "" for kind in KINDS}
    parts |= {f"machine:{kind}": told(found[kind]) if kind in found else "Not measured." for kind in KINDS}
    parts["goals"] = goals(found)
    parts["roofline"] = roofline(found["render"]) if "render" in found else ""
    parts["history"] = history()
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
    (DOCS / "performance.md").write_text(text, encoding="utf-8")


def has(kind: str) -> bool:
    """Whether a bench has left results."""
    return (RESULTS / f"{kind}.json").is_file()


def told(result: dict[str, Any]) -> str:
    """Where and with what a bench ran."""
    best = result["ceilings"]
    products = ", ".join(f"{rate:.3g} in {kind}" for kind, rate in best["matmul_tflop_s"].items())
    driver = f", driver {result['driver']}" if result["driver"] else ""
    commit = f", commit {result['commit'][:12]}" if result["commit"] else ""
    stopped = "" if result["finished"] else " The bench was stopped before its end: rows are missing."
    return (
        f"{result['device']}{driver}, torch {result['torch']}{commit}. At best it copied "
        f"{best['copy_gb_s']:.4g} GB/s and multiplied {products} (TFLOP/s).{stopped}"
    )


def table(result: dict[str, Any]) -> str:
    """All rows of a bench as Markdown."""
    lines = [
        "| work | batch | ms | spread | images/s | peak GB | dB against fp32 | of product | of copy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        memory = row["peak_memory_mb"]
        lines.append(
            f"| {row['name']} | {row['batch']} | {row['median_ms']:.4g} | {row['spread_ms']:.2g} "
            f"| {row['images_per_s']:.4g} | {number(memory and memory / 1e3, '.2f')} "
            f"| {number(row['psnr_vs_reference'], '.0f')} | {number(row['matmul_fraction'], '.0%')} "
            f"| {number(row['copy_fraction'], '.0%')} |"
        )
    return "\n".join(lines)


def goals(found: dict[str, Any]) -> str:
    """What was aimed at and what was reached, as Markdown."""
    lines = ["| | official, H100 | goal | here |", "|---|---|---|---|"]
    for words, official, goal, where, figure in GOALS:
        lines.append(f"| {words} | {official} | {goal} | {number(figure_of(found, where, figure), '.3g')} |")
    for words, goal, *pair in RATIOS:
        over, under = (figure_of(found, where, "median_ms") for where in pair)
        lines.append(f"| {words} | | {goal} | {number(over and under and over / under, '.3g')} |")
    return "\n".join(lines)


def figure_of(found: dict[str, Any], where: Where, figure: str) -> float | None:
    """A row's figure, perhaps in another unit; None without such a row."""
    kind, *wanted = where
    for row in found[kind]["rows"] if kind in found else ():
        if [row["name"], row["batch"]] == wanted:
            match figure:
                case "per_image_ms":
                    return row["median_ms"] / row["batch"]
                case "seconds":
                    return row["median_ms"] / 1e3
                case "peak_memory_gb":
                    return row["peak_memory_mb"] and row["peak_memory_mb"] / 1e3
            return row[figure]
    return None


def number(value: float | None, form: str) -> str:
    """Formatted, or nothing."""
    return "" if value is None else format(value, form)


def roofline(result: dict[str, Any]) -> str:
    """A plot of how near each stage is to what the chip can copy and multiply; the link to it."""
    best = result["ceilings"]
    peak, copied = best["matmul_tflop_s"]["bf16"], best["copy_gb_s"] / 1e3
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    shown: set[str] = set()
    for row in result["rows"]:
        name = row["name"]
        if not (name.startswith(PRESET) and name.endswith("captured bf16")):
            continue
        stage = name.removeprefix(f"{PRESET} ").split(",")[0]
        intensity = row["gflop"] * row["batch"] / row["least_mb"] * 1e3
        speed = row["gflop"] * row["images_per_s"] / 1e3
        label = None if stage in shown else stage  # a legend's line each
        shown.add(stage)
        axes.scatter(intensity, speed, marker=STAGES[stage], s=20 + 8 * row["batch"],
                     color=f"C{list(STAGES).index(stage)}", label=label)  # fmt: skip
        axes.annotate(row["batch"], (intensity, speed), fontsize=7, ha="center", xytext=(0, -14),
                      textcoords="offset points")  # fmt: skip
    ridge = peak / copied  # right of it products are the bound, left of it the copies
    xs = [ridge / 8, ridge, max(2 * axes.dataLim.x1, 8 * ridge)]
    axes.plot(xs, [min(peak, x * copied) for x in xs], color="black", linewidth=1)
    axes.set(xscale="log", yscale="log", xlim=(xs[0], xs[-1]), xlabel="operations a byte that must be moved",
             ylabel="TFLOP/s", title=f"{PRESET}, bf16, {result['device']}")  # fmt: skip
    axes.legend(loc="lower right", fontsize=8, title="batch below each", title_fontsize=8)
    (DOCS / ROOFLINE).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(DOCS / ROOFLINE, dpi=110)
    plt.close(figure)
    return f"![Each stage against what the chip can copy and multiply]({ROOFLINE})"


def history() -> str:
    """Some figures at every commit that left results."""
    lines = ["| commit | " + " | ".join(entry[-1] for entry in HISTORY) + " |", "|---" * 5 + "|"]
    before: list[str] = []
    for version in reversed(versions()):
        cells = [cell(where, figure, version) for where, figure, _ in HISTORY]
        if any(cells) and cells != before:  # other results of the same folder may have changed
            before = cells
            lines.append(f"| {version[:7]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def versions() -> list[str]:
    """Commits that changed results, the newest first, and the working tree."""
    told = git("log", "--format=%H", "--", str(RESULTS.relative_to(ROOT)))
    return ["now", *told.split()]


def cell(where: Where, figure: str, version: str) -> str:
    """A figure as it was at a version; empty if it was not there, or not changed by it."""
    kind, path = where[0], RESULTS / f"{where[0]}.json"
    if version == "now":
        if not git("status", "--porcelain", "--", str(path)):
            return ""  # told by its commit
        text = path.read_text() if path.is_file() else ""
    else:
        text = git("show", f"{version}:{path.relative_to(ROOT)}")
    if not text:
        return ""
    return number(figure_of({kind: json.loads(text)}, where, figure), ".3g")


def git(*words: str) -> str:
    """What git says; nothing where it fails."""
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    main()
