"""Opens a checkpoint file as inert data: dictionaries, records and tensors that are still bytes.

Three containers are read: a plain pickle with nested storages (EG3D's own), torch.save's zip, and
torch.save's older stream. No source text inside is ever evaluated, no class is ever imported, and
a tensor becomes numbers only when asked for, inside the bounds of the bytes the file really has.
Allow-list: EG3D spec 2.4.
"""

import io
import math
import mmap
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from my3dgen.errors import FileFormatError, UnsafePickleError
from my3dgen.prior.inert_pickle import Budget, Global, Record, read_pickle

MAX_FILE_BYTES = 2 << 30
MAX_ZIP_ENTRIES = 10_000
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

STORAGE_TYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
NUMPY_TYPE = re.compile(r"[biuf][1248]|\?")
INERT_CLASS = re.compile(r"(training|torch\.nn\.modules)(\.\w+)+")


@dataclass(slots=True)
class StorageData:
    """The bytes behind tensors: `data` is None until the container has located them."""

    dtype: torch.dtype
    numel: int
    data: memoryview | None = None


@dataclass(frozen=True, slots=True)
class TensorData:
    """A tensor that is still bytes. Size, stride and offset are proven to lie inside the storage."""

    storage: StorageData
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def load(self) -> Tensor:
        """The numbers, in memory of their own, with the stored dtype."""
        if math.prod(self.size) == 0:
            return torch.empty(self.size, dtype=self.storage.dtype)
        if self.storage.data is None:
            raise FileFormatError("holds a tensor whose numbers are missing")
        values = torch.frombuffer(bytearray(self.storage.data), dtype=self.storage.dtype)
        return values.as_strided(self.size, self.stride, self.offset).clone().contiguous()


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


def read_checkpoint(path: Path) -> Any:
    """The object tree of a checkpoint: dicts, lists, scalars, `Record`s, `TensorData`.

    Raises FileFormatError or UnsafePickleError, one line that names the file and what was refused.
    """
    path = Path(path)
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        if size == 0:
            raise FileFormatError(f"{path}: is empty; give an EG3D checkpoint (.pkl or .pt)")
        if size > MAX_FILE_BYTES:
            raise FileFormatError(
                f"{path}: is {size / 2**30:.1f} GiB; checkpoints up to {MAX_FILE_BYTES >> 30} GiB are read"
            )
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        return read_container(view)
    except FileFormatError as error:
        raise type(error)(f"{path}: {error}; nothing in it was run") from None


def read_container(view: memoryview) -> Any:
    """Recognise the container by its first bytes and read it."""
    if bytes(view[:4]) == b"PK\x03\x04":
        return read_zip(view)
    if view[0] != 0x80:
        raise FileFormatError("is not a checkpoint (neither a pickle nor a torch.save file)")
    budget = Budget()
    value, _ = read_pickle(view, find_global, budget=budget)
    if value == LEGACY_MAGIC:
        return read_legacy(view, find_global, Budget())
    return value


