"""OPTIONS probes of a peer, each judged as its prober judges it: answered in time, or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from netdiag.tables import Tables
from netdiag.tables.schema import rows
from netdiag.tables.sip import Transaction
from netdiag.tables.sip_details import added
from netdiag.tables.sip_routing import routing

TIMER_F_NS = 32_000_000_000
"""64 times T1 (RFC 3261 §17.1.2.2)."""
FAILURES = (408, 503)
"""What a proxy answers for a peer that does not (RFC 3261 §21.4.9, §21.5.4)."""
T2_NS = 4_000_000_000
"""Longest wait between repetitions (RFC 3261 §17.1.2.2)."""
LATE_S = 1.0
"""After two sends the third is due 1.5 s after the first; sooner no answer is late."""
PROBES = 5_000
"""Probes of one pair that are looked at (practice)."""
PAIR = ["point", "client", "server", "server_port", "transport"]


class Probe(NamedTuple):
    """One OPTIONS, and whether its prober counts it as answered."""

    transaction: Transaction
    up: bool


def judged_series(tables: Tables, asked: pl.DataFrame, key: tuple[object, ...], slack: float) -> Iterator[list[Probe]]:
    """Judged probes of one pair, in order, for each Request-URI; ``slack``: how late a repetition may be, share."""
    mine = asked.filter(pl.all_horizontal(pl.col(c) == v for c, v in zip(PAIR, key, strict=True))).head(PROBES)
    mine = added(tables, mine.with_columns(request=pl.col("request_messages").list.first()), ("uri",), "request")
    end = tables.quality.filter(pl.col("point") == key[0])["last_ns"].max()
    for part in mine.partition_by("uri", maintain_order=True):
        items = list(rows(part, Transaction))
        out = []
        for i, t in enumerate(items):
            if not t.response_messages:
                if i + 1 < len(items) or (isinstance(end, int) and end - t.first_ns >= TIMER_F_NS):
                    out.append(Probe(t, False))
            elif t.status in FAILURES and t.final_message is not None:
                if routing(tables, t.final_message).retry_after is None:
                    out.append(Probe(t, False))
            else:
                out.append(Probe(t, not _too_late(tables, t, slack)))
        yield out


def _too_late(tables: Tables, t: Transaction, slack: float) -> bool:
    """The answer comes when another repetition was due (Timer E, waits double up to T2), and none was sent."""
    if t.transport != "udp" or t.sends < 2 or t.response_s is None:
        return False
    before, last = tables.sip["ts_ns"][list(t.request_messages[-2:])].to_list()
    answered = t.first_ns + int(t.response_s * 1e9)
    return bool(answered > last + min(2 * (last - before), T2_NS) * (1 + slack))
