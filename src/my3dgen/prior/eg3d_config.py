"""EG3D's construction arguments, untyped dictionaries of a stranger, as a checked PriorConfig.

Names and defaults: EG3D spec 1.14, 2.2, 5.5.
"""

import re
from collections.abc import Mapping
from typing import Any

from my3dgen.config import SUPERRESOLUTIONS, PriorConfig
from my3dgen.errors import FileFormatError
from my3dgen.prior.snapshot import Snapshot

FFHQ_FOCAL = 4.2647


def derive_config(snapshot: Snapshot) -> PriorConfig:
    """The configuration that a snapshot's own arguments describe.

    `rendering_kwargs` on the object win over those among its construction arguments, because
    training replaces them. Raises FileFormatError for what is missing or out of range.
    """
    build = snapshot.init_kwargs
    options = snapshot.attributes.get("rendering_kwargs") or build.get("rendering_kwargs")
    if type(options) is not dict:
        raise FileFormatError("holds no rendering_kwargs, so how to render it is unknown")
    planes = shape(snapshot, plane_key(snapshot), 4)
    if planes[0] % 3:
        raise FileFormatError(f"has {planes[0]} plane channels, which are not three planes")
    mapping = build.get("mapping_kwargs")
    return PriorConfig(
        z_dim=whole(build, "z_dim"),
        w_dim=whole(build, "w_dim"),
        c_dim=whole(build, "c_dim"),
        mapping_layers=whole(mapping if type(mapping) is dict else {}, "num_layers", 8),
        channel_base=whole(build, "channel_base", 32768),
        channel_max=whole(build, "channel_max", 512),
        plane_resolution=plane_resolution(snapshot),
        plane_features=planes[0] // 3,
        plane_mode="xy_xz_zx",  # the published axes; weights trained with them need them
        box_warp=real(options, "box_warp"),
        neural_rendering_resolution=whole(snapshot.attributes, "neural_rendering_resolution", 64),
        img_resolution=whole(build, "img_resolution"),
        superresolution=superresolution(options),
        depth_resolution=whole(options, "depth_resolution"),
        depth_resolution_importance=whole(options, "depth_resolution_importance"),
        ray_start=limit(options, "ray_start"),
        ray_end=limit(options, "ray_end"),
        white_back=flag(options, "white_back", False),
        c_gen_conditioning_zero=flag(options, "c_gen_conditioning_zero", False),
        c_scale=real(options, "c_scale", 0.0),  # without the entry the camera counts for nothing
        decoder_hidden=shape(snapshot, "decoder.net.0.weight", 2)[0],
        decoder_lr_mul=real(options, "decoder_lr_mul", 1.0),
        render_features=shape(snapshot, "decoder.net.2.weight", 2)[0] - 1,
        conv_clamp=None if build.get("conv_clamp") is None else real(build, "conv_clamp"),
        superresolution_clamp=256.0 if whole(build, "sr_num_fp16_res", 0) else None,
        superresolution_noise_mode=text(options, "superresolution_noise_mode", "none"),
        superresolution_antialias=flag(options, "sr_antialias", True),
        disparity_space_sampling=flag(options, "disparity_space_sampling", False),
        camera_radius=real(options, "avg_camera_radius", 2.7),
        camera_pivot=triple(options, "avg_camera_pivot", (0.0, 0.0, 0.0)),
        focal=FFHQ_FOCAL,
    )


def plane_resolution(snapshot: Snapshot) -> int:
    """The resolution of the backbone's last block."""
    names = (re.match(r"backbone\.synthesis\.b(\d{1,5})\.", name) for name in snapshot.tensors)
    found = [int(match[1]) for match in names if match]
    if not found:
        raise FileFormatError("has no backbone.synthesis blocks; it is not an EG3D generator")
    return max(found)


def plane_key(snapshot: Snapshot) -> str:
    return f"backbone.synthesis.b{plane_resolution(snapshot)}.torgb.weight"


def shape(snapshot: Snapshot, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in snapshot.tensors or len(snapshot.tensors[name].size) != dimensions:
        raise FileFormatError(f"has no '{name}'; it is not an EG3D generator")
    return snapshot.tensors[name].size


def superresolution(options: Mapping[str, Any]) -> str:
    """The head's layout from the dotted class path, by its last component."""
    path = text(options, "superresolution_module", "")
    layout = path.rsplit(".", 1)[-1].removeprefix("SuperresolutionHybrid")
    if layout not in SUPERRESOLUTIONS:
        raise FileFormatError(
            f"has the super-resolution '{path[-60:]}'; known are {', '.join(SUPERRESOLUTIONS)}"
        )
    return layout


def whole(values: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = values.get(name, default)
    if type(value) is not int:
        raise FileFormatError(f"has no usable '{name}' among its options ({type(value).__name__})")
    return value


def real(values: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = values.get(name, default)
    if type(value) not in (int, float):
        raise FileFormatError(f"has no usable '{name}' among its options ({type(value).__name__})")
    return float(value)


def limit(values: Mapping[str, Any], name: str) -> Any:
    return "auto" if values.get(name) == "auto" else real(values, name)


def flag(values: Mapping[str, Any], name: str, default: bool) -> bool:
    return bool(values[name]) if type(values.get(name)) in (bool, int) else default


def text(values: Mapping[str, Any], name: str, default: str) -> Any:
    value = values.get(name, default)
    if not isinstance(value, str):
        raise FileFormatError(f"has no usable '{name}' among its options ({type(value).__name__})")
    return value


def triple(values: Mapping[str, Any], name: str, default: tuple[float, float, float]) -> Any:
    value = values.get(name, default)
    if not (isinstance(value, list | tuple) and len(value) == 3 and {type(v) for v in value} <= {int, float}):
        raise FileFormatError(f"has no usable '{name}' among its options")
    return tuple(map(float, value))
