"""Where are faces in a picture? Google's short-range face detector with its anchors.

The network sees 128 x 128 pixels and was made for selfies: a face should be wider than a tenth of
the picture. For smaller ones the picture is searched in overlapping tiles too.
"""

import functools
import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from my3dgen.faces.graph import Graph

SIDE = 128
OVERLAP = 0.3  # boxes with more in common (intersection over union) are one face


@dataclass(frozen=True)
class Face:
    """A detected face. Pixels run from 0 at the left or top edge to the width or height."""

    score: float
    box: Float[Tensor, "4"]
    """left, top, right, bottom"""
    keypoints: Float[Tensor, "6 2"]
    """eye, eye (left in the picture first), nose, mouth, ear, ear"""

    @property
    def size(self) -> float:
        """The longer side of the box."""
        return float((self.box[2:] - self.box[:2]).max())


@functools.cache
def load_detector() -> Graph:
    """The shipped detector network, frozen."""
    return Graph("face-detector").eval()


@functools.cache
def anchors() -> Float[Tensor, "896 2"]:
    """Centres in [0, 1]: two per cell of a 16 x 16 grid, then six per cell of an 8 x 8 grid."""
    found = []
    for cells, count in ((16, 2), (8, 6)):
        centres = (torch.arange(cells) + 0.5) / cells
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        found.append(torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, count, -1).reshape(-1, 2))
    return torch.cat(found)


@torch.no_grad()
def detect(image: Float[Tensor, "3 height width"], threshold: float = 0.5) -> list[Face]:
    """Faces in an image in [-1, 1], largest first; empty when there is none.

    Tiles are searched only when the whole picture shows no face.
    """
    height, width = image.shape[1:]
    side = max(height, width)
    faces = _search(image, (width - side) // 2, (height - side) // 2, side, threshold)
    if not faces:
        for part in (2, 3):
            tile = side // part
            steps = [tile * k // 2 for k in range(2 * part - 1)]
            found = [
                face
                for top, left in itertools.product(steps, steps)
                if top < height and left < width
                for face in _search(image, left, top, tile, max(threshold, 0.75))
            ]
            faces = merge(found)
            if faces:
                break
    return sorted(faces, key=lambda face: -face.size)


def _search(
    image: Float[Tensor, "3 height width"], left: int, top: int, side: int, threshold: float
) -> list[Face]:
    """Faces in the square window at (left, top); what lies outside the image is black."""
    height, width = image.shape[1:]
    x0, y0, x1, y1 = left, top, left + side, top + side
    window = image[:, max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    window = F.pad(window, (max(-x0, 0), max(x1 - width, 0), max(-y0, 0), max(y1 - height, 0)), value=-1.0)
    small = F.interpolate(window[None], (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    numbers, logits = load_detector()(small)
    scores = torch.sigmoid(logits[0, :, 0].clamp(-80, 80))
    chosen = scores > threshold
    numbers, scores = numbers[0, chosen].reshape(-1, 8, 2) / SIDE, scores[chosen]
    place = anchors()[chosen][:, None]
    origin, scale = torch.tensor([x0, y0]), side
    centres = (numbers[:, :1] + place) * scale + origin
    half = numbers[:, 1:2] * scale / 2
    boxes = torch.cat([centres - half, centres + half], 1).reshape(-1, 4)
    points = (numbers[:, 2:] + place) * scale + origin
    return merge([Face(float(s), b, k) for s, b, k in zip(scores, boxes, points, strict=True)])


def overlap(a: Float[Tensor, "4"], b: Float[Tensor, "4"]) -> float:
    """Intersection over union of two boxes."""
    shared = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp_min(0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared).clamp_min(1e-9))


def merge(faces: list[Face]) -> list[Face]:
    """One face for each group of overlapping ones: their mean, weighted by score."""
    remaining = sorted(faces, key=lambda face: -face.score)
    merged = []
    while remaining:
        best = remaining[0]
        group = [face for face in remaining if overlap(best.box, face.box) > OVERLAP or face is best]
        remaining = [face for face in remaining if not any(face is g for g in group)]
        weight = torch.tensor([face.score for face in group])
        weight = weight / weight.sum()
        box = (torch.stack([face.box for face in group]) * weight[:, None]).sum(0)
        points = (torch.stack([face.keypoints for face in group]) * weight[:, None, None]).sum(0)
        merged.append(Face(best.score, box, points))
    return merged
