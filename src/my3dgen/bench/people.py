"""Many people in one batch: an adapter per image against one adapter for all."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from my3dgen.bench.clock import time_call
from my3dgen.bench.machine import Ceilings
from my3dgen.bench.render import CAPTURED, EAGER, arithmetic, note, works_of
from my3dgen.bench.row import Row, psnr, row
from my3dgen.bench.subjects import Memory, Scene, adapter_of, generator_of, scene_of
from my3dgen.lora import Adapter, stack
from my3dgen.prior.generator import Generator


def bench_people(
    priors: Sequence[str], batches: Sequence[int], device: str, repeats: int, ceilings: Ceilings, *, rank: int
) -> Iterator[Row]:
    """Whole images from latents of one person, then of as many people as images."""
    for name in priors:
        generator = generator_of(name, device)
        everyone = scene_of(generator, max(batches))
        work = works_of(generator, everyone.only(1))["image"]
        adapters = [adapter_of(generator, seed, rank) for seed in range(max(batches))]
        for batch in batches:
            scene = everyone.only(batch)
            for people in dict.fromkeys((1, batch)):
                adapter = adapters[0] if people == 1 else stack(adapters[:batch])
                truth = picture(generator, scene, adapter)
                for path in (*EAGER, *CAPTURED) if device == "cuda" else EAGER:
                    memory = Memory(device)
                    captured = path.of(generator, adapter)
                    timing = time_call(
                        lambda c=captured, s=scene: c.image(s.ws, s.cameras), device, repeats=repeats
                    )
                    who = f"{people} people" if people > 1 else "1 person"
                    yield row(
                        f"{name} image, {who}, {path.name}{note(captured)}",
                        batch,
                        timing,
                        work=work,
                        ceilings=ceilings,
                        arithmetic=arithmetic(device, half=path.half),
                        peak_memory_mb=memory.peak_mb(),
                        psnr=psnr(captured.image(scene.ws, scene.cameras).image, truth),
                    )
                    del captured


@torch.no_grad()
def picture(generator: Generator, scene: Scene, adapter: Adapter) -> Tensor:
    """The images by the plain float32 path."""
    volume = generator.volume(generator.planes(scene.ws, adapter), scene.cameras, fused=False)
    return generator.superresolve(volume.features, scene.ws, adapter)
