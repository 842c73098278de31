"""`my3dgen prior encoder` from end to end on a toy prior."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

from my3dgen.cli import main
from my3dgen.faces.album import Album
from my3dgen.invert import InvertConfig, invert
from my3dgen.pretrain.encode import ROUNDING
from my3dgen.pretrain.samples import Lesson, SamplePool
from my3dgen.prior.store import ENCODER, SUMS, Prior, check_files, load_prior, read_sums

QUICK = ["--batch", "8", "--pool", "32", "--held-out", "8", "--device", "cpu"]


@pytest.fixture(autouse=True)
def priors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_prior: Prior) -> Path:
    """A user's folder of priors with one, `toy`, without an encoder."""
    monkeypatch.setenv("MY3DGEN_HOME", str(tmp_path / "home"))
    shutil.copytree(tiny_prior.folder, tmp_path / "home" / "priors" / "toy")
    return tmp_path / "home" / "priors"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["prior", "encoder", *arguments, *QUICK, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_encoder_joins_the_prior_and_inversion_starts_from_it(priors: Path, photos: Album, capsys) -> None:
    result = run(capsys, "toy", "--max-steps", "30")
    assert result["encoder"] == str(priors / "toy" / ENCODER)
    assert result["after"] > result["before"] and result["images"] == 240
    assert result["training"] == str(priors / "toy.encoder")
    sums = read_sums(priors / "toy")
    assert ENCODER in sums and len(sums) == 3
    check_files(priors / "toy", sums)
    prior = load_prior("toy")
    assert prior.encoder is not None
    nothing = InvertConfig(common_steps=0, coarse_steps=0, fine_steps=0, cameras=False)
    anchors = invert(prior, photos, nothing)
    torch.testing.assert_close(anchors.ws[:, 0], prior.encoder(photos.images), atol=1e-2, rtol=1e-2)

    # measured again it is no better than itself, and the prior stays as it is
    before = (priors / "toy" / ENCODER).read_bytes(), (priors / "toy" / SUMS).read_bytes()
    again = run(capsys, "toy", "--max-steps", "0")
    assert again["encoder"] is None
    assert [again["after"], again["before"]] == pytest.approx([result["after"]] * 2, abs=ROUNDING)
    assert before == ((priors / "toy" / ENCODER).read_bytes(), (priors / "toy" / SUMS).read_bytes())
    assert main(["prior", "encoder", "toy", *QUICK, "--max-steps", "0"]) == 0
    said = capsys.readouterr().out
    assert f"{result['after']:.2f} dB with the encoder there was" in said and "nothing was written" in said


def test_another_place_leaves_the_prior_alone(priors: Path, tmp_path: Path, capsys) -> None:
    before = {path.name: path.read_bytes() for path in (priors / "toy").iterdir()}
    result = run(capsys, "toy", "--out", str(tmp_path / "out"), "--max-steps", "30")
    assert result["encoder"] == str(tmp_path / "out" / ENCODER) and Path(result["encoder"]).is_file()
    assert {path.name for path in priors.iterdir()} == {"toy"}
    assert before == {path.name: path.read_bytes() for path in (priors / "toy").iterdir()}
    assert not (tmp_path / "out" / SUMS).exists()
    # the encoder written there is the one to beat next time
    again = run(capsys, "toy", "--out", str(tmp_path / "out"), "--max-steps", "0")
    assert again["before"] == pytest.approx(result["after"], abs=ROUNDING)


def test_ctrl_c_saves_and_the_same_command_goes_on(priors: Path, monkeypatch, capsys) -> None:
    draw = SamplePool.draw

    def pressed(*arguments) -> Lesson:
        signal.raise_signal(signal.SIGINT)
        return draw(*arguments)

    monkeypatch.setattr(SamplePool, "draw", pressed)
    before = signal.getsignal(signal.SIGINT)
    assert main(["prior", "encoder", "toy", *QUICK]) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert "run the same command to go on" in capsys.readouterr().err
    assert not (priors / "toy" / ENCODER).exists()
    monkeypatch.setattr(SamplePool, "draw", draw)
    assert run(capsys, "toy", "--max-steps", "1")["images"] == 16


def test_the_packages_own_prior_stays(priors: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("my3dgen.prior.store.EMBEDDED", priors)
    for arguments in (["toy"], [str(priors / "toy")], ["toy", "--out", str(priors / "toy")]):
        assert main(["prior", "encoder", *arguments, *QUICK]) == 2
        assert "is the package's own; give --out FOLDER" in capsys.readouterr().err
    assert {path.name for path in priors.iterdir()} == {"toy"}


def test_another_prior_is_no_place_for_a_training(priors: Path, capsys) -> None:
    shutil.copytree(priors / "toy", priors / "other")
    assert main(["prior", "encoder", "toy", *QUICK, "--out", str(priors / "other")]) == 2
    assert "is another prior" in capsys.readouterr().err
    assert not (priors / "other" / ENCODER).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "no prior 'nobody'"),
        (["toy", "--minutes", "nan"], "--minutes nan is out of range"),
        (["toy", "--batch", "0"], "--batch 0 is out of range"),
        (["toy", "--out", "/dev/null"], "--out /dev/null is a file; name a folder"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(arguments: list[str], message: str, capsys) -> None:
    assert main(["prior", "encoder", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]
