import json
import math
from dataclasses import replace

import pytest
import torch

from my3dgen import cli
from my3dgen.config import PRESETS
from my3dgen.errors import UserError
from my3dgen.evaluate import prior as module
from my3dgen.evaluate.prior import Examination, average, depth_error, evaluate_prior, figure
from my3dgen.evaluate.prior_samples import latency, line
from my3dgen.prior.directions import DirectionFacts, save_directions
from my3dgen.prior.encoder import Encoder, encoder_config
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import DIRECTIONS, load_prior, write_prior, write_sums

ALWAYS = {
    *(f"inversion_{name}" for name in ("psnr", "perceptual", "identity")),
    *(f"view{turn}_{name}" for turn in (15, 30, 45) for name in ("psnr", "identity")),
    *("kid", "kid_floor", "depth_error", "depth_missed", "interpolation_smoothness"),
}
FROM_ENCODER = {
    f"{way}_{view}{name}"
    for way in ("encoder", "encoder50")
    for view in ("", "view30_")
    for name in ("psnr", "identity")
}
SMILE = {
    "smile_gain",
    "smile_identity",
    "smile_identity_similarity",
    "smile_removed",
    "smile_removed_identity",
}
OTHERS = {
    "groups",
    "worst_group",
    "identities",
    "seed",
    "prior",
    "prior_sha256",
    "device",
    "seconds",
    "latency",
}


@pytest.fixture(scope="module")
def full(tiny_prior, tmp_path_factory):
    """The toy prior with an encoder and a direction."""
    folder = tmp_path_factory.mktemp("full") / "toy"
    torch.manual_seed(0)
    encoder = Encoder(encoder_config(tiny_prior.config))
    write_prior(folder, tiny_prior.config, tiny_prior.generator.state_dict(), "A toy.", encoder=encoder)
    direction = torch.randn(tiny_prior.config.w_dim, generator=torch.Generator().manual_seed(3))
    facts = DirectionFacts(1.0, 1.0, 1.0, 1.0, (), {}, 100)
    save_directions(folder / DIRECTIONS, {"smile": direction}, {"smile": facts})
    write_sums(folder, DIRECTIONS)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "FEW_STEPS", 2)
    monkeypatch.setattr("my3dgen.evaluate.prior_report.DRAWN", 4)


def finite(value):
    return isinstance(value, float) and math.isfinite(value)


def test_the_verb_stopped_once_and_continued(full, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    arguments = ["evaluate", "prior", str(full), "--identities", "2", "--samples", "4", "--steps", "3"]
    arguments += ["--out", str(out), "--device", "cpu", "--json"]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "likeness_of_sets", stop)
        assert cli.main(arguments) == 130
    assert "run the same command to go on" in capsys.readouterr().err
    assert cli.main(arguments) == 0
    stdout, stderr = capsys.readouterr()
    assert "inversion: done before" in stderr and "samples: done before" not in stderr
    report = json.loads(stdout)
    assert report == json.loads((out / "report.json").read_text())

    assert set(report) >= ALWAYS | FROM_ENCODER | SMILE | OTHERS
    assert all(finite(report[name]) for name in ALWAYS | FROM_ENCODER)
    assert report["identities"] == 2 and report["device"] == "cpu" and report["heads"][0] > 1_000_000_000
    assert 5 < report["inversion_psnr"] < 60 and 0 <= report["depth_missed"] <= 1
    assert {"heads", "inversion", "encoder", "views", "samples", "smile", "pictures"} <= set(
        report["seconds"]
    )
    assert report["latency"]["image_ms"] > 0 and report["latency"]["view_ms"] > 0
    assert sum(group["count"] for group in report["groups"]["skin"].values()) == 2
    text = (out / "report.html").read_text()
    assert set(report["pictures"]) == {"worst", "median", "samples", "smile", "interpolation"}
    for path in report["pictures"].values():
        assert (out / path).stat().st_size > 0 and path in text
    assert "://" not in text

    assert cli.main([*arguments[:-3], "--device", "cpu"]) == 0  # as text, from the stamps
    stdout, stderr = capsys.readouterr()
    assert "pictures: done before" in stderr
    assert f"{report['view30_psnr']:.2f} dB" in stdout and str(out / "report.html") in stdout


