"""Filters against EG3D's numbers (EG3D spec 1.2)."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import conv2d

from my3dgen.ops.fir import lowpass_filter, upfirdn, upsample2d
from my3dgen.ops.low_pass import low_pass

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "eg3d-golden.json").read_text())["micro"]


def test_the_filter() -> None:
    assert torch.equal(lowpass_filter()[:2], torch.tensor(GOLDEN["filter_row0_row1"]))


def test_upsample() -> None:
    image = torch.tensor(GOLDEN["upsample2d"]["in"]).reshape(1, 1, 2, 2)
    expected = torch.tensor(GOLDEN["upsample2d"]["out4x4"])
    torch.testing.assert_close(upsample2d(image, lowpass_filter())[0, 0], expected)


def test_upsample_is_upfirdn() -> None:
    image = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    slow = upfirdn(image, lowpass_filter(), up=2, padding=(2, 1, 2, 1), gain=4.0)
    torch.testing.assert_close(upsample2d(image, lowpass_filter()), slow)


def test_downsample() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = torch.tensor(GOLDEN["downsample2d"]["out2x2"])
    slow = upfirdn(image, lowpass_filter(), down=2, padding=(1, 1, 1, 1))
    torch.testing.assert_close(slow[0, 0], expected)
    torch.testing.assert_close(low_pass(image, (1, 1))[0, 0, ::2, ::2], expected)  # as the discriminator does


@pytest.mark.parametrize("padding", [(1, 1), (2, 2), (2, 1), (0, 0)])
def test_low_pass_is_upfirdn(padding: tuple[int, int]) -> None:
    image = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    slow = upfirdn(image, lowpass_filter(), padding=(*padding, *padding), gain=4.0)
    torch.testing.assert_close(low_pass(image, padding, gain=4.0), slow)


def test_filter_then_strided_convolution() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4) / 16
    weight = (torch.arange(9.0).reshape(1, 1, 3, 3) / 9 - 0.4) / 3
    blurred = low_pass(image, (2, 2))
    expected = torch.tensor(GOLDEN["conv_down2"]["out"])
    torch.testing.assert_close(conv2d(blurred, weight, stride=2)[0, 0], expected, atol=1e-6, rtol=1e-5)


def test_an_asymmetric_filter_is_convolved_not_correlated() -> None:
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 1] = 1
    taps = torch.arange(9.0).reshape(3, 3)
    assert torch.equal(upfirdn(image, taps, padding=(1, 1, 1, 1))[0, 0], taps)
