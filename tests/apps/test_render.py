from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from my3dgen.apps.render import depth_picture, render, save_depth
from my3dgen.apps.sheet import to_image
from my3dgen.apps.subject import subject_of
from my3dgen.cameras import camera_from_angles
from my3dgen.errors import PriorMismatchError, UserError
from my3dgen.prior.generator import Generator


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a).astype(float) - np.asarray(b)).mean())


def test_render_is_the_generators_picture(prior, person):
    (view,) = render(prior, person, yaws=(0.3,), pitch=0.1, anchor=2)
    expected = prior.generator.synthesis(person.anchors.ws[2:3], camera_from_angles(0.3, 0.1), person.adapter)
    assert np.array_equal(np.asarray(view.image), np.asarray(to_image(expected.image)))
    assert view.image.size == (64, 64) and view.made_at == 64 and view.depth.shape == (16, 16)


def test_appearances_differ_and_mixtures_are_divided_by_their_sum(prior, person):
    one = render(prior, person, anchor=0)[0].image
    other = render(prior, person, anchor=3)[0].image
    assert difference(one, other) > 0.5
    half = render(prior, person, alpha={0: 1, 3: 1})[0].image
    same = render(prior, person, alpha={0: 0.5, 3: 0.5})[0].image
    assert difference(half, same) == 0 and difference(half, one) > 0.1
    everything = render(prior, person, alpha=dict.fromkeys(range(5), 2))[0].image
    assert difference(everything, render(prior, person)[0].image) < 0.1  # the default is the mean


def test_without_a_person_every_seed_is_a_face_of_its_own(prior):
    images = [render(prior, seed=seed)[0].image for seed in (0, 1)]
    assert difference(*images) > 0.5
    assert difference(render(prior, seed=0, anchor=1)[0].image, images[1]) == 0


def test_sizes(prior):
    small, finer = render(prior, size=40)[0], render(prior, resolution=48)[0]
    assert small.image.size == (40, 40) and small.made_at == 64
    assert finer.image.size == (64, 64) and finer.depth.shape == (48, 48)
    config = replace(prior.config, superresolution="4X")
    large = render(replace(prior, generator=Generator(config).requires_grad_(False)), resolution=48)[0]
    assert large.image.size == (96, 96) and large.made_at == 96  # a 4X head keeps a larger input


def test_a_narrower_field_of_view_shows_the_middle_larger(prior):
    subject = subject_of(prior)
    focal = [subject.camera(fov=fov)[0, 16].item() for fov in (None, 18.837, 10)]
    assert focal[0] == pytest.approx(4.2647) and focal[1] == pytest.approx(4.2634, abs=1e-3)
    assert focal[2] > 7


def test_depth(prior, tmp_path):
    views = render(prior, yaws=(0.0, 0.5))
    path = save_depth([view.depth for view in views], tmp_path / "deep" / "d.npy")
    stored = np.load(path)
    assert stored.dtype == np.float32 and stored.shape == (2, 16, 16)
    assert list(path.parent.iterdir()) == [path]
    near_far = np.array([[2.0, 3.0], [2.5, np.inf]], np.float32)
    grey = np.asarray(depth_picture([near_far])[0])[..., 0].astype(int)
    assert grey[0, 0] == 255 and grey[0, 0] > grey[1, 0] > grey[0, 1] > grey[1, 1] == 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"anchor": 5}, "anchor 5 does not exist; there are 0 to 4"),
        ({"anchor": -1}, "0 to 4"),
        ({"alpha": {9: 1.0}}, "anchor 9"),
        ({"alpha": {0: 1.0, 1: -1.0}}, "sum to 0"),
        ({"alpha": {0: 1.0}, "anchor": 1}, "not both"),
        ({"size": 9000}, "16 to 4096"),
        ({"resolution": 2000}, "16 to 512"),
        ({"fov": 120}, "2 to 90"),
    ],
)
def test_what_cannot_be_drawn_is_said(prior, person, options, line):
    with pytest.raises(UserError, match=line):
        render(prior, person, **options)


def test_a_person_of_another_prior_is_refused(prior, person):
    with pytest.raises(PriorMismatchError, match="toy"):
        render(replace(prior, sha256="0" * 64), person)


def test_nothing_random(prior, person):
    torch.manual_seed(1)
    first = render(prior, person)[0].image
    torch.manual_seed(2)
    assert difference(first, render(prior, person)[0].image) == 0
