"""What a prior makes up by itself: how lifelike its heads are, how they smile, how evenly they change.

Every function takes latents or counts and gives figures as JSON holds them; None for what a prior lacks.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.apps.attributes import attributes_from
from my3dgen.evaluate.kid import kid
from my3dgen.evaluate.metrics import IDENTITY_NETWORK, PERCEPTUAL_NETWORK
from my3dgen.evaluate.prior_people import compared_seeds, together
from my3dgen.identity import load_identity, similarity
from my3dgen.perceptual import load_perceptual
from my3dgen.precision import mixed_precision
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior
from my3dgen.progress import track
from my3dgen.synthetic.factors import sample_factors
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import build_scenes

DrawCameras = Callable[[int, int, torch.Generator], Float[Tensor, "count views 25"]]
"""Draws cameras as the prior's training does: heads, views of each, generator."""
Latents = Float[Tensor, "batch num_ws w_dim"]

SMILE = "smile"
STRENGTH = 2.0
SMILING = 0.3
"""Smile score above which there is a smile to take away."""
WAY = 9
"""Pictures on the way from one sample to another."""
PAIRS = 64
PSI = 0.7
"""Truncation of the samples that are edited, mixed and shown."""


@torch.no_grad()
def draw_latents(generator: Generator, count: int, psi: float, rng: torch.Generator) -> Latents:
    """Random heads of the prior."""
    z = torch.randn(count, generator.config.z_dim, generator=rng).to(generator.w_avg.device)
    return generator.mapping(z, generator.cameras().expand(count, -1), psi=psi)


@torch.no_grad()
def pictures(
    generator: Generator, ws: Latents, cameras: Float[Tensor, "#batch 25"], batch: int
) -> Iterator[Float[Tensor, "some 3 size size"]]:
    """Pictures in [-1, 1] of latents, `batch` at a time; one camera serves all."""
    cameras = cameras.to(ws).expand(len(ws), -1)
    for some, seen in zip(ws.split(batch), cameras.split(batch), strict=True):
        yield generator.synthesis(some, seen, noise="none").image.float().clamp(-1, 1)


