import pytest
import torch

from my3dgen.evaluate.kid import kid, squared_mmd


def normal(count, shift, seed):
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)) + shift


def test_mmd_by_hand():
    # One channel; kernel (xy + 1)^3. Pairs within {0, 1}: k = 1; within {1, 2}: 27; across: 1, 1, 8, 27.
    first, second = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
    assert squared_mmd(first, second).item() == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)


def test_it_is_unbiased_for_one_distribution():
    # Small sets, many times: the biased estimate would be well above 0.
    values = torch.stack([squared_mmd(normal(20, 0, 2 * i), normal(20, 0, 2 * i + 1)) for i in range(300)])
    error = values.std() / len(values) ** 0.5
    assert values.mean().abs() < 3 * error
    biased = (normal(20, 0, 0).square().sum(1) / 8 + 1).pow(3).mean() / 20
    assert biased > 10 * error


def test_expectation_of_shifted_normals():
    # For a unit shift c of all 8 channels, E k(x, y) follows from moments of x.y / 8, which is
    # N(m, v) given x; here it is taken from far larger sets, all pairs.
    exact = squared_mmd(normal(3000, 0, 5), normal(3000, 0.5, 6)).item()
    found = kid(normal(400, 0, 1), normal(400, 0.5, 2), subsets=40, size=200)
    assert found.mean == pytest.approx(exact, rel=0.25)
    assert found.deviation > 0


def test_farther_is_larger_and_order_does_not_matter():
    base = normal(300, 0, 1)
    near, far = (kid(base, normal(300, shift, 2)).mean for shift in (0.2, 1.0))
    assert kid(base, normal(300, 0, 3)).mean < near < far
    assert kid(base.flip(0), normal(300, 1.0, 2).flip(0), size=300).mean == pytest.approx(
        kid(base, normal(300, 1.0, 2), size=300).mean
    )


def test_one_picture_is_no_set():
    with pytest.raises(ValueError):
        kid(normal(1, 0, 0), normal(5, 0, 1))
