"""An album: photos of one person, cropped alike, each with its camera. On disk an EG3D dataset folder.

ALBUM/
  dataset.json        {"labels": [["name.png", [25 numbers]], ...]}   (EG3D spec 3.3)
  name.png ...        square RGB pictures of one size
  masks/name.png      the person white, the rest black (optional)
  report.json         what was used, what was left out, and why (optional)
  sheet.png           everything at a glance (optional)
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from my3dgen.cameras import check_label
from my3dgen.errors import FileFormatError, UserError

SHEET = "sheet.png"


@dataclass(frozen=True)
class Album:
    """Photos of one person in one size, in the order of their names."""

    images: Float[Tensor, "batch 3 size size"]
    """RGB in [-1, 1]."""
    cameras: Float[Tensor, "batch 25"]
    """EG3D labels."""
    masks: Float[Tensor, "batch 1 size size"] | None
    """1 where the person is; None when the album has no masks."""
    names: tuple[str, ...]
    """File names, such as "beach.png"."""
    folder: Path | None = None
    """Where the album was read from."""

    def __len__(self) -> int:
        return len(self.names)


def read_album(folder: str | os.PathLike, resolution: int | None = None) -> Album:
    """Read an album or any EG3D dataset folder of square pictures, resized to `resolution` if given.

    Raises FileFormatError when something is missing, damaged or of another size than the rest.
    """
    folder = Path(folder)
    labels = read_labels(folder)
    images, masks = [], []
    size = resolution
    for name in labels:
        image = _open(folder / name, "RGB")
        if image.width != image.height:
            raise FileFormatError(
                f"{folder / name} is {image.width} x {image.height}; album pictures are square"
            )
        if resolution is None and size not in (None, image.width):
            raise FileFormatError(
                f"{folder / name} is {image.width} pixels wide, others {size}; use one size"
            )
        size = size or image.width
        images.append(_tensor(image, size) / 127.5 - 1)
        if (folder / "masks" / name).is_file():
            masks.append(_tensor(_open(folder / "masks" / name, "L"), size) / 255)
    if masks and len(masks) != len(images):
        raise FileFormatError(
            f"{folder}/masks has {len(masks)} of {len(images)} masks; complete it or remove it"
        )
    return Album(
        images=torch.stack(images),
        cameras=torch.tensor([labels[name] for name in labels], dtype=torch.float32),
        masks=torch.stack(masks) if masks else None,
        names=tuple(labels),
        folder=folder,
    )


def write_album(
    folder: str | os.PathLike,
    album: Album,
    report: dict | None = None,
    sheet: Image.Image | None = None,
) -> Path:
    """Write a whole album; an album already there is replaced, anything else is refused (UserError)."""
    with AlbumWriter(folder) as writer:
        for i, name in enumerate(album.names):
            pixels = (album.images[i].detach() * 127.5 + 128).clamp(0, 255).byte().cpu()
            image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
            mask = None
            if album.masks is not None:
                grey = (album.masks[i, 0].detach() * 255).round().clamp(0, 255).byte().cpu()
                mask = Image.fromarray(grey.numpy())
            writer.add(name, image, album.cameras[i].tolist(), mask)
        return writer.finish(report, sheet)


class AlbumWriter:
    """Writes an album picture by picture beside its place; `finish` moves it there as a whole.

    Leaving the `with` block without `finish` leaves nothing behind. Raises UserError at once when
    `folder` holds something that is not an album.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        check_free(self.folder)
        self.beside = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.part")
        self.labels: list[tuple[str, list[float]]] = []

    def __enter__(self) -> "AlbumWriter":
        self.beside.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.beside, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(self.folder)  # Pillow does not say which picture filled the disk

    def add(
        self, name: str, image: Image.Image, camera: Sequence[float], mask: Image.Image | None = None
    ) -> str:
        """Store one square picture and its camera; the name gets the suffix .png. Returns the name."""
        name = f"{Path(name).stem}.png"
        taken = {SHEET, *(n for n, _ in self.labels)}
        count = 2
        while name in taken:
            name, count = f"{Path(name).stem.removesuffix(f'-{count - 1}')}-{count}.png", count + 1
        check_label(list(camera), name)
        image.convert("RGB").save(self.beside / name)
        if mask is not None:
            (self.beside / "masks").mkdir(exist_ok=True)
            mask.convert("L").save(self.beside / "masks" / name)
        self.labels.append((name, [float(x) for x in camera]))
        return name

    def finish(self, report: dict | None = None, sheet: Image.Image | None = None) -> Path:
        """Add dataset.json, report.json and sheet.png and put the album in its place."""
        self.labels.sort()
        (self.beside / "dataset.json").write_text(json.dumps({"labels": self.labels}))
        if report is not None:
            (self.beside / "report.json").write_text(
                json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8"
            )
        if sheet is not None:
            sheet.save(self.beside / SHEET)
        old = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.old")
        if self.folder.exists():
            self.folder.rename(old)
        self.beside.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)
        return self.folder


