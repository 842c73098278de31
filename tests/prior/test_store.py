import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS
from my3dgen.errors import FileFormatError, MissingWeightsError, UserError
from my3dgen.int8 import to_int8
from my3dgen.prior import store
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import load_prior, prior_folders, write_prior, write_sums

TINY = PRESETS["tiny"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MY3DGEN_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def generator():
    return Generator(TINY)


@pytest.fixture
def folder(tmp_path, generator):
    return write_prior(tmp_path / "home" / "priors" / "toy", TINY, generator.state_dict(), "# toy\n")


def test_round_trip(folder, generator):
    prior = load_prior("toy")
    state = prior.generator.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in generator.state_dict().items())
    assert prior.config == TINY and prior.name == "toy" and prior.directions == {}
    assert not prior.generator.training
    assert not any(p.requires_grad for p in prior.generator.parameters())
    assert prior.sha256 == load_prior(folder).sha256 and len(prior.sha256) == 64
    assert not [p for p in folder.parent.iterdir() if p.name != "toy"]


def test_half_precision_loads_as_float32(tmp_path, generator):
    whole = write_prior(tmp_path / "whole", TINY, generator.state_dict(), "")
    half = write_prior(tmp_path / "half", TINY, generator.state_dict(), "", half=True)
    assert (half / store.WEIGHTS).stat().st_size < 0.6 * (whole / store.WEIGHTS).stat().st_size
    for name, tensor in load_prior(half).generator.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, generator.state_dict()[name].half().float())


def test_the_embedded_prior_loads_and_draws():
    prior = load_prior()
    assert prior.name == "mini" and prior.generator.parameter_count > 1_000_000
    assert "Licence" in (prior.folder / store.CARD).read_text()
    z = torch.randn(1, prior.config.z_dim, generator=torch.Generator().manual_seed(0))
    ws = prior.generator.mapping(z, torch.zeros(1, 25), psi=0.7)
    planes = prior.generator.planes(ws)
    assert planes.isfinite().all() and planes.std() > 0


def test_an_unknown_name_lists_those_present(folder):
    with pytest.raises(MissingWeightsError, match=r"no prior 'nobody' \(present: mini, toy\).*prior import"):
        load_prior("nobody")


def test_embedded_names_come_first(folder):
    folder.rename(folder.with_name("mini"))
    assert prior_folders()["mini"].parent == store.EMBEDDED


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("MY3DGEN_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.user_folder() == tmp_path / "my3dgen" / "priors"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert store.user_folder() == tmp_path / "me" / ".cache" / "my3dgen" / "priors"


def refused(folder, match):
    with pytest.raises(FileFormatError, match=match) as refusal:
        load_prior(folder)
    line = str(refusal.value)
    assert "\n" not in line and str(folder) in line and len(line) < 500


def test_one_flipped_bit_is_found(folder):
    path = folder / store.WEIGHTS
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    refused(folder, "generator.safetensors: differs from SHA256SUMS")


def test_an_edited_configuration_is_found(folder):
    path = folder / store.CONFIG
    path.write_text(path.read_text().replace('"white_back": true', '"white_back": false'))
    refused(folder, "config.json: differs from SHA256SUMS")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_with_a_matching_sum(folder, keep):
    path = folder / store.WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    write_sums(folder)
    refused(folder, "damaged or not a safetensors file")


def test_a_header_that_lies_about_its_length(folder):
    path = folder / store.WEIGHTS
    path.write_bytes((1 << 62).to_bytes(8, "little") + path.read_bytes()[8:])
    write_sums(folder)
    refused(folder, "damaged or not a safetensors file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("decoder.net.0.bias"), r"lacks 'decoder\.net\.0\.bias'"),
        (lambda t: t.update(more=torch.zeros(1)), "unknown entry 'more'"),
        (lambda t: t.update({"decoder.net.0.bias": torch.zeros(7)}), r"shape \(7,\), not \(16,\)"),
        (lambda t: t["decoder.net.0.bias"].fill_(torch.inf), "not finite"),
        (lambda t: t.update({"decoder.net.0.bias": torch.zeros(16).int()}), "is I32"),
    ],
)
def test_weights_must_fit_the_configuration(folder, generator, change, message):
    tensors = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    change(tensors)
    save_file(tensors, folder / store.WEIGHTS)
    write_sums(folder)
    refused(folder, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "is missing"),
        (json.dumps(TINY.to_dict() | {"surprise": 1}), "unknown key 'surprise'"),
        (json.dumps(TINY.to_dict() | {"mapping_layers": -1}), "mapping_layers"),
        (json.dumps(TINY.to_dict() | {"mapping_layers": 10**400}), "mapping_layers"),
        (json.dumps(TINY.to_dict() | {"box_warp": 10**400}), "box_warp"),
        (json.dumps(TINY.to_dict() | {"camera_pivot": [0, 0, -(10**400)]}), "camera_pivot"),
        (json.dumps(TINY.to_dict()).replace('"box_warp": 1.0', f'"box_warp": {"9" * 5000}'), "not JSON"),
        (json.dumps(TINY.to_dict()).replace('"box_warp": 1.0', f'"box_warp": {"[" * 900}{"]" * 900}'), "box"),
    ],
)
def test_a_bad_configuration(folder, text, message):
    (folder / store.CONFIG).write_text(text)
    write_sums(folder)
    refused(folder, message)


