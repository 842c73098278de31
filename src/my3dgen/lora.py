"""Low-rank adapters of a frozen generator (EG3D spec 5.3, 5.4).

An adapter is a flat dict of tensors, named by the parameter they change:

    PATH.lora_A, PATH.lora_B   weight of a convolution, toRGB or affine:  + alpha/rank * B A
    PATH.delta                 constant, bias or noise strength:          + delta

    weight (O, I, k, k)   A (rank*k, I*k*k)   B (O, rank*k)    before modulation
    affine (O, I)         A (rank,   I)       B (O, rank)      after the equalized gain

Every layer has a rank of its own, which its factors' shapes say; a layer without factors stays as it is.
A 3x3 convolution may have a third of a rank: its k components a rank are kept or left one by one. B and the
deltas start at zero, so a new adapter changes nothing, to the last bit. Every tensor may
carry a leading batch axis, one entry per image, so one batch can show different people; each image
is what it is alone within 2e-5 in float32, the rounding of batched products. Mapping and decoder are
never adapted.
"""

import copy
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from my3dgen.errors import PriorMismatchError
from my3dgen.prior.generator import Generator
from my3dgen.ranks import EXTRAS, MAX_RANK, is_extra, kernel_of, rank_of

ADAPTED = ("backbone.synthesis.", "superresolution.")
"""The parts of the generator an adapter changes."""

_DIMENSIONS = {"const.delta": 3, "bias.delta": 1, "noise_strength.delta": 0}
"""Axes of a delta without a batch axis, by the end of its name; factors have two."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """The tensors that turn a prior into one person, or into one person per image."""

    alpha: float
    """The low-rank change of a layer is scaled by alpha / its rank."""
    tensors: dict[str, Tensor]
    """Parameter path + `.lora_A`, `.lora_B` or `.delta` -> tensor."""

    @property
    def ranks(self) -> dict[str, float]:
        """Path of every adapted weight -> rank per kernel row: a k x k convolution of rank r changes by a
        matrix of rank r * k."""
        factors = {n.removesuffix(".lora_A"): t for n, t in self.tensors.items() if n.endswith(".lora_A")}
        return {path: a.shape[-2] / kernel_of(path) for path, a in factors.items()}

    @property
    def rank(self) -> int:
        """The largest rank of a layer, rounded up; 0 if none has factors."""
        return math.ceil(max(self.ranks.values(), default=0))

    def scale(self, path: str) -> float:
        """alpha / rank of the weight at a path."""
        return self.alpha / (self.tensors[f"{path}.lora_A"].shape[-2] / kernel_of(path))

    @property
    def batch(self) -> int | None:
        """Entries along the leading batch axis, or None without one. Raises ValueError if they differ."""
        sizes = {len(self.tensors[name]) for name in self.batched}
        if len(sizes) > 1:
            raise ValueError(f"adapter tensors disagree on the batch: {sorted(sizes)}")
        return sizes.pop() if sizes else None

    @property
    def batched(self) -> list[str]:
        """Names of the tensors with a leading batch axis."""
        return [name for name, tensor in self.tensors.items() if tensor.ndim > _dimensions(name)]

    @property
    def parameter_count(self) -> int:
        """Numbers in the adapter."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Adapter":
        """The same on another device or in another dtype; tensors already there are shared."""
        moved = {name: t.to(device=device, dtype=dtype) for name, t in self.tensors.items()}
        return replace(self, tensors=moved)

    def detached(self) -> "Adapter":
        """A copy that shares nothing with this one and has no gradients."""
        return replace(self, tensors={name: t.detach().clone() for name, t in self.tensors.items()})

    def requires_grad_(self, requires_grad: bool = True) -> "Adapter":
        """Switch gradients of all tensors on or off, in place; returns itself."""
        for tensor in self.tensors.values():
            tensor.requires_grad_(requires_grad)
        return self


