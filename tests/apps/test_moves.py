"""Orbit, interpolation and samples: where cameras and latents go."""

import math

import numpy as np
import pytest
import torch

from my3dgen.apps.interpolate import interpolate, picture_changes, way_through
from my3dgen.apps.orbit import orbit, path
from my3dgen.apps.path import Way, between_cameras, camera_turns, eased, evened, positions_at, times
from my3dgen.apps.render import render
from my3dgen.apps.sample import sample, widen
from my3dgen.apps.subject import subject_of
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
    steps = list(interpolate(prior, person, anchors=(1, 3), steps=3))
    for step, anchor in ((steps[0], 1), (steps[-1], 3)):
        ws, camera = person.anchors.ws[anchor : anchor + 1], person.anchors.cameras[anchor : anchor + 1]
        image = prior.generator.synthesis(ws, camera, person.adapter).image
        shown = (image[0] * 127.5 + 128).clamp(0, 255).permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(step.image) - shown).mean() < 1.0
    assert [step.position for step in steps] == pytest.approx([0, 0.5, 1])


def test_moves_move_one_thing(prior, person):
    pose = list(interpolate(prior, person, anchors=(0, 4), steps=2, move="pose"))
    looks = list(interpolate(prior, person, anchors=(0, 4), steps=2, move="latent"))
    front = render(prior, person, anchor=4)[0].image
    assert np.array_equal(np.asarray(looks[1].image), np.asarray(front))
    assert not np.array_equal(np.asarray(pose[0].image), np.asarray(pose[1].image))
    assert torch.equal(pose[0].alpha, pose[1].alpha)


def test_a_pose_alone_computes_the_planes_once(prior, person, monkeypatch):
    calls = []
    planes = Generator.planes
    monkeypatch.setattr(Generator, "planes", lambda *a, **k: calls.append(1) or planes(*a, **k))
    walk = list(interpolate(prior, person, anchors=(0, 4), steps=3, move="pose", sweep=0.5))
    assert len(calls) == 1
    yaws, _ = angles_from_camera(torch.stack([one.camera for one in walk]))
    assert yaws.tolist() == pytest.approx([-0.5, 0, 0.5], abs=1e-6)


def test_many_stops_are_passed_in_turn(prior, person):
    mixture = {0: 1.0, 2: 3.0}
    walk = list(interpolate(prior, person, anchors=(3, mixture, 1), steps=5))
    assert [one.position for one in walk] == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert walk[2].alpha.tolist() == pytest.approx([0.25, 0, 0.75, 0, 0])
    assert torch.allclose(walk[2].camera, person.anchors.cameras[2], atol=1e-5)  # of the heaviest
    assert walk[1].alpha.tolist() == pytest.approx([0.125, 0, 0.375, 0.5, 0])


def test_a_loop_closes_without_a_doubled_frame(prior, person):
    walk = list(interpolate(prior, person, anchors=(3, 1), steps=6, loop=True, ease="linear"))
    assert [one.position for one in walk] == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])
    alphas = torch.stack([one.alpha for one in walk])
    around = (alphas - alphas.roll(1, 0)).norm(dim=1)  # the first step is from the last picture
    assert torch.allclose(around, around[:1].expand(6), atol=1e-5)
    swing = list(interpolate(prior, person, anchors=(3, 1), steps=4, loop=True, sweep=0.4))
    yaws, _ = angles_from_camera(torch.stack([one.camera for one in swing]))
    assert yaws.tolist() == pytest.approx([0, 0.4, 0, -0.4], abs=1e-6)


def test_easing():
    positions = np.array([eased(t) for t in times(9, closed=False)])
    assert positions[0] == 0 and positions[-1] == 1
    speed = np.diff(positions)
    assert speed[0] == speed.min() and speed.argmax() in (3, 4)
    assert np.allclose(positions + positions[::-1], 1)


