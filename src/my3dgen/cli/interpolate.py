"""`my3dgen interpolate`: between two of a person's photos."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from my3dgen.cli.subject import SubjectVerb


@dataclass(frozen=True, kw_only=True)
class Interpolate(SubjectVerb):
    """Move from one photo's appearance and camera to another's; a sheet, and a video if asked for.

    my3dgen interpolate me.safetensors --from 0 --to 12 -o between.png --video between.mp4
    """

    start: Annotated[int, arg(name="from")]
    """Photo to start at, counted from 0."""
    end: Annotated[int, arg(name="to")]
    """Photo to end at."""
    steps: int = 7
    """Pictures on the sheet, both ends included."""
    mode: Literal["pose", "appearance", "both"] = "both"
    """What moves: the camera, the appearance (seen from the front), or both."""
    video: Path | None = None
    """Also write a video, there and back: .mp4, .webp or .gif."""
    frames: int = 60
    """Pictures of the video in one direction."""
    fps: int = 30
    """Pictures a second of the video."""

    def run(self) -> dict:
        """Write the sheet, and the video if asked for."""
        from my3dgen.apps.interpolate import interpolate
        from my3dgen.apps.sheet import check_picture, save_image, sheet
        from my3dgen.apps.video import check_format, write_animation
        from my3dgen.progress import track

        check_picture(self.out)
        if self.video is not None:
            check_format(self.video, self.fps)
        prior, person = self.load()

        def walk(steps: int, about: str) -> Iterator:
            pictures = interpolate(
                prior,
                person,
                start=self.start,
                end=self.end,
                steps=steps,
                mode=self.mode,
                size=self.size,
                resolution=self.resolution,
                seed=self.seed,
            )
            return track(pictures, about, total=steps)

        still, moving = walk(self.steps, "pictures"), walk(self.frames, "frames")
        pictures = list(still)
        captions = [f"{100 * one.position:.0f} %" for one in pictures]
        what = "face" if person is None else "photo"
        captions[0], captions[-1] = f"{what} {self.start}", f"{what} {self.end}"
        images = [one.image for one in pictures]
        save_image(sheet(images, captions, columns=min(len(images), 9), cell=images[0].width), self.out)
        result = {"sheet": str(self.out), "steps": self.steps, "mode": self.mode}
        if self.video is not None:
            there = [one.image for one in moving]
            write_animation(there + there[-2:0:-1], self.video, self.fps)
            result |= {"video": str(self.video), "frames": 2 * len(there) - 2}
        if not self.json:
            print(f"{self.steps} pictures -> {self.out}" + (f", video -> {self.video}" if self.video else ""))
        return result
