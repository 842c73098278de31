"""The benchmark's plots: identity over yaw, quality over photos and over rank, and against bytes on disk."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from my3dgen.errors import UserError
from my3dgen.evaluate.method_claims import NAMES
from my3dgen.evaluate.method_protocol import CHANGING
from my3dgen.output import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "prior-w": "#8c8c8c",
    "prior-w+": "#4d4d4d",
    "pti": "#cc8400",
    "full": "#b2182b",
    "full-pti": "#f4a582",
    "full-changing": "#67001f",
    "lora": "#2166ac",
    "lora-pti": "#41a5d6",
    "lora-int8": "#1b7837",
    "lora-small": "#7fbf7b",
    "lora-placed": "#1b9e77",
    "lora-changing": "#0b2f5c",
    "control": "#762a83",
}
TITLES = {
    "prior-w": "prior, W",
    "prior-w+": "prior, W+",
    "pti": "prior, PTI",
    "full": "all weights",
    "full-pti": "all weights, PTI",
    "full-changing": "all weights, changing",
    "lora": "LoRA",
    "lora-pti": "LoRA, PTI",
    "lora-int8": "LoRA, int8",
    "lora-small": "LoRA, cut",
    "lora-placed": "LoRA, placed",
    "lora-changing": "LoRA, changing",
    "control": "another's LoRA",
}
PREFIX = "method_"
"""Of the files of plots and sheets."""
SHADES = 256
"""Colours kept in a plot's file; lines and letters need no more."""
NOT_OVER_YAW = ("lora-int8", "lora-small", *CHANGING)
"""Methods whose lines would lie on another's, or that learned from other photos."""
OVER_PHOTOS = ("heldout_identity", "views_psnr", "views_perceptual", "views_identity")
OVER_RANK = ("heldout_psnr", "heldout_identity", "views_psnr", "views_identity")
Entry = Mapping[str, Any]


def check_plots() -> None:
    """Raise UserError, with the remedy, unless plots can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("plots need matplotlib; install it with: pip install 'my3dgen[report]'")


def title_of(entry: Entry) -> str:
    """A method in words, with its rank and, if they are not in W, its anchors."""
    rank = f", rank {entry['rank']}" if entry["rank"] else ""
    return TITLES[entry["method"]] + rank + anchors_of(entry["method"], entry["anchors"])


def anchors_of(method: str, anchors: str) -> str:
    """What tells a method's anchors, if it has some and they are not in W."""
    return ", W+ anchors" if anchors == "w+" and not method.startswith("prior-") else ""


def leading(summary: Sequence[Entry]) -> list[Entry]:
    """One entry a method: rank 1, most photos, W before W+."""
    best: dict[str, Entry] = {}
    for entry in summary:
        if entry["rank"] > 1:
            continue
        now = best.get(entry["method"])
        if now is None or _rank_of(entry) > _rank_of(now):
            best[entry["method"]] = entry
    return list(best.values())


def _rank_of(entry: Entry) -> tuple[int, bool]:
    return entry["photos"], entry["anchors"] == "w"


def plot_all(results: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Write the plots that the results have figures for; name -> file name."""
    check_plots()
    summary = results["summary"]
    figures = {
        "yaw": over_yaw(results),
        "photos": over_photos(summary),
        "rank": over_rank(summary),
        "bytes": against_bytes(summary),
    }
    names = {}
    for name, figure in figures.items():
        if figure is not None:
            names[name] = f"{PREFIX}{name}.png"
            with whole(folder / names[name]) as beside:
                _save(figure, beside)
    return names


def _save(figure: Figure, path: Path) -> None:
    """As PNG in few colours, which take a third of the bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150, format="png")
    with Image.open(drawn) as picture:
        few = picture.convert("RGB").quantize(SHADES)
        few.save(path, format="png", optimize=True)


def over_yaw(results: Mapping[str, Any]) -> Figure | None:
    """Identity and PSNR against the truth, from every yaw; the frontal view is the one inverted."""
    groups = [entry for entry in leading(results["summary"]) if entry["method"] not in NOT_OVER_YAW]
    if not groups:
        return None
    figure, axes = _panels(2)
    for axis, name, label in zip(
        axes, ("identity", "psnr"), ("identity", "PSNR of the head, dB"), strict=True
    ):
        for entry in groups:
            rows = [row for row in results["rows"] if "error" not in row and _same(row, entry)]
            # a yaw may be missing where a person's true view was no usable photo
            yaws = sorted({int(yaw) for row in rows for yaw in row["by_yaw"]})
            means = [_mean([row["by_yaw"].get(str(yaw), {}).get(name) for row in rows]) for yaw in yaws]
            colour = COLOURS[entry["method"]]
            axis.plot(yaws, means, "o-", color=colour, label=title_of(entry), markersize=3.5)
        axis.set_xticks(results["protocol"]["yaws"])
        axis.set_xlabel("yaw of the view, degrees")
        axis.set_ylabel(label)
    _legend(figure, axes[0])
    return figure


