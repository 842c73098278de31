"""Training an encoder for a toy prior: it learns, resumes exactly, and refuses what can't be trained."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from my3dgen.config import PRESETS
from my3dgen.errors import FileFormatError, UserError
from my3dgen.perceptual import load_perceptual
from my3dgen.pretrain.encode import EncodeConfig, new_encoder, stored, train_encoder
from my3dgen.pretrain.encode_lesson import Unit, lesson_terms
from my3dgen.pretrain.encode_monitor import Reproduction, hold_out
from my3dgen.pretrain.encode_state import STATE, load_state, save_state
from my3dgen.pretrain.samples import (
    SamplePool,
    draw_latents,
    draw_samples,
    image,
    numbers,
    reduced,
)
from my3dgen.prior.encoder import Encoder, encoder_config
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior

SMALL = EncodeConfig(batch=8, fresh=4, rendered=4, pool=16, held_out=4, warm_up=1, max_steps=4)


@pytest.fixture(scope="module")
def trained(tiny_prior: Prior, tmp_path_factory: pytest.TempPathFactory):
    """Four steps without a break."""
    folder = tmp_path_factory.mktemp("encoder")
    return folder, train_encoder(tiny_prior, folder, SMALL, None)


def test_some_tens_of_steps_beat_the_mean_latent(tiny_prior: Prior, tmp_path: Path) -> None:
    config = replace(SMALL, pool=32, held_out=8, max_steps=24)
    outcome = train_encoder(tiny_prior, tmp_path, config, None)
    assert outcome.better and outcome.after > outcome.before + 0.5
    assert outcome.figures["before_same"] < outcome.figures["same"]
    # compared by W, seen from both sides
    assert outcome.after == pytest.approx((outcome.figures["same"] + outcome.figures["other"]) / 2, abs=1e-4)


def test_every_term_falls_on_a_lesson_learned_by_heart(tiny_prior: Prior) -> None:
    generator, unit = tiny_prior.generator, Unit.of(tiny_prior.generator)
    encoder, perceptual = new_encoder(tiny_prior, unit, 0), load_perceptual("squeeze-feat")
    pool = SamplePool(generator, 64, capacity=8, chunk=8, mixed=0.5, seed=0, dtype=torch.float32)
    pool.reach(1)
    lesson = pool.draw(8, 4, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    history = []
    for _ in range(25):
        optimizer.zero_grad()
        terms = lesson_terms(encoder, generator, unit, perceptual, lesson, torch.float32)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in terms.items()})
    assert history[0].keys() == {"w", "ws", "pose", "pixel", "perceptual"}
    assert all(history[-1][name] < 0.8 * history[0][name] for name in history[0]), history[-1]


def test_what_a_run_leaves(trained) -> None:
    folder, outcome = trained
    assert {path.name for path in folder.iterdir()} == {STATE, "log.jsonl", "sheets"}
    assert (folder / "sheets" / "last.png").stat().st_size > 10_000
    assert outcome.progress.steps == 4 and outcome.progress.images == 32
    # what it came to is the running average in latents, as a file stores it
    again = stored(outcome.encoder)
    for one, other in zip(outcome.encoder.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_going_on_equals_never_having_stopped(tiny_prior: Prior, trained, tmp_path: Path) -> None:
    whole, outcome = trained
    for _ in range(2):
        halves = train_encoder(tiny_prior, tmp_path, replace(SMALL, max_steps=2), None)
    assert halves.figures == outcome.figures and halves.progress.images == 32
    one, other = load_file(whole / STATE), load_file(tmp_path / STATE)
    assert one.keys() == other.keys() and any(name.startswith("moments/") for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_goes_on_from_the_priors_own_encoder(tiny_prior: Prior, trained, tmp_path: Path) -> None:
    _, outcome = trained
    prior = replace(tiny_prior, encoder=outcome.encoder)
    unit = Unit.of(prior.generator)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    told = unit.decode(new_encoder(prior, unit, 0).encode(images).ws)
    torch.testing.assert_close(told, outcome.encoder.encode(images).ws, atol=1e-4, rtol=1e-4)
    # without a step nothing is better than before
    again = train_encoder(prior, tmp_path, replace(SMALL, max_steps=0), prior.encoder)
    assert again.after == pytest.approx(again.before, abs=0.05) and not list(tmp_path.glob(STATE))


def test_unit_turns_latents_and_encoders_both_ways(tiny_prior: Prior) -> None:
    unit = Unit.of(tiny_prior.generator)
    latents = draw_latents(tiny_prior.generator, 512, torch.Generator().manual_seed(3))
    inside = unit.encode(latents)[:, 0]
    assert inside.mean(0).abs().max() < 0.3 and inside.var() == pytest.approx(1, rel=0.15)
    torch.testing.assert_close(unit.decode(unit.encode(latents)), latents)
    encoder = Encoder(encoder_config(tiny_prior.config)).requires_grad_(False)
    torch.nn.init.normal_(encoder.offsets.weight)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    outside, told = unit.out_of(encoder).encode(images), encoder.encode(images)
    torch.testing.assert_close(outside.w, unit.decode(told.w))
    torch.testing.assert_close(outside.ws, unit.decode(told.ws))
    torch.testing.assert_close(
        unit.into(unit.out_of(encoder)).encode(images).ws, told.ws, atol=1e-4, rtol=1e-4
    )


def test_mixed_faces_change_once(tiny_prior: Prior) -> None:
    rng = torch.Generator().manual_seed(0)
    plain = draw_latents(tiny_prior.generator, 8, rng)
    assert torch.equal(plain, plain[:, :1].expand_as(plain))
    mixed = draw_latents(tiny_prior.generator, 8, rng, mixed=1.0)
    changes = (mixed[:, 1:] != mixed[:, :-1]).any(2).sum(1)
    assert changes.tolist() == [1] * 8
    rng.manual_seed(0)
    assert torch.equal(draw_latents(tiny_prior.generator, 8, rng), plain)


def test_samples_are_what_the_generator_shows(tiny_prior: Prior) -> None:
    samples = draw_samples(tiny_prior.generator, 10, 64, numbers("cpu", "a"))
    for face, view in ((0, 1), (9, 0)):
        truth = tiny_prior.generator.synthesis(samples.ws[[face]], samples.cameras[[face], view]).image
        assert (image(samples.images[[face], view]) - truth.clamp(-1, 1)).abs().max() < 0.01
    assert samples.alpha.shape == (10, 2, 1, 64, 64) and samples.alpha.float().std() > 1


def test_a_prior_like_published_ones_is_learned_from() -> None:
    """Larger than the encoder's pictures, with a painted background, a camera in W and cameras elsewhere."""
    config = replace(
        PRESETS["tiny"],
        img_resolution=512,
        superresolution_input=256,
        white_back=False,
        c_gen_conditioning_zero=False,
        camera_radius=3.0,
        camera_pivot=(0.0, 0.0, 0.0),
        focal=4.0,
    )
    generator = Generator(config, torch.Generator().manual_seed(1)).eval().requires_grad_(False)
    prior = Prior("large", generator, "0" * 64, {}, Path())
    unit = Unit.of(generator)
    encoder = new_encoder(prior, unit, 0)
    pool = SamplePool(generator, 256, capacity=2, chunk=2, mixed=0.0, seed=0, dtype=torch.float32)
    pool.reach(1)
    assert pool.held is not None and (pool.held.alpha == 255).all()
    cameras = pool.held.cameras.flatten(0, 1)
    torch.testing.assert_close(cameras[:, [3, 7, 11]].norm(dim=1), torch.full((4,), 3.0))
    assert cameras[:, 16].tolist() == [4.0] * 4
    lesson = pool.draw(4, 2, torch.Generator().manual_seed(0))
    assert lesson.photo.shape == (4, 3, 256, 256) and lesson.target.shape == (2, 3, 256, 256)
    terms = lesson_terms(encoder, generator, unit, load_perceptual("squeeze-feat"), lesson, torch.float32)
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    # targets are the pictures of their latents and cameras, reduced
    shown = reduced(generator.synthesis(lesson.ws[:2], lesson.camera).image.clamp(-1, 1), 256)
    assert (shown - lesson.target).abs().max() < 0.01


