"""What `invert --person` says of photos that lie outside the person's alpha-space."""

import importlib
import json
from dataclasses import replace

import pytest

from my3dgen import cli
from my3dgen.faces.album import Album, write_album
from my3dgen.invert import InvertConfig
from my3dgen.lora import new_adapter
from my3dgen.person import new_person


@pytest.fixture
def words(tiny_prior, truth, photos, tmp_path, monkeypatch):
    """The verb on a photo of an anchor, and on one that is nobody's the anchors know."""
    module = importlib.import_module("my3dgen.invert")
    quick = InvertConfig(coarse_steps=6, fine_steps=1, perceptual=0.0, cameras=False)
    monkeypatch.setitem(module.QUALITIES, "draft", quick)
    me = new_person(tiny_prior, new_adapter(tiny_prior.generator, 1, 1.0), truth).save(
        tmp_path / "me.safetensors"
    )
    pair = Album(photos.images[:2].clone(), photos.cameras[:2], photos.masks[:2], ("known.png", "odd.png"))
    album = write_album(
        tmp_path / "album",
        replace(pair, images=pair.images * pair.images.new_tensor([1, -1])[:, None, None, None]),
    )
    verb = [
        "invert",
        album,
        "-o",
        tmp_path / "new.png",
        "--prior",
        tiny_prior.folder,
        "--person",
        me,
        "--yaw",
        0,
    ]
    return [*map(str, verb), "--quality", "draft"]


def test_how_far_outside_each_photo_would_lie(words, capsys):
    assert cli.main([*words, "--beta", "0.3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (near, far), (inside, away) = result["outside"], result["distance"]
    assert near == inside == 0
    assert far > 0.05 and away > 0.05


def test_it_is_said_for_photos_outside_alone(words, capsys):
    assert cli.main([*words, "--beta", "0.3"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "without the bound" in line]
    assert line.startswith("odd.png: ") and "of the anchors' spread away" in line
