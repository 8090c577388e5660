"""Keys of DTLS-SRTP, made from the secrets of a key log (RFC 5764 §4.2), up to DTLS 1.2.

In DTLS 1.3 the chosen profile is in an encrypted message, which is not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from netdiag.decode import dtls, srtp
from netdiag.tables.dtls_flights import hello_random
from netdiag.tables.srtp_keys import ALWAYS, GRACE_NS, Candidate

if TYPE_CHECKING:
    from netdiag.tables import Tables

HANDSHAKES = 4000
"""Handshakes whose keys are made (practice: as many as streams are looked at)."""


class Agreed(NamedTuple):
    """Keys of one handshake."""

    ns: int
    packet: int
    """Packet row of the ServerHello."""
    client: tuple[str, int]
    suite: str
    keys: tuple[srtp.Key, srtp.Key]
    """Of the client's packets, and of the server's."""


def read(tables: Tables) -> dict[int, list[Agreed]]:
    """Flow to its handshakes with keys, in order of time; empty without a key log."""
    out: dict[int, list[Agreed]] = {}
    if not (tables.options.keylog or tables.secrets) or not tables.keylog.secrets:
        return out
    done = tables.dtls.filter(pl.col("srtp"), ~pl.col("relayed"), pl.col("version") == 0xFEFD,
                              pl.col("server_hello_packet").is_not_null(),
                              pl.col("client_hello_packets").list.len() > 0).head(HANDSHAKES)
    p = tables.packets
    for flow, ns, client, port, hellos, answer in done.select(
            "flow", "start_ns", "client", "client_port", "client_hello_packets", "server_hello_packet").iter_rows():
        random = hello_random(p.payload(hellos[0]))
        secret = tables.keylog.get("CLIENT_RANDOM", random)
        body = _server_hello(p.payload(answer))
        hello = dtls.server_hello(body) if body is not None else None
        if secret is None or body is None or hello is None:
            continue
        from netdiag.decode.tls_cipher import SUITES
        suite = SUITES.get(hello.cipher)
        profile = srtp.chosen_profile(body)
        keys = srtp.dtls_keys(profile, srtp.exported(
            secret, random, hello.random, suite is not None and suite.hash == "sha384"))
        if keys is not None:
            out.setdefault(flow, []).append(Agreed(ns, answer, (client, port), srtp.PROFILES[profile], keys))
    return out


def _server_hello(raw: bytes) -> bytes | None:
    """Body of a ServerHello that one record holds whole."""
    for record in dtls.records(raw)[0]:
        if record.type == dtls.HANDSHAKE and not record.epoch:
            for piece in dtls.fragments(raw, record)[0]:
                if piece.type == dtls.SERVER_HELLO and len(piece.body) == piece.size:
                    return piece.body
    return None


def candidates(agreed: list[Agreed], source: tuple[str, int]) -> list[Candidate]:
    """Keys of what ``source`` sends on this flow; each is in force until the next handshake."""
    out = []
    for i, a in enumerate(agreed):
        begin = a.ns - GRACE_NS if i else -ALWAYS
        end = agreed[i + 1].ns + GRACE_NS if i + 1 < len(agreed) else ALWAYS
        out.append(Candidate(a.keys[a.client != source], a.packet, a.suite, begin, end))
    return out
