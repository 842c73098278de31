"""The documentation's pictures, from what these commands leave:

my3dgen demo && my3dgen evaluate prior mini --identities 100 --device cuda --out out/mini
python scripts/docs_pictures.py out/demo out/mini
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

from my3dgen import cli
from my3dgen.apps.sheet import sheet, to_image
from my3dgen.cameras import camera_from_angles
from my3dgen.synthetic.factors import HELD_OUT_SEEDS, sample_factors
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import build_scenes

LIMIT = 300_000  # bytes: the pictures are part of every clone
TARGET = Path(__file__).parent.parent / "docs" / "pictures"


def main(demo: Path, evaluation: Path) -> None:
    """Heads, samples of the prior, held-out photos by every method, and a real photograph."""
    save_small(heads(64), TARGET / "heads.jpg")
    with Image.open(evaluation / "pictures" / "samples.png") as picture:
        small = picture.convert("RGB").resize((1400, 1400 * picture.height // picture.width))
        save_small(small, TARGET / "samples.jpg")
    with Image.open(demo / "pictures" / "heldout.png") as picture:
        save_small(picture.convert("RGB"), TARGET / "demo.jpg")
    with tempfile.TemporaryDirectory() as folder:
        photo, album, found = (Path(folder) / name for name in ("astronaut.png", "album", "found.png"))
        Image.fromarray(data.astronaut()).save(photo)  # Eileen Collins, NASA, public domain
        run("faces", str(photo), "-o", str(album))
        run("invert", str(album), "-o", str(found), "--space", "w+", "--yaw", "-30", "0", "30")
        with Image.open(found) as picture:
            save_small(picture.convert("RGB"), TARGET / "astronaut.jpg")


def heads(count: int, at_once: int = 8) -> Image.Image:
    """Synthetic heads of consecutive seeds, from a little to the right."""
    camera, images = camera_from_angles(0.3, 0.05), []
    for start in range(0, count, at_once):
        scenes = build_scenes(sample_factors(HELD_OUT_SEEDS[start : start + at_once]))
        views = render_views(scenes, camera.expand(at_once, 1, -1), size=256)
        images += [to_image(rgb / 127.5 - 1) for rgb in views.rgb[:, 0].float()]
    return sheet(images, columns=8, cell=160)


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
    given = [Path(argument) for argument in sys.argv[1:]]
    main(*(given or [Path("out/demo"), Path("out/mini")]))
