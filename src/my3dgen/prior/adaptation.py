"""How an adapter reaches the layers: a view of its tensors that narrows on the way down.

The generator is never mutated. Each module hands its children `change.at(name)`, and a layer asks
for the low-rank change of a weight or for a parameter shifted by its delta.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from my3dgen.ops.low_rank import LowRank


@runtime_checkable
class AdapterLike(Protocol):
    """What the generator needs of an adapter (`my3dgen.lora.Adapter`)."""

    @property
    def tensors(self) -> Mapping[str, Tensor]: ...
    @property
    def batch(self) -> int | None: ...
    def scale(self, path: str) -> float: ...


@dataclass(frozen=True)
class Adaptation:
    """An adapter seen from one module; None is the bare prior."""

    adapter: AdapterLike | None
    prefix: str = ""
    """Path of the module that looks, with a trailing dot."""

    @classmethod
    def of(cls, adapter: AdapterLike | None) -> "Adaptation":
        """The whole adapter, seen from the generator."""
        return cls(adapter)

    def at(self, path: str) -> "Adaptation":
        """The same, seen from the submodule at a path."""
        return Adaptation(self.adapter, f"{self.prefix}{path}.")

    def low_rank(self, name: str) -> LowRank | None:
        """The change of the weight `name`, if the adapter has one."""
        path = f"{self.prefix}{name}"
        if self.adapter is None or f"{path}.lora_A" not in self.adapter.tensors:
            return None
        tensors = self.adapter.tensors
        return LowRank(tensors[f"{path}.lora_A"], tensors[f"{path}.lora_B"], self.adapter.scale(path))

    def shifted(self, name: str, parameter: Tensor) -> Tensor:
        """The parameter `name` plus its delta; with a leading batch axis if the delta has one."""
        delta = None if self.adapter is None else self.adapter.tensors.get(f"{self.prefix}{name}.delta")
        return parameter if delta is None else parameter + delta
