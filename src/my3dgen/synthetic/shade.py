"""The colour of what a pixel sees, for all pixels of all views at once; linear RGB."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from my3dgen.synthetic import skin as paint
from my3dgen.synthetic.light import Light
from my3dgen.synthetic.noise import bump, smoothstep, value_noise
from my3dgen.synthetic.scene import GLASSES, MOUTH, SKIN, Scenes, collar_height
from my3dgen.synthetic.strands import brow_mask

BACKGROUND, SKIN_PART, HAIR, EYE_PART, TEETH, CLOTH, GLASSES_PART, LIPS, BROWS = range(9)


def shade_surface(
    scenes: Scenes,
    scene: Int[Tensor, " pixel"],
    material: Int[Tensor, " pixel"],
    attributes: Float[Tensor, "pixel channel"],
    toward_camera: Float[Tensor, "pixel 3"],
) -> tuple[Float[Tensor, "pixel 3"], Int[Tensor, " pixel"]]:
    """Skin, lips, brows, shirt, teeth and glasses (not eyes): colour and part label."""
    normal = F.normalize(attributes[:, 0:3], dim=1)
    canonical, irradiance, lamps = attributes[:, 3:6], attributes[:, 6:9], attributes[:, 9:12]
    albedo, openness, shadow = attributes[:, 12:15], attributes[:, 15], attributes[:, 16]
    p, is_skin = scenes.paint, (material == SKIN).float()
    detail = scenes.kit.detail.read(canonical)
    per = lambda q: q[scene]  # noqa: E731

    eye = scenes.kit.asset.landmarks["eye_left"]
    brow = (
        brow_mask(canonical, eye, *(per(q) for q in (p.brows.height, p.brows.arch, p.brows.thickness)))
        * is_skin
    )
    brow = (brow * (0.82 + 0.45 * detail["stroke"])).clamp(0, 1) * per(0.30 + 0.5 * p.brows.density)
    lips = detail["lips"] * is_skin
    inside = collar_height(canonical, per(p.collar)) - canonical[:, 1]
    cloth = smoothstep(inside, -0.012, 0.012) * is_skin
    bare = is_skin * (1 - cloth)

    # albedo: freckles, moles, mottling, furrows, lips, stubble, brows
    albedo = albedo * (1 + (0.045 * detail["mottle"] * bare)[:, None] * albedo.new_tensor([0.7, 1.0, 1.1]))
    spot = 0.42 * per(p.skin.freckles) * detail["freckle"] * bare
    mole = (0.75 * smoothstep(detail["mole"] - (1 - per(p.skin.moles)), 0.0, 0.3)) * bare
    albedo = albedo * (1 - spot[:, None] * albedo.new_tensor([0.5, 0.8, 1.0]))
    albedo = albedo * (1 - mole[:, None] * albedo.new_tensor([0.6, 0.8, 0.9]))
    old = per(p.age)
    deep = (-detail["furrow"]).clamp(0, 1.5) * (0.02 + 0.50 * old) * bare
    crease = detail["crease"] * bare
    dark = (
        1
        - deep[:, None] * albedo.new_tensor([0.20, 0.28, 0.30])
        - (0.46 * crease)[:, None] * albedo.new_tensor([0.85, 1.0, 1.0])
    )
    albedo = albedo * dark.clamp_min(0.1)
    lip_share = (lips * per(p.skin.lip_strength))[:, None]
    albedo = torch.lerp(albedo, per(p.skin.lips) * (1 + 0.10 * detail["stroke"])[:, None], lip_share)
    hairy = (shadow * (0.85 + 0.5 * detail["pore_u"])).clamp(0, 1)[:, None] * (1 - lip_share)
    albedo = torch.lerp(albedo, 0.20 * albedo + 0.50 * per(p.hair_colour), hairy)
    albedo = torch.lerp(albedo, 0.35 * albedo + 0.65 * per(p.brow_colour), brow[:, None])
    albedo = torch.lerp(albedo, per(p.cloth) * (1 + 0.07 * detail["mottle"])[:, None], cloth[:, None])

    # fine relief tilts the normal: pores everywhere, furrows with age
    u, v = paint.tangents(canonical)
    rough = (0.045 + 0.07 * old) * bare
    relief = (0.02 + old) * bare
    tilt_u = rough * detail["pore_u"] - 0.012 * relief * detail["furrow_u"] * 1.2
    tilt_v = rough * detail["pore_v"] - 0.012 * relief * detail["furrow_v"] * 1.2
    tilt_v = tilt_v + 0.10 * cloth * detail["pore_u"]
    tilted = F.normalize(normal - (tilt_u[:, None] * u + tilt_v[:, None] * v), dim=1)

    direction, colour = scenes.light.direction[scene], scenes.light.colour[scene]
    facing = (direction * normal[:, None]).sum(2)
    tilted_facing = (direction * tilted[:, None]).sum(2)
    change = tilted_facing.clamp_min(0) - facing.clamp_min(0)
    irradiance = irradiance + ((lamps * change)[..., None] * colour).sum(1)
    bounce_colour = albedo * irradiance.clamp_min(0)

    gloss = (
        per(p.skin.shine)
        * (1 + 0.35 * lips)
        * (1 - 0.25 * detail["mottle"]).clamp(0.5, 1.3)
        * (1 - 0.75 * hairy[:, 0])
        * bare
        + 0.9 * (material == MOUTH)
        + 1.2 * (material == GLASSES)
    )
    width = 0.52 - 0.12 * lips - 0.20 * (material == MOUTH) - 0.12 * (material == GLASSES)
    shine = _specular(tilted, toward_camera, direction, tilted_facing, width)
    shine = ((shine * lamps)[..., None] * colour).sum(1)
    rim = _sky_sheen(scenes.light, scene, tilted, toward_camera) * openness.clamp(0, 1)[:, None]
    result = bounce_colour + (shine + rim) * gloss[:, None]

    label = torch.full_like(scene, SKIN_PART)
    label = torch.where(lips > 0.5, LIPS, label)
    label = torch.where(brow > 0.35, BROWS, label)
    label = torch.where(cloth > 0.5, CLOTH, label)
    label = torch.where(material == MOUTH, TEETH, label)
    return result, torch.where(material == GLASSES, GLASSES_PART, label)


def _ggx(cosine: Tensor, width: Tensor) -> Tensor:
    a2 = width**4
    return a2 / (math.pi * ((cosine * cosine) * (a2 - 1) + 1) ** 2)


def _specular(
    normal: Tensor, view: Tensor, lamp: Tensor, facing: Tensor, width: Tensor
) -> Float[Tensor, "pixel lamp"]:
    """Two GGX lobes with Schlick's Fresnel term of skin, per lamp."""
    half = F.normalize(lamp + view[:, None], dim=2)
    nh = (half * normal[:, None]).sum(2).clamp(0, 1)
    vh = (half * view[:, None]).sum(2).clamp(0, 1)
    nv = (normal * view).sum(1, keepdim=True).clamp(0, 1)
    nl = facing.clamp(0, 1)
    fresnel = 0.028 + 0.97 * (1 - vh) ** 5
    lobes = 0.7 * _ggx(nh, width[:, None]) + 0.3 * _ggx(nh, 0.7 * width[:, None])
    return lobes * fresnel * nl / (4 * (0.35 + 0.65 * nl) * (0.35 + 0.65 * nv)) * (math.pi * 0.46)


