"""A process that imports modules once, and forks programs that need them for `tests.support.forked`.

    python -m tests.support.fork_server SOCKET MODULE...

SOCKET is the number of a connected socket. Each request is a line of JSON on it, with four file descriptors: the
program's standard input, output and error, and one that its process id and finally its exit code are written to. The
fork server runs nothing itself, and has no threads: gRPC must not be forked while it is in use.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from typing import Any

CHUNK_BYTES = 65536


def main() -> None:
    """Serves requests until the socket is closed. In a forked process it runs the program instead."""
    number, *modules = sys.argv[1:]
    before = set(os.environ)
    for module in modules:
        importlib.import_module(module)
    added = {name: value for name, value in os.environ.items() if name not in before}
    # Otherwise each program's garbage collector would traverse all imported objects, and copy their memory.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # threads that wait for a program end by themselves
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is meant for the programs
    with socket.socket(fileno=int(number)) as connection:
        while request := _receive(connection):
            wanted, descriptors = request
            forked = os.fork() == 0 and _is_program(descriptors)
            if forked:
                break
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            return
    signal.signal(signal.SIGINT, interrupt)
    os.environ.clear()
    os.environ.update({**added, **wanted["environment"]})
    for standard, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    sys.stdin = os.fdopen(0)
    sys.stdout = os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace")
    sys.argv = [wanted["module"], *wanted["arguments"]]
    runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Returns a request and its file descriptors; None: there are no more."""
    data, descriptors, _, _ = socket.recv_fds(connection, CHUNK_BYTES, 4)
    if not data:
        return None
    while not data.endswith(b"\n"):
        data += connection.recv(CHUNK_BYTES)
    return json.loads(data), descriptors


def _is_program(descriptors: list[int]) -> bool:
    """Forks the program, and returns only in it: the parent reports its exit code, and ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, told = descriptors
    program = os.fork()
    if program == 0:
        os.close(told)
        return True
    try:
        for descriptor in standard:
            os.close(descriptor)
        os.write(told, b"%d\n" % program)
        os.write(told, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(program, 0)[1]))
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
