"""The command that shows what a server sends now: once certificates were read, no further capture is needed."""

from __future__ import annotations

import re

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
"""RFC 1123 §2.1. A name from the wire goes into a command only if it is one."""


def command(session: dict[str, object]) -> str:
    """``openssl s_client`` for the server of a handshake, with the name that the client asked for."""
    server, sni = str(session["server"]), str(session["sni"] or "")
    place = f"[{server}]" if ":" in server else server
    name = f" -servername {sni}" if _HOST_NAME.fullmatch(sni) else ""
    return f"openssl s_client -showcerts -connect {place}:{session['server_port']}{name}"
