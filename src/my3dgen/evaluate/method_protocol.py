"""What the benchmark of methods asks: whom, how they are seen, and how each method works.

A row is one person reproduced by one method from so many photos. Methods:

- `prior-w`, `prior-w+`: the frozen prior, photos inverted in W or W+.
- `pti`: the prior's inversion, then all weights tuned on each photo by itself (no album, so 0 photos).
- `full`: all weights tuned on the album; `lora`: an adapter of a rank. Both search the alpha-space of the
  anchors, which are the album's photos inverted in W or W+.
- `full-pti`: as `full`, then all weights tuned on each photo by itself; `lora-pti`: as `lora`, then the
  adapter.
- `lora-int8`: the adapter and anchors of `lora`, kept in 8 bits.
- `lora-small`: as `lora`, but cut by importance while it learns to `budget` numbers (`rank_allocation`); its
  rank is that before the cut.
- `lora-placed`: as `lora` or, with a budget, `lora-small`, but groups of layers have `ranks` of their own.
- `full-changing`, `lora-changing`: as `full` and `lora`, but learned from an album in which the person's
  hair, clothes, skin and weight change from photo to photo (`synthetic.album.CHANGE_SPREADS`), as over years.
  Tested on the same photos and views as all others, where nothing has changed.
- `control`: as `lora`, but the adapter is that of the next person in the list. What it loses is what an
  adapter knows about its own person.

People are held-out seeds beyond the last that `prior_people` can ask for, so no evaluation of a prior, no
training's monitor and no training has met them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from my3dgen.errors import UserError
from my3dgen.invert import InvertConfig
from my3dgen.personalize import PersonalizeConfig
from my3dgen.ranks import parse_ranks
from my3dgen.synthetic.album import HELD_OUT_EVERY
from my3dgen.tune import TuneConfig

FORMAT = 1
CHANGING = ("full-changing", "lora-changing")
"""Methods that learn from photos between which the person changes."""
LEARNED = ("lora", "lora-small", "lora-placed", "lora-changing")
"""Methods that learn an adapter of their own."""
BORROWING = ("lora-pti", "lora-int8", "control")
"""Methods that begin with the adapter of a `lora` row, which is learned only once."""
RANKED = (*LEARNED, *BORROWING)
FULL = ("full", "full-pti", "full-changing")
"""Methods that tune all weights on the album."""
BENT = ("full-pti", "lora-pti")
"""Methods that learn an album, then bend around each photo."""
KEY = ("person", "method", "rank", "photos", "anchors")
"""What tells the rows of a protocol apart."""
RATED = ("pti", *FULL, *LEARNED, "lora-pti")
"""Methods with a learning rate of their own."""
METHODS = ("prior-w", "prior-w+", "pti", *FULL, *RANKED)
SPACES = ("w", "w+")
RESOLUTIONS = tuple(2**k for k in range(2, 11))
"""Of the blocks that ranks may be given for, whatever the prior."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and how fast a method learns; the rest is as in `my3dgen.tune`."""

    steps: int = 3000
    batch: int = 2
    rate: float = 2e-3
    warm: int = 20
    window: int | None = None
    """Side of the raw window seen in a step; None for whole pictures."""
    perceptual: float = 0.03
    """Weight of the perceptual distance."""
    refine: float = 0.0
    """Learning rate of the anchors' latents, which move with the adapter; 0 leaves them."""
    alpha: float = 1.0
    """The low-rank change of a layer is scaled by alpha / its rank."""
    budget: int | None = None
    """Numbers an adapter is cut to; of `lora-small` and `lora-placed`."""
    ranks: str = ""
    """Ranks of groups of layers that differ from the row's, such as `b4=0,b128=3`; of `lora-placed` alone."""

    def tuning(self, seed: int) -> TuneConfig:
        """For pivotal tuning."""
        names = {f.name for f in fields(TuneConfig)}
        return TuneConfig(**{n: value for n, value in asdict(self).items() if n in names}, seed=seed)

    def personalization(self, rank: int, seed: int) -> PersonalizeConfig:
        """For an adapter, or for all weights, where the rank means nothing; steps are taken as they stand."""
        settings: dict[str, Any] = asdict(self) | {"ranks": parse_ranks(self.ranks, RESOLUTIONS), "merged": 1}
        return PersonalizeConfig(**settings, rank=rank, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """Steps of a photo that becomes an anchor; a photo to be reproduced gets `factor_for` times as many."""

    common_steps: int = 100
    coarse_steps: int = 40
    fine_steps: int = 20
    rate: float = 0.15
    batch: int = 8

    def config(self, space: str, seed: int) -> InvertConfig:
        """In W or W+."""
        assert space in SPACES
        return InvertConfig(**asdict(self), space="w+" if space == "w+" else "w", seed=seed)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method with its settings; its rows are all combinations of ranks, photos and anchors."""

    method: str
    photos: tuple[int, ...]
    anchors: tuple[str, ...] = ("w",)
    ranks: tuple[int, ...] = (0,)
    """0 where there is no adapter."""
    training: Training | None = None
    pivoting: Training | None = None
    """On a photo, after the album; of those in `BENT` alone."""


def name_of(method: str, rank: int, photos: int, anchors: str) -> str:
    """How files name a method with its rank, photos and anchors: `lora-r1-50-w`, `full-50-w`."""
    return f"{method}{f'-r{rank}' if rank else ''}-{photos}-{anchors}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is measured at once."""

    person: int
    """Seed of the synthetic person."""
    method: str
    rank: int
    photos: int
    anchors: str
    training: Training | None = None
    pivoting: Training | None = None
    variant: str = ""
    """Tells rows apart that differ in their settings alone."""

    @property
    def name(self) -> str:
        """Such as `lora-r1-50-w`: unique among the rows of a person."""
        return name_of(self.method, self.rank, self.photos, self.anchors) + self.variant

    def bending(self, seed: int) -> TuneConfig | None:
        """How the row bends around a photo; None if it does not."""
        return None if self.pivoting is None else self.pivoting.tuning(seed)

    def key(self) -> dict[str, Any]:
        """The row's identity in the results."""
        return {name: getattr(self, name) for name in KEY}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything the figures depend on, besides the prior and the seed of random draws."""

    people: tuple[int, ...]
    """Seeds of synthetic people."""
    tuning_people: tuple[int, ...]
    """Others, on whom learning rates are chosen."""
    album: int
    """Photos of a person, every sixth of them held out."""
    photo_size: int
    """Side of the photos in pixels."""
    yaws: tuple[int, ...]
    """Degrees of the true views; 0, the one that is inverted, among them."""
    moments: int
    """Held-out photos that are seen from all yaws."""
    samples: int
    """Appearances drawn from alpha-space."""
    sample_yaw: int
    """Degrees to either side that samples are seen from."""
    interpolations: int
    """Pairs of anchors to go between."""
    interpolation_steps: int
    inversion: Inversion = field(default_factory=Inversion)
    methods: tuple[Entry, ...]

    @property
    def learned(self) -> int:
        """Photos of an album that may be learned from."""
        return self.album - self.album // HELD_OUT_EVERY

    def after(self, person: int) -> int:
        """The next person of the list, whose adapter is the control."""
        return self.people[(self.people.index(person) + 1) % len(self.people)]

    def rows(
        self,
        people: Sequence[int],
        methods: Sequence[str] | None = None,
        photos: Sequence[int] | None = None,
    ) -> list[Row]:
        """The rows of some people, person by person; `methods` and `photos` leave out all others.

        Methods that learn from no album are kept whatever `photos` says. Raises UserError when nothing is
        left.
        """
        kept = [entry for entry in self.methods if methods is None or entry.method in methods]
        if missing := sorted(set(methods or ()) - {entry.method for entry in kept}):
            known = ", ".join(dict.fromkeys(entry.method for entry in self.methods))
            raise UserError(f"no method '{missing[0]}' in the protocol; it has {known}")
        rows = [
            Row(
                person=person,
                method=entry.method,
                rank=rank,
                photos=count,
                anchors=space,
                training=entry.training,
                pivoting=entry.pivoting,
            )
            for person in people
            for entry in kept
            for rank in entry.ranks
            for count in entry.photos
            for space in entry.anchors
            if photos is None or count in photos or count == 0
        ]
        if not rows:
            counts = sorted({count for entry in kept for count in entry.photos})
            raise UserError(f"no row is left; these methods have {', '.join(map(str, counts))} photos")
        return rows

    def to_json(self) -> dict[str, Any]:
        """As `method_protocol_file.parse_protocol` reads it: what a method does not have is left out."""
        content = {"format": FORMAT, **json.loads(json.dumps(asdict(self)))}
        for entry in content["methods"]:
            if not any(entry["ranks"]):
                del entry["ranks"]
            for name in ("training", "pivoting"):
                if entry[name] is None:
                    del entry[name]
        return content
