"""The process that reads mail: `python -m waypost.reading.worker`, started by reading/process.

One request at a time. The kernel ends it when a mail takes too much time, and refuses it memory;
either costs that mail's reading and nothing else. Why this is a process: docs/decisions/0018.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from waypost.reading.pictures import thumbnail
from waypost.reading.read import read_mail
from waypost.reading.transfer import unwrapped
from waypost.reading.values import Limits
from waypost.reading.wire import (
    FAILED,
    NOTHING,
    OCTETS,
    REQUEST_HEADER,
    VALUE,
    Allowance,
    OctetsRequest,
    ReadRequest,
    Request,
    answer_frame,
    mail_octets,
    request_of,
)

_READ_BYTES = 1_048_576
_REQUEST_BYTES = 65_536
# Mail is moved first, then read.
_NICENESS = 5
# Where memory runs out the kernel ends this process before the hub.
_OOM_SCORE = "800"


def serve(connection: socket.socket, cpu_s: int) -> None:
    """Do what comes from the hub, until it hangs up."""
    while (received := _next_request(connection)) is not None:
        request, descriptor = received
        _allow_time(cpu_s)
        try:
            answer = _answer(request, descriptor)
        except MemoryError:
            answer = answer_frame(FAILED, b"it takes more memory than it may")
        except Exception as error:  # whatever a library makes of a stranger's octets: told
            answer = answer_frame(FAILED, f"{type(error).__name__}: {error}"[:500].encode())
        finally:
            os.close(descriptor)
        connection.sendall(answer)


def _answer(request: Request, descriptor: int) -> bytes:
    if isinstance(request, ReadRequest):
        content = _octets(descriptor, 0, request.limits.octets + 1)
        return answer_frame(VALUE, mail_octets(read_mail(content, request.limits)))
    if isinstance(request, OctetsRequest):
        part = request.attachment
        body = _octets(descriptor, part.start, part.end - part.start)
        return answer_frame(OCTETS, unwrapped(body, part.encoding)[0])
    made = thumbnail(_octets(descriptor, 0, Limits().octets), request.max_px)
    return answer_frame(NOTHING) if made is None else answer_frame(OCTETS, made)


def _octets(descriptor: int, at: int, most: int) -> bytes:
    # pread: the position is shared with the hub, and not ours to move.
    found: list[bytes] = []
    while most and (read := os.pread(descriptor, min(most, _READ_BYTES), at)):
        found.append(read)
        at += len(read)
        most -= len(read)
    return b"".join(found)


def _next_request(connection: socket.socket) -> tuple[Request, int] | None:
    """The hub's next request with its descriptor; None: it has hung up, or died."""
    received, descriptors, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, 1)
    if not received:
        return None
    (size,) = REQUEST_HEADER.unpack_from(received)
    body = received[REQUEST_HEADER.size :]
    while len(body) < size:
        more = connection.recv(size - len(body))
        if not more:
            return None
        body += more
    return request_of(body), descriptors[0]


def _allow_time(cpu_s: int) -> None:
    """From now on so many seconds; then the kernel sends SIGXCPU, which ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def main() -> None:
    """Arguments: the number of the socket's descriptor, seconds and octets allowed."""
    # Signals for all of a terminal's or a service's processes are the hub's to act on.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):  # some containers have /proc read-only
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    allowance = Allowance(cpu_s=int(sys.argv[2]), memory=int(sys.argv[3]))
    resource.setrlimit(resource.RLIMIT_AS, (allowance.memory, allowance.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold mail
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it has nothing to write
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the hub died meanwhile
        serve(socket.socket(fileno=int(sys.argv[1])), allowance.cpu_s)


if __name__ == "__main__":
    main()
