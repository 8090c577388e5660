"""Which call an RTP stream belongs to, and how that is known.

What goes to or comes from an address and port of SDP is bound by it, and so is the opposite direction of such a flow,
wherever its other end was translated to (symmetric RTP, RFC 4961; latching, RFC 7362). What is left over is bound by
RTCP or by what is unique about it (``rtp_leftover``), or not at all: a wrong call is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import rtp_lines
from netdiag.tables.rtp_lines import EARLY_NS, Formats

if TYPE_CHECKING:
    from netdiag.tables import Tables

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

METHODS = ("", "sdp", "ice", "comedia", "rtcp", "heuristic")
"""Values of ``RtpStream.bound_by``; ``Bound.method`` holds their index."""
_SIDES = pl.Series(["caller", "callee", None])
SDP, ICE, COMEDIA, RTCP, HEURISTIC = range(1, 6)


@dataclass(slots=True)
class Seen:
    """Streams as the packets show them, columns of equal length."""

    flow: U32
    forward: Mask
    ssrc: U32
    first_ns: I64
    last_ns: I64
    to: U64
    """Key of the destination (``rtp_lines.endpoint_keys``)."""
    source: U64
    first: U32
    """Row of the first packet."""

    def take(self, index: npt.NDArray[np.generic]) -> Seen:
        return Seen(self.flow[index], self.forward[index], self.ssrc[index], self.first_ns[index], self.last_ns[index],
                    self.to[index], self.source[index], self.first[index])


@dataclass(slots=True)
class Bound:
    """What is known about each of them."""

    media: I64
    """Row of ``Tables.media`` that describes it, -1 where none is known."""
    call: I64
    """Call number, -1 where not bound."""
    caller: Mask
    """Sent by the caller."""
    method: U8
    until: I64
    """End of that call in ns."""

    def take(self, index: npt.NDArray[np.generic]) -> Bound:
        return Bound(self.media[index], self.call[index], self.caller[index], self.method[index], self.until[index])


class Binder:
    """Binds streams of one capture; reads SDP when first asked."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._formats: Formats | None = None
        self.guessed = False
        """Streams were bound by other things than addresses and ports."""

    @cached_property
    def lines(self) -> rtp_lines.Lines:
        return rtp_lines.advertised(self._tables)

    @cached_property
    def line_calls(self) -> I64:
        """Call number of each row of ``Tables.media``."""
        return self._tables.media["call"].cast(pl.Int64).to_numpy()

    @cached_property
    def _shared(self) -> Mask:
        return self.lines.shared(self._tables.media["message"].to_numpy())

    @property
    def formats(self) -> Formats:
        """Codecs of the lines that flows touch, and of the others in their bodies."""
        if self._formats is None:
            media = self._tables.media.select("message", "payload_types", "codecs").with_row_index("media")
            mine = media["message"][self.lines.media].unique()
            self._formats = rtp_lines.formats(media.filter(pl.col("message").is_in(mine.implode())))
        return self._formats

    def settle(self, s: Seen, bound: Bound, payload_type: U8) -> I64:
        """Binds what addresses left over, and returns the position of the m= line of each stream, -1 where unclear.

        ``s`` are streams that are believed to be RTP; ``payload_type`` is the most frequent one of each.
        """
        media = self._tables.media
        if not len(media):
            return np.full(len(s.flow), -1)
        loose = np.flatnonzero(bound.call < 0)
        if len(loose):
            from netdiag.tables import rtp_leftover
            if rtp_leftover.bind(self._tables, s, bound, loose, payload_type):
                self.guessed = True
                self._formats = rtp_lines.formats(media.select("payload_types", "codecs").with_row_index("media"))
        known = bound.media >= 0
        odd = np.flatnonzero(known & (self._shared[bound.media] | ~self.formats.has(bound.media, payload_type)))
        if len(odd):
            from netdiag.tables import rtp_bundles
            known &= ~rtp_bundles.choose(self._tables, self.formats, s, bound, payload_type, odd)
        return np.where(known, media["index"].to_numpy()[bound.media].astype(np.int64), -1)

    def names(self, bound: Bound) -> list[pl.Series]:
        """``call``, ``call_id``, ``sender`` and ``bound_by``; null (``bound_by``: "") where not bound."""
        known = bound.call >= 0
        call = pl.Series("call", bound.call).replace(-1, None)
        ids = self._tables.calls["call_id"].gather(call)
        side = np.where(known, np.where(bound.caller, 0, 1), 2)
        return [call, ids.alias("call_id"), _SIDES.gather(pl.Series(side)).alias("sender"),
                pl.Series(list(METHODS)).gather(pl.Series(bound.method)).alias("bound_by")]

    def bind(self, s: Seen) -> Bound:
        """Binds by addresses and ports: of several lines with one endpoint the latest that began before the stream."""
        n = len(s.flow)
        bound = Bound(np.full(n, -1), np.full(n, -1), np.zeros(n, np.bool_), np.zeros(n, np.uint8),
                      np.full(n, rtp_lines.NEVER))
        if not len(self.lines.key):
            return bound
        to = self.lines.latest(s.to, s.first_ns)
        self._set(bound, np.arange(n), to, False)
        rest = np.flatnonzero(to < 0)
        if not len(rest):
            return bound
        source = self.lines.latest(s.source[rest], s.first_ns[rest])
        self._set(bound, rest, source, True)
        opened = np.flatnonzero(bound.call >= 0)
        facing = _facing(s, rest, opened)
        # From the SDP address to where packets for that address come from: the sender has learned the real place.
        learned = rest[(bound.call[rest] >= 0) & facing]
        bound.method[learned] = COMEDIA
        alone = rest[(bound.call[rest] < 0) & facing]
        if len(alone):
            self._reverse(s, bound, alone, opened)
        return bound

    def _set(self, bound: Bound, streams: I64, found: I64, from_it: bool) -> None:
        """Binds ``streams`` to lines ``found`` (-1: none), as sent from there or to there."""
        streams, found = streams[found >= 0], found[found >= 0]
        media = self.lines.media[found]
        bound.media[streams], bound.call[streams] = media, self.line_calls[media]
        bound.caller[streams], bound.until[streams] = self.lines.caller[found] == from_it, self.lines.end[found]
        bound.method[streams] = np.where(self.lines.ice[found], ICE, SDP)

    def _reverse(self, s: Seen, bound: Bound, alone: I64, opened: I64) -> None:
        """Streams against the direction of bound ones, bound like the one nearest in time that they meet."""
        partners = pl.DataFrame({
            "flow": s.flow[opened], "forward": ~s.forward[opened], "first": s.first_ns[opened], "partner": opened,
            "met": s.first_ns[opened], "left": s.last_ns[opened], "until": bound.until[opened]})
        partners = partners.sort("first", "partner")
        mine = pl.DataFrame({"flow": s.flow[alone], "forward": s.forward[alone], "first": s.first_ns[alone],
                             "last": s.last_ns[alone], "stream": alone}).sort("first", "stream")
        joined = mine.join_asof(partners, on="first", by=["flow", "forward"], strategy="nearest",
                                check_sortedness=False)
        joined = joined.filter(pl.col("first") <= pl.col("left") + EARLY_NS, pl.col("last") >= pl.col("met") - EARLY_NS,
                               pl.col("first") <= pl.col("until"))
        stream, partner = joined["stream"].to_numpy(), joined["partner"].to_numpy()
        bound.media[stream], bound.call[stream] = bound.media[partner], bound.call[partner]
        bound.caller[stream], bound.until[stream] = ~bound.caller[partner], bound.until[partner]
        bound.method[stream] = COMEDIA


def _facing(s: Seen, some: I64, others: I64) -> Mask:
    """Which of ``some`` streams have one of ``others`` in the opposite direction of their flow."""
    keys = np.unique(s.flow[others].astype(np.int64) << 1 | s.forward[others])
    wanted = s.flow[some].astype(np.int64) << 1 | ~s.forward[some]
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    return keys[at] == wanted if len(keys) else np.zeros(len(some), np.bool_)
