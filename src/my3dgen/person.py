"""A person in one small file: adapter, anchors and a card that says how it was made.

The file is safetensors. Its tensors are `adapter.NAME`, `anchors.cameras` and the latents, either
`anchors.w` (one vector an anchor) or `anchors.ws`; the card is JSON in the metadata. It says nothing
about who the person is: no names, no photo names, no places, unless asked for.

At rank 1 on the 512 px model the adapter takes 0.5 MB in fp16; fifty anchors add 0.05 MB in W, 0.7 MB in W+.
In int8 all of it takes half (`my3dgen.person_int8`).
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor

from my3dgen.anchors import Anchors
from my3dgen.cameras import label_problem
from my3dgen.errors import FileFormatError, PriorMismatchError
from my3dgen.lora import Adapter, check_adapter, lora_parameters, trainable_parameters
from my3dgen.person_int8 import SCALES, narrow, widen
from my3dgen.ranks import MAX_RANK, kernel_of
from my3dgen.tensor_file import MAX_MAGNITUDE, NUMBERS, read_tensors, unusable, write_tensors

if TYPE_CHECKING:
    from my3dgen.prior.store import Prior

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

FORMAT = 1
MAX_FILE_BYTES = 256 << 20
MAX_NUMBERS = 64 << 20  # a file of int8 is four times as large in memory
MAX_CARD_CHARACTERS = 64 << 10
MAX_ANCHORS = 10_000
HALF_LIMIT = 6e4  # largest magnitude stored as fp16
REMEDY = "make the person again with my3dgen personalize"


@dataclass(frozen=True)
class Card:
    """Where a person comes from."""

    prior: str
    """Name of the prior."""
    prior_sha256: str
    """Of the prior's generator.safetensors; this decides, the name only helps."""
    made: dict[str, Any] = field(default_factory=dict)
    """How it was made: JSON values such as steps, seconds, losses. Nothing about who it is."""


