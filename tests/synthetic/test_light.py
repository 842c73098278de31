"""Light and its visibility."""

import torch

from my3dgen.synthetic.factors import sample_factors
from my3dgen.synthetic.light import lamp_weights, light_from_factors, sphere_directions
from my3dgen.synthetic.noise import value_noise
from my3dgen.synthetic.visibility import shadow_maps, visibility


def test_directions_cover_the_sphere() -> None:
    directions = sphere_directions(24, "cpu")
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(24))
    assert directions.mean(0).norm() < 0.02


def test_lamps_are_bounded_and_weights_sum_to_one() -> None:
    light = light_from_factors(sample_factors(range(200)))
    assert (light.colour >= 0).all() and light.colour.max() < 2
    assert (light.sky > 0).all() and (light.ground > 0).all()
    torch.testing.assert_close(light.direction.norm(dim=2), torch.ones(200, 3))
    weights = lamp_weights(light, sphere_directions(24, "cpu"))
    torch.testing.assert_close(weights.sum(1), torch.ones(200, 3))


def test_a_ball_shades_what_lies_behind_it_and_hair_dims() -> None:
    directions = sphere_directions(24, "cpu")
    ball = 0.2 * sphere_directions(4000, "cpu")[None]
    nothing = torch.full((1, 1, 3), 5.0)
    behind = -0.35 * directions[None]  # seen from here, the ball hides the direction with the same number
    seen = visibility(shadow_maps(ball, nothing, directions), behind)
    assert seen[0].diagonal().max() < 0.05
    ahead = visibility(shadow_maps(ball, nothing, directions), -behind)
    assert ahead[0].diagonal().min() > 0.95
    dimmed = visibility(shadow_maps(nothing, ball, directions), behind)[0].diagonal()
    assert 0.0 < dimmed.median() < 0.5  # a cell may fall between two points, hence the median


def test_noise_is_smooth_bounded_and_tiles() -> None:
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 4
    noise = value_noise(points, 8.0, 3.0)
    assert noise.abs().max() <= 1 and noise.std() > 0.2
    assert (value_noise(points + 1e-4, 8.0, 3.0) - noise).abs().max() < 0.01
    torch.testing.assert_close(value_noise(points + 8.0, 8.0, 3.0), noise, atol=2e-3, rtol=0)
