import contextlib
import importlib
from dataclasses import replace

import pytest
import safetensors
import torch

from my3dgen.anchors import Anchors
from my3dgen.errors import PriorMismatchError, UserError
from my3dgen.evaluate.metrics import psnr
from my3dgen.faces.album import Album
from my3dgen.fit import Stage
from my3dgen.invert import (
    PILOTS,
    InvertConfig,
    invert,
    invert_many,
    spread,
)
from my3dgen.latents import latent_statistics
from my3dgen.lora import new_adapter
from my3dgen.person import new_person
from my3dgen.place import first_weights, nearest_anchors, place
from my3dgen.prior.encoder import Encoder, EncoderConfig
from my3dgen.targets import targets_of

QUICK = InvertConfig(common_steps=12, coarse_steps=12, fine_steps=3, perceptual=0.05, batch=3)


class Stop(Exception):
    pass


def shown(prior, found, adapter=None):
    with torch.no_grad():
        return prior.generator.synthesis(found.ws, found.cameras, adapter).image


def part(album, *numbers):
    i = list(numbers)
    masks = None if album.masks is None else album.masks[i]
    return Album(album.images[i], album.cameras[i], masks, tuple(album.names[n] for n in i))


@pytest.fixture(scope="module")
def person(tiny_prior, truth):
    adapter = new_adapter(tiny_prior.generator, 1, 1.0)
    return new_person(tiny_prior, adapter, truth)


def test_inversion_finds_latents_that_show_the_photos(tiny_prior, photos):
    found = invert(tiny_prior, photos, QUICK)
    assert (found.ws[:, :1] == found.ws).all()  # W: one vector for all layers
    assert found.names == photos.names
    mean = Anchors(tiny_prior.generator.w_avg.expand(6, 8, -1), photos.cameras)
    before = psnr(shown(tiny_prior, mean), photos.images)
    after = psnr(shown(tiny_prior, found), photos.images)
    assert (after > before + 3).all()


def test_the_common_start_pays(tiny_prior, photos):
    few = replace(QUICK, common_steps=30, coarse_steps=1, fine_steps=0, rate=0.15)
    common = invert(tiny_prior, photos, few)
    alone = invert(tiny_prior, photos, replace(few, common_steps=0))
    better = psnr(shown(tiny_prior, common), photos.images) - psnr(shown(tiny_prior, alone), photos.images)
    assert better.mean() > 1


class Astray(Encoder):
    """Sees the true latents, all wrong in the same way."""

    def __init__(self, truth):
        super().__init__(EncoderConfig(64, truth.ws.shape[2]))
        rng = torch.Generator().manual_seed(2)
        self.latents = truth.ws[:, 0] + 0.3 * torch.randn(truth.ws.shape[2], generator=rng)

    def forward(self, images, *, dtype=torch.float32):
        return self.latents[: len(images)]


def test_an_encoder_s_view_is_the_start_and_its_common_error_is_learned(tiny_prior, truth, photos):
    prior = replace(tiny_prior, encoder=Astray(truth))
    still = replace(QUICK, coarse_steps=1, fine_steps=0, rate=0.0, cameras=False)
    seen = invert(prior, photos, still)
    torch.testing.assert_close(seen.ws[:, 0], prior.encoder.latents, atol=1e-2, rtol=0)
    few = replace(QUICK, coarse_steps=3, fine_steps=0, rate=0.1)
    learned, plain = (invert(prior, photos, replace(few, common_steps=n)) for n in (1, 0))
    start, with_pilots, without = (
        psnr(shown(prior, found), photos.images).mean() for found in (seen, learned, plain)
    )
    assert start < without < with_pilots


