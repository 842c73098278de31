"""`my3dgen render`: a person from chosen views."""

import math
from dataclasses import dataclass
from pathlib import Path

from my3dgen.cli.subject import AppearanceVerb


@dataclass(frozen=True, kw_only=True)
class Render(AppearanceVerb):
    """Render a person; several yaws make a sheet with captions.

    my3dgen render me.safetensors -o me.png --yaw -30 0 30
    """

    yaw: tuple[float, ...] = (0.0,)
    """Degrees to the face's left (positive) or right; several make a sheet."""
    pitch: float = 0.0
    """Degrees up."""
    fov: float | None = None
    """Diagonal field of view in degrees; the prior's own by default (19 for a face)."""
    depth: Path | None = None
    """Also write depth: .png for a picture, .npy for distances (float32, infinite where nothing is)."""

    def run(self) -> dict:
        """Write the picture or sheet, and depth if asked for."""
        from my3dgen.apps.render import depth_picture, render, save_depth
        from my3dgen.apps.sheet import check_picture, save_image, sheet
        from my3dgen.errors import UserError
        from my3dgen.output import check_output
        from my3dgen.progress import say

        if not self.yaw:
            raise UserError("--yaw needs at least one angle")
        check_picture(self.out)
        if self.depth is not None:
            check_output(self.depth, (".png", ".npy"), "depth is .png (a picture) or .npy (distances)")
            if self.depth.absolute() == self.out.absolute():
                raise UserError(f"--depth {self.depth}: is the picture's own place; choose another")
        prior, person = self.load()
        views = render(
            prior,
            person,
            yaws=[math.radians(yaw) for yaw in self.yaw],
            pitch=math.radians(self.pitch),
            fov=self.fov,
            size=self.size,
            resolution=self.resolution,
            anchor=self.anchor,
            alpha=self.weights(),
            seed=self.seed,
        )
        made, size = views[0].made_at, views[0].image.width
        if made != size:
            say(f"pictures are made at {made} pixels and resampled to {size}")
        captions = [f"yaw {yaw:g}°" for yaw in self.yaw]
        images = [view.image for view in views]
        save_image(images[0] if len(images) == 1 else sheet(images, captions, cell=size), self.out)
        result = {"image": str(self.out), "views": len(views), "size": size, "made_at": made}
        if self.depth is not None:
            depths = [view.depth for view in views]
            if self.depth.suffix.lower() == ".npy":
                save_depth(depths, self.depth)
            else:
                pictures = depth_picture(depths)
                single = len(pictures) == 1
                save_image(pictures[0] if single else sheet(pictures, captions, cell=size), self.depth)
            result |= {"depth": str(self.depth), "depth_size": depths[0].shape[0]}
        if not self.json:
            print(f"{len(views)} view{'s' * (len(views) > 1)} -> {self.out}")
        return result
