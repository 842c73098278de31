"""Low-rank adapters of a frozen generator (EG3D spec 5.3, 5.4).

An adapter is a flat dict of tensors, named by the parameter they change:

    PATH.lora_A, PATH.lora_B   weight of a convolution, toRGB or affine:  + alpha/rank * B A
    PATH.delta                 constant, bias or noise strength:          + delta

    weight (O, I, k, k)   A (rank*k, I*k*k)   B (O, rank*k)    before modulation
    affine (O, I)         A (rank,   I)       B (O, rank)      after the equalized gain

B and the deltas start at zero, so a new adapter changes nothing, to the last bit. Every tensor may
carry a leading batch axis, one entry per image, so one batch can show different people; each image
is what it is alone within 2e-5 in float32, the rounding of batched products. Mapping and decoder are
never adapted.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from my3dgen.errors import PriorMismatchError
from my3dgen.prior.generator import Generator

ADAPTED = ("backbone.synthesis.", "superresolution.")
"""The parts of the generator an adapter changes."""

_DIMENSIONS = {"const.delta": 3, "bias.delta": 1, "noise_strength.delta": 0}
"""Axes of a delta without a batch axis, by the end of its name; factors have two."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """The tensors that turn a prior into one person, or into one person per image."""

    rank: int
    """Rank per kernel row: a k x k convolution changes by a matrix of rank `rank` * k."""
    alpha: float
    """The low-rank changes are scaled by alpha / rank."""
    tensors: dict[str, Tensor]
    """Parameter path + `.lora_A`, `.lora_B` or `.delta` -> tensor."""

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank

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


def adapter_shapes(generator: Generator, rank: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an adapter's tensors, in the order of the generator's parameters."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, parameter in generator.named_parameters():
        if not path.startswith(ADAPTED):
            continue
        if path.endswith(".weight"):
            outputs, inner = parameter.shape[0], rank * _kernel(parameter)
            shapes[f"{path}.lora_A"] = (inner, parameter[0].numel())
            shapes[f"{path}.lora_B"] = (outputs, inner)
        else:
            shapes[f"{path}.delta"] = tuple(parameter.shape)
    return shapes


def new_adapter(generator: Generator, rank: int, alpha: float, rng: torch.Generator | None = None) -> Adapter:
    """An adapter that changes nothing yet, on the generator's device, ready to be optimised.

    A is uniform in +-1/sqrt(columns), drawn from the CPU generator `rng` (None: seed 0); the rest is
    zero. Raises ValueError for a rank below 1.
    """
    if rank < 1:
        raise ValueError(f"rank {rank} is below 1")
    rng = torch.Generator("cpu").manual_seed(0) if rng is None else rng
    tensors = {}
    for name, shape in adapter_shapes(generator, rank).items():
        tensor = torch.zeros(shape)
        if name.endswith(".lora_A"):
            bound = 1 / math.sqrt(shape[1])
            tensor = torch.rand(shape, generator=rng) * (2 * bound) - bound
        tensors[name] = tensor.to(generator.w_avg.device).requires_grad_()
    return Adapter(rank, alpha, tensors)


def lora_parameters(adapter: Adapter) -> list[Tensor]:
    """The low-rank factors, without the deltas."""
    return [t for name, t in adapter.tensors.items() if not name.endswith(".delta")]


def trainable_parameters(adapter: Adapter) -> list[Tensor]:
    """Everything an optimiser should move: the factors and the deltas."""
    return list(adapter.tensors.values())


def check_adapter(generator: Generator, adapter: Adapter) -> None:
    """Raise PriorMismatchError unless the adapter's names and shapes fit the generator."""
    expected = adapter_shapes(generator, adapter.rank)
    if wrong := sorted(set(expected) ^ set(adapter.tensors)):
        what = "lacks" if wrong[0] in expected else "has an unknown"
        raise PriorMismatchError(f"the adapter {what} '{wrong[0]}'; use the prior it was made with")
    for name, shape in expected.items():
        found = tuple(adapter.tensors[name].shape)
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

    Ranks and alphas may differ: smaller factors are padded with zeros, scales go into B. Raises
    ValueError for adapters of different generators, with a batch axis, or for none.
    """
    if not adapters or any(adapter.batch is not None for adapter in adapters):
        raise ValueError("stack needs adapters without a batch axis, at least one")
    if any(set(adapter.tensors) != set(adapters[0].tensors) for adapter in adapters):
        raise ValueError("stack needs adapters of the same generator")
    widest = max(adapters, key=lambda adapter: adapter.rank)
    entries = [_widened(adapter, widest.rank, widest.scale) for adapter in adapters]
    tensors = {name: torch.stack([entry[name] for entry in entries]) for name in widest.tensors}
    return replace(widest, tensors=tensors)


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
            change = adapter.tensors[f"{path}.lora_B"] @ a * (adapter.scale * gain)
            parameter += sign * change.view_as(parameter)
        elif (delta := adapter.tensors.get(f"{path}.delta")) is not None:
            parameter += sign * delta
    return merged


def _widened(adapter: Adapter, rank: int, scale: float) -> Mapping[str, Tensor]:
    """The adapter's tensors at a higher rank and another scale, with the same effect."""
    if (adapter.rank, adapter.scale) == (rank, scale):
        return adapter.tensors
    tensors = dict(adapter.tensors)
    for name, tensor in adapter.tensors.items():
        if name.endswith(".lora_A"):
            more = len(tensor) // adapter.rank * (rank - adapter.rank)
            tensors[name] = pad(tensor, (0, 0, 0, more))
        elif name.endswith(".lora_B"):
            more = tensor.shape[1] // adapter.rank * (rank - adapter.rank)
            tensors[name] = pad(tensor, (0, more)) * (adapter.scale / scale)
    return tensors


def _kernel(weight: Tensor) -> int:
    return weight.shape[-1] if weight.ndim == 4 else 1


def _dimensions(name: str) -> int:
    return next((axes for end, axes in _DIMENSIONS.items() if name.endswith(end)), 2)
