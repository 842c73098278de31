"""The documentation's pictures: my3dgen demo && python scripts/docs_pictures.py out/demo."""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

from my3dgen import cli

LIMIT = 300_000  # bytes: the pictures are part of every clone
TARGET = Path(__file__).parent.parent / "docs" / "pictures"


def main(demo: Path) -> None:
    """Held-out photos by every method, and a real photograph through faces, invert and render."""
    with Image.open(demo / "pictures" / "heldout.png") as picture:
        save_small(picture.convert("RGB"), TARGET / "demo.jpg")
    with tempfile.TemporaryDirectory() as folder:
        photo, album, found = (Path(folder) / name for name in ("astronaut.png", "album", "found.png"))
        Image.fromarray(data.astronaut()).save(photo)  # Eileen Collins, NASA, public domain
        run("faces", str(photo), "-o", str(album))
        run("invert", str(album), "-o", str(found), "--space", "w+", "--yaw", "-30", "0", "30")
        with Image.open(found) as picture:
            save_small(picture.convert("RGB"), TARGET / "astronaut.jpg")


def run(*arguments: str) -> None:
    """A verb of the command line; its failure is ours."""
    if code := cli.main(list(arguments)):
        sys.exit(code)


def save_small(picture: Image.Image, path: Path) -> None:
    """Write a JPEG of the best quality that stays below the limit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in range(92, 50, -4):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= LIMIT:
            print(f"{path}: {path.stat().st_size:,} bytes, quality {quality}")
            return
    sys.exit(f"{path}: too large even at quality {quality}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/demo"))
