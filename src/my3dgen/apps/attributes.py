"""What is measured on a rendered face to find its edit directions: expressions, and brightness."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.faces.blendshapes import blendshapes
from my3dgen.faces.blendshapes import score as expression
from my3dgen.faces.landmarks import landmarks, region_of_camera

EXPRESSIONS = {
    "smile": "smile",
    "jaw_open": "jawOpen",
    "blink": "blink",
    "squint": "squint",
    "frown": "frown",
    "brows_up": "browInnerUp",
    "pucker": "mouthPucker",
}
"""Attribute -> name of the expression score (`my3dgen.faces.blendshapes.score`)."""
NAMES = (*EXPRESSIONS, "brightness")
PRESENCE = 0.5


def attributes_from(
    camera: Float[Tensor, "1 25"],
) -> Callable[[Float[Tensor, "batch 3 size size"]], dict[str, Float[Tensor, " batch"]]]:
    """A scorer of pictures in [-1, 1] that were rendered from `camera`: attribute -> score.

    Expressions are in [0, 1], brightness is the mean of the middle of the face in [-1, 1]. All are NaN
    where the landmark network finds no face.
    """

    @torch.no_grad()
    def score(images: Float[Tensor, "batch 3 size size"]) -> dict[str, Float[Tensor, " batch"]]:
        regions = region_of_camera(camera.to(images), images.shape[-1]).expand(len(images), -1)
        points, presence = landmarks(images, regions)
        shapes = blendshapes(points)
        scores = {name: expression(shapes, source) for name, source in EXPRESSIONS.items()}
        x, y, side = regions[0, :3].tolist()
        left, right, top, bottom = (
            round(v) for v in (x - side / 5, x + side / 5, y - side / 5, y + side / 5)
        )
        scores["brightness"] = images[:, :, max(top, 0) : bottom, max(left, 0) : right].mean((1, 2, 3))
        absent = presence < PRESENCE
        return {name: values.masked_fill(absent, float("nan")) for name, values in scores.items()}

    return score
