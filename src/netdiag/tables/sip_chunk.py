"""Decodes some thousand SIP messages together into what identifies each; the rest is read for those asked about."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import sip as decode
from netdiag.decode.sip_columns import METHODS, Span, branches, cseqs, numbers, start_lines, tags
from netdiag.decode.sip_headers import CORE, Wanted, find_headers
from netdiag.tables import sip_buffer, text
from netdiag.tables.sip_sources import Pieces, log

if TYPE_CHECKING:
    from netdiag.tables import Tables

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

REQUIRED = {"call_id": "Call-ID", "cseq": "CSeq", "from": "From", "to": "To", "via": "Via"}
"""Headers that any message carries (RFC 3261 §8.1.1, §8.2.6.2) and that the tables are keyed by."""
SINGLE = {"call_id": "Call-ID", "cseq": "CSeq", "from": "From", "to": "To", "content_length": "Content-Length",
          "content_type": "Content-Type"}
"""Headers that stand in a message once at most (RFC 3261 §7.3.1, table 2)."""
TEXTS = ("call_id", "from_tag", "to_tag", "branch")
"""Columns that are text from the wire."""

_CARRIER = {"udp": "datagram", "ws": "WebSocket message", "wss": "WebSocket message"}
_WANTED = Wanted(CORE)
_SDP_PART = re.compile(
    rb"\ncontent-type[ \t]*:[ \t]*application/sdp[^\n]*\n(?:[^\r\n]+\r?\n){0,16}\r?\n", re.IGNORECASE)
_SDP_TYPE = b"application/sdp"
_SDP_WORDS = np.frombuffer(_SDP_TYPE.ljust(16, b"\0"), "<u8")
_SDP_FOLD = np.frombuffer(bytes(0x20 if chr(c).isalpha() else 0 for c in _SDP_TYPE).ljust(16, b"\0"), "<u8")


@dataclass(slots=True)
class Chunk:
    """Columns of ``SipMessage`` that come from the bytes, for those pieces that are messages."""

    columns: dict[str, npt.NDArray[Any]]
    texts: dict[str, tuple[I64, I64, dict[int, str | None]]]
    """For each of TEXTS: where it starts in the space, its length (-1: none), and other texts for odd rows."""
    other_methods: dict[int, str | None]
    """Methods that are not in METHODS, by row."""
    other_cseq_methods: dict[int, str | None]


def decode_chunk(tables: Tables, pieces: Pieces, part: slice) -> Chunk:
    """Start line, identity and body of the messages among ``pieces[part]``."""
    offset, length = pieces.offset[part], pieces.length[part]
    data, begin = sip_buffer.gather(tables.packets.space, offset, length)
    table = find_headers(data, begin, begin + length, _WANTED)
    line_end = np.minimum(table.first_line_end, begin + length)
    lines = start_lines(data, begin, line_end)

    # a first pass over odd start lines says which pieces are messages at all
    valid = ~lines.odd
    parsed: dict[int, decode.StartLine] = {}
    for i in np.flatnonzero(lines.odd).tolist():
        line = decode.start_line(data[begin[i] : line_end[i]].tobytes().decode("latin-1"))
        if line is not None and (line.method is None or decode.TOKEN.match(line.method)):
            valid[i] = True
            parsed[i] = line
    log(tables, "starts like SIP, but its first line is not valid", pieces.packet[part][pieces.sure[part] & ~valid])
    high = np.maximum.reduceat(data, begin) >= 128 if len(begin) else np.zeros(0, np.bool_)
    # each piece has one line feed behind it, and then nothing but zeros
    nul = np.count_nonzero(data) < int(length.sum()) + len(length)
    good = np.flatnonzero(valid)
    place = np.full(len(begin), -1, np.int64)
    place[good] = np.arange(len(good))
    offset, begin, length, head_end = offset[good], begin[good], length[good], table.head_end[good]
    unlike = np.flatnonzero((table.changed | high)[good])
    """Messages of which a value may differ from its bytes in the capture, or is no UTF-8."""
    packet, partial = pieces.packet[part][good], pieces.partial[part][good]
    value = {name: Span(table.begin[i, good], table.end[i, good]) for i, name in enumerate(CORE)}

    def odd(rows: Mask, span: Span, parse: Callable[[str], Any]) -> dict[int, Any]:
        return {i: parse(data[span.begin[i] : span.end[i]].tobytes().decode("latin-1"))
                for i in np.flatnonzero(rows).tolist()}

    def spans(span: Span, others: dict[int, str | None]) -> tuple[I64, I64, dict[int, str | None]]:
        there = span.end >= 0
        changed = {i: data[span.begin[i] : span.end[i]].tobytes().decode("utf-8", "replace")
                   for i in unlike[there[unlike]].tolist()}
        return offset + span.begin - begin, np.where(there, span.end - span.begin, -1), changed | others

    method, status = lines.method[good], lines.status[good]
    for i, line in parsed.items():
        status[place[i]] = -1 if line.status is None else line.status
        method[place[i]] = -1
    other_methods = {int(place[i]): line.method for i, line in parsed.items()}
    number, cseq_method, rows = cseqs(data, value["cseq"])
    odd_cseq = odd(rows, value["cseq"], decode.cseq)
    for i, (n, _) in odd_cseq.items():
        number[i] = -1 if n is None else n
    texts = {"call_id": spans(value["call_id"], {})}
    for name in ("from", "to"):
        tag, rows = tags(data, value[name])
        texts[name + "_tag"] = spans(tag, {i: v[1] for i, v in odd(rows, value[name], decode.address).items()})
    branch, rows = branches(data, value["via"])
    texts["branch"] = spans(branch, {i: v[1] for i, v in odd(rows, value["via"], decode.via).items()})

    body, after = numbers(data, value["content_length"])
    for i, v in odd((value["content_length"].end >= 0) & (after != value["content_length"].end),
                    value["content_length"], decode.number).items():
        body[i] = -1 if v is None else v
    has_head, limit = head_end >= 0, begin + length
    inside = has_head & (body >= 0) & (head_end + body <= limit)
    stop = np.where(inside, head_end + body, limit)
    cut = partial & ~inside
    for name, title in REQUIRED.items():
        log(tables, f"message without {title}", packet[(value[name].end < 0) & ~cut])
    log(tables, "header without an end", packet[~has_head & ~cut])
    if pieces.transport in _CARRIER:  # elsewhere the length says where the message ends
        log(tables, f"Content-Length is larger than the {_CARRIER[pieces.transport]}",
            packet[has_head & ~partial & ~inside & (body >= 0)])
        log(tables, "Content-Length is no number", packet[(value["content_length"].end >= 0) & (body < 0) & ~cut])
        behind = [i for i in np.flatnonzero(inside & (stop < limit)).tolist()
                  if data[stop[i] : limit[i]].tobytes().strip(b"\r\n\0")]
        log(tables, f"bytes behind the body in a {_CARRIER[pieces.transport]}: not looked at", packet[behind])
    if table.repeated is not None:
        for i, name in enumerate(CORE):
            if name in SINGLE:
                log(tables, f"several {SINGLE[name]} headers: the first counts", packet[table.repeated[i, good]])
    log(tables, "CSeq is no number of 32 bits", packet[(value["cseq"].end >= 0) & (number < 0) & ~cut])
    if nul or high.any():
        _log_odd_bytes(tables, data, begin, np.where(has_head, head_end, limit), packet, high[good] | nul)
    sdp = _sdp(data, value["content_type"], head_end, begin, stop)
    return Chunk({
        "packet": packet.astype(np.uint32), "ts_ns": pieces.ts[part][good], "status": status.astype(np.int16),
        "method": method.astype(np.int8), "cseq": number, "cseq_method": cseq_method.astype(np.int8),
        "sdp_offset": sdp.astype(np.int32), "size": pieces.wire[part][good].astype(np.uint32), "cut": cut,
        "has_reason": value["reason"].end >= 0, "raw_offset": offset,
        "raw_length": (stop - begin).astype(np.uint32),
    }, texts, other_methods, {i: v[1] for i, v in odd_cseq.items()})


def _log_odd_bytes(tables: Tables, data: U8, begin: I64, stop: I64, packet: I64, some: Mask) -> None:
    """Notes headers that are no UTF-8 (RFC 3261 §7) or hold a NUL, which may only be quoted (§25.1, quoted-pair)."""
    heads = {i: data[begin[i] : stop[i]].tobytes() for i in np.flatnonzero(some).tolist()}
    log(tables, "header with a NUL", packet[[i for i, head in heads.items() if b"\0" in head.replace(b"\\\0", b"")]])
    log(tables, "header that is not UTF-8", packet[[i for i, head in heads.items() if not _is_utf8(head)]])


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError:
        return False
    return True


def finish(tables: Tables, chunks: list[Chunk]) -> pl.DataFrame:
    """One frame of all chunks: codes become names, numbers below 0 null."""
    columns: dict[str, pl.Series] = {}
    first = np.cumsum([0, *(len(c.columns["packet"]) for c in chunks)]).tolist()
    for name in list(chunks[0].columns):
        values = np.concatenate([c.columns.pop(name) for c in chunks])
        if name in ("method", "cseq_method"):
            others = "other_methods" if name == "method" else "other_cseq_methods"
            columns[name] = _named(values, {base + i: v for base, c in zip(first, chunks, strict=False)
                                            for i, v in getattr(c, others).items()})
        else:
            columns[name] = pl.Series(name, values)
    for name in TEXTS:
        parts = [c.texts.pop(name) for c in chunks]
        replaced = {base + i: v for base, part in zip(first, parts, strict=False) for i, v in part[2].items()}
        columns[name] = text.column(tables.packets.space, np.concatenate([p[0] for p in parts]),
                                    np.concatenate([p[1] for p in parts]), replaced)
    data = pl.DataFrame(columns).with_columns(
        pl.when(pl.col(name) >= 0).then(pl.col(name)) for name in ("status", "cseq", "sdp_offset"))
    log(tables, "CSeq method is not the request's",
        data.filter(pl.col("method") != pl.col("cseq_method"))["packet"].to_numpy())
    return data


def _named(codes: npt.NDArray[np.int8], others: dict[int, str | None]) -> pl.Series:
    """Method names for codes; null for -1, unless ``others`` has a name for the row."""
    names = [*METHODS, *dict.fromkeys(v for v in others.values() if v is not None)]
    index = codes.astype(np.int64)
    if others:
        number = {name: i for i, name in enumerate(names)}
        for row, name in others.items():
            index[row] = -1 if name is None else number[name]
    series = pl.Series(index)
    return pl.Series(names, dtype=pl.String).gather(series.set(series < 0, None).cast(pl.UInt32))


def _sdp(data: U8, content_type: Span, head_end: I64, begin: I64, stop: I64) -> I64:
    """Offset of the SDP body in its message by Content-Type, else by its first line (RFC 8866 §5.1); -1: none."""
    out = np.full(len(begin), -1, np.int64)
    rows = np.flatnonzero((head_end >= 0) & (head_end < stop))
    words = np.ndarray((len(data) - 7,), "<u8", data, 0, (1,))
    size = content_type.end[rows] - content_type.begin[rows]
    at = content_type.begin[rows]
    named = (content_type.end[rows] >= 0) & (size >= len(_SDP_TYPE)) & ((words[at] | _SDP_FOLD[0]) == _SDP_WORDS[0])
    named &= ((words[at + 8] & np.uint64((1 << 56) - 1)) | _SDP_FOLD[1]) == _SDP_WORDS[1]
    out[rows[named]] = (head_end - begin)[rows[named]]
    untyped = rows[content_type.end[rows] <= content_type.begin[rows]]
    here = head_end[untyped]
    found = untyped[(data[here] == ord("v")) & (data[here + 1] == ord("=")) & (data[here + 2] == ord("0"))
                    & (here + 3 <= stop[untyped])]
    out[found] = (head_end - begin)[found]
    other = rows[~named & (size > 0)]
    many = _windows10(data, content_type.begin[other]) == b"multipart/"
    for i in other[many].tolist():
        body = data[head_end[i] : stop[i]].tobytes()
        match = _SDP_PART.search(body)
        if match:
            out[i] = int(head_end[i]) + match.end() - int(begin[i])
    return out


def _windows10(data: U8, at: I64) -> npt.NDArray[np.bytes_]:
    lower = np.ndarray((len(data) - 9,), "V10", data, 0, (1,))[at].view(np.uint8).reshape(-1, 10) | np.uint8(0x20)
    return np.ascontiguousarray(lower).view("S10")[:, 0]
