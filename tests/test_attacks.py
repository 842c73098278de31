import random
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from my3dgen.errors import FileFormatError, UnsafePickleError
from my3dgen.prior.checkpoint_file import read_checkpoint
from my3dgen.prior.snapshot import merged_tensors, take_snapshot

SCRIPT = str(Path(__file__).parents[1] / "attacks" / "hostile_checkpoints.py")
HOSTILE = runpy.run_path(SCRIPT)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MY3DGEN_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_hostile_checkpoints_are_refused_in_one_line(tmp_path):
    """The script measures time and memory, so it runs by itself, without type checks on every call."""
    ran = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=300)
    bad = [line for line in ran.stdout.splitlines() if line.startswith("BAD")]
    assert ran.returncode == 0 and not bad, "\n".join([*bad, ran.stderr[-2000:]])
    assert ran.stdout.count("ok ") > 60


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.load"])
def test_a_forbidden_name_is_named(tmp_path, name):
    path = tmp_path / "x.pkl"
    path.write_bytes(HOSTILE["FILES"][name])
    with pytest.raises(UnsafePickleError, match=name.replace(".", r"\.")):
        read_checkpoint(path)


def test_the_builders_build_what_is_accepted(tmp_path):
    """The same bytes with honest numbers are read, so the refusals above are for their one lie."""
    path = tmp_path / "x.pkl"
    path.write_bytes(HOSTILE["tensor"]([2, 2], [2, 1]))
    assert torch.equal(read_checkpoint(path).load(), torch.zeros(2, 2))
    path.write_bytes(HOSTILE["torch_zip"]())
    assert torch.equal(read_checkpoint(path)["G_ema"]["a"].load(), torch.zeros(4))


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_never_surprise(tmp_path, zipped):
    """Cut or flipped anywhere, a file is read or refused; no other exception gets out."""
    path, rng = tmp_path / "x.pt", random.Random(0)
    torch.save({"G_ema": {"a.weight": torch.ones(3, 2)}}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    refused = 0
    for round in range(200):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(len(data))] if round % 4 == 0 else data)
        try:
            merged_tensors(take_snapshot(read_checkpoint(path)))
        except FileFormatError as refusal:
            refused += 1
            assert "\n" not in str(refusal)
    assert refused > 50


def test_not_even_opened(tmp_path):
    with pytest.raises(FileFormatError, match="is not a file"):
        read_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "absent")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(FileFormatError, match=r"3\.0 GiB; checkpoints up to 2 GiB"):
        read_checkpoint(tmp_path / "huge")