def test_a_pool_that_goes_on_holds_what_it_held(tiny_prior: Prior) -> None:
    pools = [
        SamplePool(tiny_prior.generator, 64, capacity=6, chunk=2, mixed=0.5, seed=1, dtype=torch.float32)
        for _ in range(2)
    ]
    for chunks in range(1, 6):
        pools[0].reach(chunks)
    pools[1].reach(5)
    one, other = (pool.draw(8, 4, torch.Generator().manual_seed(0)) for pool in pools)
    assert torch.equal(one.photo, other.photo) and torch.equal(one.ws, other.ws)
    assert torch.equal(one.target, other.target) and torch.equal(one.camera, other.camera)


def test_reduced_pictures_look_to_an_encoder_like_the_whole(tiny_prior: Prior) -> None:
    encoder = Encoder(encoder_config(tiny_prior.config)).requires_grad_(False)
    large = torch.rand(2, 3, 128, 128) * 2 - 1
    torch.testing.assert_close(encoder(reduced(large, 64)), encoder(large))


def test_truth_reproduces_itself(tiny_prior: Prior) -> None:
    held = hold_out(tiny_prior.generator, 4, 64, seed=0)
    mean = Unit.of(tiny_prior.generator).mean

    class Oracle(Encoder):
        def encode(self, images, *, dtype=torch.float32):
            seen = super().encode(images, dtype=dtype)
            return replace(seen, w=held.samples.ws[:, 0], ws=held.samples.ws)

    right = Reproduction.of(tiny_prior.generator, held, Oracle(encoder_config(tiny_prior.config)), mean)
    assert right.decibels > 45  # bytes round
    assert right.decibels > 10 + Reproduction.of(tiny_prior.generator, held, None, mean).decibels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 2}, "--batch 2 is out of range; choose 4 to 512"),
        ({"pool": 4}, "--pool 4 is out of range; choose 8 to"),
        ({"held_out": 0}, "--held-out 0 is out of range"),
        ({"minutes": -1.0}, "--minutes -1 is out of range"),
        ({"minutes": float("nan")}, "--minutes nan is out of range"),
        ({"rate": 0.0}, "--rate 0 is out of range"),
        ({"max_steps": -1}, "--max-steps -1 is out of range"),
    ],
)
def test_bad_options_are_refused(tiny_prior: Prior, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_encoder(tiny_prior, tmp_path, replace(SMALL, **options), None)
    assert not list(tmp_path.iterdir())


def test_another_priors_state_is_refused(tiny_prior: Prior, trained) -> None:
    folder, _ = trained
    before = (folder / STATE).read_bytes()
    with pytest.raises(UserError, match=r"for another prior; give another --out"):
        train_encoder(replace(tiny_prior, sha256="0" * 64), folder, SMALL, None)
    assert (folder / STATE).read_bytes() == before


def test_a_damaged_state_is_named(tiny_prior: Prior, trained, tmp_path: Path) -> None:
    folder, _ = trained
    path = tmp_path / STATE
    path.write_bytes((folder / STATE).read_bytes())
    os.truncate(path, 1000)
    with pytest.raises(FileFormatError, match=r"state\.safetensors: is damaged"):
        train_encoder(tiny_prior, tmp_path, SMALL, None)
    encoder = Encoder(encoder_config(tiny_prior.config))
    optimizer = torch.optim.Adam(encoder.parameters())
    save_state(path, "a", {"miles": 3}, encoder, encoder, optimizer)
    with pytest.raises(FileFormatError, match="how far"):
        load_state(path, "a", encoder, encoder, optimizer)


def test_a_training_that_diverges_says_so(tiny_prior: Prior, tmp_path: Path, monkeypatch) -> None:
    def broken(*arguments):
        return {name: value * float("nan") for name, value in lesson_terms(*arguments).items()}

    monkeypatch.setattr("my3dgen.pretrain.encode.lesson_terms", broken)
    with pytest.raises(UserError, match="diverged"):
        train_encoder(tiny_prior, tmp_path, SMALL, None)
    assert not (tmp_path / STATE).exists()
