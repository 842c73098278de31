"""Let the C library keep freed memory for the next step instead of handing it back to the system.

Training allocates and frees the same large tensors every step. By default glibc maps and unmaps them
each time and the kernel clears every page again, which costs up to half of a step on a CPU.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # names and values of glibc's malloc.h


def keep_freed_memory() -> None:
    """Do so for the rest of the process. Without glibc nothing happens."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 << 20)
