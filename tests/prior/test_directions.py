import shutil

import pytest
import torch

from my3dgen import cli
from my3dgen.config import PRESETS
from my3dgen.errors import FileFormatError, UserError
from my3dgen.prior.directions import (
    DirectionFacts,
    find_directions,
    fit_directions,
    load_directions,
    save_directions,
)
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import DIRECTIONS, EMBEDDED, load_prior, read_sums

NORMAL = torch.Generator().manual_seed(0)
SPREAD = torch.randn(12, 12, generator=NORMAL) * torch.logspace(-1.5, 0.5, 12)
PURE, OTHER = torch.linalg.qr(torch.randn(12, 2, generator=NORMAL)).Q.T


def faces(count, seed=1):
    """Latents of very uneven spread, as W is."""
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(seed)) @ SPREAD.T + 3


def measure(latents, about=""):
    """One linear attribute, one as skewed as expression scores, one that mixes the first in."""
    white = (latents - 3) @ torch.linalg.inv(SPREAD).T
    a, b = white @ PURE, white @ OTHER
    return {"a": 5 * a, "smile": torch.sigmoid(2 * b - 3), "mixed": b + 0.7 * a}


@pytest.fixture(scope="module")
def found():
    return fit_directions(faces(1500), measure, ["a", "smile", "mixed"], against={"mixed": ["a"]})


def test_strength_one_is_one_deviation_on_new_faces(found):
    directions, facts = found
    new = faces(400, seed=7)
    for name, separation in (("a", 0.99), ("smile", 0.99)):
        change = measure(new + directions[name])[name] - measure(new - directions[name])[name]
        assert change.mean().item() / 2 == pytest.approx(measure(new)[name].std().item(), rel=0.25)
        assert facts[name].scale == pytest.approx(facts[name].deviation, rel=0.1)
        assert facts[name].separation > separation and facts[name].correlation > 0.9


def test_a_direction_leaves_independent_attributes_alone(found):
    directions, facts = found
    # the attribute's own axis, although other axes of W have a hundred times its spread
    expected = PURE @ SPREAD.T
    assert torch.cosine_similarity(directions["a"], expected, dim=0) > 0.99
    assert abs(facts["a"].spill["smile"]) < 0.1


def test_against_removes_the_others_share(found):
    _, facts = found
    _, free = fit_directions(faces(1500), measure, ["mixed"])
    assert free["mixed"].spill["a"] > 0.4
    assert abs(facts["mixed"].spill["a"]) < 0.05
    assert facts["mixed"].against == ("a",)


def test_unscored_samples_are_left_out():
    def sometimes(latents, about):
        values = measure(latents)["a"]
        return {"a": values.where(torch.arange(len(values)) % 2 == 0, torch.nan)}

    _, facts = fit_directions(faces(240), sometimes, ["a"])
    assert facts["a"].samples == 120
    with pytest.raises(UserError, match="only 30 of 60"):
        fit_directions(faces(60), sometimes, ["a"])


def test_what_the_prior_cannot_do_is_said_and_left_out(capsys):
    with pytest.raises(UserError, match="no attribute is called 'frown'; there are: a, mixed, smile"):
        fit_directions(faces(60), measure, ["frown"])
    rng = torch.Generator().manual_seed(0)
    noisy = lambda w, about: measure(w, about) | {"noise": torch.rand(len(w), generator=rng)}  # noqa: E731
    found, facts = fit_directions(faces(200), noisy, ["noise", "a"])
    assert set(found) == set(facts) == {"a"}
    assert "no direction for 'noise'" in capsys.readouterr().err
    with pytest.raises(UserError, match="none of these attributes"):
        fit_directions(faces(200), noisy, ["noise"])


def test_faces_are_rendered_from_the_front_and_scored():
    generator = Generator(PRESETS["tiny"], torch.Generator().manual_seed(1)).eval().requires_grad_(False)

    def redness(images):
        assert images.shape[1:] == (3, 64, 64) and images.abs().max() <= 1
        return {"red": images[:, 0].mean((1, 2))}

    directions, facts = find_directions(generator, redness, ["red"], samples=60, seed=3, batch=20)
    assert directions["red"].shape == (32,) and facts["red"].samples == 60
    assert facts["red"].scale == pytest.approx(facts["red"].deviation, rel=0.5)


def test_the_file_holds_vectors_and_facts(tmp_path, found):
    path = save_directions(tmp_path / "directions.safetensors", *found)
    directions, facts = load_directions(path)
    assert facts == found[1]
    assert all(torch.equal(directions[name], found[0][name]) for name in found[0])
    assert isinstance(facts["a"], DirectionFacts)


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "directions.safetensors"
    save_file({"smile": torch.zeros(4)}, path)
    with pytest.raises(FileFormatError, match="find the directions again"):
        load_directions(path)
    path.write_bytes(b"junk")
    with pytest.raises(FileFormatError, match="damaged"):
        load_directions(path)


@pytest.fixture
def quick(monkeypatch):
    """Finds the same direction in every prior at once."""
    facts = {"smile": DirectionFacts(1.0, 1.0, 1.0, 1.0, (), {}, 100)}

    def find(generator, *_, **__):
        return {"smile": torch.ones(generator.config.w_dim)}, facts

    monkeypatch.setattr("my3dgen.prior.directions.find_directions", find)
    monkeypatch.setattr("my3dgen.apps.attributes.attributes_from", lambda *_: None)


def test_the_verb_lists_what_it_writes(tmp_path, tiny_prior, quick):
    folder = shutil.copytree(tiny_prior.folder, tmp_path / "mine")
    for _ in range(2):
        assert cli.main(["prior", "directions", str(folder)]) == 0
        assert DIRECTIONS in read_sums(folder)
        assert list(load_prior(folder).directions) == ["smile"]
    sums = read_sums(folder)
    assert cli.main(["prior", "directions", str(folder), "--out", str(tmp_path / "other.safetensors")]) == 0
    assert read_sums(folder) == sums and (tmp_path / "other.safetensors").is_file()


def test_the_verb_leaves_the_package_alone(tmp_path, quick, monkeypatch, capsys):
    shipped = tmp_path / "package"
    shutil.copytree(EMBEDDED / "mini", shipped / "mini")
    monkeypatch.setattr("my3dgen.prior.store.EMBEDDED", shipped)
    before = (shipped / "mini" / DIRECTIONS).read_bytes()
    for name in ("mini", str(shipped / "mini")):
        assert cli.main(["prior", "directions", name]) == 2
        assert "is the package's own; give --out FILE" in capsys.readouterr().err
    assert (shipped / "mini" / DIRECTIONS).read_bytes() == before
