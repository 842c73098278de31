"""Skin as paint in canonical coordinates: what sticks to the average face sticks to every face.

Two layers. Slow changes (tone, blush, shadows under the eyes, stubble) are colours per vertex. Fine detail
(pores, furrows, freckles, moles, brow hairs, the lips' edge) is one map wrapped around the average head like
a label around a bottle, baked once and mixed per pixel by each scene's factors.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from my3dgen.synthetic import rasterise
from my3dgen.synthetic.asset import HeadAsset
from my3dgen.synthetic.factors import block
from my3dgen.synthetic.noise import bump, common_random, fractal_noise, smoothstep, value_noise

MAP_SIZE = 1024
MAP_LOW, MAP_HIGH = 5.7, 8.6  # decimetres of canonical height that the map covers
AXIS_Z = 0.12
CHANNELS = (
    "pore_u",
    "pore_v",
    "furrow_u",
    "furrow_v",
    "furrow",
    "mottle",
    "freckle",
    "mole",
    "stroke",
    "lips",
    "crease",
)


@dataclass(frozen=True)
class SkinMap:
    """The baked detail, common to all heads."""

    image: Float[Tensor, "1 channel height width"]

    def read(self, canonical: Float[Tensor, "point 3"]) -> dict[str, Float[Tensor, " point"]]:
        """The channels at points of the average head."""
        x, y, z = canonical.unbind(-1)
        across = torch.atan2(x, z - AXIS_Z) / math.pi
        down = 1 - 2 * (y - MAP_LOW) / (MAP_HIGH - MAP_LOW)
        place = torch.stack([across, down], -1)[None, None]
        read = F.grid_sample(self.image, place, align_corners=False, padding_mode="border")[0, :, 0]
        return dict(zip(CHANNELS, read, strict=True))


def tangents(canonical: Float[Tensor, "point 3"]) -> tuple[Tensor, Tensor]:
    """Unit vectors along the map's columns (around the head) and against its rows (up)."""
    x, z = canonical[:, 0], canonical[:, 2] - AXIS_Z
    far = (x * x + z * z).clamp_min(1e-6).rsqrt()
    zero = torch.zeros_like(x)
    return torch.stack([z * far, zero, -x * far], 1), torch.stack([zero, zero + 1, zero], 1)


@torch.no_grad()
def bake(asset: HeadAsset) -> SkinMap:
    """Paint the map of common detail, on the asset's device. Takes about a second."""
    device = asset.device
    points = _unrolled(asset)
    x, y, z = points.unbind(-1)
    ax = x.abs()
    eye, mouth, nose = (asset.landmarks[name] for name in ("eye_left", "mouth", "nose"))
    ex, ey, my = float(eye[0]), float(eye[1]), float(mouth[1])
    flat = points.reshape(-1, 3)

    pores = 0.6 * value_noise(flat, 30.0, 1.0) + 0.5 * value_noise(flat, 62.0, 2.0)
    mottle = fractal_noise(flat, 9.0, 3.0, 3)
    coarse = value_noise(flat, 5.0, 4.0)
    specks = value_noise(flat, 19.0, 5.0)
    freckle = smoothstep(specks[:, 0], 0.42, 0.72).view_as(x) * (
        1.1 * bump(ax - 0.42, 0.22) * bump(y - (float(nose[1]) + 0.12), 0.20)
        + 0.9 * bump(ax, 0.2) * bump(y - float(nose[1]) - 0.1, 0.2)
        + 0.15
    )
    furrow = _furrows(x, y, z, ex, ey, my, coarse)
    step_u, step_v = 2 * math.pi * 0.95 / MAP_SIZE, (MAP_HIGH - MAP_LOW) / MAP_SIZE
    smooth = F.avg_pool2d(furrow[None, None], 3, 1, 1)[0, 0]
    furrow_u = (smooth.roll(-1, 1) - smooth.roll(1, 1)) / (2 * step_u)
    furrow_v = (smooth.roll(1, 0) - smooth.roll(-1, 0)) / (2 * step_v)

    # brow hairs run outwards and a little up: stretch noise along that direction
    side = torch.sign(x)
    lean = (ax - ex) / 0.22
    along = (ax * (0.80 + 0.2 * lean) + (y - ey) * (0.6 - 0.75 * lean).clamp(-0.6, 0.9)) * side
    across = y - ey - 0.9 * (ax - ex) * (0.55 - 0.75 * lean).clamp(-0.6, 0.8)
    stroke = value_noise(torch.stack([along * 9.0, across * 62.0, side * 3.0], -1).reshape(-1, 3), 1.0, 6.0)[
        :, 0
    ]

    lips = _sample_vertices(asset, asset.masks["lips"])
    edge = 0.12 * mottle[:, 2].view_as(x)
    lips = smoothstep(lips + 0.10 * edge, 0.30, 0.72)
    channels = {
        "pore_u": pores[:, 0].view_as(x),
        "pore_v": pores[:, 1].view_as(x),
        "furrow_u": furrow_u,
        "furrow_v": furrow_v,
        "furrow": smooth,
        "mottle": mottle[:, 0].view_as(x),
        "freckle": freckle.clamp(0, 1),
        "mole": _moles(x, y, z, device),
        "stroke": stroke.view_as(x),
        "lips": lips,
        "crease": _lid_crease(asset, x, y, z),
    }
    return SkinMap(torch.stack([channels[name] for name in CHANNELS])[None].contiguous())


