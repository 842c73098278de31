import json
import struct

import numpy as np
import pytest
import torch
import trimesh

from my3dgen.apps.mesh import (
    density_grid,
    export_mesh,
    extract_surface,
    keep_largest,
    save_mesh,
    soften,
    surface_level,
    voxel_centres,
)
from my3dgen.apps.paint import VIEWS, fill, paint, see, spread
from my3dgen.apps.preview import preview, rasterise
from my3dgen.apps.subject import subject_of
from my3dgen.cameras import angles_from_camera, camera_from_angles
from my3dgen.errors import UserError


def balls(resolution=40):
    """A ball of radius 0.3 around (0.05, 0, 0.1) and a speck away from it, as densities."""
    x, y, z = np.meshgrid(*[voxel_centres(resolution, 1.0)] * 3, indexing="ij")
    ball = 0.3 - np.sqrt((x - 0.05) ** 2 + y**2 + (z - 0.1) ** 2)
    speck = 0.05 - np.sqrt((x + 0.4) ** 2 + (y - 0.4) ** 2 + (z + 0.4) ** 2)
    return (1000 * np.maximum(ball, speck)).astype(np.float32)


def test_surface_is_in_place_closed_and_outward():
    vertices, faces, floaters, share = keep_largest(*extract_surface(balls(), 0.0, 1.0))
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert floaters == 1 and 0 < share < 0.1
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.3**3, rel=0.02)  # positive: normals point outward
    assert np.allclose(mesh.bounds.mean(0), [0.05, 0, 0.1], atol=0.005)
    assert np.linalg.norm(vertices - [0.05, 0, 0.1], axis=1) == pytest.approx(0.3, abs=0.01)


def test_softening_removes_ripples_and_keeps_the_place():
    rng = np.random.default_rng(0)
    rough = balls() + 20 * rng.standard_normal((40, 40, 40)).astype(np.float32)
    radii = []
    for grid in (rough, soften(rough, 0.0, 1.0)):
        vertices, _, _, _ = keep_largest(*extract_surface(grid, 0.0, 1.0))
        radii.append(np.linalg.norm(vertices - [0.05, 0, 0.1], axis=1))
    assert radii[1].std() < 0.5 * radii[0].std()
    assert radii[1].mean() == pytest.approx(0.3, abs=0.01)
    assert soften(rough, 0.0, 0.0) is rough


def test_the_border_closes_what_the_box_cuts():
    full = np.full((16, 16, 16), 50.0, np.float32)
    vertices, faces = extract_surface(full, 10.0, 2.0, border=3)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    assert np.abs(vertices).max() <= 1 - 2 * 2 / 16
    with pytest.raises(UserError, match="choose a lower --level"):
        extract_surface(full, 60.0, 2.0)


def test_density_grid_is_the_field_in_the_right_order(prior):
    subject = subject_of(prior)
    planes = subject.generator.planes(subject.latent())
    grid = density_grid(subject.generator, planes, 16, chunk=700)
    axis = voxel_centres(16, subject.generator.config.box_warp)
    point = torch.tensor([[[axis[3], axis[7], axis[12]]]], dtype=torch.float32)
    _, sigma = subject.generator.query(planes, point)
    assert grid[3, 7, 12] == pytest.approx(sigma.item(), abs=1e-4)


def ball_generator(prior, monkeypatch):
    """The toy prior with a ball of radius 0.25 around (0.1, 0, 0): red where x > 0.1, else green."""
    from my3dgen.prior.generator import Generator

    def field(self, planes, points, dtype):
        offset = points - points.new_tensor([0.1, 0.0, 0.0])
        sigma = 400 * (0.25 - offset.norm(dim=-1))
        colours = points.new_zeros(*points.shape[:2], self.config.render_features)
        colours[..., 0], colours[..., 1] = (offset[..., 0] > 0), (offset[..., 0] <= 0)
        return colours, sigma

    monkeypatch.setattr(Generator, "_field", field)
    # the head of random weights would hide the colours; pictures are the raw rendering, enlarged
    superresolution = type(prior.generator.superresolution)
    monkeypatch.setattr(
        superresolution,
        "forward",
        lambda self, features, *rest: torch.nn.functional.interpolate(features[:, :3], scale_factor=4),
    )
    return prior


