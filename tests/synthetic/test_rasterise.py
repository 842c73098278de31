"""The z-buffer against a readable loop, and its promises."""

import torch

from my3dgen.synthetic import rasterise

SIZE = 40


def _triangles() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    screen = torch.rand(2, 30, 3, generator=rng) * torch.tensor([50.0, 50.0, 1.0]) + torch.tensor(
        [-5.0, -5.0, 1.0]
    )
    triangles = torch.stack([torch.randperm(30, generator=rng)[:3] for _ in range(50)])
    return screen, triangles


def _slow(screen: torch.Tensor, triangles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest depth and triangle per pixel (-1 where empty), one triangle and pixel at a time."""
    depth, owner = torch.full((SIZE, SIZE), 1e9), torch.full((SIZE, SIZE), -1)
    step = torch.arange(SIZE) + 0.5
    py, px = torch.meshgrid(step, step, indexing="ij")
    for t, corners in enumerate(triangles.tolist()):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = screen[corners].double().tolist()
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area >= 0:  # clockwise on a screen with y down: a back face
            continue
        wa = ((bx - px) * (cy - py) - (cx - px) * (by - py)) / area
        wb = ((cx - px) * (ay - py) - (ax - px) * (cy - py)) / area
        wc = 1 - wa - wb
        z = 1 / (wa / az + wb / bz + wc / cz)
        nearer = (wa >= 0) & (wb >= 0) & (wc >= 0) & (z < depth)
        depth, owner = torch.where(nearer, z, depth), torch.where(nearer, t, owner)
    return depth, owner


def test_matches_a_loop_over_triangles() -> None:
    screen, triangles = _triangles()
    buffer = rasterise.new_buffer(2, SIZE, "cpu")
    rasterise.draw_triangles(buffer, SIZE, screen, triangles, first=7)
    depth, primitive, hit = (q.view(2, SIZE, SIZE) for q in rasterise.unpack(buffer))
    for view in range(2):
        slow_depth, slow_owner = _slow(screen[view], triangles)
        owner = torch.where(hit[view], primitive[view] - 7, -1)
        assert (owner != slow_owner).float().mean() < 0.003  # float32 against float64 on edges
        both = (owner == slow_owner) & hit[view]
        assert 0.2 < both.float().mean() < 0.99
        torch.testing.assert_close(depth[view][both], slow_depth[both].float(), atol=1e-5, rtol=1e-5)


def test_weights_reproduce_the_depth() -> None:
    screen, triangles = _triangles()
    buffer = rasterise.new_buffer(2, SIZE, "cpu")
    rasterise.draw_triangles(buffer, SIZE, screen, triangles)
    depth, primitive, hit = rasterise.unpack(buffer)
    pixel = hit.nonzero()[:, 0]
    corner, weight = rasterise.barycentric(screen, triangles, SIZE, pixel, primitive[pixel])
    view = pixel // SIZE**2
    z = (screen[view[:, None], corner, 2] * weight).sum(1)
    torch.testing.assert_close(z, depth[pixel], atol=1e-5, rtol=1e-5)
    assert weight.min() > -1e-3


def test_order_of_triangles_does_not_matter() -> None:
    screen, triangles = _triangles()
    order = torch.randperm(len(triangles), generator=torch.Generator().manual_seed(1))
    pictures = []
    for chosen in (triangles, triangles[order]):
        buffer = rasterise.new_buffer(2, SIZE, "cpu")
        rasterise.draw_triangles(buffer, SIZE, screen, chosen)
        pictures.append(buffer >> 32)
    assert torch.equal(*pictures)


def test_segments_have_no_gaps_and_respect_depth() -> None:
    line = torch.tensor([[[[2.5, 3.5, 2.0], [33.5, 20.5, 2.0], [34.5, 36.5, 2.0]]]])
    buffer = rasterise.new_buffer(1, SIZE, "cpu")
    rasterise.draw_segments(buffer, SIZE, line, first=0)
    _, number, hit = rasterise.unpack(buffer)
    picture = hit.view(SIZE, SIZE)
    assert picture.any(0)[3:33].all()  # the first segment moves mostly across, the second down
    assert picture.any(1)[21:36].all()
    assert set((number[hit] // rasterise.STEPS).tolist()) == {0, 1}
    wall = torch.tensor([[[-9.0, -9.0, 1.0], [-9.0, 99.0, 1.0], [99.0, -9.0, 1.0]]])
    covered = rasterise.new_buffer(1, SIZE, "cpu")
    rasterise.draw_triangles(covered, SIZE, wall, torch.tensor([[0, 1, 2]]), first=9999)
    front = rasterise.unpack(covered)[1].view(SIZE, SIZE) == 9999
    assert front[3, 2]
    rasterise.draw_segments(covered, SIZE, line, first=0)
    assert (rasterise.unpack(covered)[1].view(SIZE, SIZE)[front] == 9999).all()


def test_views_in_parts_give_the_same_picture() -> None:
    rng = torch.Generator().manual_seed(3)
    lines = torch.rand(3, 20, 4, 3, generator=rng) * torch.tensor([40.0, 40.0, 1.0]) + torch.tensor(
        [0.0, 0.0, 1.0]
    )
    whole, parts = (rasterise.new_buffer(3, SIZE, "cpu") for _ in range(2))
    rasterise.draw_segments(whole, SIZE, lines, first=0)
    rasterise.draw_segments(parts, SIZE, lines, first=0, points_at_once=300)
    assert torch.equal(whole, parts)
