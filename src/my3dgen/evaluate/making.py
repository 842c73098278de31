"""What the demo's stages do to get from photos to a person: each leaves files and returns JSON values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from my3dgen.anchors import Anchors
from my3dgen.apps.album import album_of
from my3dgen.cameras import angles_from_camera
from my3dgen.errors import FileFormatError, UserError
from my3dgen.faces.album import Album
from my3dgen.invert import InvertConfig, Quality, invert
from my3dgen.personalize import FULL_RATE, PersonalizeConfig, finetune, personalize
from my3dgen.personalize import QUALITIES as PERSONALIZATIONS
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior, build_generator
from my3dgen.targets import world_of
from my3dgen.tensor_file import read_tensors, write_tensors

LIMIT = 1 << 30
"""Bytes of a file of ours that are read at most."""
REMEDY = "delete the demo's folder and run it again"


@dataclass(frozen=True)
class Split:
    """Names of the album's pictures that teach, and of those that test."""

    learn: tuple[str, ...]
    held_out: tuple[str, ...]


def read_split(path: Path, kept: Mapping[str, str]) -> Split:
    """The split of the usable photos; `kept` names each photo's picture in the album.

    Raises FileFormatError for an unreadable file, UserError when too few photos are left.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = content["learn"], content["held_out"]
        learn, test = ([kept[name] for name in part if name in kept] for part in parts)
    except (OSError, ValueError, KeyError, TypeError):
        raise FileFormatError(f'{path} is not {{"learn": [names], "held_out": [names]}}') from None
    if len(learn) < 2 or not test:
        raise UserError(f"{path}: {len(learn)} photos to learn from and {len(test)} to test with are too few")
    return Split(tuple(sorted(learn)), tuple(sorted(test)))


def to_album(photos: Path, folder: Path, prior: Prior) -> dict[str, Any]:
    """Photos to an album; what was kept under which name. Raises UserError when none is usable."""
    config = prior.config
    report = album_of(photos, folder, resolution=config.img_resolution, world=world_of(config))
    kept = report["kept"]
    return {
        "photos": report["photos"],
        "names": {entry["file"]: entry["name"] for entry in kept},
        "files": {entry["name"]: entry["file"] for entry in kept},
        "dropped": report["dropped"],
    }


def find_anchors(prior: Prior, learn: Album, config: InvertConfig, path: Path) -> dict[str, Any]:
    """Anchors of the learned photos, written to `path`."""
    unfinished = path.with_suffix(".part")
    anchors = invert(prior, learn, config, unfinished=unfinished)
    write_tensors(path, {"ws": anchors.ws, "cameras": anchors.cameras}, {})
    unfinished.unlink(missing_ok=True)
    return {"anchors": len(anchors)}


def read_anchors(path: Path, names: tuple[str, ...]) -> Anchors:
    """What `find_anchors` wrote."""
    tensors, _ = read_tensors(path, LIMIT, remedy=REMEDY)
    return Anchors(tensors["ws"], tensors["cameras"], names)


@dataclass(frozen=True)
class Lesson:
    """What a person is learned from."""

    prior: Prior
    album: Album
    anchors: Anchors
    quality: Quality


def learn_person(lesson: Lesson, path: Path) -> dict[str, Any]:
    """A person file at `path`; how it was made."""
    unfinished, config = path.with_suffix(".part"), PERSONALIZATIONS[lesson.quality]
    person = personalize(lesson.prior, lesson.album, lesson.anchors, config, unfinished=unfinished)
    person.save(path)
    unfinished.unlink(missing_ok=True)
    return person.facts()["made"]


def in_full(quality: Quality) -> PersonalizeConfig:
    """How all weights are tuned."""
    return replace(PERSONALIZATIONS[quality], rate=FULL_RATE)


def learn_in_full(lesson: Lesson, path: Path) -> dict[str, Any]:
    """A generator with all weights tuned at `path`, with as many steps as the adapter got."""
    unfinished = path.with_suffix(".part")
    config = in_full(lesson.quality)
    tuned = finetune(lesson.prior, lesson.album, lesson.anchors, config, unfinished=unfinished)
    write_tensors(path, tuned.generator.state_dict(), {})
    unfinished.unlink(missing_ok=True)
    return tuned.made


def read_generator(prior: Prior, path: Path) -> Generator:
    """What `learn_in_full` wrote."""
    return build_generator(prior.config, read_tensors(path, LIMIT, remedy=REMEDY)[0])


def nearest_to_front(album: Album, count: int = 1) -> list[str]:
    """The pictures whose cameras are nearest to the front: the unseen views are of these moments."""
    yaw, pitch = angles_from_camera(album.cameras)
    return [album.names[i] for i in (yaw.square() + pitch.square()).argsort()[:count].tolist()]
