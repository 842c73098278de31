"""What a reader of the demo's report should know before believing its figures."""

from collections.abc import Mapping
from typing import Any

from my3dgen.evaluate.metrics import LOWER_IS_BETTER

NAMES = {
    "psnr": "head PSNR",
    "psnr_image": "PSNR of the whole picture",
    "perceptual": "perceptual distance",
    "identity": "identity",
}


def notes_on(report: Mapping[str, Any]) -> list[str]:
    """Plain sentences about a report's setting, and about every figure on which personalising lost."""
    notes = [
        "The person does not exist: every photo is a rendering of a procedural head. The figures compare "
        "methods with each other; they do not say how real photographs would fare.",
        f"The prior '{report['prior']['name']}' decides how sharp anything can be. Ours was trained on "
        "synthetic heads of the same kind, but never on this person. Read its card: my3dgen prior show "
        f"{report['prior']['name']}.",
        "Identity separates synthetic heads less than real faces, since a face network finds them all "
        "alike: compare the order of the methods, not the value with a limit.",
        "One person, one album, one seed. Differences of a few tenths of a decibel mean little.",
    ]
    lost = lost_figures(report)
    if lost:
        notes.append(
            f"Personalising did not always help: the prior alone was nearer in {', '.join(lost)}. The prior "
            "may use all of W; a person's alpha-space holds mixtures of the learned photos only, so an "
            "expression or a light that none of them shows is out of its reach."
        )
    else:
        notes.append("The personalised generator was nearer than the prior alone in every figure above.")
    if not report["prior"]["directions"]:
        notes.append(
            "There is no smile above because this prior has no edit directions; my3dgen prior directions "
            "finds some."
        )
    return notes


def lost_figures(report: Mapping[str, Any]) -> list[str]:
    """Figures in which `prior` beats `lora`, in words."""
    parts = {"heldout": "on held-out photos", "views": "in unseen views"}
    prior, lora = report["methods"]["prior"], report["methods"]["lora"]
    return [
        f"{NAMES[figure]} {words}"
        for part, words in parts.items()
        for figure in NAMES
        if (lora[part][figure] > prior[part][figure]) == (figure in LOWER_IS_BETTER)
    ]
