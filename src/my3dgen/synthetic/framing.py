"""Where a head sits in the world, so that every picture is framed as the photo crop frames it.

The crop rule (EG3D spec 3.4, decided for heads, photos and priors alike): seen from the front the eyes
are 0.266 of the image width apart, the mouth 0.288 of it below them, and they lie 0.12 above the centre.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.cameras import FOCAL, RADIUS

INTEROCULAR, EYES_TO_MOUTH, EYES_ABOVE_CENTRE = 0.266, 0.288, 0.12
EYE_DEPTH = 0.175  # world z of the eyeball centres
FACE_DEPTH = 0.225  # world z of the plane in which the three distances are measured (pupils and lips)


def frame(
    eye_centres: Float[Tensor, "scene 2 3"],
    neutral: Float[Tensor, "scene vertex 3"],
    lips: Float[Tensor, " vertex"],
) -> tuple[Float[Tensor, " scene"], Float[Tensor, "scene 3"]]:
    """Scale (world units per input unit) and the point that becomes the world's origin.

    From the neutral face, so that a head does not move with its expression. Faces differ in the ratio
    of the two distances; the image width is the mean of what either asks for.
    """
    eyes = eye_centres.mean(1)
    apart = (eye_centres[:, 0] - eye_centres[:, 1]).norm(dim=-1)
    mouth = neutral[:, lips > 0.6].mean(1)
    width = 0.5 * (apart / INTEROCULAR + (eyes[:, 1] - mouth[:, 1]) / EYES_TO_MOUTH)
    scale = (RADIUS - FACE_DEPTH) / FOCAL / width
    down, back = EYES_ABOVE_CENTRE * width, EYE_DEPTH / scale
    return scale, eyes - torch.stack([torch.zeros_like(down), down, back], 1)
