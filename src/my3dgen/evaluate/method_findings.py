"""What the benchmark found, in sentences and small tables made of its figures alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from my3dgen.evaluate.method_claims import CLAIMS, NAMES, Comparison, compare
from my3dgen.evaluate.method_summary import group_of
from my3dgen.evaluate.method_words import interval, signed

Summary = Sequence[Mapping[str, Any]]
GAINS = {"view30_identity": "identity", "view30_psnr": "PSNR"}


def findings(summary: Summary) -> list[str]:
    """A line for each thing that there are figures for: what rank 1 keeps of what all weights gain, how it
    compares with the prior, with all weights from few and many photos, bent around a photo, and from photos
    between which the person changes."""
    drift = CLAIMS[0]
    (same,) = (claim for claim in CLAIMS if claim.compares == "same photos")
    (bent,) = (claim for claim in CLAIMS if claim.ours == "lora-pti")
    (changing,) = (claim for claim in CLAIMS if claim.ours == "lora-changing")
    return [
        *kept(summary),
        *against(compare(summary, drift), "Unbent it is, against {}, {}.", {"prior-w+": "the prior in W+"}),
        *by_photos([c for c in compare(summary, same) if set(c.anchors) == {"w"}]),
        *against(
            compare(summary, bent),
            "Bent around a photo it is, against {}, {}.",
            {"pti": "the prior bent likewise", "full-pti": "all weights bent likewise"},
        ),
        *against(
            compare(summary, changing),
            "From photos between which the person changes it is, against {}, {}.",
            {"full-changing": "all weights"},
        ),
    ]


def kept(summary: Summary) -> list[str]:
    """Which share of what all weights gain over the prior in W 30 degrees aside an adapter of rank 1 has."""
    groups = {group_of(entry): entry["figures"] for entry in summary}
    most = max((photos for method, _, photos, _ in groups if method == "full"), default=0)
    keys = ("prior-w", 0, most, "w"), ("lora", 1, most, "w"), ("full", 0, most, "w")
    if any(key not in groups for key in keys):
        return []
    prior, lora, full = (groups[key] for key in keys)
    shares = {}
    for figure, name in GAINS.items():
        if all(figure in figures for figures in (prior, lora, full)):
            gain, own = (figures[figure]["mean"] - prior[figure]["mean"] for figures in (full, lora))
            if gain > 0:
                shares[name] = f"{own / gain:.0%} in {name}"
    if not shares:
        return []
    fewer, smaller = (full[n]["mean"] / lora[n]["mean"] for n in ("parameters", "bytes"))
    return [
        f"Of what all weights, tuned on {most} photos, gain over the prior in W 30° aside, LoRA of rank 1 "
        f"has {' and '.join(shares.values())}, with {fewer:.0f} times fewer numbers in a file {smaller:.0f} "
        "times smaller."
    ]


def by_photos(comparisons: Sequence[Comparison]) -> list[str]:
    """How an adapter compares with all weights on the fewest and the most photos."""
    counts = sorted({c.photos[1] for c in comparisons})
    if not counts:
        return []
    said = []
    for count in dict.fromkeys((counts[0], counts[-1])):
        some = [c for c in comparisons if c.photos[1] == count]
        said.append(f"from {count} photo{'' if count == 1 else 's'} {counted(some)}")
    return [f"Against all weights on the same photos it is {', '.join(said)}."]


def against(comparisons: Sequence[Comparison], words: str, others: Mapping[str, str]) -> list[str]:
    """A line for each of `others` (method and how to call it) that was compared."""
    return [
        words.format(name, counted(some))
        for method, name in others.items()
        if (some := [c for c in comparisons if c.other == method])
    ]


def counted(comparisons: Sequence[Comparison]) -> str:
    """In how many figures an adapter is better and worse."""
    verdicts = Counter(c.verdict for c in comparisons)
    count = f"{len(comparisons)} figure{'' if len(comparisons) == 1 else 's'}"
    return f"better in {verdicts['agrees']} and worse in {verdicts['does not agree']} of {count}"


def costs_of_changes(summary: Summary) -> list[list[str]]:
    """What photos between which the person changes cost an adapter and all weights, as cells of a table."""
    (claim,) = (claim for claim in CLAIMS if claim.ours == "lora-changing")
    apart = {
        "lora-changing": [e["differences"] for e in summary if e["method"] == "lora-changing"],
        "full-changing": [e["differences_full"] for e in summary if e["method"] == "full-changing"],
    }
    if not all(some and some[-1] for some in apart.values()):
        return []
    both = [some[-1] for some in apart.values()]
    return [
        [
            NAMES[figure],
            *(
                signed(figure, each[figure]["mean"])
                + interval(figure, each[figure]["low"], each[figure]["high"])
                for each in both
            ),
        ]
        for figure in claim.figures
        if all(figure in each for each in both)
    ]
