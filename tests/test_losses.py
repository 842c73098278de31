import pytest
import torch

from my3dgen.losses import (
    absolute_error,
    gradient_error,
    on_white,
    pixel_weights,
    shrink,
    squared_error,
)


@pytest.fixture
def pair():
    rng = torch.Generator().manual_seed(0)
    return torch.rand(2, 2, 3, 16, 16, generator=rng).mul(2).sub(1).unbind(0)


def test_on_white_replaces_only_the_background(pair):
    masks = torch.zeros(2, 1, 16, 16)
    masks[..., :8] = 1
    white = on_white(pair[0], masks)
    assert torch.equal(white[..., :8], pair[0][..., :8])
    assert (white[..., 8:] == 1).all()


def test_shrink_averages_and_leaves_the_same_size_alone(pair):
    assert shrink(pair[0], 16) is pair[0]
    flat = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(shrink(flat, 4), flat[..., :4, :4])
    assert shrink(pair[0], 4).std() < pair[0].std()


def test_weights_average_one_and_favour_the_head():
    masks = torch.zeros(1, 1, 8, 8)
    masks[..., :2] = 1
    weights = pixel_weights(masks, 0.25)
    assert weights.mean().item() == pytest.approx(1)
    assert (weights[..., 0] / weights[..., 7]).unique().item() == pytest.approx(4)


def test_errors_by_hand():
    images, targets = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5)
    even = torch.ones(1, 1, 8, 8)
    assert squared_error(images, targets, even).item() == pytest.approx(0.25)
    assert absolute_error(images, targets, even).item() == pytest.approx(0.5)
    # a constant offset has no gradient
    assert gradient_error(images, targets, even).item() == 0
    targets[..., 4:] = 0  # one vertical edge of height 0.5 among 7 differences a row
    assert gradient_error(images, targets, even, scales=1).item() == pytest.approx(0.5 / 7)


@pytest.mark.parametrize("error", [squared_error, absolute_error, gradient_error])
def test_errors_are_per_picture(error, pair):
    weights = torch.ones(2, 1, 16, 16)
    both = error(*pair, weights)
    alone = error(pair[0][:1], pair[1][:1], weights[:1])
    torch.testing.assert_close(both[:1], alone)
    assert both.shape == (2,)
    assert (error(pair[0], pair[0], weights) == 0).all()


def test_gradient_error_sees_blur_that_squared_error_forgives():
    rng = torch.Generator().manual_seed(1)
    sharp = torch.randn(1, 3, 32, 32, generator=rng) * 0.3
    weights = torch.ones(1, 1, 32, 32)
    blurred = shrink(shrink(sharp, 8), 32)
    shifted = sharp + (blurred - sharp).square().mean().sqrt()
    assert squared_error(blurred, sharp, weights).item() == pytest.approx(
        squared_error(shifted, sharp, weights).item(), rel=1e-4
    )
    assert gradient_error(blurred, sharp, weights) > 10 * gradient_error(shifted, sharp, weights)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_gradient_error_of_tiny_pictures_is_a_number(size):
    images = torch.rand(1, 3, size, 4, generator=torch.Generator().manual_seed(2))
    assert gradient_error(images, 0 * images, torch.ones(1, 1, size, 4)).isfinite().all()
