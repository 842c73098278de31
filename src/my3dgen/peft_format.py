"""Adapters as PEFT folders, exactly, both ways.

    adapter_config.json         ranks and scalings, module by module
    adapter_model.safetensors   low-rank factors under PEFT's names
    extras.safetensors          the trained constants, biases and noise strengths, which PEFT has no place for

The folder fits a module tree with the generator's names and stored weights: a layer's `affine` is a
Linear, and its own weight is that of a Conv2d beside it, called `conv`, because PEFT can't adapt a
layer inside another that it adapts. There PEFT adds alpha/r * B A, so

    3x3 convolution of rank r   is PEFT's convolution of rank 3r:  A (3r, I, 3, 3), B (O, 3r, 1, 1)
    affine                      its change is added after the gain 1/sqrt(I) (EG3D spec 5.3), the
                                stored weight before: alpha is sqrt(I) times as large
"""

import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from my3dgen.errors import FileFormatError, UserError
from my3dgen.lora import Adapter, adapted, adapter_shapes
from my3dgen.prior.generator import Generator
from my3dgen.ranks import MAX_RANK, kernel_of
from my3dgen.tensor_file import read_tensors, write_tensors, write_text

CONFIG, FACTORS, EXTRAS = "adapter_config.json", "adapter_model.safetensors", "extras.safetensors"
PREFIX = "base_model.model."
MAX_BYTES = 256 << 20
MAX_CONFIG_BYTES = 1 << 20
REMEDY = "export the adapter again"
UNSUPPORTED = {
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "target_parameters": (None, []),
    "layer_replication": (None,),
}


def export_peft(adapter: Adapter, folder: Path, *, base: str | None = None) -> Path:
    """Write an adapter as a PEFT folder, whole or not at all; return it. `base` names the prior for
    people who read it.

    Values are stored as they are, so `import_peft` gives them back bit by bit. Raises ValueError
    for an adapter with a batch axis, UserError if `folder` is there and not empty.
    """
    if adapter.batch is not None:
        raise ValueError("an adapter with a batch axis cannot be exported; unstack it first")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is already there and not an empty folder; choose a new one")
    factors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    modules: list[str] = []
    largest = max(1, adapter.rank)
    for name, a in adapter.tensors.items():
        if not name.endswith(".lora_A"):
            continue
        module = module_name(name.removesuffix(".weight.lora_A"))
        b = adapter.tensors[name.removesuffix("A") + "B"]
        rank = len(a)
        modules.append(module)
        if rank != largest:
            ranks[module] = rank
        if is_affine(module):
            alphas[module] = adapter.alpha * math.sqrt(a.shape[1])
        else:
            kernel = kernel_of(name.removesuffix(".lora_A"))
            if kernel != 1:
                alphas[module] = adapter.alpha * kernel
            a, b = a.reshape(rank, -1, kernel, kernel), b[:, :, None, None]
        factors[f"{PREFIX}{module}.lora_A.weight"] = a
        factors[f"{PREFIX}{module}.lora_B.weight"] = b
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": largest,
        "lora_alpha": adapter.alpha,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": modules,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    extras = {name: t for name, t in adapter.tensors.items() if name.endswith(".delta")}
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        write_tensors(beside / FACTORS, factors, {"format": "pt"})
        write_tensors(beside / EXTRAS, extras, {})
        write_text(beside / CONFIG, json.dumps(config, indent=2) + "\n")
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def import_peft(folder: Path, generator: Generator) -> Adapter:
    """The adapter in a PEFT folder for `generator`, whoever wrote the folder.

    Modules the folder leaves out are not changed, nor are constants, biases and noise strengths that
    extras.safetensors leaves out. Every layer keeps its rank, other scalings go into B. Raises
    FileFormatError for anything that can't be carried over exactly.
    """
    folder = Path(folder)
    config = read_config(folder / CONFIG)
    alpha = float(config["lora_alpha"])
    factors, _ = read_tensors(folder / FACTORS, MAX_BYTES, remedy=REMEDY)
    pairs = paired(factors, folder / FACTORS)
    weights = {path: w for path, w in adapted(generator).items() if path.endswith(".weight")}
    layers = {module_name(path.removesuffix(".weight")): path for path in weights}
    tensors: dict[str, Tensor] = {}
    for module, (a, b) in pairs.items():
        if module not in layers:
            raise FileFormatError(f"{folder / FACTORS}: '{module[:80]}' is no adaptable layer of this prior")
        path = layers[module]
        weight, kernel = weights[path], kernel_of(path)
        expected = ((len(a), *weight.shape[1:]), (weight.shape[0], len(a), *[1] * (weight.ndim - 2)))
        if (tuple(a.shape), tuple(b.shape)) != expected or not 0 < len(a) <= MAX_RANK * kernel:
            raise FileFormatError(f"{folder / FACTORS}: '{module[:80]}' does not fit this prior's layer")
        a, b = a.flatten(1), b.flatten(1)
        stated = pattern(config["alpha_pattern"], module, alpha) / len(a)
        wanted = alpha / (len(a) / kernel) * (math.sqrt(a.shape[1]) if is_affine(module) else 1.0)
        if not math.isclose(stated, wanted, rel_tol=1e-12):
            b = b * (stated / wanted)
        tensors |= {f"{path}.lora_A": a, f"{path}.lora_B": b}
    tensors |= read_extras(folder, generator)
    # in the order of the generator's parameters, which is that of the person who was exported
    return Adapter(alpha, {name: tensors[name] for name in adapter_shapes(generator, 1) if name in tensors})


