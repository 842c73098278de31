"""The command line as a whole: help without heavy imports, exit codes, what goes to which stream."""

import errno
import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, is_dataclass
from types import SimpleNamespace

import pytest

from my3dgen import cli
from my3dgen.cli.verb import Verb
from my3dgen.errors import UserError

HELP_OF_EVERY_VERB = """
import contextlib, io, json, sys
from my3dgen import cli
heavy = ("torch", "numpy", "PIL", "scipy", "skimage", "trimesh", "imageio", "jinja2")
found = {}
for verb in cli.VERBS:
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            cli.main([*verb.split(), "--help"])
        code = None
    except SystemExit as stop:
        code = stop.code
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"
    found[verb] = [code, text.getvalue(), [name for name in heavy if name in sys.modules]]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def helps() -> dict:
    run = subprocess.run([sys.executable, "-c", HELP_OF_EVERY_VERB], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_is_complete_and_imports_nothing_heavy(helps, verb):
    code, text, heavy = helps[verb]
    assert code == 0, code
    assert heavy == []
    assert f"my3dgen {verb}" in text
    assert "--json" in text


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_is_a_frozen_dataclass(verb):
    module, name, _ = cli.VERBS[verb]
    config = getattr(__import__(f"my3dgen.cli.{module}", fromlist=[name]), name)
    assert issubclass(config, Verb) and is_dataclass(config)
    assert config.__dataclass_params__.frozen  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture
def verb(monkeypatch):
    """A verb `try` whose `run` is the function given."""

    def install(run):
        @dataclass(frozen=True, kw_only=True)
        class Try(Verb):
            """Try it."""

            name: str = "x"

            def run(self) -> dict:
                return run(self)

        monkeypatch.setitem(cli.VERBS, "try", ("somewhere", "Try", "try it"))
        monkeypatch.setattr(
            cli, "importlib", SimpleNamespace(import_module=lambda _: SimpleNamespace(Try=Try))
        )

    return install


def fail(error):
    def run(_):
        raise error

    return run


def test_done_prints_the_object_alone(verb, capsys):
    verb(lambda options: {"name": options.name})
    assert cli.main(["try", "--name", "y", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "y"}


def test_without_json_nothing_is_added(verb, capsys):
    verb(lambda options: {"name": options.name})
    assert cli.main(["try"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("album.json: no photos; add some"), 2, "my3dgen: album.json: no photos; add some"),
        (OSError(errno.ENOSPC, "No space", "out/a.png"), 2, "the disk is full while writing out/a.png"),
        (OSError(errno.ENOSPC, "No space"), 2, "the disk is full;"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "me.png"), 2, "me.png: No such file"),
        (PermissionError(errno.EACCES, "Permission denied", "me.png"), 2, "me.png: Permission denied"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 2, "a/b: Not a directory"),
        (FileExistsError(errno.EEXIST, "File exists", b"a"), 2, "File exists"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), 2, "a: Is a directory"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), 2, "xxx: File name too long"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe", "a.mp4"), 2, "a.mp4: Broken pipe"),
        (OSError(errno.EIO, "Input/output error", "a\nb"), 2, "a?b: Input/output error"),
        (KeyboardInterrupt(), 130, "stopped; the same command starts anew"),
    ],
)
def test_what_the_user_can_mend_is_one_line(verb, capsys, error, code, line):
    verb(fail(error))
    assert cli.main(["try", "--json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err
    assert err.count("\n") == 1


def test_only_verbs_that_go_on_say_so():
    verbs = {
        verb: getattr(importlib.import_module(f"my3dgen.cli.{m}"), c) for verb, (m, c, _) in cli.VERBS.items()
    }
    keeping = {verb for verb, config in verbs.items() if config.goes_on is not Verb.goes_on}
    long = {"demo", "personalize", "invert", "prior train", "prior encoder", "synthetic dataset"}
    long |= {"evaluate prior", "evaluate method"}
    assert keeping == long


def test_json_has_no_nan(verb, capsys):
    verb(lambda _: {"psnr": float("inf"), "all": [float("nan"), 1.5, {"x": (-float("inf"), "NaN")}]})
    assert cli.main(["try", "--json"]) == 0
    assert capsys.readouterr().out == '{"psnr": null, "all": [null, 1.5, {"x": [null, "NaN"]}]}\n'


@pytest.mark.parametrize(
    "arguments",
    [
        ["render", "-o", "a.png"],
        ["mesh", "-o", "a.glb"],
        ["synthetic", "album", "album"],
        ["synthetic", "dataset", "dataset"],
        ["prior", "train", "--out", "state"],
    ],
)
def test_a_device_that_is_absent(arguments, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main([*arguments, "--device", "cuda", "--json"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "my3dgen: --device cuda: no CUDA device is present; use --device cpu\n")
    assert list(tmp_path.iterdir()) == []


def test_a_defect_without_a_file_is_not_hidden(verb):
    verb(fail(OSError("a defect")))
    with pytest.raises(OSError, match="a defect"):
        cli.main(["try"])


def test_a_defect_is_not_hidden(verb):
    verb(fail(ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["try"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["dance"], "unknown verb 'dance'"),
        (["prior"], "'prior' needs one of: list, show, import, train"),
        (["prior", "dance"], "'prior' needs one of"),
    ],
)
def test_unknown_verbs(capsys, arguments, line):
    assert cli.main(arguments) == 2
    assert line in capsys.readouterr().err


def test_unknown_option_exits_2(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", "--dance"])
    assert stop.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"]])
def test_usage_lists_every_verb(capsys, arguments):
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert all(verb in text and about in text for verb, (_, _, about) in cli.VERBS.items())


@pytest.mark.parametrize("group", ["prior", "synthetic"])
def test_help_of_a_group(capsys, group):
    assert cli.main([group, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: my3dgen {group} VERB" in text
    assert all((f"\n  {verb} " in text) == verb.startswith(f"{group} ") for verb in cli.VERBS)


def test_version(capsys):
    import my3dgen

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"my3dgen {my3dgen.__version__}\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    """As in `my3dgen prior list | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "my3dgen", "prior", "list"]
    with os.fdopen(writer, "w") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
