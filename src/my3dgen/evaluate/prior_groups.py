"""Whether a prior serves all people alike: figures by skin tone, age and sex of the heads.

Groups are thirds (halves for sex) of the factors' own distribution, N(0, 1), not of the heads at hand, so
that they mean the same in every evaluation. A group without heads is left out.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from my3dgen.synthetic.factors import block

THIRD = 0.4307273
"""Quantile of N(0, 1) at two thirds."""


def groups_of(factors: Float[Tensor, "batch factors"]) -> dict[str, dict[str, Bool[Tensor, " batch"]]]:
    """Which heads belong to which group: attribute -> group -> flags."""
    skin, macro = block(factors, "skin")["melanin"], block(factors, "macro")
    return {
        "skin": _thirds(skin, ("light", "medium", "dark")),
        "age": _thirds(macro["age"], ("younger", "middle", "older")),
        "sex": {"feminine": macro["sex"] < 0, "masculine": macro["sex"] >= 0},
    }


def _thirds(values: Tensor, names: tuple[str, str, str]) -> dict[str, Tensor]:
    low, high = values < -THIRD, values >= THIRD
    return dict(zip(names, (low, ~(low | high), high), strict=True))


def by_group(
    factors: Float[Tensor, "batch factors"], figures: Mapping[str, Float[Tensor, " batch"]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """attribute -> group -> count, and of each figure its mean, `difference` from the mean of all heads and
    `error`, the standard error of the group's mean (null for one head)."""
    return {
        attribute: {
            name: {"count": int(flags.sum())} | {key: _compare(v, flags) for key, v in figures.items()}
            for name, flags in groups.items()
            if flags.any()
        }
        for attribute, groups in groups_of(factors).items()
    }


def _compare(values: Tensor, flags: Tensor) -> dict[str, float | None]:
    own = values[flags].double()
    error = float(own.std() / len(own) ** 0.5) if len(own) > 1 else None
    return {
        "mean": float(own.mean()),
        "difference": float(own.mean() - values.double().mean()),
        "error": error,
    }


def worst_group(groups: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The group and figure (higher is better) that fall farthest below the mean of all heads."""
    below = [
        {"attribute": attribute, "group": name, "figure": key, **values, "count": group["count"]}
        for attribute, of in groups.items()
        for name, group in of.items()
        for key, values in group.items()
        if key != "count"
    ]
    return min(below, key=lambda entry: entry["difference"])
