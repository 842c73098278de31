"""Triton's interpreter, in which kernels are tested without a GPU: it has to be chosen before Triton is
imported, and then serves no GPU, so one test of a file runs all its others in a process of its own."""

import os
import subprocess
import sys

import pytest

from my3dgen.ops.low_pass import HAS_TRITON

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not (HAS_TRITON and INTERPRETING), reason="needs Triton's interpreter")
interprets = pytest.mark.skipif(
    not HAS_TRITON or INTERPRETING, reason="no Triton, or already in its interpreter"
)


def pass_in_the_interpreter(file: str) -> None:
    """Run the tests of a file in the interpreter; all must pass."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
