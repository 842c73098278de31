"""Training a tiny prior for a few steps: it learns, stops where told, resumes, and shares work."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from my3dgen.config import PRESETS
from my3dgen.errors import UserError
from my3dgen.pretrain import state
from my3dgen.pretrain.networks import Networks, Steps
from my3dgen.pretrain.objectives import Weights, depth_at
from my3dgen.pretrain.parallel import Ranks
from my3dgen.pretrain.pool import Pool
from my3dgen.pretrain.train import TrainConfig, my_seeds, read_log, train
from my3dgen.synthetic.factors import NUM_FACTORS

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
        "log.jsonl",
        "sheets",
        "training.json",
    }
    assert (folder / "sheets" / "last.png").stat().st_size > 10_000
    log = read_log(folder / "log.jsonl")
    assert log[0]["pixel"] > 0 and log[-1]["held_out_same"] > 0
    weights = load_file(folder / "generator.safetensors")
    assert all(tensor.dtype == torch.float16 and tensor.isfinite().all() for tensor in weights.values())


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


def test_bad_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown preset 'giant'"):
        train(TrainConfig(preset="giant"), tmp_path, device="cpu")
    with pytest.raises(UserError, match="multiple of 8"):
        train(TrainConfig(preset="tiny", batch=6), tmp_path, device="cpu")


def test_processes_share_seeds_without_overlap() -> None:
    ranks = [my_seeds(100, Ranks(i, 3, torch.device("cpu"))) for i in range(3)]
    drawn = [next(seeds) for _ in range(4) for seeds in ranks]
    assert sorted(drawn) == list(range(100, 112))


def test_steps_lower_the_loss() -> None:
    """The supervised step learns two heads by heart."""
    networks = Networks(PRESETS["tiny"], torch.device("cpu"), seed=0)
    pool = Pool(2, 2, PRESETS["tiny"].img_resolution, NUM_FACTORS, torch.device("cpu"))
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
