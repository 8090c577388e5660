"""Verifies a sample of the packets of SRTP senders and tells their stretches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from netdiag.decode.rtp import HEADER
from netdiag.tables import rtp_packets, srtp_check, srtp_dtls, srtp_keys
from netdiag.tables.srtp import SrtpStretch
from netdiag.tables.srtp_keys import Candidate

if TYPE_CHECKING:
    from netdiag.tables import Tables
    from netdiag.tables.srtp_check import Sender, Stretch
    from netdiag.tables.srtp_dtls import Agreed

STREAMS = 2000
"""Streams that are looked at, those of calls taken evenly from all (practice: some two seconds)."""
BATCH = 1 << 20
"""Packets read together."""
VERIFICATIONS = 400_000
"""Tags computed in all (practice: some seconds)."""
SEARCHES = 100
"""Senders whose key is looked for among all others (practice)."""
WRAPS = 64
"""Wraps that are remembered of a stretch (practice: a day of 20 ms packets)."""
JOIN_NS = 1_000_000_000
"""A stream goes on in another flow when that one begins this early before its end, or later (practice)."""
_CHAIN = ["point", "call", "sender", "ssrc", "first_ns"]


def stretches(tables: Tables, calls: pl.Series) -> Iterator[SrtpStretch]:
    """Stretches of the streams of these ``calls``, and of flows with keys by DTLS.

    Not of streams of which it is only likely that they belong to their call.
    """
    keyed = srtp_dtls.read(tables)
    ours = pl.col("call").is_in(calls.implode()) & (pl.col("bound_by") != "heuristic")
    streams = tables.rtp.filter(ours.fill_null(False) | pl.col("flow").is_in(list(keyed)))
    if streams.height:
        yield from _Checks(tables, streams, calls, keyed).rows()


class _Checks:
    def __init__(self, tables: Tables, streams: pl.DataFrame, secure: pl.Series,
                 keyed: dict[int, list[Agreed]]) -> None:
        self._tables, self._keyed = tables, keyed
        calls = streams["call"].drop_nulls().unique().sort()
        most = max(int(STREAMS * len(calls) / streams.height), 1)
        looked = calls if len(calls) <= most else calls[np.linspace(0, len(calls) - 1, most).astype(int)]
        alone = pl.col("call").is_null() & (pl.col("stream").rank("ordinal").over("call") <= STREAMS)
        chosen = (pl.col("call").is_in(looked.implode()) | alone).fill_null(False)
        self._streams, self._rest = _chains(streams.filter(chosen)), streams.filter(~chosen)
        self._keys = srtp_keys.read(tables, looked.to_list())
        self._others = secure.filter(~secure.is_in(looked.implode())).head(srtp_keys.POOL).to_list()
        self._calls = {c: (m, cut) for c, m, cut in tables.calls.filter(
            pl.col("call").is_in(looked.implode())).select("call", "midstream", "cut").iter_rows()}
        self._budget = srtp_check.Budget(VERIFICATIONS)
        self._searches = SEARCHES

    def rows(self) -> Iterator[SrtpStretch]:
        chains = self._streams.partition_by("chain", maintain_order=True)
        batch: list[pl.DataFrame] = []
        size = 0
        for chain in chains:
            packets = int(chain["packets"].sum())
            if batch and size + packets > BATCH:
                yield from self._batch(batch)
                batch, size = [], 0
            batch.append(chain)
            size += packets
        if batch:
            yield from self._batch(batch)
        behind = len(chains)
        for number, line in enumerate(self._rest.iter_rows(named=True)):
            yield _unjudged(behind + number, line, "more streams than are looked at")

    def _batch(self, chains: list[pl.DataFrame]) -> Iterator[SrtpStretch]:
        both = pl.concat(chains)
        s = rtp_packets.read(self._tables, both)
        at = 0
        for chain in chains:
            parts = [s.part(at + i) for i in range(chain.height)]
            at += chain.height
            yield from self._chain(chain, s, parts)

    def _chain(self, chain: pl.DataFrame, s: rtp_packets.StreamPackets, parts: list[slice]) -> Iterator[SrtpStretch]:
        first: dict[str, Any] = chain.row(0, named=True)
        number, call = int(first["chain"]), first["call"]
        midstream, cut = self._calls.get(call, (False, False))
        row, ts, sequence = (np.concatenate([column[part] for part in parts]) for column in (
            s.packet, s.ts_ns, s.sequence))
        owner = np.repeat(chain["stream"].to_numpy(), [part.stop - part.start for part in parts])
        candidates, unknown, source = self._candidates(chain, midstream)
        midstream &= source == "SDES"
        wraps = srtp_check.wraps(sequence)
        behind = row[np.flatnonzero(np.diff(wraps) > 0) + 1]
        if cut and source == "SDES":
            yield _unjudged(number, first, "a message of the call was captured in part", behind)
            return
        if not candidates:
            yield _unjudged(number, first, unknown or "no key in the signalling", behind)
            return
        sender = srtp_check.Sender(self._tables.packets, row, ts, wraps, list(candidates), self._budget,
                                   srtp_check.LATE_ROCS if midstream else srtp_check.ROCS)
        if not len(sender.usable):
            yield _unjudged(number, first, unknown or "no packet was captured whole while a key was known",
                            behind)
            return
        if self._budget.left <= 0:
            yield _unjudged(number, first, "more tags than are computed", behind)
            return
        found = self._explained(sender, call, first, _marks(ts, wraps, owner, candidates))
        gaps = srtp_check.unseen(ts)
        base: int | None = None
        before, key = 0, None
        for stretch in found:
            begin, end = stretch.first, stretch.last
            verdict = stretch.verdict
            if ((gaps > before) & (gaps <= begin)).any():
                base = None
            count = int(wraps[begin])
            in_force = _in_force(candidates, int(ts[begin]))
            used = sender.candidates[verdict.candidate] if verdict.candidate >= 0 else None
            if used is not None and used.key != key:
                base = None
            relation = verdict.relation
            if used is None and _plain(self._tables, first, row, begin, end):
                relation = "plain"
            yield SrtpStretch(
                number, int(owner[begin]), first["point"], call, first["call_id"], first["sender"], source,
                in_force.suite, in_force.packet, relation, used.packet if used else None,
                verdict.base + count if used else None, verdict.base + int(wraps[end]) if used else None,
                base + count if used and base is not None and base + count >= 0 else None,
                count, int(row[begin]), int(row[end]), int(ts[begin]), int(ts[end]), int(sequence[begin]),
                int(sequence[end]), stretch.sampled, stretch.matched,
                tuple(behind[(behind >= row[begin]) & (behind <= row[end])][:WRAPS].tolist()),
                stretch is found[0] and begin == 0 and not midstream, "")
            if used:
                base, key = verdict.base, used.key
            before = begin

    def _candidates(self, chain: pl.DataFrame, midstream: bool) -> tuple[list[Candidate], str, str]:
        """Keys that were agreed for a sender, why some time has none, and where they come from."""
        by_dtls: list[Candidate] = []
        lanes: list[list[srtp_keys.Told]] = []
        for line in chain.iter_rows(named=True):
            source = line["source"], line["source_port"]
            by_dtls += srtp_dtls.candidates(self._keyed.get(line["flow"], []), source)
            lanes += srtp_keys.chosen(self._keys.get(line["call"], srtp_keys.CallKeys()), line["sender"], source,
                                      (line["destination"], line["destination_port"]))
        if by_dtls:
            return by_dtls, "", "DTLS"
        return *srtp_keys.candidates(_distinct(lanes), midstream), "SDES"

    def _explained(self, sender: Sender, call: int | None, first: dict[str, Any],
                   marks: srtp_check.I64) -> list[Stretch]:
        """Stretches, after the key of those that do not fit was looked for among all that were captured."""
        found = sender.stretches(marks)
        odd = [s for s in found if s.verdict is srtp_check.NOTHING and s.sampled >= srtp_check.FEW]
        if not odd or self._searches <= 0:
            return found
        self._searches -= 1
        if self._others:
            self._keys.update(srtp_keys.read(self._tables, self._others))
            self._others = []
        own = -1 if call is None else call
        target = first["destination"], first["destination_port"]
        strangers = list(srtp_keys.strangers(self._keys, own, first["sender"], target, sender.candidates))
        for stretch in odd:
            low, high = np.searchsorted(sender.usable, (stretch.first, stretch.last))
            probes = (int(low + high) // 2, int(low), int(high))
            for stranger in strangers:
                rocs = range(srtp_check.ROCS) if stranger.relation != "other call" else range(2)
                if self._budget.left <= 0:
                    break
                if sum(sender.fits(at, stranger, rocs) for at in probes[:1]) and any(
                        sender.fits(at, stranger, rocs) for at in probes[1:]):
                    sender.adopt(stranger)
                    break
        return sender.stretches(marks)


def _chains(streams: pl.DataFrame) -> pl.DataFrame:
    """Adds ``chain``: streams of one SSRC and sender that follow each other in time are one."""
    line = streams.sort(_CHAIN)
    same = pl.all_horizontal(pl.col(c) == pl.col(c).shift() for c in _CHAIN[:-1]).fill_null(False)
    follows = pl.col("first_ns") >= pl.col("last_ns").shift() - JOIN_NS
    return line.with_columns(chain=(~(same & follows.fill_null(False))).cum_sum() - 1)


def _distinct(lanes: list[list[srtp_keys.Told]]) -> list[list[srtp_keys.Told]]:
    """What was told on each hop; what streams that follow each other were told is one list."""
    if len(lanes) <= 1:
        return lanes
    hops: dict[object, dict[srtp_keys.Told, None]] = {}
    for lane in lanes:
        for told in lane:
            hops.setdefault(told.lane, {})[told] = None
    return [list(told) for told in hops.values()]


def _in_force(candidates: list[Candidate], ns: int) -> Candidate:
    """The key that began last before this time."""
    before = [c for c in candidates if c.begin_ns <= ns]
    return max(before, key=lambda c: c.begin_ns) if before else candidates[0]


def _marks(ts: srtp_check.I64, wraps: srtp_check.I64, owner: Any, candidates: list[Candidate]) -> srtp_check.I64:
    """Places of packets before which something may change: a wrap, another flow, a key that begins or ends."""
    places = [np.flatnonzero(np.diff(wraps)) + 1, np.flatnonzero(np.diff(owner)) + 1]
    times = [t for c in candidates for t in (c.begin_ns, c.end_ns) if ts[0] < t < ts[-1]]
    return np.unique(np.concatenate([*places, np.searchsorted(ts, np.array(times, np.int64))]))


_PER_TICK = {"pcmu": 1.0, "pcma": 1.0, "g722": 1.0, "gsm": 33 / 160, "g729": 1 / 8}
"""Bytes for each tick of the RTP clock (RFC 3551 §4.5)."""


def _plain(tables: Tables, stream: dict[str, Any], row: Any, begin: int, end: int) -> bool:
    """Are packets exactly as long as the codec makes them, so that there is no room for a tag?"""
    rate = _PER_TICK.get(str(stream["codec"]).lower())
    if rate is None or end - begin < srtp_check.FEW:
        return False
    p = tables.packets
    part = row[begin : end + 1][:50]
    head = p.head(part, HEADER)
    stamp = np.ascontiguousarray(head[:, 4:8]).view(">u4")[:, 0].astype(np.int64)
    step, size = np.diff(stamp), p.wire[part].astype(np.int64)[1:] - HEADER
    usual = (step > 0) & (step <= 1600)
    return bool(usual.any()) and bool((np.abs(size - step * rate)[usual] < 1).mean() > 0.8)


def _unjudged(number: int, stream: dict[str, Any], note: str, behind: Any = ()) -> SrtpStretch:
    return SrtpStretch(
        number, stream["stream"], stream["point"], stream["call"], stream["call_id"], stream["sender"], "SDES", "",
        None, "unjudged", None, None, None, None, 0, stream["first_packet"], stream["last_packet"], stream["first_ns"],
        stream["last_ns"], 0, 0, 0, 0, tuple(int(packet) for packet in behind[:WRAPS]), False, note)
