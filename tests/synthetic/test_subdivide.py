"""Catmull-Clark against values known in closed form."""

import numpy as np
import torch

from my3dgen.synthetic.subdivide import apply, catmull_clark, neighbour_mean, triangulate

CUBE = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
CUBE_QUADS = np.array(
    [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]], dtype=np.int64
)


def test_cube() -> None:
    operator, quads = catmull_clark(CUBE_QUADS, 8)
    points = operator @ CUBE
    assert points.shape == (8 + 12 + 6, 3)
    torch.testing.assert_close(points[:8], CUBE * 5 / 9)
    torch.testing.assert_close(points[8:20].abs().sum(1), torch.full((12,), 1.5))  # (3/4, 3/4, 0)
    torch.testing.assert_close(points[20:].norm(dim=1), torch.ones(6))
    assert quads.shape == (24, 4)
    corners = points[torch.from_numpy(quads)]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0])
    coarse = CUBE[torch.from_numpy(CUBE_QUADS)]
    outward = torch.linalg.cross(coarse[:, 1] - coarse[:, 0], coarse[:, 3] - coarse[:, 0])
    sign = (outward * coarse.mean(1)).sum(1).repeat_interleave(4).sign()
    assert ((normal * corners.mean(1)).sum(1).sign() == sign).all()  # orientation is kept


def test_open_grid_keeps_its_corners_and_stays_flat() -> None:
    index = np.arange(9).reshape(3, 3)
    quads = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1).reshape(-1, 4)
    points = torch.tensor([[i // 3, i % 3, 0] for i in range(9)], dtype=torch.float32)
    operator, _ = catmull_clark(quads, 9)
    fine = operator @ points
    torch.testing.assert_close(fine[1], points[1])  # middle of a straight side: 1/8, 3/4, 1/8
    torch.testing.assert_close(fine[4], points[4])
    assert (fine[:, 2] == 0).all()
    torch.testing.assert_close((operator @ torch.ones(9, 1)), torch.ones(len(fine), 1))


def test_operators_apply_to_every_scene() -> None:
    operator, quads = catmull_clark(CUBE_QUADS, 8)
    scenes = torch.stack([CUBE, 3 * CUBE + 1])
    torch.testing.assert_close(apply(operator, scenes)[1], operator @ scenes[1])
    mean = neighbour_mean(torch.from_numpy(quads), 26)
    torch.testing.assert_close(apply(mean, torch.ones(2, 26, 3)), torch.ones(2, 26, 3))
    assert triangulate(torch.from_numpy(quads)).shape == (48, 3)
