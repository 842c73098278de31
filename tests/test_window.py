from dataclasses import replace

import pytest
import torch

from my3dgen.lora import new_adapter
from my3dgen.prior.generator import Generator
from my3dgen.window import MARGIN, Window, fits_windows, random_window, render_window


@pytest.mark.parametrize(("top", "left"), [(0, 0), (0, 4), (1, 2), (4, 4), (2, 0)])
def test_a_window_shows_exactly_its_part_of_the_picture(tiny_prior, truth, top, left):
    generator = tiny_prior.generator
    adapter = new_adapter(generator, 1, 1.0)
    for tensor in adapter.tensors.values():
        tensor.data += 0.02 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
    window = Window(top, left, 12, generator.config.neural_rendering_resolution)
    with torch.no_grad():
        ws, cameras = truth.ws[:2], truth.cameras[:2]
        image, raw = render_window(generator, ws, window.cameras(cameras), adapter, 12, window.spans, 6)
        whole, whole_raw = render_window(generator, ws, cameras, adapter, None, None, 6)
    torch.testing.assert_close(raw, window.crop(whole_raw), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(image, window.crop(whole), atol=1e-3, rtol=1e-3)
    assert whole.std() > 0.01


def test_windows_reach_every_border_and_stay_inside():
    rng = torch.Generator().manual_seed(0)
    windows = [random_window(12, 16, rng) for _ in range(100)]
    assert {w.top for w in windows} == {w.left for w in windows} == set(range(5))
    sides = {w.crop(torch.zeros(1, 1, 16, 16)).shape[-1] for w in windows}
    assert sides == {12 - MARGIN, 12 - 2 * MARGIN}


def test_priors_with_noise_in_the_picture_are_rendered_whole(tiny_prior):
    assert fits_windows(tiny_prior.generator)
    noisy = Generator(replace(tiny_prior.config, superresolution_noise_mode="const"))
    assert not fits_windows(noisy)
