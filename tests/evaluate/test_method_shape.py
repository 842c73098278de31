import pytest
import torch

from my3dgen.evaluate.method_shape import depth_error, floaters


def head(size: int = 64) -> torch.Tensor:
    mask = torch.zeros(2, 1, size, size)
    mask[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    return mask


def test_opacity_within_the_outline_floats_nowhere():
    assert floaters(head()[:, 0], head()).tolist() == [0, 0]
    assert floaters(head(32)[:, 0], head(64)).tolist() == [0, 0]  # at any resolution


def test_a_cloud_beside_the_head_is_a_floater_by_its_share():
    opacity = head()[:, 0].clone()  # 256 cells
    opacity[1, 50:58, 50:58] = 1  # 64 more
    assert floaters(opacity, head()).tolist() == pytest.approx([0, 64 / 320])


def test_the_outline_has_a_margin():
    wider = torch.zeros(1, 64, 64)
    wider[:, 14:34, 14:34] = 1  # two cells more on each side: 3 % of the width
    assert floaters(wider, head()[:1]).item() == 0
    wider[:, 10:38, 10:38] = 1
    assert floaters(wider, head()[:1]).item() > 0.2
    assert floaters(torch.zeros(1, 64, 64), head()[:1]).isnan().all()


def bowl() -> torch.Tensor:
    x = torch.linspace(-1, 1, 64)
    return 2.5 + 0.2 * (x[:, None].square() + x.square()).expand(2, 64, 64)


def test_depth_is_compared_up_to_a_shift_and_no_further():
    truth, opacity = bowl() * head()[:, 0], head()[:, 0]
    error, missed = depth_error(bowl() + 0.3, opacity, truth, head())
    assert error.tolist() == pytest.approx([0, 0], abs=1e-6) and missed.tolist() == [0, 0]
    flat, _ = depth_error(torch.full_like(truth, 2.5), opacity, truth, head())
    assert flat.min() > 0.01  # a scale that was fitted would let it pass


def test_rays_without_depth_are_missed_not_wrong():
    opacity = head()[:, 0].clone()
    opacity[0, :24] = 0  # half of the head
    opacity[1] = 0
    error, missed = depth_error(bowl(), opacity, bowl() * head()[:, 0], head())
    assert missed.tolist() == pytest.approx([0.5, 1.0])
    assert error[0] < 1e-6 and error[1].isnan()
