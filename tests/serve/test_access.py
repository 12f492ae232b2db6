"""Which hosts need a token, and which requests are refused."""

from __future__ import annotations

import socket

import pytest

from wovr.errors import UserError
from wovr.serve.access import Access, is_loopback

TOKEN = "a-token-nobody-guesses"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "LOCALHOST"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    assert Access(host).knows("")
    assert Access(host, TOKEN).knows(TOKEN)
    assert not Access(host, TOKEN).knows("")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.evil.example"])
def test_others_need_one(host: str) -> None:
    with pytest.raises(UserError, match=r"there is no --token; give one that nobody guesses, such as --token \S{20,}"):
        Access(host)
    with pytest.raises(UserError, match="--token has 4 characters; give 16 or more"):
        Access(host, "1234")
    assert Access(host, TOKEN).knows(TOKEN)


@pytest.mark.parametrize(
    ("bound", "host", "origin", "passes"),
    [
        ("127.0.0.1", "127.0.0.1:80", None, True),
        ("127.0.0.1", "[::1]:80", "http://[::1]:80", True),
        ("127.0.0.1", "192.168.1.5:80", None, False),
        ("127.0.0.1", "localhost.evil.example", None, False),
        ("127.0.0.1", None, None, False),
        ("0.0.0.0", "192.168.1.5:80", "http://192.168.1.5:80", True),
        ("0.0.0.0", "[fe80::1]:80", None, True),
        ("0.0.0.0", socket.gethostname(), None, True),
        ("0.0.0.0", "evil.example:80", "http://evil.example:80", False),
        ("0.0.0.0", "192.168.1.5:80", "http://192.168.1.6:80", False),
        ("robot.lab", "robot.lab:80", "http://robot.lab:80", True),
        ("robot.lab", "other.lab:80", None, False),
    ],
)
def test_names_and_origins(bound: str, host: str | None, origin: str | None, passes: bool) -> None:
    assert (Access(bound, TOKEN).refusal(host, origin) == "") is passes
