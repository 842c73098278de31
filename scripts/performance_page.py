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
HISTORY = (
    ("render", "ffhq512-128 image, captured bf16", 16, "images_per_s", "images/s, batch 16"),
    ("render", "ffhq512-128 image, captured bf16", 1, "median_ms", "ms, batch 1"),
    ("render", "ffhq512-128 volume, captured bf16", 16, "per_image_ms", "ms an image in the renderer"),
    ("personalize", "ffhq512-128 training step, whole pictures", 4, "images_per_s", "images/s in training"),
)
STAGES = {"image": "o", "planes": "s", "volume": "^", "superresolution": "D", "view": "v"}
PRESET = "ffhq512-128"
ROOFLINE = "pictures/roofline.png"


def main() -> None:
    """Write the page and its plot."""
    found = {kind: json.loads((RESULTS / f"{kind}.json").read_text()) for kind in KINDS if has(kind)}
    if not found:
        raise SystemExit(f"{RESULTS} holds no results; run my3dgen bench with --out first")
    text = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    parts = {f"table:{kind}": table(found[kind]) if kind in found else "" for kind in KINDS}
    parts |= {f"machine:{kind}": told(found[kind]) if kind in found else "Not measured." for kind in KINDS}
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


def number(value: float | None, form: str) -> str:
    """Formatted, or nothing."""
    return "" if value is None else format(value, form)


def roofline(result: dict[str, Any]) -> str:
    """A plot of how near each stage is to what the chip can copy and multiply; the link to it."""
    best = result["ceilings"]
    peak, copied = best["matmul_tflop_s"]["bf16"], best["copy_gb_s"] / 1e3
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for row in result["rows"]:
        name = row["name"]
        if not (name.startswith(PRESET) and name.endswith("captured bf16")):
            continue
        stage = name.removeprefix(f"{PRESET} ").split(",")[0]
        intensity = row["gflop"] * row["batch"] / row["least_mb"] * 1e3
        speed = row["gflop"] * row["images_per_s"] / 1e3
        axes.scatter(intensity, speed, marker=STAGES.get(stage, "x"), s=20 + 8 * row["batch"], color="C0")
        axes.annotate(f"{stage}, {row['batch']}", (intensity, speed), fontsize=7, xytext=(6, -3),
                      textcoords="offset points")  # fmt: skip
    ridge = peak / copied  # right of it products are the bound, left of it the copies
    xs = [ridge / 8, ridge, max(2 * axes.dataLim.x1, 8 * ridge)]
    axes.plot(xs, [min(peak, x * copied) for x in xs], color="black", linewidth=1)
    axes.set(xscale="log", yscale="log", xlim=(xs[0], xs[-1]), xlabel="operations a byte that must be moved",
             ylabel="TFLOP/s", title=f"{PRESET}, bf16, {result['device']}")  # fmt: skip
    (DOCS / ROOFLINE).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(DOCS / ROOFLINE, dpi=110)
    plt.close(figure)
    return f"![Each stage against what the chip can copy and multiply]({ROOFLINE})"


def history() -> str:
    """Some figures at every commit that left results."""
    lines = ["| commit | " + " | ".join(entry[-1] for entry in HISTORY) + " |", "|---" * 5 + "|"]
    for version in reversed(versions()):
        cells = [cell(*entry[:-1], version) for entry in HISTORY]
        if any(cells):
            lines.append(f"| {version[:7]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def versions() -> list[str]:
    """Commits that changed results, the newest first, and the working tree."""
    told = git("log", "--format=%H", "--", str(RESULTS.relative_to(ROOT)))
    return ["now", *told.split()]


def cell(kind: str, name: str, batch: int, figure: str, version: str) -> str:
    """A figure as it was at a version; empty if it was not there, or not changed by it."""
    path = RESULTS / f"{kind}.json"
    if version == "now":
        if not git("status", "--porcelain", "--", str(path)):
            return ""  # told by its commit
        text = path.read_text() if path.is_file() else ""
    else:
        text = git("show", f"{version}:{path.relative_to(ROOT)}")
    if not text:
        return ""
    for row in json.loads(text)["rows"]:
        if row["name"] == name and row["batch"] == batch:
            value = row["median_ms"] / batch if figure == "per_image_ms" else row[figure]
            return f"{value:.3g}"
    return ""


def git(*words: str) -> str:
    """What git says; nothing where it fails."""
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    main()
