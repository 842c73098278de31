"""Optional terms of personalization that compare faces, not pixels (EG3D spec 5.6, optional phases).

They use the identity network that metrics use, so a person trained with them must not be judged by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from my3dgen.cameras import mirror_camera, orbit, project
from my3dgen.comparison import rows
from my3dgen.faces.canonical import canonical_face
from my3dgen.identity import FIVE, load_identity
from my3dgen.lora import Adapter
from my3dgen.prior.generator import Generator
from my3dgen.targets import Targets

if TYPE_CHECKING:
    from my3dgen.personalize import PersonalizeConfig

EVERY = 4  # steps
FRAMES = 120


def identity_and_symmetry(
    generator: Generator,
    adapter: Adapter | None,
    targets: Targets,
    latents: Callable[[Tensor], Tensor],
    config: PersonalizeConfig,
) -> Callable[[int, Tensor], Tensor] | None:
    """The terms asked for, as a further loss for every 4th step; None if there are none."""
    if not (config.identity or config.symmetry):
        return None
    network = load_identity("dlib", targets.images.device)
    face = canonical_face(targets.world)[list(FIVE)].to(targets.images.device)
    radius, focal = generator.config.camera_radius, generator.config.focal
    views = orbit(FRAMES, pivot=(0.0, 0.0, 0.0), radius=radius, focal=focal).to(targets.images.device)

    def embed(images: Tensor, cameras: Tensor) -> Tensor:
        return network.embed(images, points=project(face.expand(len(images), -1, -1), cameras))

    def embedding(ws: Tensor, cameras: Tensor, mirrored: bool = False) -> Tensor:
        images = generator.synthesis(ws, cameras, adapter).image.clamp(-1, 1)
        if not mirrored:
            return embed(images, cameras)
        return embed(images.flip(3), mirror_camera(cameras))

    def terms(step: int, numbers: Tensor) -> Tensor:
        total = targets.images.new_zeros(())
        if step % EVERY:
            return total
        ws, cameras = latents(numbers), rows(targets.cameras, numbers)
        if config.identity:
            photos = embed(rows(targets.images, numbers), cameras)
            likeness = torch.cosine_similarity(embedding(ws, cameras), photos)
            total = total + config.identity * (1 - likeness).mean()
        if config.symmetry:
            rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
            frame = int(torch.randint(0, FRAMES // 2, (), generator=rng))
            left = views[frame : frame + 1].expand(len(ws), -1)
            right = mirror_camera(left)  # the spec's frame 119 - f lies one beside it
            likeness = torch.cosine_similarity(embedding(ws, left), embedding(ws, right, mirrored=True))
            total = total + config.symmetry * (1 - likeness).mean()
        return total

    return terms
