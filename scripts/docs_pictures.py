"""The documentation's pictures, from what these commands leave:

my3dgen demo && my3dgen evaluate prior mini --identities 200 --device cuda --out out/mini
python scripts/docs_pictures.py out/demo out/mini
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from my3dgen import cli
from my3dgen.apps.sheet import sheet, to_image
from my3dgen.cameras import camera_from_angles
from my3dgen.evaluate.demo import BUNDLED
from my3dgen.evaluate.enhancement import enhancement
from my3dgen.evaluate.protocol import select
from my3dgen.faces.album import read_album
from my3dgen.person import Person
from my3dgen.prior.store import load_prior
from my3dgen.synthetic.factors import HELD_OUT_SEEDS, sample_factors
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import build_scenes

LIMIT = 150_000  # bytes: the pictures are part of every clone
TARGET = Path(__file__).parent.parent / "docs" / "pictures"
ENHANCED = ("photo23.png", "photo35.png", "photo41.png")
"""Held-out photos of the demo: filled and enlarged, and the first edited."""


def main(demo: Path, evaluation: Path) -> None:
    """Heads, samples of the prior, the demo's person in every application, and a real photograph."""
    save_small(heads(64), TARGET / "heads.jpg")
    with Image.open(evaluation / "pictures" / "samples.png") as picture:
        small = picture.convert("RGB").resize((1100, 1100 * picture.height // picture.width))
        save_small(small, TARGET / "samples.jpg")
    with Image.open(demo / "pictures" / "heldout.png") as picture:
        save_small(picture.convert("RGB"), TARGET / "demo.jpg")
    applications(demo)
    with tempfile.TemporaryDirectory() as folder:
        photo, album, found = (Path(folder) / name for name in ("astronaut.png", "album", "found.png"))
        Image.fromarray(data.astronaut()).save(photo)  # Eileen Collins, NASA, public domain
        run("faces", str(photo), "-o", str(album))
        run("invert", str(album), "-o", str(found), "--space", "w+", "--yaw", "-30", "0", "30")
        with Image.open(found) as picture:
            save_small(picture.convert("RGB"), TARGET / "astronaut.jpg")


def applications(demo: Path) -> None:
    """What can be done with the demo's person, a picture each."""
    person, prior = str(demo / "person.safetensors"), load_prior("mini")
    album = read_album(demo / "album")
    picture, _ = enhancement(prior, Person.load(person, prior), select(album, ENHANCED))
    save_small(picture, TARGET / "enhance.jpg")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        turned(person, folder).save(folder / "turned.png")
        run("sample", person, "--count", "12", "--yaw-range", "30", "-o", f"{folder}/sample.png")
        way = ("--anchors", "3,17,40", "--loop", "--pace", "picture", "--ease", "linear", "--steps", "36")
        run("interpolate", person, *way, "-o", f"{folder}/way.png", "--report", f"{folder}/way.json")
        smile = ("--yaw", "-30", "0", "30", "-o", f"{folder}/smile.png", "--report", f"{folder}/smile.json")
        run("edit", person, *smile)
        edited = ("--tune", "--strengths", "-2", "-1", "1", "--yaw", "-30", "-o", f"{folder}/photo.png")
        run("edit", person, "--photo", photo_of(ENHANCED[0]), *edited)
        for source, target in {
            "way.chart": "interpolation",
            "smile.chart": "edit",
            "photo": "edit_photo",
            "turned": "invert",
            "sample": "sample",
        }.items():
            with Image.open(folder / f"{source}.png") as drawn:
                width = min(drawn.width, 1100)
                small = drawn.convert("RGB").resize((width, width * drawn.height // drawn.width))
                save_small(small, TARGET / f"{target}.jpg")


def turned(person: str, folder: Path) -> Image.Image:
    """Two photos from other sides, each without and with tuning, one below the other."""
    pictures: list[np.ndarray] = []
    for name in ENHANCED[:2]:
        for mode in ((), ("--tune",)):
            path = folder / f"turned{len(pictures)}.png"
            run("invert", photo_of(name), "--person", person, *mode, "-o", str(path))
            pictures.append(np.asarray(Image.open(path).convert("RGB")))
    return Image.fromarray(np.concatenate(pictures))


def photo_of(name: str) -> str:
    """The bundled photo behind a picture of the demo's album."""
    return str(BUNDLED / "photos" / Path(name).with_suffix(".jpg"))


def heads(count: int, at_once: int = 8) -> Image.Image:
    """Synthetic heads of consecutive seeds, from a little to the right."""
    camera, images = camera_from_angles(0.3, 0.05), []
    for start in range(0, count, at_once):
        scenes = build_scenes(sample_factors(HELD_OUT_SEEDS[start : start + at_once]))
        views = render_views(scenes, camera.expand(at_once, 1, -1), size=256)
        images += [to_image(rgb / 127.5 - 1) for rgb in views.rgb[:, 0].float()]
    return sheet(images, columns=8, cell=128)


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
