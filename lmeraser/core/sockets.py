"""Unix sockets by a name that fits: the kernel takes 107 bytes (sun_path, unix(7)), and a project's path may be longer.

And those of servers, by host and port.
"""

import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmeraser.core.errors import BadInputError, ProjectError

LONGEST = 103  # bytes; macOS takes 103, Linux 107
DESCRIPTORS = Path("/proc/self/fd")


@contextmanager
def fitting(path: Path) -> Iterator[str]:
    """A name of the socket for `bind` or `connect`: its path or, where that is too long, one by way of its open folder.

    Raises: ProjectError where there is no such way (no /proc); OSError if the folder is absent.
    """
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    if not DESCRIPTORS.is_dir():
        raise ProjectError(
            f"the project's path is too long for a socket ({len(os.fsencode(path))} bytes with it, at most {LONGEST}); "
            "move the project to a shorter path"
        )
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield str(DESCRIPTORS / str(folder) / path.name)
    finally:
        os.close(folder)


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket that listens at a path, for its owner alone; what was there before is gone. Raises: as `fitting`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with fitting(path) as name:
            listener.bind(name)
        path.chmod(0o600)
        listener.listen(8)
        yield listener


def bound(host: str, port: int) -> socket.socket:
    """A TCP socket of a server. Args: port: 0: any that is free.

    Raises: BadInputError if there is no such address here, ProjectError if the port is taken.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise BadInputError("--host is no address of this machine; give one, or 127.0.0.1") from error
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        raise ProjectError(
            f"cannot listen on port {port} ({error.strerror}); stop the program that listens there, or choose another --port"
        ) from error
    return made


def is_loopback(host: str) -> bool:
    """Whether no other machine reaches a server at this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
