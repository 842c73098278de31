"""Scalp hair: strands grown on the average head, then carried to each person's head.

Every head has the same roots, clumps and jitter; the hair factors bend them continuously. Growth happens in
canonical coordinates (the average adult head, decimetres, y up, z forward), so it is one computation for any
number of scenes; a smooth field of displacements then fits the strands to each head.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from my3dgen.synthetic.factors import block
from my3dgen.synthetic.noise import bump, common_normal, common_random, smoothstep, value_noise
from my3dgen.synthetic.tied import GATHERED, gathered_directions, tied_strands

NODES = 20
_GRID = (24, 48)  # elevation x azimuth of the radial maps
_CLUMPS = 360


@dataclass(frozen=True)
class Scalp:
    """What all heads share: roots, their random numbers, and the average head as an obstacle."""

    centre: Float[Tensor, " 3"]
    root: Float[Tensor, "strand 3"]
    normal: Float[Tensor, "strand 3"]
    corner: Int[Tensor, "strand 3"]
    weight: Float[Tensor, "strand 3"]
    azimuth: Float[Tensor, " strand"]
    elevation: Float[Tensor, " strand"]
    guide: Int[Tensor, " strand"]
    """The strand that leads each strand's clump."""
    own: Float[Tensor, "strand 8"]
    clump: Float[Tensor, "strand 8"]
    order: Float[Tensor, " strand"]
    """Uniform numbers: who appears first where hair is thin."""
    radius: Float[Tensor, "1 1 height width"]
    carriers: Int[Tensor, " carrier"]
    spread: Float[Tensor, "cell carrier"]
    """Averages the displacement of carrier vertices into cells of the direction map."""


