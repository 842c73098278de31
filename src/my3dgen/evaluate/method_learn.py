"""How each method of the benchmark learns a person, and what that costs."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from my3dgen.anchors import Anchors
from my3dgen.evaluate.method_protocol import FULL, Protocol, Row
from my3dgen.evaluate.methods import Method, personalised, pivotal, prior_alone, tuned_in_full
from my3dgen.evaluate.stages import peak_rss_mb
from my3dgen.faces.album import Album
from my3dgen.person import Person, new_person, packed_latents
from my3dgen.personalize import TUNED_IN_FULL, finetune, personalize
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior


@dataclass(frozen=True, eq=False)
class Learned:
    """A method that knows a person."""

    method: Method
    anchors: Anchors | None
    """What alpha-space is spanned by; None where a method has none."""
    parameters: int
    """Numbers trained for the person, latents and what bends around a photo apart."""
    bytes: int
    """On disk, in 16-bit numbers: what must be kept to draw the person again, or one photo by `pti`."""
    seconds: float
    """Of training, the anchors' inversion apart."""


def learn_adapter(
    prior: Prior, row: Row, album: Album, anchors: Anchors, seed: int, path: Path
) -> dict[str, float]:
    """A person file at `path`; returns the seconds it took, and the most memory."""
    started = time.perf_counter()
    assert row.training is not None
    device = prior.generator.w_avg.device
    forget_peak_memory(device)
    config = row.training.personalization(row.rank, seed)
    personalize(prior, album, anchors, config).save(path)
    return {"seconds": time.perf_counter() - started, "peak_memory_mb": peak_memory_mb(device)}


def in_int8(path: Path, smaller: Path) -> Path:
    """The person file at `path` in 8 bits, at `smaller`, which is returned."""
    return Person.load(path).save(smaller, precision="int8")


def learn(
    prior: Prior, protocol: Protocol, row: Row, album: Album, anchors: Anchors | None, seed: int
) -> Learned:
    """A method without an adapter. `anchors` are those of `album`; pti needs neither."""
    if row.method == "pti":
        assert row.training is not None
        inversion = protocol.inversion.config(row.anchors, seed)
        method = pivotal(prior, inversion, row.training.tuning(seed))
        generator = prior.generator
        return Learned(method, None, tuned_numbers(generator), generator_bytes(generator), 0.0)
    assert anchors is not None
    if row.method.startswith("prior-"):
        method = prior_alone(prior, protocol.inversion.config(row.anchors, seed), row.method)
        return Learned(method, anchors, 0, anchor_bytes(anchors), 0.0)
    assert row.method in FULL and row.training is not None
    started = time.perf_counter()
    tuned = finetune(prior, album, anchors, row.training.personalization(1, seed))
    seconds = time.perf_counter() - started
    config, pivoting = protocol.inversion.config("w", seed), row.bending(seed)
    method = tuned_in_full(prior, tuned.generator, tuned.anchors, config, row.method, pivoting)
    size = generator_bytes(tuned.generator) + anchor_bytes(tuned.anchors)
    return Learned(method, tuned.anchors, tuned_numbers(tuned.generator), size, seconds)


def with_adapter(
    prior: Prior, protocol: Protocol, row: Row, path: Path, anchors: Anchors | None, seconds: float, seed: int
) -> Learned:
    """A row's method with the adapter of the person file at `path`, perhaps with other `anchors` than that
    file's."""
    person = Person.load(path, prior)
    if anchors is not None:
        person = new_person(prior, person.adapter, anchors)
    config = protocol.inversion.config("w", seed)
    method = personalised(prior, person, config, pivoting=row.bending(seed))
    parameters = int(person.facts()["trainable_parameters"])
    return Learned(method, person.anchors, parameters, path.stat().st_size, seconds)


def tuned_numbers(generator: Generator) -> int:
    """How many numbers of a generator full tuning changes."""
    return sum(p.numel() for name, p in generator.named_parameters() if name.startswith(TUNED_IN_FULL))


def generator_bytes(generator: Generator) -> int:
    """Size of a generator's file in 16-bit numbers."""
    return len(save({name: t.half().cpu().contiguous() for name, t in generator.state_dict().items()}))


def anchor_bytes(anchors: Anchors) -> int:
    """Size of a file of anchors and their cameras, as a person file holds them."""
    latents = {name: t.half().contiguous() for name, t in packed_latents(anchors.ws).items()}
    return len(save(latents | {"cameras": anchors.cameras.float().contiguous()}))


def peak_memory_mb(device: torch.device) -> float:
    """The most memory so far, in MiB: of tensors on a GPU since `forget_peak_memory`, else of the process."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_rss_mb()


def forget_peak_memory(device: torch.device) -> None:
    """Count a GPU's memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
