"""Many people in one batch: an adapter per image against one adapter for all."""

from collections.abc import Iterator, Sequence

from my3dgen.bench.clock import time_call
from my3dgen.bench.machine import Ceilings
from my3dgen.bench.render import arithmetic, note, paths_on, reference, works_of
from my3dgen.bench.row import Row, psnr, row
from my3dgen.bench.subjects import Memory, adapter_of, generator_of, scene_of
from my3dgen.lora import stack


def bench_people(
    priors: Sequence[str], batches: Sequence[int], device: str, repeats: int, ceilings: Ceilings, *, rank: int
) -> Iterator[Row]:
    """Whole images from latents of one person, then of as many people as images, the fastest paths first."""
    most = max(batches)
    for name in priors:
        generator = generator_of(name, device)
        everyone = scene_of(generator, most)
        work = works_of(generator, everyone.only(1))["image"]
        adapters = [adapter_of(generator, seed, rank) for seed in range(most)]
        alone, together = (
            reference(generator, everyone, worn)["image"] for worn in (adapters[:1] * most, adapters)
        )
        for path in paths_on(device):
            if not path.fused:
                continue
            for batch in batches:
                scene = everyone.only(batch)
                for people in dict.fromkeys((1, batch)):
                    memory = Memory(device)
                    captured = path.of(generator, adapters[0] if people == 1 else stack(adapters[:batch]))
                    timing = time_call(
                        lambda c=captured, s=scene: c.image(s.ws, s.cameras), device, repeats=repeats
                    )
                    who = f"{people} people" if people > 1 else "1 person"
                    truth = alone if people == 1 else together
                    yield row(
                        f"{name} image, {who}, {path.name}{note(captured)}",
                        batch,
                        timing,
                        work=work,
                        ceilings=ceilings,
                        arithmetic=arithmetic(device, half=path.half),
                        peaks=memory.peaks(),
                        psnr=psnr(captured.image(scene.ws, scene.cameras).image, truth[:batch]),
                    )
                    del captured