def over_photos(summary: Sequence[Entry]) -> Figure | None:
    """Quality over the number of photos, for methods that have several."""
    series = _series([e for e in summary if e["photos"]], "photos")
    return _lines(series, OVER_PHOTOS, "photos", "photos learned from") if series else None


def over_rank(summary: Sequence[Entry]) -> Figure | None:
    """Quality over the adapter's rank, at the most photos."""
    lora = [e for e in summary if e["method"] == "lora"]
    most = max((e["photos"] for e in lora), default=0)
    series = _series([e for e in lora if e["photos"] == most], "rank")
    return _lines(series, OVER_RANK, "rank", "rank of the adapter") if series else None


def against_bytes(summary: Sequence[Entry]) -> Figure | None:
    """What must be kept for a person, and the likeness it buys in unseen views."""
    entries = [e for e in summary if "views_identity" in e["figures"]]
    most = max((e["photos"] for e in entries), default=0)
    # what learned from other photos has its own table
    shown = [e for e in entries if e["photos"] in (0, most) and e["method"] not in CHANGING]
    if len(shown) < 2:
        return None
    figure, (axis,) = _panels(1)
    for entry in sorted(shown, key=lambda e: e["figures"]["bytes"]["mean"]):
        size, quality = (entry["figures"][name] for name in ("bytes", "views_identity"))
        marker = "s" if entry["anchors"] == "w+" else "o"
        axis.errorbar(
            size["mean"],
            quality["mean"],
            _bars([quality]),
            fmt=marker,
            color=COLOURS[entry["method"]],
            alpha=0.45 + 0.55 / max(1, entry["rank"]),
            capsize=2,
            label=title_of(entry),
        )
    axis.set_xscale("log")
    axis.set_xlabel("bytes on disk")
    axis.set_ylabel(NAMES["views_identity"])
    figure.set_size_inches(8, 3.6)
    figure.legend(fontsize=8, frameon=False, loc="outside right upper")
    return figure


Series = dict[tuple[Any, ...], list[Entry]]


def _series(entries: Sequence[Entry], over: str) -> Series:
    """What else tells entries apart -> entries in rising order, of those with more than one."""
    others = [name for name in ("method", "rank", "photos", "anchors") if name != over]
    made: Series = {}
    for entry in sorted(entries, key=lambda e: e[over]):
        made.setdefault(tuple(entry[name] for name in others), []).append(entry)
    return {key: some for key, some in made.items() if len(some) > 1}


def _lines(series: Series, names: Sequence[str], over: str, label: str) -> Figure:
    figure, axes = _panels(len(names))
    ticks = sorted({entry[over] for entries in series.values() for entry in entries})
    for axis, name in zip(axes, names, strict=True):
        for place, entries in enumerate(series.values()):
            first = entries[0]
            values = [entry["figures"][name] for entry in entries]
            axis.errorbar(
                # beside each other, for the intervals overlap
                [entry[over] * 1.04 ** (place - (len(series) - 1) / 2) for entry in entries],
                [value["mean"] for value in values],
                _bars(values),
                fmt="o--" if first["anchors"] == "w+" else "o-",
                color=COLOURS[first["method"]],
                capsize=2,
                markersize=3.5,
                label=title_of(first if over != "rank" else {**first, "rank": 0}),
            )
        axis.set_xscale("log")
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel(label)
        axis.set_title(NAMES[name], fontsize=9)
    _legend(figure, axes[0])
    return figure


def _legend(figure: Figure, axis: Axes) -> None:
    """One for all panels, below them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, ncols=5, loc="outside lower center")


def _bars(values: Sequence[Mapping[str, float | None]]) -> list[list[float]] | None:
    """Lengths of the intervals below and above the means; None where there are none."""
    bars: list[list[float]] = [[], []]
    for value in values:
        mean, low, high = value["mean"], value["low"], value["high"]
        if mean is None or low is None or high is None:
            return None
        bars[0].append(max(0.0, mean - low))
        bars[1].append(max(0.0, high - mean))
    return bars


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    across = 2 if count in (2, 4) else 1
    down = -(-count // across)
    figure = Figure(figsize=(4.2 * across, 3.1 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def _same(row: Entry, entry: Entry) -> bool:
    return all(row[name] == entry[name] for name in ("method", "rank", "photos", "anchors"))


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan
