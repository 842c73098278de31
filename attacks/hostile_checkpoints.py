"""Checkpoints that try to harm whoever opens them. Each must be refused in one line.

python attacks/hostile_checkpoints.py      writes them to a temporary folder and tries them all
"""

import contextlib
import io
import os
import pickle
import resource
import struct
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch

WITNESS = "my3dgen-attack-ran"


def glob(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def call(module: str, name: str, arguments: bytes) -> bytes:
    return b"\x80\x04" + glob(module, name) + arguments + b"R."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def storage(numel: int, data: bytes) -> bytes:
    """What `_load_from_bytes` is given: torch.save's older stream of one storage."""
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    head += pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    identity = text("storage") + glob("torch", "FloatStorage") + text("0") + text("cpu") + number(numel)
    body = b"\x80\x02(" + identity + b"NtQ." + pickle.dumps(["0"], 2)
    return head + body + struct.pack("<q", numel) + data


def tensor(
    size: list[int], stride: list[int], *, offset: int = 0, numel: int = 4, data: bytes = bytes(16)
) -> bytes:
    """A pickle of one tensor over a storage of four numbers, with any geometry."""
    nested = storage(numel, data)
    made = glob("torch.storage", "_load_from_bytes") + b"(B" + struct.pack("<I", len(nested)) + nested + b"tR"
    shapes = b"".join(b"(" + b"".join(map(number, values)) + b"t" for values in (size, stride))
    hooks = glob("collections", "OrderedDict") + b")R"
    return (
        b"\x80\x04"
        + glob("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + made
        + number(offset)
        + shapes
        + b"\x89"
        + hooks
        + b"tR."
    )


def torch_zip(change=lambda name, data: data, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A torch.save file whose entries went through `change`."""
    source, target = io.BytesIO(), io.BytesIO()
    torch.save({"G_ema": {"a": torch.zeros(4)}}, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target.getvalue()


def swap(old: bytes, new: bytes):
    return lambda name, data: data.replace(old, new) if name.endswith("data.pkl") else data


def doubled(times: int) -> bytes:
    """A tuple of pairs of pairs...: small to write, exponential to hash."""
    return (
        b"\x80\x04)"
        + b"\x94"
        + b"".join(b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86\x94" for k in range(times))
    )


def many_views(names: str, count: int, megabytes: int) -> bytes:
    """A torch.save file whose tensors are all the same storage."""
    base, target = torch.zeros(megabytes << 18), io.BytesIO()
    torch.save({"G_ema": {names.format(k): base for k in range(count)}}, target)
    return target.getvalue()


def object_array() -> bytes:
    return pickle.dumps({"G_ema": np.array([{}], dtype=object)}, 4)


SHELL = f"touch {WITNESS}"
FILES: dict[str, bytes] = {
    # names
    "os.system": call("os", "system", b"(" + text(SHELL) + b"t"),
    "posix.system": call("posix", "system", b"(" + text(SHELL) + b"t"),
    "builtins.eval": call("builtins", "eval", b"(" + text(f"open('{WITNESS}', 'w')") + b"t"),
    "builtins.getattr": call("builtins", "getattr", b"(" + text("a") + text("b") + b"t"),
    "torch.load": call("torch", "load", b"(" + text("x") + b"t"),
    "torch.hub.load": call("torch.hub", "load", b"(" + text("x/y") + text("z") + b"t"),
    "runpy through a dotted name": call("torch._utils", "sys.modules", b")"),
    "a name with terminal codes": b"\x80\x04" + text("a\x1b[2J\n") + text("b") + b"\x93.",
    "training class outside its package": call("training.triplane.os", "system.x", b")"),
    "a stack of names": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01a\x85R.",
    "extension registry": b"\x80\x04\x82\x01.",
    "instance opcode": b"\x80\x04(ios\nsystem\n.",
    "text protocol": b"cos\nsystem\n(S'" + SHELL.encode() + b"'\ntR.",
    "state of a name": b"\x80\x04" + glob("numpy", "ndarray") + b"}b.",
    "call of a type": b"\x80\x04" + glob("torch", "FloatStorage") + b")R.",
    "object array": object_array(),
    "object dtype": call("numpy", "dtype", b"(" + text("O8") + b"t"),
    "name inside a storage": call(
        "torch.storage", "_load_from_bytes",
        b"(B" + struct.pack("<I", len(call("os", "system", b")"))) + call("os", "system", b")") + b"t",
    ),
    "name inside a zip": torch_zip(swap(b"ctorch._utils\n_rebuild_tensor_v2\n", b"cos\nsystem\n")),
    # sizes
    "bytes of 4 EiB": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
    "bytes of 4 GiB": b"\x80\x04B" + struct.pack("<I", 0xFFFFFFFF) + b"x.",
    "bytearray of 4 EiB": b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b"x.",
    "text of 4 EiB": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    "frame of 4 EiB": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "integer of 2 GiB": b"\x80\x04\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"x.",
    "integer of -1 bytes": b"\x80\x04\x8b" + struct.pack("<i", -1) + b"x.",
    "integer of 100 KB": b"\x80\x04\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000 + b".",
    "memo at 4 billion": b"\x80\x04Nr" + struct.pack("<I", 0xFFFFFFFF) + b".",
    "half a million memo entries": b"\x80\x04N" + b"\x94" * 500_000 + b".",
    "lists nested 100,000 deep": b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "tuples nested 100,000 deep": b"\x80\x04)" + b"\x85" * 100_000 + b".",
    "an exponential tuple as a key": doubled(100) + b"\x940}h\x60Ns.",
    "an exponential tuple": doubled(100) + b".",
    "a list that doubles": b"\x80\x04]\x94" + b"(h\x00h\x00e" * 100_000 + b".",
    "strings over and over": b"\x80\x04X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"\x94"
    + (b"0" + glob("_codecs", "encode") + b"h\x00\x8c\x06latin1\x86R") * 1000 + b".",
    "bytes that are never there": call("numpy._core.multiarray", "scalar", b")"),
    # tensors
    "tensor of a billion numbers": tensor([1 << 30], [1]),
    "tensor of a billion by stride 0": tensor([1 << 30], [0]),
    "tensor of 2^60 by 2^60": tensor([1 << 60, 1 << 60], [1, 1]),
    "tensor with a long stride": tensor([2], [1 << 40]),
    "tensor with a negative stride": tensor([2], [-1], offset=3),
    "tensor with a negative offset": tensor([2], [1], offset=-8),
    "tensor past its end": tensor([4], [1], offset=1),
    "tensor of negative size": tensor([-1], [1]),
    "empty tensor of 2^47 by 2^47": tensor([0, 1 << 47, 1 << 47], [1, 1, 1]),
    "sixty views of 8 MiB": many_views("p{}.lora_A", 60, 8),
    "sixty views of 8 MiB by other names": many_views("p{}.weight", 60, 8),
    "a set of one list over and over": b"\x80\x04]\x94(" + b"K\x01" * 300 + b"e"
    + (glob("builtins", "set") + b"h\x00\x85R0") * 1000 + b".",
    "tensor of 100 axes": tensor([1] * 100, [1] * 100),
    "storage of a billion numbers": tensor([4], [1], numel=1 << 30),
    "storage of 2^62 numbers": tensor([4], [1], numel=1 << 62),
    "zip with a longer tensor": torch_zip(swap(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85")),
    "zip with a longer storage": torch_zip(swap(b"K\x04tq", b"J\xff\xff\xff\x7ftq")),
    "zip that inflates": torch_zip(
        lambda name, data: bytes(1 << 24) if name.endswith("/data/0") else data, zipfile.ZIP_DEFLATED
    ),
    "zip without its storage": torch_zip().replace(b"data/0", b"data/9"),
    "zip that is cut": torch_zip()[:-40],
    "zip with a large directory": torch_zip().replace(
        b"PK\x05\x06", bytes(5 << 20) + b"PK\x05\x06"
    )[:-10] + struct.pack("<IIH", 5 << 20, 0, 0),
    "zip of nothing": b"PK\x03\x04" + bytes(100),
    # not checkpoints
    "empty": b"",
    "text": b"\xef\xbb\xbfmy favourite checkpoint\n",
    "only the first byte": b"\x80",
    "another protocol": b"\x80\x09N.",
    "stack underflow": b"\x80\x040.",
    "mark without a group": b"\x80\x04t.",
    "a group without an end": b"\x80\x04(N.",
    "an odd dictionary": b"\x80\x04}(Nu.",
    "unknown memo": b"\x80\x04h\x05.",
    "binary text": b"\x80\x04X\x02\x00\x00\x00\xff\xfe.",
}  # fmt: skip


def attempt(path: Path) -> str | None:
    """Import one file; the refusal's line, or None if it was let in. Other errors are raised."""
    from my3dgen.errors import FileFormatError
    from my3dgen.prior.eg3d_import import import_checkpoint

    try:
        import_checkpoint(path, "hostile", like="tiny")
    except FileFormatError as refusal:
        return str(refusal)
    return None


def peak_memory() -> float:
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Try them all; return how many were let in, harmed something, or cost much."""
    failures = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["MY3DGEN_HOME"] = folder
        path = Path(folder) / "hostile.pkl"
        for title, data in {"a first one, for the imports": b"", **FILES}.items():
            path.write_bytes(data)
            before, start = peak_memory(), time.process_time()
            line = attempt(path)
            seconds, memory = time.process_time() - start, peak_memory() - before
            # the first attempt brings in the libraries, which is not the file's doing
            cheap = data == b"" or (seconds < 5 and memory < 100)
            harmed = [p.name for p in Path(folder).iterdir()] != [path.name]
            good = line is not None and line.isprintable() and cheap and not harmed
            failures += not good
            shown = (line or "LET IN").replace(f"{path}: ", "")
            print(f"{'ok ' if good else 'BAD'} {seconds:5.2f} s {memory:6.1f} MiB  {title}: {shown}")
    print(f"{len(FILES) + 1 - failures} of {len(FILES) + 1} refused")
    return failures


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
