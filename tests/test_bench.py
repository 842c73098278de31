"""The benches measure what they say, as far as a toy can show; their JSON has what is promised."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from my3dgen import cli
from my3dgen.bench import clock
from my3dgen.bench.clock import Timing, time_call
from my3dgen.bench.machine import Ceilings, ceilings, machine
from my3dgen.bench.personalize import added_by_steps, bench_personalize
from my3dgen.bench.render import backward_of, paths_on, works_of
from my3dgen.bench.row import Work, psnr, row, work_of
from my3dgen.bench.subjects import Scene, adapter_of, generator_of, scene_of
from my3dgen.cli.bench import BenchPeople, BenchPersonalize, BenchRender
from my3dgen.config import PRESETS
from my3dgen.errors import UserError
from my3dgen.fast import Captured
from my3dgen.invert import InvertConfig
from my3dgen.personalize import PersonalizeConfig
from my3dgen.prior.generator import Generator

ROOT = Path(__file__).parents[1]
MEASURED = {
    "name",
    "batch",
    "median_ms",
    "spread_ms",
    "images_per_s",
    "peak_memory_mb",
    "peak_tensors_mb",
    "psnr_vs_reference",
    "gflop",
    "least_mb",
    "matmul_fraction",
    "copy_fraction",
}


@pytest.fixture(autouse=True)
def quick_ceilings(monkeypatch):
    """The machine's best of small matrices."""
    monkeypatch.setattr("my3dgen.bench.machine.ceilings", lambda device: ceilings(device, side=64))


