"""What this machine and this installation offer: one check a line, each with its remedy.

A check is `ok`, a `note` (works, but slower or with something optional absent) or `missing`
(something the package cannot work without).
"""

import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from my3dgen.errors import UserError

GIB = 2**30
MEMORY_NEEDED = 6 * GIB
DISK_NEEDED = 1 * GIB
REINSTALL = "reinstall my3dgen"
DEMO = Path(__file__).parent / "weights" / "demo"


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    state: Literal["ok", "note", "missing"]
    found: str
    """What is there."""
    remedy: str = ""
    """What to do about it; empty if nothing need be done."""


def examine() -> Iterator[Check]:
    """All checks, in the order they are made."""
    yield check_python()
    packages = check_packages()
    yield packages
    if packages.state == "missing":
        return  # the others need them
    yield check_torch()
    yield check_arithmetic()
    yield check_threads()
    yield check_memory()
    yield check_disk(Path.cwd())
    yield check_ffmpeg()
    yield check_pictures()
    yield from check_networks()
    yield from check_priors()
    yield check_demo_album()
    yield check_cache()


def check_python() -> Check:
    """The interpreter; one too old could not have imported this module."""
    return Check("python", "ok", f"{platform.python_version()}, {platform.system()} {platform.machine()}")


def check_packages() -> Check:
    """The libraries that this package asks for are installed."""
    asked = [line for line in metadata.requires("my3dgen") or () if "extra ==" not in line]
    absent = []
    for requirement in asked:
        try:
            metadata.version(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
        except metadata.PackageNotFoundError:
            absent.append(requirement)
    if absent:
        wanted = " ".join(f"'{requirement}'" for requirement in absent)
        return Check("packages", "missing", ", ".join(absent), f"pip install {wanted}")
    return Check("packages", "ok", f"all {len(asked)} are installed")


def check_torch() -> Check:
    """PyTorch imports."""
    try:
        import torch
    except ImportError as error:
        return Check("torch", "missing", str(error), "pip install torch")
    return Check("torch", "ok", torch.__version__)


def check_arithmetic() -> Check:
    """A CUDA device, or what the CPU offers for bfloat16."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        memory = f"{properties.total_memory / GIB:.0f} GiB"
        return Check("arithmetic", "ok", f"CUDA, {properties.name}, {memory}")
    flags = cpu_flags()
    if "amx_bf16" in flags:
        return Check("arithmetic", "ok", "CPU with AMX bfloat16; no CUDA device")
    wide = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "plain"
    return Check("arithmetic", "note", f"CPU ({wide}), no CUDA device", "works; a CUDA device is faster")


def cpu_flags() -> set[str]:
    """The CPU's feature flags where the system tells them (Linux), else none."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return next((set(row.split()[2:]) for row in text.splitlines() if row.startswith("flags")), set())


def check_threads() -> Check:
    """How many threads torch will use, against the cores this process may use."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    found = f"{threads} of {cores} cores"
    if threads < cores:
        return Check("threads", "note", found, "unset OMP_NUM_THREADS to use all")
    return Check("threads", "ok", found)


def check_memory() -> Check:
    """Memory that is free now, against what the demo needs."""
    free = available_memory()
    if free is None:
        return Check(
            "memory", "note", "unknown on this system", f"{MEMORY_NEEDED // GIB} GiB free are enough"
        )
    found = f"{free / GIB:.1f} GiB free"
    if free < MEMORY_NEEDED:
        return Check("memory", "note", found, f"close programs: {MEMORY_NEEDED // GIB} GiB are enough")
    return Check("memory", "ok", found)


def available_memory() -> int | None:
    """Bytes that can be had without swapping, or None where the system does not say."""
    try:
        rows = Path("/proc/meminfo").read_text().splitlines()
        return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def check_disk(folder: Path) -> Check:
    """Free space where results would be written."""
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free in {folder}"
    if free < DISK_NEEDED:
        return Check("disk", "note", found, "free 1 GiB, or run elsewhere")
    return Check("disk", "ok", found)


def check_ffmpeg() -> Check:
    """The ffmpeg that imageio brings, for mp4."""
    try:
        import imageio_ffmpeg

        return Check("ffmpeg", "ok", Path(imageio_ffmpeg.get_ffmpeg_exe()).name)
    except (ImportError, RuntimeError):
        remedy = "pip install 'imageio[ffmpeg]' for mp4; webp and gif work without"
        return Check("ffmpeg", "note", "none found", remedy)


def check_pictures() -> Check:
    """Pillow with a scalable font (sheets) and WebP (moving pictures)."""
    from PIL import features

    absent = [name for name in ("freetype2", "webp", "jpg", "zlib") if not features.check(name)]
    if absent:
        return Check(
            "pictures and fonts", "missing", f"Pillow without {', '.join(absent)}", "pip install pillow"
        )
    return Check("pictures and fonts", "ok", f"Pillow {features.version('pil')}, FreeType, WebP")


def check_networks() -> Iterator[Check]:
    """Every network that ships with the package, by sha256."""
    from my3dgen.weights.networks import FOLDER, manifest

    for name, entry in manifest().items():
        path = FOLDER / f"{name}.safetensors"
        label = f"network {name}"
        if not path.is_file():
            yield Check(label, "missing", f"{path} is absent", REINSTALL)
        elif sha256(path) != entry["sha256"]:
            yield Check(label, "missing", f"{path} is damaged (sha256 differs)", REINSTALL)
        else:
            yield Check(label, "ok", f"sha256 {entry['sha256'][:12]}, {entry['licence']}")


def check_priors() -> Iterator[Check]:
    """Every prior on this machine against its own SHA256SUMS; without `mini` there is no default."""
    from my3dgen.prior.store import EMBEDDED, WEIGHTS, prior_folders, read_sums

    folders = prior_folders()
    if "mini" not in folders:
        yield Check("prior mini", "missing", f"{EMBEDDED / 'mini'} is absent", REINSTALL)
    for name, folder in folders.items():
        remedy = REINSTALL if folder.is_relative_to(EMBEDDED) else f"import it again and delete {folder}"
        try:
            sums = read_sums(folder)
            wrong = [n for n in sums if not (folder / n).is_file() or sha256(folder / n) != sums[n]]
        except (UserError, OSError) as error:
            yield Check(f"prior {name}", "missing", str(error))
            continue
        if wrong:
            yield Check(f"prior {name}", "missing", f"{folder / wrong[0]} is absent or damaged", remedy)
        else:
            size = (folder / WEIGHTS).stat().st_size / 1e6
            yield Check(f"prior {name}", "ok", f"sha256 {sums[WEIGHTS][:12]}, {size:.1f} MB, {folder}")


def check_demo_album() -> Check:
    """The photos that `my3dgen demo` runs on."""
    photos = sorted((DEMO / "photos").glob("*.*"))
    if not photos:
        return Check("demo album", "note", f"{DEMO} is absent", f"{REINSTALL} to run my3dgen demo")
    return Check("demo album", "ok", f"{len(photos)} photos in {DEMO}")


def check_cache() -> Check:
    """Whether imported priors can be kept; nothing is left behind by looking."""
    from my3dgen.prior.store import user_folder

    folder = user_folder()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing):
            return Check("cache folder", "ok", f"{folder}, writable")
    except OSError as error:
        remedy = "set MY3DGEN_HOME to a folder you can write to"
        return Check("cache folder", "note", f"{existing}: {error.strerror}", remedy)


def sha256(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
