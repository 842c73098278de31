"""Is this photo good enough? Reasons to drop one, and notes on those that are kept."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from my3dgen.faces.blendshapes import score
from my3dgen.faces.detect import Face


@dataclass(frozen=True)
class Limits:
    """Beyond these a photo is dropped."""

    second_face: float = 0.5
    """Size of a second face against the first: larger means it is unclear whose photo it is."""
    presence: float = 0.5
    """The landmark network's own doubt: below, it saw no face."""
    side: float = 128.0
    """Pixels of the photo across the crop: fewer show no likeness."""
    sharpness: float = 0.15
    """See `sharpness`: less is a blur."""
    yaw: float = 60.0
    """Degrees to either side: beyond, half of the face is hidden."""
    pitch: float = 40.0
    """Degrees up or down."""
    outside: float = 0.3
    """Share of the crop beyond the photo's edge."""
    blink: float = 0.75
    """Blink score of both eyes: above, they are closed."""
    difference: float = 2.0
    """Mean grey levels (of 255) between two photos: fewer means the same photo twice."""


LIMITS = Limits()


@dataclass(frozen=True)
class Measures:
    """What is known about a cropped photo. Angles in degrees; positive yaw sees the face's left side."""

    yaw: float
    pitch: float
    side: float
    """Pixels of the photo across the crop."""
    outside: float
    sharpness: float
    colour: float
    smile: float
    jaw_open: float
    blink: float


def rivals(faces: list[Face], limits: Limits = LIMITS) -> list[Face]:
    """Faces, largest first, so large beside the first that it may not be the subject."""
    return [face for face in faces[1:] if face.size > limits.second_face * faces[0].size]


def reason_to_drop(measures: Measures, limits: Limits = LIMITS) -> str | None:
    """Why a photo is dropped, in a few words; None when it is kept."""
    m = measures
    if m.side < limits.side:
        return f"face too small ({m.side:.0f} pixels across the crop, {limits.side:.0f} needed)"
    if m.outside > limits.outside:
        return f"face at the edge ({m.outside:.0%} of the crop lies outside the photo)"
    if abs(m.yaw) > limits.yaw:
        return f"turned too far ({abs(m.yaw):.0f} degrees sideways, {limits.yaw:.0f} at most)"
    if abs(m.pitch) > limits.pitch:
        return f"tilted too far ({abs(m.pitch):.0f} degrees, {limits.pitch:.0f} at most)"
    if m.sharpness < limits.sharpness:
        return f"blurred (sharpness {m.sharpness:.2f}, {limits.sharpness:.2f} needed)"
    if m.blink > limits.blink:
        return "eyes closed"
    return None


def notes(measures: Measures, resolution: int) -> list[str]:
    """Remarks on a photo that is kept."""
    remarks = []
    if measures.colour < 0.02:
        remarks.append("black and white")
    if measures.side < resolution:
        remarks.append(f"enlarged from {measures.side:.0f} pixels")
    if measures.outside > 0.1:
        remarks.append(f"{measures.outside:.0%} beyond the photo's edge")
    return remarks


def measure(
    crop: Image.Image, scores: Float[Tensor, "1 52"], yaw: float, pitch: float, side: float, outside: float
) -> Measures:
    """The measures of a crop; `yaw` and `pitch` in radians."""
    # 128 pixels: finer detail is noise or compression as often as sharpness
    pixels = np.asarray(crop.resize((128, 128), Image.Resampling.BOX), dtype=np.float64) / 255
    face = pixels[32:104, 32:96]  # forehead to chin, cheek to cheek
    return Measures(
        yaw=math.degrees(yaw),
        pitch=math.degrees(pitch),
        side=side,
        outside=outside,
        sharpness=sharpness(face.mean(2)),
        colour=float((face.max(2) - face.min(2)).mean()),
        smile=float(score(scores, "smile")),
        jaw_open=float(score(scores, "jawOpen")),
        blink=float(score(scores, "blink")),
    )


def sharpness(grey: np.ndarray) -> float:
    """Strength of the finest detail against all detail: the spread of the Laplacian over that of the
    picture, so that neither contrast nor exposure counts."""
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(laplacian.std() / max(float(inner.std()), 0.02))


def fingerprint(crop: Image.Image) -> Float[np.ndarray, "32 32"]:
    """The crop in 32 x 32 grey levels from 0 to 255, for finding the same photo again."""
    return np.asarray(crop.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float64)


def same_photo(a: np.ndarray, b: np.ndarray, limits: Limits = LIMITS) -> bool:
    """Do two fingerprints belong to one photo, perhaps resized or compressed again?"""
    return float(np.abs(a - b).mean()) < limits.difference


def odd_ones(embeddings: Float[Tensor, "photos 128"], limit: float = 0.75) -> list[tuple[int, float]]:
    """(index, distance) of photos whose face lies far from the album's middle one.

    The middle is the photo nearest to all others (the medoid); with fewer than four photos nothing
    can be said. `limit` is an L2 distance of dlib embeddings, where 0.6 separates strangers in good
    photos: the wider limit spares profiles and grimaces.
    """
    if len(embeddings) < 4:
        return []
    distances = torch.cdist(embeddings, embeddings)
    middle = int(distances.sum(1).argmin())
    return [(i, d) for i, d in enumerate(distances[middle].tolist()) if d > limit]
