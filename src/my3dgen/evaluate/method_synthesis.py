"""What a person's alpha-space holds: are samples and in-betweens still the person, and do they differ?

Samples are points of the anchors' hull (EG3D spec 5.8) seen from random yaws; interpolations go straight from
one anchor to another, seen from the front. Each picture's identity is that of the person's photo it comes
nearest to, as the paper's group scores it (EG3D spec 6.2).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.alpha import decode, sample_alphas
from my3dgen.anchors import Anchors
from my3dgen.config import PriorConfig
from my3dgen.evaluate.methods import Method
from my3dgen.evaluate.metrics import Images, Judge
from my3dgen.evaluate.protocol import reproduce
from my3dgen.faces.album import Album
from my3dgen.identity import similarity
from my3dgen.targets import targets_of

AT_ONCE = 16
"""Pictures that a metric network sees together."""
PAIRS = 200
"""Pairs of samples that are compared at most."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Pictures and how they score."""

    images: Images
    figures: dict[str, float]


def embeddings(
    judge: Judge, album: Album, config: PriorConfig, device: torch.device
) -> Float[Tensor, "photo 128"]:
    """Face embeddings of photos, as the prior would be shown them."""
    photos = targets_of(album, config, device)
    return embed(judge, photos.images, photos.cameras)


@torch.no_grad()
def embed(judge: Judge, images: Images, cameras: Float[Tensor, "batch 25"]) -> Float[Tensor, "batch 128"]:
    """Face embeddings of pictures, some at a time."""
    pairs = zip(images.split(AT_ONCE), cameras.split(AT_ONCE), strict=True)
    return torch.cat([judge.embed(some, camera) for some, camera in pairs])


def nearest_photo(
    faces: Float[Tensor, "batch 128"], photos: Float[Tensor, "photo 128"]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """(identity, cosine) of each face with the photo that comes nearest by each measure."""
    near = torch.stack([similarity(faces, photo.expand_as(faces)) for photo in photos], 1)
    cosines = torch.nn.functional.normalize(faces) @ torch.nn.functional.normalize(photos).T
    return near.amax(1), cosines.amax(1)


def synthesise(
    method: Method,
    anchors: Anchors,
    photos: Float[Tensor, "photo 128"],
    judge: Judge,
    *,
    count: int,
    yaw: float | int,
    seed: int,
) -> Drawn:
    """`count` samples seen from within `yaw` degrees: their `identity`, `cosine` and `diversity`, the mean
    perceptual distance between two of them seen from the front."""
    device = method.generator.w_avg.device
    rng = torch.Generator().manual_seed(seed)
    alphas = sample_alphas(count, len(anchors), rng).to(device)
    yaws = (2 * torch.rand(count, generator=rng) - 1) * math.radians(yaw)
    cameras = method.generator.cameras(yaws)
    ws = decode(alphas, anchors.ws.to(device))
    images = reproduce(method.generator, method.adapter, ws, cameras)
    near, cosine = nearest_photo(embed(judge, images, cameras), photos)
    # from one side, or turning the head would pass for variety
    frontal = method.generator.cameras().expand(count, -1)
    faced = reproduce(method.generator, method.adapter, ws, frontal)
    figures = {
        "identity": float(near.mean()),
        "cosine": float(cosine.mean()),
        "diversity": diversity(faced, judge.perceptual, rng),
    }
    return Drawn(images, figures)


@torch.no_grad()
def diversity(images: Images, perceptual: Callable[[Tensor, Tensor], Tensor], rng: torch.Generator) -> float:
    """Mean perceptual distance of two different pictures, over all pairs or `PAIRS` random ones."""
    pairs = torch.combinations(torch.arange(len(images)))
    pairs = pairs[torch.randperm(len(pairs), generator=rng)[:PAIRS]].to(images.device)
    some = pairs.split(AT_ONCE)
    return float(torch.cat([perceptual(images[part[:, 0]], images[part[:, 1]]) for part in some]).mean())


def between(
    method: Method,
    anchors: Anchors,
    photos: Float[Tensor, "photo 128"],
    judge: Judge,
    *,
    pairs: int,
    steps: int,
    seed: int,
) -> Drawn | None:
    """Straight ways between random pairs of anchors: the mean over ways of the `mean` and of the `least`
    identity on them. None for a single anchor."""
    if len(anchors) < 2:
        return None
    device = method.generator.w_avg.device
    rng = torch.Generator().manual_seed(seed)
    every = torch.combinations(torch.arange(len(anchors)))
    chosen = every[torch.randperm(len(every), generator=rng)[:pairs]]
    t = torch.linspace(0, 1, steps)[None, :, None]
    ends = torch.eye(len(anchors))[chosen]
    alphas = torch.lerp(ends[:, :1], ends[:, 1:], t).flatten(0, 1)
    ws = decode(alphas.to(device), anchors.ws.to(device))
    cameras = method.generator.cameras().expand(len(ws), -1)
    images = reproduce(method.generator, method.adapter, ws, cameras)
    near = nearest_photo(embed(judge, images, cameras), photos)[0].view(-1, steps)
    return Drawn(images, {"mean": float(near.mean()), "least": float(near.amin(1).mean())})
