"""From the inert tree of a checkpoint to one generator: names, tensors, construction arguments.

My3DGen's training snapshots wrap every layer, so their names have extra components and low-rank
matrices beside the weights; both are folded back, which gives a plain EG3D generator.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from my3dgen.errors import FileFormatError
from my3dgen.prior.inert_pickle import Record
from my3dgen.prior.inert_tensors import TensorData

MAX_DEPTH = 24
MAX_ENTRIES = 4096
MAX_MODULES = 4096

# components that My3DGen's wrappers insert (EG3D spec 5.5)
WRAPPERS = {
    "synthesis_block",
    "synthesis_layer",
    "to_rgb_layer",
    "fully_connected_layer",
    "superresolution_module",
}
SCALING_NAMES = ("scaling",)
ALPHA_NAMES = ("lora_alpha", "alpha")


@dataclass(frozen=True)
class Snapshot:
    """One generator, still as bytes."""

    tensors: dict[str, TensorData]
    """State-dict entries by name, wrapper components removed; LoRA factors end in .lora_A, .lora_B."""
    init_kwargs: dict[str, Any]
    """Construction arguments; empty if the file holds tensors only."""
    attributes: dict[str, Any]
    """Plain attributes of the generator: rendering_kwargs, neural_rendering_resolution..."""
    layer_attributes: dict[str, dict[str, Any]]
    """For each layer with LoRA factors: its plain attributes."""

    @property
    def weights_only(self) -> bool:
        """Whether the file says nothing about how the generator was built."""
        return not self.init_kwargs


def take_snapshot(tree: Any) -> Snapshot:
    """The generator in a checkpoint's tree: `G_ema`, or the tree itself.

    Raises FileFormatError if there is none.
    """
    found = tree["G_ema"] if type(tree) is dict and "G_ema" in tree else tree
    if isinstance(found, Record):
        return walk(found)
    if type(found) is dict and found and all(isinstance(value, TensorData) for value in found.values()):
        tensors = {plain_name(str(name)): tensor for name, tensor in found.items()}
        if len(tensors) != len(found) or len(tensors) > MAX_ENTRIES:
            raise FileFormatError("holds a state dict with clashing or too many names")
        return Snapshot(tensors, {}, {}, {})
    keys = ", ".join(sorted(map(str, tree))[:5]) if type(tree) is dict else type(tree).__name__
    raise FileFormatError(f"holds no generator 'G_ema' (found: {keys[:120]})")


def walk(top: Record) -> Snapshot:
    """Collect parameters and buffers depth-first through `_modules` (EG3D spec 2.4)."""
    tensors: dict[str, TensorData] = {}
    layers: dict[str, dict[str, Any]] = {}
    modules = 0
    pending = [("", top, 0)]
    while pending:
        path, record, depth = pending.pop()
        modules += 1
        if depth > MAX_DEPTH or modules > MAX_MODULES:
            raise FileFormatError("nests its modules without end")
        own = {**entries(record, "_parameters"), **entries(record, "_buffers")}
        for name, value in own.items():
            if value is None:
                continue
            key = plain_name(f"{path}{name}")
            if not isinstance(value, TensorData) or key in tensors:
                raise FileFormatError(f"holds '{key[:100]}' twice, or not as a tensor")
            tensors[key] = value
            if name == "lora_A":
                layers[key.removesuffix(".lora_A")] = plain_attributes(record)
        if len(tensors) > MAX_ENTRIES:
            raise FileFormatError(f"holds more than {MAX_ENTRIES} tensors")
        children = entries(record, "_modules").items()
        for name, child in reversed(list(children)):
            if child is None:
                continue
            if not isinstance(child, Record):
                raise FileFormatError(f"holds a module '{path[:60]}{name[:40]}' that is not an object")
            pending.append((f"{path}{name}.", child, depth + 1))
    arguments = top.state.get("_init_kwargs", {})
    if type(arguments) is not dict:
        raise FileFormatError("holds construction arguments that are not a dictionary")
    return Snapshot(tensors, arguments, plain_attributes(top), layers)


def entries(record: Record, group: str) -> dict[str, Any]:
    """`_parameters`, `_buffers` or `_modules` of a record, names checked."""
    found = record.state.get(group, {})
    if type(found) is not dict or not all(
        isinstance(name, str) and re.fullmatch(r"\w{1,64}", name) for name in found
    ):
        raise FileFormatError(f"holds a malformed {group} in {record.class_name}")
    return found


def plain_attributes(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.state.items() if not str(name).startswith("_")}


def plain_name(name: str) -> str:
    """A state-dict name without the components that My3DGen's wrappers insert."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    kept = [part for k, part in enumerate(parts) if not (part == "synthesis" and parts[k - 1 : k] == [part])]
    return ".".join(kept)


def merged_tensors(snapshot: Snapshot, lora_alpha: float | None = None) -> dict[str, Tensor]:
    """The generator's state dict in float32, LoRA factors folded into the weights (EG3D spec 5.3).

    `lora_alpha` is used where the file does not state the scaling. Raises FileFormatError for
    factors that do not fit their weight, an unknown scaling, or numbers that are not finite.
    """
    numbers = {name: tensor.load().float() for name, tensor in snapshot.tensors.items()}
    for name, tensor in numbers.items():
        if not torch.isfinite(tensor).all():
            raise FileFormatError(f"holds numbers that are not finite in '{name}'")
    layers = sorted(name.removesuffix(".lora_A") for name in numbers if name.endswith(".lora_A"))
    for layer in layers:
        a, b = numbers.pop(f"{layer}.lora_A"), numbers.pop(f"{layer}.lora_B", None)
        weight = numbers.get(f"{layer}.weight")
        if b is None or weight is None or a.dim() != 2 or b.dim() != 2 or b.shape[1] != a.shape[0]:
            raise FileFormatError(f"holds LoRA matrices that don't fit together in '{layer}'")
        kernel = weight.shape[-1] if weight.dim() == 4 else 1
        if b.shape[0] * a.shape[1] != weight.numel() or a.shape[0] % kernel:
            raise FileFormatError(f"holds LoRA matrices that don't fit the weight '{layer}.weight'")
        scale = scaling(snapshot.layer_attributes.get(layer, {}), a.shape[0] // kernel, lora_alpha, layer)
        if layer.endswith(".affine"):
            # the low-rank term is added after the equalised gain 1/sqrt(in), a stored weight is not
            scale *= math.sqrt(weight.shape[1])
        weight += scale * (b @ a).reshape(weight.shape)
    left = [name for name in numbers if name.endswith(".lora_B")]
    if left:
        raise FileFormatError(f"holds '{left[0]}' without its lora_A")
    return numbers


def scaling(attributes: dict[str, Any], rank: int, lora_alpha: float | None, layer: str) -> float:
    """alpha / rank of one layer: from the file, else from the caller."""
    stated = next((attributes[n] for n in SCALING_NAMES if is_number(attributes.get(n))), None)
    if stated is not None:
        return float(stated)
    alpha = next((attributes[n] for n in ALPHA_NAMES if is_number(attributes.get(n))), lora_alpha)
    if alpha is None:
        raise FileFormatError(f"does not say the LoRA alpha of '{layer}'; give it with --lora-alpha")
    return float(alpha) / rank


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
