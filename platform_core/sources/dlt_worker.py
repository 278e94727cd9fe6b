"""Runs dlt resources, each in a process of its own that can write no file.

Run as a program with the number of a socket: for every message on it, which carries the two pipes of one read, this
process makes a copy of itself and answers with the copy's process id; dlt has been imported by then, which takes more
than a second. A copy hears one line of JSON by the first pipe, which stays open as long as the rows are wanted, and
tells frames of :mod:`platform_core.sources.dlt_frames` by the second.

dlt keeps its settings and contexts for a whole process, reads configuration files and writes others: here it finds
nothing but what it is given, and the kernel lets no file grow.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, BinaryIO

from platform_core.errors import PlatformError
from platform_core.sources import dlt_resource
from platform_core.sources.dlt_frames import PID, Kind, write_frame


def main(control: socket.socket) -> None:
    """Answer requests until the other side is gone."""
    # No file may get a byte, and a core dump would hold rows.
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))
    # Copies are not waited for: their readers know from the pipe how they ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, pipes, _, _ = socket.recv_fds(control, 1, 2)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _serve(*pipes)
        for pipe in pipes:
            os.close(pipe)
        control.send(PID.pack(pid))


def _serve(given_pipe: int, out_pipe: int) -> None:
    """Answer one request and end this process."""
    with os.fdopen(given_pipe, "rb") as given, os.fdopen(out_pipe, "wb") as out:
        try:
            asked = json.loads(given.readline())
            sys.path[:] = asked["paths"]
            threading.Thread(target=_end_with, args=(given,), daemon=True).start()
            _answer(asked, out)
        finally:
            # dlt's threads, and a source's, are not waited for; nor may the loop above go on in this copy.
            os._exit(0)


def _answer(asked: dict[str, Any], out: BinaryIO) -> None:
    try:
        dlt_resource.run(asked, out)
    # A source may raise what it likes, and may even ask to end the process.
    except BaseException as error:  # noqa: BLE001
        write_frame(out, Kind.FAILED, told(error, asked).encode("utf-8", "replace"))


def told(error: BaseException, asked: dict[str, Any]) -> str:
    """What may be said of an error: ours as they are, of others the class and the line they come from."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    for each in chain:
        if isinstance(each, PlatformError):
            return str(each)
    where, root = asked["where"], chain[-1]
    for each in chain:
        if isinstance(each, OSError) and each.errno == errno.EFBIG:
            return (
                f"{where}: the source writes a file {_line(each, asked)}, which is refused\n"
                "  rows may reach a disk only after they are masked"
            )
        if type(each).__name__ == "ConfigFieldMissingException":
            fields = ", ".join(map(str, getattr(each, "fields", ())))
            return f"{where}: the source needs: {fields}\n  give it under the connection's 'arguments' or 'config'"
        if type(each).__name__.startswith("IncrementalCursor"):
            return (
                f"{where}: rows cannot be compared by the resource's cursor '{asked['cursor'] or ''}' "
                f"({type(each).__name__})\n"
                "  a row lacks it, or it is of another kind than the watermark: declare its type, or reload the table"
            )
    if isinstance(root, ModuleNotFoundError) and root.name:
        return f"{where}: the module '{root.name}' is not installed\n  correct the connection's 'source', or install it"
    return f"{where}: the source failed: {type(root).__name__} {_line(root, asked)} (its text is withheld)"


def _line(error: BaseException, asked: dict[str, Any]) -> str:
    """Where an error comes from: the innermost line of the source's own module if it went through it."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "at no known line"
    module = asked["source"].partition(":")[0].rpartition(".")[2]
    own = [frame for frame in frames if Path(frame.filename).stem == module]
    frame = (own or frames)[-1]
    return f"at {Path(frame.filename).name}:{frame.lineno} in {frame.name}"


def _end_with(given: BinaryIO) -> None:
    """End this process when nobody wants its rows any more."""
    given.read()
    os._exit(1)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
