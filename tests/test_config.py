"""Configurations travel as JSON and refuse what they cannot mean."""

import json
from dataclasses import fields

import pytest

from my3dgen.config import PRESETS, PriorConfig
from my3dgen.errors import FileFormatError


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip_through_json(name: str) -> None:
    config = PRESETS[name]
    assert PriorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_derived_sizes() -> None:
    assert [PRESETS[name].num_ws for name in ("ffhq512-128", "mini", "tiny")] == [14, 12, 8]
    assert [PRESETS["ffhq512-128"].channels(r) for r in (4, 64, 128, 256)] == [512, 512, 256, 128]


def test_every_field_is_checked() -> None:
    for field in fields(PriorConfig):
        with pytest.raises(FileFormatError, match=field.name):
            PriorConfig.from_dict({**PRESETS["mini"].to_dict(), field.name: {"not": "a value"}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("plane_mode", "xy"),
        ("plane_resolution", 100),
        ("z_dim", 0),
        ("z_dim", True),
        ("box_warp", float("nan")),
        ("ray_start", 4.0),
        ("ray_start", "auto"),
        ("img_resolution", 512),
        ("superresolution", "16X"),
        ("camera_pivot", [0, 0]),
        ("white_back", 1),
    ],
)
def test_bad_values_are_refused(key: str, value: object) -> None:
    with pytest.raises(FileFormatError, match=key):
        PriorConfig.from_dict({**PRESETS["mini"].to_dict(), key: value})


def test_unknown_and_missing_keys_are_refused() -> None:
    values = PRESETS["mini"].to_dict()
    with pytest.raises(FileFormatError, match="unknown key 'colour'"):
        PriorConfig.from_dict({**values, "colour": 1})
    del values["w_dim"]
    with pytest.raises(FileFormatError, match="'w_dim' is missing"):
        PriorConfig.from_dict(values)
