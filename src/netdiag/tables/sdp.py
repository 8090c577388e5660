"""Builds the media table: what each side of a call offers and answers (RFC 3264)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import sdp as decode
from netdiag.decode import sdp_columns as columns_of
from netdiag.tables import sip_buffer, text
from netdiag.tables.calls import Media, call_messages
from netdiag.tables.outside import laid
from netdiag.tables.schema import empty, schema
from netdiag.tables.sip_groups import first_of, group_codes, nested, repeats

if TYPE_CHECKING:
    from netdiag.tables import Tables

BODY_LIMIT = 65535
"""Bytes of a body that are read: what UDP could carry (RFC 768)."""
LINES = 4
"""Media lines of a body that are always kept: audio, video, application and one more (practice)."""
SPARE_LINES = 1 << 20
"""Media lines beyond these that are kept, over all bodies: a body of 700 bytes can hold 64 (practice: 1 GB)."""
CHUNK_BYTES = 1 << 22
"""Bytes of bodies that are searched together: near the cache (measured)."""
_CUTS = ("origin", "address", "middle", "tail")
_COLUMNS = ["body", "index", "type", "address", "port", "protocol", "payload_types", "codecs", "direction", "rtcp_port",
            "ptime_ms", "ice", "candidates", "origin_address"]
I64 = npt.NDArray[np.int64]
_EXCHANGE = ["call", "cseq", "cseq_method", "from_tag"]
_WITH_SDP = ("INVITE", "ACK", "UPDATE", "PRACK")
"""Methods whose transactions carry offers and answers (RFC 6337 §2.1)."""


def build(tables: Tables) -> pl.DataFrame:
    """Media lines in the order of their messages; schema of ``Media``.

    Retransmissions give no rows, nor does the same description that comes again in one exchange (a 200
    that repeats the 183's, the next hop of a proxy that changed nothing).
    """
    data, call, count = call_messages(tables)
    if not count:
        return empty(Media)
    request = data["method"].is_not_null().to_numpy()
    described = data["sdp_offset"].is_not_null().to_numpy()
    carries = data["cseq_method"].is_in(_WITH_SDP).to_numpy()
    wanted = carries & described & ~data["retransmission"].to_numpy()
    rows = np.flatnonzero(wanted)
    some = np.flatnonzero(wanted | (carries & request))
    codes, exchanges = group_codes(data.select(_EXCHANGE)[some], _EXCHANGE)
    asked, offered = np.zeros(exchanges, np.bool_), np.zeros(exchanges, np.bool_)
    asked[codes[request[some]]] = True
    offered[codes[(request & described)[some]]] = True
    codes = codes[np.searchsorted(some, rows)]
    bodies = data.select("call", "call_id", "point", "message", "packet", "ts_ns", "source", "method", "cseq",
                         "cseq_method", "from_tag", "raw_offset", "raw_length", "sdp_offset")[rows]
    caller = tables.calls["from_tag"].gather(pl.Series(call[rows].astype(np.uint32)))
    by_caller = request[rows] == bodies["from_tag"].eq_missing(caller).to_numpy()
    # A response answers the offer of its request; where that had none (or was not captured) see RFC 3261 §13.2.1.
    late = _late_offers(data, bodies)
    answer = np.where(request[rows], (bodies["method"] == "ACK").fill_null(False).to_numpy() | late,
                      offered[codes] | ~asked[codes])
    bodies = bodies.with_columns(
        side=pl.when(pl.Series(by_caller)).then(pl.lit("caller")).otherwise(pl.lit("callee")),
        role=pl.when(pl.Series(answer)).then(pl.lit("answer")).otherwise(pl.lit("offer")),
    )
    return _rows(tables, bodies)


def _late_offers(data: pl.DataFrame, bodies: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """Bodies of PRACKs whose INVITE had none: they answer the offer of a reliable response (RFC 3262 §5)."""
    out = np.zeros(len(bodies), np.bool_)
    rows = np.flatnonzero((bodies["cseq_method"] == "PRACK").to_numpy())
    if len(rows):
        without = data.filter((pl.col("method") == "INVITE") & pl.col("sdp_offset").is_null())
        late = set(without.select("call", "from_tag").iter_rows())
        out[rows] = [key in late for key in bodies.select("call", "from_tag")[rows].iter_rows()]
    return out


def _rows(tables: Tables, bodies: pl.DataFrame) -> pl.DataFrame:
    """One row for each media line of each new body."""
    bodies = bodies.with_columns(exchange=pl.when(pl.col("method") == "ACK").then(pl.lit("INVITE"))
                                 .otherwise(pl.col("cseq_method")))
    usual, columns = _usual(tables, bodies)
    parts = [columns] if columns is not None else []
    rest = _others(tables, bodies, np.flatnonzero(~usual))
    if rest is not None:
        parts.append(rest)
    if not parts:
        return empty(Media)
    # bodies stand in the order of their messages
    media = parts[0] if len(parts) == 1 and usual.all() else pl.concat(parts).sort("body", "index", maintain_order=True)
    lead = bodies.select("call", "call_id", "point", "message", "packet", "ts_ns", "side", "role",
                         signalling_source="source")[media["body"]]
    out = lead.hstack(media.drop("body"))
    return laid(out.select(pl.col(name).cast(dtype) for name, dtype in schema(Media).items()), tables.packets.space)


def _usual(tables: Tables, bodies: pl.DataFrame) -> tuple[npt.NDArray[np.bool_], pl.DataFrame | None]:
    """Which bodies have the usual shape, and the media line of those that are new in their exchange."""
    space = tables.packets.space
    offset = (bodies["raw_offset"] + bodies["sdp_offset"]).to_numpy()
    length = np.minimum((bodies["raw_length"].cast(pl.Int64) - bodies["sdp_offset"]).to_numpy(), BODY_LIMIT)
    usual = np.zeros(len(offset), np.bool_)
    port = np.zeros(len(offset), np.int64)
    cuts: dict[str, tuple[I64, I64]] = {n: (offset.copy(), np.zeros(len(offset), np.int64)) for n in _CUTS}
    total = np.cumsum(length)
    at = 0
    while at < len(offset):
        stop = max(int(np.searchsorted(total, total[at] + CHUNK_BYTES)), at + 1)
        part = slice(at, stop)
        data, begin = sip_buffer.gather(space, offset[part], length[part])
        found = columns_of.split(data, begin, begin + length[part])
        usual[part], port[part] = found.usual, found.port
        for name in _CUTS:
            span = getattr(found, name)
            cuts[name][0][part] += span.begin - begin
            cuts[name][1][part] = span.end - span.begin
        at = stop
    rows = np.flatnonzero(usual)
    if not len(rows):
        return usual, None
    texts = {name: text.column(space, start[rows], size[rows]) for name, (start, size) in cuts.items()}
    around = pl.DataFrame({"middle": texts["middle"], "tail": texts["tail"]})
    codes, count = group_codes(around, ["middle", "tail"])
    lead = first_of(codes, count, np.ones(len(rows), np.bool_))
    lines = [columns_of.template(*(space.read(int(cuts[n][0][row]), int(cuts[n][1][row])) for n in ("middle", "tail")))
             if i < decode.MEMO else None for i, row in enumerate(rows[lead].tolist())]
    known = np.array([line is not None for line in lines], np.bool_)[codes]
    usual[rows[~known]] = False
    if not known.any():
        return usual, None
    number = np.cumsum([line is not None for line in lines]) - 1
    made = [line for line in lines if line is not None]
    rows, code = rows[known], number[codes[known]]
    own = pl.Series([not shared for _, shared, _ in made])
    ports = pl.Series(port[rows])
    there = pl.Series(known)
    common = pl.Series([line.address for line, _, _ in made], dtype=pl.String).gather(code)
    address = texts["address"].filter(there).zip_with(~own.gather(code), common)
    shares = pl.Series([columns_of.shares_port(line) for line, _, _ in made])
    media = pl.DataFrame({"body": rows, "code": code.astype(np.uint32), "port": ports.cast(pl.UInt16),
                          "address": address, "origin_address": texts["origin"].filter(there)})
    again = bodies.select("call", "cseq", "exchange", "side", "role")[rows].hstack(media.drop("body"))
    new = pl.Series(~repeats(again))
    odd = pl.Series([word for _, _, word in made]).gather(code)
    for row in (odd != "").arg_true().to_list():
        tables.anomaly_log.add("media", odd[row], bodies["packet"][int(rows[row])])
    media = media.filter(new).with_columns(
        index=pl.lit(0, pl.UInt16),
        rtcp_port=(ports + (~shares).cast(pl.Int64).gather(code)).filter(new).cast(pl.UInt16))
    template = _frame([line for line, _, _ in made])[media["code"]]
    return usual, media.hstack(template.drop("address", "port", "rtcp_port")).select(_COLUMNS)


def _others(tables: Tables, bodies: pl.DataFrame, rows: I64) -> pl.DataFrame | None:
    """The media lines of bodies of other shapes, one by one."""
    space = tables.packets.space
    keys = bodies.select("call", "cseq", "exchange", "side", "role", "raw_offset", "raw_length", "sdp_offset",
                         "packet")
    seen: set[tuple[int, int, str, str, str, bytes]] = set()
    body_row: list[int] = []
    positions: list[int] = []
    origins: list[str | None] = []
    media: list[decode.MediaLine] = []
    call_now = -1
    spare, left_out, first_left_out = SPARE_LINES, 0, 0
    order = rows[np.argsort(keys["call"].to_numpy()[rows], kind="stable")]
    for i, (call, cseq, method, side, role, offset, length, sdp, packet) in zip(
            order.tolist(), keys[order].iter_rows(), strict=True):
        body = space.read(offset + sdp, min(length - sdp, BODY_LIMIT))
        if call != call_now:
            seen.clear()
            call_now = call
        identity = (call, cseq, method, side, role, body)
        if identity in seen:
            continue
        seen.add(identity)
        session = decode.parse(body)
        if session.odd:
            tables.anomaly_log.add("media", session.odd, packet)
        extra = max(len(session.media) - LINES, 0)
        if extra > spare:
            first_left_out = first_left_out if left_out else packet
            left_out += extra
            extra = 0
        spare -= extra
        for position, line in enumerate(session.media[: LINES + extra]):
            body_row.append(i)
            positions.append(position)
            origins.append(session.origin_address)
            media.append(line)
    if left_out:
        tables.anomaly_log.add("media", f"media lines behind the first {LINES} of a body left out: too many in all",
                               first_left_out, left_out)
    if not media:
        return None
    return _frame(media).with_columns(
        body=pl.Series(body_row), index=pl.Series(positions, dtype=pl.UInt16),
        origin_address=pl.Series(origins, dtype=pl.String)).select(_COLUMNS)


def _frame(media: list[decode.MediaLine]) -> pl.DataFrame:
    """What the lines themselves say."""
    columns: dict[str, Any] = dict(zip(decode.MediaLine._fields, zip(*media, strict=True), strict=True))
    columns["ptime_ms"] = columns.pop("ptime")
    types = schema(Media)
    return pl.DataFrame({
        name: nested(values, types[name]) if types[name].is_nested() else pl.Series(values, dtype=types[name])
        for name, values in columns.items()})
