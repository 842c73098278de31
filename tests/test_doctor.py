import json
import shutil
from types import SimpleNamespace

import pytest

from my3dgen import cli, doctor
from my3dgen.doctor import Check, examine
from my3dgen.weights import networks


def test_this_installation_is_usable():
    checks = list(examine())
    assert [check for check in checks if check.state == "missing"] == []
    names = [check.name for check in checks]
    assert len(names) == len(set(names))
    assert {"torch", "memory", "prior mini", "network dlib-resnet", "demo album"} <= set(names)


def test_an_absent_library_is_named_before_anything_needs_it(monkeypatch):
    real = doctor.metadata.version

    def version(name):
        if name in ("torch", "scikit-image"):
            raise doctor.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    python, packages = examine()
    assert (python.state, packages.state) == ("ok", "missing")
    assert packages.remedy == f"pip install '{packages.found.replace(', ', chr(39) + ' ' + chr(39))}'"
    assert "torch>=" in packages.found and "scikit-image>=" in packages.found


def test_networks_absent_or_damaged(tmp_path, monkeypatch):
    for name in ("dlib-resnet.safetensors", "face-detector.safetensors", "manifest.json"):
        shutil.copy(networks.FOLDER / name, tmp_path)
    data = bytearray((tmp_path / "face-detector.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "face-detector.safetensors").write_bytes(data)
    monkeypatch.setattr(networks, "FOLDER", tmp_path)
    states = {check.name: check for check in doctor.check_networks()}
    assert states["network dlib-resnet"].state == "ok"
    assert states["network face-detector"].state == "missing"
    assert "sha256 differs" in states["network face-detector"].found
    assert "is absent" in states["network squeezenet-1.1"].found


@pytest.mark.parametrize("name", ["generator.safetensors", "encoder.safetensors", "directions.safetensors"])
def test_a_damaged_prior_of_the_user(tmp_path, monkeypatch, name):
    from my3dgen.prior import store

    monkeypatch.setenv("MY3DGEN_HOME", str(tmp_path))
    folder = tmp_path / "priors" / "mine"
    shutil.copytree(store.EMBEDDED / "mini", folder)
    store.write_sums(folder)
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    states = {check.name: check for check in doctor.check_priors()}
    assert states["prior mini"].state == "ok"
    assert states["prior mine"].state == "missing"
    assert str(folder) in states["prior mine"].remedy and name in states["prior mine"].found


def test_a_prior_that_cannot_be_read(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(doctor, "sha256", refuse)
    found = {check.name: check for check in doctor.check_priors()}["prior mini"]
    assert found.state == "missing" and "Permission denied" in found.found


def test_a_cache_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("MY3DGEN_HOME", str(tmp_path / "new"))
    assert doctor.check_cache().state == "ok"
    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    found = doctor.check_cache()
    assert found.state == "note" and "MY3DGEN_HOME" in found.remedy
    assert list(tmp_path.iterdir()) == []


def test_little_memory_is_said(monkeypatch):
    monkeypatch.setattr(doctor, "available_memory", lambda: 2 * doctor.GIB)
    assert doctor.check_memory().state == "note"
    monkeypatch.setattr(doctor, "available_memory", lambda: None)
    assert doctor.check_memory().found == "unknown on this system"


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("note", 0), ("missing", 2)])
def test_exit_code_and_json(state, code, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda: iter([Check("thing", state, "found", "mend it")]))
    assert cli.main(["doctor", "--json"]) == code
    answer = json.loads(capsys.readouterr().out)
    assert answer["usable"] == (code == 0)
    assert answer["checks"] == [{"name": "thing", "state": state, "found": "found", "remedy": "mend it"}]
    assert cli.main(["doctor"]) == code
    assert "thing" in capsys.readouterr().out


def test_cuda_is_named(monkeypatch):
    import torch

    properties = SimpleNamespace(name="Some GPU", total_memory=80 * doctor.GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert doctor.check_arithmetic().found == "CUDA, Some GPU, 80 GiB"
