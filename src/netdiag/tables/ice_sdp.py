"""What the signalling says about ICE and DTLS: username fragments, candidates, certificates, roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from netdiag.decode import sdp_ice
from netdiag.tables.schema import U16, U32, empty, frame

if TYPE_CHECKING:
    from netdiag.tables import Tables

BODY_LIMIT = 65535
"""Bytes of a body that are read: what UDP could carry (RFC 768)."""
BODIES = 1 << 16
"""Bodies that are read (practice); the rest is counted among the anomalies."""


@dataclass(frozen=True, slots=True)
class IceDescription:
    """One media section with ICE of one body; bodies that come again give no rows, as in ``media``."""

    point: str
    call: U32
    call_id: str
    side: str
    """"caller" or "callee"."""
    ts_ns: int
    packet: U32
    source: str
    """Where the message came from."""
    type: str
    """"audio", "video", "application"."""
    ufrag: str
    """Of the agent that is described; random, and so it tells agents apart (RFC 8445 §5.3)."""
    password: str
    lite: bool
    """a=ice-lite: this agent sends no checks of its own (RFC 8445 §2.5)."""
    setup: str
    """a=setup, "" without (RFC 5763 §5)."""
    fingerprints: tuple[str, ...]
    """Hash function and value: "sha-256 4A:AD:…" (RFC 8122 §5)."""
    types: tuple[str, ...]
    """Of its UDP candidates: host, srflx, prflx, relay."""
    addresses: tuple[str, ...]
    """The same candidates; may be names of multicast DNS that end in ".local"."""
    ports: tuple[U16, ...]


def build(tables: Tables) -> pl.DataFrame:
    """One row for each section, in the order of the messages."""
    lines = tables.media.filter(pl.col("ice")).unique("message", keep="first", maintain_order=True)
    if not lines.height:
        return empty(IceDescription)
    if len(lines) > BODIES:
        tables.anomaly_log.add("ice_descriptions", f"more than {BODIES} session descriptions with ICE, the rest was "
                               "not read", int(lines["packet"][BODIES]), len(lines) - BODIES)
        lines = lines.head(BODIES)
    places = tables.sip[lines["message"]].select("raw_offset", "raw_length", "sdp_offset")
    said = lines.select("point", "call", "call_id", "side", "ts_ns", "packet", source="signalling_source")
    out = []
    for (offset, length, sdp), row in zip(places.iter_rows(), said.iter_rows(named=True), strict=True):
        for s in sdp_ice.parse(tables.packets.space.read(offset + sdp, min(length - sdp, BODY_LIMIT))):
            if s.ufrag:
                udp = [c for c in s.candidates if c.transport == "udp"]
                out.append(IceDescription(
                    **row, type=s.type, ufrag=s.ufrag, password=s.password, lite=s.lite, setup=s.setup,
                    fingerprints=tuple(" ".join(f) for f in s.fingerprints), types=tuple(c.type for c in udp),
                    addresses=tuple(c.address for c in udp), ports=tuple(c.port for c in udp)))
    return frame(IceDescription, out)