def test_a_known_shape_comes_out_with_its_colours(prior, monkeypatch):
    mesh, report = export_mesh(ball_generator(prior, monkeypatch), resolution=48)
    assert report.watertight and report.floaters == 0
    assert np.allclose(mesh.bounds.mean(0), [0.1, 0, 0], atol=0.01)
    radius = np.linalg.norm(mesh.vertices - [0.1, 0, 0], axis=1)
    assert radius.mean() == pytest.approx(0.25, abs=0.03) and radius.std() < 0.005
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3].astype(int)
    right, left = mesh.vertices[:, 0] > 0.15, mesh.vertices[:, 0] < 0.05
    assert np.median(colours[right, 0] - colours[right, 1]) > 150
    assert np.median(colours[left, 1] - colours[left, 0]) > 150


def test_surface_level_is_where_outlines_are(prior, monkeypatch):
    subject = subject_of(ball_generator(prior, monkeypatch))
    ws = subject.latent()
    level = surface_level(subject, ws, subject.generator.planes(ws))
    assert -10 < level < 20  # within 0.05 of the ball's radius


def test_surface_level_where_no_outline_is_seen(prior, monkeypatch):
    from my3dgen.prior.generator import Generator

    def fog(self, planes, points, dtype):
        return points.new_zeros(*points.shape[:2], self.config.render_features), points[..., 0] * 0 - 1000

    monkeypatch.setattr(Generator, "_field", fog)
    subject = subject_of(prior)
    ws = subject.latent()
    assert surface_level(subject, ws, subject.generator.planes(ws)) == 10.0


def test_glb_and_ply_open_again(tmp_path):
    ball = trimesh.creation.icosphere(2, 0.3)
    ball.visual = trimesh.visual.ColorVisuals(
        ball, vertex_colors=np.tile([188, 64, 0], (len(ball.vertices), 1))
    )
    glb, ply = save_mesh(ball, tmp_path / "new" / "a.glb"), save_mesh(ball, tmp_path / "new" / "a.ply")
    for path in (glb, ply):
        again = trimesh.load_mesh(path)
        assert again.is_watertight and again.volume == pytest.approx(ball.volume, rel=1e-4)
    assert np.asarray(trimesh.load_mesh(ply).visual.vertex_colors)[0].tolist() == [188, 64, 0, 255]
    data = glb.read_bytes()
    length = struct.unpack("<I", data[12:16])[0]
    tree = json.loads(data[20 : 20 + length])
    part = tree["meshes"][0]["primitives"][0]
    assert {"POSITION", "NORMAL", "COLOR_0"} <= set(part["attributes"])
    colour = tree["accessors"][part["attributes"]["COLOR_0"]]
    assert colour["componentType"] == 5126  # float
    assert colour["max"][0] == pytest.approx(0.5029, abs=1e-3)  # 188/255 in linear light
    material = tree["materials"][part["material"]]["pbrMetallicRoughness"]
    assert material["metallicFactor"] == 0 and material["roughnessFactor"] == 1
    assert sorted(p.name for p in glb.parent.iterdir()) == ["a.glb", "a.ply"]
    with pytest.raises(UserError, match=r"\.obj"):
        save_mesh(ball, tmp_path / "a.obj")


def test_resolution_has_limits(prior):
    with pytest.raises(UserError, match="16 to 512"):
        export_mesh(prior, resolution=2048)


def test_a_point_is_seen_only_from_its_side_and_in_front():
    camera = camera_from_angles(0.0, 0.0)
    points = torch.tensor([[0.0, 0.0, 0.3], [0.0, 0.0, -0.3], [0.1, 0.0, 0.3], [0.9, 0.0, 0.0]])
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.0, 0.0, 1.0]])
    weights = see(points, normals, camera, 0.05)
    assert weights[0] > 0.9  # squarely
    assert weights[1:].tolist() == [0, 0, 0]  # hidden, turned away, outside the picture


