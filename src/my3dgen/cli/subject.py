"""The options shared by verbs that draw a person, or a face the prior imagines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from my3dgen.cli.verb import Verb

if TYPE_CHECKING:
    from my3dgen.person import Person
    from my3dgen.prior.store import Prior


@dataclass(frozen=True, kw_only=True)
class SubjectVerb(Verb):
    """Whom to draw and where to write."""

    person: Positional[Path | None] = None
    """A person file; without one, a face of the prior."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """File to write."""
    prior: str | None = None
    """Name or folder of the prior; a person's own by default, else mini."""
    seed: int = 0
    """Which face of the prior, or which random draw."""
    size: int | None = None
    """Side of the pictures in pixels; other than the prior's own they are resampled."""
    resolution: int | None = None
    """Side of the volume rendering; above the prior's own it is slower and finer."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    def load(self) -> tuple[Prior, Person | None]:
        """The prior and, if asked for, the person, checked against each other."""
        return load_subject(self.person, self.prior, self.device, self.seed)


@dataclass(frozen=True, kw_only=True)
class AppearanceVerb(SubjectVerb):
    """Which of a person's appearances to draw."""

    anchor: int | None = None
    """One photo's appearance, counted from 0; the mean of all by default."""
    alpha: tuple[str, ...] = ()
    """A mixture such as 0=0.5 3=0.5; weights are divided by their sum."""

    def weights(self) -> dict[int, float] | None:
        """The mixture as numbers. Raises UserError."""
        return parse_weights(self.alpha)


def load_subject(
    person: Path | None, prior: str | None, device: str, seed: int = 0
) -> tuple[Prior, Person | None]:
    """A prior and perhaps a person of it.

    Raises UserError when they do not fit, the device is absent, or what will be drawn has no such seed.
    """
    from my3dgen.cli.device import chosen_device
    from my3dgen.errors import MissingWeightsError, UserError
    from my3dgen.person import Person
    from my3dgen.prior.store import load_prior, prior_folders

    if not 0 <= seed < 2**32:
        raise UserError(f"--seed {seed} is outside 0 to {2**32 - 1}")
    device = chosen_device(device)
    if person is None:
        return load_prior(prior or "mini", device), None
    who = Person.load(person)
    try:
        if prior is None and who.card.prior not in prior_folders():  # a stranger's file opens no folder
            raise MissingWeightsError(who.card.prior)
        on = load_prior(prior or who.card.prior, device)
    except MissingWeightsError:
        if prior is not None:
            raise
        wanted = f"'{who.card.prior}' (sha256 {who.card.prior_sha256[:12]}...)"
        raise MissingWeightsError(
            f"{person}: was made with the prior {wanted}, which is not on this machine; "
            "give its folder with --prior FOLDER or bring it with my3dgen prior import"
        ) from None
    return on, Person.load(person, on)


def parse_weights(words: Sequence[str]) -> dict[int, float] | None:
    """`0=0.5 3=0.5` as numbers, None if empty. Raises UserError."""
    from my3dgen.errors import UserError

    weights: dict[int, float] = {}
    for word in words:
        anchor, _, weight = word.partition("=")
        try:
            weights[int(anchor)] = float(weight)
        except ValueError:
            raise UserError(f"--alpha {word}: write ANCHOR=WEIGHT, such as 3=0.5") from None
    return weights or None
