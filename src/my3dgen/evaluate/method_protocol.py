"""What the benchmark of methods asks, as a JSON file: whom, how they are seen, and how each method works.

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
- `control`: as `lora`, but the adapter is that of the next person in the list. What it loses is what an
  adapter knows about its own person.

People are held-out seeds beyond the last that `prior_people` can ask for, so no evaluation of a prior, no
training's monitor and no training has met them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from my3dgen.errors import FileFormatError, UserError
from my3dgen.evaluate.prior_people import MOST_SEEDS, RESERVED, SPAN
from my3dgen.invert import InvertConfig
from my3dgen.person import MAX_RANK
from my3dgen.personalize import PersonalizeConfig
from my3dgen.ranks import parse_ranks
from my3dgen.synthetic.album import HELD_OUT_EVERY
from my3dgen.synthetic.factors import HELD_OUT_SEEDS
from my3dgen.tune import TuneConfig

FORMAT = 1
MAX_BYTES = 1 << 20
LEARNED = ("lora", "lora-small", "lora-placed")
"""Methods that learn an adapter of their own."""
BORROWING = ("lora-pti", "lora-int8", "control")
"""Methods that begin with the adapter of a `lora` row, which is learned only once."""
RANKED = (*LEARNED, *BORROWING)
FULL = ("full", "full-pti")
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
OWN_SEEDS = HELD_OUT_SEEDS[RESERVED + MOST_SEEDS * SPAN :]
"""Held-out seeds that no evaluation of a prior can ask for."""


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
        """For an adapter, or for all weights, where the rank means nothing."""
        settings: dict[str, Any] = asdict(self) | {"ranks": parse_ranks(self.ranks, RESOLUTIONS)}
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
        rank = f"-r{self.rank}" if self.rank else ""
        return f"{self.method}{rank}-{self.photos}-{self.anchors}{self.variant}"

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
        """As `parse_protocol` reads it: what a method does not have is left out."""
        content = {"format": FORMAT, **json.loads(json.dumps(asdict(self)))}
        for entry in content["methods"]:
            if not any(entry["ranks"]):
                del entry["ranks"]
            for name in ("training", "pivoting"):
                if entry[name] is None:
                    del entry[name]
        return content


def read_protocol(path: Path) -> Protocol:
    """A protocol file, every value checked. Raises FileFormatError that names what is wrong."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileFormatError(f"{path} is larger than {MAX_BYTES >> 20} MB; a protocol is a short list")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read ({error.strerror}); give a protocol file") from None
    except (ValueError, RecursionError):
        raise FileFormatError(f"{path} is not JSON; benches/protocol.json shows the form") from None
    try:
        return parse_protocol(content)
    except ValueError as error:
        raise FileFormatError(f"{path}: {error}; benches/protocol.json shows the form") from None


def parse_protocol(content: Any) -> Protocol:
    """A protocol from JSON values. Raises ValueError that says what is wrong."""
    values = dict(_object(content, "the protocol"))
    if values.pop("format", None) != FORMAT:
        raise ValueError(f"'format' is not {FORMAT}")
    _check_names(values, Protocol, "the protocol")
    people = _seeds(values["people"], "people")
    tuning = _seeds(values["tuning_people"], "tuning_people")
    if not people or set(people) & set(tuning):
        raise ValueError("'people' is empty or shares seeds with 'tuning_people'")
    yaws = _integers(values["yaws"], "yaws", -50, 50)
    if 0 not in yaws or list(yaws) != sorted(set(yaws)):
        raise ValueError("'yaws' are not different degrees in rising order with 0 among them")
    limits = {
        "album": (HELD_OUT_EVERY, 600),
        "photo_size": (256, 2048),
        "moments": (1, 100),
        "samples": (2, 10_000),
        "sample_yaw": (0, 60),
        "interpolations": (1, 100),
        "interpolation_steps": (3, 100),
    }
    numbers = {name: _integer(values[name], name, *span) for name, span in limits.items()}
    if numbers["photo_size"] % 64:
        raise ValueError("'photo_size' is not a multiple of 64")
    if numbers["moments"] > numbers["album"] // HELD_OUT_EVERY:
        raise ValueError(
            f"'moments' are more than the held-out photos, a sixth of 'album' {numbers['album']}"
        )
    entries = values["methods"]
    if not isinstance(entries, list) or not entries:
        raise ValueError("'methods' is not a list of methods")
    learned = numbers["album"] - numbers["album"] // HELD_OUT_EVERY
    protocol = Protocol(
        people=people,
        tuning_people=tuning,
        yaws=yaws,
        inversion=_settings(values.get("inversion", {}), Inversion, "inversion"),
        methods=tuple(_entry(entry, learned) for entry in entries),
        **numbers,
    )
    names = [row.name for row in protocol.rows(people[:1])]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"'methods' has the row {min(twice)} twice")
    return protocol


