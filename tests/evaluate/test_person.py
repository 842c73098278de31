import json

import pytest
import torch

from my3dgen import cli
from my3dgen.evaluate.person import evaluate_person
from my3dgen.faces.album import write_album
from my3dgen.invert import InvertConfig
from my3dgen.lora import new_adapter
from my3dgen.person import new_person

FEW_STEPS = InvertConfig(coarse_steps=3, fine_steps=1)


@pytest.fixture
def person(tiny_prior, truth):
    """Knows the six appearances that `photos` show."""
    return new_person(tiny_prior, new_adapter(tiny_prior.generator, 1, 1.0), truth)


def test_photos_of_the_person_score_better_than_others(tiny_prior, person, photos):
    from dataclasses import replace

    own = evaluate_person(tiny_prior, person, photos, FEW_STEPS)
    strange = replace(photos, images=photos.images.roll(1, 0))
    other = evaluate_person(tiny_prior, person, strange, FEW_STEPS)
    assert own.figures["psnr"] > other.figures["psnr"] + 1
    assert own.figures["perceptual"] < other.figures["perceptual"]
    assert own.figures["photos"] == 6 == len(own.figures["by_photo"])
    assert 1 <= own.figures["mixed"] <= 8 and 0 <= own.figures["inside"] <= 1
    mean = sum(entry["psnr"] for entry in own.figures["by_photo"]) / 6
    assert own.figures["psnr"] == pytest.approx(mean, abs=1e-3)


def test_the_prior_is_put_to_the_same_test(tiny_prior, person, photos):
    found = evaluate_person(tiny_prior, person, photos, FEW_STEPS, compare=True)
    alone = evaluate_person(tiny_prior, person, photos, FEW_STEPS)
    assert set(found.figures["prior"]) == {"psnr", "psnr_image", "ssim", "perceptual", "identity"}
    assert found.sheet.height > alone.sheet.height  # a row more


def test_the_verb_writes_a_sheet_and_figures(tmp_path, tiny_prior, person, photos, capsys):
    file = person.save(tmp_path / "me.safetensors")
    write_album(tmp_path / "album", photos)
    words = ["evaluate", "person", str(file), "--photos", str(tmp_path / "album")]
    words += ["--prior", str(tiny_prior.folder), "--quality", "draft"]
    assert cli.main([*words, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["photos"] == 6 and torch.isfinite(torch.tensor(figures["psnr"]))
    assert figures["sheet"] == str(tmp_path / "me.evaluation.png")
    assert (tmp_path / "me.evaluation.png").is_file() and file.is_file()
    assert cli.main(words) == 0
    assert "6 photos: head PSNR" in capsys.readouterr().out
    assert cli.main([*words, "--beta", "2"]) == 2
    assert "--beta 2 is outside 0 to 1" in capsys.readouterr().err