@dataclass(frozen=True, eq=False)
class Person:
    """What personalization makes and every application takes."""

    adapter: Adapter
    anchors: Anchors
    card: Card

    def facts(self) -> dict[str, Any]:
        """The card with all counts, as JSON values."""
        return {
            "format": FORMAT,
            "prior": {"name": self.card.prior, "sha256": self.card.prior_sha256},
            "rank": self.adapter.rank,
            "alpha": self.adapter.alpha,
            "lora_parameters": count(lora_parameters(self.adapter)),
            "trainable_parameters": count(trainable_parameters(self.adapter)),
            "anchors": len(self.anchors.ws),
            "num_ws": self.anchors.ws.shape[1],
            "w_dim": self.anchors.ws.shape[2],
            "made": self.card.made,
        }

    def save(self, path: str | os.PathLike, *, precision: Precision = "fp16", names: bool = False) -> Path:
        """Write the file whole or not at all, readable by its owner alone; return its path.

        `precision` is how latents and adapter are stored. Cameras stay fp32, as does a tensor with values too
        large for fp16; in an int8 file small tensors are fp16. `names` adds the photos' names to the card.
        Raises ValueError for an adapter with a batch axis or numbers that are `unusable`.
        """
        if self.adapter.batch is not None:
            raise ValueError("a person has one adapter, without a batch axis")
        facts = self.facts() | {"precision": precision}
        if names and self.anchors.names is not None:
            facts["photos"] = list(self.anchors.names)
        tensors = {f"adapter.{name}": t.detach() for name, t in self.adapter.tensors.items()}
        tensors |= packed_latents(self.anchors.ws.detach())
        for name, tensor in tensors.items():
            if reason := unusable(tensor):
                raise ValueError(f"'{name}' holds {reason}")
        if precision == "int8":
            tensors = narrow(tensors)
        tensors = {n: t if n == SCALES else narrowed(t, precision) for n, t in tensors.items()}
        tensors["anchors.cameras"] = self.anchors.cameras.detach().float()
        if reason := unusable(tensors["anchors.cameras"]):
            raise ValueError(f"'anchors.cameras' holds {reason}")
        write_tensors(Path(path), tensors, {"my3dgen": json.dumps(facts)})
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike, prior: "Prior | None" = None) -> "Person":
        """Read and check a person file; tensors come back as float32 on the CPU.

        Raises FileFormatError for a file that is damaged, edited or absurd; with `prior` also
        PriorMismatchError if the person was made with another (see `check_prior`).
        """
        path = Path(path)
        tensors, metadata = read_tensors(
            path, MAX_FILE_BYTES, remedy=REMEDY, numbers=(*NUMBERS, "I8"), max_numbers=MAX_NUMBERS
        )
        try:
            facts = read_facts(metadata)
            tensors = widened(tensors, facts)
            adapter = Adapter(
                float(facts["alpha"]),
                {
                    name.removeprefix("adapter."): t
                    for name, t in tensors.items()
                    if name.startswith("adapter.")
                },
            )
            anchors = Anchors(*read_anchors(tensors, facts), read_names(facts))
            unknown = [n for n in tensors if not n.startswith(("adapter.", "anchors."))]
            if unknown:
                raise FileFormatError(f"has the unknown entry '{unknown[0][:80]!s}'")
            check_factors(adapter)
            person = cls(
                adapter, anchors, Card(facts["prior"]["name"], facts["prior"]["sha256"], facts["made"])
            )
            for name in ("rank", "lora_parameters", "trainable_parameters"):
                if facts.get(name) != person.facts()[name]:
                    raise FileFormatError(f"has a card whose {name} does not fit its tensors")
        except FileFormatError as error:
            raise FileFormatError(f"{path}: {error}; {REMEDY}") from None
        if prior is not None:
            try:
                person.check_prior(prior)
            except PriorMismatchError as error:
                raise PriorMismatchError(f"{path}: {error}") from None
        return person

    def check_prior(self, prior: "Prior") -> None:
        """Raise PriorMismatchError, naming both, unless this person was made with `prior`."""
        if self.card.prior_sha256 != prior.sha256:
            raise PriorMismatchError(
                f"the person was made with prior '{self.card.prior}' ({self.card.prior_sha256[:12]}), "
                f"not with '{prior.name}' ({prior.sha256[:12]}); use the prior it was made with"
            )
        check_adapter(prior.generator, self.adapter)
        expected = (prior.config.num_ws, prior.config.w_dim)
        if tuple(self.anchors.ws.shape[1:]) != expected:
            raise PriorMismatchError(
                f"the person's latents are {tuple(self.anchors.ws.shape[1:])}, "
                f"those of prior '{prior.name}' {expected}; use the prior it was made with"
            )


def new_person(
    prior: "Prior", adapter: Adapter, anchors: Anchors, made: dict[str, Any] | None = None
) -> Person:
    """The person that an adapter and anchors on `prior` are."""
    person = Person(adapter.detached().to("cpu"), anchors, Card(prior.name, prior.sha256, made or {}))
    person.check_prior(prior)
    return person


