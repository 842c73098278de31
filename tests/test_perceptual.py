"""Perceptual distance: it orders changes as people do, and its features can be cached."""

import pytest
import torch
import torch.nn.functional as F
from skimage import data

from my3dgen.errors import MissingWeightsError, UserError
from my3dgen.perceptual import load_perceptual
from my3dgen.weights import networks

NAMES = ("squeeze-feat", "lite0-feat")


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    pixels = torch.from_numpy(data.astronaut()[30:222, 128:320].copy())
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.mark.parametrize("name", NAMES)
def test_lost_detail_counts_more_than_tone_at_the_same_squared_error(name, face):
    network = load_perceptual(name)
    blurred = F.interpolate(F.avg_pool2d(face, 4), scale_factor=4, mode="bilinear")
    error = (blurred - face).square().mean()
    brighter = face + error.sqrt()
    equal, tone, blur = network(face.expand(3, -1, -1, -1), torch.cat([face, brighter, blurred])).tolist()
    assert abs(equal) < 1e-5
    assert 0 < 4 * tone < blur


@pytest.mark.parametrize("name", NAMES)
def test_cached_features_give_the_same_distance_and_gradient(name, face):
    network = load_perceptual(name)
    image = (face * 0.9).requires_grad_()
    direct = network(image, face)
    (one,) = torch.autograd.grad(direct.sum(), image)
    target = network.features(face)
    (two,) = torch.autograd.grad(network.distance(network.features(image), target).sum(), image)
    torch.testing.assert_close(one, two)
    assert one.abs().max() > 0
    assert not any(p.requires_grad for p in network.parameters())


def test_distance_is_that_of_unit_vectors(face):
    network = load_perceptual("squeeze-feat")
    a, b = network.features(face), network.features(face.flip(3))
    expected = sum(
        (F.normalize(p, dim=1) - F.normalize(q, dim=1)).square().sum(1).mean()
        for p, q in zip(a, b, strict=True)
    )
    torch.testing.assert_close(network.distance(a, b)[0], torch.as_tensor(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("squeeze-feat", [64, 128, 256, 384, 384, 512, 512]), ("lite0-feat", [16, 24, 40, 112, 320])],
)
def test_stages(name, channels):
    network = load_perceptual(name)
    features = network.features(torch.zeros(1, 3, 64, 64))
    assert [f.shape[1] for f in features] == channels
    assert network.pooled(torch.zeros(2, 3, 64, 64)).shape == (2, channels[-1])


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="squeeze-feat, lite0-feat"):
        load_perceptual("vgg")


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "FOLDER", tmp_path)
    with pytest.raises(MissingWeightsError, match="missing from this installation"):
        networks.load_tensors("squeezenet-1.1")
    (tmp_path / "squeezenet-1.1.safetensors").write_bytes(b"damaged")
    with pytest.raises(MissingWeightsError, match="sha256 differs"):
        networks.load_tensors("squeezenet-1.1")


def test_joined_expansions_are_the_two_side_by_side():
    from my3dgen.perceptual import Fire

    torch.manual_seed(0)
    fire, x = Fire(8, 4, 6).requires_grad_(False), torch.randn(2, 8, 5, 7)
    apart = fire(x)
    fire.join()
    torch.testing.assert_close(fire(x), apart)
