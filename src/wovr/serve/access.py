"""Who may talk to the server: this machine's own pages, and whoever has the token.

A page of another site can send requests to a server on this machine, and by DNS rebinding even as if it was the
server's own page. Two things stop it: a request names the host it was meant for (Host) and the page it comes from
(Origin), which must be the same; and a name that is neither this machine's nor given on the command line is refused. A
number cannot be rebound.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket

from wovr.errors import UserError

LOOPBACK_NAMES = ("localhost", "ip6-localhost")

SHORTEST_TOKEN = 16
"""Characters of a token, at least."""


class Access:
    """What is checked of every request.

    Args:
        host: What the server binds to.
        token: What a page has to know; empty for nothing.

    Raises:
        UserError: A host that others reach and no token, or a token that could be guessed.
    """

    def __init__(self, host: str, token: str = "") -> None:
        if not token and not is_loopback(host):
            raise UserError(
                f"--host {host} can be reached by others and there is no --token",
                f"give one that nobody guesses, such as --token {secrets.token_urlsafe(16)}",
            )
        if token and len(token) < SHORTEST_TOKEN:
            raise UserError(f"--token has {len(token)} characters", f"give {SHORTEST_TOKEN} or more")
        self.host, self.token = host, token

    def knows(self, token: str) -> bool:
        """Whether a token is the right one, in a time that does not tell how nearly."""
        return not self.token or hmac.compare_digest(token.encode(), self.token.encode())

    def refusal(self, host: str | None, origin: str | None) -> str:
        """Why a request is refused; empty where it is not.

        Args:
            host: Its header Host.
            origin: Its header Origin; None where there is none, as from programs and plain page loads.
        """
        name = _name_in(host or "")
        if not self._is_ours(name):
            return f"this server is not called '{name[:80]}'"
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return f"pages of {origin[:80]} may not talk to this server"
        return ""

    def _is_ours(self, name: str) -> bool:
        names = {self.host.lower(), *LOOPBACK_NAMES}
        if is_loopback(self.host):
            return name in names or is_loopback(name)
        return name in names or name == socket.gethostname().lower() or _address(name) is not None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    address = _address(host)
    return host.lower() in LOOPBACK_NAMES or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _name_in(host: str) -> str:
    """The name in a header Host, in lower case, without the port: that of a tunnel's end may be another."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower().strip("[]")
