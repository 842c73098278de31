"""The renderer's kernels forward: coarse densities, fine depths, and all samples composited."""

from typing import no_type_check

import triton
import triton.language as tl

from my3dgen.ops.render_parts_triton import (
    absorbed,
    axis,
    hidden_units,
    plane_features,
    sigmoid,
    thickness_of,
    transmitted,
    vector,
)


@triton.jit
@no_type_check  # the compiler reads the function itself
def coarse_densities(
    planes, origins, directions, depths, w_in, b_in, w_density, b_density, densities,
    rays, planes_stride, scale,
    SAMPLES: tl.constexpr, SIDE: tl.constexpr, FEATURES: tl.constexpr, HIDDEN: tl.constexpr,
    THREE: tl.constexpr,
    PRECISION: tl.constexpr, RAYS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64)
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    inside = ray < rays
    base = image * rays + ray
    ox, oy, oz = vector(origins, base, inside)
    dx, dy, dz = vector(directions, base, inside)
    planes += image * planes_stride
    unit = tl.arange(0, HIDDEN)
    feature = tl.arange(0, FEATURES)
    into = tl.load(w_in + feature[:, None] * HIDDEN + unit[None])
    bias, to_density = tl.load(b_in + unit), tl.load(w_density + unit)
    density_bias = tl.load(b_density)
    for step in range(CHUNK):
        sample = tl.program_id(1) * CHUNK + step
        exists = inside & (sample < SAMPLES)
        place = (image * SAMPLES + sample) * rays + ray
        t = tl.load(depths + place, mask=exists, other=0.0)
        u, v = axis(ox + t * dx, scale, SIDE), axis(oy + t * dy, scale, SIDE)
        w = axis(oz + t * dz, scale, SIDE)
        seen = plane_features(planes, u, v, w, SIDE, FEATURES, THREE, RAYS).to(into.dtype)
        hidden = hidden_units(seen, into, bias, PRECISION)
        density = tl.sum(hidden * to_density[None], 1) + density_bias
        tl.store(densities + place, density, mask=exists)


@triton.jit
@no_type_check  # the compiler reads the function itself
def _pair(depths, densities, k, samples, rays, ray, inside):
    """(depths, densities) of samples k as `ray k`, 0 beyond the last."""
    mask = inside[:, None] & (k < samples)[None]
    place = k[None] * rays + ray[:, None]
    return tl.load(depths + place, mask=mask, other=0.0), tl.load(densities + place, mask=mask, other=0.0)


@triton.jit
@no_type_check  # the compiler reads the function itself
def merged_depths(
    depths, densities, quantiles, merged, rays, coarse, fine,
    COARSE: tl.constexpr, FINE: tl.constexpr, ROWS: tl.constexpr, DRAWN: tl.constexpr,
):  # fmt: skip
    """Segment k runs from bin k to bin k + 1 and holds the smoothed weight of interval k + 1."""
    image = tl.program_id(1).to(tl.int64)
    ray = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = ray < rays
    depths += image * coarse * rays
    densities += image * coarse * rays
    k = tl.arange(0, COARSE)
    t0, s0 = _pair(depths, densities, k, coarse, rays, ray, inside)
    t1, s1 = _pair(depths, densities, k + 1, coarse, rays, ray, inside)
    t2, s2 = _pair(depths, densities, k + 2, coarse, rays, ray, inside)
    t3, s3 = _pair(depths, densities, k + 3, coarse, rays, ray, inside)
    real = (k < coarse - 3)[None] & inside[:, None]
    here = tl.where(real, thickness_of(s0, s1, t0, t1), 0.0)
    after, later = thickness_of(s1, s2, t1, t2), thickness_of(s2, s3, t2, t3)
    through = tl.cumsum(here, 1)
    w0 = absorbed(here) * transmitted(through - here)
    w1 = absorbed(after) * transmitted(through)
    w2 = absorbed(later) * transmitted(through + after)
    smooth = (tl.maximum(w0, w1) + tl.maximum(w1, w2)) * 0.5 + 0.01
    mass = tl.where(real, smooth + 1e-5, 0.0)
    share = mass / tl.where(inside, tl.sum(mass, 1), 1.0)[:, None]
    low = tl.cumsum(share, 1) - share
    steep = 1 / tl.where(real, share, 1.0)
    rise = tl.where(real, (t2 - t0) * 0.5, 0.0)
    start = tl.sum(tl.where((k == 0)[None], (t0 + t1) * 0.5, 0.0), 1)

    j = tl.arange(0, FINE)
    wanted = inside[:, None] & (j < fine)[None]
    if DRAWN:
        base = (image * rays + ray) * fine
        q = tl.load(quantiles + base[:, None] + j[None], mask=wanted, other=2.0)
        smaller = (q[:, :, None] < q[:, None, :]) | (
            (q[:, :, None] == q[:, None, :]) & (j[:, None] < j[None])[None]
        )
        rank = tl.sum(smaller.to(tl.int32), 1)
    else:
        q = tl.broadcast_to(((j + 0.5) / fine)[None], (ROWS, FINE))
        rank = tl.broadcast_to(j[None], (ROWS, FINE))
    # the quantile function as a sum of ramps needs no search and no gather
    along = (q[:, None, :] - low[:, :, None]) * steep[:, :, None]
    found = start[:, None] + tl.sum(tl.minimum(tl.maximum(along, 0.0), 1.0) * rise[:, :, None], 1)

    # a sample's place is its own rank and the number of the other kind before it; both are counted down
    # columns, which stay in a thread, from one comparison, which keeps the places distinct even for NaN
    exists = inside[:, None] & (k < coarse)[None]
    fine_t, coarse_t = tl.where(wanted, found, float("inf")), tl.where(exists, t0, float("-inf"))
    nearer = tl.sum((fine_t[:, :, None] < coarse_t[:, None, :]).to(tl.int32), 1)
    farther = tl.sum((fine_t[:, None, :] < coarse_t[:, :, None]).to(tl.int32), 1)
    merged += image * (coarse + fine) * rays
    tl.store(merged + (k[None] + nearer) * rays + ray[:, None], t0, mask=exists)
    tl.store(merged + (rank + coarse - farther) * rays + ray[:, None], found, mask=wanted)


