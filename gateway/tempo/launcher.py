"""Starts a program that cannot outlive the process which started it.

Run as a script, ``python -S -E launcher.py PARENT_PID PROGRAM ARGUMENT...``: asks the kernel to
kill this process when its parent dies, then becomes PROGRAM. A function run between fork and exec
could do the same, but may deadlock in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Never returns where the program can be started."""
    parent, program = int(arguments[0]), arguments[1]
    if sys.platform == "linux":  # elsewhere an orphan is possible
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        raise SystemExit(1)
    os.execvp(program, arguments[1:])  # noqa: S606 - no shell wanted


if __name__ == "__main__":
    main(sys.argv[1:])
