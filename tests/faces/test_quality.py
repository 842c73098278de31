"""Why a photo is dropped or remarked upon."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from my3dgen.errors import PhotoError
from my3dgen.faces.build import portrait
from my3dgen.faces.quality import (
    Measures,
    fingerprint,
    notes,
    odd_ones,
    reason_to_drop,
    same_photo,
    sharpness,
)

GOOD = Measures(
    yaw=5.0,
    pitch=3.0,
    side=600.0,
    outside=0.0,
    sharpness=0.6,
    colour=0.2,
    smile=0.1,
    jaw_open=0.0,
    blink=0.1,
)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"side": 90.0}, "too small"),
        ({"outside": 0.5}, "at the edge"),
        ({"yaw": -70.0}, "turned too far"),
        ({"pitch": 50.0}, "tilted too far"),
        ({"sharpness": 0.05}, "blurred"),
        ({"blink": 0.9}, "eyes closed"),
    ],
)
def test_reasons(change, reason):
    found = reason_to_drop(replace(GOOD, **change))
    assert found is None if reason is None else reason in str(found)


def test_notes():
    assert notes(GOOD, 512) == []
    remarks = " ".join(notes(replace(GOOD, colour=0.0, side=200.0, outside=0.2), 512))
    assert "black and white" in remarks and "enlarged from 200" in remarks and "20%" in remarks


def test_real_photos_and_their_reasons(astronaut):
    assert portrait(astronaut, 128).notes == []
    assert portrait(astronaut, 512).notes == ["enlarged from 157 pixels"]
    assert "black and white" in portrait(astronaut.convert("L").convert("RGB"), 128).notes
    large = astronaut.resize((1024, 1024), Image.Resampling.LANCZOS)
    with pytest.raises(PhotoError, match="blurred"):
        portrait(large.filter(ImageFilter.GaussianBlur(6)), 128)
    with pytest.raises(PhotoError, match="too small"):
        portrait(astronaut.resize((300, 300)), 128)
    with pytest.raises(PhotoError, match="no face found"):
        portrait(astronaut.crop((0, 250, 512, 512)), 128)
    pair = Image.new("RGB", (1024, 512))
    pair.paste(astronaut, (0, 0))
    pair.paste(astronaut, (512, 0))
    with pytest.raises(PhotoError, match="2 faces of similar size"):
        portrait(pair, 128)


def test_sharpness_falls_with_blur_and_not_with_contrast(astronaut):
    grey = astronaut.convert("L").crop((170, 70, 280, 180))
    values = [
        sharpness(np.asarray(grey.filter(ImageFilter.GaussianBlur(r)), float) / 255) for r in (0, 1, 2, 4)
    ]
    assert values == sorted(values, reverse=True) and values[0] > 4 * values[2]
    assert sharpness(np.asarray(grey, float) / 255 * 0.5) == pytest.approx(values[0], rel=1e-6)


def test_the_same_photo_is_recognised_after_resizing(astronaut):
    face = astronaut.crop((160, 50, 290, 180)).resize((256, 256))
    assert same_photo(fingerprint(face), fingerprint(face.resize((150, 150)).resize((256, 256))))
    assert not same_photo(fingerprint(face), fingerprint(face.transpose(0)))


def test_the_odd_one_is_found_and_small_albums_are_spared():
    embeddings = torch.zeros(5, 128)
    embeddings[3, 0] = 0.9
    embeddings[1, 1] = 0.3
    ((index, distance),) = odd_ones(embeddings)
    assert index == 3 and distance == pytest.approx(0.9)
    assert odd_ones(embeddings[2:]) == []
