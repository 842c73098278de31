"""The renderer's kernels backward: through the march to samples, through the field to planes and decoder."""

from typing import no_type_check

import triton
import triton.language as tl

from my3dgen.ops.render_parts_triton import (
    LN2,
    LOG2E,
    absorbed,
    axis,
    hidden_units,
    log2,
    plane_features,
    sigmoid,
    spread,
    thickness_of,
    transmitted,
    vector,
)


@triton.jit
@no_type_check  # the compiler reads the function itself
def through_march(
    planes, origins, directions, depths, w_in, b_in, w_density, b_density, w_colour, b_colour,
    by_colours, by_opacities, by_moments, totals, weights, by_densities,
    rays, planes_stride, scale,
    SAMPLES: tl.constexpr, SIDE: tl.constexpr, FEATURES: tl.constexpr, HIDDEN: tl.constexpr,
    COLOURS: tl.constexpr,
    THREE: tl.constexpr, PRECISION: tl.constexpr, RAYS: tl.constexpr,
):  # fmt: skip
    """One interval's weight w has the gradient g; its thickness has g (transmittance behind it) less the
    sum of g w over all intervals behind it. `totals` is the sum of g w over the ray, which the outputs of
    the forward pass give, so the sum behind is what is left of it on the way.
    """
    image = tl.program_id(1).to(tl.int64)
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    inside = ray < rays
    base = image * rays + ray
    ox, oy, oz = vector(origins, base, inside)
    dx, dy, dz = vector(directions, base, inside)
    planes += image * planes_stride
    depths += image * SAMPLES * rays
    weights += image * SAMPLES * rays
    by_densities += image * SAMPLES * rays
    unit, feature, channel = tl.arange(0, HIDDEN), tl.arange(0, FEATURES), tl.arange(0, COLOURS)
    into = tl.load(w_in + feature[:, None] * HIDDEN + unit[None])
    out_of = tl.load(w_colour + unit[:, None] * COLOURS + channel[None])
    bias, to_density = tl.load(b_in + unit), tl.load(w_density + unit)
    density_bias, colour_bias = tl.load(b_density), tl.load(b_colour + channel)
    by_colour = tl.load(by_colours + base[:, None] * COLOURS + channel[None], mask=inside[:, None], other=0.0)
    by_opacity = tl.load(by_opacities + base, mask=inside, other=0.0)
    by_opacity -= tl.sum(by_colour, 1) * 0.001
    by_colour *= 1.002
    by_moment = tl.load(by_moments + base, mask=inside, other=0.0)
    behind = tl.load(totals + base, mask=inside, other=0.0)

    through = tl.zeros((RAYS,), tl.float32)
    last_weight = tl.zeros((RAYS,), tl.float32)
    last_by_middle = tl.zeros((RAYS,), tl.float32)
    last_pull = tl.zeros((RAYS,), tl.float32)
    last_density = tl.zeros((RAYS,), tl.float32)
    last_t = tl.load(depths + ray, mask=inside, other=0.0)
    for sample in range(SAMPLES):
        t = tl.load(depths + sample * rays + ray, mask=inside, other=0.0)
        u, v = axis(ox + t * dx, scale, SIDE), axis(oy + t * dy, scale, SIDE)
        w = axis(oz + t * dz, scale, SIDE)
        seen = plane_features(planes, u, v, w, SIDE, FEATURES, THREE, RAYS).to(into.dtype)
        hidden = hidden_units(seen, into, bias, PRECISION)
        density = tl.sum(hidden * to_density[None], 1) + density_bias
        logits = tl.dot(hidden.to(out_of.dtype), out_of, input_precision=PRECISION) + colour_bias[None]
        pull = tl.sum(sigmoid(logits) * by_colour, 1)

        thickness = thickness_of(last_density, density, last_t, t)
        weight = absorbed(thickness) * transmitted(through)
        through += thickness
        gain = (last_pull + pull) * 0.5 + by_opacity + by_moment * (last_t + t) * 0.5
        behind -= gain * weight
        by_thickness = gain * transmitted(through) - behind
        step = tl.maximum(t - last_t, 0.0)
        by_middle = by_thickness * step * sigmoid(((last_density + density) * 0.5 - 1) * LOG2E)
        before = inside & (sample > 0)  # a sample is known when the next one is
        tl.store(weights + (sample - 1) * rays + ray, (last_weight + weight) * 0.5, mask=before)
        tl.store(by_densities + (sample - 1) * rays + ray, (last_by_middle + by_middle) * 0.5, mask=before)
        last_weight, last_by_middle, last_pull, last_density, last_t = weight, by_middle, pull, density, t
    tl.store(weights + (SAMPLES - 1) * rays + ray, last_weight * 0.5, mask=inside)
    tl.store(by_densities + (SAMPLES - 1) * rays + ray, last_by_middle * 0.5, mask=inside)


