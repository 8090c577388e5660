"""Decodes some thousand SIP messages together into columns of the SIP table."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import sip as decode
from netdiag.decode.sip_columns import ABSENT, Marks, Span, addresses, contacts, numbers, start_lines, vias
from netdiag.decode.sip_headers import FIELDS, PAD, find_headers
from netdiag.tables.sip_sources import Pieces, log

if TYPE_CHECKING:
    from netdiag.tables import Tables

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

REQUIRED = {"call_id": "Call-ID", "cseq": "CSeq", "from": "From", "to": "To", "via": "Via"}
"""Headers that any message carries (RFC 3261 §8.1.1, §8.2.6.2) and that the tables are keyed by."""

_SDP_PART = re.compile(
    rb"\ncontent-type[ \t]*:[ \t]*application/sdp[^\n]*\n(?:[^\r\n]+\r?\n){0,16}\r?\n", re.IGNORECASE)


def valid_text(blob: bytes) -> bytes:
    """UTF-8 of the same length: each byte that is not UTF-8 becomes "?", so that positions stay."""
    if blob.isascii():
        return blob
    return blob.decode("utf-8", "surrogateescape").encode("utf-8", "replace")


class _Slices:
    """Text columns cut out of one buffer, with replacements for odd rows."""

    def __init__(self, raw: bytes, count: int) -> None:
        self.raw = raw
        self.text = valid_text(raw)
        self.bad = np.empty(0, np.int64)
        """Positions of bytes that are not UTF-8."""
        if self.text is not raw:
            self.bad = np.flatnonzero(np.frombuffer(raw, np.uint8) != np.frombuffer(self.text, np.uint8))
        self.count = count
        self.columns: dict[str, I64] = {}
        self.replaced: dict[str, dict[int, Any]] = {}

    def add(self, name: str, span: Span, replaced: dict[int, Any] | None = None) -> None:
        if len(self.bad):
            near = np.append(self.bad, len(self.raw))[np.searchsorted(self.bad, span.begin)]
            broken = {i: self.raw[span.begin[i] : span.end[i]].decode("utf-8", "replace")
                      for i in np.flatnonzero(near < span.end).tolist()}
            replaced = broken | (replaced or {})
        if (len(span.end) and int(span.end.max()) >= 0) or replaced:
            self.columns[name + "@"] = span.begin
            self.columns[name] = np.where(span.end >= 0, span.end - span.begin, -1)
            self.replaced[name] = replaced or {}
        else:
            self.columns[name] = np.empty(0, np.int64)

    def frame(self) -> pl.DataFrame:
        whole = pl.lit(pl.Series([self.text], dtype=pl.Binary))
        names = [n for n in self.columns if not n.endswith("@")]
        some = {n: v for n, v in self.columns.items() if len(v)} or {"none": np.zeros(self.count, np.int64)}
        # a null length would mean "to the end of the buffer" for every row, hence the 0
        cut = pl.DataFrame(some).select(
            pl.when(pl.col(n) >= 0).then(whole.bin.slice(pl.col(n + "@"), pl.col(n).clip(0)).cast(pl.String)).alias(n)
            if len(self.columns[n]) else pl.repeat(None, self.count, dtype=pl.String).alias(n)
            for n in names
        )
        for name, values in self.replaced.items():
            if values:
                rows = pl.Series(list(values), dtype=pl.UInt32)
                column = cut[name].scatter(rows, pl.Series(list(values.values()), dtype=pl.String))
                cut = cut.with_columns(column.alias(name))
        return cut


def decode_chunk(tables: Tables, pieces: Pieces, part: slice) -> pl.DataFrame:
    """Columns of SipMessage that come from the bytes, for those pieces that are messages."""
    length = pieces.length[part]
    whole = tables.packets.space.view(0, len(tables.packets.space.array))
    spans = zip(pieces.offset[part].tolist(), (pieces.offset[part] + length).tolist(), strict=True)
    blob = b"\n".join([*(whole[a:b] for a, b in spans), b""])
    data = np.zeros(len(blob) + PAD, np.uint8)
    data[: len(blob)] = np.frombuffer(blob, np.uint8)
    begin = np.cumsum(length) - length + np.arange(len(length))
    table = find_headers(data, begin, begin + length)
    marks = Marks(data)
    lines = start_lines(marks, begin, table.first_line_end)

    # a first pass over odd start lines says which pieces are messages at all
    valid = ~lines.odd
    parsed: dict[int, decode.StartLine] = {}
    for i in np.flatnonzero(lines.odd).tolist():
        line = decode.start_line(blob[begin[i] : table.first_line_end[i]].decode("latin-1"))
        if line is not None:
            valid[i] = True
            parsed[i] = line
    log(tables, "starts like SIP, but its first line is not valid", pieces.packet[part][pieces.sure[part] & ~valid])
    good = np.flatnonzero(valid)
    where = {int(g): k for k, g in enumerate(good)} if parsed else {}
    odd_lines = {where[i]: line for i, line in parsed.items()}
    pick = _picker(good)
    begin, length, head_end = begin[good], length[good], table.head_end[good]
    packet, partial = pieces.packet[part][good], pieces.partial[part][good]
    value = {name: Span(table.begin[i, good], table.end[i, good]) for i, name in enumerate(FIELDS)}
    raw = data[: len(blob)].tobytes()
    slices = _Slices(raw, len(good))

    def odd(rows: Mask, span: Span, parse: Callable[[str], Any]) -> dict[int, Any]:
        return {i: parse(raw[span.begin[i] : span.end[i]].decode("latin-1"))
                for i in np.flatnonzero(rows).tolist()}

    status = lines.status[good].copy()
    for i, line in odd_lines.items():
        status[i] = -1 if line.status is None else line.status
    slices.add("method", pick(lines.method), {i: line.method for i, line in odd_lines.items()})
    slices.add("uri", pick(lines.uri), {i: line.uri for i, line in odd_lines.items()})
    slices.add("reason", pick(lines.reason), {i: line.reason for i, line in odd_lines.items()})
    slices.add("call_id", value["call_id"])
    number, method, rows = _cseq(data, marks, value["cseq"])
    odd_cseq = odd(rows, value["cseq"], decode.cseq)
    for i, (n, _) in odd_cseq.items():
        number[i] = -1 if n is None else n
    slices.add("cseq_method", method, {i: v[1] for i, v in odd_cseq.items()})
    for name in ("from", "to"):
        uri, tag, rows = addresses(marks, value[name])
        others = odd(rows, value[name], decode.address)
        slices.add(name + "_uri", uri, {i: v[0] for i, v in others.items()})
        slices.add(name + "_tag", tag, {i: v[1] for i, v in others.items()})
    top, branch, rows = vias(marks, value["via"])
    others = odd(rows, value["via"], decode.via)
    slices.add("via", top, {i: v[0] for i, v in others.items()})
    slices.add("branch", branch, {i: v[1] for i, v in others.items()})
    contact, lifetime, rows = contacts(marks, value["contact"])
    others = odd(rows, value["contact"], decode.contact)
    slices.add("contact", contact, {i: v[0] for i, v in others.items()})
    expires = numbers(data, lifetime)[0]
    for i, (_, seconds) in others.items():
        expires[i] = -1 if seconds is None else seconds
    expires = np.where(expires >= 0, expires, _number(data, value["expires"], odd))
    agent, server = value["user_agent"], value["server"]
    named = agent.end >= 0
    slices.add("user_agent", Span(np.where(named, agent.begin, server.begin), np.where(named, agent.end, server.end)))
    slices.add("reason_header", value["reason"])
    slices.add("session_expires", value["session_expires"])

    body = _number(data, value["content_length"], odd)
    has_head, limit = head_end >= 0, begin + length
    inside = has_head & (body >= 0) & (head_end + body <= limit)
    stop = np.where(inside, head_end + body, limit)
    cut = partial & ~inside
    for name, title in REQUIRED.items():
        log(tables, f"message without {title}", packet[(value[name].end < 0) & ~cut])
    log(tables, "header without an end", packet[~has_head & ~cut])
    if pieces.transport == "udp":
        log(tables, "Content-Length is larger than the datagram", packet[has_head & ~partial & ~inside & (body >= 0)])
    log(tables, "CSeq is no number of 32 bits", packet[(value["cseq"].end >= 0) & (number < 0) & ~cut])
    sdp = _sdp(blob, value["content_type"], head_end, begin, stop)
    return pl.DataFrame({
        "packet": packet.astype(np.uint32), "ts_ns": pieces.ts[part][good], "status": status, "cseq": number,
        "expires": expires, "sdp_offset": sdp, "size": pieces.wire[part][good].astype(np.uint32), "cut": cut,
        "raw_offset": pieces.offset[part][good], "raw_length": (stop - begin).astype(np.uint32),
    }).hstack(slices.frame())


def _picker(rows: I64) -> Callable[[Span], Span]:
    return lambda span: Span(span.begin[rows], span.end[rows])


def finish(tables: Tables, data: pl.DataFrame) -> pl.DataFrame:
    """What is done once for all chunks: numbers below 0 become null, rows whose method is no token go."""
    signed = ("status", "cseq", "expires", "sdp_offset")
    data = data.with_columns(pl.when(pl.col(name) >= 0).then(pl.col(name)) for name in signed)
    data = _only_tokens(tables, data)
    log(tables, "CSeq method is not the request's",
        data.filter(pl.col("method") != pl.col("cseq_method"))["packet"].to_numpy())
    return data


def _only_tokens(tables: Tables, data: pl.DataFrame) -> pl.DataFrame:
    """Drops rows whose method is no token (RFC 3261 §25.1)."""
    methods = data["method"].unique().drop_nulls()
    bad = [m for m in methods.to_list() if not decode.TOKEN.match(m)]
    if not bad:
        return data
    wrong = data["method"].is_in(bad).fill_null(False)
    log(tables, "starts like SIP, but its first line is not valid", data.filter(wrong)["packet"].to_numpy())
    return data.filter(~wrong)


def _cseq(data: npt.NDArray[np.uint8], marks: Marks, value: Span) -> tuple[I64, Span, Mask]:
    """Number, method, and rows of another shape than "number SP method"."""
    number, at = numbers(data, value)
    there = value.end >= 0
    usual = there & (number >= 0) & (data[np.minimum(at, len(data) - 1)] == 32) & (at + 1 < value.end)
    usual &= ~marks.any(marks.space, at + 1, value.end)
    return np.where(usual, number, -1), Span(at + 1, np.where(usual, value.end, ABSENT)), there & ~usual


def _number(data: npt.NDArray[np.uint8], value: Span,
            odd: Callable[[Mask, Span, Callable[[str], Any]], dict[int, Any]]) -> I64:
    """Numeric header values, -1 where there is none."""
    number, at = numbers(data, value)
    rest = (value.end >= 0) & (at != value.end)
    for i, v in odd(rest, value, decode.number).items():
        number[i] = -1 if v is None else v
    return number


def _sdp(blob: bytes, content_type: Span, head_end: I64, begin: I64, stop: I64) -> I64:
    """Offset of the SDP body in its message by Content-Type, else by its first line (RFC 8866 §5.1); -1: none."""
    out = np.full(len(begin), -1, np.int64)
    rows = np.flatnonzero((head_end >= 0) & (head_end < stop))
    types = zip(rows.tolist(), content_type.begin[rows].tolist(), content_type.end[rows].tolist(),
                head_end[rows].tolist(), strict=True)
    for i, a, b, at in types:
        kind = blob[a:b].lower() if b >= 0 else b""
        if not kind:
            found = blob.startswith(b"v=0", at)
        elif kind.startswith(b"multipart/"):
            match = _SDP_PART.search(blob, at, int(stop[i]))
            found = match is not None
            at = match.end() if match else at
        else:
            found = kind.startswith(b"application/sdp")
        if found:
            out[i] = at - int(begin[i])
    return out
