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
    def scale(self) -> float: ...
    @property
    def batch(self) -> int | None: ...


@dataclass(frozen=True)
class Adaptation:
    """An adapter's tensors seen from one module; empty for the bare prior."""

    tensors: Mapping[str, Tensor]
    """Parameter path + `.lora_A`, `.lora_B` or `.delta` -> tensor."""
    scale: float
    """alpha / rank."""
    prefix: str = ""
    """Path of the module that looks, with a trailing dot."""

    @classmethod
    def of(cls, adapter: AdapterLike | None) -> "Adaptation":
        """The whole adapter, seen from the generator."""
        return cls({}, 0.0) if adapter is None else cls(adapter.tensors, adapter.scale)

    def at(self, path: str) -> "Adaptation":
        """The same, seen from the submodule at a path."""
        return Adaptation(self.tensors, self.scale, f"{self.prefix}{path}.")

    def low_rank(self, name: str) -> LowRank | None:
        """The change of the weight `name`, if the adapter has one."""
        a = self.tensors.get(f"{self.prefix}{name}.lora_A")
        if a is None:
            return None
        return LowRank(a, self.tensors[f"{self.prefix}{name}.lora_B"], self.scale)

    def shifted(self, name: str, parameter: Tensor) -> Tensor:
        """The parameter `name` plus its delta; with a leading batch axis if the delta has one."""
        delta = self.tensors.get(f"{self.prefix}{name}.delta")
        return parameter if delta is None else parameter + delta
