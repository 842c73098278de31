"""Priors on this machine: where they live, how they are checked, loaded and written.

A prior is a folder: config.json, generator.safetensors, perhaps encoder.safetensors and
directions.safetensors, SHA256SUMS of all these, and card.md for people. The embedded ones are inside the
package; the user's are under MY3DGEN_HOME, else in the cache directory of the platform's convention
(XDG_CACHE_HOME).
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from my3dgen.config import PriorConfig
from my3dgen.errors import FileFormatError, MissingWeightsError, UserError
from my3dgen.int8 import from_int8, to_int8
from my3dgen.prior.directions import load_directions
from my3dgen.prior.encoder import Encoder, encoder_config
from my3dgen.prior.generator import Generator
from my3dgen.tensor_file import NUMBERS, read_tensors, write_tensors, write_text

EMBEDDED = Path(__file__).resolve().parent.parent / "weights" / "priors"
CONFIG, WEIGHTS, SUMS, CARD, DIRECTIONS, ENCODER = (
    "config.json",
    "generator.safetensors",
    "SHA256SUMS",
    "card.md",
    "directions.safetensors",
    "encoder.safetensors",
)
MAX_WEIGHTS_BYTES = 1 << 30
MAX_DIRECTIONS_BYTES = 16 << 20
MAX_ENCODER_BYTES = 256 << 20
MAX_TEXT_BYTES = 1 << 20
SUMMED = {
    CONFIG: MAX_TEXT_BYTES,
    WEIGHTS: MAX_WEIGHTS_BYTES,
    ENCODER: MAX_ENCODER_BYTES,
    DIRECTIONS: MAX_DIRECTIONS_BYTES,
}
"""The files that SHA256SUMS lists, and their largest sizes. The first two it must list; the others are
verified where it does (older folders list two)."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
REMEDY = "import or install this prior again"

# far above every published model, far below what exhausts a machine
LIMITS = {
    "z_dim": 4096,
    "w_dim": 4096,
    "mapping_layers": 64,
    "channel_base": 1 << 18,
    "channel_max": 4096,
    "plane_resolution": 1024,
    "plane_features": 256,
    "decoder_hidden": 1024,
    "render_features": 256,
    "neural_rendering_resolution": 1024,
    "img_resolution": 2048,
    "superresolution_input": 512,
    "depth_resolution": 1024,
    "depth_resolution_importance": 1024,
}


@dataclass(frozen=True)
class Prior:
    """A generator that many people share, frozen."""

    name: str
    generator: Generator
    sha256: str
    """Of generator.safetensors: what a person file is tied to."""
    directions: dict[str, Tensor]
    """Edit directions in W by attribute, "w_dim" each."""
    folder: Path
    encoder: Encoder | None = None
    """Image to latent, where inversion starts; not every prior has one."""

    @property
    def config(self) -> PriorConfig:
        return self.generator.config


def user_folder() -> Path:
    """Where this user's priors live."""
    if home := os.environ.get("MY3DGEN_HOME"):
        return Path(os.path.expanduser(home)) / "priors"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "my3dgen" / "priors"


def prior_folders() -> dict[str, Path]:
    """Folders by name, embedded ones first; a user's prior can't take an embedded name."""
    found: dict[str, Path] = {}
    for place in (EMBEDDED, user_folder()):
        if place.is_dir():
            for folder in sorted(place.iterdir()):
                if NAME.fullmatch(folder.name) and (folder / CONFIG).is_file():
                    found.setdefault(folder.name, folder)
    return found


def find_prior(name_or_path: str | os.PathLike) -> Path:
    """The folder of a prior. Raises MissingWeightsError that lists those present."""
    folders = prior_folders()
    if str(name_or_path) in folders:
        return folders[str(name_or_path)]
    # os.path, because pathlib raises for an unknown ~user and for a name that is too long
    path = os.path.expanduser(name_or_path)
    if os.path.isfile(os.path.join(path, CONFIG)):
        return Path(path)
    known, wanted = ", ".join(folders) or "none", str(name_or_path)
    wanted = wanted if len(wanted) <= 200 else f"{wanted[:200]}..."
    raise MissingWeightsError(
        f"no prior '{wanted}' (present: {known}); bring a checkpoint with my3dgen prior import"
    )