def test_a_bare_prior_has_no_figures_of_encoder_and_smile(tiny_prior):
    drawn = []

    def draw_cameras(count, views, rng):
        drawn.append((count, views))
        return module_cameras(count, views)

    asked = Examination(identities=1, samples=4, steps=1)
    report = evaluate_prior(tiny_prior, asked, draw_cameras)
    assert all(report[name] is None for name in FROM_ENCODER | SMILE)
    assert all(finite(report[name]) for name in ALWAYS)
    assert drawn == [(4, 1), (4, 1)] and report["pictures"] == {}


def module_cameras(count, views):
    from my3dgen.cameras import camera_from_angles

    return camera_from_angles(torch.zeros(count * views), 0.0).view(count, views, 25)


def test_a_known_latent_is_judged_perfect(tiny_prior, monkeypatch):
    """Figures that must follow when every head is the prior's own and the inversion finds it."""
    people = module.gather(
        list(module.photograph_people(module.inverted_seeds(0, 2), tiny_prior.config, "cpu"))
    )
    generator = tiny_prior.generator
    ws = generator.mapping(torch.randn(2, generator.config.z_dim), None)
    with torch.no_grad():
        views = [generator.synthesis(ws, people.cameras[:, v], noise="none") for v in range(7)]
        volume = generator.volume(generator.planes(ws, noise="none"), people.cameras[:, 0], resolution=64)
    rgb = torch.stack([((v.image.clamp(-1, 1) + 1) * 127.5).round().byte() for v in views], 1)
    ideal = replace(people, rgb=rgb, depth=volume.depth[:, 0].half())
    monkeypatch.setattr(module, "photograph_people", lambda *_: [ideal])
    monkeypatch.setattr(module, "invert_wplus", lambda *_, **__: ws)
    report = evaluate_prior(
        tiny_prior, Examination(identities=2, samples=4, steps=1), lambda n, v, _: module_cameras(n, v)
    )
    for name in ("inversion_psnr", "view15_psnr", "view30_psnr", "view45_psnr"):
        assert report[name] > 50  # rounding to bytes
    assert report["inversion_perceptual"] < 0.3 and report["view45_identity"] > 0.9
    assert report["depth_error"] < 2e-3  # float16


def test_depth_error_by_hand():
    truth = torch.tensor([[[2.0, 2.5], [0.0, 3.0]]])
    depth = torch.tensor([[[2.1, 9.0], [9.0, 2.7]]])
    opacity = torch.tensor([[[0.9, 0.1], [0.9, 0.8]]])
    cover = torch.tensor([[[1.0, 1.0], [0.0, 0.9]]])
    error, missed = depth_error(depth, opacity, truth, cover)
    assert error.item() == pytest.approx((0.1 + 0.3) / 2, abs=1e-6)  # the second ray has no depth
    assert missed.item() == pytest.approx(1 / 3)


def test_a_figure_of_a_view_is_the_mean_of_both_sides():
    ways = {"inversion": {"0": {"psnr": [1.0]}, "-30": {"psnr": [20.0, 10.0]}, "+30": {"psnr": [24.0, 12.0]}}}
    assert figure(ways, "inversion", 30, "psnr") == [22.0, 11.0]
    assert figure(ways, "encoder", 0, "psnr") is None
    assert average([1.0, float("nan"), 3.0]) == 2.0 and average(None) is None


def test_lines_have_even_steps():
    first, last = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    steps = line(first, last, 5)
    assert steps.shape == (2, 5, 3, 4)
    assert steps[0, :, 0, 0].tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"identities": 0}, "--identities 0"),
        ({"samples": 3}, "--samples 3"),
        ({"seed": -1}, "--seed -1"),
        ({"batch": 0}, "--batch 0"),
    ],
)
def test_numbers_out_of_range_are_refused(asked, words):
    with pytest.raises(UserError, match=words):
        Examination(**asked).check()


def test_a_prior_on_black_is_refused(tiny_prior, tmp_path):
    config = replace(PRESETS["tiny"], white_back=False)
    generator = Generator(config, torch.Generator().manual_seed(0))
    prior = load_prior(write_prior(tmp_path / "black", config, generator.state_dict(), "A toy."))
    with pytest.raises(UserError, match="white"):
        evaluate_prior(prior, Examination(), lambda n, v, _: module_cameras(n, v))


def test_latency_says_what_it_measured(tiny_prior):
    found = latency(tiny_prior.generator, tiny_prior.generator.mapping(torch.zeros(1, 32), None), 1)
    assert found["size"] == 64 and found["image_ms"] > 0
