"""The paper's claims put to the benchmark's figures: does each agree, with what certainty?

A claim is a list of comparisons, each of an adapter of rank 1 with another method in one figure. A comparison
agrees when the 95 % interval of the paired difference lies on the claimed side of zero, does not agree when
it lies on the other, and is open when it holds zero, or when fewer than `ENOUGH` people have both, for then
the interval is too narrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from my3dgen.evaluate.method_summary import REFERENCES, group_of, lower_is_better

ENOUGH = 5
Verdict = Literal["agrees", "does not agree", "open"]

NAMES: dict[str, str] = {
    "heldout_psnr": "PSNR of held-out photos",
    "heldout_ssim": "SSIM of held-out photos",
    "heldout_perceptual": "perceptual distance of held-out photos",
    "heldout_identity": "identity of held-out photos",
    "views_psnr": "PSNR of unseen views",
    "views_ssim": "SSIM of unseen views",
    "views_perceptual": "perceptual distance of unseen views",
    "views_identity": "identity of unseen views",
    "view30_psnr": "PSNR 30° aside",
    "view30_perceptual": "perceptual distance 30° aside",
    "view30_identity": "identity 30° aside",
    "view45_identity": "identity 45° aside",
    "samples_identity": "identity of samples",
    "samples_diversity": "diversity of samples",
    "interpolation_least": "least identity on the way between photos",
    "floaters": "floaters",
    "depth_error": "error of the depth",
    "bytes": "bytes on disk",
}


@dataclass(frozen=True)
class Claim:
    """What the paper says, and where to look."""

    title: str
    words: str
    others: tuple[str, ...]
    """Methods that an adapter shall be better than."""
    figures: tuple[str, ...]
    key: str
    """The figure that tells most."""
    why: Mapping[str, str] = field(default_factory=dict)
    """What explains comparisons with another method that do not agree, where there are any."""
    ours: str = "lora"
    """The adapter as it is, bent around each photo, or learned from photos that contradict each other."""
    compares: Literal["most photos", "same photos", "fewer photos"] = "most photos"
    """Both at their most photos, at each number that both have, or the adapter at its most with fewer."""
    pictures: tuple[str, ...] = ()
    """Plots and sheets that show it, as `my3dgen.evaluate.method_report` names them."""


CLAIMS = (
    Claim(
        "Identity is kept where the prior drifts",
        "A personal adapter keeps the person in inversion and in views that the photo does not show; the "
        "pretrained prior, even bent around that one photo, drifts.",
        ("prior-w", "prior-w+", "pti"),
        (
            *("heldout_psnr", "heldout_ssim", "heldout_perceptual", "heldout_identity"),
            *("view30_psnr", "view30_perceptual", "view30_identity"),
            *("views_psnr", "views_ssim", "views_perceptual", "views_identity", "view45_identity"),
            *("floaters", "depth_error"),
        ),
        key="view30_identity",
        why={
            "pti": "PTI is fitted to the very photo that it is asked for, an unbent adapter only chooses "
            "among the person's looks: nearest to the photo PTI is nearer, and light, gaze and expression "
            "that it caught show from other sides, too. What compares with it is the adapter bent likewise, "
            "below."
        },
        pictures=("yaw.png", "views.jpg", "photos.jpg"),
    ),
    Claim(
        "Bent around one photo, an adapter still knows the others",
        "Pivotal tuning of the person's adapter meets a photo as nearly as that of all weights of the prior, "
        "and other views better: what the photo does not show comes from the others.",
        ("prior-w+", "pti", "lora", "full", "full-pti"),
        (
            *("heldout_psnr", "heldout_identity", "view30_psnr", "view30_perceptual", "view30_identity"),
            *("views_psnr", "views_perceptual", "views_identity", "view45_identity"),
            *("floaters", "depth_error"),
        ),
        key="view30_identity",
        why={
            "pti": "All numbers of the prior, bent alone, come a little nearer to the very photo in PSNR "
            "than the few of an adapter do.",
            "lora": "Bending fits a single view; depth and floaters, which that view hardly shows, become a "
            "little worse than without.",
            "full": "All weights that are not bent have had the room that rank 1 lacks (next claim). Bending "
            "makes up for it in the photo and near it, the less the farther the view turns.",
            "full-pti": "What all weights have ahead of rank 1 they keep when both are bent.",
        },
        ours="lora-pti",
    ),
    Claim(
        "It does not overfit as full tuning does",
        "Tuning all weights on the same photos leaves floaters and wrong shapes in other views; the few "
        "numbers of an adapter can't.",
        ("full",),
        (
            *("heldout_identity", "view30_psnr", "view30_perceptual", "view30_identity"),
            *("views_psnr", "views_perceptual", "views_identity", "floaters", "depth_error"),
        ),
        key="view30_identity",
        why={
            "full": "Part of what rank 1 lacks is room: more of it comes nearer (section 8), though the last "
            "doubling no more. From few photos all weights do overfit, with more floaters and wrong depth; "
            "what they gain from many they keep in other views. Hair, clothes and skin that change between "
            "photos do not turn that round (next claim); wrong light, or things that the prior does not "
            "know, were not tried."
        },
        compares="same photos",
        pictures=("fewer.jpg",),
    ),
    Claim(
        "Nor where photos contradict each other (a test of ours)",
        "Hair, clothes, skin and weight change between the photos of years. Few numbers keep "
        "what such photos have in common; all weights learn what they differ in, too.",
        ("full-changing",),
        (
            *("heldout_psnr", "heldout_perceptual", "heldout_identity"),
            *("view30_psnr", "view30_perceptual", "view30_identity"),
            *("views_psnr", "views_perceptual", "views_identity", "floaters", "depth_error"),
        ),
        key="view30_identity",
        why={
            "full-changing": "Such photos cost rank 1 no less than all weights (table), in identity of "
            "unseen views rather more. Every photo has an anchor of its own, which seems to take up what "
            "differs: samples of the alpha-space become more diverse, by much and with either."
        },
        ours="lora-changing",
        pictures=("changing.jpg",),
    ),
    Claim(
        "A few photos are better than one",
        "The more photos an adapter learns from, the nearer it comes to the person in photos and views that "
        "it has not seen.",
        ("lora",),
        (
            *("heldout_psnr", "heldout_perceptual", "heldout_identity"),
            *("views_psnr", "views_perceptual", "views_identity"),
        ),
        key="views_identity",
        compares="fewer photos",
        pictures=("photos.png",),
    ),
    Claim(
        "New appearances without touching the weights again",
        "Samples of the person's alpha-space, and ways between photos, are still the person. (Editing is not "
        "measured here.)",
        ("prior-w", "prior-w+", "full"),
        ("samples_identity", "interpolation_least"),
        key="samples_identity",
        why={"full": "From many photos all weights draw the person a little nearer, so here, too."},
        pictures=("samples.jpg", "interpolation.jpg"),
    ),
    Claim(
        "What is learned is the person",
        "With another person's adapter, on the same anchors, the likeness is lost: it is in the adapter, not "
        "in the anchors alone.",
        ("control",),
        ("heldout_psnr", "heldout_identity", "views_identity", "samples_identity"),
        key="heldout_identity",
    ),
    Claim(
        "A small file is enough",
        "An adapter of rank 1 has far fewer numbers than the generator, about a hundredth on the paper's "
        "larger one, and needs as much less room.",
        ("full",),
        ("bytes",),
        key="bytes",
        pictures=("rank.png",),
    ),
)


@dataclass(frozen=True)
class Comparison:
    """One figure of an adapter of rank 1 against another method's."""

    adapter: str
    """`lora`, `lora-pti` or `lora-changing`."""
    other: str
    photos: tuple[int, int]
    """The adapter's and the other's, and so the anchors."""
    anchors: tuple[str, str]
    figure: str
    ours: float
    theirs: float
    difference: float
    """The adapter's minus the other's, mean over people who have both."""
    low: float | None
    high: float | None
    verdict: Verdict

    @property
    def name(self) -> str:
        """The figure in words."""
        return NAMES[self.figure]