_MAPS: dict[int, tuple[HeadAsset, SkinMap]] = {}


def skin_map(asset: HeadAsset) -> SkinMap:
    """The baked map of an asset; made once per asset."""
    known = _MAPS.get(id(asset))
    if known is None:
        known = _MAPS[id(asset)] = (asset, bake(asset))
    return known[1]


def _texels(asset: HeadAsset) -> tuple[Tensor, Tensor, Tensor]:
    """Which triangle of the average head each texel shows, found by the rasteriser itself."""
    x, y, z = asset.template.unbind(-1)
    out = torch.stack([x, z - AXIS_Z], -1).norm(dim=-1)
    screen = torch.stack(
        [
            (torch.atan2(x, z - AXIS_Z) / math.pi + 1) * (MAP_SIZE / 2),
            (MAP_HIGH - y) / (MAP_HIGH - MAP_LOW) * MAP_SIZE,
            10 - out,
        ],
        -1,
    )
    corner = screen[asset.triangles]
    wraps = (corner[..., 0].amax(1) - corner[..., 0].amin(1)) > MAP_SIZE / 2
    low = corner[..., 1].amin(1) > MAP_SIZE
    triangles = asset.triangles[~wraps & ~low]
    buffer = rasterise.new_buffer(1, MAP_SIZE, asset.device)
    rasterise.draw_triangles(buffer, MAP_SIZE, screen[None], triangles)
    _, triangle, hit = rasterise.unpack(buffer)
    pixel = hit.nonzero()[:, 0]
    corner, weight = rasterise.barycentric(screen[None], triangles, MAP_SIZE, pixel, triangle[pixel])
    return pixel, corner, weight


def _unrolled(asset: HeadAsset) -> Float[Tensor, "height width 3"]:
    """Canonical coordinates per texel; where the head shows nothing, a cylinder of its size."""
    device = asset.device
    turn = ((torch.arange(MAP_SIZE, device=device) + 0.5) / MAP_SIZE * 2 - 1) * math.pi
    height = MAP_HIGH - (torch.arange(MAP_SIZE, device=device) + 0.5) / MAP_SIZE * (MAP_HIGH - MAP_LOW)
    row = torch.stack([0.8 * turn.sin(), torch.zeros_like(turn), 0.8 * turn.cos() + AXIS_Z], -1)
    points = row.expand(MAP_SIZE, MAP_SIZE, 3).clone()
    points[..., 1] = height[:, None]
    return _scatter(asset, asset.template, points)


