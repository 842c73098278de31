"""Which pixels are the person: Google's selfie segmenter, sharpened along the picture's edges."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull
from torch import Tensor

from my3dgen.faces.graph import Graph

SIDE = 256  # what the network sees


@functools.cache
def load_segmenter(device: str = "cpu") -> Graph:
    """The shipped segmentation network, frozen."""
    return Graph("selfie-segmenter").eval().to(device)


@torch.no_grad()
def person_mask(images: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 1 size size"]:
    """1 where the person is, 0 elsewhere, for square images in [-1, 1].

    The network was made for selfies and keeps clothes; it can lose a hand or a wisp of hair.
    """
    small = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    (coarse,) = load_segmenter(str(images.device))((small + 1) / 2)
    size = images.shape[-1]
    coarse = F.interpolate(coarse, (size, size), mode="bilinear", antialias=True, align_corners=False)
    mask = guided_filter(images, coarse, radius=max(1, size // 64))
    # the filter leaves a faint haze on either side of the edge
    return ((mask - 0.1) / 0.8).clamp(0, 1)


def guided_filter(
    guide: Float[Tensor, "batch 3 height width"],
    values: Float[Tensor, "batch 1 height width"],
    radius: int,
    smoothness: float = 4e-3,
) -> Float[Tensor, "batch 1 height width"]:
    """`values` smoothed, with edges where the guide's brightness has them (He et al. 2010)."""
    grey = guide.mean(1, keepdim=True)

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * radius + 1, 1, radius, count_include_pad=False)

    mean_guide, mean_values = mean(grey), mean(values)
    variance = mean(grey * grey) - mean_guide**2
    slope = (mean(grey * values) - mean_guide * mean_values) / (variance + smoothness)
    offset = mean_values - slope * mean_guide
    return mean(slope) * grey + mean(offset)


def face_mask(landmarks: Float[Tensor, "points 2"], size: int) -> Float[Tensor, "1 size size"]:
    """1 inside the outline of landmarks given in [0, 1] of a square picture.

    Where a face was found there is a person, whatever the segmenter says.
    """
    points = landmarks[:468].double().numpy() * size
    outline = points[ConvexHull(points).vertices]
    image = Image.new("L", (size, size))
    ImageDraw.Draw(image).polygon([(x, y) for x, y in outline.tolist()], fill=255)
    return torch.from_numpy(np.array(image)).float()[None] / 255