@pytest.mark.parametrize(
    ("name", "value"), [("plane_resolution", 1 << 20), ("mapping_layers", 10**9), ("w_dim", 10**7)]
)
def test_a_configuration_can_not_exhaust_memory(name, value):
    with pytest.raises(FileFormatError, match=f"'{name}' is {value}; at most"):
        store.generator_shapes(replace(TINY, **{name: value}))


@pytest.mark.parametrize("name", [store.SUMS, store.WEIGHTS])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    refused(folder, f"{name}: is missing")


@pytest.mark.parametrize("text", ["nonsense", "", "a b c\n", "\xe9"])
def test_unreadable_sums(folder, text):
    (folder / store.SUMS).write_text(text, encoding="latin1")
    refused(folder, "SHA256SUMS")


def test_directions_must_fit(folder):
    from my3dgen.prior.directions import DirectionFacts, save_directions

    facts = {"smile": DirectionFacts(1.0, 1.0, 1.0, 1.0, (), {}, 100)}
    save_directions(folder / store.DIRECTIONS, {"smile": torch.ones(TINY.w_dim)}, facts)
    assert torch.equal(load_prior(folder).directions["smile"], torch.ones(TINY.w_dim))
    save_directions(folder / store.DIRECTIONS, {"smile": torch.ones(TINY.w_dim + 1)}, facts)
    refused(folder, "direction 'smile' has 33 numbers")


def test_encoders_must_fit(folder):
    from my3dgen.prior.encoder import Encoder, encoder_config

    assert load_prior(folder).encoder is None
    encoder = Encoder(encoder_config(TINY))
    generator = load_prior(folder).generator
    beside = store.write_prior(
        folder.parent / "two", TINY, generator.state_dict(), "# two\n", encoder=encoder
    )
    again = load_prior(beside).encoder
    assert again is not None
    images = torch.zeros(2, 3, TINY.img_resolution, TINY.img_resolution)
    torch.testing.assert_close(again(images), encoder(images), atol=0.05, rtol=0)
    fitting = to_int8(encoder.state_dict())
    save_file(fitting, folder / store.ENCODER)
    assert load_prior(folder).encoder is not None
    save_file({**fitting, "head.bias": torch.zeros(TINY.w_dim + 1)}, folder / store.ENCODER)
    refused(folder, "'head.bias' has shape")


