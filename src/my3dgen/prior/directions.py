"""Edit directions of a prior: found by rendering samples and scoring them, kept beside its weights.

A direction is a vector d of W; `ws + strength * d` edits. Its length is such that strength 1 changes
the attribute by one standard deviation of what the prior shows by itself.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.errors import FileFormatError, UserError
from my3dgen.prior.generator import Generator
from my3dgen.progress import say, track
from my3dgen.tensor_file import read_tensors, write_tensors

MAX_BYTES = 16 << 20
REFINEMENTS = 2  # scores are not linear in w: the length is measured again where it led
REMEDY = "find the directions again with my3dgen prior directions"

Scorer = Callable[[Float[Tensor, "batch 3 height width"]], Mapping[str, Float[Tensor, " batch"]]]
"""Images in [-1, 1] to attribute scores by name; NaN where a picture could not be scored."""
Measure = Callable[[Float[Tensor, "samples w_dim"], str], dict[str, Float[Tensor, " samples"]]]
"""Latents, and a word on what it is for, to the scores of their pictures."""


Found = dict[str, Float[Tensor, " w_dim"]]


class NoDirectionError(UserError):
    """Moving along what was fitted for an attribute does not raise it."""


@dataclass(frozen=True)
class DirectionFacts:
    """How one direction was found and what it does."""

    scale: float
    """Measured change of the raw score per unit of strength, around strength 0."""
    deviation: float
    """Standard deviation of the raw score over the prior's samples."""
    separation: float
    """Held out: chance that the direction ranks a high-scoring face above a low-scoring one (0.5 to 1).
    High and low are the upper and lower third."""
    correlation: float
    """Held out: Pearson correlation of the position along the direction with the score's rank."""
    against: tuple[str, ...]
    """Attributes it was made orthogonal to."""
    spill: dict[str, float]
    """Measured change of every other attribute per unit of strength, in its standard deviations."""
    samples: int
    """Scored samples, held-out ones included."""


@torch.no_grad()
def find_directions(
    generator: Generator,
    score: Scorer,
    names: Sequence[str],
    *,
    samples: int = 2000,
    seed: int = 0,
    against: Mapping[str, Sequence[str]] | None = None,
    psi: float = 1.0,
    batch: int = 8,
) -> tuple[dict[str, Float[Tensor, " w_dim"]], dict[str, DirectionFacts]]:
    """Directions of W that raise the scores `names`, and the facts about each.

    `samples` latents are drawn from the prior with truncation `psi`, rendered from the front, `batch`
    at a time, scored and handed to `fit_directions`, whose errors and other arguments it shares.
    """

    latents = draw_latents(generator, samples, seed=seed, psi=psi)
    return fit_directions(latents, frontal_measure(generator, score, batch), names, against=against)


@torch.no_grad()
def draw_latents(
    generator: Generator, samples: int, *, seed: int = 0, psi: float = 1.0
) -> Float[Tensor, "samples w_dim"]:
    """Latents that the mapping gives for faces seen from the front, on the generator's device."""
    z = torch.randn(samples, generator.config.z_dim, generator=torch.Generator().manual_seed(seed))
    parts = z.to(generator.w_avg.device).split(4096)
    front = generator.cameras()
    return torch.cat([generator.mapping(some, front.expand(len(some), -1), psi=psi)[:, 0] for some in parts])


def frontal_measure(generator: Generator, score: Scorer, batch: int = 8) -> Measure:
    """What scores latents by rendering them from the front, `batch` at a time."""

    @torch.no_grad()
    def measure(latents: Float[Tensor, "samples w_dim"], about: str) -> dict[str, Float[Tensor, " samples"]]:
        camera, parts = generator.cameras(), []
        for some in track(latents.split(batch), about):
            ws = some[:, None].expand(-1, generator.config.num_ws, -1)
            parts.append(score(generator.synthesis(ws, camera.expand(len(some), -1)).image.clamp(-1, 1)))
        return {name: torch.cat([part[name] for part in parts]).to(latents) for name in parts[0]}

    return measure