def _sky_sheen(light: Light, scene: Tensor, normal: Tensor, view: Tensor) -> Float[Tensor, "pixel 3"]:
    """What a rough surface mirrors of sky and ground, strongest at grazing angles."""
    nv = (normal * view).sum(1).clamp(0, 1)
    up = (2 * nv * normal[:, 1] - view[:, 1]) * 0.5 + 0.5
    up = up.clamp(0, 1)[:, None]
    return (light.sky[scene] * up + light.ground[scene] * (1 - up)) * (0.02 + 0.22 * (1 - nv) ** 4)[:, None]


def shade_eyes(
    scenes: Scenes,
    scene: Int[Tensor, " pixel"],
    attributes: Float[Tensor, "pixel channel"],
    toward_camera: Float[Tensor, "pixel 3"],
) -> Float[Tensor, "pixel 3"]:
    """White, iris with a dark limbal ring, pupil, wet edge and catchlights."""
    normal, own = F.normalize(attributes[:, 0:3], dim=1), F.normalize(attributes[:, 3:6], dim=1)
    irradiance, lamps = attributes[:, 6:9], attributes[:, 9:12]
    above, below = attributes[:, 12], attributes[:, 13]
    p, per = scenes.paint, lambda q: q[scene]
    angle = torch.acos(own[:, 2].clamp(-1, 1))
    around = torch.atan2(own[:, 1], own[:, 0])
    size, pupil = per(p.iris_size), per(p.pupil)

    ray = torch.stack([around.cos() * 3.2, around.sin() * 3.2, angle * 2.0], 1)
    fibre = value_noise(ray, 4.0, 9.0)
    tone = 1 + 0.40 * fibre[:, 0] + 0.25 * fibre[:, 1]
    ring = smoothstep(angle, size * 0.66, size * 0.98)
    iris = per(p.iris) * tone[:, None] * (1.25 - 1.05 * ring)[:, None]
    warm = bump(angle - 1.35 * pupil, 0.06) * (1 - per(p.brown)) * 0.4
    iris = iris + warm[:, None] * iris.new_tensor([0.17, 0.08, 0.02])
    hole = 1 - smoothstep(angle, pupil * 0.88, pupil * 1.10)
    iris = iris * (1 - hole)[:, None] + 0.003 * hole[:, None]

    vein = smoothstep(value_noise(own, 7.0, 10.0)[:, 0], 0.15, 0.75) * smoothstep(angle, 0.6, 1.1)
    white = iris.new_tensor([0.80, 0.765, 0.745]) * (1 - 0.16 * smoothstep(angle, 0.85, 1.35))[:, None]
    white = white * (1 - vein[:, None] * iris.new_tensor([0.0, 0.05, 0.045]))
    inside = 1 - smoothstep(angle, size * 0.94, size * 1.05)
    albedo = torch.lerp(white, iris, inside[:, None])
    result = albedo * irradiance

    # the cornea bulges, so highlights sit on the iris; lids cut them off
    mirrored = 2 * (normal * toward_camera).sum(1, keepdim=True) * normal - toward_camera
    seen = smoothstep(above, 0.0, 0.02) * smoothstep(below, 0.0, 0.02)
    # lamps are drawn towards the front, so that the key light is nearly always mirrored in the iris
    lamp = F.normalize(
        0.55 * scenes.light.direction + scenes.light.direction.new_tensor([0.0, 0.03, 0.55]), dim=2
    )
    along = (lamp[scene] * mirrored[:, None]).sum(2)
    glint = smoothstep(along[:, 0], 0.955, 0.982) * 1.5 + smoothstep(along[:, 1], 0.975, 0.99) * 0.5
    open_lamp = 0.35 + 0.65 * lamps[:, 0]
    result = result + (glint * seen * open_lamp)[:, None] * per(scenes.light.colour)[:, 0]
    sky = smoothstep(mirrored[:, 1], 0.05, 0.75) * (0.035 + 0.06 * inside) * seen
    result = result + sky[:, None] * per(scenes.light.sky)
    tear = bump(below - 0.007, 0.008) * 0.42
    return result + tear[:, None] * irradiance


