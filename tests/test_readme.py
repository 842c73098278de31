"""The README is run: its Python, its command lines, its links."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import tyro
from PIL import Image

import my3dgen
from my3dgen import cli
from my3dgen.config import PRESETS
from my3dgen.evaluate.demo import BUNDLED
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
    """A folder with the README's inputs, and a toy as the prior called `mini`."""
    root = tmp_path_factory.mktemp("readme")
    rng = torch.Generator().manual_seed(0)
    config = PRESETS["tiny"]
    store.write_prior(root / "priors" / "mini", config, Generator(config, rng).state_dict(), "# a toy\n")
    smile = torch.randn(config.w_dim, generator=rng)
    facts = DirectionFacts(1.0, 0.2, 0.9, 0.8, (), {}, 10)
    save_directions(root / "priors" / "mini" / store.DIRECTIONS, {"smile": smile}, {"smile": facts})
    (root / "PHOTOS").mkdir()
    photos = sorted((BUNDLED / "photos").iterdir())
    for photo in photos[:6]:
        shutil.copy(photo, root / "PHOTOS")
    shutil.copy(photos[6], root / "PHOTO")
    hole = Image.new("L", (384, 384))
    hole.paste(255, (170, 190, 230, 230))
    hole.save(root / "HOLE", "PNG")
    assert cli.main(["faces", str(root / "PHOTOS"), "-o", str(root / "album"), "--resolution", "64"]) == 0
    return root


@pytest.fixture
def inside(place, monkeypatch, few_steps):
    monkeypatch.setattr(store, "EMBEDDED", place / "priors")
    monkeypatch.setenv("MY3DGEN_HOME", str(place / "home"))
    monkeypatch.chdir(place)
    return place


def test_python_quickstart(inside):
    (source,) = blocks("python")
    names: dict = {}
    exec(compile(source, "README.md", "exec"), names)
    assert isinstance(names["person"], my3dgen.Person)
    assert (inside / "me.safetensors").stat().st_size > 1000
    with Image.open(inside / "left.png") as left:
        assert left.size == (64, 64)
    assert (inside / "me.glb").read_bytes()[:4] == b"glTF"


LONG = ("bench", "evaluate", "prior")  # run with toys by tests of their own
RUN = [a for a in commands("my3dgen") if a[0] not in (*LONG, "doctor", "VERB") and "ffhq" not in a]
CHEAPER = {"mesh": ["--resolution", "48"], "orbit": ["--frames", "6"], "faces": ["--resolution", "64"]}


@pytest.mark.parametrize("arguments", RUN, ids=" ".join)
def test_command_line_works_as_written(inside, arguments):
    """In the README's order, each with what the lines above have made."""
    assert cli.main([*arguments, *CHEAPER.get(arguments[0], [])]) == 0
    assert (inside / arguments[arguments.index("-o") + 1]).exists()


@pytest.mark.parametrize("arguments", commands("my3dgen"), ids=" ".join)
def test_command_line_is_understood(arguments):
    """Every line, the long ones included, gives options its verb knows."""
    verb, rest = cli.split_verb(arguments)
    module, name, _ = cli.VERBS[verb]
    tyro.cli(getattr(importlib.import_module(f"my3dgen.cli.{module}"), name), args=rest)


def test_every_verb_a_newcomer_needs_is_shown():
    shown = {verb_of(arguments) for arguments in commands("my3dgen")}
    # `demo` is shown as `make demo`; of the two-word verbs only a prior of one's own is for everyone
    needed = {verb for verb in cli.VERBS if " " not in verb} - {"demo"} | {"prior import"}
    assert needed - shown == set()


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {arguments[0] for arguments in commands("make")} == {"demo", "test"} <= targets


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


def test_the_picture_is_light():
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", TEXT)
    assert (ROOT / picture).stat().st_size <= 300_000
