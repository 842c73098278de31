"""From the inert tree of a checkpoint to one generator: names, tensors, construction arguments.

My3DGen's training snapshots wrap every layer, so their names have extra components and low-rank
matrices beside the weights; both are folded back, which gives a plain EG3D generator.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from my3dgen.errors import FileFormatError
from my3dgen.prior.inert_pickle import Record
from my3dgen.prior.inert_tensors import TensorData
from my3dgen.tensor_file import unusable

MAX_DEPTH = 24
MAX_ENTRIES = 4096
MAX_MODULES = 4096
MAX_RANK = 64

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
FACTORS = ("lora_A", "lora_B")


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
    def nbytes(self) -> int:
        """Bytes that loading all tensors takes."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

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


def lora_ranks(snapshot: Snapshot) -> dict[str, int]:
    """Rank by layer with LoRA factors, from names and sizes alone: no number is read.

    A is (rank*k, I*k*k) and B (O, rank*k) for a weight (O, I, k, k), with k = 1 for (O, I) (EG3D spec
    5.3). Raises FileFormatError for factors without a partner or weight, of another shape, or of a rank
    outside 1 to 64.
    """
    sizes = {name: tensor.size for name, tensor in snapshot.tensors.items()}
    ranks = {}
    for name in sizes:
        layer, _, kind = name.rpartition(".")
        if kind not in FACTORS:
            continue
        a, b, weight = (sizes.get(f"{layer}.{part}") for part in (*FACTORS, "weight"))
        if a is None or b is None:
            raise FileFormatError(f"holds '{name[:100]}' without its {FACTORS[a is not None]}")
        if weight is None or len(weight) not in (2, 4) or len(a) != 2 or len(b) != 2:
            raise FileFormatError(f"holds LoRA matrices that don't fit together in '{layer[:100]}'")
        kernel = weight[-1] if len(weight) == 4 else 1
        rank = a[0] // max(kernel, 1)
        if (a, b) != ((rank * kernel, math.prod(weight[1:])), (weight[0], rank * kernel)):
            raise FileFormatError(f"holds LoRA matrices that don't fit the weight '{layer[:100]}.weight'")
        if not 1 <= rank <= MAX_RANK:
            raise FileFormatError(
                f"holds LoRA matrices of rank {rank} in '{layer[:100]}'; 1 to {MAX_RANK} are read"
            )
        ranks[layer] = rank
    return ranks


def merged_tensors(snapshot: Snapshot, lora_alpha: float | None = None) -> dict[str, Tensor]:
    """The generator's state dict in float32, LoRA factors folded into the weights (EG3D spec 5.3).

    `lora_alpha` is used where the file does not state the scaling. Raises FileFormatError for
    factors that do not fit their weight, an unknown scaling, or numbers that are `unusable`.
    """
    ranks = lora_ranks(snapshot)
    scales = {
        layer: scaling(snapshot.layer_attributes.get(layer, {}), rank, lora_alpha, layer)
        for layer, rank in ranks.items()
    }
    merged = {}
    for name, tensor in snapshot.tensors.items():
        layer, _, kind = name.rpartition(".")
        if kind in FACTORS:
            continue
        numbers = tensor.load().float()
        if kind == "weight" and layer in ranks:
            a, b = (snapshot.tensors[f"{layer}.{factor}"].load().float() for factor in FACTORS)
            # the low-rank term is added after the equalised gain 1/sqrt(in), a stored weight is not
            gain = math.sqrt(numbers.shape[1]) if layer.endswith(".affine") else 1.0
            numbers = numbers + scales[layer] * gain * (b @ a).reshape(numbers.shape)
        if reason := unusable(numbers):
            after = " once its LoRA is merged" if kind == "weight" and layer in ranks else ""
            raise FileFormatError(f"holds {reason} in '{name}'{after}")
        merged[name] = numbers
    return merged


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
