import numpy as np
import pytest
import torch
from PIL import Image

from my3dgen.apps.interpolate import interpolate
from my3dgen.apps.likeness import Change, embed, embed_anchors, least_alike, nearest, unevenness
from my3dgen.apps.subject import subject_of
from my3dgen.apps.walk_report import Watch, walk_picture


def test_drawn_anchors_are_nearest_to_themselves(prior, person):
    subject = subject_of(prior, person)
    references = embed_anchors(subject, [0, 2, 4])
    walk = list(interpolate(prior, person, anchors=(4, 0), steps=2))
    alike, which = nearest(
        embed([one.image for one in walk], torch.stack([w.camera for w in walk])), references
    )
    assert which == [2, 0] and min(alike) > 0.97  # pictures have eight bits
    assert least_alike(references[:1]) is None
    table = 1 - torch.cdist(references, references) / 1.2
    assert least_alike(references) == pytest.approx(float(table.min()), abs=1e-4)


def test_change_is_between_neighbours():
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(2)]
    change = Change()
    for image in (images[0], images[0], images[1]):
        change.see(image)
    same, other = change.steps()
    assert same < 1e-3 < other
    assert change.steps(closed=True)[2] == pytest.approx(other, rel=1e-4)  # distance is symmetric
    assert unevenness([1.0, 1.0]) == 0 and unevenness([0.0, 2.0]) == 1 and unevenness([0.0]) == 0


def test_a_watched_walk_passes_by_unchanged(prior, person):
    subject = subject_of(prior, person)
    watch = Watch(embed_anchors(subject, [1, 3]), 12, closed=True)
    plain = list(interpolate(prior, person, anchors=(1, 3), steps=12, loop=True))
    watched = list(watch.over(interpolate(prior, person, anchors=(1, 3), steps=12, loop=True)))
    assert all(a.image.tobytes() == b.image.tobytes() for a, b in zip(plain, watched, strict=True))
    report = watch.report()
    assert len(report.strip) == 9 and len(report.steps) == len(report.identity) == 12
    assert report.nearest[0] == 0 and report.nearest[6] == 1
    figures = report.as_dict()
    assert figures["identity_least"] == pytest.approx(min(report.identity), abs=1e-4)
    page = walk_picture(report, {0.0: "one", 1.0: "three", 2.0: "one"})
    assert page.width == 1100 and np.asarray(page).std() > 10