def head_angles(points: Tensor, centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Azimuth (0 in front, positive to +x), elevation and distance about the head's centre."""
    offset = points - centre
    radius = offset.norm(dim=-1).clamp_min(1e-4)
    return (
        torch.atan2(offset[..., 0], offset[..., 2]),
        torch.asin((offset[..., 1] / radius).clamp(-1, 1)),
        radius,
    )


def hairline(azimuth: Tensor, raised: Tensor | float, recession: Tensor | float) -> Tensor:
    """The elevation (radians) above which hair grows, for azimuths on the average head."""
    a = azimuth.abs()
    front, side, back = 0.43 + 0.045 * raised, -0.12, -0.62
    temple = smoothstep(a, 0.66, 1.04)
    nape = smoothstep(a, 1.85, 2.6)
    line = front * (1 - temple) + side * temple
    line = line * (1 - nape) + back * nape
    return line + recession * (0.40 * bump(a - 0.6, 0.27) + 0.14 * bump(a, 0.5)) - 0.04 * bump(a, 0.16)


def make_scalp(
    canonical: Float[Tensor, "vertex 3"],
    normals: Float[Tensor, "vertex 3"],
    triangles: Int[Tensor, "triangle 3"],
    barred: Float[Tensor, " vertex"],
    eye_height: float,
    strands: int = 10000,
) -> Scalp:
    """Choose the roots, evenly over the skin where hair grows; `barred` is 1 on ears and inside the head."""
    device = canonical.device
    points, facing, corners = canonical.cpu(), normals.cpu(), triangles.cpu()
    centre = torch.tensor([0.0, eye_height + 0.10, 0.12])
    azimuth, elevation, radius = head_angles(points, centre)
    room = smoothstep(elevation - hairline(azimuth, -2.0, 0.0), -0.06, 0.0) * (1 - barred.cpu())
    edge = points[corners[:, 1:]] - points[corners[:, :1]]
    area = torch.linalg.cross(edge[:, 0], edge[:, 1]).norm(dim=1) * room[corners].mean(1)
    rng = torch.Generator().manual_seed(31)
    face = torch.multinomial(area, strands, replacement=True, generator=rng)
    fold = torch.rand(strands, 2, generator=rng)
    fold = torch.where(fold.sum(1, keepdim=True) > 1, 1 - fold, fold)
    weight = torch.cat([1 - fold.sum(1, keepdim=True), fold], 1)
    corner = corners[face]
    root = (points[corner] * weight[..., None]).sum(1)
    normal = F.normalize((facing[corner] * weight[..., None]).sum(1), dim=1)
    leaders = torch.arange(_CLUMPS)  # roots come in random order, so the first few are spread evenly
    nearest = torch.cdist(root, root[leaders]).argmin(1)

    skull = (points[:, 1] > eye_height - 1.15) & (barred.cpu() < 0.5)
    cell = _direction_cells()
    direction = F.normalize(points - centre, dim=1)
    closeness = cell @ direction[skull].T
    outer = (torch.softmax(closeness * 260 + radius[skull] * 14, 1) * radius[skull]).sum(1)
    carriers = skull.nonzero()[:, 0][:: max(1, int(skull.sum()) // 1200)]
    spread = torch.softmax(cell @ direction[carriers].T * 90, 1)
    az, el, _ = head_angles(root, centre)
    parts = (
        *(centre, root, normal, corner, weight, az, el, leaders[nearest]),
        *(common_normal(strands, 8, seed=32), common_normal(_CLUMPS, 8, seed=33)[nearest]),
        *(common_random(strands, seed=34), outer.view(1, 1, *_GRID), carriers, spread),
    )
    return Scalp(*(p.to(device) for p in parts))


def _direction_cells() -> Float[Tensor, "cell 3"]:
    height, width = _GRID
    elevation = torch.linspace(-math.pi / 2, math.pi / 2, height)[:, None].expand(height, width)
    azimuth = torch.linspace(-math.pi, math.pi, width)[None].expand(height, width)
    x, z = azimuth.sin() * elevation.cos(), azimuth.cos() * elevation.cos()
    return torch.stack([x, elevation.sin(), z], -1).reshape(-1, 3)


def _read(grid: Float[Tensor, "scene channel height width"], points: Tensor, centre: Tensor) -> Tensor:
    azimuth, elevation, _ = head_angles(points, centre)
    place = torch.stack([azimuth / math.pi, elevation / (math.pi / 2)], -1)
    scenes = len(points)
    read = F.grid_sample(
        grid.expand(scenes, -1, -1, -1),
        place.reshape(scenes, 1, -1, 2),
        align_corners=True,
        padding_mode="border",
    )
    return read[:, :, 0].transpose(1, 2).reshape(*points.shape[:-1], grid.shape[1])


@dataclass(frozen=True)
class HairStyle:
    """The bounded quantities that the hair factors stand for, each `scene`; lengths in decimetres."""

    length: Tensor
    volume: Tensor
    curl: Tensor
    turns: Tensor
    part: Tensor
    raised: Tensor
    recession: Tensor
    fringe: Tensor
    clump: Tensor
    forward: Tensor
    lift: Tensor
    cover: Tensor
    tied: Tensor
    """0 loose .. 1 gathered behind, for all but the fringe."""
    tie_height: Tensor
    """Elevation of the tie, radians."""
    bun: Tensor
    sweep: Tensor
    """-1 to 1: to which side the fringe is combed."""
    tuck: Tensor
    """0 to 1: how much hair goes behind the ears."""
    colour: Float[Tensor, "scene 3"]
    natural: Float[Tensor, "scene 3"]
    """With little grey, as brows and beards keep it."""
    grey: Tensor


def hair_style(factors: Float[Tensor, "scene factors"]) -> HairStyle:
    """Decode the hair block. Sex and age shift what is likely; nothing jumps."""
    f = block(factors, "hair")
    u = {name: torch.special.ndtr(value) for name, value in f.items()}
    macro = block(factors, "macro")
    male = smoothstep(torch.special.ndtr(macro["sex"]), 0.2, 0.8)
    age = torch.special.ndtr(macro["age"])
    short = 0.07 + 0.50 * u["length"] ** 1.3 + 1.2 * smoothstep(u["length"], 0.88, 1.0)
    long = 0.32 + 1.0 * u["length"] + 1.15 * smoothstep(u["length"], 0.25, 0.9)
    curl = smoothstep(u["curl"], 0.35, 1.0) * (1 - 0.5 * u["straightness"])
    bald = male * smoothstep(u["coverage"] - 0.25 * age, 0.10, -0.06)
    grey = smoothstep(age + 0.12 * f["grey"], 0.76, 1.06)
    melanin = torch.special.ndtr(block(factors, "skin")["melanin"])
    black = f["black"] + 2.4 * (melanin - 0.4)  # dark skin mostly comes with dark hair
    length = (short * male + long * (1 - male)) * (1 - 0.35 * curl * (1 - male))
    return HairStyle(
        length=length,
        volume=u["volume"],
        curl=curl,
        turns=1.2 + 2.2 * u["curl_frequency"],
        part=0.30 * torch.tanh(f["part"]),
        raised=torch.tanh(0.6 * f["hairline"]) * 1.4,
        recession=u["recession"] * male * (0.15 + 0.85 * age),
        fringe=smoothstep(u["fringe"], 0.58, 0.86) * (1 - 0.6 * male),
        clump=u["clump"],
        forward=torch.tanh(0.9 * f["comb"]),
        lift=u["lift"],
        cover=1 - bald,
        tied=smoothstep(u["tied"], 0.61, 0.69) * smoothstep(length, 0.55, 0.85),
        tie_height=-0.30 + 0.85 * u["tie_height"],
        bun=smoothstep(u["bun"], 0.54, 0.70),
        sweep=torch.tanh(1.2 * f["sweep"]),
        tuck=smoothstep(u["tuck"], 0.50, 0.75),
        colour=_hair_colour(black, f["red"], grey),
        natural=_hair_colour(black, f["red"], 0.35 * grey),
        grey=grey,
    )


def _hair_colour(black: Tensor, red: Tensor, grey: Tensor) -> Float[Tensor, "scene 3"]:
    """Absorption by two melanins: smooth from blond over red and brown to black, then towards grey."""
    dark = 0.16 + 4.0 * torch.sigmoid(1.4 * black + 0.8)  # optical depth of eumelanin
    warm = 0.9 * torch.sigmoid(1.4 * red - 2.0)
    absorb = dark[:, None] * dark.new_tensor([0.80, 1.12, 1.50]) + warm[:, None] * dark.new_tensor(
        [0.0, 0.75, 1.3]
    )
    colour = 0.62 * torch.exp(-absorb) + 0.006
    return colour * (1 - grey[:, None]) + grey[:, None] * dark.new_tensor([0.42, 0.41, 0.40])


def hair_density(
    style: HairStyle,
    azimuth: Float[Tensor, " point"],
    elevation: Float[Tensor, " point"],
    jitter: Tensor | float = 0.0,
    soft: float = 0.18,
) -> Float[Tensor, "scene point"]:
    """How thick the hair grows, 0 to 1, at places of the average head given by their angles."""
    line = hairline(azimuth, style.raised[:, None], style.recession[:, None])
    return smoothstep(elevation - line + jitter, -0.05, soft - 0.05) * style.cover[:, None]


@dataclass(frozen=True)
class Hair:
    """Strands in canonical coordinates (decimetres) and their colour."""

    nodes: Float[Tensor, "scene strand node 3"]
    colour: Float[Tensor, "scene strand 3"]


def grow_hair(scalp: Scalp, style: HairStyle) -> Hair:
    """Grow all strands of all scenes at once, node by node."""

    def per_scene(q: Tensor) -> Tensor:
        return q[:, None]

    own, clump = scalp.own, scalp.clump
    rx, _, rz = scalp.root.unbind(1)
    length, volume, curl = per_scene(style.length), per_scene(style.volume), per_scene(style.curl)
    is_short = 1 - smoothstep(length, 0.55, 1.15)
    side = torch.tanh((rx - per_scene(style.part)) * 22)
    thin = smoothstep(side.abs(), 0.15, 0.6)  # no hair knows where to fall on the parting itself
    jitter = 0.035 * value_noise(scalp.root, 7.0, 17.0)[:, 0] + 0.02 * own[:, 2]
    density = hair_density(style, scalp.azimuth, scalp.elevation, jitter - 0.03, 0.09)
    tied = per_scene(style.tied)
    free = torch.maximum(is_short, tied)  # of a parting
    present = smoothstep(density * 1.15 - scalp.order, 0.0, 0.10) * (free + (1 - free) * thin)
    crown = smoothstep(scalp.elevation, 0.15, 1.0)
    front = smoothstep(rz, 0.30, 1.0) * smoothstep(scalp.elevation, 0.40, 0.75)

    fringe = per_scene(style.fringe) * smoothstep(rz, 0.55, 0.85) * smoothstep(-rx.abs(), -0.62, -0.40)
    fringe = fringe * smoothstep(length, 0.15, 0.40)
    swept = per_scene(style.sweep)
    amount = length * (1 - 0.55 * is_short * (1 - crown))
    amount = amount * (0.3 + 0.7 * per_scene(style.cover))
    amount = torch.lerp(amount, torch.minimum(amount, 0.50 + 0.25 * swept.abs() + 0.05 * clump[:, 0]), fringe)
    vary = (1 + 0.09 * own[:, 0] + 0.07 * clump[:, 0]).clamp(0.6, 1.4)
    vary = vary - 0.50 * is_short * scalp.order.roll(3) ** 1.5  # cut in layers: an outline without spikes
    amount = amount * present * vary

    # direction in which the hair is combed, as a pull along the surface
    forward = per_scene(style.forward)
    sideways = side * (0.85 - 0.45 * is_short * forward.abs())
    down = -0.25 - 0.95 * (1 - crown) * is_short
    ahead = is_short * (0.9 * forward * crown - 0.45 * (1 - crown)) - (1 - is_short) * (0.30 + 0.35 * front)
    sideways = torch.lerp(sideways, 0.12 * side + 1.1 * swept, fringe)
    down = torch.lerp(down, torch.full_like(down, -0.5), fringe)
    ahead = torch.lerp(ahead, torch.full_like(ahead, 1.2), fringe)
    comb = torch.stack(torch.broadcast_tensors(sideways, down, ahead), -1)
    loose = (0.05 + 0.05 * is_short + 0.25 * curl)[..., None]
    comb = comb + loose * (clump[:, 1:4] + 0.35 * own[:, 1:4])
    puffy = curl * smoothstep(per_scene(style.lift), 0.2, 1.0) * (1 - 0.65 * smoothstep(length, 0.7, 1.6))
    top = 0.25 + 0.75 * crown
    lift = 0.12 + 0.50 * is_short * per_scene(style.lift) * top + 0.20 * volume * top + 1.1 * puffy
    lift = torch.lerp(lift, torch.full_like(lift, 0.45), fringe)
    comb = comb - (comb * scalp.normal).sum(-1, keepdim=True) * scalp.normal * 0.9
    direction = F.normalize(scalp.normal * lift[..., None] + comb * (1 - 0.75 * puffy)[..., None], dim=-1)

    weight = (0.03 + 0.20 * (1 - is_short)) * (1 - 0.75 * puffy)
    fluffy = volume * (1 - 0.6 * is_short)
    layer = 0.028 + 0.03 * scalp.order + (0.10 * fluffy + 0.05 * curl) * torch.sqrt(scalp.order)
    step = amount / (NODES - 1)
    here = scalp.root.expand(len(length), -1, -1)
    nodes = [here]
    for k in range(1, NODES):
        t = k / (NODES - 1)
        pull = _pull_inwards(here, scalp.centre) * (1 - is_short)[..., None]
        direction = torch.stack(
            [direction[..., 0], direction[..., 1] - weight * (1 + 1.5 * t), direction[..., 2]], -1
        )
        direction = F.normalize(direction + pull, dim=-1)
        there = here + direction * step[..., None]
        there = _push_out(scalp, there, layer * min(1.0, k / 3), present)
        there = _off_the_face(scalp.centre, there, side, (1 - fringe) * present, clump[:, 4])
        there = _behind_the_ears(scalp.centre, there, per_scene(style.tuck) * (1 - fringe) * (1 - is_short))
        moved = F.normalize(there - here + 1e-7 * direction, dim=-1)
        direction = F.normalize(0.25 * direction + 0.75 * moved, dim=-1)
        here = there
        nodes.append(here)
    strands = _without_strays(torch.stack(nodes, 2), step)
    strands = _gather_clumps(scalp, strands, style, is_short, fringe, present)
    strands = _curl(scalp, strands, amount, style, puffy)
    strands = _tie_back(scalp, strands, style, present, layer, fringe)
    return Hair(strands, _strand_colours(scalp, style))


def _without_strays(strands: Tensor, step: Tensor) -> Tensor:
    """Draw strands back into the skin that obstacles have thrown about: their segments are far too long."""
    longest = (strands[:, :, 1:] - strands[:, :, :-1]).norm(dim=-1).amax(-1)
    keep = smoothstep(-longest / (step + 0.012), -2.6, -1.9)
    root = strands[:, :, :1]
    return root + (strands - root) * keep[..., None, None]


def _pull_inwards(points: Tensor, centre: Tensor) -> Tensor:
    """Hair that hangs below the ears closes in around the neck."""
    axis = points.new_tensor([1.0, 0.0, 1.0])
    out = points * axis - points.new_tensor([0.0, 0.0, -0.05])
    far = out.norm(dim=-1, keepdim=True).clamp_min(0.1)
    below = smoothstep(centre[1] - points[..., 1:2], 0.15, 0.7)
    return -out / far * (far - 0.78).clamp(0, 0.5) * 1.1 * below


def _push_out(scalp: Scalp, points: Tensor, layer: Tensor, present: Tensor) -> Tensor:
    """Keep strands `layer` outside the skull; below the jaw, outside a column around the neck."""
    azimuth, elevation, radius = head_angles(points, scalp.centre)
    place = torch.stack([azimuth / math.pi, elevation / (math.pi / 2)], -1)
    scenes = len(points)
    surface = F.grid_sample(
        scalp.radius.expand(scenes, -1, -1, -1), place[:, None], align_corners=True, padding_mode="border"
    )[:, 0, 0]
    beside = smoothstep(points[..., 1], scalp.centre[1] - 0.95, scalp.centre[1] - 0.45)
    short_by = ((surface.clamp_max(1.22) + layer - radius).clamp_min(0) * beside * present)[..., None]
    points = points + (points - scalp.centre) / radius[..., None] * short_by
    out = (points - points.new_tensor([0.0, 0.0, -0.10])) * points.new_tensor([1.0, 0.0, 1.0])
    far = out.norm(dim=-1, keepdim=True).clamp_min(1e-3)
    return points + out / far * ((0.60 + 2 * layer[..., None] - far).clamp_min(0) * (1 - beside)[..., None])


def _off_the_face(centre: Tensor, points: Tensor, side: Tensor, amount: Tensor, vary: Tensor) -> Tensor:
    """Sweep strands aside that would cross the face."""
    x, y, z = points.unbind(-1)
    below = smoothstep(centre[1] + 0.50 - y, 0.0, 0.22)
    ahead = smoothstep(z, 0.42, 0.80)
    edge = 0.70 + 0.05 * vary.clamp(-1, 1)
    outward = torch.sign(side) * torch.ones_like(x)
    missing = (edge - x * outward).clamp(0, 1.0) * below * ahead * amount
    return torch.stack([x + 0.45 * missing * outward, y, z - 0.25 * missing], -1)


def _behind_the_ears(centre: Tensor, points: Tensor, amount: Tensor) -> Tensor:
    """Draw hair at the sides of the face backwards, so that it leaves the ears free."""
    x, y, z = points.unbind(-1)
    below = smoothstep(centre[1] + 0.30 - y, 0.0, 0.45)
    ahead = (z - 0.12).clamp(0, 0.5) * below * smoothstep(x.abs(), 0.3, 0.6) * amount
    return torch.stack([x, y, z - 0.6 * ahead], -1)


def _tie_back(
    scalp: Scalp, strands: Tensor, style: HairStyle, present: Tensor, layer: Tensor, fringe: Tensor
) -> Tensor:
    """Blend loose strands into tied ones; the fringe stays loose."""
    over = round(NODES * GATHERED)
    direction = F.normalize(scalp.root - scalp.centre, dim=-1)
    ways = gathered_directions(direction, style.tie_height, over)
    grid = scalp.radius.clamp_max(1.25)
    skull = _read(grid, (scalp.centre + ways).flatten(1, 2), scalp.centre)[..., 0].view(ways.shape[:3])
    t = torch.linspace(0, 1, over, device=strands.device)
    skull = skull + (0.5 * layer[..., None] + 0.012) * smoothstep(t, 0.0, 0.3)
    skull = skull + (0.02 + 0.09 * style.volume)[:, None, None] * torch.sin(math.pi * t) * (1 - 0.5 * t)
    first = (scalp.root - scalp.centre).norm(dim=-1)[:, None]
    skull = torch.lerp(first.expand_as(skull), skull, smoothstep(t, 0.0, 0.35))
    tail = (style.length - 0.25).clamp(0.35, 1.5)
    wave = style.curl.clamp(0, 1)
    bound = tied_strands(
        direction, scalp.centre, skull, style.tie_height, tail, style.bun, wave, strands.shape[2]
    )
    bound = _first_part(bound, present)
    share = style.tied[:, None] * (1 - smoothstep(fringe, 0.30, 0.50))
    return torch.lerp(strands, bound, share[..., None, None])


def _first_part(strands: Tensor, share: Tensor) -> Tensor:
    """The beginnings of strands, `share` of their nodes long, with as many nodes as before."""
    last = strands.shape[2] - 1
    place = share[..., None] * torch.arange(last + 1, device=strands.device)
    below = place.floor().clamp(0, last - 1).long()
    read = lambda k: torch.gather(strands, 2, k[..., None].expand_as(strands))  # noqa: E731
    return torch.lerp(read(below), read(below + 1), (place - below)[..., None])


def _gather_clumps(
    scalp: Scalp, strands: Tensor, style: HairStyle, is_short: Tensor, fringe: Tensor, present: Tensor
) -> Tensor:
    lead = strands[:, scalp.guide]
    t = torch.linspace(0, 1, NODES, device=strands.device)
    apart = (lead[:, :, -1] - strands[:, :, -1]).norm(dim=-1)
    together = (
        (0.40 + 0.15 * style.curl[:, None])
        * (0.5 + 0.7 * style.clump[:, None])
        * torch.exp(-((apart / 0.35) ** 2))
    )
    together = together * (1 - 0.4 * fringe) * (1 - 0.65 * is_short) * present
    return strands + (lead - strands) * (together[..., None] * t**0.8)[..., None]


def _curl(scalp: Scalp, strands: Tensor, amount: Tensor, style: HairStyle, puffy: Tensor) -> Tensor:
    """Wind strands into helices that neighbours in a clump share, and add a little smooth frizz."""
    t = torch.linspace(0, 1, NODES, device=strands.device)
    down = strands.new_tensor([0.0, -1.0, 0.01])
    a = F.normalize(torch.linalg.cross(scalp.normal, down.expand_as(scalp.normal)), dim=1)
    b = F.normalize(torch.linalg.cross(a, scalp.normal) + 0.8 * scalp.normal, dim=1)
    phase = scalp.clump[:, 5] * 6.28 + scalp.own[:, 5] * 0.7
    turn = 2 * math.pi * style.turns[:, None, None] * t * (1 + 0.1 * scalp.clump[:, 6, None]) + phase[:, None]
    curl, length = style.curl[:, None], amount
    width = (
        (0.010 + 0.085 * curl)
        * (1 + 0.25 * scalp.clump[:, 6]).clamp(0.5, 1.5)
        * smoothstep(length, 0.02, 0.6)
    )
    width = width[..., None] * smoothstep(t, 0.0, 0.25)
    strands = (
        strands + (width * turn.cos())[..., None] * a[:, None] + (width * turn.sin())[..., None] * b[:, None]
    )
    frizz = common_normal(len(scalp.root), 3, 5, seed=35, device=strands.device)
    frizz = F.interpolate(frizz, size=NODES, mode="linear", align_corners=True).transpose(1, 2)
    size = (0.006 + 0.030 * curl) * smoothstep(length, 0.02, 0.5)
    return strands + frizz * (size[..., None] * t)[..., None]


def _strand_colours(scalp: Scalp, style: HairStyle) -> Float[Tensor, "scene strand 3"]:
    shade = (1 + 0.12 * scalp.own[:, 6] + 0.14 * scalp.clump[:, 7]).clamp(0.5, 1.6)
    colour = style.colour[:, None] * shade[:, None]
    white = (
        smoothstep(style.grey[:, None] * 0.9 - scalp.order.roll(1), -0.25, 0.25)
        * 0.45
        * smoothstep(style.grey, 0.0, 0.3)[:, None]
    )
    return torch.lerp(colour, colour.new_tensor([0.50, 0.49, 0.48]).expand_as(colour), white[..., None])


def fit_to_heads(
    scalp: Scalp, nodes: Float[Tensor, "scene strand node 3"], heads: Float[Tensor, "scene vertex 3"],
    canonical: Float[Tensor, "vertex 3"],
) -> Float[Tensor, "scene strand node 3"]:  # fmt: skip
    """Carry canonical strands to neutral heads: roots land on the skin, the rest follows smoothly."""
    scenes = len(heads)
    moved = (heads - canonical)[:, scalp.carriers]
    field = torch.einsum("kc,scx->sxk", scalp.spread, moved).view(scenes, 3, *_GRID)
    fitted = nodes + _read(field, nodes, scalp.centre)
    root = (heads[:, scalp.corner] * scalp.weight[..., None]).sum(2)
    return fitted + (root - fitted[:, :, 0])[:, :, None]