def compare(summary: Sequence[Mapping[str, Any]], claim: Claim) -> list[Comparison]:
    """The comparisons of a claim that the results have figures for."""
    by_group = {group_of(entry): entry for entry in summary}
    made, suffix = [], REFERENCES[claim.ours]
    for other in claim.others:
        entries = [e for e in summary if e["method"] == other and e.get(f"against{suffix}") is not None]
        entries = [e for e in entries if e["rank"] <= 1]
        for entry in in_question(entries, claim, suffix):
            reference = by_group[tuple(entry[f"against{suffix}"])]
            differences = entry[f"differences{suffix}"] or {}
            for figure in claim.figures:
                if figure not in differences:
                    continue
                apart = differences[figure]
                made.append(
                    Comparison(
                        adapter=claim.ours,
                        other=other,
                        photos=(reference["photos"], entry["photos"]),
                        anchors=(reference["anchors"], entry["anchors"]),
                        figure=figure,
                        ours=reference["figures"][figure]["mean"],
                        theirs=entry["figures"][figure]["mean"],
                        difference=-apart["mean"],
                        low=None if apart["high"] is None else -apart["high"],
                        high=None if apart["low"] is None else -apart["low"],
                        verdict=judge(figure, apart),
                    )
                )
    return made


def in_question(
    entries: Sequence[Mapping[str, Any]], claim: Claim, suffix: str
) -> Sequence[Mapping[str, Any]]:
    """Those of a method's entries that a claim is about, by photos and anchors of their references."""
    match claim.compares:
        case "same photos":
            return [e for e in entries if list(e[f"against{suffix}"][2:]) == [e["photos"], e["anchors"]]]
        case "fewer photos":
            return [e for e in entries if e[f"against{suffix}"][2] > e["photos"]]
        case "most photos":
            return sorted(entries, key=lambda e: (e["photos"], e["anchors"] == "w"))[-1:]


def judge(figure: str, apart: Mapping[str, Any]) -> Verdict:
    """Whether the adapter is better, from the interval of the other's figure minus the adapter's."""
    low, high = apart["low"], apart["high"]
    if apart["people"] < ENOUGH or low is None or high is None or low <= 0 <= high:
        return "open"
    others_have_more = low > 0
    return "agrees" if others_have_more == lower_is_better(figure) else "does not agree"