def read_zip(view: memoryview) -> Any:
    """The object in a torch.save zip. Entries must be stored, so that no entry can inflate."""
    try:
        # the archive is read through the mapping, so the bytes come from one and the same file
        entries = zipfile.ZipFile(_Mapped(view)).infolist()
    except (zipfile.BadZipFile, struct.error, ValueError, OverflowError, NotImplementedError) as error:
        raise FileFormatError(f"is a damaged or truncated archive ({error})") from None
    if len(entries) > MAX_ZIP_ENTRIES:
        raise FileFormatError(f"is an archive of {len(entries)} entries; {MAX_ZIP_ENTRIES} are allowed")
    spans = {entry.filename: zip_span(view, entry) for entry in entries}
    roots = [name.removesuffix("data.pkl") for name in spans if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise FileFormatError("is an archive without a data.pkl; it was not written by torch.save")
    root = roots[0]
    if bytes(spans.get(f"{root}byteorder", b"little")) != b"little":
        raise FileFormatError("is big-endian; save it again on a little-endian machine")

    def persistent(identity: Any) -> StorageData:
        storage, key = storage_of(identity, 5)
        data = spans.get(f"{root}data/{key}")
        if data is None or len(data) != storage.numel * storage.dtype.itemsize:
            raise FileFormatError(f"announces {storage.numel} numbers in storage '{key:.20}', which it lacks")
        storage.data = data
        return storage

    return read_pickle(spans[f"{root}data.pkl"], find_global, persistent=persistent)[0]


def zip_span(view: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of one stored entry."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise FileFormatError(
            f"has the compressed entry '{entry.filename[:60]}', which torch.save never writes"
        )
    header = view[entry.header_offset : entry.header_offset + 30]
    if len(header) < 30 or bytes(header[:4]) != b"PK\x03\x04":
        raise FileFormatError("is a damaged archive (an entry's header is not where it should be)")
    name, extra = struct.unpack("<HH", header[26:30])
    start = entry.header_offset + 30 + name + extra
    if start + entry.file_size > len(view):
        raise FileFormatError("is a truncated archive")
    return view[start : start + entry.file_size]


class _Mapped(io.RawIOBase):
    """A read-only seekable file over a memoryview, so that the archive isn't copied."""

    def __init__(self, view: memoryview):
        self.view, self.at = view, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + (0, self.at, len(self.view))[whence]
        if at < 0:
            raise ValueError("seek before the start")
        self.at = at
        return at

    def read(self, size: int = -1) -> bytes:
        end = len(self.view) if size is None or size < 0 else min(self.at + size, len(self.view))
        piece = bytes(self.view[self.at : end])
        self.at += len(piece)
        return piece


def read_legacy(view: memoryview, names: Callable[[str, str], Any], budget: Budget) -> Any:
    """The object in torch.save's older stream: five pickles, then the numbers of each storage."""
    storages: dict[str, StorageData] = {}

    def persistent(identity: Any) -> StorageData:
        if isinstance(identity, tuple) and len(identity) == 6 and identity[5] is not None:
            raise FileFormatError("holds a view of a storage, which is not read")
        storage, key = storage_of(identity[:5] if isinstance(identity, tuple) else identity, 5)
        return storages.setdefault(key, storage)

    head = []
    position = 0
    for _ in range(3):
        value, position = read_pickle(view, no_globals, start=position, budget=budget)
        head.append(value)
    if head[:2] != [LEGACY_MAGIC, LEGACY_PROTOCOL]:
        raise FileFormatError("holds a storage that torch.save did not write")
    if not (isinstance(head[2], dict) and head[2].get("little_endian") is True):
        raise FileFormatError("is big-endian; save it again on a little-endian machine")
    value, position = read_pickle(view, names, start=position, persistent=persistent, budget=budget)
    keys, position = read_pickle(view, no_globals, start=position, budget=budget)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise FileFormatError("lists other storages than it uses")
    for key in keys:
        storage = storages[key]
        length = storage.numel * storage.dtype.itemsize
        count = int.from_bytes(view[position : position + 8], "little")
        data = view[position + 8 : position + 8 + length]
        if count != storage.numel or len(data) != length:
            raise FileFormatError(f"is truncated: a storage announces {storage.numel} numbers")
        storage.data = data
        position += 8 + length
    return value


def storage_of(identity: Any, length: int) -> tuple[StorageData, str]:
    """A storage from torch's persistent id ('storage', type, key, location, numel)."""
    if not (isinstance(identity, tuple) and len(identity) == length and identity[0] == "storage"):
        raise FileFormatError("refers to data in a way that torch.save does not")
    _, dtype, key, _, numel = identity
    if not (isinstance(dtype, torch.dtype) and isinstance(key, str) and is_count(numel)):
        raise FileFormatError("describes a storage in a way that torch.save does not")
    if numel > MAX_FILE_BYTES:
        raise FileFormatError(f"announces a storage of {numel} numbers")
    return StorageData(dtype, numel), key


def load_from_bytes(data: Any) -> StorageData:
    """One storage that was pickled outside torch.save: a whole older stream as a byte string."""
    if not isinstance(data, memoryview):
        raise FileFormatError("holds a storage that is not a byte string")
    storage = read_legacy(data, find_storage_type, Budget(operations=1000, text_bytes=4096))
    if not isinstance(storage, StorageData):
        raise FileFormatError("holds a storage that torch.save did not write")
    return storage


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorData:
    """A tensor, once it is proven to use no more than its storage has."""
    if not (isinstance(storage, StorageData) and is_count(offset) and is_shape(size) and is_shape(stride)):
        raise FileFormatError("describes a tensor in a way that torch does not")
    if len(size) != len(stride):
        raise FileFormatError(f"holds a tensor of size {size} with stride {stride}")
    numel = math.prod(size)
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    if numel > storage.numel or (numel and last >= storage.numel):
        raise FileFormatError(f"holds a tensor of size {size} over a storage of {storage.numel} numbers")
    return TensorData(storage, offset, tuple(size), tuple(stride))


def rebuild_parameter(data: Any, *_: Any) -> TensorData:
    if not isinstance(data, TensorData):
        raise FileFormatError("holds a parameter that is not a tensor")
    return data


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
    """Protocol 2's spelling of short byte strings."""
    if not (isinstance(text, str) and encoding == "latin1" and len(text) <= 64):
        raise UnsafePickleError("calls _codecs.encode for something other than a few latin-1 bytes")
    return memoryview(text.encode("latin1"))


def empty_dict(*arguments: Any) -> dict:
    if arguments:
        raise FileFormatError("builds a dictionary in a way that checkpoints do not")
    return {}


def find_global(module: str, name: str) -> Any:
    """The stand-in for an allowed name; UnsafePickleError with the name for all others."""
    qualified = f"{module}.{name}"
    if qualified in ALLOWED:
        return ALLOWED[qualified]
    if INERT_CLASS.fullmatch(module) and name.isidentifier():
        return Global(qualified, lambda *_: Record(qualified, {}))
    raise UnsafePickleError(f"asks for {qualified[:120]!r}, which is not on the allow-list")


def find_storage_type(module: str, name: str) -> Any:
    """Inside a nested storage only the names of number types are allowed."""
    found = ALLOWED.get(f"{module}.{name}")
    if not isinstance(found, torch.dtype):
        raise UnsafePickleError(f"asks for {f'{module}.{name}'[:120]!r} inside a storage")
    return found


def no_globals(module: str, name: str) -> Any:
    raise UnsafePickleError(f"asks for {f'{module}.{name}'[:120]!r} in a file header")


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= 8 and all(map(is_count, value))


def allowed(*names: str, call: Callable[..., Any]) -> dict[str, Any]:
    return {name: Global(name, call) for name in names}


DTYPES = ("float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
ALLOWED: dict[str, Any] = {
    **allowed("collections.OrderedDict", "dnnlib.util.EasyDict", "dnnlib.EasyDict", call=empty_dict),
    **allowed("torch_utils.persistence._reconstruct_persistent_obj", call=persistent_object),
    **allowed("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", call=rebuild_tensor),
    **allowed("torch._utils._rebuild_parameter", call=rebuild_parameter),
    **allowed("torch.storage._load_from_bytes", call=load_from_bytes),
    **allowed("torch.Size", call=lambda size: size),
    **allowed("torch.device", call=lambda *place: place),
    **allowed("numpy.dtype", call=numpy_type),
    **allowed("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", call=numpy_scalar),
    **allowed("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", call=numpy_array),
    **allowed("_codecs.encode", call=encode_latin1),
    "numpy.ndarray": Global("numpy.ndarray"),
    **{f"torch.{name}": dtype for name, dtype in STORAGE_TYPES.items()},
    "torch.storage.UntypedStorage": torch.uint8,
    **{f"torch.{name}": getattr(torch, name) for name in DTYPES},
}