def fit_directions(
    latents: Float[Tensor, "samples w_dim"],
    measure: Measure,
    names: Sequence[str],
    *,
    against: Mapping[str, Sequence[str]] | None = None,
    shrinkage: float = 30.0,
    held_out: float = 0.2,
    measured: int = 64,
) -> tuple[dict[str, Float[Tensor, " w_dim"]], dict[str, DirectionFacts]]:
    """Directions along which the scores that `measure` gives latents rise, and the facts about each.

    In coordinates where the latents are white, so that every step is as likely as any other of its
    length, a ridge regression (`shrinkage` is its penalty) predicts the normal rank of each score;
    `against` names for a direction the attributes whose own fits are projected out of it. Separation is
    measured on the `held_out` share of the latents, length and spill by editing up to `measured` of
    those one deviation either way. `measure` also gets a word on what it is for.

    A name whose fit does not raise its score by more than chance is told and left out. Raises UserError for a
    name `measure` does not know, when fewer than 50 latents could be scored, and when no direction is left.
    """
    scores = measure(latents, "scoring samples")
    wanted = dict.fromkeys([*names, *(other for name in names for other in (against or {}).get(name, ()))])
    if unknown := [name for name in wanted if name not in scores]:
        raise UserError(f"no attribute is called '{unknown[0]}'; there are: {', '.join(sorted(scores))}")
    seen = torch.stack([scores[name] for name in wanted]).isfinite().all(0)
    if seen.sum() < 50:
        raise UserError(f"only {int(seen.sum())} of {len(latents)} samples can be scored; 50 are needed")
    latents, scores = latents[seen], {name: values[seen] for name, values in scores.items()}
    tests = max(20, round(held_out * len(latents)))
    deviation = {name: float(values[values.isfinite()].std()) for name, values in scores.items()}

    mean, whiten, colour = _whitening(latents[tests:])
    white = (latents - mean) @ whiten
    fits = {name: _ridge(white[tests:], _normal_ranks(scores[name][tests:]), shrinkage) for name in wanted}
    directions, facts = {}, {}
    for name in names:
        others = tuple((against or {}).get(name, ()))
        slope = _without(fits[name], [fits[other] for other in others])
        step = slope / slope.square().sum() @ colour  # predicted: one normal rank
        some = latents[: min(tests, measured)]
        try:
            step, change = sized(measure, some, step, name, deviation[name])
        except NoDirectionError as error:
            say(str(error))
            continue
        position, held = white[:tests] @ slope, scores[name][:tests]
        directions[name] = step
        facts[name] = DirectionFacts(
            scale=change[name],
            deviation=deviation[name],
            separation=separation(position, held),
            correlation=_correlation(position, _normal_ranks(held)),
            against=others,
            spill={key: change[key] / max(deviation[key], 1e-12) for key in scores if key != name},
            samples=len(latents),
        )
    return some_of(directions), facts


def save_directions(
    path: str | os.PathLike,
    directions: Mapping[str, Float[Tensor, " w_dim"]],
    facts: Mapping[str, DirectionFacts],
) -> Path:
    """Write `directions.safetensors`: one vector a name, the facts as JSON in the metadata."""
    path = Path(path)
    metadata = {"facts": json.dumps({name: asdict(facts[name]) for name in directions})}
    write_tensors(path, {name: vector.detach().float() for name, vector in directions.items()}, metadata)
    return path


def load_directions(
    path: str | os.PathLike,
) -> tuple[dict[str, Float[Tensor, " w_dim"]], dict[str, DirectionFacts]]:
    """What `save_directions` wrote. Raises FileFormatError when the file is something else."""
    directions, metadata = read_tensors(Path(path), MAX_BYTES, remedy=REMEDY)
    try:
        entries = json.loads(metadata["facts"])
        facts = {
            name: DirectionFacts(**{**entries[name], "against": tuple(entries[name]["against"])})
            for name in directions
        }
    except (KeyError, TypeError, ValueError, RecursionError):
        raise FileFormatError(f"{path}: does not say what its directions do; {REMEDY}") from None
    if bad := [name for name, vector in directions.items() if vector.ndim != 1]:
        raise FileFormatError(f"{path}: direction '{bad[0][:60]}' is not a vector; {REMEDY}")
    return directions, facts


