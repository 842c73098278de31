"""The dual discriminator: what it sees, and its gradient penalty."""

import json
from pathlib import Path

import torch

from my3dgen.cameras import camera_from_angles
from my3dgen.pretrain.discriminator import Discriminator, DiscriminatorConfig, deviation
from my3dgen.pretrain.objectives import BLUR, blur_taps, blurred, discriminator_loss, gradient_penalty

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "eg3d-golden.json").read_text())["micro"]


def _inputs(count: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(count, 3, 32, 32, generator=rng) * 2 - 1
    raw = torch.rand(count, 3, 16, 16, generator=rng) * 2 - 1
    return image, raw, camera_from_angles(torch.linspace(-1, 1, count), 0.1)


def _discriminator() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(DiscriminatorConfig(32, channel_base=256, channel_max=16))


def test_every_input_matters() -> None:
    discriminator, (image, raw, cameras) = _discriminator(), _inputs()
    logits = discriminator(image, raw, cameras)
    assert logits.shape == (8,)
    assert not torch.allclose(logits, discriminator(image.flip(3), raw, cameras))
    assert not torch.allclose(logits, discriminator(image, raw.flip(3), cameras))
    assert not torch.allclose(logits, discriminator(image, raw, cameras.flip(0)))


def test_deviation_is_that_of_eg3d() -> None:
    images = torch.arange(16.0).reshape(4, 2, 1, 2) ** 1.5
    expected = torch.tensor(GOLDEN["mbstd"]["extra_channel_at_0_0"])
    torch.testing.assert_close(deviation(images, 2)[:, 0, 0, 0], expected)


def test_blur_is_that_of_eg3d_and_fades_to_nothing() -> None:
    golden = torch.tensor(GOLDEN["blur_kernel_sigma2"])
    taps = blur_taps(2.0)
    middle = taps[len(taps) // 2 - 6 : len(taps) // 2 + 7]
    torch.testing.assert_close(middle, golden, atol=1e-7, rtol=1e-5)
    assert taps.sum() - middle.sum() == 0
    dot = torch.zeros(1, 2, 21, 21)
    dot[0, 1, 10, 10] = 1
    spread = blurred(dot, taps)
    torch.testing.assert_close(spread[0, 1, 4:17, 4:17], torch.outer(golden, golden), atol=1e-7, rtol=1e-5)
    assert spread[0, 0].abs().max() == 0
    assert torch.equal(blurred(dot, blur_taps(0.0)), dot)
    assert blur_taps(BLUR).argmax() == 30 and blur_taps(BLUR)[0] > 0


def test_deviation_tells_equal_images_from_different_ones() -> None:
    same = torch.ones(8, 4, 2, 2)
    different = torch.randn(8, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    assert deviation(same, 4).max() < 1e-3 < deviation(different, 4).min()


def test_penalty_is_the_squared_gradient() -> None:
    discriminator, (image, raw, cameras) = _discriminator(), _inputs()
    penalty = gradient_penalty(discriminator, image, raw, cameras, torch.float32)
    image.requires_grad_()
    raw.requires_grad_()
    by_image, by_raw = torch.autograd.grad(discriminator(image, raw, cameras).sum(), (image, raw))
    expected = (by_image.square().sum((1, 2, 3)) + by_raw.square().sum((1, 2, 3))).mean()
    torch.testing.assert_close(penalty, expected)
    penalty.backward()
    assert discriminator.fromrgb.weight.grad.abs().sum() > 0


def test_it_learns_to_tell_two_kinds_of_image_apart() -> None:
    discriminator, (image, raw, cameras) = _discriminator(), _inputs()
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.0, 0.99))
    losses = []
    for _ in range(20):
        loss = discriminator_loss(discriminator(image, raw, cameras), discriminator(-image, -raw, cameras))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
