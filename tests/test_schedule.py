import pytest

from my3dgen.schedule import projector_ramp, warm_then_linear


def test_projector_ramp_rises_stays_and_falls():
    ramp = [projector_ramp(step, 1000) for step in range(1000)]
    assert 0 < ramp[0] < 0.02
    assert ramp[60] == ramp[700] == 1
    assert ramp[875] == pytest.approx(0.5, abs=0.01)
    assert 0 < ramp[-1] < 1e-4


def test_warm_then_linear():
    rates = [warm_then_linear(step, 100, warm=10, fall=0.5) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[49] == 1
    assert rates[75] == pytest.approx(0.49)
    assert 0 < rates[-1] <= 0.011


def test_short_runs_never_stand_still():
    assert all(projector_ramp(step, 3) > 0.05 for step in range(3))
    assert warm_then_linear(0, 1, warm=20, fall=0.5) > 0
