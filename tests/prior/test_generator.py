"""What the generator promises beyond EG3D's numbers, on the toy prior."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from my3dgen.cameras import camera_from_angles, frontal_camera
from my3dgen.config import PRESETS
from my3dgen.prior.generator import Generator, Rendered
from my3dgen.prior.mapping import update_w_avg
from my3dgen.prior.render import Sampling

FIELDS = ("image", "image_raw", "depth", "opacity")


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(PRESETS["tiny"]).requires_grad_(False)


@pytest.fixture(scope="module")
def latents(generator: Generator) -> Tensor:
    return generator.mapping(torch.randn(3, 32, generator=_seeded()), None)


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _cameras() -> Tensor:
    return camera_from_angles(torch.tensor([0.0, 0.3, -0.5]), 0.1)


def _same(one: Rendered, other: Rendered) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


def test_mini_has_the_shapes_of_its_files() -> None:
    config = PRESETS["mini"]
    mini = Generator(config).requires_grad_(False)
    assert mini.parameter_count == 7_721_174
    assert len(mini.state_dict()) == 162
    ws = mini.mapping(torch.zeros(1, 256), None)
    rendered = mini.synthesis(ws, frontal_camera(), sampling=Sampling(6, 6))
    assert rendered.image.shape == (1, 3, 256, 256)
    assert rendered.image_raw.shape == (1, 3, 64, 64)
    assert rendered.depth.shape == rendered.opacity.shape == (1, 1, 64, 64)
    assert all(getattr(rendered, name).isfinite().all() for name in FIELDS)


def test_same_seed_same_weights() -> None:
    one, same, other = (Generator(PRESETS["tiny"], _seeded(seed)) for seed in (5, 5, 6))
    states = [g.state_dict() for g in (one, same, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["decoder.net.0.weight"], states[2]["decoder.net.0.weight"])


def test_without_a_generator_rendering_is_deterministic(generator: Generator, latents: Tensor) -> None:
    one, two = (generator.synthesis(latents, _cameras()) for _ in range(2))
    assert _same(one, two)


def test_randomness_comes_from_the_seed(generator: Generator, latents: Tensor) -> None:
    def drawn(seed: int) -> Rendered:
        return generator.synthesis(latents, _cameras(), noise="random", rng=_seeded(seed))

    state = torch.get_rng_state()
    assert _same(drawn(1), drawn(1))
    assert not torch.equal(drawn(1).image_raw, drawn(2).image_raw)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is not touched
    with pytest.raises(ValueError, match="random"):
        generator.planes(latents, noise="random")


def test_images_of_a_batch_do_not_see_each_other(generator: Generator, latents: Tensor) -> None:
    together = generator.synthesis(latents, _cameras())
    for i in range(3):
        alone = generator.synthesis(latents[i : i + 1], _cameras()[i : i + 1])
        for name in ("image", "image_raw", "opacity"):
            torch.testing.assert_close(
                getattr(together, name)[i], getattr(alone, name)[0], atol=2e-4, rtol=1e-4
            )


def test_one_latent_serves_many_cameras(generator: Generator, latents: Tensor) -> None:
    one = latents[:1]
    many = generator.render(generator.planes(one), _cameras(), one)
    repeated = generator.synthesis(one.expand(3, -1, -1), _cameras())
    torch.testing.assert_close(many.image, repeated.image, atol=2e-4, rtol=1e-4)


def test_rays_in_portions_give_the_same_view(generator: Generator, latents: Tensor) -> None:
    planes = generator.planes(latents)
    whole = generator.render(planes, _cameras(), latents)
    portions = generator.render(planes, _cameras(), latents, sampling=Sampling(8, 8, rays_at_once=100))
    for name in FIELDS:
        torch.testing.assert_close(getattr(whole, name), getattr(portions, name), atol=2e-5, rtol=1e-5)


def test_a_single_pass_is_the_coarse_march(generator: Generator, latents: Tensor) -> None:
    rendered = generator.synthesis(latents, _cameras(), sampling=Sampling(16, 0), resolution=8)
    assert rendered.image_raw.shape == (3, 3, 8, 8)
    assert rendered.image.shape == (3, 3, 64, 64)


@pytest.mark.parametrize("auto", [False, True])
def test_ray_limits_and_disparity_render(latents: Tensor, auto: bool) -> None:
    changes = {"ray_start": "auto", "ray_end": "auto"} if auto else {"disparity_space_sampling": True}
    other = Generator(replace(PRESETS["tiny"], **changes)).requires_grad_(False)
    rendered = other.synthesis(latents, _cameras())
    assert all(getattr(rendered, name).isfinite().all() for name in FIELDS)


def test_query_agrees_with_planes_outside_the_box(generator: Generator, latents: Tensor) -> None:
    planes = generator.planes(latents)
    far = torch.full((3, 4, 3), 0.7)
    colours, densities = generator.query(planes, far)
    nothing, empty = generator.query(torch.zeros_like(planes), far)
    assert torch.equal(colours, nothing) and torch.equal(densities, empty)
    assert densities.shape == (3, 4, 1) and colours.shape == (3, 4, 8)


def test_an_unused_camera_gets_no_gradient() -> None:
    generator = Generator(PRESETS["tiny"])
    ws = generator.mapping(torch.randn(2, 32, generator=_seeded()), None)
    ws.sum().backward()
    embed = generator.backbone.mapping.embed
    assert embed.weight.grad is None and embed.bias.grad is None
    norm = sum(p.grad.norm() for p in generator.parameters() if p.grad is not None)
    assert 0 < norm < 1e4


def test_a_used_camera_is_needed_and_matters() -> None:
    generator = Generator(replace(PRESETS["tiny"], c_gen_conditioning_zero=False)).requires_grad_(False)
    z = torch.randn(1, 32, generator=_seeded())
    with pytest.raises(ValueError, match="camera"):
        generator.mapping(z, None)
    frontal, side = (generator.mapping(z, camera_from_angles(yaw, 0.0)) for yaw in (0.0, 0.8))
    assert not torch.allclose(frontal, side)


def test_w_avg_moves_only_when_told(generator: Generator) -> None:
    own = Generator(PRESETS["tiny"]).requires_grad_(False)
    w = own.mapping(torch.randn(4, 32, generator=_seeded()), None)[:, 0]
    assert torch.equal(own.w_avg, torch.zeros(32))
    update_w_avg(own.backbone.mapping, w, decay=0.9)
    torch.testing.assert_close(own.w_avg, 0.1 * w.mean(0))
    pulled = own.mapping(torch.zeros(1, 32), None, psi=0.0)
    torch.testing.assert_close(pulled[0, 3], own.w_avg)


def test_gradients_reach_every_parameter_that_matters() -> None:
    generator = Generator(PRESETS["tiny"])
    ws = generator.mapping(torch.randn(2, 32, generator=_seeded()), None)
    rendered = generator.synthesis(ws, _cameras()[:2], rng=_seeded())
    sum(getattr(rendered, name).square().mean() for name in FIELDS).backward()
    silent = {name for name, p in generator.named_parameters() if p.grad is None}
    assert all(".embed." in name or "superresolution" in name for name in silent)
    assert {name.rpartition(".")[2] for name in silent if "superresolution" in name} == {"noise_strength"}
    assert all(p.grad.isfinite().all() for p in generator.parameters() if p.grad is not None)


def test_mixed_precision_is_close(generator: Generator, latents: Tensor) -> None:
    full = generator.synthesis(latents, _cameras())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = generator.synthesis(latents, _cameras())
    assert mixed.image_raw.dtype == torch.float32
    assert 0 < (mixed.image_raw - full.image_raw).abs().mean() < 0.02


def test_built_on_meta_it_loads_a_state_dict(generator: Generator, latents: Tensor) -> None:
    with torch.device("meta"):
        empty = Generator(PRESETS["tiny"])
    assert all(t.is_meta for t in empty.state_dict().values())
    empty.load_state_dict(generator.state_dict(), assign=True)
    assert _same(empty.synthesis(latents, _cameras()), generator.synthesis(latents, _cameras()))
    assert json.dumps(empty.config.to_dict())
