"""Pictures: from latents, their stages, and new views of planes that are kept."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from my3dgen.bench.clock import time_call
from my3dgen.bench.machine import Arithmetic, Ceilings
from my3dgen.bench.row import Row, Work, psnr, row, work_of
from my3dgen.bench.subjects import Memory, Scene, generator_of, scene_of
from my3dgen.fast import Captured
from my3dgen.lora import Adapter
from my3dgen.prior.generator import Generator

STAGES = ("image", "view", "volume", "planes", "superresolution")
"""From latents; a view of planes that are kept; the stages alone."""
BACKWARD = "volume backward"


def bench_render(
    priors: Sequence[str], batches: Sequence[int], device: str, repeats: int, ceilings: Ceilings
) -> Iterator[Row]:
    """Rows of every prior, path, batch and stage, in the order given and the fastest paths first.

    On a CPU nothing is captured and nothing fused.
    """
    for name in priors:
        generator = generator_of(name, device)
        everyone = scene_of(generator, max(batches))
        works = works_of(generator, everyone.only(1))
        truth = reference(generator, everyone)
        for path in paths_on(device):
            for batch in batches:
                scene = everyone.only(batch)
                memory = Memory(device)
                captured = path.of(generator)
                calls = calls_of(captured, scene)
                for stage in path.stages:
                    timing = time_call(calls[stage], device, repeats=repeats)
                    yield row(
                        f"{name} {stage}, {path.name}{note(captured)}",
                        batch,
                        timing,
                        work=works.get(stage),
                        ceilings=ceilings,
                        arithmetic=arithmetic(device, half=path.half),
                        peaks=memory.peaks(),
                        psnr=psnr(calls[stage](), truth[stage][:batch]) if stage in truth else None,
                    )
                del captured, calls
        del generator


@dataclass(frozen=True)
class Path:
    """A way to compute the same; options of `Captured`."""

    name: str
    capture: bool = False
    half: bool = False
    fused: bool = True

    @property
    def stages(self) -> tuple[str, ...]:
        """What of it is timed: without fused kernels the other stages are the same, and derivatives are
        not captured by themselves."""
        if not self.fused:
            return ("volume",)
        return STAGES if self.capture else (*STAGES, BACKWARD)

    def of(self, generator: Generator, adapter: Adapter | None = None) -> Captured:
        """The generator's inference in this way."""
        return Captured(generator, adapter=adapter, capture=self.capture, half=self.half, fused=self.fused)


PATHS = (
    Path("captured bf16", capture=True, half=True),
    Path("eager bf16", half=True),
    Path("captured fp32", capture=True),
    Path("eager fp32"),
    Path("captured bf16, not fused", capture=True, half=True, fused=False),
    Path("eager fp32, not fused", fused=False),
)


def paths_on(device: str) -> list[Path]:
    """Those that differ there, the fastest first."""
    return [path for path in PATHS if device == "cuda" or (path.fused and not path.capture)]


def calls_of(captured: Captured, scene: Scene) -> dict[str, Callable[[], Tensor]]:
    """The stages as calls that return a tensor, of pictures where there is one."""
    captured.hold(scene.ws)
    features = captured.volume(scene.cameras).features.clone()
    return {
        "image": lambda: captured.image(scene.ws, scene.cameras).image,
        "planes": lambda: captured.planes(scene.ws),
        "volume": lambda: captured.volume(scene.cameras).features,
        "superresolution": lambda: captured.superresolve(features),
        "view": lambda: captured.view(scene.cameras).image,
        BACKWARD: backward_of(captured, scene),
    }


def backward_of(captured: Captured, scene: Scene) -> Callable[[], Tensor]:
    """The volume's derivatives by the planes, as when a person is learnt; a call, the first goes forward."""

    @functools.cache
    def forward() -> tuple[Tensor, Tensor]:
        planes = captured.planes(scene.ws).clone().requires_grad_()
        with torch.enable_grad(), torch.autocast(planes.device.type, torch.bfloat16, captured.half):
            return captured.generator.volume(planes, scene.cameras).features, planes

    def backward() -> Tensor:
        features, planes = forward()
        return torch.autograd.grad(features, planes, torch.ones_like(features), retain_graph=True)[0]

    return backward


@torch.no_grad()
def reference(
    generator: Generator, scene: Scene, adapters: Sequence[Adapter] | None = None
) -> dict[str, Tensor]:
    """Pictures by the plain float32 path, on the CPU: one at a time, so they serve any batch of the first.

    `adapters` has one an image.
    """
    views, features = [], []
    for i in range(len(scene.ws)):
        ws, camera = scene.ws[i : i + 1], scene.cameras[i : i + 1]
        adapter = None if adapters is None else adapters[i]
        volume = generator.volume(generator.planes(ws, adapter), camera, fused=False)
        views.append(generator.superresolve(volume.features, ws, adapter).cpu())
        features.append(volume.features.cpu())
    image = torch.cat(views)
    return {"image": image, "view": image, "superresolution": image, "volume": torch.cat(features)}


@torch.no_grad()
def works_of(generator: Generator, one: Scene) -> dict[str, Work]:
    """What each stage has to do for an image."""
    ws, camera = one.ws, one.cameras
    kept = generator.planes(ws)

    def volume(planes: Tensor) -> Tensor:
        return generator.volume(planes, camera, fused=False).features

    def view(planes: Tensor) -> Tensor:
        return generator.superresolve(volume(planes), ws)

    features = volume(kept)
    backbone, upper, decoder = (
        list(part.parameters())
        for part in (generator.backbone.synthesis, generator.superresolution, generator.decoder)
    )
    return {
        "image": work_of(lambda: view(generator.planes(ws)), [ws, camera], [*backbone, *decoder, *upper]),
        "planes": work_of(lambda: generator.planes(ws), [ws], backbone),
        "volume": work_of(lambda: volume(kept), [kept, camera], decoder),
        "superresolution": work_of(lambda: generator.superresolve(features, ws), [features, ws], upper),
        "view": work_of(lambda: view(kept), [kept, camera, ws], [*decoder, *upper]),
    }


def arithmetic(device: str, *, half: bool) -> Arithmetic:
    """Which product a path's convolutions compare with: cuDNN takes TF32 for float32."""
    if half:
        return "bf16"
    return "tf32" if device == "cuda" and torch.backends.cudnn.allow_tf32 else "fp32"


def note(captured: Captured) -> str:
    """A word in a row's name when recording failed."""
    return " (not captured)" if captured.failure else ""
