"""The README is run: its Python, its command lines, its links."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

import my3dgen
from my3dgen import cli
from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS
from my3dgen.faces.album import Album, write_album
from my3dgen.prior import store
from my3dgen.prior.directions import DirectionFacts, save_directions
from my3dgen.prior.generator import Generator

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """Arguments of every line of the shell blocks that starts with `program`."""
    lines = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
    return [words[1:] for words in lines if words[:1] == [program]]


def verb_of(arguments: list[str]) -> str:
    return cli.split_verb(arguments)[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder where the README's files are small, and where the prior called `mini` is a toy."""
    root = tmp_path_factory.mktemp("readme")
    rng = torch.Generator().manual_seed(0)
    config = PRESETS["tiny"]
    generator = Generator(config, rng)
    store.write_prior(root / "priors" / "mini", config, generator.state_dict(), "# a toy\n")
    smile = torch.randn(config.w_dim, generator=rng)
    facts = {"smile": DirectionFacts(*[0.0] * len(fields(DirectionFacts)))}
    save_directions(root / "priors" / "mini" / store.DIRECTIONS, {"smile": smile}, facts)
    yaw = torch.linspace(-0.5, 0.5, 6)
    cameras = camera_from_angles(yaw, torch.zeros(6))
    with torch.no_grad():
        ws = generator.mapping(torch.randn(6, config.z_dim, generator=rng), cameras)
        images = generator.synthesis(ws, cameras).image.clamp(-1, 1)
    masks = torch.ones(6, 1, *images.shape[2:])
    write_album(root / "album", Album(images, cameras, masks, tuple(f"{k}.png" for k in range(6))))
    (root / "PHOTOS").mkdir()
    Image.fromarray(data.astronaut()).save(root / "PHOTOS" / "one.png")
    Image.fromarray(data.astronaut()).save(root / "PHOTO")
    return root


@pytest.fixture
def inside(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(store, "EMBEDDED", place / "priors")
    monkeypatch.setenv("MY3DGEN_HOME", str(place / "home"))
    return place


def test_python_quickstart(inside):
    (source,) = blocks("python")
    names: dict = {}
    exec(compile(source, "README.md", "exec"), names)
    assert isinstance(names["person"], my3dgen.Person)
    assert (inside / "me.safetensors").stat().st_size > 1000
    assert Image.open(inside / "left.png").size == (64, 64)
    assert (inside / "me.glb").read_bytes()[:4] == b"glTF"


QUICK = [arguments for arguments in commands("my3dgen") if arguments[0] not in ("prior", "doctor", "VERB")]


@pytest.mark.parametrize("arguments", [a for a in QUICK if "ffhq" not in a], ids=" ".join)
def test_command_line_works_as_written(inside, arguments):
    if verb_of(arguments) not in ("faces", "personalize"):
        assert (inside / "me.safetensors").is_file(), "made by the lines above"
    assert cli.main(arguments) == 0
    written = inside / arguments[arguments.index("-o") + 1]
    assert written.exists()


@pytest.mark.parametrize("arguments", commands("my3dgen"), ids=" ".join)
def test_command_line_is_understood(arguments):
    """Every line, the long ones included, gives options its verb knows."""
    import importlib

    import tyro

    verb, rest = cli.split_verb(arguments)
    module, name, _ = cli.VERBS[verb]
    tyro.cli(getattr(importlib.import_module(f"my3dgen.cli.{module}"), name), args=rest)


def test_every_verb_a_newcomer_needs_is_shown():
    shown = {verb_of(arguments) for arguments in commands("my3dgen")}
    inherited = {"prior list", "prior show", "prior train", "synthetic album", "synthetic dataset", "demo"}
    assert set(cli.VERBS) - inherited - shown == set()


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {arguments[0] for arguments in commands("make")} == {"demo", "test"} <= targets


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


def test_the_picture_is_light():
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", TEXT)
    assert (ROOT / picture).stat().st_size <= 300_000
