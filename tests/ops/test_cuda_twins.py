"""Every fused kernel against its readable twin, forward and backward, where a CUDA device is.

Both sides work in float32, but where bfloat16 is named; sums run in another order, hence the bounds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS, PlaneMode
from my3dgen.ops.bias_act import bias_act
from my3dgen.ops.fir import lowpass_filter, upfirdn
from my3dgen.ops.low_pass import HAS_TRITON
from my3dgen.ops.triplane import PLANE_AXES, sample_plane
from my3dgen.prior.generator import Generator

pytestmark = pytest.mark.skipif(not (torch.cuda.is_available() and HAS_TRITON), reason="no CUDA with Triton")
DEVICE = "cuda"


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng).to(DEVICE).requires_grad_()


def _agree(fused: Callable[..., Tensor], readable: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    """Equal values and equal gradients of all inputs."""
    one, other = fused(*inputs), readable(*inputs)
    torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)
    probe = _drawn(*one.shape, seed=99).detach()
    for a, b in zip(
        torch.autograd.grad((one * probe).sum(), inputs),
        torch.autograd.grad((other * probe).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize("noises", [0, 1, 2])
@pytest.mark.parametrize(("norms", "biases"), [((2, 5), (5,)), ((1, 5), (2, 5))])
def test_finish(clamp: float | None, noises: int, norms: tuple[int, ...], biases: tuple[int, ...]) -> None:
    from my3dgen.ops.finish_triton import finish_fused

    def fused(features: Tensor, norm: Tensor, bias: Tensor, noise: Tensor | None = None) -> Tensor:
        return finish_fused(features, norm, bias, noise, clamp)

    def readable(features: Tensor, norm: Tensor, bias: Tensor, noise: Tensor | None = None) -> Tensor:
        y = features * norm[:, :, None, None] + (0 if noise is None else noise)
        return bias_act(y, bias, activation="lrelu", clamp=clamp)

    inputs = [_drawn(2, 5, 9, 7), _drawn(*norms, seed=1), _drawn(*biases, seed=2)]
    _agree(fused, readable, inputs + ([_drawn(noises, 1, 9, 7, seed=3)] if noises else []))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("up", [False, True])
def test_a_layer_with_an_adapter_for_each_image(up: bool, dtype: torch.dtype, monkeypatch) -> None:
    """In bfloat16 both sides round features to 8 bits in other places, and the norm's correction is rough."""
    from my3dgen.ops.low_rank import LowRank
    from my3dgen.ops.modulated_conv import modulated_layer

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    x, weight, styles, bias = _drawn(3, 20, 9, 9), _drawn(24, 20, 3, 3, seed=1), _drawn(3, 20, seed=2), 0.5
    biases = torch.full((24,), bias, device=DEVICE)
    change = LowRank(_drawn(3, 3, 180, seed=3), _drawn(3, 24, 3, seed=4), 0.7)
    noise = _drawn(1, 1, 18 if up else 9, 18 if up else 9, seed=5)
    with torch.no_grad():
        given = (weight, styles, biases)
        fused = modulated_layer(x.to(dtype), *given, noise=noise, upsample=up, change=change, clamp=9.0)
        on_cpu = [t.detach().cpu().double() for t in (x, *given, noise, change.A, change.B)]
        *given, noise, a, b = on_cpu
        readable = modulated_layer(*given, noise=noise, upsample=up, change=LowRank(a, b, 0.7), clamp=9.0)
    bound = 1e-4 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(fused.double().cpu(), readable, atol=bound * 3, rtol=bound)


@pytest.mark.parametrize("rows", [1, 2])
def test_scale(rows: int) -> None:
    from my3dgen.ops.finish_triton import scale_fused

    _agree(scale_fused, lambda x, s: x * s[:, :, None, None], [_drawn(2, 5, 9, 7), _drawn(rows, 5, seed=1)])


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("rows", [1, 2])
def test_scaled_conv(rows: int, up: bool, monkeypatch) -> None:
    from my3dgen.ops.modulated_conv import _conv
    from my3dgen.ops.scaled_conv_triton import scaled_conv

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    _agree(
        lambda x, weight, scales: scaled_conv(x, weight, scales, upsample=up),
        lambda x, weight, scales: _conv(x * scales[:, :, None, None], weight, up),
        [_drawn(2, 5, 9, 7), _drawn(6, 5, 3, 3, seed=1), _drawn(rows, 5, seed=2)],
    )