def test_where_the_motion_rests():
    moments = times(401, closed=False)

    def speeds(ease):
        return np.gradient(positions_at(moments, [1.0, 1.0], ease), moments)

    assert np.allclose(speeds("linear"), 2)
    smooth, ends = speeds("smooth"), speeds("ends")
    assert max(smooth[0], smooth[200], smooth[-1]) < 0.05 < smooth[100]
    assert max(ends[0], ends[-1]) < 0.05 and ends[200] == pytest.approx(math.pi, rel=0.01)


def test_time_is_shared_by_length():
    even = positions_at([0, 0.25, 0.5, 0.75, 1], [1.0, 3.0], "linear")
    assert even == pytest.approx([0, 1, 1 + 1 / 3, 1 + 2 / 3, 2])
    assert positions_at([0, 0.5, 1], [0.0, 1.0], "linear") == pytest.approx([1, 1.5, 2])
    assert positions_at([0, 0.5, 1], [1.0, 0.0], "linear") == pytest.approx([0, 0.5, 2])


def test_lengths_are_shares_of_distance_and_of_turning(prior, person):
    subject = subject_of(prior, person)
    way = way_through(subject, (0, 1, 3), "latent", False)
    moved = [(subject.anchors[a] - subject.anchors[b]).norm().item() for a, b in ((0, 1), (1, 3))]
    assert way.lengths(subject.anchors) == pytest.approx([x / sum(moved) for x in moved], rel=1e-5)
    turned = Way(way.alphas[[0, 0, 0]], camera_from_angles(torch.tensor([0.0, 0.1, 0.4]), 0.0))
    assert turned.lengths(subject.anchors) == pytest.approx([0.25, 0.75], rel=0.02)
    still = Way(way.alphas[[0, 0, 0]], way.cameras)
    assert still.lengths(subject.anchors) == [1, 1]


def test_turns_are_angles():
    cameras = camera_from_angles(torch.tensor([0.0, 0.0, 0.5]), 0.0, pivot=(0.0, 0.0, 0.0))
    assert camera_turns(cameras).tolist() == pytest.approx([0, 0.5], abs=1e-6)


def test_pace_by_picture_evens_out_what_is_seen_to_change(prior, person):
    assert evened([0, 0.5, 1], [[1.0, 3.0]]) == pytest.approx([0, 0.5 + 0.5 / 3, 1])
    assert evened([0.5, 1.5], [[0.0, 0.0], [1.0, 1.0]]) == pytest.approx([0.5, 1.5])  # nothing changes
    subject = subject_of(prior, person)
    way = way_through(subject, (0, 4, 2), "both", False)
    lengths = [sum(change) for change in picture_changes(subject, way)]
    by_picture = interpolate(prior, person, anchors=(0, 4, 2), steps=9, pace="picture", ease="linear")
    shares = positions_at(times(9, closed=False), lengths, "linear")
    # a stop is passed at the time its segments' lengths say, whatever happens in between
    assert [int(one.position) for one in by_picture] == [int(share) for share in shares]


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


def test_samples_mix_as_many_anchors_as_asked_for(prior, person):
    for support, count in ((1, 1), (2, 2), (None, 5)):
        samples = sample(prior, person, count=3, support=support, weights="dirichlet")
        assert {len(one.alpha) for one in samples} == {count}


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
        (lambda p, q: interpolate(p, q, anchors=(0, 5)), "there are 0 to 4"),
        (lambda p, q: interpolate(p, q, anchors=(0, 1), steps=1), "2 to 3600"),
        (lambda p, q: interpolate(p, q, anchors=(0,)), "2 to 200"),
        (lambda p, q: interpolate(p, q, anchors=(0, 1), sweep=math.nan), "up to 180"),
        (lambda p, q: interpolate(p, None, anchors=(0, 1), move="pose"), "give a sweep"),
        (lambda p, q: sample(p, q, count=0), "1 to 10000"),
        (lambda p, q: sample(p, q, support=0), "1 to 10000"),
        (lambda p, q: sample(p, q, beta=2), "0 .* to 1"),
    ],
)
def test_refusals_come_before_the_first_picture(prior, person, call, line):
    with pytest.raises(UserError, match=line):
        call(prior, person)
