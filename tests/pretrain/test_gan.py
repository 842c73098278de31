"""Training on pictures with cameras: its schedules, what its steps learn, and the whole verb on a CPU."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from my3dgen.cameras import camera_from_angles
from my3dgen.cli import main
from my3dgen.config import PRESETS
from my3dgen.errors import UserError
from my3dgen.pretrain import gan
from my3dgen.pretrain.settings import TrainConfig
from my3dgen.pretrain.train import train
from my3dgen.prior.store import load_prior
from my3dgen.synthetic.dataset import DatasetConfig, write_dataset

SMALL = TrainConfig(
    preset="tiny",
    batch=8,
    blur_images=0,
    warm_up=0,
    cool_down=0.0,
    log_every=1,
    shown=2,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of four synthetic heads."""
    folder = tmp_path_factory.mktemp("data") / "heads"
    return write_dataset(folder, DatasetConfig(identities=4, views=3, resolution=64)) / "images"


def _log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_mapping_sees_other_cameras_always_and_then_half_of_the_time() -> None:
    often = [gan.swap_probability(images, 0.5, 1_000_000) for images in (0, 500_000, 1_000_000, 5_000_000)]
    assert often == pytest.approx([1.0, 0.75, 0.5, 0.5])
    assert gan.swap_probability(0, 0.8, 0) == 0.8


def test_swapped_cameras_are_the_others() -> None:
    one, other = camera_from_angles(torch.zeros(4), 0.0), camera_from_angles(torch.ones(4), 0.0)
    seen = gan.conditions(one, other, torch.tensor([True, False, True, False]))
    assert torch.equal(seen[::2], other[::2]) and torch.equal(seen[1::2], one[1::2])


def test_the_average_follows_fast_at_first() -> None:
    assert gan.half_life_decay(32, 32) < 1e-5
    assert gan.half_life_decay(32, 1_000_000) == pytest.approx(0.5 ** (32 / 10_000))
    assert gan.half_life_decay(64, 1_000_000) == pytest.approx(0.5 ** (64 / 20_000))


def test_the_official_discriminator() -> None:
    """Its parameters, block by block, are EG3D's (spec 4.1)."""
    config = gan.discriminator_config(PRESETS["ffhq512-128"])
    with torch.device("meta"):
        network = gan.Discriminator(config)
    count = lambda *modules: sum(p.numel() for m in modules for p in m.parameters())  # noqa: E731
    assert count(network.fromrgb, network.blocks[0]) == 119_424
    assert [count(block) for block in network.blocks[1:]] == [475_520, 1_901_312] + 4 * [4_981_760]
    assert count(network.embed, network.mapping) == 2_114_560
    assert count(network.conv, network.fc, network.out) == 6_821_888


