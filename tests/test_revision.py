"""Figures say which source they are of."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "my3dgen"
WORDS = "from my3dgen.revision import commit; print(commit())"


def commit_of(folder: Path, **environment: str) -> str:
    """What a copy of the package in `folder` says of itself."""
    own = {name: value for name, value in os.environ.items() if name != "MY3DGEN_COMMIT"}
    variables = {**own, "PYTHONPATH": os.fspath(folder), **environment}
    command = [sys.executable, "-c", WORDS]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip()


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", os.fspath(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_of_a_repository_of_a_copy_and_of_neither(tmp_path):
    package = tmp_path / "my3dgen"
    package.mkdir()
    for name in ("__init__.py", "revision.py"):
        shutil.copy(SOURCE / name, package)
    # only what says the version: the rest of the package would take seconds to load
    (package / "__init__.py").write_text('__version__ = "1.2.3"\n')
    assert commit_of(tmp_path) == "1.2.3"
    assert commit_of(tmp_path, MY3DGEN_COMMIT="abc") == "abc"
    git(tmp_path, "init", "--quiet")
    assert commit_of(tmp_path) == "1.2.3"  # somebody else's repository
    git(tmp_path, "add", "my3dgen")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    assert commit_of(tmp_path) == git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(tmp_path, MY3DGEN_COMMIT="abc") == "abc"  # the copy's repository may be behind
    (package / "__init__.py").write_text('__version__ = "1.2.4"\n')
    assert commit_of(tmp_path).endswith("-dirty")
