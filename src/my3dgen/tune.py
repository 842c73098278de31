"""The training loop of personalization: renderings of the anchors are pulled toward their photos.

What is trained is given as a dict of leaves (an adapter's tensors, or the generator's own), so LoRA,
full fine-tuning and tuning on a single photo are the same loop. Every step draws from generators
seeded by its own number, so a resumed run continues bit for bit. Steps only queue work for a GPU; what came
of it is read every few steps.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from my3dgen.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
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

READ_EVERY = 10  # steps between two looks at the losses, when also a checkpoint may be written
KEEP_SECONDS = 5  # at least, between two checkpoints
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
    kept: Checkpoint | None = None,
    first: int = 0,
    extra: Extra | None = None,
    rates: Mapping[str, float] | None = None,
    starts: Mapping[str, int] | None = None,
    description: str = "personalizing",
) -> list[float]:
    """Train `leaves` in place, from step `first`; returns the loss of every step (of this call).

    `latents` gives the latents of numbered photos. By leaf, `rates` are factors on the learning rate and
    `starts` the steps before which it stays. `unfinished` is the file for work under way, under the name
    `belongs`, and `kept` what it held. Raises UserError when the loss is not a number, a few steps late;
    what `unfinished` holds then is the last good state.
    """
    groups: dict[float, list[Tensor]] = {}
    for name, leaf in leaves.items():
        groups.setdefault((rates or {}).get(name, 1.0), []).append(leaf)
    optimizer = torch.optim.Adam(
        [{"params": group, "factor": factor} for factor, group in groups.items()], lr=config.rate, betas=BETAS
    )
    late = {name: leaf for name, leaf in leaves.items() if (starts or {}).get(name, 0) > first}
    done = first
    if kept is not None:
        done = kept.state["steps"]
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.copy_(kept.tensors[f"leaf.{name}"])
        restore_optimizer(optimizer, kept.tensors)
    losses: list[float] = []
    unread: list[Tensor] = []
    saved = -KEEP_SECONDS
    for step in track(range(done, config.steps), description, total=config.steps, initial=done):
        loss = loss_of_step(generator, adapter, targets, latents, config, perceptual, step, extra)
        factor = warm_then_linear(step - first, config.steps - first, config.warm, config.fall)
        for group in optimizer.param_groups:
            group["lr"] = config.rate * factor * group["factor"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for name, leaf in late.items():
            if step < (starts or {})[name]:
                leaf.grad = None  # which an optimiser passes over
        optimizer.step()
        unread.append(loss.detach())
        last = step + 1 == config.steps
        if not last and (step + 1) % READ_EVERY:
            continue
        losses += _read(unread, leaves.values(), step + 1, config.rate)
        unread = []
        if unfinished and not last and time.monotonic() - saved >= KEEP_SECONDS:
            keep(unfinished, belongs, leaves, step + 1, optimizer)
            saved = time.monotonic()
    return losses


def keep(
    path: Path,
    belongs: str,
    leaves: Mapping[str, Tensor],
    steps: int,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Write the state after so many steps for `tune` to go on from; a new phase has no optimiser yet."""
    tensors = {f"leaf.{name}": leaf for name, leaf in leaves.items()}
    tensors |= optimizer_tensors(optimizer) if optimizer else {}
    save_checkpoint(path, belongs, tensors, {"steps": steps})


def rows(tensor: Tensor, numbers: Tensor) -> Tensor:
    """Rows by their numbers, which are on the CPU. Indexing would make a GPU finish its work first."""
    return torch.cat([tensor[i : i + 1] for i in numbers.tolist()])


def _read(losses: list[Tensor], leaves: Iterable[Tensor], steps: int, rate: float) -> list[float]:
    """The losses of the last steps, in one transfer. Raises UserError if one or a leaf is not finite."""
    whole = torch.stack([leaf.detach().isfinite().all() for leaf in leaves]).all()
    *values, fine = torch.stack([*losses, whole.to(losses[0])]).tolist()
    bad = [i for i, value in enumerate(values) if not math.isfinite(value)]
    if bad or not fine:
        step = steps - len(losses) + bad[0] if bad else steps
        raise UserError(f"personalization diverged at step {step}; make it anew with a rate below {rate:g}")
    return values


def loss_of_step(
    generator: Generator,
    adapter: Adapter | None,
    targets: Targets,
    latents: Callable[[Tensor], Tensor],
    config: TuneConfig,
    perceptual: Perceptual | None,
    step: int,
    extra: Extra | None,
) -> Float[Tensor, ""]:
    """The loss of a numbered step, which decides photos and window; arguments as `tune`."""
    numbers = photos_of_step(step, len(targets), config.batch, config.seed)
    rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    side = generator.config.neural_rendering_resolution
    window = None
    if config.window is not None and config.window < side and fits_windows(generator):
        window = random_window(config.window, side, rng)
    with mixed_precision(targets.images.device):
        pair = render_window(
            generator, latents(numbers), rows(targets.cameras, numbers), adapter, window, config.samples
        )
    loss = pair[0].new_zeros(())
    for made, size in zip(pair, (generator.config.img_resolution, side), strict=True):
        photos, weights = (rows(x, numbers) for x in targets.at(size))
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