def module_name(layer: str) -> str:
    """The name of a layer's Linear or Conv2d in the tree that the folder fits."""
    return layer if is_affine(layer) else f"{layer}.conv"


def is_affine(module: str) -> bool:
    return module.endswith(".affine")


def read_config(path: Path) -> dict[str, Any]:
    """adapter_config.json with every value that matters checked. Raises FileFormatError."""
    if not path.is_file() or path.stat().st_size > MAX_CONFIG_BYTES:
        raise FileFormatError(f"{path}: is missing or too large; {REMEDY}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise FileFormatError(f"{path}: is not JSON; {REMEDY}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise FileFormatError(f"{path}: is not a PEFT LoRA configuration; {REMEDY}")
    for name, harmless in UNSUPPORTED.items():
        if name in config and config[name] not in harmless:
            raise FileFormatError(
                f"{path}: '{name}' is {str(config[name])[:40]}, which can't be carried over"
            )
    if not (type(config.get("r")) is int and 1 <= config["r"] <= MAX_RANK):
        raise FileFormatError(f"{path}: 'r' must be a whole number from 1 to {MAX_RANK}")
    if not is_scale(config.get("lora_alpha")):
        raise FileFormatError(f"{path}: 'lora_alpha' must be a positive number")
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, dict) or not all(
        re.fullmatch(r"[\w.]{1,200}", name) and is_scale(alpha) for name, alpha in alphas.items()
    ):
        raise FileFormatError(f"{path}: 'alpha_pattern' must map plain layer names to positive numbers")
    config["alpha_pattern"] = {name: float(alpha) for name, alpha in alphas.items()}
    return config


def is_scale(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1e6


def pattern(values: Mapping[str, float], module: str, default: float) -> float:
    """PEFT's lookup: the first name that is the module's or its end, whole components only."""
    return next((v for name, v in values.items() if f".{module}".endswith(f".{name}")), default)


def paired(factors: dict[str, Tensor], path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """module -> (A, B) from PEFT's names."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in factors.items():
        match = re.fullmatch(re.escape(PREFIX) + r"([\w.]+)\.lora_([AB])\.weight", name)
        if match is None:
            raise FileFormatError(f"{path}: has the unknown entry '{name[:80]!s}'; {REMEDY}")
        found.setdefault(match[1], {})[match[2]] = tensor
    if half := [module for module, pair in found.items() if len(pair) != 2]:
        raise FileFormatError(f"{path}: '{half[0][:80]}' lacks one of its two factors; {REMEDY}")
    return {module: (pair["A"], pair["B"]) for module, pair in found.items()}


def read_extras(folder: Path, generator: Generator) -> dict[str, Tensor]:
    """The deltas, or none if the folder has no extras (PEFT wrote it)."""
    path = folder / EXTRAS
    if not path.exists():
        return {}
    extras, _ = read_tensors(path, MAX_BYTES, remedy=REMEDY)
    shapes = adapter_shapes(generator, 1)
    for name, tensor in extras.items():
        if not name.endswith(".delta") or shapes.get(name) != tuple(tensor.shape):
            raise FileFormatError(
                f"{path}: '{name[:80]!s}' is no constant, bias or noise of this prior; {REMEDY}"
            )
    return extras