@pytest.mark.parametrize("blind", [True, False])
def test_the_mapping_learns_and_sees_what_it_may(blind: bool) -> None:
    config = replace(PRESETS["tiny"], c_gen_conditioning_zero=blind)
    networks = gan.AdversarialNetworks(config, torch.device("cpu"), seed=0)
    steps = gan.AdversarialSteps(networks, 1.0, torch.float32, torch.default_generator)
    cameras = camera_from_angles(torch.linspace(-0.5, 0.5, 8), 0.0)
    images = torch.zeros(8, 3, config.img_resolution, config.img_resolution)

    def mean_latent(condition: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        draw = gan.Draw(torch.ones(8, config.z_dim), cameras, condition, images, cameras)
        return steps.generate_with_density(draw)["w"]

    assert torch.equal(mean_latent(cameras), mean_latent(cameras.flip(0) + 0.5)) == blind
    mapping = networks.generator.backbone.mapping
    assert mapping.get_submodule("fc0").weight.grad.abs().max() > 0
    assert (mapping.embed.weight.grad is None) == blind
    assert all(p.grad is None for p in networks.discriminator.parameters())
    assert all(p.requires_grad for p in networks.discriminator.parameters())


@pytest.fixture(scope="module")
def state(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state after 28 steps."""
    folder = tmp_path_factory.mktemp("state")
    figures = train(replace(SMALL, data=data, max_steps=28, tensorboard=True), folder, device="cpu")
    assert figures["images"] == figures["adversarial_images"] == 224
    return folder


def test_the_discriminator_learns_to_tell(state: Path) -> None:
    log = _log(state)
    margins = [line["real"] - line["fake"] for line in log]
    assert margins[0] < 0.1 and sum(margins[-10:]) / 10 > 0.5
    assert [("density" in line, "r1" in line) for line in log[:5]] == [
        (True, True), (False, False), (False, False), (False, False), (True, False),
    ]  # fmt: skip


def test_what_training_on_pictures_leaves(state: Path) -> None:
    assert {p.name for p in state.iterdir()} == {
        "discriminator.safetensors",
        "full.safetensors",
        "generator.safetensors",
        "log.jsonl",
        "sheets",
        "tensorboard",
        "training.json",
    }
    assert json.loads((state / "training.json").read_text())["kind"] == "pictures"
    trained = load_file(state / "full.safetensors")
    start = gan.AdversarialNetworks(PRESETS["tiny"], torch.device("cpu"), SMALL.seed).generator.state_dict()
    for name in ("backbone.mapping.fc0.weight", "backbone.mapping.w_avg", "decoder.net.0.weight"):
        assert not torch.equal(trained[f"generator/{name}"], start[name]), name


def test_tensorboard_has_figures_and_sheet(state: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(state / "tensorboard")).Reload()
    assert {"generator", "discriminator", "real", "fake"} <= set(read.Tags()["scalars"])
    logged = [line["fake"] for line in _log(state)]
    assert [event.value for event in read.Scalars("fake")] == pytest.approx(logged, rel=1e-3)
    assert [event.step for event in read.Scalars("fake")] == [8 * (i + 1) for i in range(28)]
    assert read.Tags()["images"] == ["sheet"]


def test_tensorboard_that_is_absent_is_named(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'my3dgen\[train\]'"):
        train(replace(SMALL, data=data, tensorboard=True), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_stopped_training_goes_on_as_if_it_had_not_been(data: Path, tmp_path: Path) -> None:
    config = replace(SMALL, data=data)
    train(replace(config, max_steps=6), tmp_path / "whole", device="cpu")
    for _ in range(2):
        train(replace(config, max_steps=3), tmp_path / "parts", device="cpu")
    whole, parts = (load_file(tmp_path / name / "full.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6, msg=name)
    figures = [[(x["generator"], x["fake"]) for x in _log(tmp_path / n)] for n in ("whole", "parts")]
    assert figures[1] == [pytest.approx(pair, rel=1e-3) for pair in figures[0]]


def test_the_other_kind_of_state_is_refused(data: Path, state: Path, tmp_path: Path, capsys) -> None:
    before = (state / "full.safetensors").read_bytes()
    assert main(["prior", "train", "--preset", "tiny", "--out", str(state), "--device", "cpu"]) == 2
    assert "was trained on a folder of pictures; give it as --data" in capsys.readouterr().err
    assert (state / "full.safetensors").read_bytes() == before
    description = json.loads((state / "training.json").read_text())
    del description["kind"]  # as states of synthetic heads once were
    (tmp_path / "training.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="was trained on synthetic heads; leave out --data"):
        train(replace(SMALL, data=data), tmp_path, device="cpu")


def test_its_prior_keeps_the_mapping(state: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MY3DGEN_HOME", str(tmp_path))
    assert main(["prior", "publish", str(state), "--name", "mine", "--json"]) == 0
    prior = load_prior("mine")
    assert prior.encoder is None
    trained = load_file(state / "generator.safetensors")
    for name, value in prior.generator.state_dict().items():
        assert torch.equal(value, trained[name].float()), name
    assert prior.generator.w_avg.abs().max() > 0
    assert "Trained on pictures with cameras." in (tmp_path / "priors/mine/card.md").read_text()


def test_a_picture_that_cannot_be_read_ends_in_one_line(tmp_path: Path, data: Path, capsys) -> None:
    broken = tmp_path / "data"
    broken.mkdir()
    camera = camera_from_angles(0.0, 0.0)[0].tolist()
    (broken / "dataset.json").write_text(json.dumps({"labels": [["a.png", camera]]}))
    (broken / "a.png").write_bytes(b"")
    options = ["--preset", "tiny", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(["prior", "train", "--data", str(broken), *options]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("data/a.png: an empty file; copy it again")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"r1": -1.0}, "--r1 -1.0"), ({"swap": 1.5}, "--swap 1.5"), ({"memory": -1.0}, "--memory")],
)
def test_values_out_of_range_are_refused(data: Path, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(replace(SMALL, data=data, **options), tmp_path, device="cpu")