def test_pilots_of_a_large_album_stay_as_they_were_found(tiny_prior, truth, photos, monkeypatch, capsys):
    prior = replace(tiny_prior, encoder=Astray(truth))
    config = replace(QUICK, common_steps=1, coarse_steps=2, fine_steps=0)
    again = invert(prior, photos, config)
    assert f"/{2 * (len(photos) + PILOTS)} " in capsys.readouterr().err
    monkeypatch.setattr(importlib.import_module("my3dgen.invert"), "SMALL", len(photos))
    kept = invert(prior, photos, config)
    assert f"/{2 * len(photos)} " in capsys.readouterr().err
    uncorrected = invert(prior, photos, replace(config, common_steps=0))
    for i in range(len(photos)):
        same_as = uncorrected if i in spread(len(photos), PILOTS) else again
        torch.testing.assert_close(kept.ws[i], same_as.ws[i], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(again.ws, uncorrected.ws, atol=1e-2)


def test_single_photos_and_w_plus(tiny_prior, photos):
    config = replace(QUICK, coarse_steps=8, fine_steps=2, alone_factor=2, space="w+", cameras=False)
    found = invert(tiny_prior, part(photos, 2), config)
    assert not torch.equal(found.ws[:, 0], found.ws[:, -1])
    torch.testing.assert_close(found.cameras, photos.cameras[2:3])
    assert psnr(shown(tiny_prior, found), photos.images[2:3]).item() > 20


def test_stopped_work_goes_on_to_the_same_result(tiny_prior, photos, tmp_path, monkeypatch, capsys):
    config = replace(QUICK, common_steps=4, coarse_steps=2, fine_steps=1)
    path = tmp_path / "me.inverting"
    whole = invert(tiny_prior, photos, config)

    module, saved = importlib.import_module("my3dgen.invert"), []
    save_checkpoint = module.save_checkpoint

    def save_twice_then_stop(*arguments):
        save_checkpoint(*arguments)
        saved.append(1)
        if len(saved) == 2:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_checkpoint", save_twice_then_stop)
        with pytest.raises(Stop):
            invert(tiny_prior, photos, config, unfinished=path)
    with safetensors.safe_open(path, "pt") as file:  # the common latent and one run of photos out of two
        assert set(file.keys()) == {"common.u", "common.moves", "ws.0", "cameras.0"}
    capsys.readouterr()
    again = invert(tiny_prior, photos, config, unfinished=path)
    assert "0/9 " in capsys.readouterr().err  # three photos of three steps are left
    assert torch.equal(again.ws, whole.ws)
    assert torch.equal(again.cameras, whole.cameras)


class Glance(Encoder):
    """Sees latents near the true ones, by a few means of the picture."""

    def __init__(self, truth):
        super().__init__(EncoderConfig(64, truth.ws.shape[2]))
        self.usual = truth.ws[:, 0].mean(0)

    def forward(self, images, *, dtype=torch.float32):
        means = torch.nn.functional.adaptive_avg_pool2d(images[:, :1], (4, 8)).flatten(1)
        return self.usual + 0.1 * means


@pytest.mark.parametrize("encoded", [False, True])
def test_photos_of_several_people_share_batches_and_come_out_as_alone(
    tiny_prior, truth, photos, encoded, monkeypatch
):
    """One of them has too few photos to have anything in common. In float32, whose rounding is small."""
    monkeypatch.setattr("my3dgen.fit.mixed_precision", lambda device: contextlib.nullcontext())
    prior = replace(tiny_prior, encoder=Glance(truth)) if encoded else tiny_prior
    other = replace(photos, images=photos.images.flip(3))
    albums = [part(photos, 0, 1, 2, 3, 4), part(other, 5), part(other, 3, 2, 1, 0)]
    config = replace(QUICK, common_steps=4, coarse_steps=2, fine_steps=1, alone_factor=2, batch=5)
    together = invert_many(prior, albums, config)
    for album, found in zip(albums, together, strict=True):
        alone = invert(prior, album, config)
        assert found.names == alone.names
        torch.testing.assert_close(found.ws, alone.ws, atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(found.cameras, alone.cameras, atol=1e-3, rtol=1e-3)


def test_place_finds_an_anchor_s_photo(tiny_prior, person, photos):
    found = place(tiny_prior, person, part(photos, 4), replace(QUICK, coarse_steps=2, fine_steps=1))
    assert found.alphas.shape == (1, 8, 6)
    assert (found.alphas.argmax(-1) == 4).all()
    torch.testing.assert_close(found.alphas.sum(-1), torch.ones(1, 8))
    torch.testing.assert_close(found.ws, torch.einsum("blk,kld->bld", found.alphas, person.anchors.ws))
    assert psnr(shown(tiny_prior, found, person.adapter), photos.images[4:5]).item() > 25


def test_what_the_encoder_gets_wrong_on_all_anchors_is_left_out_of_the_start(
    tiny_prior, truth, person, photos
):
    prior = replace(tiny_prior, encoder=Astray(truth))
    targets, statistics = targets_of(photos, prior.config), latent_statistics(prior.generator)
    weights = first_weights(prior, person, targets, statistics, Stage(1, 8, 8))
    torch.testing.assert_close(weights, torch.eye(6), atol=0.02, rtol=0)


@pytest.mark.parametrize("space", ["w", "w+"])
def test_places_stay_in_the_dilated_hull(tiny_prior, person, photos, space):
    other = replace(photos, images=photos.images.flip(3))  # nobody the anchors know
    config = replace(QUICK, coarse_steps=4, fine_steps=1, space=space, cameras=False)
    near, free = (place(tiny_prior, person, part(other, 0, 1), config, beta=b).alphas for b in (0.03, None))
    torch.testing.assert_close(near.sum(-1), torch.ones(2, 8))
    assert near.min() >= -0.0301 and free.min() < -0.05
    assert (near.std(1).max() > 1e-3) == (space == "w+")


def test_photos_are_found_with_an_adapter_in_all_of_w(tiny_prior, person, photos):
    found = invert(tiny_prior, part(photos, 2), replace(QUICK, cameras=False), person.adapter)
    assert psnr(shown(tiny_prior, found, person.adapter), photos.images[2:3]).item() > 20


def test_nearest_anchors_weigh_by_distance():
    weights = nearest_anchors(torch.tensor([[0.3, 0.1, 0.5], [2.0, 2.0, 2.0]]))
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert weights[0].argsort(descending=True).tolist() == [1, 0, 2]
    torch.testing.assert_close(weights[1], torch.full((3,), 1 / 3))


def test_refusals(tiny_prior, person, photos):
    other = replace(tiny_prior, sha256="0" * 64, name="other")
    with pytest.raises(PriorMismatchError, match="other"):
        place(other, person, photos, QUICK)
    with pytest.raises(UserError, match="no photos"):
        invert(tiny_prior, replace(part(photos), folder=None), QUICK)
    broken = replace(photos, cameras=torch.full_like(photos.cameras, float("nan")))
    with pytest.raises(UserError, match=r"a\.png.* diverged at step 0"):
        invert(tiny_prior, part(broken, 0), QUICK)


def test_a_place_does_not_depend_on_pixels_that_are_not_known(tiny_prior, truth, person, photos):
    known = torch.ones(1, 1, 64, 64)
    known[..., 16:40, 16:48] = 0
    one = part(photos, 3)
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    other = replace(one, images=torch.where(known > 0, one.images, noise))
    config = replace(QUICK, coarse_steps=3, fine_steps=1)
    a, b = (place(tiny_prior, person, album, config, known=known) for album in (one, other))
    assert torch.equal(a.alphas, b.alphas) and torch.equal(a.cameras, b.cameras)
    assert (a.alphas.argmax(-1) == 3).all()
    all_known = place(tiny_prior, person, other, config)
    assert not torch.equal(a.alphas, all_known.alphas)
    prior = replace(tiny_prior, encoder=Mean(truth))  # which sees every pixel
    a, b = (place(prior, person, album, config, known=known) for album in (one, other))
    assert torch.equal(a.alphas, b.alphas)


class Mean(Encoder):
    """A latent that any pixel moves."""

    def __init__(self, truth):
        super().__init__(EncoderConfig(64, truth.ws.shape[2]))
        self.latents = truth.ws[:, 0].mean(0)

    def forward(self, images, *, dtype=torch.float32):
        return self.latents + images.mean(dim=(1, 2, 3))[:, None]


def test_how_far_a_place_would_stray_without_the_bound(tiny_prior, person, photos):
    config = replace(QUICK, coarse_steps=4, fine_steps=1, cameras=False)
    other = replace(photos, images=photos.images.flip(3))
    bound, free = (
        place(tiny_prior, person, part(other, 0, 1), config, beta=beta, measure_stray=beta is not None)
        for beta in (0.0, None)
    )
    assert free.stray is None
    torch.testing.assert_close(bound.stray.weight, (-free.alphas.amin(dim=(1, 2))).clamp_min(0))
    strays = bound.stray.weight > 0
    assert strays.any() and torch.equal(bound.stray.distance > 0, strays)
    near = place(tiny_prior, person, part(photos, 4), config, beta=1.0, measure_stray=True)
    assert near.stray.weight.item() == 0 and near.stray.distance.item() == 0
