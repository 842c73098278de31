"""How a learning rate moves over a run: functions of the step alone, so a resumed run continues exactly."""

import math


def projector_ramp(step: int, steps: int, rise: float = 0.05, fall: float = 0.25) -> float:
    """The projector's ramp (EG3D spec 5.7): linear rise over the first `rise` of the run, cosine fall
    over the last `fall`. The middle of the step is taken, so neither the first nor the last step is lost.

    Returns the factor, in (0, 1].
    """
    t = (step + 0.5) / steps
    down = min(1.0, (1 - t) / fall)
    return 0.5 * (1 - math.cos(math.pi * down)) * min(1.0, t / rise)


def warm_then_linear(step: int, steps: int, warm: int, fall: float) -> float:
    """Linear rise over `warm` steps, flat, then a linear fall to zero over the last `fall` of the run.

    Returns the factor, in (0, 1].
    """
    rise = min(1.0, (step + 1) / max(1, warm))
    return rise * min(1.0, (1 - (step + 0.5) / steps) / fall)
