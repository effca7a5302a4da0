"""Programs that end with the program that started them, however that one ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# prctl(PR_SET_PDEATHSIG, SIGKILL), Linux only, in a process of its own: preexec_fn is not safe in a process with
# threads.
_THEN_BECOME = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def dies_with_parent(command: Sequence[str]) -> list[str]:
    """`command`, so that the kernel kills it when the *thread* that starts it ends: start it from the main thread.

    Elsewhere than on Linux it may outlive a killed parent.
    """
    return [sys.executable, "-I", "-S", "-c", _THEN_BECOME, str(os.getpid()), *command]
