"""DNS transactions over UDP and TCP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from netdiag.tables.packets import KIND_DNS
from netdiag.tables.schema import U8, U16, U32, empty

if TYPE_CHECKING:
    from netdiag.tables import Tables


@dataclass(frozen=True, slots=True)
class Lookup:
    """One DNS query with its answer (matched by flow, id and question), one row per distinct query packet."""

    lookup: U32
    point: str
    flow: U32
    client: str
    client_port: U16
    server: str
    server_port: U16
    transport: str
    id: U16
    name: str
    """Question name, lower case, without the final dot (the root is "."), escaped as dnspython prints it."""
    type: str
    """For example "A", "SRV", "TYPE65280"."""
    query_packet: U32 | None
    """None: only the answer was captured."""
    answer_packet: U32 | None
    query_ns: int
    answer_ns: int | None
    rcode: str | None
    truncated: bool
    """TC=1 in the answer."""
    answers: tuple[str, ...]
    """Answer records in zone-file form "name. ttl class type data", first 16."""
    retry: U8
    """How often the same client had asked the same question within 30 s before (practice)."""
    edns_size: U16 | None
    """UDP payload size the query offers (RFC 6891 §6.2.3); None without EDNS or without the query."""
    duplicate: bool = False
    """A second answer to a query that had its answer; ``query_packet`` is then None."""
    opcode: U8 = 0
    """0 is QUERY (RFC 1035 §4.1.1, IANA registry)."""
    recursion_desired: bool = False
    checking_disabled: bool = False
    """CD of the query, or of the answer without one (RFC 4035 §3.2.2)."""
    authoritative: bool | None = None
    """AA of the answer."""
    recursion_available: bool | None = None
    """RA of the answer."""
    answer_count: U16 | None = None
    """Answer records the answer says it has."""
    authority_count: U16 | None = None
    answer_size: U16 | None = None
    """Bytes of the answer."""
    answer_edns_size: U16 | None = None
    extended_errors: tuple[U16, ...] = ()
    """Extended DNS error codes of the answer (RFC 8914 §5.2)."""


def build(tables: Tables) -> pl.DataFrame:
    """Frame of ``Lookup``, in order of time of the queries."""
    rows = np.flatnonzero(tables.packets.kind == KIND_DNS)
    if not len(rows):
        return empty(Lookup)  # dnspython takes long to import
    from netdiag.tables import dns
    return dns.read(tables, rows)
