"""From expression factors to the weights of the 52 face units (ARKit's names) and the gaze."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.synthetic.factors import block

MAX_WEIGHT = 1.05


@dataclass(frozen=True)
class Performance:
    """What a face does in one picture."""

    units: Float[Tensor, "scene 52"]  # face-unit weights in [0, 1.05]
    smile: Float[Tensor, " scene"]  # 0 none .. 1 broad
    jaw: Float[Tensor, " scene"]  # weight of jawOpen
    gaze_yaw: Float[Tensor, " scene"]  # radians, > 0 to +x
    gaze_pitch: Float[Tensor, " scene"]  # radians, > 0 up


def perform(unit_names: tuple[str, ...], factors: Float[Tensor, "scene factors"]) -> Performance:
    """Face-unit weights of the expression factors.

    Units that pull on the same skin share a budget (a smile leaves less for the jaw and none for a
    pucker), because their sums would fold the mesh.
    """
    z = block(factors, "expression")
    smile = _step(torch.special.ndtr(z["smile"]), 0.35, 0.95)
    teeth = _step(torch.special.ndtr(z["teeth"]), 0.15, 0.95)  # many smiles keep the lips closed
    calm = 1 - smile
    grin = smile * teeth
    gape = torch.tanh((z["jaw"] - 0.25).clamp_min(0) * 0.55)
    jaw = 0.52 * gape * (1 - 0.55 * smile) + 0.15 * grin
    asymmetry = 0.05 * torch.tanh(z["asymmetry"])
    brows, lids, squint = z["brows"], z["lids"], z["squint"]
    frown = 0.35 * torch.tanh((-z["smile"] - 1.0).clamp_min(0)) * calm
    yaw = 0.30 * torch.tanh(z["gaze_yaw"] * 0.4)
    pitch = 0.16 * torch.tanh(z["gaze_pitch"] * 0.4)
    up, down = pitch.clamp_min(0), (-pitch).clamp_min(0)
    sided = {}
    for side, sign in (("Left", 1.0), ("Right", -1.0)):
        lean = 1 + sign * asymmetry
        outward, inward = (sign * yaw).clamp_min(0), (-sign * yaw).clamp_min(0)
        sided |= {
            f"mouthSmile{side}": (0.05 + 0.87 * smile) * lean,
            f"mouthDimple{side}": 0.25 * smile * lean,
            f"mouthUpperUp{side}": (0.25 + 0.45 * teeth) * grin * lean + 0.10 * gape * calm,
            f"mouthLowerDown{side}": 0.42 * grin,
            f"mouthFrown{side}": frown,
            f"mouthPress{side}": 0.3 * torch.tanh((z["lip_press"] - 0.5).clamp_min(0)) * calm,
            f"cheekSquint{side}": 0.55 * smile + 0.15 * torch.tanh(squint.clamp_min(0)),
            f"eyeSquint{side}": 0.10 * smile + 0.14 * torch.tanh(squint.clamp_min(0)),
            f"eyeBlink{side}": 0.20 * torch.tanh((lids - 0.4).clamp_min(0)) * (1 - 0.5 * smile),
            f"eyeWide{side}": 0.40 * torch.tanh((-lids - 0.4).clamp_min(0)) * (1 - 0.4 * smile) + 0.12,
            f"browDown{side}": 0.40 * torch.tanh((-brows - 0.3).clamp_min(0) * 0.6) * calm,
            f"browOuterUp{side}": 0.55 * torch.tanh(brows.clamp_min(0) * 0.6),
            f"noseSneer{side}": 0.25 * torch.tanh((z["nose"] - 1).clamp_min(0)) * calm,
            f"eyeLookOut{side}": 1.2 * outward,
            f"eyeLookIn{side}": 1.2 * inward,
            f"eyeLookUp{side}": 1.6 * up,
            f"eyeLookDown{side}": 1.6 * down,
        }
    weights = sided | {
        "browInnerUp": 0.55 * torch.tanh(z["inner_brow"].clamp_min(0) * 0.6),
        "jawOpen": jaw,
        # the base mesh's lips stand a hair apart, and a smile draws them further
        "mouthClose": (0.05 + 0.10 * smile) * (1 - _step(grin, 0.0, 0.35)) * (1 - gape),
        "mouthPucker": 0.45 * torch.tanh((z["pucker"] - 0.9).clamp_min(0)) * calm,
        "mouthFunnel": 0.35 * torch.tanh((-z["pucker"] - 1.1).clamp_min(0)) * calm,
    }
    zero = torch.zeros_like(smile)
    units = torch.stack([weights.get(name, zero) for name in unit_names], 1).clamp(0, MAX_WEIGHT)
    return Performance(units=units, smile=smile, jaw=jaw, gaze_yaw=yaw, gaze_pitch=pitch)


def _step(x: Tensor, low: float, high: float) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