def count(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def narrowed(tensor: Tensor, precision: Precision) -> Tensor:
    """The tensor in the floating-point format of a precision, where it fits; integers stay."""
    if not tensor.is_floating_point():
        return tensor
    fits = tensor.numel() > 0 and bool(tensor.abs().max() < HALF_LIMIT)
    if precision == "fp32" or not fits:
        return tensor.float()
    return tensor.bfloat16() if precision == "bf16" else tensor.half()


def widened(tensors: dict[str, Tensor], facts: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file, those in int8 with their scales. Raises FileFormatError."""
    if (SCALES in tensors) != (facts.get("precision") == "int8"):
        raise FileFormatError("has scales and a card that is not of int8, or the reverse")
    if SCALES not in tensors:
        return tensors
    cameras = {name: tensor for name, tensor in tensors.items() if name == "anchors.cameras"}
    tensors = widen({name: tensor for name, tensor in tensors.items() if name not in cameras})
    for name, tensor in tensors.items():
        if reason := unusable(tensor):
            raise FileFormatError(f"has '{name[:100]}', which holds {reason}")
    return tensors | cameras


def packed_latents(ws: Tensor) -> dict[str, Tensor]:
    """Latents by entry name: in W one vector an anchor says it all."""
    in_w = bool((ws == ws[:, :1]).all())
    return {"anchors.w": ws[:, 0]} if in_w else {"anchors.ws": ws}


def read_facts(metadata: dict[str, str]) -> dict[str, Any]:
    """The card's JSON, every value checked."""
    text = metadata.get("my3dgen", "")
    if not text or len(text) > MAX_CARD_CHARACTERS:
        raise FileFormatError("is not a person file (it has no card)")
    try:
        facts = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        raise FileFormatError("has a card that is not JSON") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else None
        raise FileFormatError(f"has a card of format {str(found)[:20]!r}, this version reads {FORMAT}")
    prior = facts.get("prior")
    checks = {
        "prior": isinstance(prior, dict) and all(is_line(prior.get(k)) for k in ("name", "sha256")),
        "rank": type(facts.get("rank")) is int and 0 <= facts["rank"] <= MAX_RANK,
        "alpha": type(facts.get("alpha")) in (int, float) and 0 < facts["alpha"] < 1e6,
        "anchors": type(facts.get("anchors")) is int and 1 <= facts["anchors"] <= MAX_ANCHORS,
        "num_ws": type(facts.get("num_ws")) is int and 1 <= facts["num_ws"] <= 64,
        "w_dim": type(facts.get("w_dim")) is int and 1 <= facts["w_dim"] <= 4096,
        "precision": facts.get("precision", "fp16") in PRECISIONS,  # older cards don't say
        "made": isinstance(facts.get("made"), dict),
    }
    if bad := [name for name, good in checks.items() if not good]:
        raise FileFormatError(f"has a card with a missing or unusable '{bad[0]}'")
    return facts


def refuse_constant(name: str) -> None:
    raise ValueError(name)


def is_line(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable()


def read_anchors(tensors: dict[str, Tensor], facts: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(ws, cameras), shapes checked against the card."""
    anchors, num_ws, w_dim = facts["anchors"], facts["num_ws"], facts["w_dim"]
    shapes = {"anchors.cameras": (anchors, 25)}
    shapes |= (
        {"anchors.w": (anchors, w_dim)}
        if "anchors.w" in tensors
        else {"anchors.ws": (anchors, num_ws, w_dim)}
    )
    found = {name: tuple(t.shape) for name, t in tensors.items() if name.startswith("anchors.")}
    for name in sorted(set(shapes) | set(found)):
        if shapes.get(name) != found.get(name):
            raise FileFormatError(
                f"has '{name[:60]}' of shape {found.get(name)}, its card asks for {shapes.get(name)}"
            )
    if "anchors.w" in tensors:
        ws = tensors["anchors.w"][:, None].expand(-1, num_ws, -1).contiguous()
    else:
        ws = tensors["anchors.ws"]
    for row, label in enumerate(tensors["anchors.cameras"].tolist()):
        if problem := label_problem(label):
            raise FileFormatError(f"has the unusable camera {row}: it {problem}")
    return ws, tensors["anchors.cameras"]


def read_names(facts: dict[str, Any]) -> tuple[str, ...] | None:
    names = facts.get("photos")
    if names is None:
        return None
    if not (isinstance(names, list) and len(names) == facts["anchors"] and all(map(is_line, names))):
        raise FileFormatError("has a card with unusable 'photos'")
    return tuple(names)


def check_factors(adapter: Adapter) -> None:
    """What can be checked without the prior: factors come in pairs, share their inner size, and change no
    weight by more than MAX_MAGNITUDE; nothing has a batch axis."""
    if adapter.batched:
        raise FileFormatError(f"has the adapter entry '{adapter.batched[0][:100]}' with a batch axis")
    for name, tensor in adapter.tensors.items():
        path, _, kind = name.rpartition(".")
        if kind == "delta" and tensor.dim() in (0, 1, 3):
            continue
        a, b = adapter.tensors.get(f"{path}.lora_A"), adapter.tensors.get(f"{path}.lora_B")
        if (
            kind not in ("lora_A", "lora_B")
            or a is None
            or b is None
            or not a.dim() == b.dim() == 2
            or len(a) != b.shape[1]
            or len(a) > MAX_RANK * kernel_of(path)
            or not a.numel()
            or not b.numel()
        ):
            raise FileFormatError(f"has an unusable adapter entry '{name[:100]}'")
        if adapter.scale(path) * len(a) * float(a.abs().max()) * float(b.abs().max()) > MAX_MAGNITUDE:
            raise FileFormatError(f"has factors that change '{path[:100]}' by more than {MAX_MAGNITUDE:g}")
