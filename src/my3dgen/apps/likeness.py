"""How alike pictures of a person are: who is seen, by the metric identity network, and how much changes."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from my3dgen.apps.subject import Subject, draw
from my3dgen.faces.build import pixels
from my3dgen.identity import load_identity, similarity
from my3dgen.perceptual import load_perceptual

IDENTITY_NETWORK = "dlib"
PERCEPTUAL_NETWORK = "lite0-feat"

Embeddings = Float[Tensor, "batch 128"]


@torch.no_grad()
def embed(images: Iterable[Image.Image], cameras: Float[Tensor, "batch 25"]) -> Embeddings:
    """Who is seen in square pictures, each with its camera."""
    network = load_identity(IDENTITY_NETWORK)
    pairs = zip(images, cameras.cpu().split(1), strict=True)
    return torch.cat([network.embed(pixels(image.convert("RGB"))[None], camera) for image, camera in pairs])


@torch.no_grad()
def embed_anchors(subject: Subject, anchors: Sequence[int], resolution: int | None = None) -> Embeddings:
    """Who is seen in anchors drawn from their photos' cameras."""
    network = load_identity(IDENTITY_NETWORK, subject.anchors.device)
    rows = []
    for anchor in anchors:
        camera = subject.cameras[anchor : anchor + 1]
        (one,) = draw(subject, subject.latent(anchor), camera, resolution)
        rows.append(network.embed(one.image.clamp(-1, 1), camera).cpu())
    return torch.cat(rows)


def nearest(who: Embeddings, references: Float[Tensor, "references 128"]) -> tuple[list[float], list[int]]:
    """For every picture its similarity to the reference it is most like (1 is the same picture, 0.5 the
    network's limit for one person), and which one that is."""
    table = torch.stack([similarity(who, one[None].expand_as(who)) for one in references], 1)
    best, which = table.max(1)
    return best.tolist(), which.tolist()


def least_alike(references: Embeddings) -> float | None:
    """The lowest similarity of two references: how unlike themselves pictures of the person can be."""
    if len(references) < 2:
        return None
    count = len(references)
    pairs = [(i, j) for i in range(count) for j in range(i)]
    first, second = (references[[pair[side] for pair in pairs]] for side in (0, 1))
    return float(similarity(first, second).min())


class Change:
    """How much changes from picture to picture: roots of the feature distances of "lite0-feat", which add
    up along a straight line. Keeps two pictures' features, however many are seen."""

    def __init__(self) -> None:
        self.first: list[Tensor] = []
        self.last: list[Tensor] = []
        self.seen: list[float] = []

    @torch.no_grad()
    def see(self, image: Image.Image) -> None:
        """The next picture."""
        features = load_perceptual(PERCEPTUAL_NETWORK).features(pixels(image.convert("RGB"))[None])
        if self.first:
            self.seen.append(self._between(self.last, features))
        self.first, self.last = self.first or features, features

    def steps(self, closed: bool = False) -> list[float]:
        """From each picture to the next, with `closed` also from the last to the first."""
        return self.seen + ([self._between(self.last, self.first)] if closed else [])

    @staticmethod
    def _between(a: list[Tensor], b: list[Tensor]) -> float:
        return float(load_perceptual(PERCEPTUAL_NETWORK).distance(a, b).clamp_min(0).sqrt())


def unevenness(steps: Sequence[float]) -> float:
    """Standard deviation of steps over their mean: 0 when all are the same, and when nothing moves."""
    values = torch.tensor(list(steps), dtype=torch.float64)
    return float(values.std(correction=0) / values.mean()) if values.mean() > 0 else 0.0
