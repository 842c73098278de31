import sys

from my3dgen.progress import say, track


class Terminal:
    """A stderr that claims to be a terminal."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True

    def fileno(self):
        raise OSError


def test_items_pass_unchanged_and_stdout_stays_empty(capsys):
    assert list(track(range(3), "steps")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("steps: 100%")


def test_in_a_log_every_line_is_whole(capsys):
    for item in track("ab", "letters"):
        say(f"letter {item}")
    lines = capsys.readouterr().err.splitlines()
    assert "letter a" in lines and "letter b" in lines
    assert not any("\r" in line for line in lines)


def test_in_a_log_a_stopped_bar_leaves_the_next_line_alone(capsys):
    running = track(range(3), "steps")
    next(running)
    say("my3dgen: stopped")
    assert capsys.readouterr().err.splitlines()[-1] == "my3dgen: stopped"
    running.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_on_a_terminal_a_line_stands_above_the_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for _ in track(range(2), "steps"):
        say("hello")
    assert "\rhello\n" in terminal.text


def test_a_line_stays_one_line_whatever_a_file_is_called(capsys):
    say("line\nbreak\x1b[31m.jpg: left out")
    assert capsys.readouterr().err == "line?break?[31m.jpg: left out\n"