@triton.jit
@no_type_check  # the compiler reads the function itself
def through_field(
    planes, origins, directions, depths, w_in, b_in, w_density, w_colour, b_colour,
    by_colours, weights, by_densities,
    by_planes, by_w_in, by_b_in, by_w_density, by_b_density, by_w_colour, by_b_colour,
    rays, planes_stride, scale,
    SAMPLES: tl.constexpr, SIDE: tl.constexpr, FEATURES: tl.constexpr, HIDDEN: tl.constexpr,
    COLOURS: tl.constexpr,
    THREE: tl.constexpr, PRECISION: tl.constexpr, RAYS: tl.constexpr, CHUNK: tl.constexpr,
    TO_PLANES: tl.constexpr, TO_DECODER: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64)
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    inside = ray < rays
    base = image * rays + ray
    ox, oy, oz = vector(origins, base, inside)
    dx, dy, dz = vector(directions, base, inside)
    planes += image * planes_stride
    by_planes += image * planes_stride
    unit, feature, channel = tl.arange(0, HIDDEN), tl.arange(0, FEATURES), tl.arange(0, COLOURS)
    into_place = feature[:, None] * HIDDEN + unit[None]
    out_place = unit[:, None] * COLOURS + channel[None]
    into, out_of = tl.load(w_in + into_place), tl.load(w_colour + out_place)
    bias, to_density = tl.load(b_in + unit), tl.load(w_density + unit) * LOG2E
    colour_bias = tl.load(b_colour + channel)
    by_colour = tl.load(by_colours + base[:, None] * COLOURS + channel[None], mask=inside[:, None], other=0.0)
    by_colour *= 1.002  # a colour is 1.002 times a sigmoid less 0.001
    if TO_DECODER:
        into_sum = tl.zeros((FEATURES, HIDDEN), tl.float32)
        out_sum = tl.zeros((HIDDEN, COLOURS), tl.float32)
        bias_sum = tl.zeros((HIDDEN,), tl.float32)
        density_sum = tl.zeros((HIDDEN,), tl.float32)
        colour_bias_sum = tl.zeros((COLOURS,), tl.float32)
        density_bias_sum = tl.zeros((RAYS,), tl.float32)
    for step in range(CHUNK):
        sample = tl.program_id(1) * CHUNK + step
        exists = inside & (sample < SAMPLES)
        place = (image * SAMPLES + sample) * rays + ray
        t = tl.load(depths + place, mask=exists, other=0.0)
        weight = tl.load(weights + place, mask=exists, other=0.0)
        by_density = tl.load(by_densities + place, mask=exists, other=0.0)
        u, v = axis(ox + t * dx, scale, SIDE), axis(oy + t * dy, scale, SIDE)
        w = axis(oz + t * dz, scale, SIDE)
        seen = plane_features(planes, u, v, w, SIDE, FEATURES, THREE, RAYS).to(into.dtype)
        before = tl.dot(seen, into, input_precision=PRECISION) + bias[None]
        e = tl.exp2(-tl.abs(before))
        hidden = tl.maximum(before, 0.0) + log2(1 + e)
        slope = tl.rsqrt(1 + e)
        slope = slope * slope * tl.where(before >= 0, 1.0, e)
        rounded = hidden.to(out_of.dtype)
        bright = sigmoid(tl.dot(rounded, out_of, input_precision=PRECISION) + colour_bias[None])
        by_logits = (by_colour * (bright - bright * bright)) * weight[:, None]
        narrow = by_logits.to(out_of.dtype)
        by_hidden = tl.dot(narrow, tl.trans(out_of), input_precision=PRECISION)
        by_before = (by_hidden + by_density[:, None] * to_density[None]) * slope
        narrow_before = by_before.to(into.dtype)
        if TO_DECODER:
            into_sum += tl.dot(tl.trans(seen), narrow_before, input_precision=PRECISION)
            out_sum += tl.dot(tl.trans(rounded), narrow, input_precision=PRECISION)
            bias_sum += tl.sum(by_before, 0)
            density_sum += tl.sum(hidden * by_density[:, None], 0)
            colour_bias_sum += tl.sum(by_logits, 0)
            density_bias_sum += by_density
        if TO_PLANES:
            incoming = tl.dot(narrow_before, tl.trans(into), input_precision=PRECISION) * LN2
            spread(incoming, by_planes, u, v, SIDE, FEATURES)
            spread(incoming, by_planes + SIDE * SIDE * FEATURES, u, w, SIDE, FEATURES)
            if THREE:
                spread(incoming, by_planes + 2 * SIDE * SIDE * FEATURES, w, v, SIDE, FEATURES)
    if TO_DECODER:
        tl.atomic_add(by_w_in + into_place, into_sum, sem="relaxed")
        tl.atomic_add(by_w_colour + out_place, out_sum, sem="relaxed")
        tl.atomic_add(by_b_in + unit, bias_sum, sem="relaxed")
        tl.atomic_add(by_w_density + unit, density_sum, sem="relaxed")
        tl.atomic_add(by_b_colour + channel, colour_bias_sum, sem="relaxed")
        tl.atomic_add(by_b_density, tl.sum(density_bias_sum, 0), sem="relaxed")
