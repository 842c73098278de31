"""The public list: present, lazy, and not hidden by submodules of the same name."""

import inspect
import subprocess
import sys

import pytest

import my3dgen


@pytest.mark.parametrize("name", my3dgen.__all__)
def test_public_name_is_there_with_a_docstring(name):
    value = getattr(my3dgen, name)
    assert callable(value)
    assert inspect.getdoc(value)
    assert name in dir(my3dgen)


def test_importing_the_package_is_cheap():
    code = "import sys, my3dgen; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_submodule_does_not_hide_the_function_of_its_name():
    code = (
        "import my3dgen.invert, my3dgen.personalize\n"
        "from my3dgen.personalize import personalize\n"
        "from my3dgen import invert\n"
        "assert my3dgen.personalize is personalize and callable(invert)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'dance'"):
        _ = my3dgen.dance  # pyright: ignore[reportAttributeAccessIssue]
