import math

import pytest
import torch

from my3dgen.evaluate.metrics import Judge, Score, mean_score, psnr, ssim


def test_psnr_of_a_known_error():
    # A constant error of 0.2 on a range of 2 is 20 dB by definition.
    truth = torch.zeros(2, 3, 8, 8)
    images = truth + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1)
    assert psnr(images, truth).tolist() == pytest.approx([20.0, 40.0], abs=1e-4)


def test_psnr_counts_only_the_mask():
    truth = torch.zeros(1, 3, 8, 8)
    images = truth.clone()
    images[..., :4] = 0.2  # wrong in the left half
    masks = torch.zeros(1, 1, 8, 8)
    masks[..., :4] = 1
    assert psnr(images, truth, masks).item() == pytest.approx(20.0, abs=1e-4)
    assert psnr(images, truth).item() == pytest.approx(20.0 + 10 * math.log10(2), abs=1e-4)
    assert psnr(images, truth, 1 - masks).item() == pytest.approx(100.0)


def test_psnr_clamps_what_a_picture_cannot_hold():
    truth = torch.ones(1, 3, 4, 4)
    assert psnr(truth * 3, truth).item() == pytest.approx(100.0)


def test_ssim_is_the_one_of_the_literature():
    from skimage.metrics import structural_similarity

    rng = torch.Generator().manual_seed(3)
    truth = torch.rand(1, 3, 40, 40, generator=rng) * 2 - 1
    images = (truth + 0.3 * torch.randn(1, 3, 40, 40, generator=rng)).clamp(-1, 1)
    theirs = structural_similarity(
        *((x[0].double().numpy() + 1) / 2 for x in (images, truth)),
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    inner = torch.zeros(1, 1, 40, 40)
    inner[..., 5:-5, 5:-5] = 1  # they leave the border out
    assert ssim(images, truth, inner).item() == pytest.approx(float(theirs), abs=1e-5)
    assert ssim(truth, truth).item() == pytest.approx(1.0, abs=1e-5)


def test_score_orders_near_before_far_and_ignores_no_picture():
    judge = Judge(
        perceptual=lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)),
        embed=lambda images, cameras: images.flatten(1)[:, :128] / 10 + cameras.sum(dim=1, keepdim=True) * 0,
    )
    rng = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 8, 8, generator=rng) * 2 - 1
    noise = torch.randn(2, 3, 8, 8, generator=rng) * torch.tensor([0.02, 0.3]).view(2, 1, 1, 1)
    near, far = judge.score(truth + noise, truth, torch.ones(2, 1, 8, 8), torch.zeros(2, 25))
    assert near.psnr > far.psnr and near.perceptual < far.perceptual and near.identity > far.identity
    assert near.psnr == pytest.approx(near.psnr_image, abs=1e-4)


def test_mean_score():
    mean = mean_score([Score(10.0, 20.0, 0.1, 0.5, 0.8), Score(20.0, 30.0, 0.3, 0.7, 0.6)])
    assert mean.as_dict() == {"psnr": 15, "psnr_image": 25, "perceptual": 0.2, "identity": 0.6, "ssim": 0.7}
    with pytest.raises(ValueError, match="no scores"):
        mean_score([])
