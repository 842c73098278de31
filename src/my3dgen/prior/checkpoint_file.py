"""Opens a checkpoint file as inert data: dictionaries, records and tensors that are still bytes.

Three containers are read: a plain pickle with nested storages (EG3D's own), torch.save's zip, and
torch.save's older stream. No source text inside is ever evaluated and no class is ever imported.
"""

import io
import mmap
import struct
import zipfile
from pathlib import Path
from typing import Any

from my3dgen.errors import FileFormatError
from my3dgen.prior.allow_list import find_global
from my3dgen.prior.inert_pickle import Budget, one_line, read_pickle
from my3dgen.prior.inert_tensors import LEGACY_MAGIC, StorageData, read_legacy, storage_of

MAX_FILE_BYTES = 2 << 30
MAX_ZIP_ENTRIES = 10_000
MAX_DIRECTORY_BYTES = 4 << 20


def read_checkpoint(path: Path) -> Any:
    """The object tree of a checkpoint: dicts, lists, scalars, `Record`s, `TensorData`.

    Raises FileFormatError or UnsafePickleError, one line that names the file and what was refused.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise FileFormatError(f"{path}: is not a file; give an EG3D checkpoint (.pkl or .pt)")
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
        raise type(error)(f"{path}: {one_line(error)}; nothing in it was run") from None


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
            raise FileFormatError(
                f"announces {storage.numel} numbers in storage '{key[:20]}', which it lacks"
            )
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
        # the archive's directory is the one thing that is read at the length it states
        if size > MAX_DIRECTORY_BYTES:
            raise FileFormatError(f"has a directory of {size} bytes, too many for a checkpoint")
        end = len(self.view) if size is None or size < 0 else min(self.at + size, len(self.view))
        piece = bytes(self.view[self.at : end])
        self.at += len(piece)
        return piece
