import errno
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from my3dgen.apps import video
from my3dgen.apps.video import durations, frames_of, write_animation
from my3dgen.errors import UserError


def ramp(count=6, size=(49, 33)):
    return [Image.new("RGB", size, (40 * i, 100, 255 - 40 * i)) for i in range(count)]


def test_mp4_has_every_frame_in_the_format_that_plays_everywhere(tmp_path):
    path = write_animation(iter(ramp()), tmp_path / "deep" / "a.mp4", fps=12)
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    command = [ffmpeg, "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    run = subprocess.run(command, capture_output=True, check=True)
    about = run.stderr.decode()
    assert "h264" in about and "yuv420p" in about and "48x32" in about and "12 fps" in about
    frames = np.frombuffer(run.stdout, np.uint8).reshape(-1, 32, 48, 3)
    assert len(frames) == 6
    for index, frame in enumerate(frames):
        assert np.abs(frame.mean((0, 1)) - [40 * index, 100, 255 - 40 * index]).max() < 8
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # the index comes first: it starts while loading
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_animated_pictures_loop_for_ever(tmp_path, suffix):
    path = write_animation(ramp(), tmp_path / f"a{suffix}", fps=20)
    with Image.open(path) as picture:
        assert (picture.n_frames, picture.info["loop"], picture.size) == (6, 0, (49, 33))  # pyright: ignore
        picture.seek(4)
        picture.load()
        assert picture.info["duration"] == 50
        colour = np.asarray(picture.convert("RGB")).mean((0, 1))
    assert np.abs(colour - [160, 100, 95]).max() < 8


def test_pictures_are_timed_so_that_the_whole_is_exact(tmp_path):
    path = write_animation(ramp(), tmp_path / "a.gif", fps=30)
    with Image.open(path) as picture:
        shown = []
        for k in range(picture.n_frames):  # pyright: ignore
            picture.seek(k)
            shown.append(picture.info["duration"])
    assert shown == [30, 40, 30, 30, 40, 30]  # 6 pictures in 0.2 s, in hundredths
    assert sum(durations(60, 30, unit=1, least=11)) == 2000
    assert durations(2, 100, unit=10, least=2) == [20, 20]


def test_how_many_pictures_last_how_long():
    assert frames_of(2.5, 24) == 60
    for seconds in (0.01, 1e9, float("nan"), -1):
        with pytest.raises(UserError, match="2 to 3600"):
            frames_of(seconds, 30)


def test_nothing_is_left_when_drawing_fails(tmp_path):
    def frames():
        yield from ramp(2)
        raise KeyboardInterrupt

    for suffix in (".mp4", ".gif"):
        with pytest.raises(KeyboardInterrupt):
            write_animation(frames(), tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"\.avi"):
        write_animation(ramp(), tmp_path / "a.avi")


@pytest.mark.parametrize("fps", [0, -1, 1000])
def test_other_rates_are_refused(tmp_path, fps):
    with pytest.raises(UserError, match="1 to 120"):
        write_animation(ramp(), tmp_path / "a.gif", fps)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs a device that is always full")
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    real = video._mp4_command

    def to_full_disk(path, *rest):
        # the muxer's index in front would seek, which this device cannot
        return [*real(path, *rest)[:-3], "-f", "rawvideo", "/dev/full"]

    monkeypatch.setattr(video, "_mp4_command", to_full_disk)
    with pytest.raises(OSError) as caught:
        write_animation(ramp(), tmp_path / "a.mp4")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
