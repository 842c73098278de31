import os

import pytest

from my3dgen.errors import UserError
from my3dgen.output import check_output, whole


def test_a_place_that_can_be_written_is_fine_whatever_its_case(tmp_path):
    for name in ("a.PNG", "deep/er/a.jpg"):
        assert check_output(tmp_path / name, (".png", ".jpg"), "a picture ends in .png") == tmp_path / name
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    for name, line in (
        ("folder.png", "is a folder; name a file"),
        ("a.xyz", "a picture ends in .png, not '.xyz'"),
        ("file/deep/a.png", "file is a file; choose another place"),
    ):
        with pytest.raises(UserError, match=line) as refused:
            check_output(tmp_path / name, (".png",), "a picture ends in .png")
        assert name in str(refused.value)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="change its permissions"):
        check_output(tmp_path / "a.png", (".png",), "a picture ends in .png")


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with whole(path) as beside:
        assert beside.suffix == ".txt"
        beside.write_text("first")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), whole(path) as beside:
        beside.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_reported_under_the_name_people_know(tmp_path):
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OSError, match="File too large") as caught, whole(tmp_path / "a.bin") as beside:
            beside.write_bytes(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.filename == str(tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []
