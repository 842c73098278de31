"""The dual discriminator: what it sees, and its gradient penalty."""

import torch

from my3dgen.cameras import camera_from_angles
from my3dgen.pretrain.discriminator import Discriminator, DiscriminatorConfig, deviation
from my3dgen.pretrain.objectives import discriminator_loss, gradient_penalty


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
