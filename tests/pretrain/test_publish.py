"""From a training state to a prior: complete or absent, and clear about what can't become one."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from my3dgen.cli import main
from my3dgen.config import PRESETS, PriorConfig
from my3dgen.pretrain import state
from my3dgen.pretrain.gaussian import fit_mapping, has_closed_form
from my3dgen.pretrain.networks import Networks
from my3dgen.prior import store
from my3dgen.prior.mapping import MappingNetwork
from my3dgen.prior.store import load_prior

CONFIG = replace(PRESETS["tiny"], mapping_layers=4)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MY3DGEN_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "priors"


def _saved(folder: Path, config: PriorConfig = CONFIG) -> Path:
    networks = Networks(config, torch.device("cpu"), seed=0)
    networks.latents.set(torch.full((config.w_dim,), 0.5), torch.eye(config.w_dim))
    state.save(folder, networks, state.Progress(images=8), {}, full=False)
    return folder


def test_the_verb_writes_a_whole_prior(tmp_path: Path, home: Path, capsys) -> None:
    source = _saved(tmp_path / "state")
    assert main(["prior", "publish", str(source), "--name", "toy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "toy", "folder": str(home / "toy")}
    prior = load_prior("toy")
    assert prior.config == CONFIG and prior.encoder is not None
    assert torch.equal(prior.generator.w_avg, torch.full((CONFIG.w_dim,), 0.5))
    assert "images: 8" in (home / "toy" / "card.md").read_text()


def test_a_full_disk_leaves_no_prior(tmp_path: Path, home: Path, monkeypatch) -> None:
    real = store.write_tensors

    def full(path: Path, *others: dict) -> None:
        if path.name == store.ENCODER:
            raise OSError(28, "No space left on device", str(path))
        real(path, *others)

    source = _saved(tmp_path / "state")
    monkeypatch.setattr(store, "write_tensors", full)
    assert main(["prior", "publish", str(source), "--name", "toy"]) == 2
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("change", [{"mapping_layers": 2}, {"z_dim": 16}, {"c_gen_conditioning_zero": False}])
def test_a_layout_without_closed_form_is_refused_at_once(tmp_path: Path, capsys, change: dict) -> None:
    config = replace(CONFIG, **change)
    assert not has_closed_form(config) and has_closed_form(CONFIG)
    with pytest.raises(ValueError, match="closed form"):
        fit_mapping(MappingNetwork(config), torch.zeros(config.w_dim), torch.eye(config.w_dim))
    assert main(["prior", "publish", str(_saved(tmp_path / "s", config)), "--name", "toy"]) == 2
    assert "train the preset mini" in capsys.readouterr().err


def _cut(path: Path) -> None:
    os.truncate(path, 1000)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("training.json", Path.unlink),
        ("training.json", lambda path: path.write_text("{}")),
        ("training.json", _cut),
        ("generator.safetensors", _cut),
        ("encoder.safetensors", _cut),
        ("encoder.safetensors", Path.unlink),
        ("latents.safetensors", _cut),
        ("latents.safetensors", Path.unlink),
    ],
)
def test_damaged_states_are_named(tmp_path: Path, home: Path, capsys, name: str, damage) -> None:
    source = _saved(tmp_path / "state")
    damage(source / name)
    assert main(["prior", "publish", str(source), "--name", "toy"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and str(source) in lines[0]
    assert not (home / "toy").exists()
