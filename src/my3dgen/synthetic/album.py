"""Photos of one synthetic person, and the truth about them: cameras, factors, and any other view.

OUT/
  photos/photo00.jpg ...   the album as a phone would hold it: loosely framed, a little noisy
  split.json               {"learn": [names], "held_out": [names]}
  truth.json               seed, expression and light factors, and the exact camera of every photo

Within an album only what a person does changes, and the light. An album with `changes` is of many days: hair,
skin, weight and clothes, too, differ from photo to photo, and the face a little. Photos that are held out
show the person without.
"""

import dataclasses
import io
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.cameras import FOCAL, camera_from_angles
from my3dgen.errors import FileFormatError, UserError
from my3dgen.progress import track
from my3dgen.synthetic.factors import (
    FACTORS,
    MEANINGS,
    NUM_FACTORS,
    PERFORMANCE,
    normals,
    performance_seed,
    sample_factors,
    with_factors,
)
from my3dgen.synthetic.imaging import photograph
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import build_scenes

LOOSE = 1.35
"""Photos show this many times the width of the crop that priors are trained on."""
HELD_OUT_EVERY = 6
CHANGES_STREAM = 31
"""Apart from what a phone does to the same photo (`imaging`)."""
DRAWN_SCALE = 0.45
"""Spread of the expression factors around the named ones, in standard deviations."""

CHANGE_SPREADS: Mapping[str, float] = {
    **{"macro": 0.15, "shape": 0.15, "skin": 0.3, "brow": 0.3, "lash": 0.5},
    **{"hair": 0.4, "beard": 0.4, "glasses": 0.4, "clothes": 1.0},
}
"""How far blocks of factors change in an album with `changes` 1, in standard deviations of all people."""
MOST_CHANGES = 4.0

# What people do in front of a phone; the album goes round these and varies each.
EXPRESSIONS: Mapping[str, Mapping[str, float]] = {
    "neutral": {"smile": -0.45, "jaw": -1.0},
    "smile": {"smile": 0.55, "teeth": -0.9, "jaw": -0.5},
    "grin": {"smile": 1.5, "teeth": 1.3, "jaw": 0.2},
    "serious": {"smile": -1.0, "brows": -1.0, "jaw": -1.0},
    "talking": {"smile": -0.1, "teeth": 0.8, "jaw": 1.5},
    "laugh": {"smile": 1.9, "teeth": 1.6, "jaw": 1.6, "squint": 0.8},
    "surprised": {"smile": -0.4, "jaw": 1.9, "brows": 1.6, "inner_brow": 1.4, "lids": -1.5},
}


@dataclass(frozen=True)
class Photo:
    """One photo: its file name, what it shows, and the numbers that redraw it."""

    name: str
    expression: str
    camera: tuple[float, ...]  # 25, an EG3D label for the photo as it is (loosely framed)
    factors: tuple[float, ...]  # expression and light, in the order of `factors.PERFORMANCE`
    held_out: bool


@dataclass(frozen=True)
class Truth:
    """Everything that made an album."""

    seed: int
    size: int
    photos: tuple[Photo, ...]
    changes: float = 0.0
    """How many times `CHANGE_SPREADS` the person differs between photos that are not held out."""

    def factors(self, photos: tuple[Photo, ...] | None = None) -> Float[Tensor, "photo factors"]:
        """Factor vectors of the photos (all of them by default)."""
        photos = self.photos if photos is None else photos
        full = sample_factors([self.seed]).repeat(len(photos), 1)
        drawn = torch.tensor([photo.factors for photo in photos])
        for block, values in zip(PERFORMANCE, drawn.split(_WIDTHS, 1), strict=True):
            full[:, FACTORS[block]] = values
        if self.changes:
            self._change(full, photos)
        return full

    def _change(self, factors: Float[Tensor, "photo factors"], photos: tuple[Photo, ...]) -> None:
        """Make the person of photos that are not held out another day's, in place."""
        seeds = [performance_seed(self.seed, self.photos.index(photo)) for photo in photos]
        chance = normals(seeds, NUM_FACTORS, stream=CHANGES_STREAM)
        shown = torch.tensor([[not photo.held_out] for photo in photos])
        for block, spread in CHANGE_SPREADS.items():
            factors[:, FACTORS[block]] += self.changes * spread * chance[:, FACTORS[block]] * shown

    def cameras(self) -> Float[Tensor, "photo 25"]:
        """The photos' cameras."""
        return torch.tensor([photo.camera for photo in self.photos])


_WIDTHS = [len(MEANINGS[block]) for block in PERFORMANCE]


