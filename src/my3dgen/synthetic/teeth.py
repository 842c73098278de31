"""Teeth, gums and tongue: two procedural dental arches that follow the mesh's teeth strips.

The base mesh carries a strip of vertices along each row of teeth. Its targets move these strips with
the identity and, below, with the jaw. Real teeth are rigid, so each arch follows the affine map that
fits its strip best: a constant matrix times the strip's vertices. Lengths are decimetres.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# From the midline to the back: incisors, canine, premolars, molars. Averages of adult dental anatomy.
UPPER_WIDTHS = (0.085, 0.067, 0.077, 0.070, 0.068, 0.100, 0.095)
LOWER_WIDTHS = (0.055, 0.060, 0.069, 0.070, 0.071, 0.108, 0.103)
UPPER_HEIGHTS = (0.104, 0.092, 0.102, 0.086, 0.080, 0.072, 0.068)
LOWER_HEIGHTS = (0.088, 0.090, 0.100, 0.086, 0.080, 0.074, 0.070)
DEPTHS = (0.060, 0.058, 0.075, 0.085, 0.088, 0.105, 0.105)  # from the lips' side to the tongue's
SHORTENED = (0.0, 0.007, -0.001, 0.008, 0.012, 0.016, 0.020)  # how far an edge stays from the bite
ROUNDED = (0.16, 0.24, 0.42, 0.36, 0.34, 0.22, 0.22)  # of the height at which the corners begin to round
ARCH_POWER = 2.2  # of the superellipse that the strips follow
OVERBITE, OVERJET = 0.016, 0.030  # the upper edge lies lower than, and before, the lower one
TONGUE_SINKS = (0.0, -0.07, -0.06)  # the mesh's tongue fills the mouth and would hide the teeth
CREVICE_DEPTH = (
    0.13  # the sides of a tooth, where it meets the next, are as dark as if they lay this far back
)
LINGUAL_DEPTH = 0.40  # the tongue's side of a tooth is as dark as if it lay this far back
AROUND, ALONG = 16, 9  # vertices around a tooth and from gum to edge


@dataclass(frozen=True)
class Mouth:
    """The inside of the mouth as one mesh: upper teeth and gums, lower ones, tongue."""

    triangles: Int[Tensor, "mouthtriangle 3"]
    incidence: Tensor  # sparse "mouthvertex mouthtriangle"
    material: Float[Tensor, "mouthvertex 3"]  # shares of enamel, gum, tongue
    depth: Float[Tensor, " mouthvertex"]  # decimetres away from the light, 0 at the incisors: for darkening
    upper: Float[Tensor, "upper strip"]  # upper arch = upper @ strip
    lower: Float[Tensor, "lower strip"]
    upper_strip: Int[Tensor, " strip"]  # coarse vertices
    lower_strip: Int[Tensor, " strip"]
    tongue: Int[Tensor, " tongue"]

    def follow(
        self, still: Float[Tensor, "scene coarse 3"], acted: Float[Tensor, "scene coarse 3"]
    ) -> Float[Tensor, "scene mouthvertex 3"]:
        """Vertices of heads with (`acted`) and without (`still`) expression; the jaw moves the lower arch."""
        arches = [
            _carried(self.upper, still[:, self.upper_strip]),
            _carried(self.lower, acted[:, self.lower_strip]),
        ]
        tongue = acted[:, self.tongue] + acted.new_tensor(TONGUE_SINKS)
        return torch.cat([*arches, tongue], 1)


def mouth_template(
    base: Float[Tensor, "coarse 3"],
    upper_strip: Int[Tensor, " strip"],
    lower_strip: Int[Tensor, " strip"],
    tongue: Int[Tensor, " tongue"],
    tongue_quads: Int[Tensor, "tonguequad 4"],
) -> Mouth:
    """Both arches for the average face, and the matrices by which they follow their strips."""
    parts, faces, materials, inwardness, count = [], [], [], [], 0
    for strip, side in ((base[upper_strip], 1.0), (base[lower_strip], -1.0)):
        points, triangles, gum, inward = _arch(strip, side)
        parts.append(points)
        inwardness.append(inward)
        faces.append(triangles + count)
        materials.append(torch.stack([1 - gum, gum, torch.zeros_like(gum)], 1))
        count += len(points)
    local = torch.zeros(len(base), dtype=torch.int64)
    local[tongue] = torch.arange(len(tongue)) + count
    quads = local[tongue_quads]
    faces.append(torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))
    materials.append(torch.tensor([[0.0, 0.0, 1.0]]).expand(len(tongue), 3))
    triangles = torch.cat(faces)
    points = torch.cat([*parts, base[tongue]])
    tongue_depth = _depth(points, 1.0)[count:]
    owners = torch.arange(len(triangles)).repeat_interleave(3)
    return Mouth(
        triangles=triangles,
        incidence=torch.sparse_coo_tensor(
            torch.stack([triangles.reshape(-1), owners]), torch.ones(len(owners)),
            (len(points), len(triangles)), check_invariants=True,
        ).coalesce(),
        material=torch.cat(materials),
        depth=torch.cat([_depth(points[:count], 0.45) + LINGUAL_DEPTH * torch.cat(inwardness), tongue_depth]),
        upper=_follower(parts[0], base[upper_strip]),
        lower=_follower(parts[1], base[lower_strip]),
        upper_strip=upper_strip,
        lower_strip=lower_strip,
        tongue=tongue,
    )  # fmt: skip


def _depth(points: Tensor, share: float) -> Tensor:
    """Distance behind the front teeth; teeth further back stay near the cheek and the light (`share`)."""
    return share * (points[:, 2].max() - points[:, 2])


def _carried(follower: Tensor, strip: Tensor) -> Tensor:
    # about the strip's middle: products of whole coordinates would be coarse in TF32
    middle = strip.mean(1, keepdim=True)
    return middle + follower @ (strip - middle)


def _follower(points: Tensor, strip: Tensor) -> Tensor:
    """The matrix that applies the best affine map of the strip's vertices to the points."""
    affine = lambda x: torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], 1)  # noqa: E731
    return (affine(points) @ torch.linalg.pinv(affine(strip))).float()


