"""Two processes train as one with twice the batch does: the same losses, the same weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_worker
from safetensors.torch import load_file

from my3dgen.config import PRESETS
from my3dgen.pretrain import heads
from my3dgen.pretrain.gan import AdversarialNetworks
from my3dgen.pretrain.networks import Networks
from my3dgen.synthetic.dataset import DatasetConfig, write_dataset

STEPS = 3
COMMON = {
    "preset": "tiny",
    "max_steps": STEPS,
    "log_every": 1,
    "shown": 1,
    "warm_up": 0,
    "cool_down": 0.0,
    "penalty_every": 2,
}
FIRST, LATER, MOVED = 1e-4, 1e-2, 0.05
"""Relative tolerances of the first step's figures, of later ones, and of how all weights of a network have
moved. Sums fall in another order, and where a gradient is mere rounding Adam's step has a random sign."""


def _train_in_two(folder: Path, options: dict) -> Path:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [train_worker.__file__, str(folder), json.dumps({**COMMON, "batch": 8, **options})]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=170,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return folder


def _log(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    apart = ("elapsed", "images_per_second")
    return [{k: v for k, v in line.items() if k not in apart} for line in lines[:STEPS]]


@pytest.mark.parametrize("kind", ["pictures", "heads"])
def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path, kind: str, monkeypatch) -> None:
    monkeypatch.setattr(heads, "my_seeds", heads.my_seeds)  # the worker has its own
    if kind == "pictures":
        data = write_dataset(tmp_path / "data", DatasetConfig(identities=2, views=3, resolution=64))
        options, networks = {"data": str(data)}, AdversarialNetworks
    else:  # a supervised step, then adversarial ones
        options = {"heads": 2, "views": 3, "first_render": 60.0, "supervised_images": 16}
        networks = Networks
    one, two = tmp_path / "1", _train_in_two(tmp_path / "2", options)
    train_worker.main(str(one), json.dumps({**COMMON, "batch": 16, **options}))
    for step, (alone, together) in enumerate(zip(_log(one), _log(two), strict=True)):
        assert together == pytest.approx(alone, rel=FIRST if step == 0 else LATER, abs=1e-5), step
    assert "fake" in _log(two)[-1] and "r1" in _log(one)[2]
    start = networks(PRESETS["tiny"], torch.device("cpu"), 0).all
    full = [load_file(folder / "full.safetensors") for folder in (one, two)]
    for name, module in start.items():
        before = module.state_dict()
        alone, together = (
            torch.cat([(tensors[f"{name}/{key}"] - value).flatten() for key, value in before.items()])
            for tensors in full
        )
        assert alone.norm() > 0 and (alone - together).norm() < MOVED * alone.norm(), name