def test_fill_takes_the_nearest():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0.9, 0, 0]])
    colours = np.array([[1.0, 0, 0], [0, 1, 0], [9, 9, 9]])
    assert fill(vertices, colours, np.array([True, True, False]))[2].tolist() == [0, 1, 0]


def test_rasteriser_covers_and_orders_like_a_naive_one():
    rng = np.random.default_rng(0)
    corners = rng.uniform(-3, 19, (40, 3, 2))
    pixels, nearness = corners.reshape(-1, 2), rng.uniform(0, 1, 120)
    faces = np.arange(120).reshape(-1, 3)
    shown, weights = rasterise(pixels, nearness, faces, 16)
    for y in range(16):
        for x in range(16):
            best, depth = -1, -np.inf
            for index, corner in enumerate(corners):
                system = np.vstack([corner.T, np.ones(3)])
                bary = np.linalg.solve(system, [x + 0.5, y + 0.5, 1])
                if (bary >= 0).all() and bary @ nearness[faces[index]] > depth:
                    best, depth = index, bary @ nearness[faces[index]]
            assert shown[y, x] == best
            if best >= 0:
                assert weights[y, x] @ nearness[faces[best]] == pytest.approx(depth)


def test_preview_shows_the_side_that_faces_the_camera():
    ball = trimesh.creation.icosphere(3, 0.3)
    sides = np.where(ball.vertices[:, :1] > 0, [[255, 0, 0]], [[0, 0, 255]])
    ball.visual = trimesh.visual.ColorVisuals(ball, vertex_colors=sides.astype(np.uint8))
    page = preview(ball, yaws=(-np.pi / 2, np.pi / 2), size=64)
    pixels = np.asarray(page).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 2] < 50)
    blue = (pixels[..., 2] > 200) & (pixels[..., 0] < 50)
    assert np.where(blue)[1].max() < np.where(red)[1].min()  # yaw -90 sees -x, yaw 90 sees +x


def test_colours_nobody_saw_are_smooth_between_those_that_were_seen():
    ball = trimesh.creation.icosphere(4, 0.3)
    height = ball.vertices[:, 1] / 0.3
    seen = np.abs(height) > 0.8  # a red cap, a green one, and a wide belt of nonsense
    truth = np.stack([height > 0, height < 0, 0 * height], axis=1).astype(float)
    given = np.where(seen[:, None], truth, np.random.default_rng(0).random((len(height), 3)))
    colours = spread(given, seen.astype(float), ball.faces)
    assert np.abs(colours - truth)[np.abs(height) > 0.9].max() < 0.1
    belt = np.abs(height) < 0.05
    assert np.abs(colours[belt] - [0.5, 0.5, 0]).max() < 0.1
    assert np.abs(np.diff(colours[ball.edges_unique], axis=1)).max() < 0.2
    assert spread(given, np.zeros(len(height)), ball.faces) is given


def test_colours_come_from_where_the_prior_was_trained(prior, monkeypatch):
    """Whatever a prior imagines beyond its training cameras, here blue, is on no vertex."""
    from my3dgen.prior.generator import Generator

    real, prior = Generator.render, ball_generator(prior, monkeypatch)
    subject = subject_of(prior)
    yaws = []

    def render(self, planes, camera, *rest, **named):
        made = real(self, planes, camera, *rest, **named)
        yaws.append(float(angles_from_camera(camera)[0]))
        return made

    monkeypatch.setattr(Generator, "render", render)
    ball = trimesh.creation.icosphere(3, 0.25)
    ball.apply_translation([0.1, 0, 0])
    ws = subject.latent()
    planes = subject.generator.planes(ws)
    colours = paint(subject, ws, planes, ball.vertices, ball.vertex_normals, ball.faces)
    assert len(yaws) == len(VIEWS) and np.abs(yaws).max() < 1.15  # the clamp of the training cameras
    back = ball.vertices[:, 2] < -0.15
    assert colours[back, 2].max() < 60 and colours[back, :2].max(1).min() > 80  # red to green, no white
