"""Rays and samples along them against EG3D's numbers (EG3D spec 1.9, 1.10, 1.12)."""

import json
import math
from pathlib import Path

import torch

from my3dgen.cameras import eg3d_look_at
from my3dgen.prior.importance import importance_depths
from my3dgen.prior.rays import box_limits, camera_rays, filled_limits, stratified_depths

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "eg3d-golden.json").read_text())["micro"]


def test_directions() -> None:
    origins, directions = camera_rays(eg3d_look_at(math.pi / 2 + 0.4, math.pi / 2 - 0.2), 2)
    case = GOLDEN["rays_res2"]
    torch.testing.assert_close(origins[0, 0], torch.tensor(case["origins0"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(directions[0], torch.tensor(case["dirs_rowmajor"]), atol=1e-6, rtol=0)


def test_directions_with_skew() -> None:
    case = GOLDEN["rays_res2_skew"]
    label = torch.cat([torch.eye(4).flatten(), torch.tensor(case["K"])])[None]
    _, directions = camera_rays(label, 2)
    torch.testing.assert_close(directions[0], torch.tensor(case["dirs_rowmajor"]), atol=1e-6, rtol=0)


def test_box_limits() -> None:
    case = GOLDEN["ray_limits_box"]
    origins, directions = (torch.tensor([case[key]], dtype=torch.float32) for key in ("o", "d"))
    limits = torch.stack([x[0, :, 0] for x in box_limits(origins, directions, float(case["box"]))])
    torch.testing.assert_close(limits, torch.tensor(case["out"]))


def test_rays_that_miss_get_the_limits_of_the_others() -> None:
    entry = torch.tensor([[[1.0], [2.0], [-1.0]]])
    leave = torch.tensor([[[3.0], [5.0], [-2.0]]])
    near, far = filled_limits(entry, leave)
    assert near.flatten().tolist() == [1, 2, 1]
    assert far.flatten().tolist() == [3, 5, 2]  # the largest entry, as EG3D has it
    near, far = filled_limits(entry[:, 2:], leave[:, 2:])
    assert (near.item(), far.item()) == (-1, -2)


def test_stratified_depths() -> None:
    jitter = torch.full((1, 1, 4), 0.5)
    torch.testing.assert_close(
        stratified_depths(2.0, 3.5, jitter)[0, 0], torch.tensor([2.25, 2.75, 3.25, 3.75])
    )
    per_ray = stratified_depths(torch.tensor([[[2.0]]]), torch.tensor([[[3.5]]]), jitter)
    torch.testing.assert_close(per_ray, stratified_depths(2.0, 3.5, jitter))
    disparity = stratified_depths(1.0, 4.0, torch.zeros(1, 1, 3), disparity=True)
    torch.testing.assert_close(disparity[0, 0], torch.tensor([1.0, 1.6, 4.0]))


def test_importance_depths() -> None:
    case = GOLDEN["importance"]
    depths = torch.tensor(case["z"]).expand(1, 2, -1)
    u = ((torch.arange(case["n"]) + 0.5) / case["n"]).expand(1, 2, -1)
    found = importance_depths(depths, torch.tensor([case["weights"]]), u)
    torch.testing.assert_close(found[0], torch.tensor(case["samples"]), atol=2e-6, rtol=0)


def test_importance_of_a_single_ray_carries_no_gradient() -> None:
    weights = torch.rand(1, 1, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    depths = torch.linspace(2, 3, 6).reshape(1, 1, 6)
    found = importance_depths(depths, weights, torch.tensor([[[0.0, 0.5, 0.999]]]))
    assert not found.requires_grad
    assert ((found >= 2) & (found <= 3)).all()