def some_of(directions: Found) -> Found:
    """The directions; raises UserError when there are none."""
    if not directions:
        raise UserError("none of these attributes can be changed in this prior; choose other names")
    return directions


def sized(
    measure: Measure,
    latents: Float[Tensor, "samples w_dim"],
    step: Float[Tensor, " w_dim"],
    name: str,
    deviation: float,
) -> tuple[Float[Tensor, " w_dim"], dict[str, float]]:
    """`step` made so long that it changes the score `name` by `deviation`, and what it then changes.

    Raises NoDirectionError when moving along the step does not raise that score by more than chance.
    """
    for _ in range(REFINEMENTS):
        step = step * (deviation / changes(measure, latents, step, name)[name])
    return step, changes(measure, latents, step, name)


def changes(
    measure: Measure, latents: Float[Tensor, "samples w_dim"], step: Float[Tensor, " w_dim"], name: str
) -> dict[str, float]:
    """Mean change of every score per step, from one step either way. Raises NoDirectionError when that of
    `name`, if it is a score, is not above chance."""
    up, down = (measure(latents + sign * step, f"measuring {name}") for sign in (1, -1))
    half = {key: (up[key] - down[key]) / 2 for key in up}
    if name in half:
        own = half[name][half[name].isfinite()]
        if len(own) < 2 or not own.mean() > 3 * own.std() / len(own) ** 0.5:
            raise NoDirectionError(
                f"the prior has no direction for '{name}': editing along it does not raise it"
            )
    return {key: float(values.nanmean()) for key, values in half.items()}


def _whitening(
    latents: Float[Tensor, "samples w_dim"],
) -> tuple[Float[Tensor, " w_dim"], Float[Tensor, "w_dim k"], Float[Tensor, "k w_dim"]]:
    """(mean, to white, back): axes with almost no spread are left out, they would be amplified noise."""
    mean = latents.mean(0)
    values, axes = torch.linalg.eigh(torch.cov(latents.double().T))
    kept = values > 1e-4 * values.max()
    spread, axes = values[kept].sqrt(), axes[:, kept]
    return mean, (axes / spread).to(latents), (axes * spread).T.to(latents)


def _ridge(
    white: Float[Tensor, "samples k"], target: Float[Tensor, " samples"], shrinkage: float
) -> Float[Tensor, " k"]:
    gram = white.T @ white + shrinkage * torch.eye(white.shape[1]).to(white)
    return torch.linalg.solve(gram, white.T @ (target - target.mean()))


def _without(slope: Float[Tensor, " k"], others: list[Float[Tensor, " k"]]) -> Float[Tensor, " k"]:
    """The part of a slope along which the others, by their own fits, stay as they are."""
    if not others:
        return slope
    basis, _ = torch.linalg.qr(torch.stack(others, dim=1))
    return slope - basis @ (basis.T @ slope)


def _normal_ranks(values: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
    """Scores as the normal quantiles of their ranks: scores near 0 or 1 are far from normal themselves."""
    ranks = values.argsort().argsort().to(values) + 0.5
    return torch.special.ndtri(ranks / len(values))


def separation(position: Float[Tensor, " samples"], score: Float[Tensor, " samples"]) -> float:
    """Chance that a position ranks one of the upper third of scores above one of the lower third."""
    order = score.argsort()
    third = max(1, len(order) // 3)
    low, high = position[order[:third]], position[order[-third:]]
    return float((high[:, None] > low[None]).float().mean())


def _correlation(first: Float[Tensor, " samples"], second: Float[Tensor, " samples"]) -> float:
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1])