@triton.jit
@no_type_check  # the compiler reads the function itself
def composite(
    planes, origins, directions, depths, w_in, b_in, w_density, b_density, w_colour, b_colour,
    colours, opacities, moments, rays, planes_stride, scale,
    SAMPLES: tl.constexpr, SIDE: tl.constexpr, FEATURES: tl.constexpr, HIDDEN: tl.constexpr,
    COLOURS: tl.constexpr,
    THREE: tl.constexpr, PRECISION: tl.constexpr, RAYS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    inside = ray < rays
    base = image * rays + ray
    ox, oy, oz = vector(origins, base, inside)
    dx, dy, dz = vector(directions, base, inside)
    planes += image * planes_stride
    depths += image * SAMPLES * rays
    unit, feature, channel = tl.arange(0, HIDDEN), tl.arange(0, FEATURES), tl.arange(0, COLOURS)
    into = tl.load(w_in + feature[:, None] * HIDDEN + unit[None])
    out_of = tl.load(w_colour + unit[:, None] * COLOURS + channel[None])
    bias, to_density = tl.load(b_in + unit), tl.load(w_density + unit)
    density_bias, colour_bias = tl.load(b_density), tl.load(b_colour + channel)

    total = tl.zeros((RAYS, COLOURS), tl.float32)
    last_colour = tl.zeros((RAYS, COLOURS), tl.float32)
    through = tl.zeros((RAYS,), tl.float32)
    opacity = tl.zeros((RAYS,), tl.float32)
    moment = tl.zeros((RAYS,), tl.float32)
    last_density = tl.zeros((RAYS,), tl.float32)
    last_t = tl.load(depths + ray, mask=inside, other=0.0)  # so the first interval is empty
    for sample in range(SAMPLES):
        t = tl.load(depths + sample * rays + ray, mask=inside, other=0.0)
        u, v = axis(ox + t * dx, scale, SIDE), axis(oy + t * dy, scale, SIDE)
        w = axis(oz + t * dz, scale, SIDE)
        seen = plane_features(planes, u, v, w, SIDE, FEATURES, THREE, RAYS).to(into.dtype)
        hidden = hidden_units(seen, into, bias, PRECISION)
        density = tl.sum(hidden * to_density[None], 1) + density_bias
        logits = tl.dot(hidden.to(out_of.dtype), out_of, input_precision=PRECISION) + colour_bias[None]
        colour = sigmoid(logits)
        thickness = thickness_of(last_density, density, last_t, t)
        weight = absorbed(thickness) * transmitted(through)
        through += thickness
        total += (weight * 0.5)[:, None] * (last_colour + colour)
        opacity += weight
        moment += weight * (last_t + t) * 0.5
        last_colour, last_density, last_t = colour, density, t
    total = total * 1.002 - (opacity * 0.001)[:, None]
    tl.store(colours + base[:, None] * COLOURS + channel[None], total, mask=inside[:, None])
    tl.store(opacities + base, opacity, mask=inside)
    tl.store(moments + base, moment, mask=inside)