def _entry(content: Any, learned: int) -> Entry:
    values = _object(content, "a method")
    method = values.get("method")
    if method not in METHODS:
        raise ValueError(f"'method' is {str(method)[:40]!r}, not one of {', '.join(METHODS)}")
    _check_names(values, Entry, method)
    least, most = (0, 0) if method == "pti" else (1, learned)
    photos = _integers(values["photos"], f"{method}: photos", least, most)
    anchors = values.get("anchors", ["w"])
    if not isinstance(anchors, list) or not anchors or not set(anchors) <= set(SPACES):
        raise ValueError(f"'{method}: anchors' are not a list of w and w+")
    if method.startswith("prior-") and anchors != [method.removeprefix("prior-")]:
        raise ValueError(f"'{method}: anchors' are those of the method itself")
    ranks = (0,)
    if method in RANKED:
        ranks = _integers(values.get("ranks"), f"{method}: ranks", 1, MAX_RANK)
    elif "ranks" in values:
        raise ValueError(f"'{method}' has no ranks")
    training = pivoting = None
    if not method.startswith("prior-"):
        training = _settings(values.get("training", {}), Training, f"{method}: training")
        cut = training.budget is not None
        if cut != (method == "lora-small") and method != "lora-placed":
            raise ValueError(f"'{method}' {'has no' if cut else 'lacks'} budget")
        if bool(training.ranks) != (method == "lora-placed"):
            raise ValueError(
                f"'{method}: training' {'lacks' if method == 'lora-placed' else 'has no'} ranks of groups"
            )
    if method in BENT:
        pivoting = _settings(values.get("pivoting", {}), Training, f"{method}: pivoting")
        if pivoting.budget is not None or pivoting.ranks:
            raise ValueError(f"'{method}: pivoting' has no {'ranks' if pivoting.ranks else 'budget'}")
    elif "pivoting" in values:
        raise ValueError(f"'{method}' has no pivoting")
    if any(one.alpha != 1 for one in (pivoting, None if method in RANKED else training) if one is not None):
        raise ValueError(f"'{method}' has no new factors there that 'alpha' would scale; leave it out")
    if any(one is not None and one.refine for one in (pivoting, training if method == "pti" else None)):
        raise ValueError(f"'{method}' has no anchors to refine around a photo; leave out 'refine'")
    return Entry(
        method=method,
        photos=photos,
        anchors=tuple(anchors),
        ranks=ranks,
        training=training,
        pivoting=pivoting,
    )


def _settings(content: Any, kind: type, name: str) -> Any:
    values = _object(content, name)
    _check_names(values, kind, name, all_of_them=False)
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key == "rate":
            if type(value) not in (int, float) or not 0 < value <= 1:
                raise ValueError(f"'{name}: rate' is not between 0 and 1")
            checked[key] = float(value)
        elif key == "alpha":
            if type(value) not in (int, float) or not 0 < value <= MAX_RANK:
                raise ValueError(f"'{name}: alpha' is not above 0 and at most {MAX_RANK}")
            checked[key] = float(value)
        elif key in ("perceptual", "refine"):
            if type(value) not in (int, float) or not 0 <= value <= 1:
                raise ValueError(f"'{name}: {key}' is not from 0 to 1")
            checked[key] = float(value)
        elif key == "ranks":
            checked[key] = _ranks(value, name)
        elif key in ("window", "budget") and value is None:
            checked[key] = None
        else:
            low = 0 if key in ("common_steps", "warm") else 1
            checked[key] = _integer(value, f"{name}: {key}", low, 1_000_000)
    return kind(**checked)


def _ranks(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"'{name}: ranks' is not text such as 'b4=0,b128=3'")
    try:
        placed = parse_ranks(value, RESOLUTIONS)
    except UserError as error:
        raise ValueError(f"'{name}': {str(error).removeprefix('--')}") from None
    return value if placed else ""


def _check_names(values: Mapping[str, Any], kind: type, name: str, *, all_of_them: bool = True) -> None:
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{name} has the unknown entry {unknown[0][:40]!r}")
    optional = {"inversion", "anchors", "ranks", "training", "pivoting"}
    if all_of_them and (missing := sorted(known - optional - set(values))):
        raise ValueError(f"{name} lacks '{missing[0]}'")


def _object(content: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{name} is not an object")
    return content


def _integer(value: Any, name: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"'{name}' is not a whole number from {low} to {high}")
    return value


def _integers(values: Any, name: str, low: int, high: int) -> tuple[int, ...]:
    if not isinstance(values, list) or not 1 <= len(values) <= 1000:
        raise ValueError(f"'{name}' is not a list of numbers")
    return tuple(_integer(value, name, low, high) for value in values)


def _seeds(values: Any, name: str) -> tuple[int, ...]:
    seeds = _integers(values, name, OWN_SEEDS[0], OWN_SEEDS[-1])
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"'{name}' has a seed twice")
    return seeds
