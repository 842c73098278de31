"""Pictures one after the other with little for the host to do: CUDA graphs for inference.

    captured = Captured(prior.generator, adapter=person.adapter, half=True)
    captured.image(ws, cameras)           # from latents
    captured.hold(ws)                     # planes stay ...
    captured.view(cameras)                # ... and are seen from here and there

The first call with a batch of a new size records a graph; later ones copy their inputs into it and replay it.
On a CPU, or where recording fails, the same calls simply run. Replays write over their own results and
inputs: an object serves one thread, and what a call returns holds until the next call of the same object.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.config import NoiseMode
from my3dgen.graphs import CapturedStep
from my3dgen.lora import Adapter, check_adapter
from my3dgen.prior.generator import Generator, Latents, Planes, Rendered, Volume
from my3dgen.prior.render import Sampling


@dataclass(frozen=True, eq=False)
class _Latents:
    ws: Tensor


@dataclass(frozen=True, eq=False)
class _Cameras:
    cameras: Tensor


@dataclass(frozen=True, eq=False)
class _Seen:
    ws: Tensor
    cameras: Tensor


@dataclass(frozen=True, eq=False)
class _Features:
    features: Tensor


_Inputs = _Latents | _Cameras | _Seen | _Features


class Captured:
    """A generator's inference, without gradients and in the deterministic mode.

    The adapter is one for all images or has an entry per image. `half` computes in bfloat16 what
    `torch.autocast` would; without it results are the generator's own. On CUDA the weights are copied and
    kept channels-last: later changes of the generator are not seen. `fused` as in `Generator.volume`. Raises
    PriorMismatchError for an adapter of another generator.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        adapter: Adapter | None = None,
        noise: NoiseMode = "const",
        sampling: Sampling | None = None,
        resolution: int | None = None,
        half: bool = False,
        fused: bool = True,
        capture: bool = True,
    ) -> None:
        if noise == "random":
            raise ValueError("graphs repeat what was recorded: noise must be 'const' or 'none'")
        device = generator.w_avg.device
        self.capturing = capture and device.type == "cuda"
        """Whether graphs are recorded; False from when recording failed."""
        self.failure: str | None = None
        """Why recording failed, if it did."""
        self.generator = _channels_last(generator) if device.type == "cuda" else generator
        if adapter is not None:
            check_adapter(generator, adapter)
            adapter = adapter.to(device).detached()
        self.adapter = adapter
        self.noise: NoiseMode = noise
        self.sampling, self.resolution, self.half, self.fused = sampling, resolution, half, fused
        self._held: tuple[Tensor, Tensor] | None = None
        self._steps: dict[tuple[str, int], CapturedStep] = {}
        self._pool = torch.cuda.graph_pool_handle() if self.capturing else None

    def planes(self, ws: Latents) -> Planes:
        """`Generator.planes`."""
        return self._run("planes", _Latents(ws), lambda given: {"planes": self._planes(given.ws)})["planes"]

    def image(self, ws: Latents, cameras: Float[Tensor, "batch 25"]) -> Rendered:
        """`Generator.synthesis`."""

        def step(given: _Seen) -> dict[str, Tensor]:
            return self._view(self._planes(given.ws), given.ws, given.cameras)

        return Rendered(**self._run("image", _Seen(ws, cameras), step))

    def hold(self, ws: Latents) -> None:
        """Compute planes and keep them for `view`. One latent serves any number of cameras."""
        planes = self.planes(ws)
        if self._held is None or len(self._held[1]) != len(ws):
            self._held = planes.clone(), ws.clone()
            self._steps = {key: step for key, step in self._steps.items() if key[0] in ("planes", "image")}
        else:
            for held, new in zip(self._held, (planes, ws), strict=True):
                held.copy_(new)

    def view(self, cameras: Float[Tensor, "batch 25"]) -> Rendered:
        """`Generator.render` of the planes held. Raises ValueError if none are."""
        planes, ws = self._holding()
        return Rendered(
            **self._run("view", _Cameras(cameras), lambda given: self._view(planes, ws, given.cameras))
        )

    def volume(self, cameras: Float[Tensor, "batch 25"]) -> Volume:
        """`Generator.volume` of the planes held. Raises ValueError if none are."""
        planes, _ = self._holding()

        def step(given: _Cameras) -> dict[str, Tensor]:
            return _tensors(self._volume(planes, given.cameras))

        return Volume(**self._run("volume", _Cameras(cameras), step))

    def superresolve(
        self, features: Float[Tensor, "batch features r r"]
    ) -> Float[Tensor, "batch 3 size size"]:
        """`Generator.superresolve` with the latents held. Raises ValueError if none are."""
        _, ws = self._holding()

        def step(given: _Features) -> dict[str, Tensor]:
            return {"image": self.generator.superresolve(given.features, ws, self.adapter)}

        return self._run("superresolve", _Features(features), step)["image"]

    def _planes(self, ws: Tensor) -> Tensor:
        return self.generator.planes(ws, self.adapter, noise=self.noise)

    def _volume(self, planes: Tensor, cameras: Tensor) -> Volume:
        return self.generator.volume(
            planes, cameras, sampling=self.sampling, resolution=self.resolution, fused=self.fused
        )

    def _view(self, planes: Tensor, ws: Tensor, cameras: Tensor) -> dict[str, Tensor]:
        volume = self._volume(planes, cameras)
        image = self.generator.superresolve(volume.features, ws, self.adapter)
        return {
            "image": image,
            "image_raw": volume.features[:, :3],
            "depth": volume.depth,
            "opacity": volume.opacity,
        }

    def _holding(self) -> tuple[Tensor, Tensor]:
        if self._held is None:
            raise ValueError("no planes are held; call hold(ws) first")
        return self._held

    def _run(self, name: str, inputs: _Inputs, step: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
        """Replay the graph of a call and batch size, recording it first if it is new."""

        def plain(given: _Inputs) -> dict[str, Tensor]:
            device = self.generator.w_avg.device.type
            with torch.no_grad(), torch.autocast(device, torch.bfloat16, self.half, cache_enabled=False):
                return step(given)

        if not self.capturing:
            return plain(inputs)
        key = name, len(next(iter(vars(inputs).values())))
        if key in self._steps:
            return self._steps[key](inputs)
        recorded = CapturedStep(plain, [], capture=True, pool=self._pool)
        try:
            result = recorded(inputs)
        except RuntimeError as error:
            self.capturing, self.failure = False, str(error)
            self._steps.clear()
            return plain(inputs)
        self._steps[key] = recorded
        return result


def _channels_last(generator: Generator) -> Generator:
    return copy.deepcopy(generator).requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _tensors(volume: Volume) -> dict[str, Tensor]:
    return {"features": volume.features, "depth": volume.depth, "opacity": volume.opacity}
