"""Pictures in a row as a moving one: mp4 that plays everywhere, animated WebP, GIF."""

import errno
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from my3dgen.errors import UserError
from my3dgen.output import check_output, whole

FORMATS = (".mp4", ".webp", ".gif")
FRAME_LIMIT = 3600


def check_format(path: str | os.PathLike, fps: int) -> Path:
    """The path, if a moving picture can be written there. Raises UserError, before any frame is drawn."""
    if not 1 <= fps <= 120:
        raise UserError(f"{fps} frames a second is out of range; choose 1 to 120")
    return check_output(path, FORMATS, f"a moving picture ends in {', '.join(FORMATS)}")


def frames_of(seconds: float | int, fps: int) -> int:
    """How many pictures last `seconds`. Raises UserError unless they are 2 to 3600."""
    count = round(seconds * fps) if 0 < seconds <= FRAME_LIMIT else 0
    if not 2 <= count <= FRAME_LIMIT:
        raise UserError(
            f"{seconds:g} seconds at {fps} pictures each is out of range; choose 2 to {FRAME_LIMIT} pictures"
        )
    return count


def durations(count: int, fps: int, unit: int, least: int) -> list[int]:
    """How long each picture is shown, in milliseconds that are multiples of `unit`.

    Each begins at the moment nearest to its own, so that the whole lasts as long as it should, unless
    pictures would last fewer than `least` units: browsers slow those down to a crawl.
    """
    begins = [round(k * 1000 / fps / unit) for k in range(count + 1)]
    return [unit * max(least, end - begin) for begin, end in pairwise(begins)]


def write_animation(frames: Iterable[Image.Image], path: str | os.PathLike, fps: int = 30) -> Path:
    """Write frames of one size as .mp4, .webp or .gif, beside its place first, then renamed.

    mp4 is H.264 with 4:2:0 colour and its index in front, which every browser and telephone plays;
    frames are streamed and odd sides lose their last row or column, as the format asks. WebP and GIF
    are held in memory and repeat for ever; GIF times its frames in hundredths of a second, the whole exactly.

    Raises UserError as `check_format` and ValueError without frames.
    """
    path = check_format(path, fps)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("no frames to write")
    writers: dict[str, Callable] = {".mp4": _write_mp4, ".webp": _write_webp, ".gif": _write_gif}
    with whole(path) as beside:
        writers[path.suffix.lower()](chain([first], frames), beside, fps)
    return path


def _write_mp4(frames: Iterable[Image.Image], path: Path, fps: int) -> None:
    """Raises OSError when the encoder fails, as it does on a full disk."""
    first = next(frames := iter(frames))
    width, height = first.width // 2 * 2, first.height // 2 * 2
    with tempfile.TemporaryFile() as complaints:
        encoder = subprocess.Popen(
            _mp4_command(path, width, height, fps),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            start_new_session=True,  # a Ctrl-C is for us; the encoder is ended below
        )
        assert encoder.stdin is not None
        try:
            for frame in chain([first], frames):
                pixels = np.asarray(frame.convert("RGB").crop((0, 0, width, height)))
                encoder.stdin.write(np.ascontiguousarray(pixels).data)
        except BrokenPipeError:
            pass  # the encoder gave up; its exit code and complaints say why
        except BaseException:
            encoder.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                encoder.stdin.close()
            encoder.wait()
        if encoder.returncode:
            complaints.seek(0)
            said = complaints.read().decode(errors="replace")
            full = os.strerror(errno.ENOSPC) in said
            reason = os.strerror(errno.ENOSPC) if full else f"ffmpeg failed: {said.strip()[-200:]}"
            raise OSError(errno.ENOSPC if full else errno.EIO, reason, str(path))


def _mp4_command(path: Path, width: int, height: int, fps: int) -> list[str]:
    import imageio_ffmpeg

    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    coded = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "17", "-preset", "medium"]
    quiet = ["-y", "-loglevel", "error"]
    return [imageio_ffmpeg.get_ffmpeg_exe(), *quiet, *raw, *coded, "-movflags", "+faststart", str(path)]


def _write_webp(frames: Iterable[Image.Image], path: Path, fps: int) -> None:
    first, *rest = (frame.convert("RGB") for frame in frames)
    shown = durations(1 + len(rest), fps, unit=1, least=11)
    first.save(path, save_all=True, append_images=rest, duration=shown, loop=0, quality=90, method=4)


def _write_gif(frames: Iterable[Image.Image], path: Path, fps: int) -> None:
    """All frames share one palette, so that flat areas do not shimmer from frame to frame."""
    pictures = [frame.convert("RGB") for frame in frames]
    few = pictures[:: max(1, len(pictures) // 8)]
    swatch = Image.new("RGB", (few[0].width, few[0].height * len(few)))
    for index, picture in enumerate(few):
        swatch.paste(picture, (0, index * picture.height))
    palette = swatch.quantize(256, method=Image.Quantize.MEDIANCUT)
    first, *rest = (p.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for p in pictures)
    shown = durations(1 + len(rest), fps, unit=10, least=2)
    first.save(path, save_all=True, append_images=rest, duration=shown, loop=0, disposal=1)
