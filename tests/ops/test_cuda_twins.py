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
@pytest.mark.parametrize(("norms", "biases"), [((2, 5), (5,)), ((1, 5), (2, 5))])
def test_finish(clamp: float | None, norms: tuple[int, ...], biases: tuple[int, ...]) -> None:
    from my3dgen.ops.finish_triton import finish_fused

    def readable(features: Tensor, norm: Tensor, bias: Tensor) -> Tensor:
        return bias_act(features * norm[:, :, None, None], bias, activation="lrelu", clamp=clamp)

    _agree(
        lambda *inputs: finish_fused(*inputs, clamp),
        readable,
        [_drawn(2, 5, 9, 7), _drawn(*norms, seed=1), _drawn(*biases, seed=2)],
    )


@pytest.mark.parametrize("rows", [1, 2])
def test_scale(rows: int) -> None:
    from my3dgen.ops.finish_triton import scale_fused

    _agree(scale_fused, lambda x, s: x * s[:, :, None, None], [_drawn(2, 5, 9, 7), _drawn(rows, 5, seed=1)])


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