@pytest.mark.parametrize("padding", [(1, 1), (2, 2), (2, 1)])
def test_low_pass(padding: tuple[int, int]) -> None:
    from my3dgen.ops.fir_triton import low_pass_fused

    taps = lowpass_filter().to(DEVICE)
    _agree(
        lambda x: low_pass_fused(x, padding, 4.0),
        lambda x: upfirdn(x, taps, padding=(*padding, *padding), gain=4.0),
        [_drawn(2, 5, 9, 7)],
    )


def test_low_pass_has_second_derivatives() -> None:
    """The gradient penalty differentiates the discriminator's gradient."""
    from my3dgen.ops.fir_triton import low_pass_fused

    taps = lowpass_filter().to(DEVICE)
    found = []
    for filtered in (
        lambda x: low_pass_fused(x, (2, 2), 1.0),
        lambda x: upfirdn(x, taps, padding=(2, 2, 2, 2)),
    ):
        image = _drawn(1, 3, 6, 6)
        (first,) = torch.autograd.grad(filtered(image).square().sum(), image, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), image)[0])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("axes", PLANE_AXES)
def test_sample_planes(axes) -> None:
    from my3dgen.ops.triplane_triton import sample_planes_fused

    points = (_drawn(2, 70, 3, seed=1) * 0.6).detach()  # some beyond the planes
    assert points.abs().max() > 1 + 1 / math.sqrt(64)
    pairs = PLANE_AXES[axes]

    def readable(planes: Tensor) -> Tensor:
        each = [sample_plane(planes[:, i], points[..., list(pair)]) for i, pair in enumerate(pairs)]
        return torch.stack(each).mean(0)

    _agree(lambda planes: sample_planes_fused(planes, points, pairs), readable, [_drawn(2, 3, 8, 16, 16)])


RAYS = 40  # per side: no multiple of a program's rays


def _prior(preset: str, axes: PlaneMode) -> Generator:
    """A generator with a rugged decoder; the backbone and the rest of it are as small as they get."""
    config = replace(PRESETS[preset], plane_mode=axes, channel_base=256, channel_max=16, z_dim=8, w_dim=8)
    generator = Generator(config, torch.Generator().manual_seed(1)).to(DEVICE)
    with torch.no_grad():
        generator.decoder.net[0].bias.copy_(_drawn(config.decoder_hidden, seed=2))
        generator.decoder.net[2].weight *= 10
    return generator


def _smooth_planes(generator: Generator, images: int) -> Tensor:
    """Planes without detail of a texel's size, where a depth off by 1e-5 is no other colour."""
    config = generator.config
    coarse = _drawn(images * 3, config.plane_features, 16, 16, seed=3).detach()
    size = (config.plane_resolution,) * 2
    fine = torch.nn.functional.interpolate(coarse, size, mode="bicubic")
    planes = fine.unflatten(0, (images, 3)).contiguous()
    with torch.no_grad():  # half of space is denser than 0: clouds
        features = planes[:1].mean(1).flatten(2).mT
        generator.decoder.net[2].bias[0] -= generator.decoder(features)[1].median()
    return planes.requires_grad_()


