"""Datasets of synthetic heads in EG3D's format, with depth, masks, parts and the factors behind each picture.

OUT/
  config.json           what was asked for; the same command goes on where it stopped
  images/               the EG3D dataset, which must hold no other pictures: its loader takes every one
    dataset.json        {"labels": [["00000/img00000000.png", [25 numbers]], ...]}   (EG3D spec 3.3)
    00000/img....png    RGB on white, 1000 pictures a folder
  masks/00000/...       coverage, 8 bit
  parts/00000/...       0 background, 1 skin, 2 hair, 3 eye, 4 mouth, 5 cloth, 6 glasses, 7 lips, 8 brows
  depth/00000/...       16 bit, 64 x 64: distance along the ray in units of 1/10000, 0 where empty
  factors.safetensors   "factors" (picture, 145) and "seed" (picture), in the order of dataset.json
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.errors import UserError
from my3dgen.progress import track
from my3dgen.synthetic.factors import performance_seed, sample_factors, with_blocks
from my3dgen.synthetic.poses import dataset_cameras
from my3dgen.synthetic.render import Views, render_views
from my3dgen.synthetic.scene import build_scenes

PER_FOLDER = 1000
DEPTH_UNIT = 1e-4
IMAGES, LABELS = "images", "images/dataset.json"


@dataclass(frozen=True)
class DatasetConfig:
    """What a dataset consists of. Seeds `first_seed` .. + `identities` are its people."""

    identities: int
    expressions: int = 1
    """Scenes per person; each has its own expression and light."""
    views: int = 4
    resolution: int = 256
    first_seed: int = 0

    def check(self) -> None:
        """Raise UserError for values out of range."""
        for name in ("identities", "expressions", "views"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: choose at least 1")
        if self.expressions > 60000:
            raise UserError(f"--expressions {self.expressions}: choose at most 60000")
        if self.resolution % 64 or not 64 <= self.resolution <= 1024:
            raise UserError(f"--resolution {self.resolution}: choose a multiple of 64 up to 1024")
        if not 0 <= self.first_seed < 1 << 40:
            raise UserError(f"--first-seed {self.first_seed}: choose a number from 0 to 2^40 - 1")

    @property
    def scenes(self) -> int:
        """People times expressions."""
        return self.identities * self.expressions

    @property
    def pictures(self) -> int:
        """How many pictures the finished dataset has."""
        return self.scenes * self.views


def scene_seeds(config: DatasetConfig, scenes: range) -> list[int]:
    """The seed of each scene's person."""
    return [config.first_seed + scene // config.expressions for scene in scenes]


def scene_factors(config: DatasetConfig, scenes: range) -> Float[Tensor, "scene factors"]:
    """Factor vectors of scenes: a person's first scene is their seed's own draw, later ones perform anew."""
    people = scene_seeds(config, scenes)
    turns = [scene % config.expressions for scene in scenes]
    performers = [
        seed if turn == 0 else performance_seed(seed, turn) for seed, turn in zip(people, turns, strict=True)
    ]
    return with_blocks(sample_factors(people), sample_factors(performers))


def write_dataset(
    folder: str | os.PathLike, config: DatasetConfig, *, device: str = "cpu", batch: int = 1
) -> Path:
    """Render the dataset, or what is still missing of it; returns the folder.

    Pictures are in place before a scene counts as done, and dataset.json comes last, so a stopped run
    goes on without gaps. Raises UserError when the folder holds something else.
    """
    config.check()
    folder = Path(folder)
    done = _open(folder, config)
    batches = [range(start, min(start + batch, config.scenes)) for start in range(done, config.scenes, batch)]
    progress = track(_rendered(config, batches, device), "scenes", total=len(batches))
    with (folder / "progress.jsonl").open("a") as log:
        for scenes, cameras, views in progress:
            for row, scene in enumerate(scenes):
                labels = [
                    [
                        _write_picture(folder, scene * config.views + v, views, row, v),
                        cameras[row, v].tolist(),
                    ]
                    for v in range(config.views)
                ]
                log.write(json.dumps(labels) + "\n")
                log.flush()
    _finish(folder, config)
    return folder


def _rendered(
    config: DatasetConfig, batches: list[range], device: str
) -> Iterator[tuple[range, Tensor, Views]]:
    for scenes in batches:
        factors = scene_factors(config, scenes)
        # the same person is seen from other places in each of their scenes
        seeds = [performance_seed(config.first_seed, 0) + scene for scene in scenes]
        cameras = dataset_cameras(seeds, config.views)
        built = build_scenes(factors.to(device), device)
        yield scenes, cameras, render_views(built, cameras.to(device), config.resolution)


def _open(folder: Path, config: DatasetConfig) -> int:
    """Make the folder, or check that it belongs to `config`; how many scenes it already holds."""
    note = folder / "config.json"
    wanted = asdict(config)
    if folder.is_dir() and any(folder.iterdir()):
        if not note.is_file():
            raise UserError(f"{folder} holds other things than a synthetic dataset; choose a new folder")
        try:
            found = json.loads(note.read_text())
        except ValueError:
            found = None
        if found != wanted:
            raise UserError(f"{note} asks for another dataset; use the same options or a new folder")
    elif folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _write(note, json.dumps(wanted).encode())
    if (folder / LABELS).is_file():
        return config.scenes
    lines = _lines(folder)
    _write(folder / "progress.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    return len(lines)


def _lines(folder: Path) -> list[list]:
    """Labels of the finished scenes; a line cut short by a stop is not counted."""
    log, lines = folder / "progress.jsonl", []
    if log.is_file():
        for line in log.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
    return lines


def _write_picture(folder: Path, number: int, views: Views, row: int, view: int) -> str:
    from PIL import Image

    name = f"{number // PER_FOLDER:05d}/img{number:08d}.png"
    depth = (views.depth[row, view].float().cpu() / DEPTH_UNIT).round().numpy().astype(np.uint16)
    pictures = {
        f"{IMAGES}/{name}": Image.fromarray(views.rgb[row, view].permute(1, 2, 0).cpu().numpy()),
        f"masks/{name}": Image.fromarray(views.alpha[row, view].cpu().numpy()),
        f"parts/{name}": Image.fromarray(views.parts[row, view].cpu().numpy()),
        f"depth/{name}": Image.fromarray(depth),
    }
    for place, picture in pictures.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, "PNG", compress_level=3)
    return name


def _finish(folder: Path, config: DatasetConfig) -> None:
    from safetensors.torch import save

    if (folder / LABELS).is_file():
        return
    scenes = range(config.scenes)
    factors = scene_factors(config, scenes).repeat_interleave(config.views, 0)
    seeds = torch.tensor(scene_seeds(config, scenes)).repeat_interleave(config.views)
    _write(folder / "factors.safetensors", save({"factors": factors, "seed": seeds}))
    labels = [label for line in _lines(folder) for label in line]
    _write(folder / LABELS, json.dumps({"labels": labels}).encode())
    (folder / "progress.jsonl").unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    beside = path.with_name(f"{path.name}.part")
    beside.write_bytes(data)
    beside.replace(path)
