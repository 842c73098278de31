import time

import pytest
import torch

from my3dgen.alpha import (
    decode,
    edit_alphas,
    nearest_weights,
    outside,
    project,
    sample_alphas,
    spread,
    stray,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def anchors(count=6, layers=3, dim=8, seed=0):
    return torch.randn(count, layers, dim, generator=seeded(seed))


@pytest.mark.parametrize("weights", ["uniform", "dirichlet"])
@pytest.mark.parametrize("support", [3, None])
def test_samples_lie_in_the_hull(weights, support):
    alphas = sample_alphas(50, 7, seeded(), support=support, weights=weights)
    assert (alphas >= 0).all()
    torch.testing.assert_close(alphas.sum(1), torch.ones(50))
    assert ((alphas > 0).sum(1) == (support or 7)).all()
    assert torch.equal(alphas, sample_alphas(50, 7, seeded(), support=support, weights=weights))
    assert not torch.equal(alphas, sample_alphas(50, 7, seeded(1), support=support, weights=weights))


def test_every_anchor_is_chosen_alike():
    used = (sample_alphas(6000, 6, seeded()) > 0).float().mean(0)
    assert (used - 0.5).abs().max() < 0.03


def test_dirichlet_is_flat_and_uniform_rule_is_not():
    """The variance of one weight of three is 1/18 under Dirichlet(1,1,1), and less by MyStyle's rule."""
    flat = sample_alphas(20000, 3, seeded(), weights="dirichlet")[:, 0].var()
    assert abs(flat - 1 / 18) < 0.002
    assert sample_alphas(20000, 3, seeded())[:, 0].var() < 0.04


def test_fewer_anchors_than_the_support():
    assert torch.equal(sample_alphas(4, 1, seeded()), torch.ones(4, 1))


def test_decode_in_w_and_w_plus():
    ws = anchors()
    one = torch.zeros(1, 6)
    one[0, 2] = 1
    assert torch.equal(decode(one, ws)[0], ws[2])
    rows = torch.zeros(1, 3, 6)
    rows[0, 0, 1] = rows[0, 1, 4] = rows[0, 2, 5] = 1
    assert torch.equal(decode(rows, ws)[0], torch.stack([ws[1, 0], ws[4, 1], ws[5, 2]]))


def test_outside_measures_the_lowest_weight():
    alphas = torch.tensor([[0.5, 0.5, 0.0], [1.1, 0.0, -0.1], [0.4, 0.3, 0.3]])
    torch.testing.assert_close(outside(alphas, 0.03), torch.tensor([0.0, 0.07, 0.0]))
    assert torch.equal(outside(alphas[:, None], 0.2), torch.zeros(3))


@pytest.mark.parametrize("keep_sum", [True, False])
def test_edit_recovers_a_direction_between_anchors(keep_sum):
    ws = anchors(dim=16)
    direction = ws[3] - ws[1]
    gamma = edit_alphas(direction, ws, keep_sum=keep_sum)
    torch.testing.assert_close(decode(gamma[None], ws)[0], direction, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gamma.sum(), torch.tensor(0.0), atol=1e-5, rtol=0)


def test_edit_of_a_foreign_direction():
    """Least squares: the residual is orthogonal to what gamma may reach, and gamma sums to 0."""
    ws = anchors(count=4, layers=1, dim=16)
    direction = torch.randn(16, generator=seeded(9))
    gamma = edit_alphas(direction, ws)
    assert abs(gamma.sum()) < 1e-5
    residual = direction - decode(gamma[None], ws)[0, 0]
    centred = ws[:, 0] - ws[:, 0].mean(0)
    assert (centred @ residual).abs().max() < 1e-4
    plain = edit_alphas(direction, ws, keep_sum=False)
    matrix = ws[:, 0]
    torch.testing.assert_close(
        plain, torch.linalg.solve(matrix @ matrix.T, matrix @ direction), atol=1e-4, rtol=1e-3
    )


def test_edit_with_repeated_anchors():
    ws = anchors(count=3)
    twice = torch.cat([ws, ws])
    gamma = edit_alphas(ws[0] - ws[2], twice)
    torch.testing.assert_close(decode(gamma[None], twice)[0], ws[0] - ws[2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("per_layer", [False, True])
def test_projection_of_an_inner_point_is_the_point(per_layer):
    ws = anchors(dim=16)
    alphas = sample_alphas(2, 6, seeded(3), support=None)
    found = project(decode(alphas, ws), ws, 0.03, per_layer=per_layer)
    expected = alphas[:, None].expand(2, 3, 6) if per_layer else alphas
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("beta", [0.0, 0.03, 0.5])
@pytest.mark.parametrize("dim", [4, 40])
def test_projection_of_an_outer_point_is_optimal(beta, dim):
    """No feasible direction lowers the distance: the gradient is least on the free weights."""
    ws = torch.randn(10, dim, generator=seeded(5)).double()
    target = 20 * torch.randn(dim, generator=seeded(6)).double()
    alphas = nearest_weights(ws, target, beta)
    assert abs(alphas.sum() - 1) < 1e-9 and alphas.min() >= -beta - 1e-9
    gradient = ws @ (alphas @ ws - target)
    free = alphas > -beta + 1e-7
    spread = gradient[free].max() - gradient[free].min()
    assert spread < 1e-3 * gradient.abs().max()
    assert (gradient[~free] >= gradient[free].min() - 1e-3 * gradient.abs().max()).all()
    assert (alphas @ ws - target).norm() <= (ws - target).norm(dim=1).min() + 1e-9


def test_points_of_the_dilated_hull_have_not_strayed():
    ws = anchors(dim=16)
    found = stray(sample_alphas(4, 6, seeded(2)), ws, 0.03)
    assert torch.equal(found.weight, torch.zeros(4)) and torch.equal(found.distance, torch.zeros(4))


def test_a_stray_is_measured_to_the_nearest_point_in_spreads_of_the_anchors():
    """Two anchors a unit apart in one layer, and a point on their line beyond the second."""
    ws = torch.zeros(2, 1, 3)
    ws[1, 0, 0] = 2.0
    torch.testing.assert_close(spread(ws), torch.tensor(1.0))
    found = stray(torch.tensor([[-0.5, 1.5]]), ws, 0.1)
    torch.testing.assert_close(found.weight, torch.tensor([0.4]))
    torch.testing.assert_close(found.distance, torch.tensor([0.8]))  # from 3.0 to 2.2


def test_a_stray_in_one_layer_counts_that_layer_alone():
    ws = anchors(dim=16)
    alphas = sample_alphas(1, 6, seeded(2), support=None)[:, None].expand(1, 3, 6).clone()
    alphas[0, 1] += torch.tensor([1.0, -1.0, 0, 0, 0, 0])
    found = stray(alphas, ws, 0.0)
    nearest = project(decode(alphas, ws), ws, 0.0, per_layer=True)
    away = (decode(alphas, ws) - decode(nearest, ws))[0]
    assert away[1].norm() > 0.5 and away[[0, 2]].norm() < 1e-3
    torch.testing.assert_close(found.distance[0], away[1].norm() / spread(ws), atol=1e-4, rtol=0)


def test_many_photos_and_anchors_are_projected_in_no_time():
    """A hundred photos, fifty anchors, twelve layers: 1200 programmes."""
    rng = seeded(4)
    ws = torch.randn(50, 12, 64, generator=rng)
    latents = decode(sample_alphas(100, 50, rng), ws) + 0.3 * torch.randn(100, 12, 64, generator=rng)
    start = time.process_time()
    found = project(latents, ws, 0.03, per_layer=True)
    assert time.process_time() - start < 10  # a third of a second on one core
    assert found.shape == (100, 12, 50) and found.min() > -0.0301
    torch.testing.assert_close(found.sum(-1), torch.ones(100, 12))
