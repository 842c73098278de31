"""From factors to geometry: the neutral and the expressed head, eyes, teeth and lash strips.

Everything is linear in a vector of weights over fixed bases, so a batch of heads is one matrix product.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.synthetic.asset import HeadAsset, vertex_normals
from my3dgen.synthetic.expression import Performance, perform
from my3dgen.synthetic.eyes import eyeballs, gaze_rotation
from my3dgen.synthetic.factors import FACTORS, block
from my3dgen.synthetic.framing import frame
from my3dgen.synthetic.subdivide import apply


@dataclass(frozen=True)
class Geometry:
    """`scene` heads with one topology (the asset's). Decimetres; `to_world` gives the camera's units.

    Hair and skin belong on `neutral` and `asset.template`: they must not depend on the expression.
    """

    neutral: Float[Tensor, "scene vertex 3"]  # subdivided skin without expression
    expressed: Float[Tensor, "scene vertex 3"]  # the same with the face units
    neutral_normals: Float[Tensor, "scene vertex 3"]
    normals: Float[Tensor, "scene vertex 3"]  # of `expressed`
    eyes: Float[Tensor, "scene 2 eyevertex 3"]  # left (+x), right
    eye_normals: Float[Tensor, "scene 2 eyevertex 3"]
    eye_centres: Float[Tensor, "scene 2 3"]
    eye_radii: Float[Tensor, "scene 2"]
    gaze: Float[Tensor, "scene 3 3"]  # rotation of the eyeballs; columns are their axes
    mouth: Float[Tensor, "scene mouthvertex 3"]  # teeth, gums, tongue (`asset.mouth` says which)
    mouth_normals: Float[Tensor, "scene mouthvertex 3"]
    lashes: Float[Tensor, "scene lash 4 3"]  # root, root, tip, tip
    performance: Performance  # face-unit weights, gaze angles, smile
    male: Float[Tensor, " scene"]  # 0 feminine .. 1 masculine
    age: Float[Tensor, " scene"]  # 0 young .. 1 old adult
    scale: Float[Tensor, " scene"]  # world units per decimetre
    origin: Float[Tensor, "scene 3"]  # the world's origin, in decimetres

    def to_world(self, points: Float[Tensor, "scene *n 3"]) -> Float[Tensor, "scene *n 3"]:
        """Decimetres to world units (the tri-plane box is [-0.5, 0.5]^3)."""
        extra = (1,) * (points.ndim - 2)
        return (points - self.origin.view(-1, *extra, 3)) * self.scale.view(-1, *extra, 1)


def build_geometry(asset: HeadAsset, factors: Float[Tensor, "scene factors"]) -> Geometry:
    """Geometry of a batch of heads, on the asset's device. See `factors.FACTORS` for the vector."""
    factors = factors.to(asset.device)
    male, age = sex_and_age(factors)
    identity = torch.cat([macro_weights(factors) - asset.macro_average, shape_weights(factors)], 1)
    performance = perform(asset.unit_names, factors)
    still = asset.bases[: identity.shape[1]].flatten(1)
    moving = asset.bases[identity.shape[1] :].flatten(1)
    coarse = asset.base + (identity @ still).unflatten(1, (-1, 3))
    acted = coarse + (performance.units @ moving).unflatten(1, (-1, 3))

    neutral = apply(asset.subdivision, coarse[:, : asset.body])
    expressed = apply(asset.subdivision, acted[:, : asset.body])
    rotation = gaze_rotation(performance.gaze_yaw, performance.gaze_pitch)
    eyes, centres, radii = eyeballs(
        coarse[:, asset.eye_helpers], rotation, asset.eye_directions, asset.eye_radii
    )
    both = eyes.flatten(0, 1)
    eye_normals = torch.nn.functional.normalize(both - centres.flatten(0, 1)[:, None], dim=-1)
    mouth = asset.mouth.follow(coarse, acted)
    scale, origin = frame(centres, neutral, asset.masks["lips"])
    return Geometry(
        neutral=neutral,
        expressed=expressed,
        neutral_normals=vertex_normals(neutral, asset.triangles, asset.incidence),
        normals=vertex_normals(expressed, asset.triangles, asset.incidence),
        eyes=eyes,
        eye_normals=eye_normals.unflatten(0, (-1, 2)),
        eye_centres=centres,
        eye_radii=radii,
        gaze=rotation,
        mouth=mouth,
        mouth_normals=vertex_normals(mouth, asset.mouth.triangles, asset.mouth.incidence),
        lashes=acted[:, asset.lashes],
        performance=performance,
        male=male,
        age=age,
        scale=scale,
        origin=origin,
    )


def sex_and_age(
    factors: Float[Tensor, "scene factors"],
) -> tuple[Float[Tensor, " scene"], Float[Tensor, " scene"]]:
    """0 feminine .. 1 masculine, smooth but mostly near the ends; 0 young .. 1 old, mostly young."""
    macro = block(factors, "macro")
    t = ((torch.special.ndtr(macro["sex"]) - 0.2) / 0.6).clamp(0, 1)
    return t * t * (3 - 2 * t), 0.05 + 0.72 * torch.special.ndtr(macro["age"]) ** 1.9


def macro_weights(factors: Float[Tensor, "scene factors"]) -> Float[Tensor, "scene 48"]:
    """Weights over the macro targets: 12 of ancestry x sex x age, 36 of build x sex x age.

    The mix coordinates move between three average face shapes; skin tone never sees them.
    """
    macro = block(factors, "macro")
    male, age = sex_and_age(factors)
    sex = torch.stack([1 - male, male], 1)
    ages = torch.stack([1 - age, age], 1)
    person = (sex[:, :, None] * ages[:, None, :]).flatten(1)  # female young, female old, male young, ...
    mix = torch.stack([macro["mix_a"], macro["mix_b"], torch.zeros_like(male)], 1)
    ancestry = torch.softmax(1.3 * mix, 1)
    build = _three(macro["muscle"])[:, :, None] * _three(macro["weight"])[:, None, :]
    return torch.cat(
        [
            (ancestry[:, :, None] * person[:, None, :]).flatten(1),
            (build.flatten(1)[:, :, None] * person[:, None, :]).flatten(1),
        ],
        1,
    )


def shape_weights(factors: Float[Tensor, "scene factors"]) -> Float[Tensor, "scene 58"]:
    """Weights over the shape components: the factors, with far tails drawn in towards 2.6."""
    return 2.6 * torch.tanh(factors[:, FACTORS["shape"]] / 2.6)


def _three(factor: Float[Tensor, " scene"]) -> Float[Tensor, "scene 3"]:
    """Weights of the low, middle and high target; never more than four fifths of an extreme."""
    t = 1.6 * (torch.special.ndtr(factor) - 0.5)
    return torch.stack([(-t).clamp_min(0), 1 - t.abs(), t.clamp_min(0)], 1)
