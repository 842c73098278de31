"""Tri-plane sampling as one kernel forward and one backward (CUDA, Triton).

Twin of `my3dgen.ops.triplane.sample_planes`: twelve texels of all features are read per point from
channel-last planes and averaged on chip, so the per-plane features never reach memory. The backward
pass scatters into float32 planes with atomics, hence its last bits vary from run to run. Points get no
gradient.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

POINTS_PER_PROGRAM = 64


@triton.jit
@no_type_check  # the compiler reads the function itself
def _corner(position, limit: tl.constexpr):
    texel = (position + 1) * (limit / 2) - 0.5
    low = tl.floor(texel)
    return texel - low, low.to(tl.int32)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _coordinate(points, base, axis: tl.constexpr, inside):
    return tl.load(points + base * 3 + axis, mask=inside, other=0.0)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _gather(
    total, planes, points, base, stack, inside, feature,
    U: tl.constexpr, V: tl.constexpr, SIDE: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    du, u0 = _corner(_coordinate(points, base, U, inside), SIDE)
    dv, v0 = _corner(_coordinate(points, base, V, inside), SIDE)
    for row in tl.static_range(2):
        for column in tl.static_range(2):
            u, v = u0 + column, v0 + row
            weight = (du if column == 1 else 1 - du) * (dv if row == 1 else 1 - dv)
            hit = inside & (u >= 0) & (u < SIDE) & (v >= 0) & (v < SIDE)
            texel = (stack * SIDE * SIDE + v * SIDE + u) * FEATURES
            value = tl.load(planes + texel[:, None] + feature[None], mask=hit[:, None], other=0.0)
            total += value.to(tl.float32) * weight[:, None]
    return total


@triton.jit
@no_type_check  # the compiler reads the function itself
def _scatter(
    incoming, planes_gradient, points, base, stack, inside, feature,
    U: tl.constexpr, V: tl.constexpr, SIDE: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    du, u0 = _corner(_coordinate(points, base, U, inside), SIDE)
    dv, v0 = _corner(_coordinate(points, base, V, inside), SIDE)
    for row in tl.static_range(2):
        for column in tl.static_range(2):
            u, v = u0 + column, v0 + row
            weight = (du if column == 1 else 1 - du) * (dv if row == 1 else 1 - dv)
            hit = inside & (u >= 0) & (u < SIDE) & (v >= 0) & (v < SIDE)
            texel = (stack * SIDE * SIDE + v * SIDE + u) * FEATURES
            place = planes_gradient + texel[:, None] + feature[None]
            tl.atomic_add(place, incoming * weight[:, None], mask=hit[:, None], sem="relaxed")


@triton.jit
@no_type_check  # the compiler reads the function itself
def _forward(
    planes, points, out, count,
    U0: tl.constexpr, V0: tl.constexpr, U1: tl.constexpr, V1: tl.constexpr,
    U2: tl.constexpr, V2: tl.constexpr,
    SIDE: tl.constexpr, FEATURES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    base = image * count + index
    feature = tl.arange(0, FEATURES)
    total = tl.zeros((BLOCK, FEATURES), tl.float32)
    total = _gather(total, planes, points, base, image * 3, inside, feature, U0, V0, SIDE, FEATURES)
    total = _gather(total, planes, points, base, image * 3 + 1, inside, feature, U1, V1, SIDE, FEATURES)
    total = _gather(total, planes, points, base, image * 3 + 2, inside, feature, U2, V2, SIDE, FEATURES)
    tl.store(
        out + base[:, None] * FEATURES + feature[None],
        (total * (1.0 / 3.0)).to(out.dtype.element_ty),
        mask=inside[:, None],
    )


@triton.jit
@no_type_check  # the compiler reads the function itself
def _backward(
    gradient, points, planes_gradient, count,
    U0: tl.constexpr, V0: tl.constexpr, U1: tl.constexpr, V1: tl.constexpr,
    U2: tl.constexpr, V2: tl.constexpr,
    SIDE: tl.constexpr, FEATURES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    base = image * count + index
    feature = tl.arange(0, FEATURES)
    incoming = tl.load(gradient + base[:, None] * FEATURES + feature[None], mask=inside[:, None], other=0.0)
    incoming = incoming.to(tl.float32) * (1.0 / 3.0)
    stack = image * 3
    _scatter(incoming, planes_gradient, points, base, stack, inside, feature, U0, V0, SIDE, FEATURES)
    _scatter(incoming, planes_gradient, points, base, stack + 1, inside, feature, U1, V1, SIDE, FEATURES)
    _scatter(incoming, planes_gradient, points, base, stack + 2, inside, feature, U2, V2, SIDE, FEATURES)


class _SamplePlanes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, planes: Tensor, points: Tensor, axes: tuple[tuple[int, int], ...]) -> Tensor:
        images, _, side, _, features = planes.shape
        count = points.shape[1]
        out = torch.empty(images, count, features, device=planes.device, dtype=planes.dtype)
        ctx.save_for_backward(points)
        ctx.shape, ctx.dtype, ctx.axes = planes.shape, planes.dtype, axes
        grid = (triton.cdiv(count, POINTS_PER_PROGRAM), images)
        flat = [axis for pair in axes for axis in pair]
        _forward[grid](planes, points, out, count, *flat, side, features, POINTS_PER_PROGRAM)
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (points,) = ctx.saved_tensors
        images, _, side, _, features = ctx.shape
        count = points.shape[1]
        planes_gradient = torch.zeros(ctx.shape, device=gradient.device, dtype=torch.float32)
        grid = (triton.cdiv(count, POINTS_PER_PROGRAM), images)
        flat = [axis for pair in ctx.axes for axis in pair]
        _backward[grid](
            gradient.contiguous(), points, planes_gradient, count, *flat, side, features,
            POINTS_PER_PROGRAM,
        )  # fmt: skip
        return planes_gradient.to(ctx.dtype), None, None


def sample_planes_fused(planes: Tensor, points: Tensor, axes: tuple[tuple[int, int], ...]) -> Tensor:
    """Mean of three bilinear lookups, `batch points features`, in the planes' dtype.

    `planes` is `batch 3 features side side` (a power of two of features); `points` is `batch points 3`
    in [-1, 1] across the planes; `axes` names, per plane, the coordinate that runs along columns and the
    one that runs along rows. Zeros outside.
    """
    channel_last = planes.permute(0, 1, 3, 4, 2).contiguous()
    return _SamplePlanes.apply(channel_last, points.float().contiguous(), axes)
