"""Legs of a call: who receives audio where, from when to when, and the streams that go there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from netdiag.tables import Tables
from netdiag.tables.addresses import realm
from netdiag.tables.calls import Call, Media
from netdiag.tables.rtp import RtpStream, series
from netdiag.tables.schema import rows

Endpoint = tuple[str, int]
SIDES = ("caller", "callee")


def other(side: str) -> str:
    return "callee" if side == "caller" else "caller"


class Leg(NamedTuple):
    """One audio line between two SDP descriptions, while neither of them changes."""

    call: Call
    caller: Media
    callee: Media
    begin_ns: int
    end_ns: int

    def side(self, name: str) -> Media:
        return self.caller if name == "caller" else self.callee

    @property
    def talking(self) -> bool:
        """Both sides want to send and receive plain RTP audio at a stated address (RFC 3264 §5.1, §6.1, §8.4)."""
        return all(m.direction == "sendrecv" and m.address is not None and not m.ice
                   and "RTP/" in m.protocol and realm(m.address) != "unspecified" for m in (self.caller, self.callee))


class Legs:
    """Legs and streams of the few calls that are looked at closely."""

    def __init__(self, tables: Tables, calls: Sequence[int]) -> None:
        self._tables = tables
        chosen = pl.Series(calls, dtype=pl.UInt32).implode()
        self.calls = list(rows(tables.calls.filter(pl.col("call").is_in(chosen)), Call))
        media = tables.media.filter(pl.col("call").is_in(chosen) & (pl.col("type") == "audio"))
        self._media: dict[int, list[Media]] = defaultdict(list)
        for line in rows(media, Media):
            self._media[line.call].append(line)
        wanted = media["message"].unique()
        self._sip = {m: rest for m, *rest in tables.sip[wanted].select(
            "message", "cseq", "cseq_method", "source", "source_port", "destination", "destination_port").iter_rows()}
        self._ends: dict[str, int] = dict(tables.quality.select("point", "last_ns").iter_rows())
        self._to: dict[tuple[str, str, int], list[RtpStream]] = defaultdict(list)
        for stream in rows(tables.rtp, RtpStream):
            self._to[stream.point, stream.destination, stream.destination_port].append(stream)

    def of(self, call: Call) -> list[Leg]:
        """Legs of an answered call: one for each pair of descriptions and each time they stayed the same."""
        if call.answer_ns is None or call.cut:
            return []
        exchanges: dict[tuple[object, ...], list[Media]] = defaultdict(list)
        for line in self._media[call.call]:
            cseq, method, *_ = self._sip[line.message]
            offerer = line.side if line.role == "offer" else other(line.side)
            exchanges[cseq, "INVITE" if method == "ACK" else method, offerer, line.index].append(line)
        out: list[Leg] = []
        now: dict[int, list[Leg]] = {}
        until = call.end_ns or self._ends[call.point]
        for lines in exchanges.values():
            pairs = self._pairs(lines)
            if not pairs:
                continue
            index, start = lines[0].index, max(call.answer_ns, max(line.ts_ns for line in lines))
            fresh = [Leg(call, a, b, start, until) for a, b in pairs]
            before = now.get(index, [])
            if [_said(leg) for leg in before] == [_said(leg) for leg in fresh]:
                continue
            out += [Leg(leg.call, leg.caller, leg.callee, leg.begin_ns, lines[0].ts_ns) for leg in before]
            now[index] = fresh
        return out + [leg for legs in now.values() for leg in legs]

    def _pairs(self, lines: list[Media]) -> list[tuple[Media, Media]]:
        """Caller and callee description of each leg: offer and answer of one hop, else nested from the outside in."""
        offers: dict[frozenset[Endpoint], Media] = {}
        answers: dict[frozenset[Endpoint], Media] = {}
        for line in lines:
            _, _, src, sport, dst, dport = self._sip[line.message]
            into = offers if line.role == "offer" else answers
            into[frozenset(((src, sport), (dst, dport)))] = line
        pairs = [(offers.pop(hop), answers.pop(hop)) for hop in list(offers) if hop in answers]
        pairs += list(zip(offers.values(), reversed(answers.values()), strict=False))
        return [(o, a) if o.side == "caller" else (a, o) for o, a in pairs]

    def toward(self, leg: Leg) -> dict[str, list[RtpStream]]:
        """Streams that go to each side during the leg: to its SDP address, or to where its own packets come from."""
        found: dict[str, dict[int, RtpStream]] = {"caller": {}, "callee": {}}
        places = {name: {_place(leg.side(name))} for name in SIDES}
        for _ in range(2):
            for name in SIDES:
                for address, port in sorted(places[name]):
                    for s in self._to.get((leg.call.point, address, port), ()):
                        if s.first_ns <= leg.end_ns and s.last_ns >= leg.begin_ns:
                            found[name][s.stream] = s
                            places[other(name)].add((s.source, s.source_port))
        return {name: list(streams.values()) for name, streams in found.items()}

    def count(self, streams: Iterable[RtpStream], start_ns: int, end_ns: int) -> int:
        """Packets of the streams between two times."""
        total = 0
        for s in streams:
            if start_ns <= s.first_ns and s.last_ns <= end_ns:
                total += s.packets
            elif s.first_ns <= end_ns and s.last_ns >= start_ns:
                ts = series(self._tables, s).ts_ns
                total += int(((ts >= start_ns) & (ts <= end_ns)).sum())
        return total

    def last(self, streams: Iterable[RtpStream], end_ns: int) -> int | None:
        """Time of the last packet of the streams that is not after ``end_ns``."""
        times = []
        for s in streams:
            if s.last_ns <= end_ns:
                times.append(s.last_ns)
            elif s.first_ns <= end_ns:
                ts = series(self._tables, s).ts_ns
                times.append(int(ts[np.flatnonzero(ts <= end_ns)].max()))
        return max(times, default=None)


def _said(leg: Leg) -> tuple[object, ...]:
    return tuple((m.address, m.port, m.direction, m.protocol, m.ice) for m in (leg.caller, leg.callee))


def _place(line: Media) -> Endpoint:
    return line.address or "", line.port