def batches(count: int, batch: int) -> int:
    """How many there are."""
    return -(-count // batch)


def true_pictures(
    seeds: range, cameras: Float[Tensor, "heads 25"], size: int, device: torch.device
) -> Iterator[Float[Tensor, "some 3 size size"]]:
    """One picture in [-1, 1] of each synthetic head."""
    step = together(device, 1)
    for first in range(0, len(seeds), step):
        here = slice(first, first + step)
        scenes = build_scenes(sample_factors(seeds[here], device), device)
        views = render_views(scenes, cameras[here, None].to(device), size=size)
        yield views.rgb[:, 0].float() / 127.5 - 1


def likeness_of_sets(
    prior: Prior, count: int, seed: int, draw_cameras: DrawCameras, batch: int
) -> dict[str, Any]:
    """KID between `count` samples of the prior (psi 1) and as many held-out heads, both from cameras like
    training's, and between two halves of those heads: the floor that a perfect prior would reach."""
    generator, device = prior.generator, prior.generator.w_avg.device
    rng = torch.Generator().manual_seed(seed)
    ws = draw_latents(generator, count, 1.0, rng)
    cameras = [draw_cameras(count, 1, rng)[:, 0] for _ in range(2)]
    network = load_perceptual(PERCEPTUAL_NETWORK, device)

    @torch.no_grad()
    def features(images: Iterable[Tensor], about: str, total: int) -> Tensor:
        return torch.cat([network.pooled(some).cpu() for some in track(images, about, total=total)])

    made = features(pictures(generator, ws, cameras[0].to(device), batch), "samples", batches(count, batch))
    size = prior.config.img_resolution
    heads = true_pictures(compared_seeds(seed, count), cameras[1], size, device)
    true = features(heads, "true heads", batches(count, together(device, 1)))
    half = count // 2
    between, floor = kid(made, true), kid(true[:half], true[half : 2 * half])
    return {
        "kid": between.mean,
        "kid_deviation": between.deviation,
        "kid_floor": floor.mean,
        "kid_network": f"{PERCEPTUAL_NETWORK}, deepest stage averaged over the picture",
    }


@torch.no_grad()
def smiles(prior: Prior, ws: Latents, batch: int) -> dict[str, Any]:
    """What the direction `smile` does to heads seen from the front, at strength +2 and -2.

    Scores are in [0, 1]; heads in which no face is found do not count. Taking a smile away is measured on
    heads that score above `SMILING`, and a decrease counts positive.
    """
    direction = prior.directions.get(SMILE)
    names = ("gain", "identity", "identity_similarity", "removed", "removed_identity", "removed_count")
    if direction is None:
        return {f"smile_{name}": None for name in names}
    generator, device = prior.generator, ws.device
    camera = generator.cameras()
    score, network = attributes_from(camera), load_identity(IDENTITY_NETWORK, device)
    scores, embeddings = {}, {}
    for strength in (0.0, STRENGTH, -STRENGTH):
        shown = pictures(generator, ws + strength * direction.to(ws), camera, batch)
        found = [
            (score(some)[SMILE].cpu(), network.embed(some, camera.expand(len(some), -1)).cpu())
            for some in track(shown, f"smile {strength:+g}", total=batches(len(ws), batch))
        ]
        scores[strength] = torch.cat([one for one, _ in found])
        embeddings[strength] = torch.cat([one for _, one in found])

    def cosine(strength: float) -> Tensor:
        return torch.cosine_similarity(embeddings[0.0], embeddings[strength])

    more, less = scores[STRENGTH] - scores[0.0], scores[0.0] - scores[-STRENGTH]
    up, down = more.isfinite(), less.isfinite() & (scores[0.0] > SMILING)
    return {
        "smile_gain": mean(more[up]),
        "smile_identity": mean(cosine(STRENGTH)[up]),
        "smile_identity_similarity": mean(similarity(embeddings[0.0], embeddings[STRENGTH])[up]),
        "smile_removed": mean(less[down]),
        "smile_removed_identity": mean(cosine(-STRENGTH)[down]),
        "smile_removed_count": int(down.sum()),
        "smile_scored": int(up.sum()),
        "smile_before": mean(scores[0.0][up]),
    }


def mean(values: Tensor) -> float | None:
    """The mean as a number, None of nothing."""
    return float(values.double().mean()) if len(values) else None


def line(first: Latents, last: Latents, steps: int = WAY) -> Float[Tensor, "pairs steps num_ws w_dim"]:
    """Latents on the straight lines between two sets of heads, at even steps, ends included."""
    t = torch.linspace(0, 1, steps, device=first.device).view(1, steps, 1, 1)
    return torch.lerp(first[:, None], last[:, None], t)


@torch.no_grad()
def evenness(prior: Prior, ws: Latents) -> dict[str, Any]:
    """The longest perceptual step on the way from one head to another over the mean step, mean over pairs.

    1 is perfectly even. A step's length is the root of the perceptual distance of neighbouring pictures,
    seen from the front; consecutive latents make the pairs.
    """
    generator = prior.generator
    network = load_perceptual(PERCEPTUAL_NETWORK, ws.device)
    pairs = min(PAIRS, len(ws) // 2)
    ratios = []
    for row in track(line(ws[: 2 * pairs : 2], ws[1 : 2 * pairs : 2]), "interpolation", total=pairs):
        (shown,) = pictures(generator, row, generator.cameras(), len(row))
        lengths = network(shown[:-1], shown[1:]).clamp_min(0).sqrt()
        ratios.append(lengths.max() / lengths.mean().clamp_min(1e-12))
    return {"interpolation_smoothness": float(torch.stack(ratios).mean()), "interpolation_pairs": pairs}


@torch.no_grad()
def latency(generator: Generator, ws: Float[Tensor, "1 num_ws w_dim"], repeats: int) -> dict[str, Any]:
    """Milliseconds, median of `repeats`: a picture from W, and a new view of planes that are kept."""
    device, camera = ws.device, generator.cameras()

    def clock(work: Callable[[], object]) -> float:
        times = []
        for attempt in range(repeats + 3):
            _wait(device)
            started = time.perf_counter()
            work()
            _wait(device)
            if attempt >= 3:
                times.append(1000 * (time.perf_counter() - started))
        return sorted(times)[len(times) // 2]

    with mixed_precision(device):
        planes = generator.planes(ws)
        return {
            "size": generator.config.img_resolution,
            "image_ms": clock(lambda: generator.synthesis(ws, camera)),
            "view_ms": clock(lambda: generator.render(planes, camera, ws)),
            "bfloat16": torch.is_autocast_enabled(device.type),
        }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
