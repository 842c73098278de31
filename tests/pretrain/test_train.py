"""Training a tiny prior for a few steps: it learns, stops where told, resumes, and shares work."""

import errno
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from my3dgen.cli import main
from my3dgen.config import PRESETS
from my3dgen.errors import FileFormatError, UserError
from my3dgen.pretrain import state
from my3dgen.pretrain.heads import my_seeds
from my3dgen.pretrain.networks import Networks, Steps
from my3dgen.pretrain.objectives import Weights, depth_at
from my3dgen.pretrain.parallel import Ranks
from my3dgen.pretrain.pool import Batch, Pool
from my3dgen.pretrain.settings import TrainConfig
from my3dgen.pretrain.train import train
from my3dgen.prior.store import find_prior, load_prior

ROOT = Path(__file__).parents[2]
SMALL = TrainConfig(
    preset="tiny",
    batch=8,
    heads=2,
    views=2,
    first_render=60.0,
    supervised_images=16,
    shown=1,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state after two supervised steps and one adversarial one."""
    path = tmp_path_factory.mktemp("training")
    config = TrainConfig(**{**SMALL.__dict__, "max_steps": 3})
    figures = train(config, path, device="cpu")
    assert figures["images"] == 24 and figures["adversarial_images"] == 8 and figures["steps"] == 3
    return path


def test_what_a_run_leaves(folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {
        "discriminator.safetensors",
        "encoder.safetensors",
        "full.safetensors",
        "generator.safetensors",
        "latents.safetensors",
        "log.jsonl",
        "sheets",
        "training.json",
    }
    assert (folder / "sheets" / "last.png").stat().st_size > 10_000
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert log[0]["pixel"] > 0 and log[-1]["held_out_same"] > 0
    weights = load_file(folder / "generator.safetensors")
    assert all(tensor.dtype == torch.float16 and tensor.isfinite().all() for tensor in weights.values())


def test_the_encoder_learns_alone(folder: Path, tmp_path: Path) -> None:
    """The generator is its running average and stays, the latents' Gaussian too; the discriminator rests."""
    config = replace(SMALL, encoder_share=1.0, supervised_images=0, max_steps=2)
    figures = train(config, tmp_path, device="cpu", resume=folder)
    assert (figures["images"], figures["adversarial_images"], figures["encoder_images"]) == (40, 8, 16)
    for name, stays in (("generator", True), ("discriminator", True), ("latents", True), ("encoder", False)):
        before, after = (load_file(place / f"{name}.safetensors") for place in (folder, tmp_path))
        assert all(torch.equal(before[key], after[key]) for key in before) is stays
    full = load_file(tmp_path / "full.safetensors")
    assert all(
        torch.equal(value, full[key.replace("generator/", "generator_average/")])
        for key, value in full.items()
        if key.startswith("generator/")
    )


def test_state_comes_back(folder: Path) -> None:
    networks = Networks(PRESETS["tiny"], torch.device("cpu"), seed=99)
    progress, moments = state.load(folder, networks, {})
    assert moments and progress.images == 24 and progress.next_seed == 2
    full = load_file(folder / "full.safetensors")
    for name, module in networks.all.items():
        for key, value in module.state_dict().items():
            torch.testing.assert_close(value, full[f"{name}/{key}"])


def test_another_preset_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="another configuration"):
        state.load(folder, Networks(PRESETS["mini"], torch.device("cpu"), seed=0), {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "giant"}, "unknown preset 'giant'"),
        ({"batch": 6}, "--batch 6: use a multiple of 8"),
        ({"batch": 0}, "--batch 0: use a multiple of 8"),
        ({"heads": 0}, "--heads 0"),
        ({"views": 0}, "--views 0"),
        ({"encoder_share": 1.5}, "--encoder-share 1.5: choose a number from 0 to 1"),
        ({"encoder_share": 0.5, "data": Path("faces")}, "--encoder-share: --data has no encoder"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(replace(SMALL, **options), tmp_path, device="cpu")


def test_a_place_without_a_state_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no training state"):
        train(SMALL, tmp_path / "out", device="cpu", resume=tmp_path)


def test_ctrl_c_saves_and_ends_with_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = Pool.draw

    def pressed(*arguments, **options) -> Batch:
        signal.raise_signal(signal.SIGINT)
        return draw(*arguments, **options)

    monkeypatch.setattr(Pool, "draw", pressed)
    # adversarial and blurred from the first step
    options = (
        "--preset tiny --batch 8 --heads 1 --views 2 --device cpu --supervised-images 0 --blur-images 80"
    )
    before = signal.getsignal(signal.SIGINT)
    assert main(["prior", "train", "--out", str(tmp_path), *options.split()]) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert json.loads((tmp_path / "training.json").read_text())["progress"]["images"] == 8
    assert "run the same command to go on" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{}", '{"config": {}, "progress": {}}', "[]"])
def test_a_damaged_description_is_named(folder: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"training\.json"):
        state.load(tmp_path, Networks(PRESETS["tiny"], torch.device("cpu"), seed=0), {})


@pytest.mark.parametrize("name", ["full", "generator"])
def test_a_truncated_file_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    for file in ("training.json", f"{name}.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    os.truncate(tmp_path / f"{name}.safetensors", 1000)
    with pytest.raises(FileFormatError, match=rf"{name}\.safetensors: is damaged"):
        state.load(tmp_path, Networks(PRESETS["tiny"], torch.device("cpu"), seed=0), {})


def test_a_full_disk_leaves_the_state_as_it_was(folder: Path, tmp_path: Path, monkeypatch) -> None:
    networks = Networks(PRESETS["tiny"], torch.device("cpu"), seed=0)
    before = {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        state.save(folder, networks, state.Progress(), {}, full=True)
    assert {p.name: p.read_bytes() for p in folder.glob("*.safetensors")} == before
    assert not list(folder.glob(".*"))


def test_moments_come_back(folder: Path) -> None:
    """A full state holds Adam's moments, so a resumed run goes on without a warm-up."""
    networks = Networks(PRESETS["tiny"], torch.device("cpu"), seed=99)
    optimizer = torch.optim.Adam(networks.discriminator.parameters())
    state.load(folder, networks, {"discriminator": optimizer})
    moments = optimizer.state_dict()["state"]
    assert len(moments) == len(list(networks.discriminator.parameters()))
    assert all(entry["step"] == 1 and entry["exp_avg_sq"].max() > 0 for entry in moments.values())


def test_the_committed_training_goes_on() -> None:
    """What `training/` lacks of generator and encoder comes from the embedded prior."""
    networks = Networks(PRESETS["mini"], torch.device("cpu"), seed=0)
    drawn = networks.discriminator.fromrgb.weight.clone()
    progress, moments = state.load(ROOT / "training", networks, {}, find_prior("mini"))
    assert progress.images > 1_000_000 and not moments
    assert not torch.equal(networks.discriminator.fromrgb.weight, drawn)
    prior = load_prior("mini")
    for ours, theirs in ((networks.generator, prior.generator), (networks.encoder_average, prior.encoder)):
        for one, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.equal(one, other)


def test_processes_share_seeds_without_overlap() -> None:
    ranks = [my_seeds(100, Ranks(i, 3, torch.device("cpu"))) for i in range(3)]
    drawn = [next(seeds) for _ in range(4) for seeds in ranks]
    assert sorted(drawn) == list(range(100, 112))


def test_steps_lower_the_loss() -> None:
    """The supervised step learns two heads by heart."""
    networks = Networks(PRESETS["tiny"], torch.device("cpu"), seed=0)
    pool = Pool(2, 2, PRESETS["tiny"].img_resolution, torch.device("cpu"))
    rng = torch.Generator().manual_seed(0)
    assert pool.render(iter(range(2)), seconds=60.0, rng=rng, heads=2) == 2

    class Squared(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).square().mean((1, 2, 3))

    steps = Steps(networks, Squared(), Weights(), torch.float32, torch.default_generator)
    optimizer = torch.optim.Adam(
        [*networks.generator.parameters(), *networks.encoder.parameters()], lr=5e-3, betas=(0.5, 0.99)
    )
    batch = pool.draw(8, rng)
    assert batch.target.shape == batch.source.shape and batch.weight.mean().sub(1).abs() < 1e-4
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        losses.append(float(steps.supervised(batch)["pixel"]))
        optimizer.step()
    assert losses[-1] < 0.75 * losses[0]


def test_depth_keeps_its_mean_when_shrunk() -> None:
    depth = torch.zeros(1, 1, 4, 4)
    depth[..., :2, :] = 2.5
    small = depth_at(depth, 2)
    assert small.flatten().tolist() == pytest.approx([2.5, 2.5, 0.0, 0.0])
    assert json.dumps(depth_at(depth, 8).shape) == "[1, 1, 8, 8]"


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    """The whole run, as `prior train` does it: its figures of the last steps are below those of the first."""
    config = replace(
        SMALL, heads=6, views=3, supervised_images=10**9, max_steps=36, log_every=6, warm_up=0, cool_down=0.0
    )
    train(config, tmp_path, device="cpu")
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    windows = [line for line in log[1:] if "pixel" in line]  # the first line is of a single step
    assert len(windows) == 6
    for name, share in {"pixel": 0.7, "raw": 0.8, "alpha": 0.7}.items():
        assert windows[-1][name] < share * windows[0][name], name
