"""Edit directions from known factors: the same synthetic head with a factor lowered and raised, both encoded.

Where labels are exact, the mean difference of two encodings is the direction, free of what merely goes along
with an attribute among faces (smiling people open their mouths). It is the yardstick for directions found by
scoring samples, which is all that an imported prior allows.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.cameras import camera_from_angles
from my3dgen.errors import UserError
from my3dgen.prior.directions import (
    DirectionFacts,
    Measure,
    NoDirectionError,
    changes,
    separation,
    sized,
    some_of,
)
from my3dgen.prior.encoder import Encoder
from my3dgen.progress import say, track
from my3dgen.synthetic.factors import TRAIN_SEEDS, sample_factors, with_factors
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import build_scenes

KNOWN: Mapping[str, tuple[str, str]] = {
    "smile": ("expression", "smile"),
    "jaw_open": ("expression", "jaw"),
    "brows_up": ("expression", "brows"),
    "blink": ("expression", "lids"),
    "brightness": ("light", "exposure"),
    "age": ("macro", "age"),
    "masculine": ("macro", "sex"),
    "weight": ("macro", "weight"),
    "beard": ("beard", "amount"),
    "hair_length": ("hair", "length"),
    "skin_tone": ("skin", "melanin"),
}
"""Direction -> block and name of the factor that raises it."""
SPAN = 1.0
"""Factors are moved this far to either side, standard deviations."""
FIRST_SEED = 900_000_000
"""Heads for directions: training seeds that no training reaches."""


@torch.no_grad()
def encode_pairs(
    encoder: Encoder, name: str, heads: int, *, first_seed: int = FIRST_SEED, batch: int = 8
) -> Float[Tensor, "heads 2 w_dim"]:
    """Latents of heads with the factor of direction `name` lowered and raised, everything else equal.

    Heads look into the camera within 0.2 rad; they are drawn from training seeds.
    """
    block, factor = KNOWN[name]
    device = next(encoder.parameters()).device
    found = []
    for start in track(range(0, heads, batch), f"rendering {name}"):
        count = min(batch, heads - start)
        first = TRAIN_SEEDS.start + first_seed + start
        factors = sample_factors(range(first, first + count), device)
        both = [with_factors(factors, block, **{factor: side * SPAN}) for side in (-1, 1)]
        yaw = torch.linspace(-0.2, 0.2, count, device=device)
        cameras = camera_from_angles(yaw, 0.0)[:, None]
        latents = []
        for changed in both:
            views = render_views(build_scenes(changed, device), cameras, size=encoder.config.img_resolution)
            latents.append(encoder(views.rgb[:, 0].float() / 127.5 - 1))
        found.append(torch.stack(latents, 1))
    return torch.cat(found)


def directions_from_pairs(
    pairs: Mapping[str, Float[Tensor, "heads 2 w_dim"]],
    samples: Float[Tensor, "samples w_dim"],
    measure: Measure,
    *,
    held_out: float = 0.25,
    measured: int = 64,
) -> tuple[dict[str, Float[Tensor, " w_dim"]], dict[str, DirectionFacts]]:
    """Directions and facts from `encode_pairs`, lengths as `prior.directions` has them.

    `samples` are latents of the prior, `measure` scores latents. Strength 1 is one standard deviation of
    the score of that name over the samples, or of the factor when nothing scores it. Separation and
    correlation are those of held-out pairs. A name whose direction does not raise its score is told and
    left out. Raises UserError for fewer than 8 pairs, and when no direction is left.
    """
    scores = measure(samples, "scoring samples")
    deviation = {name: float(values[values.isfinite()].std()) for name, values in scores.items()}
    some = samples[:measured]
    mean, covariance = samples.mean(0), torch.cov(samples.T.double())
    ridge = 1e-3 * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)
    precision = torch.linalg.inv(covariance + ridge).to(samples)
    directions, facts = {}, {}
    for name, latents in pairs.items():
        tests = round(held_out * len(latents))
        if tests < 2:
            raise UserError(f"{len(latents)} heads are too few for directions; use at least 8")
        step = (latents[tests:, 1] - latents[tests:, 0]).mean(0) / (2 * SPAN)
        try:
            if name in scores:
                step, change = sized(measure, some, step, name, deviation[name])
            else:
                change = changes(measure, some, step, name)
        except NoDirectionError as error:
            say(str(error))
            continue
        position = (latents[:tests] - mean) @ (precision @ step)
        level = torch.tensor([-1.0, 1.0]).to(position).expand_as(position)
        directions[name] = step
        facts[name] = DirectionFacts(
            scale=change.get(name, 1.0),
            deviation=deviation.get(name, 1.0),
            separation=separation(position.flatten(), level.flatten()),
            correlation=float(torch.corrcoef(torch.stack([position.flatten(), level.flatten()]))[0, 1]),
            against=(),
            spill={key: change[key] / max(deviation[key], 1e-12) for key in scores if key != name},
            samples=len(latents),
        )
    return some_of(directions), facts


def agreement(
    one: Float[Tensor, " w_dim"], other: Float[Tensor, " w_dim"], samples: Float[Tensor, "samples w_dim"]
) -> float:
    """Cosine of two directions where the prior's latents are white: how far they change faces alike."""
    covariance = torch.cov(samples.T.double())
    ridge = 1e-4 * covariance.diagonal().mean() * torch.eye(len(one)).to(covariance)
    factor = torch.linalg.cholesky(covariance + ridge)
    white = torch.linalg.solve_triangular(factor, torch.stack([one, other], 1).double(), upper=False)
    return float(torch.cosine_similarity(white[:, 0], white[:, 1], dim=0))


def known_names(names: Sequence[str]) -> tuple[str, ...]:
    """Those of `names`, or all of them when none are given. Raises UserError for one without a factor."""
    if unknown := [name for name in names if name not in KNOWN]:
        raise UserError(f"no factor is behind '{unknown[0]}'; there are: {', '.join(KNOWN)}")
    return tuple(names) or tuple(KNOWN)
