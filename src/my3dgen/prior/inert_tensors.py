"""Tensors of a checkpoint that are still bytes, and torch.save's older stream that holds them.

A tensor becomes numbers only when asked for, inside the bounds of the bytes the file really has.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from my3dgen.errors import FileFormatError, UnsafePickleError
from my3dgen.prior.inert_pickle import Budget, read_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MAX_NUMEL = 1 << 31
STORAGE_TYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.UntypedStorage": torch.uint8,
    "torch.storage.UntypedStorage": torch.uint8,
}


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

    @property
    def reach(self) -> int:
        """Numbers of the storage from the tensor's first to its last."""
        if 0 in self.size:
            return 0
        return 1 + sum((extent - 1) * step for extent, step in zip(self.size, self.stride, strict=True))

    @property
    def nbytes(self) -> int:
        """Bytes that `load` takes at most: what it reads, or what it makes of it."""
        return max(self.reach, math.prod(self.size)) * self.storage.dtype.itemsize

    def load(self) -> Tensor:
        """The numbers, in memory of their own, with the stored dtype."""
        if self.reach == 0:
            return torch.empty(self.size, dtype=self.storage.dtype)
        if self.storage.data is None:
            raise FileFormatError("holds a tensor whose numbers are missing")
        width = self.storage.dtype.itemsize
        data = self.storage.data[self.offset * width : (self.offset + self.reach) * width]
        values = torch.frombuffer(bytearray(data), dtype=self.storage.dtype)
        return values.as_strided(self.size, self.stride).contiguous()


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorData:
    """A tensor, once it is proven to use no more than its storage has."""
    if not (isinstance(storage, StorageData) and is_count(offset) and is_shape(size) and is_shape(stride)):
        raise FileFormatError("describes a tensor in a way that torch does not")
    if len(size) != len(stride):
        raise FileFormatError(f"holds a tensor of size {size} with stride {stride}")
    tensor = TensorData(storage, offset, size, stride)
    # an empty tensor needs no storage, but torch refuses extents whose product overflows
    if math.prod(size) > storage.numel or math.prod(max(extent, 1) for extent in size) > MAX_NUMEL:
        raise FileFormatError(f"holds a tensor of size {size} over a storage of {storage.numel} numbers")
    if tensor.reach and offset + tensor.reach > storage.numel:
        raise FileFormatError(f"holds a tensor of size {size} over a storage of {storage.numel} numbers")
    return tensor


def rebuild_parameter(data: Any, *_: Any) -> TensorData:
    if not isinstance(data, TensorData):
        raise FileFormatError("holds a parameter that is not a tensor")
    return data


def storage_of(identity: Any, length: int) -> tuple[StorageData, str]:
    """A storage from torch's persistent id ('storage', type, key, location, numel)."""
    if not (isinstance(identity, tuple) and len(identity) == length and identity[0] == "storage"):
        raise FileFormatError("refers to data in a way that torch.save does not")
    _, dtype, key, _, numel = identity
    if not (isinstance(dtype, torch.dtype) and isinstance(key, str) and is_count(numel)):
        raise FileFormatError("describes a storage in a way that torch.save does not")
    if numel > MAX_NUMEL:
        raise FileFormatError(f"announces a storage of {numel} numbers")
    return StorageData(dtype, numel), key


def read_legacy(view: memoryview, names: Callable[[str, str], Any], budget: Budget) -> Any:
    """The object in torch.save's older stream: five pickles, then the numbers of each storage."""
    storages: dict[str, StorageData] = {}

    def persistent(identity: Any) -> Any:
        if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
            return identity[1]  # a class by name, with its source text, which is left alone
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


def load_from_bytes(data: Any) -> StorageData:
    """One storage that was pickled outside torch.save: a whole older stream as a byte string."""
    if not isinstance(data, memoryview):
        raise FileFormatError("holds a storage that is not a byte string")
    storage = read_legacy(data, find_storage_type, Budget(operations=1000, text_bytes=4096))
    if not isinstance(storage, StorageData):
        raise FileFormatError("holds a storage that torch.save did not write")
    return storage


def find_storage_type(module: str, name: str) -> Any:
    """Inside a nested storage only the names of number types are allowed."""
    qualified = f"{module}.{name}"
    if qualified not in STORAGE_TYPES:
        raise UnsafePickleError(f"asks for {qualified[:120]!r} inside a storage")
    return STORAGE_TYPES[qualified]


def no_globals(module: str, name: str) -> Any:
    raise UnsafePickleError(f"asks for {f'{module}.{name}'[:120]!r} in a file header")


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= 8 and all(map(is_count, value))
