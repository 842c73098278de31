"""Orbit, interpolation and samples: where cameras and latents go."""

import math

import numpy as np
import pytest
import torch

from my3dgen.apps.interpolate import between_cameras, eased, interpolate
from my3dgen.apps.orbit import orbit, path
from my3dgen.apps.render import render
from my3dgen.apps.sample import sample, widen
from my3dgen.cameras import angles_from_camera, camera_from_angles, check_label
from my3dgen.errors import UserError
from my3dgen.prior.generator import Generator


def test_orbit_is_a_closed_smooth_loop():
    yaw, pitch = path(40, 0.5, 0.2)
    points = torch.stack([yaw, pitch])
    steps = (points - points.roll(1, 1)).norm(dim=0)  # the first step is from the last frame
    assert yaw.max() == pytest.approx(0.5) and pitch.min() == pytest.approx(-0.2)
    assert steps.max() / steps.min() < 3
    turn, _ = path(36, math.pi, 0.0)
    assert (turn.diff() - math.radians(10)).abs().max() < 1e-5


def test_orbit_computes_the_planes_once(prior, person, monkeypatch):
    calls = []
    planes = Generator.planes
    monkeypatch.setattr(Generator, "planes", lambda *a, **k: calls.append(1) or planes(*a, **k))
    frames = list(orbit(prior, person, frames=4, yaw_range=0.6, pitch_range=0.0, anchor=1))
    assert len(calls) == 1
    expected = render(prior, person, yaws=(0.6,), anchor=1)[0].image
    assert np.array_equal(np.asarray(frames[1]), np.asarray(expected))
    assert frames[3].tobytes() != frames[1].tobytes()
    there, back = (np.asarray(frames[index]).astype(float) for index in (0, 2))
    assert np.abs(there - back).max() <= 1  # through the middle both ways


def test_interpolation_starts_and_ends_at_the_photos(prior, person):
    steps = list(interpolate(prior, person, start=1, end=3, steps=3))
    for step, anchor in ((steps[0], 1), (steps[-1], 3)):
        ws, camera = person.anchors.ws[anchor : anchor + 1], person.anchors.cameras[anchor : anchor + 1]
        image = prior.generator.synthesis(ws, camera, person.adapter).image
        shown = (image[0] * 127.5 + 128).clamp(0, 255).permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(step.image) - shown).mean() < 1.0
    assert [step.position for step in steps] == pytest.approx([0, 0.5, 1])


def test_modes_move_one_thing(prior, person):
    pose = list(interpolate(prior, person, start=0, end=4, steps=2, mode="pose"))
    looks = list(interpolate(prior, person, start=0, end=4, steps=2, mode="appearance"))
    front = render(prior, person, anchor=4)[0].image
    assert np.array_equal(np.asarray(looks[1].image), np.asarray(front))
    assert not np.array_equal(np.asarray(pose[0].image), np.asarray(pose[1].image))


def test_easing():
    positions = np.array(eased(9))
    assert positions[0] == 0 and positions[-1] == 1
    speed = np.diff(positions)
    assert speed[0] == speed.min() and speed.argmax() in (3, 4)
    assert np.allclose(positions + positions[::-1], 1)


def test_cameras_between_stay_cameras_on_the_sphere():
    first, last = camera_from_angles(-0.6, 0.3), camera_from_angles(0.7, -0.2, radius=3.0)
    way = between_cameras(first[0], last[0], [0.0, 0.3, 1.0])
    assert torch.allclose(way[[0, 2]], torch.cat([first, last]), atol=1e-5)
    for camera in way.tolist():
        check_label(camera, "between")
    assert way[1, [3, 7, 11]].norm().item() == pytest.approx(0.7 * 2.7 + 0.3 * 3.0, abs=1e-4)
    yaws, _ = angles_from_camera(way)
    assert yaws[0] < yaws[1] < yaws[2]
    still = between_cameras(first[0], first[0], [0.0, 0.5, 1.0])
    assert torch.allclose(still, first.expand(3, -1), atol=1e-5)


def test_samples_are_repeatable_mixtures_of_three(prior, person):
    samples = list(sample(prior, person, count=4, seed=5))
    again = list(sample(prior, person, count=4, seed=5))
    assert [s.alpha for s in samples] == [s.alpha for s in again]
    for one in samples:
        assert len(one.alpha) == 3 and sum(one.alpha.values()) == pytest.approx(1)
        assert min(one.alpha.values()) >= 0
    expected = render(prior, person, alpha=samples[0].alpha)[0].image
    assert np.abs(np.asarray(expected).astype(int) - np.asarray(samples[0].image)).max() <= 1


def test_beta_reaches_exactly_to_the_dilated_hull():
    corner = torch.tensor([[0.0, 1.0, 1e-9, 1e-9, 0.0]])
    wide = widen(corner, 0.1)
    assert wide.sum().item() == pytest.approx(1)
    assert wide.min().item() == pytest.approx(-0.1, abs=1e-6)
    assert wide[0, 0] == 0  # anchors that take no part stay out
    assert torch.equal(widen(corner, 0.0), corner)


def test_samples_of_the_prior_are_its_faces(prior):
    samples = list(sample(prior, count=2, seed=3))
    assert samples[1].image.tobytes() == render(prior, seed=4)[0].image.tobytes()


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda p, q: orbit(p, q, frames=1), "2 to 3600"),
        (lambda p, q: interpolate(p, q, start=0, end=5), "there are 0 to 4"),
        (lambda p, q: interpolate(p, q, start=0, end=1, steps=1), "2 to 3600"),
        (lambda p, q: sample(p, q, count=0), "1 to 10000"),
        (lambda p, q: sample(p, q, beta=2), "0 .* to 1"),
    ],
)
def test_refusals_come_before_the_first_picture(prior, person, call, line):
    with pytest.raises(UserError, match=line):
        call(prior, person)
