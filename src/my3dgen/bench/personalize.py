"""Making a person: what a training step takes, and what all of it takes from photos to adapter."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from my3dgen.anchors import Anchors
from my3dgen.bench.clock import Timing, seconds_of
from my3dgen.bench.row import Row, row
from my3dgen.bench.subjects import Memory, generator_of, scene_of
from my3dgen.errors import UserError
from my3dgen.faces.album import Album
from my3dgen.invert import QUALITIES as INVERSIONS
from my3dgen.invert import InvertConfig, invert
from my3dgen.personalize import QUALITIES, PersonalizeConfig, personalize
from my3dgen.prior.store import EMBEDDED, Prior, load_prior

REPEATS = 3


def bench_personalize(
    priors: Sequence[str], batches: Sequence[int], device: str, photos: int, steps: int
) -> Iterator[Row]:
    """Rows of the first prior's steps, whole pictures, at every batch; of whole personalizations, the last
    prior's first and on a CPU alone; and of the other priors' steps."""
    yield from training_steps(priors[0], batches, device, steps)
    for name in reversed(priors) if device == "cuda" else priors[-1:]:
        yield whole(f"{name} personalization of {photos} photos", prior_of(name, device), photos, device)
    for name in priors[1:]:
        yield from training_steps(name, batches, device, steps)


def training_steps(name: str, batches: Sequence[int], device: str, steps: int) -> Iterator[Row]:
    """Rows of a step of `standard`, but whole pictures, at every batch."""
    prior = prior_of(name, device)
    for batch in batches:
        config = replace(QUALITIES["standard"], batch=batch, window=None, merged=1)
        yield training_step(f"{name} training step, whole pictures", prior, config, device, steps)


def training_step(name: str, prior: Prior, config: PersonalizeConfig, device: str, steps: int) -> Row:
    """One step of `personalize`, optimiser included."""
    album, anchors = album_of(prior, max(4, config.batch))
    memory = Memory(device)
    timing = added_by_steps(
        lambda count: personalize(prior, album, anchors, replace(config, steps=count)), device, steps
    )
    return row(name, config.batch, timing, peaks=memory.peaks())


def inversion_step(name: str, prior: Prior, device: str, steps: int) -> Row:
    """One step of `invert` on all rays of one photo."""
    config = replace(INVERSIONS["standard"], coarse_steps=0, common_steps=0, alone_factor=1, batch=1)
    album, _ = album_of(prior, 1)
    memory = Memory(device)
    timing = added_by_steps(
        lambda count: invert(prior, album, replace(config, fine_steps=count)), device, steps
    )
    return row(name, 1, timing, peaks=memory.peaks())


def added_by_steps(work: Callable[[int], object], device: str, steps: int) -> Timing:
    """What a step more adds to the time of `work(steps)`.

    `steps` steps more, that is, so that what is done once, such as recording graphs, does not count. Raises
    UserError if they add nothing.
    """
    work(1)  # kernels are compiled, networks loaded
    times = []
    for _ in range(REPEATS):
        few = seconds_of(lambda: work(steps), device)
        many = seconds_of(lambda: work(2 * steps), device)
        times.append(1e3 * (many - few) / steps)
    timing = Timing.of(times)
    if timing.median_ms <= 0:
        raise UserError(f"this machine is too busy to time {steps} steps; give more --steps")
    return timing


def whole(name: str, prior: Prior, photos: int, device: str) -> Row:
    """Photos to anchors to adapter at `standard`, as `my3dgen personalize` does with faces found.

    Once, after a few steps that do not count: kernels are compiled then, which are kept between runs.
    """
    album, _ = album_of(prior, photos)
    memory = Memory(device)
    slow, training = INVERSIONS["standard"], QUALITIES["standard"]
    quick = replace(slow, common_steps=min(1, slow.common_steps), coarse_steps=1, fine_steps=1)

    def work(inversion: InvertConfig, steps: int) -> None:
        personalize(prior, album, invert(prior, album, inversion), replace(training, steps=steps))

    work(quick, 2 * training.merged)
    time = Timing.of([1e3 * seconds_of(lambda: work(slow, training.steps), device)])
    return row(name, photos, time, peaks=memory.peaks())


def prior_of(name: str, device: str) -> Prior:
    """The embedded prior of a name, else its preset with random weights, whose hash says nothing."""
    if (EMBEDDED / name).is_dir():
        return load_prior(name, device)
    return Prior(name, generator_of(name, device), sha256="0" * 64, directions={}, folder=Path(name))


@torch.no_grad()
def album_of(prior: Prior, photos: int) -> tuple[Album, Anchors]:
    """Pictures that the prior makes, as photos, and where they come from."""
    scene = scene_of(prior.generator, photos)
    images = [
        prior.generator.synthesis(scene.ws[i : i + 1], scene.cameras[i : i + 1]).image.clamp(-1, 1)
        for i in range(photos)
    ]
    names = tuple(f"{i}.png" for i in range(photos))
    pictures = torch.cat(images).cpu()
    album = Album(pictures, scene.cameras.cpu(), torch.ones_like(pictures[:, :1]), names)
    return album, Anchors(scene.ws.cpu(), scene.cameras.cpu(), names)