def load_prior(name_or_path: str | os.PathLike = "mini", device: str | torch.device = "cpu") -> Prior:
    """A prior by name or folder, in float32, frozen and in eval mode.

    Raises MissingWeightsError if there is none of that name, FileFormatError if a file is damaged,
    edited (SHA256SUMS) or does not fit its configuration.
    """
    folder = find_prior(name_or_path)
    sums = read_sums(folder)
    check_files(folder, sums)
    config = read_config(folder / CONFIG)
    tensors, _ = read_tensors(
        folder / WEIGHTS, MAX_WEIGHTS_BYTES, remedy=REMEDY, shapes=generator_shapes(config)
    )
    return Prior(
        name=folder.resolve().name,
        generator=build_generator(config, tensors).to(device),
        sha256=sums[WEIGHTS],
        directions=read_directions(folder, config, device),
        folder=folder,
        encoder=read_encoder(folder, config, device),
    )


def build_generator(config: PriorConfig, tensors: Mapping[str, Tensor]) -> Generator:
    """A frozen generator in eval mode that uses these tensors (all of its state dict)."""
    with torch.device("meta"):
        generator = Generator(config)
    generator.load_state_dict(dict(tensors), assign=True)
    return generator.eval().requires_grad_(False)


def generator_shapes(config: PriorConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a generator's state dict, without allocating it.

    Raises FileFormatError if the configuration asks for something absurdly large.
    """
    for name, limit in LIMITS.items():
        value = getattr(config, name)
        if value is not None and value > limit:
            raise FileFormatError(f"prior config: '{name}' is {value}; at most {limit} is supported")
    with torch.device("meta"):
        state = Generator(config).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    numbers = sum(tensor.numel() for tensor in state.values())
    if numbers * 4 > 4 * MAX_WEIGHTS_BYTES:
        raise FileFormatError(f"prior config: describes {numbers / 1e9:.1f} billion numbers, too many")
    return shapes


def read_config(path: Path) -> PriorConfig:
    """A folder's config.json. Raises FileFormatError."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise FileFormatError(f"{path}: is too large for a configuration; {REMEDY}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise FileFormatError(f"{path}: is not JSON; {REMEDY}") from None
    if not isinstance(values, dict):
        raise FileFormatError(f"{path}: is not a JSON object; {REMEDY}")
    try:
        return PriorConfig.from_dict(values)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from None


def read_directions(folder: Path, config: PriorConfig, device: str | torch.device) -> dict[str, Tensor]:
    """The prior's edit directions, or none."""
    path = folder / DIRECTIONS
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_DIRECTIONS_BYTES:
        raise FileFormatError(f"{path}: is too large for edit directions; make it again")
    directions, _ = load_directions(path)
    for name, vector in directions.items():
        if vector.shape != (config.w_dim,):
            raise FileFormatError(
                f"{path}: direction '{name}' has {len(vector)} numbers, the prior's w has {config.w_dim}; "
                "make it again"
            )
    return {name: vector.float().to(device) for name, vector in directions.items()}


def read_encoder(folder: Path, config: PriorConfig, device: str | torch.device) -> Encoder | None:
    """The prior's encoder, or None."""
    path = folder / ENCODER
    if not path.is_file():
        return None
    with torch.device("meta"):
        encoder = Encoder(encoder_config(config))
    shapes = {name: tuple(tensor.shape) for name, tensor in to_int8(encoder.state_dict()).items()}
    tensors, _ = read_tensors(path, MAX_ENCODER_BYTES, remedy=REMEDY, shapes=shapes, numbers=(*NUMBERS, "I8"))
    encoder.load_state_dict(from_int8(tensors), assign=True)
    return encoder.eval().requires_grad_(False).to(device)


def read_sums(folder: Path) -> dict[str, str]:
    """File name -> sha256 from SHA256SUMS (the format of `sha256sum`), of the files in SUMMED."""
    path = folder / SUMS
    if not path.is_file() or path.stat().st_size > MAX_TEXT_BYTES:
        raise FileFormatError(f"{path}: is missing or too large; {REMEDY}")
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
        listed = {name.removeprefix("*"): digest for digest, name in lines}
    except ValueError:
        raise FileFormatError(f"{path}: is not in the format of sha256sum; {REMEDY}") from None
    if missing := [name for name in (CONFIG, WEIGHTS) if name not in listed]:
        raise FileFormatError(f"{path}: does not list {missing[0]}; {REMEDY}")
    return {name: listed[name] for name in SUMMED if name in listed}


def check_files(folder: Path, sums: Mapping[str, str]) -> None:
    """Raise FileFormatError, naming the file, unless every listed file is there and has its sum."""
    for name, digest in sums.items():
        if not (folder / name).is_file():
            raise FileFormatError(f"{folder / name}: is missing; {REMEDY}")
        if sha256_of(folder / name, SUMMED[name]) != digest:
            raise FileFormatError(f"{folder / name}: differs from {SUMS} (damaged or edited); {REMEDY}")


def sha256_of(path: Path, max_bytes: int) -> str:
    """The sha256 of a file, in hex. Raises FileFormatError if it is larger than `max_bytes`."""
    with path.open("rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > max_bytes:
            raise FileFormatError(f"{path}: is {size / 2**20:.0f} MiB, too large; {REMEDY}")
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_new_name(name: str) -> Path:
    """The folder a new user prior of this name will have. Raises UserError if it can't be used."""
    if not NAME.fullmatch(name):
        raise UserError(f"'{name}' can't name a prior; use lower-case letters, digits, '-', '_' and '.'")
    if name in prior_folders() or (user_folder() / name).exists():
        raise UserError(f"a prior '{name}' is already there; choose another --name or delete it")
    return user_folder() / name


def write_prior(
    folder: Path,
    config: PriorConfig,
    tensors: Mapping[str, Tensor],
    card: str,
    *,
    half: bool = False,
    encoder: Encoder | None = None,
) -> Path:
    """Write a prior's folder beside `folder`, then rename; `tensors` is the generator's state dict.

    With `half` the weights are stored in fp16; an encoder always is in int8. Raises UserError if `folder`
    exists, FileFormatError if what was written can't be loaded; then nothing is left.
    """
    folder = Path(folder)
    there = UserError(f"{folder}: is already there; choose another place")
    if folder.exists():
        raise there
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    beside.mkdir(parents=True)
    try:
        dtype = torch.float16 if half else torch.float32
        write_tensors(beside / WEIGHTS, {name: t.to(dtype) for name, t in tensors.items()}, {})
        if encoder is not None:
            write_tensors(beside / ENCODER, to_int8(encoder.state_dict()), {})
        (beside / CONFIG).write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
        (beside / CARD).write_text(card, encoding="utf-8")
        write_sums(beside)
        try:
            load_prior(beside)
        except FileFormatError as error:
            raise FileFormatError(str(error).replace(str(beside), str(folder))) from None
        try:
            beside.rename(folder)
        except OSError:
            if folder.exists():  # someone was faster
                raise there from None
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def write_sums(folder: Path, *names: str) -> None:
    """Write SHA256SUMS anew: the entries of `names`, keeping the others; by default of all files there."""
    sums = read_sums(folder) if names else {}
    present = names or [name for name in SUMMED if (folder / name).is_file()]
    sums |= {name: sha256_of(folder / name, SUMMED[name]) for name in present}
    write_text(folder / SUMS, "".join(f"{sums[name]}  {name}\n" for name in SUMMED if name in sums))