def plan_album(seed: int, photos: int, size: int = 384, changes: float = 0.0) -> Truth:
    """Draw an album of the person `seed`: poses within 45 degrees, expressions, light, loose framing.

    Every sixth photo is held out. `size` is a multiple of 64. `changes`, from 0 to `MOST_CHANGES`, is how
    much else differs between the others. Raises UserError for values out of range.
    """
    if photos < 1 or photos > 1000:
        raise UserError(f"--photos {photos}: choose between 1 and 1000")
    if size % 64 or size < 64:
        raise UserError(f"--size {size}: choose a multiple of 64, such as 384")
    if not 0 <= seed < 1 << 40:
        raise UserError(f"--seed {seed}: choose a number from 0 to 2^40 - 1")
    if not 0 <= changes <= MOST_CHANGES:
        raise UserError(f"--changes {changes:g}: choose a number from 0 to {MOST_CHANGES:g}")
    seeds = [performance_seed(seed, k) for k in range(photos)]
    drawn = sample_factors(seeds)
    drawn[:, FACTORS["expression"]] *= DRAWN_SCALE
    drawn[:, FACTORS["light"]] *= 0.7
    names = list(EXPRESSIONS)
    found = []
    for k, camera in enumerate(_cameras(seed, photos, seeds)):
        expression = names[k % len(names)]
        row = drawn[k : k + 1]
        values = {
            factor: value + float(row[0, FACTORS["expression"].start + MEANINGS["expression"].index(factor)])
            for factor, value in EXPRESSIONS[expression].items()
        }
        row = with_factors(row, "expression", **values)
        performed = torch.cat([row[0, FACTORS[block]] for block in PERFORMANCE])
        found.append(
            Photo(
                name=f"photo{k:02d}.jpg",
                expression=expression,
                camera=tuple(round(float(x), 6) for x in camera),
                factors=tuple(round(float(x), 4) for x in performed),
                held_out=k % HELD_OUT_EVERY == HELD_OUT_EVERY - 1,
            )
        )
    return Truth(seed, size, tuple(found), changes)


def _cameras(seed: int, photos: int, seeds: list[int]) -> Float[Tensor, "photo 25"]:
    """Poses: yaw spread evenly over a bell of +-45 degrees in random order, pitch N(0.03, 0.12)."""
    chance = normals(seeds, 5, stream=1)
    even = (chance[:, 0].argsort().argsort() + 0.5) / photos  # strata in random order
    yaw = math.radians(45) * torch.erf(torch.special.ndtri(even) * 0.62)
    pitch = (0.03 + 0.12 * chance[:, 1]).clamp(-0.3, 0.35)
    cameras = camera_from_angles(yaw, pitch)
    zoom = LOOSE * (1 + 0.05 * torch.tanh(chance[:, 2]))
    cameras[:, 16] = cameras[:, 20] = FOCAL / zoom
    cameras[:, 18] = 0.5 + 0.03 * torch.tanh(chance[:, 3])
    cameras[:, 21] = 0.5 + 0.03 * torch.tanh(chance[:, 4])
    return cameras


def write_album(
    folder: str | os.PathLike, truth: Truth, *, device: str = "cpu", supersampling: int = 2, quality: int = 84
) -> Path:
    """Render the planned photos as JPEG files and write the truth beside them.

    The folder appears when it is complete. Raises UserError when it exists and is not empty.
    """
    from PIL import Image

    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; choose a new folder")
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        (beside / "photos").mkdir(parents=True)
        factors, cameras = truth.factors(), truth.cameras()
        for k, photo in enumerate(track(truth.photos, "photos")):
            scenes = build_scenes(factors[k : k + 1], device)
            views = render_views(scenes, cameras[k : k + 1, None], truth.size, supersampling)
            rgb, alpha = views.rgb[0].float() / 255, views.alpha[0, :, None].float() / 255
            taken = photograph(rgb, alpha, [performance_seed(truth.seed, k)])[0]
            pixels = (taken * 255 + 0.5).byte().permute(1, 2, 0).cpu().numpy()
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, optimize=True)
            (beside / "photos" / photo.name).write_bytes(buffer.getvalue())
        split = {
            "learn": [photo.name for photo in truth.photos if not photo.held_out],
            "held_out": [photo.name for photo in truth.photos if photo.held_out],
        }
        (beside / "split.json").write_text(json.dumps(split, indent=1) + "\n")
        (beside / "truth.json").write_text(_to_json(truth))
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _to_json(truth: Truth) -> str:
    photos = ",\n  ".join(json.dumps(dataclasses.asdict(photo)) for photo in truth.photos)
    changes = f'"changes": {json.dumps(truth.changes)}, ' if truth.changes else ""
    return f'{{"seed": {truth.seed}, "size": {truth.size}, {changes}"photos": [\n  {photos}\n]}}\n'


def read_truth(path: str | os.PathLike) -> Truth:
    """The truth.json of an album (or the folder that holds it). Raises FileFormatError."""
    path = Path(path)
    path = path / "truth.json" if path.is_dir() else path
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        photos = tuple(
            Photo(
                name=str(entry["name"]),
                expression=str(entry["expression"]),
                camera=_numbers(entry["camera"], 25),
                factors=_numbers(entry["factors"], sum(_WIDTHS)),
                held_out=bool(entry["held_out"]),
            )
            for entry in raw["photos"]
        )
        changes = float(raw.get("changes", 0))
        if not 0 <= changes <= MOST_CHANGES:
            raise ValueError(f"'changes' is not from 0 to {MOST_CHANGES:g}")
        return Truth(int(raw["seed"]), int(raw["size"]), photos, changes)
    except FileNotFoundError:
        raise FileFormatError(f"{path} is missing; write an album with my3dgen synthetic album") from None
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path} is not the truth of a synthetic album ({error})") from None


def _numbers(values: list, count: int) -> tuple[float, ...]:
    if len(values) != count:
        raise ValueError(f"{len(values)} numbers instead of {count}")
    return tuple(float(value) for value in values)
