"""Header fields of single SIP messages, read when somebody asks: most messages are never asked about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import sip as decode
from netdiag.decode.sip_headers import DETAILS, Wanted, find_headers
from netdiag.tables import sip_buffer
from netdiag.tables.schema import U32, rows, schema

if TYPE_CHECKING:
    from netdiag.tables import Tables

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SipDetails:
    """What a message says beside its identity; text with bad bytes replaced."""

    message: U32
    """Row number of ``Tables.sip``."""
    uri: str | None
    """Request-URI; None for a response."""
    reason: str | None
    """Reason phrase; None for a request."""
    from_uri: str | None
    """addr-spec of From, without display name and parameters."""
    to_uri: str | None
    via: str | None
    """Topmost Via value."""
    contact: str | None
    """First Contact value (header value, raw)."""
    expires: U32 | None
    """Expires header, or the expires parameter of the first Contact, which wins (RFC 3261 §10.2.1.1)."""
    user_agent: str | None
    """User-Agent or Server."""
    reason_header: str | None
    """Reason (RFC 3326)."""
    session_expires: str | None


AT_ONCE = 1 << 13
"""Messages whose header lines are found together."""
_WANTED = Wanted(DETAILS)
_Parse = Callable[[str], Any]
_READ: dict[str, tuple[str, _Parse]] = {
    "from_uri": ("from", lambda value: decode.address(value)[0]),
    "to_uri": ("to", lambda value: decode.address(value)[0]),
    "via": ("via", lambda value: decode.via(value)[0]),
    "contact": ("contact", lambda value: decode.contact(value)[0]),
    "user_agent": ("user_agent", decode.readable),
    "reason_header": ("reason", decode.readable),
    "session_expires": ("session_expires", decode.readable),
}
"""Column to the header field that it is read from, and how."""
_START_LINE = ("uri", "reason")


def details(tables: Tables, messages: Sequence[int] | pl.Series, columns: Sequence[str] = ()) -> pl.DataFrame:
    """Details of ``messages`` (rows of ``Tables.sip``), in their order: "message" and these columns of ``SipDetails``.

    Without ``columns`` all of them are read.
    """
    chosen = pl.Series(messages, dtype=pl.UInt32)
    wanted = list(columns) or [name for name in schema(SipDetails) if name != "message"]
    places = tables.sip.select("raw_offset", "raw_length", "sdp_offset")[chosen]
    offset = places["raw_offset"].to_numpy()
    # A body may be long, and is not looked at.
    length = np.minimum(places["sdp_offset"].fill_null(decode.HEAD_LIMIT).to_numpy(),
                        places["raw_length"].to_numpy().astype(np.int64))
    found: dict[str, list[Any]] = {name: [] for name in wanted}
    for begin in range(0, len(offset), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        _read(tables, offset[part], length[part], found)
    types = schema(SipDetails)
    return pl.DataFrame({"message": chosen, **{n: pl.Series(n, v, dtype=types[n]) for n, v in found.items()}})


def detail(tables: Tables, message: int) -> SipDetails:
    """Details of one message."""
    return next(rows(details(tables, [message]), SipDetails))


def added(tables: Tables, data: pl.DataFrame, columns: Sequence[str], message: str = "message") -> pl.DataFrame:
    """``data`` with these columns of ``SipDetails``, about the messages in its column ``message``; null without one."""
    asked = data[message].drop_nulls().unique()
    found = details(tables, asked, columns).rename({"message": message})
    return data.join(found, on=message, how="left", maintain_order="left")


def _read(tables: Tables, offset: I64, length: I64, found: dict[str, list[Any]]) -> None:
    data, begin = sip_buffer.gather(tables.packets.space, offset, length)
    table = find_headers(data, begin, begin + length, _WANTED)
    raw = data.tobytes()
    spans = {name: (table.begin[i].tolist(), table.end[i].tolist()) for i, name in enumerate(DETAILS)}

    def values(field: str) -> list[str | None]:
        return [raw[a:b].decode("latin-1") if b >= 0 else None for a, b in zip(*spans[field], strict=True)]

    if any(name in found for name in _START_LINE):
        ends = np.minimum(table.first_line_end, begin + length).tolist()
        lines = [decode.start_line(raw[a:b].decode("latin-1")) for a, b in zip(begin.tolist(), ends, strict=True)]
        for name in _START_LINE:
            if name in found:
                found[name] += [getattr(line, name) if line else None for line in lines]
    for name in found.keys() - set(_START_LINE):
        if name == "expires":
            own = [decode.contact(v)[1] if v is not None else None for v in values("contact")]
            found[name] += [a if a is not None else decode.number(b)
                            for a, b in zip(own, values("expires"), strict=True)]
            continue
        field, parse = _READ[name]
        texts = values(field)
        if name == "user_agent":
            texts = [a if a is not None else b for a, b in zip(texts, values("server"), strict=True)]
        found[name] += [parse(v) if v is not None else None for v in texts]
