"""Identity: aligned by camera or by points; the same face stays the same, another does not."""

import pytest
import torch
from PIL import Image
from skimage import data

from my3dgen.cameras import camera_from_angles, project
from my3dgen.errors import UserError
from my3dgen.faces.build import Portrait, pixels, portrait
from my3dgen.identity import (
    FIVE,
    PADDING,
    TEMPLATE,
    chip_grid,
    load_identity,
    similarity,
    similarity_transform,
)


@pytest.fixture(scope="module")
def astronaut() -> Portrait:
    return portrait(Image.fromarray(data.astronaut()), 256)


def test_the_fit_finds_a_similarity():
    target = torch.tensor(TEMPLATE)
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    source = (target @ turn.T * 3 + torch.tensor([5.0, -2.0]))[None]
    found = similarity_transform(source, target)
    torch.testing.assert_close(
        source @ found[:, :, :2].transpose(1, 2) + found[:, None, :, 2], target[None], rtol=0, atol=1e-5
    )


def test_a_chip_has_the_points_at_their_places():
    expected = (torch.tensor(TEMPLATE) + PADDING) / (1 + 2 * PADDING) * 150
    points = torch.tensor([0.5, 0.5]) + (torch.tensor(TEMPLATE) - 0.5) * 0.3
    grid = chip_grid(points[None] * 2 - 1)[0]  # where each chip pixel lies in the image
    for place, point in zip(expected, points, strict=True):
        column, row = place.long().tolist()
        there = (grid[row, column] + 1) / 2
        assert (there - point).abs().max() < 0.3 / 100


def test_the_camera_aligns_like_the_landmarks(astronaut):
    network = load_identity()
    image, camera = pixels(astronaut.image)[None], astronaut.camera[None]
    by_camera, by_points = network.embed(image, camera), network.embed(image, points=astronaut.points[None])
    assert float(similarity(by_camera, by_points)) > 0.75
    projected = project(network.canonical[None], camera)[0]
    assert (projected - astronaut.points).norm(dim=1).max() < 0.05
    assert len(FIVE) == 5


def test_a_face_keeps_its_identity_in_a_mirror_and_loses_it_when_mixed_up(astronaut):
    network = load_identity()
    image, camera = pixels(astronaut.image)[None], astronaut.camera[None]
    here = network.embed(image, camera)
    darker = network.embed(image * 0.7 - 0.1, camera)
    stretched = torch.nn.functional.interpolate(image[..., 60:196], (256, 256), mode="bilinear")
    assert float(similarity(here, here)) == 1
    assert float(similarity(here, darker)) > 0.7
    assert float(similarity(here, network.embed(stretched, camera))) < 0.7


def test_embeddings_are_differentiable_at_any_size(astronaut):
    network = load_identity()
    camera = camera_from_angles(0.2, 0.1)
    for size in (64, 512):
        image = torch.zeros(1, 3, size, size, requires_grad=True)
        (gradient,) = torch.autograd.grad(network.embed(image, camera).sum(), image)
        assert gradient.abs().sum() > 0
    assert not any(p.requires_grad for p in network.parameters())


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="there is dlib"):
        load_identity("arcface")
