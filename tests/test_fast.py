"""Captured inference against the generator itself; graphs only where a CUDA device is."""

import copy
from dataclasses import fields, replace

import pytest
import torch
from on_device import OnTheDevice

from my3dgen import fast
from my3dgen.anchors import Anchors
from my3dgen.config import PRESETS
from my3dgen.errors import PriorMismatchError
from my3dgen.fast import Captured
from my3dgen.lora import Adapter, new_adapter, stack
from my3dgen.prior.generator import Generator, Rendered
from my3dgen.prior.store import Prior

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]


def person(prior: Prior, seed: int) -> Adapter:
    """An adapter that shows."""
    rng = torch.Generator().manual_seed(seed)
    adapter = new_adapter(prior.generator, 1, 1.0, rng).detached()
    for tensor in adapter.tensors.values():
        tensor += 0.1 * torch.randn(tensor.shape, generator=rng)
    return adapter


def copied_to_cuda(prior: Prior) -> Generator:
    return copy.deepcopy(prior.generator).to("cuda")


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    return request.param


@pytest.fixture
def generator(tiny_prior: Prior, device: str) -> Generator:
    return tiny_prior.generator if device == "cpu" else copied_to_cuda(tiny_prior)


def _same(one: Rendered, other: Rendered) -> None:
    for field in fields(Rendered):
        # channels-last weights may take another convolution, hence not to the bit on CUDA
        torch.testing.assert_close(getattr(one, field.name), getattr(other, field.name), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("noise", ["const", "none"])
def test_images_are_the_generators(
    tiny_prior: Prior, generator: Generator, truth: Anchors, device: str, noise
) -> None:
    ws, cameras, adapter = truth.ws.to(device), truth.cameras.to(device), person(tiny_prior, 0)
    captured = Captured(generator, adapter=adapter, noise=noise)
    assert captured.capturing == (device == "cuda")
    for order in (slice(0, 3), slice(3, 6), slice(0, 1), slice(1, 2)):  # two sizes, each twice
        got = captured.image(ws[order], cameras[order])
        with torch.no_grad():
            expected = generator.synthesis(ws[order], cameras[order], adapter.to(device), noise=noise)
        _same(got, expected)
    assert captured.capturing == (device == "cuda"), captured.failure


def test_planes_held_are_seen_from_many_sides(generator: Generator, truth: Anchors, device: str) -> None:
    ws, cameras = truth.ws.to(device), truth.cameras.to(device)
    captured = Captured(generator, resolution=12)
    for latent in (ws[:1], ws[1:2], ws[:3]):  # the last is another size
        captured.hold(latent)
        views = cameras[: max(2, len(latent))]
        with torch.no_grad():
            expected = generator.render(generator.planes(latent), views, latent, resolution=12)
        _same(captured.view(views), expected)
        volume = captured.volume(views)
        torch.testing.assert_close(volume.features[:, :3], expected.image_raw, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(
            captured.superresolve(volume.features.clone()), expected.image, atol=2e-4, rtol=1e-4
        )


def test_an_adapter_of_another_generator_is_refused(tiny_prior: Prior) -> None:
    with torch.device("meta"):
        larger = Generator(PRESETS["mini"])
    with pytest.raises(PriorMismatchError):
        Captured(larger, adapter=person(tiny_prior, 0))


def test_what_graphs_cannot_repeat_is_refused(tiny_prior: Prior, truth: Anchors) -> None:
    with pytest.raises(ValueError, match="noise"):
        Captured(tiny_prior.generator, noise="random")
    with pytest.raises(ValueError, match="hold"):
        Captured(tiny_prior.generator).view(truth.cameras)


def test_half_is_bfloat16_and_near(generator: Generator, truth: Anchors, device: str) -> None:
    ws, cameras = truth.ws[:2].to(device), truth.cameras[:2].to(device)
    exact = Captured(generator).image(ws, cameras).image
    half = Captured(generator, half=True).image(ws, cameras).image
    assert not torch.equal(exact, half)
    assert (exact - half).abs().mean() < 0.02


def test_a_device_that_cannot_record_runs_plainly(tiny_prior: Prior, truth: Anchors, monkeypatch) -> None:
    class Refusing:
        def __init__(self, *_, **__) -> None:
            pass

        def __call__(self, _):
            raise RuntimeError("operation not permitted when stream is capturing")

    captured = Captured(tiny_prior.generator)
    captured.capturing = True  # as on CUDA
    monkeypatch.setattr(fast, "CapturedStep", Refusing)
    got = captured.image(truth.ws, truth.cameras)
    assert not captured.capturing and "not permitted" in (captured.failure or "")
    with torch.no_grad():
        _same(got, tiny_prior.generator.synthesis(truth.ws, truth.cameras))


class Replaying:
    """A captured step as far as a CPU can have one: its first step, inputs and outputs stay for good."""

    def __init__(self, step, *_, **__) -> None:
        self.step, self.inputs, self.outputs = step, None, None

    def __call__(self, batch):
        if self.inputs is None:
            self.inputs = replace(batch, **{name: t.clone() for name, t in vars(batch).items()})
            self.outputs = self.step(self.inputs)
        for name, tensor in vars(self.inputs).items():
            tensor.copy_(getattr(batch, name))
        for name, tensor in self.step(self.inputs).items():
            self.outputs[name].copy_(tensor)
        return self.outputs


def test_what_was_recorded_sees_what_is_held_now(tiny_prior: Prior, truth: Anchors, monkeypatch) -> None:
    monkeypatch.setattr(fast, "CapturedStep", Replaying)
    generator, views = tiny_prior.generator, truth.cameras[:3]
    adapter = person(tiny_prior, 0)
    captured = Captured(generator, adapter=adapter)
    captured.capturing = True  # as on CUDA
    for latent in (truth.ws[:1], truth.ws[1:2], truth.ws[:3], truth.ws[3:6]):
        captured.hold(latent)
        with torch.no_grad():
            expected = generator.render(generator.planes(latent, adapter), views, latent, adapter)
        _same(captured.view(views), expected)
        features = captured.volume(views).features.clone()
        torch.testing.assert_close(captured.superresolve(features), expected.image, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("people", [1, 2])
@pytest.mark.parametrize("half", [False, True])
def test_what_is_recorded_keeps_to_the_device(
    tiny_prior: Prior, truth: Anchors, people: int, half: bool
) -> None:
    adapters = [person(tiny_prior, seed) for seed in range(people)]
    captured = Captured(
        tiny_prior.generator, adapter=stack(adapters) if people > 1 else adapters[0], half=half
    )
    with OnTheDevice():
        captured.image(truth.ws[:2], truth.cameras[:2])
        captured.hold(truth.ws[:2])
        captured.view(truth.cameras[:2])


@needs_cuda
def test_a_replay_writes_over_the_last_result(tiny_prior: Prior, truth: Anchors) -> None:
    captured = Captured(copied_to_cuda(tiny_prior))
    ws, cameras = truth.ws.cuda(), truth.cameras.cuda()
    first = captured.image(ws[:1], cameras[:1]).image
    kept = first.clone()
    captured.image(ws[1:2], cameras[1:2])
    assert not torch.equal(first, kept)
