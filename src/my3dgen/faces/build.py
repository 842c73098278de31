"""Photos to an album: for each photo find the face, level and crop it, find its camera and its mask."""

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from my3dgen.cameras import angles_from_camera
from my3dgen.errors import PhotoError
from my3dgen.faces.album import AlbumWriter
from my3dgen.faces.align import Square, cut, face_square, into_square, outside
from my3dgen.faces.blendshapes import blendshapes
from my3dgen.faces.canonical import World
from my3dgen.faces.detect import detect
from my3dgen.faces.landmarks import FIVE, landmarks_of_face
from my3dgen.faces.photos import open_photo
from my3dgen.faces.pose import solve_pose
from my3dgen.faces.quality import (
    LIMITS,
    Limits,
    Measures,
    fingerprint,
    measure,
    notes,
    odd_ones,
    reason_to_drop,
    rivals,
    same_photo,
)
from my3dgen.faces.segment import face_mask, person_mask
from my3dgen.identity import FIVE as DLIB_FIVE
from my3dgen.identity import load_identity

Background = Literal["keep", "white"]
TILE, SHEET_LIMIT = 200, 400  # pixels and pictures of the contact sheet
ANALYSIS = 2048  # longest side in which faces are searched; the crop is cut from the photo itself


@dataclass(frozen=True)
class Portrait:
    """A photo's crop and what goes with it."""

    image: Image.Image
    mask: Image.Image
    """255 where the person is, at the crop's size; 0 beyond the photo's edge."""
    camera: Float[Tensor, "25"]
    points: Float[Tensor, "5 2"]
    """Eye corners and nose in [0, 1] of the crop, for `my3dgen.identity`."""
    measures: Measures
    notes: list[str]
    square: Square
    """Where in the photo the crop was cut."""


@torch.no_grad()
def portrait(
    photo: Image.Image,
    resolution: int = 512,
    background: Background = "keep",
    world: World = "mini",
    limits: Limits = LIMITS,
) -> Portrait:
    """The crop of one upright RGB photo. Raises PhotoError with the reason when it should be dropped."""
    small = photo.copy()
    small.thumbnail((ANALYSIS, ANALYSIS), reducing_gap=2.0)
    image = pixels(small)
    faces = detect(image)
    # the detector also finds faces in cloth and cats; the landmark network tells
    candidates = [landmarks_of_face(image, face) for face in faces[:1] + rivals(faces, limits)]
    real = [points for points, presence in candidates if presence > limits.presence]
    if not real:
        raise PhotoError("no face found")
    if len(real) > 1:
        raise PhotoError(f"{len(real)} faces of similar size; crop it to one person")
    points = real[0]
    five = points[list(FIVE), :2]
    # a camera's roll depends on the crop's place only a little: one correction levels it
    pose = solve_pose(into_square(points[:, :2], face_square(five)), world)
    square = face_square(five, pose.roll)
    seen = into_square(points[:, :2], square)
    pose = solve_pose(seen, world)
    yaw, pitch = angles_from_camera(pose.camera[None])
    scale = photo.width / small.width
    square = square.scaled(scale)
    crop, inside = cut(photo, square, resolution)
    # landmarks of the levelled crop: blendshapes are measured as the network was trained
    scores = blendshapes(torch.cat([seen, seen[:, :1]], 1)[None])
    found = measure(crop, scores, float(yaw), float(pitch), square.side, outside(photo.size, square))
    reason = reason_to_drop(found, limits)
    if reason:
        raise PhotoError(reason)
    mask = torch.maximum(person_mask(pixels(crop)[None])[0], face_mask(seen, resolution))[0]
    levels = (mask * 255).round().byte().numpy()
    mask = Image.fromarray(np.minimum(levels, np.asarray(inside)))
    if background == "white":
        crop = Image.composite(crop, Image.new("RGB", crop.size, "white"), mask)
    return Portrait(crop, mask, pose.camera, seen[list(DLIB_FIVE)], found, notes(found, resolution), square)


@dataclass(frozen=True)
class Outcome:
    """What became of a folder of photos."""

    album: Path | None
    """Where the album is; None when no photo was usable and nothing was written."""
    report: dict
    """What report.json holds."""


def make_album(
    photos: Iterable[Path],
    folder: str | os.PathLike,
    *,
    resolution: int = 512,
    background: Background = "keep",
    world: World = "mini",
    others: int = 0,
    say: Callable[[str], None] = lambda line: None,
    draw: Callable[[list[Image.Image], list[str]], Image.Image] | None = None,
) -> Outcome:
    """Write an album of the usable photos to `folder`, with report.json and, if `draw` is given, sheet.png.

    `say` hears one line for each photo left out and each doubt; `draw` makes the contact sheet from
    pictures and captions; `others` is how many files were no photos. The report holds file names,
    measures and reasons, but no embeddings and nothing from the photos' metadata.
    Raises UserError when `folder` holds other things than an album.
    """
    kept: list[dict] = []
    dropped: list[dict] = []
    tiles: list[tuple[Image.Image, str]] = []
    prints: list[tuple[str, np.ndarray]] = []
    embeddings: list[Tensor] = []
    network = load_identity()

    def drop(path: Path, reason: str, photo: Image.Image | None) -> None:
        dropped.append({"file": path.name, "reason": reason})
        say(f"{path.name}: left out, {reason}")
        if photo is not None:
            thumbnail = photo.copy()
            thumbnail.thumbnail((TILE, TILE), reducing_gap=2.0)
            left_out.append((thumbnail, f"{path.name}: {reason}"))

    left_out: list[tuple[Image.Image, str]] = []
    with AlbumWriter(folder) as writer:
        for path in photos:
            photo = None
            try:
                photo = open_photo(path)
                found = portrait(photo, resolution, background, world)
                mark = fingerprint(found.image)
                twin = next((name for name, other in prints if same_photo(mark, other)), None)
                if twin:
                    raise PhotoError(f"the same photo as {twin}")
            except PhotoError as error:
                drop(path, str(error), photo)
                continue
            prints.append((path.name, mark))
            name = writer.add(path.name, found.image, found.camera.tolist(), found.mask)
            with torch.no_grad():
                embeddings += network.embed(pixels(found.image)[None], points=found.points[None])
            measures = {key: round(value, 4) for key, value in asdict(found.measures).items()}
            kept.append({"file": path.name, "name": name, **measures, "notes": found.notes})
            white = Image.composite(found.image, Image.new("RGB", found.image.size, "white"), found.mask)
            caption = f"{name}  yaw {found.measures.yaw:+.0f}  smile {found.measures.smile:.1f}"
            tiles.append((white.resize((TILE, TILE), Image.Resampling.LANCZOS), caption))
        report = {
            "resolution": resolution,
            "background": background,
            "world": world,
            "photos": len(kept) + len(dropped),
            "kept": kept,
            "dropped": dropped,
            "other_files": others,
        }
        if not kept:
            return Outcome(None, report)
        for index, distance in odd_ones(torch.stack(embeddings)):
            kept[index]["notes"].append(f"may be another person (distance {distance:.2f} to the others)")
            say(f"{kept[index]['file']}: kept, but may be another person; remove it if so")
        tiles = (tiles + left_out)[:SHEET_LIMIT]
        sheet = draw([image for image, _ in tiles], [caption for _, caption in tiles]) if draw else None
        return Outcome(writer.finish(report, sheet), report)


def pixels(image: Image.Image) -> Float[Tensor, "3 height width"]:
    """An RGB picture as a tensor in [-1, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
