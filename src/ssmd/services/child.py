"""A shim that a child process is started through: it ties the child's life to its parent's, then becomes the child.

    python -I -S child.py PARENT_PID PROGRAM [ARGUMENT...]

Run as a file, with the standard library alone (about 10 ms). It exists because `preexec_fn` is not safe in a process
with threads, and `setpriv --pdeathsig` is not on every machine. On Linux the kernel sends SIGTERM to the child when
the THREAD that started it ends, however it ends (prctl(2), PR_SET_PDEATHSIG; it survives execve). Elsewhere there is
no such call: what a killed parent leaves behind is found at the next start (`services.processes`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
EXIT_NOT_STARTED = 127
"""Exit status when the program could not be executed, as a shell would."""


def main(arguments: list[str]) -> int:
    """Become the program; returns only when that is impossible or pointless."""
    parent, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            # It died before the call above; no signal will ever come.
            return EXIT_NOT_STARTED
    try:
        os.execvp(program[0], program)  # noqa: S606 - the arguments are the caller's own, no shell
    except OSError as error:
        sys.stderr.write(f"cannot execute {program[0]}: {error.strerror}\n")
    return EXIT_NOT_STARTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