def bench(capsys, *arguments: str) -> dict:
    assert cli.main(["bench", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_middle_and_the_spread() -> None:
    assert Timing.of([5.0, 1.0, 2.0, 3.0, 4.0]) == Timing(3.0, 2.0)
    assert Timing.of([7.0]) == Timing(7.0, 0.0)


def test_calls_are_timed_one_by_one(monkeypatch) -> None:
    now = 0.0
    calls = []

    def call() -> None:
        nonlocal now
        calls.append(now)
        now += 0.004 if len(calls) > 2 else 100.0  # warming up is slow

    monkeypatch.setattr(clock.time, "perf_counter", lambda: now)
    timing = time_call(call, "cpu", repeats=5, warm_up=2)
    assert len(calls) == 7
    assert timing.median_ms == pytest.approx(4) and timing.spread_ms == pytest.approx(0, abs=1e-6)


def test_fractions_of_what_the_machine_can_do() -> None:
    best = Ceilings(100.0, {"fp32": 2.0, "bf16": 8.0})
    work = Work(flop=10**9, shared=3 * 10**6, each=10**6)
    found = row("x", 4, Timing(2.0, 0.1), work=work, ceilings=best, arithmetic="bf16")
    assert found.images_per_s == pytest.approx(2000)
    assert found.matmul_fraction == pytest.approx(4e9 / 2e-3 / 8e12)
    assert found.least_mb == pytest.approx(7)
    assert found.copy_fraction == pytest.approx(7e6 / 2e-3 / 100e9)
    assert row("x", 4, Timing(2.0, 0.1)).matmul_fraction is None


def test_work_of_a_product() -> None:
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert work_of(lambda: a @ b, [a], [b]) == Work(flop=2 * 3 * 5 * 7, shared=4 * 35, each=4 * (15 + 21))


def test_work_of_a_picture_is_that_of_the_specification() -> None:
    """EG3D spec 7.1; tensors without numbers suffice."""
    config = PRESETS["ffhq512-128"]
    with FakeTensorMode():
        generator = Generator(config)
        one = Scene(torch.empty(1, config.num_ws, config.w_dim), torch.empty(1, 25))
        works = works_of(generator, one)
    assert works["planes"].flop == pytest.approx(93.9e9, rel=0.02)
    # on a CPU small products also find the texels of points
    assert works["volume"].flop == pytest.approx(13.1e9, rel=0.03)
    assert works["superresolution"].flop == pytest.approx(197.6e9, rel=0.02)
    assert works["image"].flop == pytest.approx(304.7e9, rel=0.02)
    assert works["view"].flop == works["volume"].flop + works["superresolution"].flop


def test_psnr_is_over_the_references_range() -> None:
    reference = torch.tensor([0.0, 2.0])
    assert psnr(reference + 0.2, reference) == pytest.approx(20)
    assert math.isinf(psnr(reference, reference))


def test_an_adapter_that_shows() -> None:
    generator = generator_of("tiny", "cpu")
    scene = scene_of(generator, 1)
    with torch.no_grad():
        plain = generator.synthesis(scene.ws, scene.cameras).image
        one, other = (
            generator.synthesis(scene.ws, scene.cameras, adapter_of(generator, i)).image for i in (0, 1)
        )
    assert (plain - one).abs().max() > 1e-3 and (one - other).abs().max() > 1e-3


def test_the_machine_is_told() -> None:
    found = machine("cpu")
    assert found["device"] and found["driver"] is None and found["torch"] == torch.__version__
    best = ceilings("cpu", side=64)
    assert best.copy_gb_s > 0 and set(best.matmul_tflop_s) == {"fp32", "bf16"}
    assert all(rate > 0 for rate in best.matmul_tflop_s.values())


def test_unknown_priors_have_no_generator() -> None:
    with pytest.raises(UserError, match="unknown prior 'huge'"):
        generator_of("huge", "cpu")


def test_render(capsys, tmp_path: Path) -> None:
    out = tmp_path / "render.json"
    found = bench(
        capsys, "render", "--device", "cpu", "--priors", "tiny", "--batches", "1,2", "--repeats", "2",
        "--out", str(out),
    )  # fmt: skip
    assert json.loads(out.read_text()) == found
    assert set(found) == {"device", "driver", "torch", "commit", "threads", "ceilings", "finished", "rows"}
    assert found["finished"]
    assert all(set(row) == MEASURED for row in found["rows"])
    rows = {(r["name"], r["batch"]): r for r in found["rows"]}
    assert len(rows) == 2 * 2 * 6
    for (name, batch), one in rows.items():
        backward = name.startswith("tiny volume backward")
        no_picture = backward or "planes" in name
        assert one["images_per_s"] == pytest.approx(batch * 1e3 / one["median_ms"])
        assert (one["psnr_vs_reference"] is None) == (no_picture or (batch == 1 and "fp32" in name))
        assert backward or (one["gflop"] > 0 and one["matmul_fraction"] > 0)
    assert rows["tiny image, eager bf16", 1]["psnr_vs_reference"] > 20
    # alone or in a batch a picture is the same but for rounding
    assert rows["tiny image, eager fp32", 2]["psnr_vs_reference"] > 80


def test_what_matters_is_measured_first() -> None:
    paths = [path.name for path in paths_on("cuda")]
    assert paths[0] == "captured bf16" and paths[-1] == "eager fp32, not fused"
    assert [path.name for path in paths_on("cpu")] == ["eager bf16", "eager fp32"]
    assert BenchRender().sizes() == BenchPeople().sizes() == [16, 1, 4]
    assert BenchPersonalize().sizes() == [4, 16, 1]
    assert BenchRender().names()[0] == BenchPersonalize().names()[0] == "ffhq512-128"


def test_derivatives_of_the_volume_are_those_of_its_features() -> None:
    """By the planes, as `loss = features.sum()` has them; a second call finds the same."""
    generator = generator_of("tiny", "cpu")
    scene = scene_of(generator, 2)
    backward = backward_of(Captured(generator, capture=False), scene)
    with torch.no_grad():
        found, again = backward(), backward()
    planes = generator.planes(scene.ws).detach().requires_grad_()
    generator.volume(planes, scene.cameras).features.sum().backward()
    torch.testing.assert_close(found, planes.grad)
    torch.testing.assert_close(again, found)
    assert found.abs().max() > 0


def test_a_bench_that_is_stopped_keeps_its_rows(capsys, monkeypatch, tmp_path: Path) -> None:
    out = tmp_path / "cpu.json"

    def stopped(*_):
        yield row("one", 1, Timing(2.0, 0.1))
        kept = json.loads(out.read_text())
        assert [each["name"] for each in kept["rows"]] == ["one"] and not kept["finished"]
        yield row("two", 1, Timing(3.0, 0.1))
        raise KeyboardInterrupt

    monkeypatch.setattr("my3dgen.bench.cpu.bench_cpu", stopped)
    assert cli.main(["bench", "cpu", "--out", str(out)]) == 130
    kept = json.loads(out.read_text())
    assert [each["median_ms"] for each in kept["rows"]] == [2.0, 3.0]
    assert kept["finished"] is False
    assert list(tmp_path.iterdir()) == [out]


def test_people(capsys) -> None:
    found = bench(
        capsys, "people", "--device", "cpu", "--priors", "tiny", "--batches", "2", "--repeats", "1",
        "--rank", "2",
    )  # fmt: skip
    names = [row["name"] for row in found["rows"]]
    assert names == [
        f"tiny image, {who}, eager {kind}" for kind in ("bf16", "fp32") for who in ("1 person", "2 people")
    ]
    assert all(row["batch"] == 2 for row in found["rows"])
    # the reference draws everyone with their own adapter, too
    assert all(row["psnr_vs_reference"] > 80 for row in found["rows"] if row["name"].endswith("fp32"))


@pytest.fixture
def a_clock_of_its_own(monkeypatch):
    """Every piece of work takes a second more than the last, however busy the machine is."""
    seconds = itertools.count(1)

    def seconds_of(call, _) -> float:
        call()
        return float(next(seconds))

    monkeypatch.setattr("my3dgen.bench.personalize.seconds_of", seconds_of)
    monkeypatch.setattr("my3dgen.bench.personalize.REPEATS", 1)


def test_a_steps_time_is_what_it_adds(monkeypatch) -> None:
    now = 0.0

    def work(count: int) -> None:
        nonlocal now
        now += 10 + 0.5 * count  # seconds

    monkeypatch.setattr(clock.time, "perf_counter", lambda: now)
    timing = added_by_steps(work, "cpu", 4)
    assert timing.median_ms == pytest.approx(500) and timing.spread_ms == pytest.approx(0, abs=1e-6)
    with pytest.raises(UserError, match="too busy to time 4 steps"):
        added_by_steps(lambda count: None, "cpu", 4)


def test_personalize(capsys, monkeypatch, a_clock_of_its_own) -> None:
    monkeypatch.setattr("my3dgen.bench.personalize.QUALITIES", {"standard": PersonalizeConfig(steps=2)})
    short = InvertConfig(coarse_steps=1, fine_steps=1)
    monkeypatch.setattr("my3dgen.bench.personalize.INVERSIONS", {"standard": short})
    found = bench(
        capsys, "personalize", "--device", "cpu", "--priors", "tiny", "--batches", "1,2", "--steps", "1",
        "--photos", "4",
    )  # fmt: skip
    assert [(row["name"], row["batch"]) for row in found["rows"]] == [
        ("tiny training step, whole pictures", 1),
        ("tiny training step, whole pictures", 2),
        ("tiny personalization of 4 photos", 4),
    ]
    assert found["rows"][0]["median_ms"] == pytest.approx(1000)


def test_steps_then_whole_personalizations_come_first(monkeypatch) -> None:
    """On a GPU, where every prior's is timed; that of the last, the smallest, first."""
    module = "my3dgen.bench.personalize"
    monkeypatch.setattr(f"{module}.prior_of", lambda name, _: name)
    monkeypatch.setattr(f"{module}.whole", lambda name, *_: name)
    monkeypatch.setattr(
        f"{module}.training_step", lambda name, _, config, *__: (name, config.batch, config.rank)
    )
    found = list(bench_personalize(["large", "small"], [4, 16], "cuda", 50, 60))
    assert found == [
        ("large training step, whole pictures", 4, 1),
        ("large training step, whole pictures", 16, 1),
        "small personalization of 50 photos",
        "large personalization of 50 photos",
        ("small training step, whole pictures", 4, 1),
        ("small training step, whole pictures", 16, 1),
    ]


def test_cpu(capsys, a_clock_of_its_own) -> None:
    found = bench(capsys, "cpu", "--prior", "tiny", "--repeats", "1", "--steps", "1")
    names = [row["name"] for row in found["rows"]]
    assert "tiny image, bf16" in names and "tiny view, fp32" in names
    assert names[-1] == "tiny inversion step, all rays"


def test_a_table_for_people(capsys) -> None:
    assert cli.main(["bench", "render", "--device=cpu", "--priors=tiny", "--batches=1", "--repeats=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("at best: copy ")
    assert any(line.startswith("tiny image, eager fp32 ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["render", "--batches", "0"], "give numbers from 1 to 256"),
        (["render", "--batches", "1,x"], "give numbers from 1 to 256"),
        (["render", "--priors", "nobody"], "choose among"),
        (["render", "--out", "rows.txt"], "ends in .json"),
        (["people", "--rank", "0"], "choose 1 to"),
        (["personalize", "--photos", "0"], "choose 1 to"),
        (["cpu", "--steps", "0"], "choose 1 to"),
        (["cpu", "--repeats", "0"], "choose 1 to"),
    ],
)
def test_bad_options_are_told(capsys, arguments: list[str], remedy: str) -> None:
    assert cli.main(["bench", *arguments]) == 2
    said = capsys.readouterr().err
    assert remedy in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("name", ["render", "people", "personalize", "cpu"])
def test_the_scripts_are_the_verbs(name: str) -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "benches" / f"{name}.py"), "--help"], capture_output=True, text=True
    )
    assert run.returncode == 0 and f"my3dgen bench {name}" in run.stdout
