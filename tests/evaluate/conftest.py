"""A protocol so small that the whole benchmark of methods runs on a toy prior within half a minute."""

from typing import Any

import pytest

STEPS = {"steps": 2, "batch": 1, "rate": 1e-4, "warm": 1}


@pytest.fixture
def toy_protocol() -> dict[str, Any]:
    """As benches/protocol.json, in small."""
    return {
        "format": 1,
        "people": [1_099_990_000, 1_099_990_001],
        "tuning_people": [1_099_991_000],
        "album": 6,
        "photo_size": 256,
        "yaws": [-30, 0, 30],
        "moments": 1,
        "samples": 3,
        "sample_yaw": 20,
        "interpolations": 1,
        "interpolation_steps": 3,
        "inversion": {"common_steps": 1, "coarse_steps": 1, "fine_steps": 1},
        "methods": [
            {"method": "prior-w", "photos": [5]},
            {"method": "pti", "photos": [0], "training": STEPS},
            {"method": "full", "photos": [5], "training": STEPS},
            {
                "method": "full-pti",
                "photos": [5],
                "training": STEPS,
                "pivoting": STEPS | {"rate": 0.005},
            },
            {"method": "lora", "photos": [1, 5], "ranks": [1], "anchors": ["w"], "training": STEPS},
            {"method": "lora", "photos": [5], "ranks": [2], "anchors": ["w+"], "training": STEPS},
            {
                "method": "lora-pti",
                "photos": [5],
                "ranks": [1],
                "training": STEPS,
                "pivoting": STEPS | {"rate": 0.05},
            },
            {"method": "lora-int8", "photos": [5], "ranks": [1], "training": STEPS},
            {
                "method": "lora-small",
                "photos": [5],
                "ranks": [2],
                "training": STEPS | {"alpha": 2, "budget": 2000},
            },
            {
                "method": "lora-placed",
                "photos": [5],
                "ranks": [1],
                "training": STEPS | {"ranks": "b4=0,b8=0,b16=2"},
            },
            {"method": "full-changing", "photos": [5], "training": STEPS},
            {"method": "lora-changing", "photos": [5], "ranks": [1], "training": STEPS},
            {"method": "control", "photos": [5], "ranks": [1], "training": STEPS},
        ],
    }