def _arch(strip: Tensor, side: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One arch along a strip (`side` 1 upper, -1 lower): points, triangles, share of gum, inwardness."""
    upper = side > 0
    widths = torch.tensor(UPPER_WIDTHS if upper else LOWER_WIDTHS)
    heights = UPPER_HEIGHTS if upper else LOWER_HEIGHTS
    inset = 0.0 if upper else OVERJET
    half_width, front, back = strip[:, 0].max() - inset, strip[:, 2].max() - inset, strip[:, 2].min()
    curve = _Curve(half_width, front, back)
    widths = widths * (0.97 * curve.length / widths.sum())
    # the biting edge: the front of the strip's edge row, rising a little towards the back
    bite = (strip[:, 1].min() if upper else strip[:, 1].max()) - 0.5 * (OVERBITE if upper else -OVERBITE)
    bite = bite if upper else bite - 0.05
    middles = widths.cumsum(0) - widths / 2
    points, triangles, gum, inward, count = [], [], [], [], 0
    for mirror in (1.0, -1.0):
        for k in range(len(widths)):
            tooth, faces = _tooth(float(widths[k]), heights[k], DEPTHS[k], ROUNDED[k], side)
            place, tangent, outward = curve.at(middles[k])
            rise = 0.05 * (front - place[1]) / (front - back) + side * SHORTENED[k]
            x = place[0] + tooth[:, 0] * tangent[0] + tooth[:, 2] * outward[0]
            z = place[1] + tooth[:, 0] * tangent[1] + tooth[:, 2] * outward[1]
            points.append(torch.stack([mirror * x, bite + rise + tooth[:, 1], z], 1))
            triangles.append((faces if mirror > 0 else faces.flip(1)) + count)
            gum.append(torch.zeros(len(tooth)))
            inward.append(_darkening(tooth, float(widths[k]), DEPTHS[k], heights[k]))
            count += len(tooth)
    flesh, faces = _gum(curve, middles, widths, heights, float(bite), side)
    points.append(flesh)
    triangles.append(faces + count)
    gum.append(torch.ones(len(flesh)))
    inward.append(torch.zeros(len(flesh)))
    return torch.cat(points), torch.cat(triangles), torch.cat(gum), torch.cat(inward)


class _Curve:
    """Half a dental arch from the midline backwards, by arc length: a superellipse in (x, z)."""

    def __init__(self, half_width: Tensor, front: Tensor, back: Tensor) -> None:
        t = torch.linspace(0, 1, 400) * (math.pi / 2)
        power = 2 / ARCH_POWER
        x, z = half_width * t.sin() ** power, back + (front - back) * t.cos().clamp_min(0) ** power
        self.points = torch.stack([x, z], 1)
        steps = (self.points[1:] - self.points[:-1]).norm(dim=1)
        self.lengths = torch.cat([torch.zeros(1), steps.cumsum(0)])
        self.length = self.lengths[-1]

    def at(self, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Place, tangent (backwards) and outward normal in (x, z) at an arc length."""
        i = int(torch.searchsorted(self.lengths, length).clamp(2, len(self.points) - 3))
        tangent = torch.nn.functional.normalize(self.points[i + 2] - self.points[i - 2], dim=0)
        return self.points[i], tangent, torch.stack([-tangent[1], tangent[0]])


def _darkening(tooth: Tensor, width: float, depth: float, height: float) -> Tensor:
    """How much further from the light a crown's places seem, as a share of `LINGUAL_DEPTH`.

    The tongue's side is dark, and so are the gaps between teeth and, a little, the line along the gum.
    """
    beside = ((2 * tooth[:, 0].abs() / width - 0.70) / 0.25).clamp(0, 1)
    neck = ((tooth[:, 1].abs() / height - 0.62) / 0.3).clamp(0, 1)
    crevice = (CREVICE_DEPTH / LINGUAL_DEPTH) * torch.maximum(beside, 0.6 * neck)
    return torch.maximum((-tooth[:, 2] / depth).clamp(0, 1), crevice)


def _tooth(
    width: float, height: float, depth: float, rounded: float, side: float
) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "t 3"]]:
    """A crown with its edge at y = 0 growing to the gum at y = side * height; +z is the lips' side.

    Rings of superellipses: narrow at the neck, widest near the edge, corners rounded off.
    """
    angle = torch.arange(AROUND) * (2 * math.pi / AROUND)
    square = 2 / 3.0
    ring_x = angle.sin().sign() * angle.sin().abs() ** square
    ring_z = angle.cos().sign() * angle.cos().abs() ** square
    rings = []
    for level in torch.linspace(0, 1, ALONG) ** 1.3:  # denser towards the edge
        v = float(level)  # 0 at the edge, 1 at the neck
        near = max(0.0, 1 - v / rounded)
        corner = math.sqrt(max(0.0, 1 - near**2 * 0.75))
        across = 0.985 * (1 - 0.24 * max(0.0, (v - 0.3) / 0.7) ** 1.6) * corner
        thick = (0.30 + 0.70 * min(1.0, v / 0.75) ** 0.8) * (1 - 0.10 * max(0.0, v - 0.75))
        belly = 0.10 * depth * math.sin(math.pi * min(1.0, v * 0.9 + 0.1))
        z = depth * thick * 0.5 * (ring_z - 1) + belly
        rings.append(
            torch.stack([0.5 * width * across * ring_x, torch.full_like(z, side * height * v), z], 1)
        )
    points = torch.cat(rings)
    cap = rings[0].mean(0, keepdim=True) - torch.tensor([[0.0, 0.02 * height * side, 0.0]])
    points = torch.cat([points, cap])
    here = torch.arange(AROUND)
    beyond = (here + 1) % AROUND
    faces = [torch.stack([torch.full_like(here, len(points) - 1), beyond, here], 1)]
    for k in range(ALONG - 1):
        low, high = k * AROUND, (k + 1) * AROUND
        faces += [
            torch.stack([low + here, low + beyond, high + beyond], 1),
            torch.stack([low + here, high + beyond, high + here], 1),
        ]
    triangles = torch.cat(faces)
    return points, triangles if side > 0 else triangles.flip(1)


