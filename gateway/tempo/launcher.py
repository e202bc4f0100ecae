"""Starts a program that cannot outlive the process which started it.

Run as a script, ``python -S -E launcher.py PARENT_PID OOM_SCORE PROGRAM ARGUMENT...``: asks the
kernel to kill this process when its parent dies, then becomes PROGRAM. A function run between fork
and exec could do the same, but may deadlock in a process with threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
GOES_FIRST, AS_PARENT = "500", ""
"""OOM_SCORE, of -1000 to 1000: where memory runs out, the kernel shall take the backend and not the
gateway, which holds what the backend has lost and delivers it again."""


def launch(oom_score: str) -> list[str]:
    """What to put before a command so that it is started by this and dies with this process."""
    return [sys.executable, "-S", "-E", str(Path(__file__)), str(os.getpid()), oom_score]


def main(arguments: list[str]) -> None:
    """Never returns: becomes the program, or ends with a word on stderr."""
    parent, oom_score, program = int(arguments[0]), arguments[1], arguments[2]
    if sys.platform == "linux":  # elsewhere an orphan is possible
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if oom_score:
            with contextlib.suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text(oom_score)
    if os.getppid() != parent:  # it died before the kernel was asked
        raise SystemExit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would hand that on
    try:
        os.execvp(program, arguments[2:])  # noqa: S606 - no shell wanted
    except OSError as error:
        raise SystemExit(f'level=error msg="cannot run the program" err="{error}"') from error


if __name__ == "__main__":
    main(sys.argv[1:])
