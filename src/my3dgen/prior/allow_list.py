"""What a checkpoint may name, and the pure stand-in for each name (EG3D spec 2.4)."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from my3dgen.errors import FileFormatError, UnsafePickleError
from my3dgen.prior.inert_pickle import Global, Record, plain_key
from my3dgen.prior.inert_tensors import (
    STORAGE_TYPES,
    is_shape,
    load_from_bytes,
    rebuild_parameter,
    rebuild_tensor,
)

NUMPY_TYPE = re.compile(r"[biuf][1248]|\?")
MAX_SET = 256  # one list can be named again and again, and each set costs its length
INERT_CLASS = re.compile(r"(training|torch\.nn\.modules)(\.\w+)+")


@dataclass(slots=True)
class NumpyType:
    """A numpy dtype of plain numbers."""

    dtype: np.dtype

    def absorb(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) >= 2 and state[1] in ("<", "|", "=")):
            raise FileFormatError("holds numpy numbers that are not little-endian")


@dataclass(slots=True)
class NumpyArray:
    """A numpy array; `values` is a read-only view of the file once its state is known."""

    values: np.ndarray | None = None

    def absorb(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if not (isinstance(kind, NumpyType) and isinstance(data, memoryview) and is_shape(shape)):
            raise FileFormatError("holds a malformed numpy array")
        if math.prod(shape) * kind.dtype.itemsize != len(data):
            raise FileFormatError(f"holds a numpy array of shape {shape} in {len(data)} bytes")
        flat = np.frombuffer(data, kind.dtype) if data else np.empty(0, kind.dtype)
        self.values = flat.reshape(shape, order="F" if fortran else "C")


def find_global(module: str, name: str) -> Any:
    """The stand-in for an allowed name; UnsafePickleError with the name for all others."""
    qualified = f"{module}.{name}"
    if qualified in ALLOWED:
        return ALLOWED[qualified]
    if INERT_CLASS.fullmatch(module) and name.isidentifier():
        return Global(qualified, lambda *_: Record(qualified, {}))
    raise UnsafePickleError(f"asks for {qualified[:120]!r}, which is not on the allow-list")


def persistent_object(meta: Any) -> Record:
    """EG3D's self-describing object, without the source text that it carries (EG3D spec 2.3)."""
    if not (type(meta) is dict and type(meta.get("state")) is dict and meta.get("type") == "class"):
        raise FileFormatError("holds a persistent object without a class or state")
    name = meta.get("class_name")
    return Record(name[:80] if isinstance(name, str) else "?", meta["state"])


def numpy_type(code: Any, *_: Any) -> NumpyType:
    if not (isinstance(code, str) and NUMPY_TYPE.fullmatch(code)):
        raise UnsafePickleError(f"holds numpy data of type {str(code)[:20]!r}; only plain numbers are read")
    return NumpyType(np.dtype(code))


def numpy_scalar(kind: Any, data: Any) -> int | float | bool:
    if not (isinstance(kind, NumpyType) and isinstance(data, (memoryview, bytes))):
        raise FileFormatError("holds a malformed numpy number")
    if len(data) != kind.dtype.itemsize:
        raise FileFormatError("holds a malformed numpy number")
    return np.frombuffer(data, kind.dtype)[0].item()


def numpy_array(*_: Any) -> NumpyArray:
    return NumpyArray()


def encode_latin1(text: Any, encoding: Any) -> memoryview:
    """Protocol 2's spelling of byte strings."""
    if not (isinstance(text, str) and encoding == "latin1"):
        raise UnsafePickleError("calls _codecs.encode for something other than latin-1 bytes")
    return memoryview(text.encode("latin1"))


def plain_set(entries: Any = ()) -> set:
    """Protocol 2 and 3's spelling of a set: a call with the list of its entries."""
    if not isinstance(entries, list | tuple) or len(entries) > MAX_SET:
        raise FileFormatError("builds a set in a way that checkpoints do not")
    return set(map(plain_key, entries))


def empty_dict(*arguments: Any) -> dict:
    if arguments:
        raise FileFormatError("builds a dictionary in a way that checkpoints do not")
    return {}


def allowed(*names: str, call: Callable[..., Any]) -> dict[str, Any]:
    return {name: Global(name, call) for name in names}


DTYPES = (
    *("float32", "float16", "bfloat16", "float64"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)
ALLOWED: dict[str, Any] = {
    **allowed("collections.OrderedDict", "dnnlib.util.EasyDict", "dnnlib.EasyDict", call=empty_dict),
    **allowed("torch_utils.persistence._reconstruct_persistent_obj", call=persistent_object),
    **allowed("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", call=rebuild_tensor),
    **allowed("builtins.set", "__builtin__.set", call=plain_set),
    **allowed("builtins.frozenset", "__builtin__.frozenset", call=plain_set),
    **allowed(
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        call=rebuild_parameter,
    ),
    **allowed("torch.storage._load_from_bytes", call=load_from_bytes),
    **allowed("torch.Size", call=lambda size: size),
    **allowed("torch.device", call=lambda *place: place),
    **allowed("numpy.dtype", call=numpy_type),
    **allowed("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", call=numpy_scalar),
    **allowed("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", call=numpy_array),
    **allowed("_codecs.encode", call=encode_latin1),
    "numpy.ndarray": Global("numpy.ndarray"),
    **STORAGE_TYPES,
    **{f"torch.{name}": getattr(torch, name) for name in DTYPES},
}
