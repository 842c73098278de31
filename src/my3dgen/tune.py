"""The training loop of personalization: renderings of the anchors are pulled toward their photos.

What is trained is given as a dict of leaves (an adapter's tensors, or the generator's own), so LoRA,
full fine-tuning and tuning on a single photo are the same loop. Every step draws from generators
seeded by its own number, so a resumed run continues bit for bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from my3dgen.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from my3dgen.errors import UserError
from my3dgen.lora import Adapter
from my3dgen.losses import absolute_error, gradient_error, squared_error
from my3dgen.perceptual import Perceptual
from my3dgen.precision import mixed_precision
from my3dgen.prior.generator import Generator
from my3dgen.progress import track
from my3dgen.schedule import warm_then_linear
from my3dgen.targets import Targets
from my3dgen.window import fits_windows, random_window, render_window

KEEP_EVERY = 10  # steps between two checkpoints
BETAS = (0.0, 0.992)  # EG3D spec 5.6
PERCEPTUAL_SIDE = 96  # smaller pictures are enlarged for the perceptual network


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """The loop's dials. The loss is that of EG3D spec 5.6, squared error and perceptual distance, plus a
    little absolute error."""

    steps: int = 360
    batch: int = 1
    rate: float = 2e-3
    warm: int = 20
    """Steps in which the rate rises."""
    fall: float = 0.5
    """Share of the steps in which the rate falls to zero: a third of the gain comes there."""
    window: int | None = 40
    """Side of the raw window seen in a step, margins included; None for whole pictures."""
    samples: int = 24
    """Coarse samples a ray, and as many fine ones: those of the rendering, or the adapter learns the error
    of fewer."""
    perceptual: float = 0.03
    """Weight of the perceptual distance, at each size; it is about a hundred times the squared error."""
    plain: float = 0.1
    """Weight of the absolute error of pixels and of differences between neighbours, at each size: faint
    tints and soft edges hardly show in a square."""
    seed: int = 0


Extra = Callable[[int, Tensor], Tensor]
"""Further loss terms: (step, photo numbers) -> a number."""


def tune(
    generator: Generator,
    adapter: Adapter | None,
    leaves: Mapping[str, Tensor],
    targets: Targets,
    latents: Callable[[Tensor], Float[Tensor, "batch num_ws w_dim"]],
    config: TuneConfig,
    perceptual: Perceptual | None,
    *,
    belongs: str,
    unfinished: Path | None = None,
    extra: Extra | None = None,
    rates: Mapping[str, float] | None = None,
    description: str = "personalizing",
) -> list[float]:
    """Train `leaves` in place; returns the loss of every step (of this call).

    `latents` gives the latents of numbered photos. `rates` are factors on the learning rate by leaf.
    `unfinished` as in `my3dgen.invert.invert`. Raises UserError when the loss is not a number; what
    `unfinished` holds then is the last good state.
    """
    optimizer = torch.optim.Adam(
        [{"params": [leaf], "factor": (rates or {}).get(name, 1.0)} for name, leaf in leaves.items()],
        lr=config.rate,
        betas=BETAS,
    )
    done = 0
    kept = load_checkpoint(unfinished, belongs) if unfinished else None
    if kept is not None:
        done = kept.state["steps"]
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.copy_(kept.tensors[f"leaf.{name}"])
        restore_optimizer(optimizer, kept.tensors)
    losses = []
    for step in track(range(done, config.steps), description, total=config.steps, initial=done):
        loss = _loss(generator, adapter, targets, latents, config, perceptual, step, extra)
        if not torch.isfinite(loss):
            raise UserError(
                f"personalization diverged at step {step}; make it anew with a rate below {config.rate:g}"
            )
        factor = warm_then_linear(step, config.steps, config.warm, config.fall)
        for group in optimizer.param_groups:
            group["lr"] = config.rate * factor * group["factor"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if unfinished and (step + 1) % KEEP_EVERY == 0 and step + 1 < config.steps:
            tensors = {f"leaf.{name}": leaf for name, leaf in leaves.items()}
            save_checkpoint(unfinished, belongs, tensors | optimizer_tensors(optimizer), {"steps": step + 1})
    return losses


def _loss(
    generator: Generator,
    adapter: Adapter | None,
    targets: Targets,
    latents: Callable[[Tensor], Tensor],
    config: TuneConfig,
    perceptual: Perceptual | None,
    step: int,
    extra: Extra | None,
) -> Float[Tensor, ""]:
    numbers = photos_of_step(step, len(targets), config.batch, config.seed)
    rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    side = generator.config.neural_rendering_resolution
    window = None
    if config.window is not None and config.window < side and fits_windows(generator):
        window = random_window(config.window, side, rng)
    with mixed_precision(targets.images.device):
        pair = render_window(
            generator, latents(numbers), targets.cameras[numbers], adapter, window, config.samples
        )
    loss = pair[0].new_zeros(())
    for made, size in zip(pair, (generator.config.img_resolution, side), strict=True):
        photos, weights = (x[numbers] for x in targets.at(size))
        if window is not None:
            photos, weights = window.crop(photos), window.crop(weights)
        loss = loss + squared_error(made, photos, weights).mean()
        if config.plain > 0:
            plain = absolute_error(made, photos, weights) + gradient_error(made, photos, weights)
            loss = loss + config.plain * plain.mean()
        if perceptual is not None and config.perceptual > 0:
            loss = loss + config.perceptual * _perceptual_distance(perceptual, made, photos).mean()
    return loss if extra is None else loss + extra(step, numbers)


def _perceptual_distance(perceptual: Perceptual, made: Tensor, photos: Tensor) -> Float[Tensor, " batch"]:
    """Small pictures are enlarged first: the network halves what it gets five times."""
    scale = -(-PERCEPTUAL_SIDE // min(made.shape[-2:]))
    if scale > 1:
        made, photos = (F.interpolate(x, scale_factor=scale, mode="bilinear") for x in (made, photos))
    with torch.no_grad():
        theirs = perceptual.features(photos)
    return perceptual.distance(perceptual.features(made), theirs)


def photos_of_step(step: int, count: int, batch: int, seed: int) -> Tensor:
    """The photos of a step. All photos are seen once, in a new order, before any is seen again."""
    numbers = []
    for place in range(step * batch, step * batch + batch):
        turn, position = divmod(place, count)
        rng = torch.Generator().manual_seed(seed * 1_000_003 + turn)
        numbers.append(torch.randperm(count, generator=rng)[position])
    return torch.stack(numbers)
