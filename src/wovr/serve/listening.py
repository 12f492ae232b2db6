"""The port, taken before anything is loaded, so that one in use is said at once."""

from __future__ import annotations

import errno
import os
import socket

from wovr.errors import UserError


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: Name or number of the interface.
        port: The port; 0 for any that is free.

    Raises:
        UserError: The port is in use or not ours to take, or there is no such interface.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"--port {port}: in use on {host}", "give another, or 0 for any that is free") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UserError(f"--port {port}: not allowed", "give one above 1023") from error
        raise UserError(
            f"--host {host}: {error.strerror or error}", "give 127.0.0.1, or an address of this machine"
        ) from error
    listening.setblocking(False)
    return listening
