"""Which direction each offer of a call asked for, and what became of it (RFC 3264 §6.1, §8.4): hold and resume.

From ``Tables.media`` alone; ``exchanges`` reads whole bodies, hop by hop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from netdiag.tables.addresses import realm
from netdiag.tables.calls import Media
from netdiag.tables.schema import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netdiag.tables import Tables


@dataclass(frozen=True, slots=True)
class Exchange:
    """One offer for one media line, with its answer or its refusal."""

    call: int
    index: int
    offerer: str
    """"caller" or "callee"."""
    ts_ns: int
    """When it was settled: the answer, else the offer."""
    offer: Media
    answer: Media | None
    status: int | None
    """Final status of the request that carried the offer."""

    @property
    def offered(self) -> str:
        """Direction of the offer; "inactive" with the unspecified address, as hold once was (RFC 3264 §8.4)."""
        return direction(self.offer)

    @property
    def answered(self) -> str:
        """Direction of the answer as its sender states it; "" without one."""
        return direction(self.answer) if self.answer else ""


def direction(line: Media) -> str:
    if line.port and line.address is not None and realm(line.address) == "unspecified":
        return {"sendrecv": "sendonly", "recvonly": "inactive"}.get(line.direction, line.direction)
    return line.direction


def of_calls(tables: Tables, calls: Sequence[int], kind: str = "audio") -> dict[int, list[Exchange]]:
    """Exchanges of these calls (rows of ``Tables.calls``) about media of one type, in order of time."""
    chosen = pl.Series(calls, dtype=pl.UInt32)
    media = tables.media.filter(pl.col("call").is_in(chosen.implode()) & (pl.col("type") == kind))
    cseq = dict(tables.sip[media["message"].unique()].select("message", pl.struct("cseq", "cseq_method")).iter_rows())
    grouped: dict[tuple[int, int, int | None, str, str], list[Media]] = {}
    for line in rows(media, Media):
        said = cseq[line.message]
        offerer = line.side if line.role == "offer" else _other(line.side)
        method = "INVITE" if said["cseq_method"] == "ACK" else said["cseq_method"]
        grouped.setdefault((line.call, line.index, said["cseq"], method, offerer), []).append(line)
    known = tables.calls.filter(pl.col("call").is_in(chosen.implode())).select("call", "point", "call_id", "from_tag")
    tried = tables.transactions.join(known, on=["point", "call_id"], how="inner").filter(
        pl.col("status").is_not_null()).unique(["call", "cseq", "method", "client"], keep="first")
    status: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for call, number, method, first, code in tried.select("call", "cseq", "method", "first_ns", "status").iter_rows():
        status.setdefault((call, number, method), []).append((first, code))
    out: dict[int, list[Exchange]] = {}
    for (call, _, number, method, offerer), lines in grouped.items():
        offers, answers = ([x for x in lines if x.role == role] for role in ("offer", "answer"))
        if not offers:
            continue
        at = offers[0].ts_ns
        # The same number may be used by both sides: the transaction nearest in time is meant.
        codes = status.get((call, number, method), [])
        code = min(codes, key=lambda pair: abs(pair[0] - at))[1] if codes else None
        answer = answers[-1] if answers else None
        out.setdefault(offers[0].call, []).append(Exchange(
            offers[0].call, offers[0].index, offerer, answer.ts_ns if answer else at, offers[0], answer, code))
    for items in out.values():
        items.sort(key=lambda x: x.ts_ns)
    return out


def _other(side: str) -> str:
    return "callee" if side == "caller" else "caller"
