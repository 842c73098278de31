"""Rows of the benchmark to means with their uncertainty, and to differences from methods of reference.

Uncertainty is that of the choice of people: 95 % of the means of people drawn again with replacement
(bootstrap). Differences are paired: each person's row minus that person's reference row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from my3dgen.evaluate.method_protocol import RANKED

DRAWS = 2000
DIGITS = 6
"""After the point, in means and intervals."""
COSTS = ("parameters", "bytes", "seconds", "seconds_photo", "peak_memory_mb")
LOWER = ("perceptual", "floaters", "depth", "bytes", "seconds", "memory", "parameters")

Group = tuple[str, int, int, str]
"""(method, rank, photos, anchors): what a mean over people is of."""


def group_of(row: Mapping[str, Any]) -> Group:
    """The group of a row."""
    return row["method"], row["rank"], row["photos"], row["anchors"]


def figures_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The row's numbers, its key and its table of yaws apart; figures that do not apply are left out."""
    key = ("person", "rank", "photos", "photos_used")
    return {
        name: float(value)
        for name, value in row.items()
        if name not in key and isinstance(value, int | float) and not isinstance(value, bool)
    }


REFERENCES = {"lora": "", "lora-pti": "_pti", "lora-changing": "_changing", "full": "_full"}
"""Methods that others are compared with, adapters at rank 1, and what tells the figures apart."""


def lower_is_better(figure: str) -> bool:
    """Whether less of a figure is better."""
    return any(word in figure for word in LOWER)


def summarise(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """An entry for each group, in the order of the rows; rows with an error are left out.

    `figures` holds `mean`, `low`, `high` and `people` of each figure; `against` is the group compared with,
    lora of rank 1 with the same photos and anchors if there is one, else with the most photos; `differences`
    has the same values of the paired differences (None for the reference itself, or without one).
    `against_pti` and `differences_pti` are the same against lora-pti, those with `_changing` and `_full`
    against lora-changing and full.
    """
    groups: dict[Group, dict[int, dict[str, float]]] = {}
    for row in rows:
        if "error" not in row:
            groups.setdefault(group_of(row), {})[row["person"]] = figures_of(row)
    summary = []
    for group, people in groups.items():
        entry: dict[str, Any] = dict(zip(("method", "rank", "photos", "anchors"), group, strict=True))
        entry["people"] = len(people)
        entry["figures"] = intervals(people, seed)
        for method, suffix in REFERENCES.items():
            reference = reference_of(group, groups, method)
            apart = None if reference is None else intervals(paired(people, groups[reference]), seed)
            entry[f"against{suffix}"], entry[f"differences{suffix}"] = reference and list(reference), apart
        summary.append(entry)
    return summary


def settled(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Without rows of groups that have fewer than half as many people as the largest: other people's means
    would stand beside them."""
    counts: dict[Group, int] = {}
    for row in rows:
        counts[group_of(row)] = counts.get(group_of(row), 0) + ("error" not in row)
    most = max(counts.values(), default=0)
    return [row for row in rows if 2 * counts[group_of(row)] >= most]


def reference_of(group: Group, groups: Mapping[Group, Any], method: str = "lora") -> Group | None:
    """Which group of a method, at rank 1 if it has ranks, a group is compared with.

    A prior has no anchors to learn from, so whatever it searches is compared with anchors in W. The reference
    itself, learned from fewer photos, is compared with that of the most.
    """
    rank = int(method in RANKED)
    same = (method, rank, group[2], "w" if group[0].startswith("prior-") else group[3])
    if same in groups and same != group:
        return same
    others = [other for other in groups if other[:2] == (method, rank) and other != group]
    if same == group:
        others = [other for other in others if other[2] > group[2] and other[3] == group[3]]
    return max(others, key=lambda other: (other[2], other[3] == "w"), default=None)


def paired(
    people: Mapping[int, Mapping[str, float]], others: Mapping[int, Mapping[str, float]]
) -> dict[int, dict[str, float]]:
    """Each person's figures minus the others', where both have them."""
    return {
        person: {
            name: value - others[person][name] for name, value in figures.items() if name in others[person]
        }
        for person, figures in people.items()
        if person in others
    }


def intervals(people: Mapping[int, Mapping[str, float]], seed: int) -> dict[str, dict[str, float | None]]:
    """Mean and 95 % interval of every figure over people; no interval of a single one."""
    names = dict.fromkeys(name for figures in people.values() for name in figures)
    made: dict[str, dict[str, float | None]] = {}
    for name in names:
        values = np.array([figures[name] for figures in people.values() if name in figures])
        low = high = None
        if len(values) > 1:
            rng = np.random.default_rng(seed)
            means = values[rng.integers(len(values), size=(DRAWS, len(values)))].mean(1)
            low, high = (round(float(x), DIGITS) for x in np.quantile(means, (0.025, 0.975)))
        mean = round(float(values.mean()), DIGITS)
        made[name] = {"mean": mean, "low": low, "high": high, "people": len(values)}
    return made
