"""What a session description says about ICE and DTLS: RFC 8839, RFC 8122, RFC 5763. Linear time for any bytes."""

from __future__ import annotations

from typing import NamedTuple

from netdiag.decode.sdp import CANDIDATE_LIMIT, MEDIA_LIMIT, WORD_LIMIT


class Candidate(NamedTuple):
    """One a=candidate line (RFC 8839 §5.1)."""

    component: str
    transport: str
    """In lower case: "udp", "tcp"."""
    address: str
    """May be a name of multicast DNS that ends in ".local" (draft-ietf-mmusic-mdns-ice-candidates)."""
    port: int
    type: str
    """host, srflx, prflx, relay."""


class IceSection(NamedTuple):
    """One media section; what the session part says applies where the section says nothing."""

    type: str
    ufrag: str
    password: str
    candidates: tuple[Candidate, ...]
    fingerprints: tuple[tuple[str, str], ...]
    """Hash function in lower case ("sha-256") and the value in upper case with colons (RFC 8122 §5)."""
    setup: str
    """actpass, active, passive, holdconn, or ""."""
    lite: bool
    """a=ice-lite (RFC 8839 §5.3)."""


def parse(body: bytes) -> tuple[IceSection, ...]:
    """All media sections of a body, up to the first line that is no SDP line."""
    head, *sections = body.decode("utf-8", "replace").replace("\r\n", "\n").split("\nm=", MEDIA_LIMIT + 1)
    common = _read("session", head)
    out = []
    for section in sections[:MEDIA_LIMIT]:
        line, _, rest = section.partition("\n")
        own = _read(line.split(" ", 1)[0][:WORD_LIMIT], rest)
        out.append(IceSection(
            own.type, own.ufrag or common.ufrag, own.password or common.password, own.candidates,
            own.fingerprints or common.fingerprints, own.setup or common.setup, common.lite))
    return tuple(out)


def _read(kind: str, text: str) -> IceSection:
    words = {"ice-ufrag": "", "ice-pwd": "", "setup": ""}
    candidates: list[Candidate] = []
    fingerprints: list[tuple[str, str]] = []
    lite = False
    for line in text.split("\n"):
        if line and line[1:2] != "=":
            break
        if line[:2] != "a=":
            continue
        name, _, value = line[2:].partition(":")
        value = value.strip()
        if name in words:
            words[name] = words[name] or value[:WORD_LIMIT]
        elif name == "candidate" and len(candidates) < CANDIDATE_LIMIT:
            found = _candidate(value)
            candidates += [found] if found else []
        elif name == "fingerprint" and len(fingerprints) < MEDIA_LIMIT:
            function, _, digest = value.partition(" ")
            fingerprints.append((function.lower()[:WORD_LIMIT], digest.strip().upper()[:WORD_LIMIT]))
        elif name.strip() == "ice-lite":
            lite = True
    return IceSection(kind, words["ice-ufrag"], words["ice-pwd"], tuple(candidates), tuple(fingerprints),
                      words["setup"].lower(), lite)


def _candidate(value: str) -> Candidate | None:
    """foundation component transport priority address port typ type …"""
    fields = value.split(None, 8)
    if len(fields) < 8 or fields[6].lower() != "typ" or max(map(len, fields[:8])) > WORD_LIMIT:
        return None
    port = fields[5]
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        return None
    return Candidate(fields[1], fields[2].lower(), fields[4], int(port), fields[7].lower())
