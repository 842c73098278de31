"""The renderer's kernels against the readable renderer, in Triton's interpreter: no GPU is needed.

The interpreter has to be chosen before Triton is imported, and then serves no GPU, so one test runs all
others in a process of its own. Both sides work in float32. Fine depths come from a cumulative sum whose
last bits depend on its order, a few 1e-7 of a share of at least 1e-2 / 2 of the mass, times a step of
0.1: so depths agree to about 1e-5, and what is met on the smooth planes here to less.
"""

from dataclasses import replace

import pytest
import torch
from interpreter import interpreted, interprets, pass_in_the_interpreter
from torch import Tensor

from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS, PlaneMode, PriorConfig
from my3dgen.ops.fused_render import FusedField, Tuning
from my3dgen.prior.generator import Generator
from my3dgen.prior.rays import camera_rays
from my3dgen.prior.render import RenderedRays, Sampling, render_rays

CONFIG = replace(PRESETS["tiny"], plane_features=16, decoder_hidden=32, render_features=16)
CAMERAS = camera_from_angles(torch.tensor([0.4, -0.3]), 0.1)


class AnywhereField(FusedField):
    """Serves on the interpreter's device too."""

    def serves(self, origins: Tensor, directions: Tensor, coarse: int, fine: int) -> bool:
        return self.fits(coarse, fine)


