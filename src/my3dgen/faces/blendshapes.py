"""Expression scores from landmarks: 52 blendshapes (smile, jaw, blinks...), differentiable.

The network is Google's blendshape model of the Face Landmarker, an MLP-Mixer over 146 landmark
points. It sees geometry only: texture cannot raise a score, distortion can.
"""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from my3dgen.weights.networks import load_tensors

# fmt: off
POINTS = (  # which of the 478 landmarks the network reads
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67,
    70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146,
    148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181,
    185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293,
    295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361,
    362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398,
    400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)
NAMES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight",
    "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)
# fmt: on


class Norm(nn.Module):
    """Layer norm with a gain and no offset."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight, eps=1e-6)


class Block(nn.Module):
    """One mixer block: across the 97 tokens, then across the 64 channels, each with a residual."""

    def __init__(self):
        super().__init__()
        self.token_norm, self.channel_norm = Norm(64), Norm(64)
        self.token_in, self.token_out = nn.Linear(97, 384), nn.Linear(384, 97)
        self.channel_in, self.channel_out = nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.token_norm(x).transpose(1, 2)
        x = x + self.token_out(F.relu(self.token_in(mixed))).transpose(1, 2)
        return x + self.channel_out(F.relu(self.channel_in(self.channel_norm(x))))


class Mixer(nn.Module):
    """146 points to 52 scores; position and size of the face do not matter."""

    token: Tensor

    def __init__(self):
        super().__init__()
        self.tokens, self.channels = nn.Linear(146, 96), nn.Linear(2, 64)
        self.register_buffer("token", torch.zeros(1, 1, 64))
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.head = nn.Linear(64, 52)

    def forward(self, points: Float[Tensor, "batch 146 2"]) -> Float[Tensor, "batch 52"]:
        points = points - points.mean(1, keepdim=True)
        points = points / points.norm(dim=2, keepdim=True).mean(1, keepdim=True)
        x = self.channels(self.tokens(points.transpose(1, 2)).transpose(1, 2))
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return torch.sigmoid(self.head(x[:, 0]))


@functools.cache
def load_mixer(device: str = "cpu") -> Mixer:
    """The shipped blendshape network, frozen."""
    mixer = Mixer()
    mixer.load_state_dict(load_tensors("face-blendshapes")[0])
    return mixer.requires_grad_(False).eval().to(device)


def blendshapes(landmarks: Float[Tensor, "batch 478 coordinates"]) -> Float[Tensor, "batch 52"]:
    """Scores in [0, 1] in the order of `NAMES`, from landmarks in pixels of an upright square picture.

    Differentiable; only x and y are used. Units do not matter but the aspect ratio does.
    """
    points = landmarks[:, list(POINTS), :2]
    return load_mixer(str(landmarks.device))(points)


def score(scores: Float[Tensor, "batch 52"], name: str) -> Float[Tensor, " batch"]:
    """One expression from the scores: "smile", "blink" (means of left and right) or one of `NAMES`.

    A slight smile with closed lips scores 0.2 to 0.3; speech can score 0.6 on smile, with jawOpen
    near 0.4, so look at both.
    """
    pairs = {"smile": "mouthSmile", "blink": "eyeBlink", "squint": "eyeSquint", "frown": "mouthFrown"}
    if name in pairs:
        sides = [NAMES.index(f"{pairs[name]}{side}") for side in ("Left", "Right")]
        return scores[:, sides].mean(1)
    return scores[:, NAMES.index(name)]