def check_free(folder: Path) -> None:
    """Raise UserError unless an album may be written at `folder`: absent, empty, or an album and no more."""
    if folder.name in ("", ".."):
        raise UserError(f"{folder} cannot be replaced by an album; name a folder, such as {folder / 'album'}")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder for the album")
    if others := {entry.name for entry in folder.iterdir()} - _parts(folder):
        raise UserError(
            f"{folder} holds other things than an album, such as {min(others)}; choose an empty or new folder"
        )


def _parts(folder: Path) -> set[str]:
    """What an album in `folder` consists of; nothing if there is none."""
    try:
        labels = dict(json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["labels"])
        pictures = {name for name in labels if Path(name).name == name}  # other datasets have folders
    except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError):
        return set()
    return {"dataset.json", "report.json", SHEET, "masks"} | pictures


def read_labels(folder: str | os.PathLike, remedy: str | None = None) -> dict[str, list[float]]:
    """name -> camera label of every picture of an EG3D dataset folder, sorted by name.

    Raises FileFormatError when a picture or dataset.json is missing or a label is no camera; `remedy` says
    where such a folder comes from (default: how albums are made).
    """
    folder = Path(folder)
    path = folder / "dataset.json"
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        remedy = remedy or "make an album with: my3dgen faces PHOTOS -o ALBUM"
        raise FileFormatError(f"{folder} {what}; {remedy}")
    if not path.is_file():
        remedy = remedy or f"make an album with: my3dgen faces {folder} -o ALBUM"
        raise FileFormatError(f"{folder} has no dataset.json; {remedy}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = dict(content["labels"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FileFormatError(
            f'{path} is not {{"labels": [[name, 25 numbers], ...]}}; make it anew'
        ) from error
    if not labels:
        raise FileFormatError(f"{path} lists no pictures; {remedy or 'make the album anew'}")
    inside = folder.resolve()
    for name, label in labels.items():
        if not isinstance(name, str) or "\0" in name or not (folder / name).resolve().is_relative_to(inside):
            raise FileFormatError(f"{path} names {name!r}, which is outside the folder; remove that entry")
        if not (folder / name).is_file():
            raise FileFormatError(f"{path} names {name}, which does not exist; remove that entry")
        check_label(label, name)
    return {name: labels[name] for name in sorted(labels)}


def _open(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            if image.width * image.height > 2**26:
                raise FileFormatError(f"{path} is larger than 8192 x 8192 pixels; make the album anew")
            return image.convert(mode)
    except UnidentifiedImageError as error:
        raise FileFormatError(f"{path} is not a picture; make the album anew") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FileFormatError(f"{path} is damaged; make the album anew") from error


def _tensor(image: Image.Image, size: int) -> Float[Tensor, "channels size size"]:
    if image.width != size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32).copy())
    return pixels.reshape(size, size, -1).permute(2, 0, 1)
