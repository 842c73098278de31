"""What a prior is, as data: the sizes and rendering options of a tri-plane generator.

A configuration travels as JSON (`config.json` of a prior folder). Everything that changes the
picture but is not a weight is a field here, so weights plus configuration determine the output.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Literal, NamedTuple

from my3dgen.errors import FileFormatError

MAX_NUMBER = 1e15  # far above every value that means something

PlaneMode = Literal["xy_xz_zx", "xy_xz_zy"]
NoiseMode = Literal["none", "const", "random"]


class SuperresolutionLayout(NamedTuple):
    """One of EG3D's super-resolution heads (EG3D spec 1.14)."""

    input_resolution: int
    """Side of the features that enter the first block, in pixels."""
    channels: tuple[int, int]
    """Output channels of the two blocks."""
    first_block_upsamples: bool
    """Whether block 0 doubles the resolution (block 1 always does)."""
    resizes_down: bool
    """Whether an input larger than `input_resolution` is resized too, not only a smaller one."""
    owns_filter: bool
    """Whether the state dict has an extra top-level `resample_filter`."""


SUPERRESOLUTIONS: dict[str, SuperresolutionLayout] = {
    "8XDC": SuperresolutionLayout(128, (256, 128), True, True, False),
    "8X": SuperresolutionLayout(128, (128, 64), True, True, True),
    "4X": SuperresolutionLayout(128, (128, 64), False, False, True),
    "2X": SuperresolutionLayout(64, (128, 64), False, True, True),
}


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Sizes and rendering options of one prior. Raises FileFormatError on a value out of range."""

    z_dim: int
    """Length of the Gaussian latent z."""
    w_dim: int
    """Length of a style vector w."""
    mapping_layers: int
    """Dense layers between (z, camera) and w."""
    channel_base: int
    """A backbone block at resolution r has min(channel_base // r, channel_max) channels."""
    channel_max: int
    """Upper limit of the channels of a backbone block."""
    plane_resolution: int
    """Side of each feature plane in texels; a power of two."""
    plane_mode: PlaneMode
    """Coordinates of the three planes. `xy_xz_zx` repeats the xz plane and is what NVIDIA's
    checkpoints need; `xy_xz_zy` is the tri-plane of the paper."""
    box_warp: float
    """Side of the cube covered by the planes, in world units."""
    neural_rendering_resolution: int
    """Side of the volume-rendered image, in pixels."""
    img_resolution: int
    """Side of the final image, in pixels."""
    superresolution: str
    """Layout of the super-resolution head: 8XDC, 8X, 4X or 2X."""
    depth_resolution: int
    """Stratified samples per ray."""
    depth_resolution_importance: int
    """Further samples per ray where the first ones found density; 0 for a single pass."""
    ray_start: float | Literal["auto"]
    """Distance of the first sample from the camera; `auto` is the entry into the box."""
    ray_end: float | Literal["auto"]
    """Distance of the last sample from the camera; `auto` is the exit from the box."""
    white_back: bool
    """Whether empty space is white instead of black."""
    c_gen_conditioning_zero: bool
    """Whether the mapping ignores the camera."""
    c_scale: float = 1.0
    """Factor on the camera label before the mapping sees it."""
    c_dim: int = 25
    """Length of a camera label: 16 of cam2world, 9 of the intrinsics."""
    mapping_lr_mul: float = 0.01
    """Learning-rate multiplier of the mapping's dense layers; their stored weights are 1/this large."""
    plane_features: int = 32
    """Channels of each feature plane."""
    decoder_hidden: int = 64
    """Hidden units of the decoder."""
    decoder_lr_mul: float = 1.0
    """Learning-rate multiplier of the decoder's layers."""
    render_features: int = 32
    """Channels volume-rendered per pixel; the first three are the raw image."""
    conv_clamp: float | None = None
    """Bound on the activations of the backbone, or none."""
    superresolution_input: int | None = None
    """Overrides the layout's input resolution, in pixels."""
    superresolution_channels: tuple[int, int] | None = None
    """Overrides the layout's channels."""
    superresolution_clamp: float | None = 256.0
    """Bound on the activations of the super-resolution head, or none."""
    superresolution_noise_mode: NoiseMode = "none"
    """Noise inside the super-resolution head."""
    superresolution_antialias: bool = True
    """Whether the resize before the super-resolution head is low-pass filtered."""
    disparity_space_sampling: bool = False
    """Whether stratified samples are spread evenly in 1/distance."""
    camera_radius: float = 2.7
    """Distance of the cameras from the world's origin."""
    camera_pivot: tuple[float, float, float] = (0.0, 0.0, 0.2)
    """The point the cameras look at."""
    focal: float = 4.2647
    """Focal length in image widths."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _checked(field.name, getattr(self, field.name))
        factor = 4 if self.superresolution_layout.first_block_upsamples else 2
        if self.img_resolution != factor * self.superresolution_layout.input_resolution:
            raise FileFormatError(
                f"prior config: 'img_resolution' is {self.img_resolution}; superresolution "
                f"'{self.superresolution}' makes {factor * self.superresolution_layout.input_resolution}"
            )
        if (self.ray_start == "auto") != (self.ray_end == "auto"):
            raise FileFormatError("prior config: 'ray_start' and 'ray_end' must both be 'auto' or numbers")
        if isinstance(self.ray_start, int | float) and isinstance(self.ray_end, int | float):
            if not self.ray_start < self.ray_end:
                raise FileFormatError("prior config: 'ray_start' must be less than 'ray_end'")
        elif self.disparity_space_sampling:
            raise FileFormatError("prior config: 'disparity_space_sampling' needs numbers for the ray limits")

    @property
    def num_ws(self) -> int:
        """Style vectors per image: two per block, less the first, plus the last toRGB."""
        return 2 * len(self.block_resolutions)

    @property
    def block_resolutions(self) -> tuple[int, ...]:
        """Resolutions of the backbone's blocks: 4, 8, ... plane_resolution."""
        return tuple(2**k for k in range(2, int(math.log2(self.plane_resolution)) + 1))

    def channels(self, resolution: int) -> int:
        """Channels of the backbone block at a resolution."""
        return min(self.channel_base // resolution, self.channel_max)

    @property
    def superresolution_layout(self) -> SuperresolutionLayout:
        """The layout with this configuration's overrides applied."""
        layout = SUPERRESOLUTIONS[self.superresolution]
        return layout._replace(
            input_resolution=self.superresolution_input or layout.input_resolution,
            channels=self.superresolution_channels or layout.channels,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values of all fields."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PriorConfig":
        """The configuration a JSON object describes.

        Raises FileFormatError for a key that is unknown or missing and for a bad value.
        """
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(set(values) - set(known)):
            raise FileFormatError(
                f"prior config: unknown key {unknown[0][:80]!r}; remove it or update my3dgen"
            )
        missing = [n for n, f in known.items() if n not in values and f.default is MISSING]
        if missing:
            raise FileFormatError(f"prior config: '{missing[0]}' is missing; add it")
        return cls(**{name: _checked(name, value) for name, value in values.items()})


_POSITIVE = ("a positive number", lambda v: _number(v) and v > 0)
_NUMBER = ("a number", lambda v: _number(v))
_COUNT = ("a positive whole number", lambda v: _whole(v) and v > 0)
_POWER = ("a power of two, at least 4", lambda v: _whole(v) and v >= 4 and v & (v - 1) == 0)
_FLAG = ("true or false", lambda v: isinstance(v, bool))
_LIMIT = ("a positive number or 'auto'", lambda v: v == "auto" or (_number(v) and v > 0))
_CLAMP = ("a positive number or null", lambda v: v is None or (_number(v) and v > 0))


def _one_of(*names: str):
    return (" or ".join(f"'{name}'" for name in names), lambda v: isinstance(v, str) and v in names)


# field -> (what it must be, whether a value is that)
_RULES: dict[str, tuple] = {
    **dict.fromkeys(
        ("z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max", "plane_features"), _COUNT
    ),
    **dict.fromkeys(("neural_rendering_resolution", "img_resolution", "decoder_hidden"), _COUNT),
    **dict.fromkeys(("box_warp", "mapping_lr_mul", "decoder_lr_mul", "camera_radius", "focal"), _POSITIVE),
    **dict.fromkeys(("white_back", "c_gen_conditioning_zero", "superresolution_antialias"), _FLAG),
    **dict.fromkeys(("ray_start", "ray_end"), _LIMIT),
    **dict.fromkeys(("conv_clamp", "superresolution_clamp"), _CLAMP),
    "disparity_space_sampling": _FLAG,
    "plane_resolution": _POWER,
    "plane_mode": _one_of("xy_xz_zx", "xy_xz_zy"),
    "superresolution": _one_of(*SUPERRESOLUTIONS),
    "superresolution_noise_mode": _one_of("none", "const", "random"),
    "superresolution_input": ("a power of two or null", lambda v: v is None or _POWER[1](v)),
    "superresolution_channels": (
        "two positive whole numbers or null",
        lambda v: v is None or (isinstance(v, tuple) and len(v) == 2 and all(map(_COUNT[1], v))),
    ),
    "camera_pivot": (
        "three numbers",
        lambda v: isinstance(v, tuple) and len(v) == 3 and all(map(_number, v)),
    ),
    "c_dim": ("25", lambda v: _whole(v) and v == 25),
    "c_scale": _NUMBER,
    "depth_resolution": ("a whole number of at least 4", lambda v: _whole(v) and v >= 4),
    "depth_resolution_importance": ("a whole number, 0 or more", lambda v: _whole(v) and v >= 0),
    "render_features": ("a whole number of at least 3", lambda v: _whole(v) and v >= 3),
}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and _number(value)


def _number(value: Any) -> bool:
    # JSON's whole numbers have no bound, and some are no float
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _checked(name: str, value: Any) -> Any:
    """The value in its Python type (JSON knows no tuples and writes 1.0 as 1), if it may be one."""
    expected, accepts = _RULES[name]
    value = tuple(value) if isinstance(value, list) else value
    if not accepts(value):
        raise FileFormatError(f"prior config: '{name}' is {reprlib.repr(value)}; it must be {expected}")
    if (expected, accepts) in (_POSITIVE, _LIMIT, _CLAMP, _NUMBER) and isinstance(value, int):
        return float(value)
    return tuple(map(float, value)) if name == "camera_pivot" else value


_FFHQ = PriorConfig(
    z_dim=512,
    w_dim=512,
    mapping_layers=2,
    channel_base=32768,
    channel_max=512,
    plane_resolution=256,
    plane_mode="xy_xz_zx",
    box_warp=1.0,
    neural_rendering_resolution=128,
    img_resolution=512,
    superresolution="8XDC",
    depth_resolution=48,
    depth_resolution_importance=48,
    ray_start=2.25,
    ray_end=3.3,
    white_back=False,
    c_gen_conditioning_zero=False,
)

_MINI = PriorConfig(
    z_dim=256,
    w_dim=256,
    mapping_layers=4,
    channel_base=16384,
    channel_max=256,
    plane_resolution=128,
    plane_mode="xy_xz_zy",
    box_warp=1.0,
    neural_rendering_resolution=64,
    img_resolution=256,
    superresolution="4X",
    depth_resolution=24,
    depth_resolution_importance=24,
    ray_start=2.25,
    ray_end=3.3,
    white_back=True,
    c_gen_conditioning_zero=True,
)

_TINY = replace(
    _MINI,
    z_dim=32,
    w_dim=32,
    mapping_layers=2,
    channel_base=512,
    channel_max=32,
    plane_resolution=32,
    plane_features=8,
    decoder_hidden=16,
    render_features=8,
    neural_rendering_resolution=16,
    img_resolution=64,
    superresolution="2X",
    superresolution_input=32,
    superresolution_channels=(16, 8),
    depth_resolution=8,
    depth_resolution_importance=8,
)

PRESETS: dict[str, PriorConfig] = {"ffhq512-128": _FFHQ, "mini": _MINI, "tiny": _TINY}
"""Known configurations. `ffhq512-128` is that of NVIDIA's checkpoint of this name (EG3D spec 2.2),
`mini` that of the prior in the package, `tiny` a toy that renders in milliseconds."""
