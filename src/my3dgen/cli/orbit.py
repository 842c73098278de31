"""`my3dgen orbit`: a person as a turning video."""

import math
from dataclasses import dataclass

from my3dgen.cli.subject import AppearanceVerb


@dataclass(frozen=True, kw_only=True)
class Orbit(AppearanceVerb):
    """Turn a person in a smooth loop, as .mp4, .webp or .gif.

    my3dgen orbit me.safetensors -o me.mp4
    """

    frames: int = 90
    """Pictures in one loop."""
    fps: int = 30
    """Pictures a second."""
    yaw_range: float = 25.0
    """Degrees to either side; 180 goes once all the way around."""
    pitch_range: float = 8.0
    """Degrees up and down."""
    fov: float | None = None
    """Diagonal field of view in degrees; the prior's own by default (19 for a face)."""

    def run(self) -> dict:
        """Write the video."""
        import time

        from my3dgen.apps.orbit import orbit
        from my3dgen.apps.video import check_format, write_animation
        from my3dgen.progress import track

        check_format(self.out, self.fps)
        prior, person = self.load()
        start = time.perf_counter()
        pictures = orbit(
            prior,
            person,
            frames=self.frames,
            yaw_range=math.radians(self.yaw_range),
            pitch_range=math.radians(self.pitch_range),
            fov=self.fov,
            size=self.size,
            resolution=self.resolution,
            anchor=self.anchor,
            alpha=self.weights(),
            seed=self.seed,
        )
        write_animation(track(pictures, "frames", total=self.frames), self.out, self.fps)
        seconds = time.perf_counter() - start
        if not self.json:
            print(f"{self.frames} frames ({self.frames / self.fps:.1f} s) -> {self.out}")
        return {
            "video": str(self.out),
            "frames": self.frames,
            "fps": self.fps,
            "frames_per_second_drawn": round(self.frames / seconds, 2),
        }