def test_the_embedded_prior_is_small():
    files = [path for path in store.find_prior("mini").iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_000_000
    assert {store.WEIGHTS, store.ENCODER, store.DIRECTIONS, store.CARD} <= {path.name for path in files}
    with safe_open(store.find_prior("mini") / store.WEIGHTS, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


def test_the_embedded_encoder_recognises_what_the_prior_draws():
    """By the picture: latents may differ where no picture does."""
    prior = load_prior()
    assert prior.encoder is not None
    z = torch.randn(4, prior.config.z_dim, generator=torch.Generator().manual_seed(0))
    ws = prior.generator.mapping(z, None, psi=0.7)
    cameras = camera_from_angles(0.2, 0.0).expand(4, -1)
    images = prior.generator.synthesis(ws, cameras).image
    again = prior.generator.synthesis(prior.encoder.encode(images).ws, cameras).image
    error = (again[:, None] - images).square().mean((2, 3, 4))
    assert error.argmin(1).tolist() == [0, 1, 2, 3]
    assert error.diagonal().max() < 0.3 * (error + torch.eye(4)).min()


def test_nothing_is_overwritten_or_left_half_written(folder, generator, tmp_path):
    with pytest.raises(UserError, match="already there"):
        write_prior(folder, TINY, generator.state_dict(), "")
    with pytest.raises(UnicodeEncodeError):
        write_prior(tmp_path / "broken", TINY, generator.state_dict(), "\ud800")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home"]


def test_a_prior_proves_itself_before_it_has_its_name(tmp_path, generator):
    broken = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    broken["decoder.net.0.bias"].fill_(1e20)
    with pytest.raises(FileFormatError, match=r"bad/generator\.safetensors: .* holds numbers beyond 1e\+06"):
        write_prior(tmp_path / "bad", TINY, broken, "")
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_name(tmp_path, generator, monkeypatch):
    """The slower one says that the name is taken and leaves nothing behind."""
    folder, read = tmp_path / "same", store.read_sums

    def faster(beside):
        monkeypatch.setattr(store, "read_sums", read)
        write_prior(folder, TINY, generator.state_dict(), "the first")
        return read(beside)

    monkeypatch.setattr(store, "read_sums", faster)
    monkeypatch.setattr(store.os, "getpid", iter(range(100)).__next__)
    with pytest.raises(UserError, match="same: is already there"):
        write_prior(folder, TINY, generator.state_dict(), "the second")
    assert [p.name for p in tmp_path.iterdir()] == ["same"]
    assert (folder / store.CARD).read_text() == "the first"


def add_directions(folder):
    from my3dgen.prior.directions import DirectionFacts, save_directions

    facts = {"smile": DirectionFacts(1.0, 1.0, 1.0, 1.0, (), {}, 100)}
    save_directions(folder / store.DIRECTIONS, {"smile": torch.ones(TINY.w_dim)}, facts)


def test_every_listed_file_is_verified(folder):
    add_directions(folder)
    before = store.read_sums(folder)
    load_prior(folder)  # a folder that lists two files still loads
    write_sums(folder, store.DIRECTIONS)
    assert store.read_sums(folder) == {
        **before,
        store.DIRECTIONS: store.sha256_of(folder / store.DIRECTIONS, 9999),
    }
    load_prior(folder)
    data = bytearray((folder / store.DIRECTIONS).read_bytes())
    data[-2] ^= 1
    (folder / store.DIRECTIONS).write_bytes(data)
    refused(folder, "directions.safetensors: differs from SHA256SUMS")
    write_sums(folder)
    load_prior(folder)
    (folder / store.DIRECTIONS).unlink()
    refused(folder, "directions.safetensors: is missing")


def test_sums_name_no_other_files(folder):
    with (folder / store.SUMS).open("a") as file:
        file.write(f"{'0' * 64}  ../../secret\n{'0' * 64}  card.md\n")
    assert set(store.read_sums(folder)) == {store.CONFIG, store.WEIGHTS}
    load_prior(folder)


def test_the_package_s_own_files_are_listed():
    sums = store.read_sums(store.EMBEDDED / "mini")
    assert store.DIRECTIONS in sums


@pytest.mark.parametrize("name", ["~nosuchuser", "~nosuchuser/x", "x" * 5000, "a\0b"])
def test_names_that_no_folder_can_have(name):
    with pytest.raises(MissingWeightsError, match="no prior ") as refusal:
        load_prior(name)
    assert len(str(refusal.value)) < 500


def test_a_home_of_nobody(monkeypatch):
    monkeypatch.setenv("MY3DGEN_HOME", "~nosuchuser")
    assert "mini" in prior_folders()


def test_a_card_that_is_not_text(folder, capsys):
    from my3dgen.cli import main

    (folder / store.CARD).write_bytes(b"# caf\xe9\n")
    assert main(["prior", "show", "toy"]) == 0
    assert "# caf" in capsys.readouterr().out


def test_commands(folder, capsys):
    from my3dgen.cli import main

    assert main(["prior", "list", "--json"]) == 0
    priors = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["priors"]}
    assert priors["mini"]["embedded"] and not priors["toy"]["embedded"]
    assert main(["prior", "show", "toy", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["sha256"] == priors["toy"]["sha256"] == load_prior("toy").sha256
    assert shown["config"] == TINY.to_dict()
    assert main(["prior", "show", "toy"]) == 0
    assert "# toy" in capsys.readouterr().out
    shutil.copy(folder / store.CARD, folder / store.WEIGHTS)
    (folder / store.SUMS).unlink()
    assert main(["prior", "list"]) == 0
    assert "toy" in (out := capsys.readouterr().out) and "damaged" in out
    assert main(["prior", "show", "toy"]) == 2
    assert main(["prior", "show", "nothing", "--random"]) == 2
    assert main(["prior", "show", "tiny", "--random", "--rank", "0"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_sizes_of_the_published_model(capsys):
    """The counts of EG3D spec 0 and 5.4."""
    from my3dgen.cli import main

    assert main(["prior", "show", "ffhq512-128", "--random", "--rank", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["parameters"] == 30_662_136
    assert shown["lora_parameters"] == 219_174
    assert shown["trainable_parameters"] == 243_965
    assert shown["sha256"] is None


def test_import_command(tmp_path, generator, capsys):
    from my3dgen.cli import main

    torch.save({"G_ema": generator.state_dict()}, tmp_path / "x.pt")
    arguments = ["prior", "import", str(tmp_path / "x.pt"), "--name", "mine", "--like", "tiny", "--json"]
    assert main(arguments) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["sha256"] == load_prior("mine").sha256
    assert main(arguments) == 2
    (tmp_path / "x.pt").write_text("hello")
    assert main([*arguments[:3], "--name", "other"]) == 2
    assert main(["prior", "import", str(tmp_path / "absent.pkl"), "--name", "other"]) == 2
    assert "Traceback" not in capsys.readouterr().err