def _sample_vertices(asset: HeadAsset, values: Float[Tensor, " vertex"]) -> Float[Tensor, "height width"]:
    empty = torch.zeros(MAP_SIZE, MAP_SIZE, 1, device=asset.device)
    return _scatter(asset, values[:, None], empty)[..., 0]


def _scatter(asset: HeadAsset, values: Tensor, into: Tensor) -> Tensor:
    pixel, corner, weight = _texels(asset)
    flat = into.reshape(MAP_SIZE * MAP_SIZE, -1)
    flat[pixel] = (values[corner] * weight[..., None]).sum(1)
    return flat.view_as(into)


def _furrows(x: Tensor, y: Tensor, z: Tensor, ex: float, ey: float, my: float, noise: Tensor) -> Tensor:
    """Height (negative) of the lines that age deepens: forehead, frown, crow's feet, eyes, cheeks."""
    ax, n0, n1, n2 = x.abs(), noise[:, 0].view_as(x), noise[:, 1].view_as(x), noise[:, 2].view_as(x)
    total = torch.zeros_like(x)
    for k, height in enumerate((0.335, 0.42, 0.505, 0.59)):
        line = y - (ey + height + 0.035 * n0 - 0.05 * (ax / 0.5) ** 2)
        total = total + bump(line, 0.011) * smoothstep(-ax, -0.55, -0.30) * (
            0.75 + 0.6 * n1 - 0.07 * k
        ).clamp(0, 1)
    frown = bump(ax - 0.055 - 0.02 * n0, 0.010) * bump(y - (ey + 0.20), 0.07)
    total = total + 0.9 * frown
    u, v = ax - (ex + 0.20), y - (ey - 0.02)
    for slope in (-0.45, -0.05, 0.38):
        total = total + 0.8 * bump(v - slope * u - 0.015 * n2, 0.009) * smoothstep(u, 0.0, 0.05) * smoothstep(
            -u, -0.24, -0.12
        )
    under = y - (ey - 0.155 + 0.9 * (ax - ex) ** 2)
    total = total + 0.7 * bump(under, 0.014) * smoothstep(0.19 - (ax - ex).abs(), 0.0, 0.08)
    # from the wing of the nose to beside the corner of the mouth
    down = ((ey - 0.36) - y) / ((ey - 0.36) - (my - 0.06))
    fold = ax - (0.20 + 0.17 * down.clamp(0, 1.2) ** 0.8)
    total = total + 1.3 * bump(fold, 0.022) * smoothstep(down, 0.02, 0.2) * smoothstep(-down, -1.15, -0.75)
    return -total * smoothstep(z, 0.55, 0.85)


def _moles(x: Tensor, y: Tensor, z: Tensor, device: torch.device) -> Tensor:
    """Spots whose strength orders them: a larger mole factor shows more of them. In [0, 1]."""
    place = common_random(6, 4, seed=41, device=device)
    total = torch.zeros_like(x)
    for k in range(len(place)):
        cx, cy = (place[k, 0] - 0.5) * 1.25, 6.30 + 1.5 * place[k, 1]
        spot = torch.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / (0.0045 + 0.005 * place[k, 2]) ** 2)
        total = torch.maximum(total, spot * (1 - 0.13 * k))
    return total * smoothstep(z, 0.5, 0.7)


def lid_curves(asset: HeadAsset, strips: Float[Tensor, "scene lash 4 3"]) -> Float[Tensor, "scene 4 5"]:
    """The lid margins as parabolas through the lash roots: centre, three coefficients, half width.

    Order: upper left, upper right, lower left, lower right (left is +x); y = a + b q + c q^2 with
    q = x - centre.
    """
    roots = strips[:, :, :2].mean(2)
    upper = asset.lash_upper > 0.5
    found = []
    for is_upper in (True, False):
        rows = (upper == is_upper).nonzero()[:, 0]
        for half in rows.chunk(2):
            x, y = roots[:, half, 0], roots[:, half, 1]
            centre = 0.5 * (x.amin(1, keepdim=True) + x.amax(1, keepdim=True))
            q = x - centre
            powers = torch.stack([torch.ones_like(q), q, q * q], -1)
            normal = powers.transpose(1, 2) @ powers + 1e-7 * torch.eye(3, device=q.device)
            coefficients = torch.linalg.solve_ex(normal, powers.transpose(1, 2) @ y[..., None])[0][..., 0]
            found.append(torch.cat([centre, coefficients, q.amax(1, keepdim=True)], 1))
    return torch.stack(found, 1)


