"""`my3dgen interpolate`: between two or more of a person's photos."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from my3dgen.cli.subject import SubjectVerb

if TYPE_CHECKING:
    from my3dgen.apps.interpolate import Between, Stop
    from my3dgen.apps.likeness import Embeddings
    from my3dgen.person import Person
    from my3dgen.prior.store import Prior

SECONDS = 2.0
"""Of a video, for each segment of the way."""


@dataclass(frozen=True, kw_only=True)
class Interpolate(SubjectVerb):
    """Move through photos' appearances and cameras; a sheet, and a video, stills or figures if asked for.

    my3dgen interpolate me.safetensors --anchors 3 17 40 -o between.png --video between.mp4 --loop
    """

    anchors: tuple[str, ...] = ()
    """Where to pass: photos, counted from 0, or mixtures such as 0=0.5+4=0.5."""
    start: Annotated[int | None, arg(name="from")] = None
    """Photo to start at, in place of --anchors."""
    end: Annotated[int | None, arg(name="to")] = None
    """Photo to end at."""
    move: Literal["pose", "latent", "both"] = "both"
    """What moves: the camera, the latent (seen from the front), or both."""
    sweep: float | None = None
    """Swing the camera this many degrees to either side, in place of the photos' cameras."""
    ease: Literal["smooth", "ends", "linear"] = "smooth"
    """Rest at every photo, at the first and last alone, or never."""
    pace: Literal["equal", "distance", "picture"] = "equal"
    """Share time out equally among the segments, by their length, or so that pictures change evenly."""
    loop: bool = False
    """Go on to the first photo again, so that the video repeats without a seam."""
    steps: int = 7
    """Pictures on the sheet."""
    video: Path | None = None
    """Also write a video: .mp4, .webp or .gif."""
    stills: Path | None = None
    """Also write the video's pictures, as PNG files in this new folder."""
    seconds: float | None = None
    """How long the video lasts; 2 for each segment by default."""
    frames: int | None = None
    """Pictures of the video, in place of --seconds."""
    fps: int = 30
    """Pictures a second of the video."""
    report: Path | None = None
    """Also write how alike and how even the video's pictures are (else the sheet's): .json, and a chart."""
    photos: Path | None = None
    """Album to compare with in the report; the anchors on the way, drawn, by default."""

    def run(self) -> dict:
        """Write what is asked for."""
        from my3dgen.apps.interpolate import interpolate
        from my3dgen.apps.report_file import check_report, save_report
        from my3dgen.apps.sheet import check_picture, save_image, sheet
        from my3dgen.apps.stills import check_stills
        from my3dgen.apps.video import check_format
        from my3dgen.apps.walk_report import Watch, walk_picture
        from my3dgen.progress import track

        check_picture(self.out)
        if self.video is not None:
            check_format(self.video, self.fps)
        if self.stills is not None:
            check_stills(self.stills)
        if self.report is not None:
            check_report(self.report)
        stops = [parse_stop(word) for word in self.words()]
        moves = self.video is not None or self.stills is not None
        frames = self.frame_count(len(stops)) if moves else 0
        prior, person = self.load()

        def walk(steps: int, about: str) -> Iterator[Between]:
            pictures = interpolate(
                prior,
                person,
                anchors=stops,
                steps=steps,
                move=self.move,
                ease=self.ease,
                pace=self.pace,
                loop=self.loop,
                sweep=None if self.sweep is None else math.radians(self.sweep),
                size=self.size,
                resolution=self.resolution,
                seed=self.seed,
            )
            return track(pictures, about, total=steps)

        still, moving = walk(self.steps, "pictures"), walk(frames, "frames") if moves else None
        watch, compared = None, []
        if self.report is not None:
            references, compared = self.references(prior, person, stops)
            watch = Watch(references, frames or self.steps, self.loop)
        pictures = list(watch.over(still) if watch and moving is None else still)
        images = [one.image for one in pictures]
        captions = [turned(one) if self.move == "pose" else self.caption(one.position) for one in pictures]
        save_image(sheet(images, captions, columns=min(len(images), 9), cell=images[0].width), self.out)
        result = {"sheet": str(self.out), "steps": self.steps, "move": self.move}
        if moving is not None:
            result |= self.keep(watch.over(moving) if watch else moving, frames)
        if watch and self.report:
            report = watch.report()
            stops_passed = range(len(stops) + self.loop)
            words = {float(position): self.caption(position) for position in stops_passed}
            figures = {"compared_with": "album" if self.photos else "anchors", "references": compared}
            figures |= report.as_dict()
            picture = save_report(figures, walk_picture(report, words), self.report)
            result |= {"report": str(self.report), "chart": str(picture)}
            result |= {name: figures[name] for name in ("identity_mean", "identity_least", "step_unevenness")}
        if not self.json:
            print(f"{self.steps} pictures -> {self.out}" + (f", video -> {self.video}" if self.video else ""))
        return result

    def words(self) -> list[str]:
        """The stops as they were given. Raises UserError."""
        from my3dgen.errors import UserError

        ends = [str(end) for end in (self.start, self.end) if end is not None]
        given = [word for words in self.anchors for word in words.split(",") if word]
        if given and ends:
            raise UserError("give --anchors, or --from and --to, not both")
        if len(words := given or ends) < 2:
            raise UserError("name two photos or more: --anchors 3 17 40, or --from 0 --to 5")
        return words

    def frame_count(self, stops: int) -> int:
        """How many pictures the video has. Raises UserError."""
        from my3dgen.apps.video import frames_of
        from my3dgen.errors import UserError

        if self.frames is not None and self.seconds is not None:
            raise UserError("give --seconds or --frames, not both")
        if self.frames is not None:
            return self.frames
        seconds = SECONDS * (stops - 1 + self.loop) if self.seconds is None else self.seconds
        return frames_of(seconds, self.fps)

    def keep(self, walk: Iterator[Between], frames: int) -> dict:
        """Write the video and the stills, in one pass."""
        from my3dgen.apps.stills import save_stills
        from my3dgen.apps.video import write_animation

        images, result = (one.image for one in walk), {"frames": frames, "seconds": frames / self.fps}
        if self.stills is not None:
            images = save_stills(images, self.stills)
            result["stills"] = str(self.stills)
        if self.video is not None:
            write_animation(images, self.video, self.fps)
            return result | {"video": str(self.video)}
        for _ in images:
            pass
        return result

    def references(
        self, prior: Prior, person: Person | None, stops: Sequence[Stop]
    ) -> tuple[Embeddings, list[int]]:
        """Whom the report compares with, and their numbers: an album's photos, or the anchors on the way."""
        from my3dgen.apps.interpolate import parts
        from my3dgen.apps.likeness import embed, embed_anchors
        from my3dgen.apps.sheet import to_image
        from my3dgen.apps.subject import subject_of
        from my3dgen.faces.album import read_album
        from my3dgen.targets import targets_of

        if self.photos is not None:
            targets = targets_of(read_album(self.photos, prior.config.img_resolution), prior.config)
            return embed(map(to_image, targets.images), targets.cameras), list(range(len(targets)))
        anchors = sorted({anchor for stop in stops for anchor in parts(stop)})
        subject = subject_of(prior, person, seed=self.seed, wanted=anchors)
        return embed_anchors(subject, anchors, self.resolution), anchors

    def caption(self, position: float | int) -> str:
        """Words for a position on the way: the stop, or between which two it lies and how far along."""
        words, passed = self.words(), round(position)
        if abs(position - passed) < 1e-6:
            word = words[passed % len(words)]
            return word if "=" in word else f"{'face' if self.person is None else 'photo'} {word}"
        share, before = f"{100 * (position % 1):.0f} %", int(position)
        if len(words) == 2 and not self.loop:
            return share
        return f"{words[before]} → {words[(before + 1) % len(words)]}, {share}"


def turned(one: Between) -> str:
    """Words for a picture's camera."""
    from my3dgen.cameras import angles_from_camera

    return f"yaw {math.degrees(angles_from_camera(one.camera[None])[0]):+.0f}°"


def parse_stop(word: str) -> Stop:
    """`3`, or a mixture `0=0.5+4=0.5`, as numbers. Raises UserError."""
    from my3dgen.errors import UserError

    try:
        if "=" not in word:
            return int(word)
        pairs = [part.split("=") for part in word.split("+")]
        return {int(anchor): float(weight) for anchor, weight in pairs}
    except ValueError:
        raise UserError(
            f"--anchors {word}: write a photo's number, or a mixture such as 0=0.5+4=0.5"
        ) from None
