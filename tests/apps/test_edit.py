import pytest
import torch

from my3dgen.apps.edit import edit, plan_edit
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


def test_a_plain_prior_is_edited_in_w(prior):
    edits = list(edit(prior, strengths=(0, 1), seed=4, space="alpha"))
    assert edits[0].outside is None
    assert edits[0].image.tobytes() != edits[1].image.tobytes()


def test_refusals(prior, person):
    from dataclasses import replace

    with pytest.raises(UserError, match="no direction 'beard'; it has: blink, smile"):
        edit(prior, person, direction="beard")
    with pytest.raises(UserError, match="prior directions"):
        edit(replace(prior, directions={}), person)
    with pytest.raises(UserError, match="-20 to 20"):
        edit(prior, person, strengths=(50,))
