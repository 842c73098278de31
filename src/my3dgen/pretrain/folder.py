"""Pictures with cameras, from a folder in EG3D's format: decoded once, kept as bytes, drawn at random.

What fits the stated memory lies on the device of the training. What does not is written once, decoded, to a
file beside the training state and mapped from there, so that a restart need not decode again.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from my3dgen.cameras import mirror_camera
from my3dgen.checkpoint import fingerprint
from my3dgen.errors import FileFormatError, PhotoError
from my3dgen.faces.album import read_labels
from my3dgen.faces.photos import open_photo
from my3dgen.progress import say, track

REMEDY = "give --data the folder of a dataset in EG3D's format: square pictures and dataset.json"
THREADS = 8
"""Pictures decoded at once, at most."""


@dataclass(frozen=True)
class RealBatch:
    """Real pictures with their cameras, and cameras of other pictures to render from."""

    real: Float[Tensor, "batch 3 height width"]
    """RGB in [-1, 1]."""
    real_camera: Float[Tensor, "batch 25"]
    camera: Float[Tensor, "batch 25"]
    other_camera: Float[Tensor, "batch 25"]


class FolderPool:
    """All pictures of a dataset as bytes, and their cameras."""

    def __init__(
        self,
        folder: Path,
        size: int,
        device: torch.device,
        *,
        gigabytes: float,
        keep: Path,
        writes: bool = True,
        wait: Callable[[], object] = lambda: None,
        stopped: Callable[[], bool] = lambda: False,
    ):
        """Read `folder`, pictures resized to `size`.

        Pictures of more than `gigabytes` in all are kept in a file in the folder `keep`: the process that
        `writes` makes it, the others `wait` for it. `stopped` says whether to give up (KeyboardInterrupt).
        Raises FileFormatError, naming the file, for labels and pictures that can't be used.
        """
        self.folder = folder if (folder / "dataset.json").exists() else _inside(folder)
        labels = read_labels(self.folder, remedy=REMEDY)
        self.paths = [self.folder / name for name in labels]
        self.size, self.device, self.stopped = size, device, stopped
        self.cameras: Float[Tensor, "count 25"] = torch.tensor(list(labels.values()), dtype=torch.float32)
        self.cameras = self.cameras.to(device)
        self.images: UInt8[Tensor, "count 3 size size"]
        if self.bytes <= gigabytes * 1e9:
            self.images = self._decode(torch.empty(self.shape, dtype=torch.uint8)).to(device)
        else:
            self.images = self._mapped(keep, writes, wait)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of all pictures."""
        return len(self.paths), 3, self.size, self.size

    @property
    def bytes(self) -> int:
        """Of all pictures."""
        return len(self.paths) * 3 * self.size**2

    def draw(self, batch: int, rng: torch.Generator) -> RealBatch:
        """Pictures and, independently, cameras: uniform over the dataset, half of them mirrored."""
        pick = lambda: torch.randint(len(self), (batch,), generator=rng, device=rng.device)  # noqa: E731
        flip = lambda: torch.rand(batch, generator=rng, device=rng.device) < 0.5  # noqa: E731
        index, turned = pick(), flip()
        real = self.images[index.to(self.images.device)].to(self.device).float() / 127.5 - 1
        real = torch.where(turned[:, None, None, None], real.flip(3), real)
        camera, other = (self._seen_from(pick(), flip()) for _ in range(2))
        return RealBatch(real, self._seen_from(index, turned), camera, other)

    def _seen_from(self, index: Tensor, turned: Tensor) -> Tensor:
        cameras = self.cameras[index]
        return torch.where(turned[:, None], mirror_camera(cameras), cameras)

    def _decode(self, store: Tensor) -> Tensor:
        """Fill `store` with the pictures."""

        def fill(row: int) -> bool:
            pixels, small = decode(self.paths[row], self.size)
            store[row] = torch.from_numpy(pixels)
            return small

        threads = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
        try:
            small = 0
            rows = range(len(self))
            for enlarged in track(threads.map(fill, rows), "reading pictures", total=len(rows)):
                small += enlarged
                if self.stopped():
                    raise KeyboardInterrupt
        finally:
            threads.shutdown(cancel_futures=True)
        if small:
            say(f"{small} of {len(self)} pictures are smaller than {self.size} pixels and were enlarged")
        return store

    def _mapped(self, keep: Path, writes: bool, wait: Callable[[], object]) -> Tensor:
        """The pictures in a file named after exactly these files in this size."""
        seen = [[str(p), (s := p.stat()).st_size, s.st_mtime_ns] for p in self.paths]
        path = keep / f"pictures-{fingerprint(self.size, seen)}.bin"
        if writes and not path.exists():
            keep.mkdir(parents=True, exist_ok=True)
            say(f"{self.bytes / 1e9:.1f} GB of pictures are kept in {path}; more --memory keeps them nearer")
            beside = path.with_name(f".{path.name}.{os.getpid()}.part")
            try:
                _reserve(beside, self.bytes)
                self._decode(self._map(beside))
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
            for other in set(keep.glob("pictures-*.bin")) - {path}:
                other.unlink()
        wait()
        return self._map(path)

    def _map(self, path: Path) -> Tensor:
        return torch.from_file(str(path), shared=True, size=self.bytes, dtype=torch.uint8).view(self.shape)


def decode(path: Path, size: int) -> tuple[UInt8[np.ndarray, "3 size size"], bool]:
    """A picture in sRGB, resized to `size` (antialiased), and whether it had to be enlarged.

    Raises FileFormatError, naming it, unless it is a square picture of at most 100 megapixels.
    """
    try:
        image = open_photo(path)
    except PhotoError as error:
        raise FileFormatError(f"{path}: {error}") from None
    if image.width != image.height:
        raise FileFormatError(f"{path} is {image.width} x {image.height}; pictures of a dataset are square")
    small = image.width < size
    if image.width != size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)), small


def _inside(folder: Path) -> Path:
    """Where `my3dgen synthetic dataset` puts pictures and labels."""
    return folder / "images" if (folder / "images" / "dataset.json").exists() else folder


def _reserve(path: Path, size: int) -> None:
    """Make a file of `size` bytes that exist, so that a full disk is an error now and no crash later."""
    with path.open("wb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            error.filename = str(path)
            raise