def shade_strands(
    scenes: Scenes,
    scene: Int[Tensor, " pixel"],
    position: Float[Tensor, "pixel 3"],
    along: Float[Tensor, "pixel 3"],
    light: Float[Tensor, "pixel 6"],
    colour: Float[Tensor, "pixel 3"],
    gloss: Float[Tensor, " pixel"],
    toward_camera: Float[Tensor, "pixel 3"],
) -> Float[Tensor, "pixel 3"]:
    """Fibres after Kajiya and Kay: a white and a coloured highlight, and light that shines through."""
    along = F.normalize(along, dim=1)
    direction, lamp = scenes.light.direction[scene], scenes.light.colour[scene]
    tl = (direction * along[:, None]).sum(2)
    tv = (along * toward_camera).sum(1, keepdim=True)
    sl, sv = (1 - tl * tl).clamp_min(0).sqrt(), (1 - tv * tv).clamp_min(0).sqrt()
    shift = 0.07
    first = (
        sl * (sv * math.cos(shift) - tv * math.sin(shift))
        - tl * (tv * math.cos(shift) + sv * math.sin(shift))
    ).clamp(0, 1)
    second = (sl * sv - tl * tv).clamp(0, 1)
    lamps = light[:, 3:]
    white = ((first**28 * lamps)[..., None] * lamp).sum(1) * 0.050
    tinted = ((second**10 * lamps)[..., None] * lamp).sum(1) * colour * 0.75
    through = -(direction * toward_camera[:, None]).sum(2)
    glow = ((through.clamp(0, 1) ** 6 * lamps)[..., None] * lamp).sum(1) * colour * 0.7
    return colour * light[:, :3] + gloss[:, None] * (white + tinted + glow)