def lid_height(curve: Float[Tensor, "*curve 5"], x: Tensor) -> Tensor:
    """Height of a lid margin at x; curves broadcast against x."""
    q = (x - curve[..., 0]).clamp(-1.15 * curve[..., 4], 1.15 * curve[..., 4])
    return curve[..., 1] + curve[..., 2] * q + curve[..., 3] * q * q


def _lid_crease(asset: HeadAsset, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Darkness of the fold above the upper lid and of the lid margins, in [0, 1]."""
    strips = asset.base[asset.lashes][None]
    curves = lid_curves(asset, strips)[0]
    left = x > 0
    upper = torch.where(left, lid_height(curves[0], x), lid_height(curves[1], x))
    lower = torch.where(left, lid_height(curves[2], x), lid_height(curves[3], x))
    centre = torch.where(left, curves[0, 0], curves[1, 0])
    reach = (x - centre).abs() / curves[0, 4]
    span = smoothstep(-reach, -1.25, -0.85)
    fold = 1.25 * bump(y - (upper + 0.066 - 0.012 * reach**2), 0.013) * span
    margin = bump(y - upper - 0.004, 0.011) * span + 0.35 * bump(y - lower + 0.006, 0.009) * span
    return (0.75 * fold + 0.9 * margin).clamp(0, 1) * smoothstep(z, 0.8, 1.1)


@dataclass(frozen=True)
class Regions:
    """Soft masks of the average head, per vertex."""

    cheek: Tensor
    nose: Tensor
    ear: Tensor
    under_eye: Tensor
    lid: Tensor
    beard: Tensor
    goatee: Tensor
    moustache: Tensor
    inner_mouth: Tensor
    lips: Tensor


def regions(asset: HeadAsset) -> Regions:
    """Masks for blush, shadows and beard from the asset's landmarks."""
    x, y, z = asset.template.unbind(-1)
    ax = x.abs()
    eye, mouth, nose = (asset.landmarks[name] for name in ("eye_left", "mouth", "nose"))
    ex, ey, my, ny = eye[0], eye[1], mouth[1], nose[1]
    lips = asset.masks["lips"]
    away = 1 - smoothstep(lips, 0.05, 0.30)
    front = smoothstep(z, 0.15, 0.5)
    above_throat = smoothstep(y, my - 0.97, my - 0.57)
    jaw = smoothstep(my + 0.05 + 0.75 * (ax - 0.25).clamp_min(0) - y, -0.05, 0.08)
    moustache = bump(y - (my + 0.175), 0.07) * smoothstep(-ax, -0.40, -0.26) * smoothstep(z, 1.0, 1.2)
    goatee = bump(ax, 0.16) * smoothstep(my - y, 0.10, 0.20) * above_throat * front
    return Regions(
        cheek=bump(ax - 0.48, 0.22) * bump(y - (ny - 0.02), 0.22) * smoothstep(z, 0.6, 1.0),
        nose=bump(ax, 0.13) * bump(y - ny, 0.16) * smoothstep(z, 1.2, 1.5),
        ear=smoothstep(asset.masks["ears"], 0.3, 0.7),
        under_eye=bump(ax - (ex - 0.03), 0.13) * bump(y - (ey - 0.165), 0.055) * smoothstep(z, 0.8, 1.1),
        lid=bump(ax - ex, 0.17) * bump(y - (ey + 0.09), 0.055) * smoothstep(z, 0.8, 1.1),
        beard=(jaw * above_throat * front * away).clamp(0, 1),
        goatee=(goatee * away).clamp(0, 1),
        moustache=(moustache * (1 - lips)).clamp(0, 1),
        inner_mouth=asset.masks["inner_mouth"],
        lips=lips,
    )


@dataclass(frozen=True)
class Complexion:
    """Skin colour and paint of each scene, linear RGB."""

    tone: Float[Tensor, "scene 3"]
    melanin: Tensor
    blood: Tensor
    under_eye: Tensor
    freckles: Tensor
    moles: Tensor
    lips: Float[Tensor, "scene 3"]
    lip_strength: Tensor
    shine: Tensor
    blotches: Tensor


# sRGB stops from very light to very dark skin
_RAMP = (
    (0.945, 0.800, 0.715),
    (0.885, 0.705, 0.590),
    (0.765, 0.580, 0.455),
    (0.565, 0.400, 0.300),
    (0.385, 0.265, 0.200),
)


def complexion(factors: Float[Tensor, "scene factors"], male: Float[Tensor, " scene"]) -> Complexion:
    """Decode the skin block. Melanin is a factor of its own, whatever the shape of the face."""
    f = block(factors, "skin")
    u = {name: torch.special.ndtr(value) for name, value in f.items()}
    melanin = u["melanin"]
    ramp = torch.tensor(_RAMP, device=factors.device) ** 2.2
    place = melanin * (len(_RAMP) - 1)
    below = place.floor().clamp(0, len(_RAMP) - 2).long()
    part = (place - below)[:, None]
    tone = ramp[below] * (1 - part) + ramp[below + 1] * part
    tone = tone * (1 + tone.new_tensor([0.02, -0.05, -0.08]) * (u["blood"] - 0.5)[:, None] * 2)
    plain = tone * tone.new_tensor([0.84, 0.56, 0.57])
    painted = tone * tone.new_tensor([0.74, 0.33, 0.37]) * (1 + 0.35 * melanin)[:, None]
    colour = (u["lip_colour"] * (1 - 0.75 * male))[:, None]
    return Complexion(
        tone=tone,
        melanin=melanin,
        blood=u["blood"],
        under_eye=u["under_eye"],
        freckles=smoothstep(f["freckles"], 0.5, 2.2) * (1 - melanin),
        moles=smoothstep(u["moles"], 0.35, 1.0),
        lips=plain * (1 - colour) + painted * colour,
        lip_strength=0.80 + 0.15 * colour[:, 0],
        # exposure lifts dark skin, and with it what it mirrors: less of that keeps all tones equally dull
        shine=(0.24 + 0.44 * u["shine"]) * (1 - 0.50 * melanin),
        blotches=0.5 + u["blotches"],
    )


def vertex_albedo(
    skin: Complexion, where: Regions, template: Float[Tensor, "vertex 3"]
) -> Float[Tensor, "scene vertex 3"]:
    """The slow part of the skin's colour, linear RGB."""
    slow = fractal_noise(template, 2.2, 8.0, 3)
    light = (1 - 0.55 * skin.melanin)[:, None]
    blood, tired = skin.blood[:, None], skin.under_eye[:, None]
    blush = where.cheek * (0.30 + 0.75 * blood) + where.nose * (0.20 + 0.55 * blood) + 0.45 * where.ear
    blush = blush * (1 + 0.4 * slow[:, 0]) * light
    shadow = where.under_eye * (0.15 + 0.60 * tired) + 0.45 * where.lid
    spots = slow[:, 1] * skin.blotches[:, None]
    colour = skin.tone[:, None]
    colour = colour * (1 + colour.new_tensor([0.02, -0.17, -0.15]) * blush[..., None])
    colour = colour * (1 + colour.new_tensor([-0.17, -0.23, -0.18]) * shadow[..., None])
    return (colour * (1 + colour.new_tensor([0.03, 0.05, 0.06]) * spots[..., None])).clamp(0.004, 0.95)
