"""Parts of the renderer's kernels: lookups in planes, the decoder's curves, thickness of the medium."""

import math
from typing import no_type_check

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
LN2, LOG2E = tl.constexpr(math.log(2)), tl.constexpr(1 / math.log(2))


@triton.jit
@no_type_check  # the compiler reads the function itself
def softplus(x):
    """log(1 + exp x), to full relative precision where it is tiny, as in empty space."""
    e = tl.exp2(-tl.abs(x) * LOG2E)
    series = e * (1 - e * (0.5 - e * (0.33333333 - e * 0.25)))
    return tl.maximum(x, 0.0) + tl.where(e < 0.02, series, tl.log2(1 + e) * LN2)


@triton.jit
@no_type_check  # the compiler reads the function itself
def absorbed(thickness):
    """1 - exp(-thickness), to full relative precision."""
    series = thickness * (1 - thickness * (0.5 - thickness * (0.16666667 - thickness * 0.041666667)))
    return tl.where(thickness < 0.02, series, 1 - tl.exp2(-thickness * LOG2E))


@triton.jit
@no_type_check  # the compiler reads the function itself
def transmitted(thickness):
    """exp(-thickness)"""
    return tl.exp2(-thickness * LOG2E)


@triton.jit
@no_type_check  # the compiler reads the function itself
def thickness_of(density, next_density, depth, next_depth):
    """Optical thickness between two samples; 0 where they coincide."""
    step = next_depth - depth
    return tl.where(step > 0, softplus((density + next_density) * 0.5 - 1) * step, 0.0)


@triton.jit
@no_type_check  # the compiler reads the function itself
def vector(vectors, base, inside):
    """Coordinates (x, y, z) of every ray."""
    x = tl.load(vectors + base * 3, mask=inside, other=0.0)
    y = tl.load(vectors + base * 3 + 1, mask=inside, other=0.0)
    return x, y, tl.load(vectors + base * 3 + 2, mask=inside, other=0.0)


@triton.jit
@no_type_check  # the compiler reads the function itself
def axis(position, scale, SIDE: tl.constexpr):
    """(texel, weight) twice: the two neighbours of world positions along one axis of a plane.

    A neighbour beyond the plane has no weight, and the nearest texel instead, which can always be read.
    """
    texel = (position * scale + 1) * (SIDE / 2) - 0.5
    low = tl.floor(texel)
    part = texel - low
    low_weight = tl.where((low >= 0) & (low < SIDE), 1 - part, 0.0)
    high_weight = tl.where((low >= -1) & (low < SIDE - 1), part, 0.0)
    first = tl.minimum(tl.maximum(low, 0.0), SIDE - 1.0).to(tl.int32)
    second = tl.minimum(tl.maximum(low + 1, 0.0), SIDE - 1.0).to(tl.int32)
    return first, low_weight, second, high_weight


@triton.jit
@no_type_check  # the compiler reads the function itself
def texel(plane, column, row, SIDE: tl.constexpr, FEATURES: tl.constexpr):
    """Where the features of texels are, `ray feature`."""
    return plane + ((row * SIDE + column) * FEATURES)[:, None] + tl.arange(0, FEATURES)[None]


@triton.jit
@no_type_check  # the compiler reads the function itself
def lookup(total, plane, u, v, SIDE: tl.constexpr, FEATURES: tl.constexpr):
    """`total` and the bilinear features of a plane at u along its columns and v along its rows."""
    u0, at_u0, u1, at_u1 = u
    v0, at_v0, v1, at_v1 = v
    total += tl.load(texel(plane, u0, v0, SIDE, FEATURES)).to(tl.float32) * (at_u0 * at_v0)[:, None]
    total += tl.load(texel(plane, u1, v0, SIDE, FEATURES)).to(tl.float32) * (at_u1 * at_v0)[:, None]
    total += tl.load(texel(plane, u0, v1, SIDE, FEATURES)).to(tl.float32) * (at_u0 * at_v1)[:, None]
    total += tl.load(texel(plane, u1, v1, SIDE, FEATURES)).to(tl.float32) * (at_u1 * at_v1)[:, None]
    return total


@triton.jit
@no_type_check  # the compiler reads the function itself
def add(incoming, plane, column, row, weight, SIDE: tl.constexpr, FEATURES: tl.constexpr):
    place = texel(plane, column, row, SIDE, FEATURES)
    tl.atomic_add(place, incoming * weight[:, None], mask=(weight > 0)[:, None], sem="relaxed")


@triton.jit
@no_type_check  # the compiler reads the function itself
def spread(incoming, plane, u, v, SIDE: tl.constexpr, FEATURES: tl.constexpr):
    """The transpose of `_lookup`: features are added to the four texels."""
    u0, at_u0, u1, at_u1 = u
    v0, at_v0, v1, at_v1 = v
    add(incoming, plane, u0, v0, at_u0 * at_v0, SIDE, FEATURES)
    add(incoming, plane, u1, v0, at_u1 * at_v0, SIDE, FEATURES)
    add(incoming, plane, u0, v1, at_u0 * at_v1, SIDE, FEATURES)
    add(incoming, plane, u1, v1, at_u1 * at_v1, SIDE, FEATURES)


@triton.jit
@no_type_check  # the compiler reads the function itself
def plane_features(
    planes, u, v, w,
    SIDE: tl.constexpr, FEATURES: tl.constexpr, THREE: tl.constexpr, RAYS: tl.constexpr,
):  # fmt: skip
    """The sum of the planes' features at points with the neighbours (u, v, w); the mean's 1/3 is in w_in."""
    total = tl.zeros((RAYS, FEATURES), tl.float32)
    total = lookup(total, planes, u, v, SIDE, FEATURES)
    total = lookup(total, planes + SIDE * SIDE * FEATURES, u, w, SIDE, FEATURES)
    if THREE:
        total = lookup(total, planes + 2 * SIDE * SIDE * FEATURES, w, v, SIDE, FEATURES)
    return total


@triton.jit
@no_type_check  # the compiler reads the function itself
def log2(x):
    """log2 to 1e-7, of numbers in [1, 2]: one instruction, where tl.log2 is a polynomial of twenty."""
    if INTERPRETED:
        return tl.log2(x)
    return tl.inline_asm_elementwise(
        "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
@no_type_check  # the compiler reads the function itself
def hidden_units(seen, into, bias, PRECISION: tl.constexpr):
    """Softplus of the hidden units in units of ln 2; an absolute error of 1e-7 is nothing to them."""
    x = tl.dot(seen, into, input_precision=PRECISION) + bias[None]
    return tl.maximum(x, 0.0) + log2(1 + tl.exp2(-tl.abs(x)))


@triton.jit
@no_type_check  # the compiler reads the function itself
def sigmoid(x):
    """1 / (1 + 2^-x); the root's reciprocal squared is one instruction less than a division's ten."""
    root = tl.rsqrt(1 + tl.exp2(-x))
    return root * root
