"""Pictures as files of their own in a folder."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from my3dgen.apps.sheet import save_image
from my3dgen.errors import UserError


def check_stills(folder: str | os.PathLike) -> Path:
    """The folder, if it is new or empty: pictures of another run would mix in. Raises UserError."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder for the pictures")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; choose a new or an empty folder for the pictures")
    above = next(one for one in folder.absolute().parents if one.exists())
    if not os.access(folder if folder.exists() else above, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written; choose another place or change its permissions")
    return folder


def save_stills(images: Iterable[Image.Image], folder: Path, stem: str = "frame") -> Iterator[Image.Image]:
    """Hand pictures on and write each as FOLDER/STEM0000.png and so on, in full."""
    for index, image in enumerate(images):
        save_image(image, folder / f"{stem}{index:04d}.png")
        yield image
