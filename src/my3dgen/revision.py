"""Which source a figure was measured with."""

import os
import subprocess
from pathlib import Path

from my3dgen import __version__

VARIABLE = "MY3DGEN_COMMIT"
"""Environment variable that names the commit of a copy whose repository is absent or behind."""


def commit() -> str:
    """What `VARIABLE` says; else the commit of the source in use, marked if it was changed since; where there
    is no repository, the version."""
    if told := os.environ.get(VARIABLE):
        return told
    here = Path(__file__).resolve()
    try:
        found = _git(here, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
        # an installed package may lie inside somebody else's repository
        _git(here, "ls-files", "--error-unmatch", here.name)
    except (OSError, subprocess.SubprocessError):
        return __version__
    return found


def _git(file: Path, *words: str) -> str:
    command = ["git", "-C", os.fspath(file.parent), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