def adapter_shapes(
    generator: Generator,
    rank: int,
    *,
    ranks: Mapping[str, int] | None = None,
    extras: tuple[str, ...] = EXTRAS,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an adapter's tensors, in the order of the generator's parameters.

    `ranks` are those of groups of layers that differ from `rank` (`my3dgen.ranks`), 0 leaves a group out;
    `extras` is what else trains.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path, parameter in adapted(generator).items():
        if path.endswith(".weight"):
            if inner := rank_of(path, rank, ranks or {}) * kernel_of(path):
                shapes[f"{path}.lora_A"] = (inner, parameter[0].numel())
                shapes[f"{path}.lora_B"] = (parameter.shape[0], inner)
        elif is_extra(path, extras):
            shapes[f"{path}.delta"] = tuple(parameter.shape)
    return shapes


def adapted(generator: Generator) -> dict[str, Tensor]:
    """The parameters that an adapter may change, by path."""
    return {path: p for path, p in generator.named_parameters() if path.startswith(ADAPTED)}


def new_adapter(
    generator: Generator,
    rank: int,
    alpha: float,
    rng: torch.Generator | None = None,
    *,
    ranks: Mapping[str, int] | None = None,
    extras: tuple[str, ...] = EXTRAS,
) -> Adapter:
    """An adapter that changes nothing yet, on the generator's device, ready to be optimised.

    A is uniform in +-1/sqrt(columns), drawn from the CPU generator `rng` (None: seed 0); the rest is
    zero. `ranks` and `extras` as in `adapter_shapes`. Raises ValueError for ranks outside 1 (of groups: 0)
    to MAX_RANK, and if nothing is left to train.
    """
    if not 1 <= rank <= MAX_RANK:
        raise ValueError(f"rank {rank} is outside 1 to {MAX_RANK}")
    if wrong := [group for group, value in (ranks or {}).items() if not 0 <= value <= MAX_RANK]:
        raise ValueError(f"rank of '{wrong[0]}' is outside 0 to {MAX_RANK}")
    rng = torch.Generator("cpu").manual_seed(0) if rng is None else rng
    tensors = {}
    for name, shape in adapter_shapes(generator, rank, ranks=ranks, extras=extras).items():
        tensor = torch.zeros(shape)
        if name.endswith(".lora_A"):
            bound = 1 / math.sqrt(shape[1])
            tensor = torch.rand(shape, generator=rng) * (2 * bound) - bound
        tensors[name] = tensor.to(generator.w_avg.device).requires_grad_()
    if not tensors:
        raise ValueError("all ranks are 0 and there are no extras: nothing would be trained")
    return Adapter(alpha, tensors)


def lora_parameters(adapter: Adapter) -> list[Tensor]:
    """The low-rank factors, without the deltas."""
    return [t for name, t in adapter.tensors.items() if not name.endswith(".delta")]


def trainable_parameters(adapter: Adapter) -> list[Tensor]:
    """Everything an optimiser should move: the factors and the deltas."""
    return list(adapter.tensors.values())


def check_adapter(generator: Generator, adapter: Adapter) -> None:
    """Raise PriorMismatchError unless the adapter's names and shapes fit the generator."""
    parameters = adapted(generator)
    for name, tensor in adapter.tensors.items():
        path, _, kind = name.rpartition(".")
        parameter = parameters.get(path)
        kinds = ("lora_A", "lora_B") if path.endswith(".weight") else ("delta",)
        if parameter is None or kind not in kinds:
            raise PriorMismatchError(f"the adapter has an unknown '{name}'; use the prior it was made with")
        for other in kinds:
            if f"{path}.{other}" not in adapter.tensors:
                raise PriorMismatchError(
                    f"the adapter lacks '{path}.{other}'; use the prior it was made with"
                )
        shape = tuple(parameter.shape)
        if kind != "delta":
            inner = min(adapter.tensors[f"{path}.lora_A"].shape[-2], MAX_RANK * kernel_of(path))
            shape = (inner, parameter[0].numel()) if kind == "lora_A" else (parameter.shape[0], inner)
        found = tuple(tensor.shape)
        if shape not in (found, found[1:]):
            raise PriorMismatchError(
                f"the adapter's '{name}' is {list(found)}, this prior needs {list(shape)}; "
                "use the prior it was made with"
            )


def merge(generator: Generator, adapter: Adapter) -> Generator:
    """A copy of the generator with the adapter added to its weights: a plain EG3D network.

    Equal to passing the adapter, up to rounding. Raises ValueError for an adapter with a batch axis.
    """
    return _added(generator, adapter, 1.0)


def unmerge(generator: Generator, adapter: Adapter) -> Generator:
    """A copy with the adapter subtracted: undoes `merge`, up to rounding."""
    return _added(generator, adapter, -1.0)


def stack(adapters: Sequence[Adapter]) -> Adapter:
    """One adapter with a batch axis, one entry per adapter given.

    Ranks, alphas and what is adapted may differ: smaller factors are padded with zeros, scales go into B.
    Raises ValueError for adapters of different generators, with a batch axis, or for none.
    """
    if not adapters or any(adapter.batch is not None for adapter in adapters):
        raise ValueError("stack needs adapters without a batch axis, at least one")
    widest: dict[str, Tensor] = {}
    for adapter in adapters:
        for name, tensor in adapter.tensors.items():
            if tensor.numel() > (widest[name].numel() if name in widest else -1):
                widest[name] = tensor
    whole = Adapter(adapters[0].alpha, widest)
    entries = [_widened(adapter, whole) for adapter in adapters]
    try:
        return replace(whole, tensors={n: torch.stack([e[n] for e in entries]) for n in widest})
    except RuntimeError:
        raise ValueError("stack needs adapters of the same generator") from None


def unstack(adapter: Adapter) -> list[Adapter]:
    """The entries of an adapter with a batch axis; views of its tensors."""
    if adapter.batch is None:
        return [adapter]
    return [
        replace(
            adapter,
            tensors={n: t[i] if t.ndim > _dimensions(n) else t for n, t in adapter.tensors.items()},
        )
        for i in range(adapter.batch)
    ]


@torch.no_grad()
def _added(generator: Generator, adapter: Adapter, sign: float) -> Generator:
    if adapter.batch is not None:
        raise ValueError("an adapter with a batch axis cannot be merged; unstack it first")
    check_adapter(generator, adapter)
    merged = copy.deepcopy(generator)
    for path, parameter in merged.named_parameters():
        if (a := adapter.tensors.get(f"{path}.lora_A")) is not None:
            # an affine weight is divided by sqrt(inputs) when used, its change is not
            gain = math.sqrt(parameter.shape[1]) if parameter.ndim == 2 else 1.0
            change = adapter.tensors[f"{path}.lora_B"] @ a * (adapter.scale(path) * gain)
            parameter += sign * change.view_as(parameter)
        elif (delta := adapter.tensors.get(f"{path}.delta")) is not None:
            parameter += sign * delta
    return merged


def _widened(adapter: Adapter, whole: Adapter) -> Mapping[str, Tensor]:
    """The adapter's tensors at the ranks and scales of `whole`, with the same effect."""
    tensors = {}
    for name, like in whole.tensors.items():
        path, _, kind = name.rpartition(".")
        tensor = adapter.tensors.get(name)
        if tensor is None:
            tensor = torch.zeros_like(like)
        elif kind == "lora_A":
            tensor = pad(tensor, (0, 0, 0, len(like) - len(tensor)))
        elif kind == "lora_B":
            factor = adapter.scale(path) / whole.scale(path)
            tensor = pad(tensor, (0, like.shape[1] - tensor.shape[1]))
            tensor = tensor if factor == 1 else tensor * factor
        tensors[name] = tensor
    return tensors


@functools.cache
def _dimensions(name: str) -> int:
    return next((axes for end, axes in _DIMENSIONS.items() if name.endswith(end)), 2)
