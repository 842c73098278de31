import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from my3dgen.alpha import decode, project
from my3dgen.apps.edit import edit, find, plan_edit
from my3dgen.apps.edit_report import EditReport, edit_picture, edit_sheet, measure_edit
from my3dgen.apps.render import render
from my3dgen.apps.subject import subject_of
from my3dgen.errors import UserError


def test_strength_zero_is_the_person_unchanged(prior, person):
    for space in ("w", "alpha"):
        edits = list(edit(prior, person, strengths=(-1, 0, 1), anchor=2, space=space))
        unchanged = render(prior, person, anchor=2)[0].image
        assert edits[1].image.tobytes() == unchanged.tobytes()
        assert edits[0].image.tobytes() != edits[2].image.tobytes() != unchanged.tobytes()


def test_in_w_the_latent_moves_by_strength_times_direction(prior, person):
    subject = subject_of(prior, person)
    plan = plan_edit(subject, subject.alpha(1), prior.directions["smile"], [0.0, 2.0], "w", 0.03, False)
    moved = plan.ws[1] - plan.ws[0]
    assert torch.allclose(moved, 2 * prior.directions["smile"].expand_as(moved), atol=1e-5)
    assert plan.outside is None and plan.reach == 1
    nearest = project(plan.ws, subject.anchors, 0.03)
    away = (plan.ws - decode(nearest, subject.anchors)).flatten(1).norm(dim=1)
    mean = subject.anchors.mean(0)
    spread = (subject.anchors - mean).flatten(1).square().sum(1).mean().sqrt()
    assert plan.distance == pytest.approx((0.0, float(away[1] / spread)), abs=1e-3)
    assert plan.distance is not None and plan.distance[1] > 0.1


def test_in_alpha_space_the_move_is_the_nearest_the_anchors_span(prior, person):
    subject = subject_of(prior, person)
    anchors = subject.anchors[:, 0]
    inside = anchors[0] - 0.5 * anchors[1] - 0.5 * anchors[2]  # within the anchors' affine span
    away = torch.linalg.qr((anchors[1:] - anchors[:1]).T).Q
    across = torch.randn(len(inside), generator=torch.Generator().manual_seed(0))
    across -= away @ (away.T @ across)  # perpendicular to the span
    plan = plan_edit(subject, subject.alpha(0), inside + across, [0.0, 1.0], "alpha", 0.03, False)
    moved = (plan.ws[1] - plan.ws[0])[0]
    assert torch.allclose(moved, inside, atol=1e-3)
    assert plan.reach == pytest.approx(float(inside.norm() / (inside + across).norm()), abs=1e-3)
    # alpha goes from (1, 0, 0, 0, 0) to (2, -0.5, -0.5, 0, 0)
    assert plan.outside == pytest.approx((0.0, 0.47), abs=1e-3)


def test_keep_inside_stops_at_the_dilated_hull(prior, person):
    subject = subject_of(prior, person)
    direction = prior.directions["smile"]
    free = plan_edit(subject, subject.alpha(0), direction, [20.0], "alpha", 0.03, False)
    kept = plan_edit(subject, subject.alpha(0), direction, [20.0], "alpha", 0.03, True)
    assert free.outside is not None and free.outside[0] > 0.03
    centre = subject.anchors.mean(0)
    assert (kept.ws[0] - centre).norm() < (free.ws[0] - centre).norm()
    system = torch.cat([subject.anchors[:, 0].T, torch.ones(1, 5)]).double()
    alpha = torch.linalg.lstsq(system, torch.cat([kept.ws[0, 0], torch.ones(1)]).double()[:, None]).solution
    assert alpha.min() > -0.03 - 1e-4
    other = plan_edit(subject, subject.alpha(0), direction, [20.0], "w", 0.03, True)
    assert torch.allclose(other.ws, kept.ws, atol=1e-3)  # the nearest point is the same from either space
    assert kept.distance == free.distance  # how far it had left, not where it is now


def test_directions_add_up(prior, person):
    smile, blink = prior.directions["smile"], prior.directions["blink"]
    assert torch.allclose(find(prior, {"smile": 1.5, "blink": -1}), 1.5 * smile - blink)
    (one,) = edit(prior, person, direction={"smile": 0.5, "blink": -0.5}, strengths=(1,))
    (same,) = edit(prior, person, direction="smile", strengths=(1,))  # this blink is the smile reversed
    assert np.abs(np.asarray(one.image).astype(int) - np.asarray(same.image)).max() <= 1


def test_every_strength_is_seen_from_every_yaw(prior, person):
    edits = list(edit(prior, person, strengths=(0, 1), yaws=(-0.5, 0.0, 0.5), anchor=2))
    assert [len(one.views) for one in edits] == [3, 3]
    turned = render(prior, person, yaws=(0.5,), anchor=2)[0].image
    assert edits[0].views[2].tobytes() == turned.tobytes()
    page = edit_sheet(edits, (-30, 0, 30), "smile")
    assert page.height > 2 * 64 and page.width > 3 * 64
    once = edit_sheet(list(edit(prior, person, strengths=(0, 1))), (0,), "smile")
    assert once.height < 2 * 64


def test_the_report_compares_with_the_unedited_picture(prior, person):
    edits = list(edit(prior, person, strengths=(2, 0, -1), yaws=(0.6, 0.1)))
    report = measure_edit(edits, {"smile": 1.0})
    assert report.strengths == (-1, 0, 2)
    assert report.identity[1] > 0.9999 > max(report.identity[0], report.identity[2])
    assert len(report.scores["brightness"]) == 3 and report.distance == (
        edits[2].distance,
        0,
        edits[0].distance,
    )
    figures = report.as_dict()
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert [len(seen) for seen in report.views] == [2, 2, 2]
    seen = ((edits[0].image,), (edits[1].image,))
    scored = EditReport({"smile": 1.0}, (0.0, 1.0), {"smile": (0.1, 0.7)}, (1.0, 0.9), (0.0, 0.2), seen)
    unknown = replace(scored, scores={"smile": (float("nan"),) * 2}, distance=None)
    pages = [edit_picture(one).height for one in (scored, unknown)]
    assert pages[0] - pages[1] == 2 * 220  # a chart of scores and one of distances
    with pytest.raises(ValueError, match="strength 0"):
        measure_edit(edits[:1], {"smile": 1.0})


def test_a_plain_prior_is_edited_in_w(prior):
    edits = list(edit(prior, strengths=(0, 1), seed=4, space="alpha"))
    assert edits[0].outside is None and edits[1].distance is None
    assert edits[0].image.tobytes() != edits[1].image.tobytes()


def test_refusals(prior, person):
    with pytest.raises(UserError, match="no direction 'beard'; it has: blink, smile"):
        edit(prior, person, direction="beard")
    with pytest.raises(UserError, match="prior directions"):
        edit(replace(prior, directions={}), person)
    with pytest.raises(UserError, match="-20 to 20"):
        edit(prior, person, strengths=(50,))
    with pytest.raises(UserError, match="-20 to 20"):
        edit(prior, person, direction={"smile": math.nan})
    with pytest.raises(UserError, match="at least one direction"):
        edit(prior, person, direction={})
    with pytest.raises(UserError, match="at least one yaw"):
        edit(prior, person, yaws=())