def _drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _generator(config: PriorConfig) -> Generator:
    """One whose decoder makes clouds that let some light through."""
    generator = Generator(config, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for seed, layer in ((2, generator.decoder.net[0]), (3, generator.decoder.net[2])):
            layer.bias.copy_(_drawn(*layer.bias.shape, seed=seed))
        generator.decoder.net[2].weight *= 6
        generator.decoder.net[2].bias[0] -= 6
    return generator


def _met(rays: RenderedRays) -> list[Tensor]:
    return [rays.colours, rays.opacity, rays.depth, rays.nearest, rays.farthest]


def _compare(config: PriorConfig, sampling: Sampling, *, images: int, side: int, seed: int | None) -> None:
    """Equal values, and equal gradients of planes and decoder."""
    generator = _generator(config)
    planes = _drawn(images, 3, config.plane_features, 8, 8, seed=4).requires_grad_()
    origins, directions = camera_rays(CAMERAS, side)
    asked = 0

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal asked
        asked += 1
        return generator._field(planes, points, torch.float32)

    tuning = Tuning(rays=16, chunk=3)
    fused = AnywhereField(
        planes, generator.decoder.perceptron(), config.plane_mode, config.box_warp, torch.float32, tuning
    )
    found = []
    for kernels in (None, fused):
        rng = None if seed is None else torch.Generator().manual_seed(seed)
        rays = render_rays(field, origins, directions, config, sampling, rng, kernels)
        met = _met(rays)
        probes = [_drawn(*x.shape, seed=5 + i) for i, x in enumerate(met[:3])]
        loss = torch.stack([(x * probe).sum() for x, probe in zip(met, probes, strict=False)]).sum()
        found.append((met, torch.autograd.grad(loss, [planes, *generator.decoder.parameters()])))
    assert asked == (2 if sampling.fine else 1), "the kernels never ask the field"
    opacity = found[0][0][1].detach()
    assert opacity.max() - opacity.min() > 0.1, "a scene with something in it"
    for one, other in zip(found[1][0], found[0][0], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    for one, other in zip(found[1][1], found[0][1], strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, atol=2e-5 * float(other.abs().max()), rtol=0)


@interpreted
@pytest.mark.parametrize("axes", ["xy_xz_zx", "xy_xz_zy"])
def test_deterministic(axes: PlaneMode) -> None:
    config = replace(CONFIG, plane_mode=axes, white_back=axes == "xy_xz_zy")
    _compare(config, Sampling(8, 8), images=2, side=4, seed=None)


@interpreted
def test_drawn_samples_of_shared_planes() -> None:
    """Counts that are no powers of two, rays that fill no program, quantiles in no order."""
    _compare(CONFIG, Sampling(7, 5), images=1, side=5, seed=3)


@interpreted
def test_a_single_pass() -> None:
    _compare(CONFIG, Sampling(6, 0), images=2, side=4, seed=None)


@interpreted
@pytest.mark.parametrize("aside", [0.0, 9.0])
def test_limits_of_the_box_and_chunks_of_rays(aside: float) -> None:
    """Rays that meet the box, and rays that all pass it by, whose limits are in reverse."""
    config = replace(CONFIG, ray_start="auto", ray_end="auto", box_warp=2.0)
    generator = _generator(config)
    planes = _drawn(2, 3, config.plane_features, 8, 8, seed=4)
    decoder = generator.decoder.perceptron()
    fused = AnywhereField(planes, decoder, config.plane_mode, config.box_warp, torch.float32, Tuning(rays=16))
    origins, directions = camera_rays(CAMERAS, 5)
    origins = origins + torch.tensor([0.0, aside, 0.0])
    with torch.no_grad():
        one, other = (
            render_rays(
                lambda points: generator._field(planes, points, torch.float32),
                origins, directions, config, Sampling(6, 6, rays_at_once=15), None, kernels,
            )
            for kernels in (None, fused)
        )  # fmt: skip
    # past the box all is one thin fog, so other fine samples change only the rule that averages depth
    depth_bound = 1e-5 if aside == 0 else 2e-3
    for a, b, bound in zip(_met(one), _met(other), (1e-5, 1e-5, depth_bound, 1e-5, 1e-5), strict=True):
        torch.testing.assert_close(a, b, atol=bound, rtol=1e-5)


@interpreted
@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")  # the reciprocal of infinity is meant
def test_empty_space() -> None:
    """Far below zero, densities leave the background and no depth, and gradients that are numbers."""
    generator = _generator(CONFIG)
    with torch.no_grad():
        generator.decoder.net[2].bias[0] = -1e4
    planes = _drawn(2, 3, 16, 8, 8, seed=4).requires_grad_()
    decoder = generator.decoder.perceptron()
    fused = AnywhereField(planes, decoder, CONFIG.plane_mode, 1.0, torch.float32, Tuning(rays=16))
    origins, directions = camera_rays(CAMERAS, 4)
    rays = render_rays(
        lambda points: pytest.fail("the field is asked"),
        origins, directions, CONFIG, Sampling(4, 4), None, fused,
    )  # fmt: skip
    assert torch.equal(rays.colours, torch.ones_like(rays.colours))  # a white background
    assert torch.equal(rays.depth, torch.full_like(rays.depth, torch.inf))
    (gradient,) = torch.autograd.grad(rays.colours.sum() + rays.clamped_depth().sum(), planes)
    assert gradient.isfinite().all()


@interprets
def test_in_the_interpreter() -> None:
    pass_in_the_interpreter(__file__)


@pytest.mark.parametrize(
    ("changes", "coarse", "fine", "fits"),
    [
        ({}, 48, 48, True),
        ({}, 96, 96, True),
        ({}, 2, 0, True),
        ({}, 3, 3, False),  # importance sampling needs an inner interval
        ({}, 300, 300, False),
        ({"plane_features": 8}, 8, 8, False),
        ({"decoder_hidden": 48}, 8, 8, False),
        ({"render_features": 3}, 8, 8, False),
    ],
)
def test_sizes_the_kernels_know(changes: dict, coarse: int, fine: int, fits: bool) -> None:
    config = replace(CONFIG, **changes)
    decoder = Generator(config).decoder.perceptron()
    planes = torch.zeros(1, 3, config.plane_features, 8, 8)
    field = FusedField(planes, decoder, config.plane_mode, 1.0, torch.float32)
    assert field.fits(coarse, fine) == fits
    rays = torch.zeros(1, 4, 3)
    assert not field.serves(rays, rays, coarse, fine)  # not on the CPU


def test_a_perceptron_is_the_decoder() -> None:
    """EG3D spec 1.8, with a learning-rate multiplier."""
    decoder = _generator(replace(CONFIG, decoder_lr_mul=0.5)).decoder
    features = _drawn(1, 9, CONFIG.plane_features, seed=6)
    w_in, b_in, w_out, b_out = decoder.perceptron()
    hidden = torch.nn.functional.softplus(features @ w_in.mT + b_in)
    decoded = hidden @ w_out.mT + b_out
    colours, densities = decoder(features)
    torch.testing.assert_close(decoded[..., 0], densities)
    torch.testing.assert_close(decoded[..., 1:].sigmoid() * 1.002 - 0.001, colours)
