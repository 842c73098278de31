"""The training loop of personalization: renderings of the anchors are pulled toward their photos.

What is trained is given as a dict of leaves (an adapter's tensors, or the generator's own), so LoRA,
full fine-tuning and tuning on a single photo are the same loop. Every step draws from generators
seeded by its own number, so a resumed run continues bit for bit. A GPU replays a step as one graph and the
host only queues it; what came of it is read every few steps.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from my3dgen.comparison import Compared, compared, differences, kept_features
from my3dgen.errors import UserError
from my3dgen.graphs import CapturedKinds
from my3dgen.lora import Adapter
from my3dgen.perceptual import Perceptual
from my3dgen.prior.generator import Generator
from my3dgen.progress import track
from my3dgen.schedule import warm_then_linear
from my3dgen.targets import Targets
from my3dgen.window import Spans

READ_EVERY = 10  # steps between two looks at the losses, when also a checkpoint may be written
KEEP_SECONDS = 5  # at least, between two checkpoints
BETAS = (0.0, 0.992)  # EG3D spec 5.6


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """The loop's dials. The loss is that of EG3D spec 5.6, squared error and perceptual distance, plus a
    little absolute error."""

    steps: int = 360
    batch: int = 1
    rate: float = 2e-3
    """Learning rate; the parts of an adapter have multiples of it (`my3dgen.rates`)."""
    warm: int = 20
    """Steps in which the rate rises."""
    fall: float = 0.5
    """Share of the steps in which the rate falls to zero: a third of the gain comes there."""
    window: int | None = 38
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
    people: Sequence[int] | None = None,
    unfinished: Path | None = None,
    kept: Checkpoint | None = None,
    first: int = 0,
    extra: Extra | None = None,
    rates: Mapping[str, float] | None = None,
    starts: Mapping[str, int] | None = None,
    description: str = "personalizing",
) -> list[list[float]]:
    """Train `leaves` in place, from step `first`; returns each person's loss of every step (of this call).

    `latents` gives the latents of numbered photos. If there are several people, `people` is how many of the
    photos, in their order, are of each, and the adapter has an entry each. By leaf, `rates` are factors on
    the learning rate and `starts` the steps before which it stays. `unfinished` is the file for work under
    way, under the name `belongs`, and `kept` what it held. Raises UserError when the loss is not a number, a
    few steps late; what `unfinished` holds then is the last good state.
    """
    groups: dict[float, list[Tensor]] = {}
    for name, leaf in leaves.items():
        groups.setdefault((rates or {}).get(name, 1.0), []).append(leaf)
    optimizer = torch.optim.Adam(
        [{"params": group, "factor": factor} for factor, group in groups.items()],
        lr=config.rate,
        betas=BETAS,
        fused=targets.images.is_cuda,
    )
    late = {name: leaf for name, leaf in leaves.items() if (starts or {}).get(name, 0) > first}
    done = first
    if kept is not None:
        done = kept.state["steps"]
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.copy_(kept.tensors[f"leaf.{name}"])
        restore_optimizer(optimizer, kept.tensors)
    counts = people or [len(targets)]

    def work(kind: tuple[Spans | None, bool], both: Compared) -> dict[str, Tensor]:
        """Forward and backward: the losses and, if latents move, what moves them."""
        spans, moving = kind
        ws = both.ws.detach().requires_grad_(moving)
        per_photo = _per_photo(adapter, config.batch)
        apart = differences(generator, per_photo, replace(both, ws=ws), spans, config, perceptual, features)
        losses = apart.unflatten(0, (len(counts), -1)).mean(1)
        losses.sum().backward()
        return {"losses": losses.detach()} | ({"ws": ws.grad} if ws.grad is not None else {})

    step_of_kind = CapturedKinds(work, list(leaves.values()), capture=targets.images.is_cuda)
    features = kept_features(generator, targets, config, perceptual)
    losses: list[list[float]] = []
    unread: list[Tensor] = []
    saved = -KEEP_SECONDS
    for step in track(range(done, config.steps), description, total=config.steps, initial=done):
        numbers = photos_of_people(step, counts, config.batch, config.seed)
        spans, both = compared(generator, targets, latents, config, step, numbers)
        out = step_of_kind((spans, both.ws.requires_grad), both.detached())
        loss = out["losses"].clone()  # the next step may write over it
        if both.ws.requires_grad:
            both.ws.backward(out["ws"])
        if extra is not None and (term := extra(step, numbers)).requires_grad:
            term.backward()
            loss = loss + term.detach()
        factor = warm_then_linear(step - first, config.steps - first, config.warm, config.fall)
        for group in optimizer.param_groups:
            group["lr"] = config.rate * factor * group["factor"]
        for name, leaf in late.items():
            if step < (starts or {})[name]:
                leaf.grad = None  # which an optimiser passes over
        optimizer.step()
        unread.append(loss)
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


def loss_of_step(
    generator: Generator,
    adapter: Adapter | None,
    targets: Targets,
    latents: Callable[[Tensor], Tensor],
    config: TuneConfig,
    perceptual: Perceptual | None,
    step: int,
) -> Float[Tensor, ""]:
    """The loss of a numbered step, which decides photos and window; arguments as `tune`."""
    numbers = photos_of_step(step, len(targets), config.batch, config.seed)
    spans, both = compared(generator, targets, latents, config, step, numbers)
    return differences(generator, adapter, both, spans, config, perceptual).mean()


def photos_of_step(step: int, count: int, batch: int, seed: int) -> Tensor:
    """The photos of a step. All photos are seen once, in a new order, before any is seen again."""
    numbers = []
    for place in range(step * batch, step * batch + batch):
        turn, position = divmod(place, count)
        rng = torch.Generator().manual_seed(seed * 1_000_003 + turn)
        numbers.append(torch.randperm(count, generator=rng)[position])
    return torch.stack(numbers)


def photos_of_people(step: int, counts: Sequence[int], batch: int, seed: int) -> Tensor:
    """As many photos of each person, who have so many each; each person's are those they had alone."""
    firsts = itertools.accumulate(counts, initial=0)
    chosen = [photos_of_step(step, count, batch, seed) for count in counts]
    return torch.cat([first + numbers for first, numbers in zip(firsts, chosen, strict=False)])


def _per_photo(adapter: Adapter | None, batch: int) -> Adapter | None:
    """An adapter with an entry for each person as one with an entry for each of their `batch` photos."""
    if adapter is None or adapter.batch is None or batch == 1:
        return adapter
    repeated = {name: tensor.repeat_interleave(batch, 0) for name, tensor in adapter.tensors.items()}
    return replace(adapter, tensors=repeated)


def _read(losses: list[Tensor], leaves: Iterable[Tensor], steps: int, rate: float) -> list[list[float]]:
    """The losses of the last steps, in one transfer. Raises UserError if one or a leaf is not finite."""
    whole = torch.stack([leaf.detach().isfinite().all() for leaf in leaves]).all()
    *values, fine = torch.stack([*losses, whole.to(losses[0]).expand_as(losses[0])]).tolist()
    bad = [i for i, value in enumerate(values) if not all(map(math.isfinite, value))]
    if bad or not fine[0]:
        step = steps - len(losses) + bad[0] if bad else steps
        raise UserError(f"personalization diverged at step {step}; make it anew with a rate below {rate:g}")
    return values
