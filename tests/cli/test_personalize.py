"""The verbs `personalize` and `invert` on a toy prior."""

import importlib
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from my3dgen import cli
from my3dgen.faces.album import write_album
from my3dgen.person import Person
from my3dgen.prior.store import load_prior
from my3dgen.ranks import PLACED
from my3dgen.tensor_file import read_tensors


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Fewer steps than draft."""
    inversion = importlib.import_module("my3dgen.invert")
    training = importlib.import_module("my3dgen.personalize")
    pivot = importlib.import_module("my3dgen.pivot")
    with pytest.MonkeyPatch.context() as patch:
        for module, changes in (
            (inversion, {"common_steps": 2, "coarse_steps": 1, "alone_factor": 1, "perceptual": 0.0}),
            (training, {"steps": 11, "window": None, "samples": 8, "perceptual": 0.0, "merged": 1}),
            (pivot, {"steps": 2, "window": None, "samples": 8, "perceptual": 0.0}),
        ):
            patch.setitem(module.QUALITIES, "draft", replace(module.QUALITIES["draft"], **changes))
        yield


@pytest.fixture(scope="module")
def album(photos, tmp_path_factory):
    few = replace(
        photos,
        images=photos.images[:4],
        cameras=photos.cameras[:4],
        masks=photos.masks[:4],
        names=photos.names[:4],
    )
    return write_album(tmp_path_factory.mktemp("one") / "album", few)


@pytest.fixture(scope="module")
def me(tiny_prior, album, tmp_path_factory, quick):
    """A person file, made by the verb."""
    path = tmp_path_factory.mktemp("people") / "new" / "me.safetensors"
    verb = ["personalize", album, "-o", path, "--prior", tiny_prior.folder, "--rank", 2]
    assert cli.main([*map(str, verb), "--quality", "draft"]) == 0
    return path


def run(capsys, *arguments) -> tuple[int, dict, str]:
    code = cli.main([*map(str, arguments), "--json", "--quality", "draft"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, err


def made(prior, capsys, album, path, *more):
    code, result, err = run(capsys, "personalize", album, "-o", path, "--prior", prior.folder, *more)
    assert code == 0, err
    return result


def test_an_album_becomes_a_person_file_and_a_sheet(tiny_prior, me):
    person = Person.load(me, tiny_prior)
    assert (person.adapter.rank, len(person.anchors)) == (2, 4)
    assert person.card.made["method"] == "lora"
    assert {p.name for p in me.parent.iterdir()} == {"me.safetensors", "me.sheet.png"}
    with Image.open(me.with_name("me.sheet.png")) as sheet:
        assert sheet.width > 4 * 192
        assert sheet.height > 3 * 192


def test_ctrl_c_keeps_the_work_and_the_same_command_goes_on(tiny_prior, album, tmp_path, capsys, monkeypatch):
    whole, path = tmp_path / "whole.safetensors", tmp_path / "me.safetensors"
    made(tiny_prior, capsys, album, whole)
    tune = importlib.import_module("my3dgen.tune")
    saving = tune.save_checkpoint

    def stop_after_saving(*arguments):
        saving(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tune, "save_checkpoint", stop_after_saving)
        code, _, err = run(capsys, "personalize", album, "-o", path, "--prior", tiny_prior.folder)
    assert code == 130
    assert "run the same command to go on" in err
    assert {p.suffix for p in tmp_path.glob("me.*")} == {".inverting", ".training"}
    made(tiny_prior, capsys, album, path)
    assert not list(tmp_path.glob("me.*ing"))
    first, second = (Person.load(p) for p in (whole, path))
    assert all(torch.equal(t, second.adapter.tensors[n]) for n, t in first.adapter.tensors.items())
    assert torch.equal(first.anchors.ws, second.anchors.ws)


def test_every_option_of_the_adapter_reaches_person_and_card(tiny_prior, album, tmp_path, capsys):
    path = tmp_path / "me.safetensors"
    words = ["--space", "w+", "--ranks", "superresolution=2,torgb=0", "--extras", "bias,const"]
    words += ["--alpha", "2", "--identity", "0.1", "--symmetry", "0.2"]
    words += ["--refine", "0.01", "--refine-share", "0.5", "--preserve", "0.5", "--preserve-every", "3"]
    result = made(tiny_prior, capsys, album, path, *words, "--precision", "int8")
    person = Person.load(path, tiny_prior)
    assert person.adapter.ranks["superresolution.block0.conv0.weight"] == 2
    assert not any("torgb.weight" in p for p in person.adapter.ranks)
    assert not any("noise" in name for name in person.adapter.tensors)
    assert person.adapter.alpha == 2
    assert not torch.equal(person.anchors.ws[:, 0], person.anchors.ws[:, 1])  # W+
    expected = {
        "space": "w+",
        "rank": 1,
        "ranks": {"superresolution": 2, "torgb": 0},
        "extras": ["const", "bias"],
        "refine": 0.01,
        "refine_share": 0.5,
        "preserve": 0.5,
        "preserve_every": 3,
        "alpha": 2.0,
        "identity": 0.1,
        "symmetry": 0.2,
        "budget": None,
    }
    assert expected.items() <= person.card.made.items()
    assert (result["precision"], result["made"]) == ("int8", person.card.made)
    # what was made in W+ is drawn and mixed by the other verbs
    for verb in (
        ["sample", "--count", "2"],
        ["interpolate", "--from", "0", "--to", "3"],
        ["render", "--yaw", "0"],
    ):
        out = tmp_path / f"{verb[0]}.png"
        words = [verb[0], path, *verb[1:], "--prior", tiny_prior.folder, "-o", out]
        code = cli.main([*map(str, words)])
        assert code == 0, capsys.readouterr().err
        assert out.exists()


def test_a_budget_is_kept(tiny_prior, album, tmp_path, capsys):
    path = tmp_path / "me.safetensors"
    result = made(tiny_prior, capsys, album, path, "--budget", 5000, "--explore", 0.5)
    assert 4500 < result["trainable_parameters"] <= 5000
    made_with = {"rank": 4, "ranks": {}, "budget": 5000, "explore": 0.5}
    assert made_with.items() <= result["made"].items()
    assert Person.load(path, tiny_prior).adapter.parameter_count == result["trainable_parameters"]


def test_ranks_are_placed_unless_they_are_chosen(tiny_prior, album, me, tmp_path, capsys):
    made(tiny_prior, capsys, album, tmp_path / "placed.safetensors")
    placed = Person.load(tmp_path / "placed.safetensors", tiny_prior)
    assert placed.adapter.ranks["superresolution.block0.conv0.weight"] == PLACED["superresolution"] == 2
    assert "backbone.synthesis.b8.conv0.weight" not in placed.adapter.ranks
    assert set(Person.load(me, tiny_prior).adapter.ranks.values()) == {2}  # by --rank


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--ranks", "decoder=1"], "--ranks has an unknown group 'decoder'"),
        (["--ranks", "b64=1"], "unknown group 'b64'; groups are backbone"),
        (["--extras", "all,none"], "--extras 'all'"),
        (
            ["--ranks", "backbone=0,superresolution=0,affine=0,torgb=0", "--extras", "none"],
            "nothing would be trained; choose more",
        ),
        (["--budget", "100"], "a budget of 100 leaves no room"),
        (["--budget", "-1"], "a budget of -1 leaves no room"),
        (["--full", "--budget", "5000"], "--full has no adapter"),
        (["--full", "--rank", "4"], "--full has no adapter"),
        (["--full", "--alpha", "2"], "--full has no adapter"),
        (["--alpha", "0"], "--alpha 0 is outside 0 to 100"),
        (["--refine", "nan"], "--refine nan is outside 0 to 1"),
        (["--refine-share", "2"], "--refine-share 2 is outside 0 to 1"),
        (["--preserve", "-1"], "--preserve -1 is outside 0 to 100"),
        (["--explore", "1"], "--explore 1 is not between 0 and 1"),
        (["--preserve-every", "0"], "--preserve-every 0 is below 1"),
    ],
)
def test_options_that_can_not_be_are_refused_before_any_work(
    tiny_prior, album, tmp_path, capsys, words, line
):
    out = tmp_path / "me.safetensors"
    code, _, err = run(capsys, "personalize", album, "-o", out, "--prior", tiny_prior.folder, *words)
    assert code == 2 and line in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_full_tuning_leaves_a_prior_and_a_person_on_it(tiny_prior, album, tmp_path, capsys):
    path = tmp_path / "me.safetensors"
    result = made(tiny_prior, capsys, album, path, "--full")
    tuned = load_prior(result["full_prior"])
    person = Person.load(path, tuned)
    assert person.card.made["method"] == "full"
    assert tuned.sha256 != tiny_prior.sha256
    assert all((t == 0).all() for n, t in person.adapter.tensors.items() if not n.endswith("lora_A"))
    code, _, err = run(capsys, "personalize", album, "-o", path, "--prior", tiny_prior.folder, "--full")
    assert (code, "already there" in err) == (2, True)


@pytest.mark.parametrize("more", [("--space", "w+"), ("--tune",)])
def test_photos_are_found_in_a_person_and_shown_from_other_sides(
    tiny_prior, album, me, tmp_path, capsys, more
):
    out = tmp_path / "new.png"
    verb = ["invert", album, "-o", out, "--prior", tiny_prior.folder, "--yaw", -20, 20, "--person", me]
    code, result, err = run(capsys, *verb, *more)
    assert code == 0, err
    assert (result["photos"], len(result["psnr"])) == (4, 4)
    with Image.open(out) as picture:
        assert picture.height > picture.width  # four photos, each with its inversion and two views
    tensors, _ = read_tensors(out.with_suffix(".latents.safetensors"), 1 << 20, remedy="")
    assert tensors["alphas"].shape == (4, 8, 4)


def test_of_many_photos_the_first_are_shown(tiny_prior, album, me, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("my3dgen.cli.invert.SHOWN", 1)
    out = tmp_path / "new.png"
    verb = ["invert", album, "-o", out, "--prior", tiny_prior.folder, "--yaw", 0, "--person", me]
    assert cli.main([*map(str, verb)]) == 0
    assert capsys.readouterr().out.startswith("the first 1 of 4 photos -> ")
    with Image.open(out) as picture:
        assert picture.height < picture.width
    tensors, _ = read_tensors(out.with_suffix(".latents.safetensors"), 1 << 20, remedy="")
    assert len(tensors["ws"]) == 4


@pytest.mark.parametrize("more", [(), ("--tune",)])
def test_the_prior_alone_inverts_too(tiny_prior, album, tmp_path, capsys, more):
    out = tmp_path / "new.png"
    verb = ["invert", album, "-o", out, "--prior", tiny_prior.folder, "--yaw", 0]
    code, result, err = run(capsys, *verb, *more)
    assert code == 0, err
    assert len(result["psnr"]) == 4
    assert set(read_tensors(out.with_suffix(".latents.safetensors"), 1 << 20, remedy="")[0]) == {
        "ws",
        "cameras",
    }


def test_refusals(tiny_prior, album, me, tmp_path, capsys):
    person = me
    Image.new("RGB", (300, 300), "green").save(tmp_path / "grass.png")
    prior = ("--prior", tiny_prior.folder)
    other = tmp_path / "other"
    cases = [
        (("personalize", album, "-o", tmp_path / "me.pt", *prior), "ends in .safetensors"),
        (("personalize", album, "-o", person, *prior, "--rank", 0), "--rank 0 is outside 1 to 64"),
        (("personalize", tmp_path / "none", "-o", person, *prior), "does not exist"),
        (("personalize", tmp_path / "grass.png", "-o", other / "me.safetensors", *prior), "no face"),
        (("invert", tmp_path / "grass.png", "-o", other / "new.png", *prior), "no face"),
        (("invert", album, "-o", tmp_path / "x.png", *prior, "--beta", 2), "--beta 2 is outside"),
        (("invert", album, "-o", tmp_path / "x.png", "--person", person, "--prior", "mini"), "use the prior"),
    ]
    for arguments, line in cases:
        code, _, err = run(capsys, *arguments)
        assert code == 2, arguments
        assert line in err
    assert not list(tmp_path.glob("x.*"))


def test_a_picture_named_like_the_person_leaves_the_person_alone(tiny_prior, album, me, tmp_path, capsys):
    mine = tmp_path / "me.safetensors"
    mine.write_bytes(me.read_bytes())
    code, result, err = run(
        capsys, "invert", album, "-o", tmp_path / "me.png", "--prior", tiny_prior.folder, "--person", mine
    )
    assert code == 0, err
    assert mine.read_bytes() == me.read_bytes()
    assert result["latents"] == str(tmp_path / "me.latents.safetensors")


def test_an_inversion_that_was_stopped_goes_on(tiny_prior, album, tmp_path, capsys, monkeypatch):
    verb = ["invert", album, "-o", tmp_path / "new.png", "--prior", tiny_prior.folder, "--yaw", 0]

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("my3dgen.targets.targets_of", stop)  # when all is found and nothing drawn
        assert run(capsys, *verb)[0] == 130
    assert [p.name for p in tmp_path.iterdir()] == ["new.png.inverting"]
    assert run(capsys, *verb)[0] == 0
    assert {p.name for p in tmp_path.iterdir()} == {"new.png", "new.latents.safetensors"}


@pytest.mark.parametrize(
    "words", [["--rate", "nan"], ["--rate", "0"], ["--identity", "-1"], ["--symmetry", "inf"]]
)
def test_numbers_out_of_range(tiny_prior, album, tmp_path, capsys, words):
    out = tmp_path / "me.safetensors"
    code, _, err = run(capsys, "personalize", album, "-o", out, "--prior", tiny_prior.folder, *words)
    assert code == 2 and words[0] in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