def _gum(
    curve: _Curve, middles: Tensor, widths: Tensor, heights: tuple[float, ...], bite: float, side: float
) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "t 3"]]:
    """A band over the necks of the teeth with a scalloped margin, from one end of the arch to the other."""
    columns, rows = 121, 6
    ends = widths.cumsum(0)
    front, back = curve.points[0, 1], curve.points[-1, 1]
    points = []
    for s in torch.linspace(-1, 1, columns):
        length = s.abs() * ends[-1]
        place, _, outward = curve.at(length)
        k = int(torch.searchsorted(ends, length).clamp(0, len(ends) - 1))
        t = ((length - middles[k]) / (0.5 * widths[k])).clamp(-1, 1).abs()
        papilla = float(t) ** 3 * 0.32  # the gum reaches further down between two teeth
        height = heights[k] * (0.90 - papilla)
        rise = 0.05 * (front - place[1]) / (front - back) + side * SHORTENED[k]
        for row in range(rows):
            u = row / (rows - 1)
            swell = 0.012 * math.sin(math.pi * min(1.0, 0.25 + 0.9 * u)) - 0.012 * float(t) ** 2 * (1 - u)
            offset = swell - 0.02 * (row == 0) - 0.05 * max(0.0, u - 0.6)
            x, z = place[0] + offset * outward[0], place[1] + offset * outward[1]
            y = bite + rise + side * (height + 0.13 * u)
            points.append(torch.stack([(1.0 if s >= 0 else -1.0) * x, y, z]))
    grid = torch.arange(columns * rows).view(columns, rows)
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    triangles = torch.cat([torch.stack([a, b, c], -1).view(-1, 3), torch.stack([a, c, d], -1).view(-1, 3)])
    return torch.stack(points), triangles if side > 0 else triangles.flip(1)