def _seen(
    generator: Generator, planes: Tensor, *, fused: bool, mixed: bool, seed: int | None
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """What a view has, and the gradients of planes and decoder."""
    cameras = camera_from_angles(torch.tensor([0.4, -0.3]), 0.1).to(DEVICE)
    rng = None if seed is None else torch.Generator(DEVICE).manual_seed(seed)
    with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        volume = generator.volume(planes, cameras, resolution=RAYS, rng=rng, fused=fused)
    met = [volume.features, volume.opacity, volume.depth]
    loss = torch.stack([(x * _drawn(*x.shape, seed=5 + i).detach()).sum() for i, x in enumerate(met)]).sum()
    return met, torch.autograd.grad(loss, [planes, *generator.decoder.parameters()])


def _error(one: Tensor, other: Tensor) -> float:
    """Root mean square difference, as a share of the second's root mean square."""
    return ((one - other).double().square().mean() / other.double().square().mean()).sqrt().item()


@pytest.mark.parametrize("seed", [None, 7], ids=["even", "jitter"])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("axes", PLANE_AXES)
@pytest.mark.parametrize("preset", ["mini", "ffhq512-128"])
def test_render(preset: str, axes: PlaneMode, images: int, seed: int | None) -> None:
    """In float32. Fine depths follow a cumulative sum whose last bits depend on its order: they differ by
    up to 1e-5, and so may what is found there, on few rays more than on most."""
    generator = _prior(preset, axes)
    planes = _smooth_planes(generator, images)
    met, gradients = _seen(generator, planes, fused=True, mixed=False, seed=seed)
    expected, their_gradients = _seen(generator, planes, fused=False, mixed=False, seed=seed)
    assert expected[1].max() - expected[1].min() > 0.05, "a scene with something in it"
    for one, other in zip(met, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-4)
        assert _error(one, other) < 2e-5
    for one, other in zip(gradients, their_gradients, strict=True):
        assert _error(one, other) < 2e-4


@pytest.mark.parametrize("axes", PLANE_AXES)
@pytest.mark.parametrize("preset", ["mini", "ffhq512-128"])
def test_render_in_bfloat16(preset: str, axes: PlaneMode) -> None:
    """Both round the same things to 8 bits, in places of their own. The kernels, which sum in float32,
    are no further from the float32 result than the readable renderer is, half as much again for chance."""
    generator = _prior(preset, axes)
    planes = _smooth_planes(generator, 2)
    exact, exact_gradients = _seen(generator, planes, fused=False, mixed=False, seed=None)
    fused, fused_gradients = _seen(generator, planes, fused=True, mixed=True, seed=None)
    readable, readable_gradients = _seen(generator, planes, fused=False, mixed=True, seed=None)
    for truth, one, other in zip(
        [*exact, *exact_gradients],
        [*fused, *fused_gradients],
        [*readable, *readable_gradients],
        strict=True,
    ):
        assert _error(one, truth) < 1.5 * _error(other, truth) + 1e-4
        assert _error(one, truth) < 0.05


def test_rays_that_want_a_gradient_go_the_readable_way() -> None:
    generator = _prior("mini", "xy_xz_zy")
    planes = _smooth_planes(generator, 1)
    cameras = camera_from_angles(torch.tensor([0.4]), 0.1).to(DEVICE).requires_grad_()
    volume = generator.volume(planes, cameras, resolution=16)
    (gradient,) = torch.autograd.grad(volume.features.sum(), cameras)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize("biases", [(), (2,)])
@pytest.mark.parametrize("channels", [3, 5, 96])
@pytest.mark.parametrize("image", [None, "same", "half"])
def test_add_skip(image: str | None, channels: int, biases: tuple[int, ...], clamp: float | None) -> None:
    from my3dgen.ops.skip_triton import add_skip_fused

    taps = lowpass_filter().to(DEVICE)

    def readable(contribution: Tensor, bias: Tensor, *images: Tensor) -> Tensor:
        added = bias_act(contribution, bias, activation="linear", clamp=clamp)
        if image == "half":
            return upfirdn(images[0], taps, up=2, padding=(2, 1, 2, 1), gain=4.0) + added
        return images[0] + added if images else added

    def fused(contribution: Tensor, bias: Tensor, *images: Tensor) -> Tensor:
        return add_skip_fused(images[0] if images else None, contribution, bias, clamp, up=image == "half")

    inputs = [_drawn(2, channels, 10, 70), _drawn(*biases, channels, seed=1)]
    if image is not None:
        size = (5, 35) if image == "half" else (10, 70)
        inputs.append(_drawn(2, channels, *size, seed=2))
    _agree(fused, readable, inputs)


@pytest.mark.parametrize("clamp", [None, 0.8])
def test_add_skip_to_bfloat16(clamp: float | None) -> None:
    """The product and its gradient are rounded to 8 bits, nothing else is."""
    from my3dgen.ops.skip_triton import add_skip_fused

    image, bias = _drawn(2, 96, 8, 8), _drawn(96, seed=1)
    contribution = _drawn(2, 96, 16, 16, seed=2).detach().bfloat16().requires_grad_()
    exact = contribution.detach().float().requires_grad_()
    one = add_skip_fused(image, contribution, bias, clamp, up=True)
    other = add_skip_fused(image, exact, bias, clamp, up=True)
    assert torch.equal(one, other)
    probe = _drawn(*one.shape, seed=3).detach()
    found = torch.autograd.grad((one * probe).sum(), (contribution, image, bias))
    expected = torch.autograd.grad((other * probe).sum(), (exact, image, bias))
    assert torch.equal(found[0], expected[0].bfloat16())
    for a, b in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_add_skip_in_a_graph() -> None:
    """What is recorded once runs again on other numbers."""
    from my3dgen.ops.skip import add_skip

    inputs = [_drawn(2, 3, 4, 4), _drawn(2, 3, 8, 8, seed=1), _drawn(3, seed=2)]

    def step() -> list[Tensor]:
        out = add_skip(*inputs, 0.8, up=True)
        # detached: a tree kept from the recording would tie the inputs to its stream
        return [out.detach(), *torch.autograd.grad(out.square().sum(), inputs)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    with torch.no_grad():
        for x in inputs:
            x.mul_(0.5)
    graph.replay()
    for one, other in zip(recorded, step(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def _features(*shape: int, seed: int = 0) -> Tensor:
    """As they are after a ReLU, with a vector of length zero in each image."""
    x = _drawn(*shape, seed=seed).detach().relu()
    x[..., 0, seed] = 0
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize(("a", "b"), [(2, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize(("channels", "side"), [(64, 63), (70, 9), (384, 15), (512, 7)])
def test_stage_distance(channels: int, side: int, a: int, b: int) -> None:
    """Gradients at vectors of length zero are 1e5 times those at others, and compared on their own."""
    from my3dgen.perceptual import stage_distance

    maps = [_features(n, channels, side, side, seed=i) for i, n in enumerate((a, b))]
    one, other = stage_distance(*maps), stage_distance(*(x.cpu() for x in maps)).to(DEVICE)
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    probe = _drawn(*one.shape, seed=99).detach() * side**2
    found = torch.autograd.grad((one * probe).sum(), maps)
    expected = torch.autograd.grad((other * probe).sum(), maps)
    for p, q, x in zip(found, expected, maps, strict=True):
        zero = (x == 0).all(1, keepdim=True)
        assert zero.any()
        torch.testing.assert_close(p * ~zero, q * ~zero, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(p * zero, q * zero, atol=1, rtol=1e-4)


def test_stage_distance_of_numbered_maps() -> None:
    from my3dgen.ops.distance_triton import stage_distance_fused
    from my3dgen.perceptual import stage_distance

    a, b, rows = _drawn(4, 64, 9, 7), _drawn(3, 64, 9, 7, seed=1).detach(), torch.tensor([2, 0, 2, 2])
    one, other = (
        stage_distance_fused(a, b, rows.to(DEVICE)),
        stage_distance(a.cpu(), b.cpu(), rows).to(DEVICE),
    )
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    (gradient,) = torch.autograd.grad(one.sum(), a, retain_graph=True)
    (wanted,) = torch.autograd.grad(other.sum(), a)
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-4)


def test_stage_distance_to_bfloat16() -> None:
    """The gradient is rounded to 8 bits, nothing else is."""
    from my3dgen.perceptual import stage_distance

    a, b = (_features(2, 96, 16, 16, seed=i).detach().bfloat16() for i in (1, 2))
    exact = a.float().requires_grad_()
    one, other = stage_distance(a.requires_grad_(), b), stage_distance(exact, b)
    assert one.dtype == torch.float32
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    (found,), (expected,) = (torch.autograd.grad(256 * y.sum(), x) for y, x in ((one, a), (other, exact)))
    torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=2**-8 + 1e-4)


def test_stage_distance_in_a_graph() -> None:
    """What is recorded once runs again on other numbers."""
    from my3dgen.perceptual import stage_distance

    a, b = _features(2, 64, 31, 31), _features(1, 64, 31, 31, seed=1).detach()

    def step() -> list[Tensor]:
        out = stage_distance(a, b)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), a)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    with torch.no_grad():
        a[:, ::2] *= 3
    graph.replay()
    for one, other in zip(recorded, step(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_features_of_a_perceptual_network() -> None:
    """In TF32 on CUDA, hence the bounds; layers are joined there."""
    from my3dgen.perceptual import load_perceptual

    picture = (_drawn(2, 3, 96, 96) * 0.4).detach()
    found, gradients = [], []
    for device in ("cpu", DEVICE):
        network = load_perceptual("squeeze-feat", device)
        given = picture.to(device, copy=True).requires_grad_()
        features = network.features(given)
        found.append([f.detach().cpu() for f in features])
        target = network.features(picture.flip(0).to(device))
        (gradient,) = torch.autograd.grad(network.distance(features, target).sum(), given)
        gradients.append(gradient.cpu())
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < 4e-3 * one.norm()
    assert (gradients[0] - gradients[1]).norm() < 0.1 * gradients[0].norm()  # 0.05 by TF32 on a CPU
