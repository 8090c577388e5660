"""What each call says about the session that it is part of: identifiers, numbers and media, read from its INVITE."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import sip as decode
from netdiag.tables import sip_buffer
from netdiag.tables.sip_details import AT_ONCE, details

if TYPE_CHECKING:
    from netdiag.tables import Tables

DIGITS = 7
"""Trailing digits that make two numbers the same, with and without prefixes (practice: a subscriber number)."""
LEAST_DIGITS = 3
"""Digits from which a user part counts as a number (practice: a short extension)."""
MARKS = 4
"""Marks of one kind that the headers of a message give (practice: real messages have one or two)."""
NIL = "0" * 32
"""The UUID of a party that is not known yet (RFC 7989 §5)."""
SAYS = ("uuid", "icid", "own", "other", "calling", "called", "media", "relay", "given")
"""Kinds of marks. ``own`` is the call's Call-ID as sent and ``other`` one that it names; ``relay`` is an address that
the call's callee gave for media, ``given`` one that its caller gave."""

I64 = npt.NDArray[np.int64]
_LINES = re.compile(
    rb"\n(session-id|p-charging-vector|p-asserted-identity|x-cid|x-call-id|xcallid)[ \t]*:[ \t]*([^\r\n]{1,1024})",
    re.IGNORECASE)
"""``X-CID`` and ``X-Call-ID`` are sngrep's defaults, ``XCallID`` comes with heplify-server: the other leg's Call-ID."""
_UUID = re.compile(r"\s*([0-9a-f]{32})\s*(?:;\s*remote=([0-9a-f]{32}))?", re.IGNORECASE)
_ICID = re.compile(r"icid-value\s*=\s*(?:\"([^\"]+)\"|([^\s;,\"]+))", re.IGNORECASE)
_USER = re.compile(r"(?:sips?|tel):([^@;?>]+)", re.IGNORECASE)
_SEPARATORS = str.maketrans("", "", "+-.() ")


def marks(tables: Tables, calls: pl.DataFrame) -> pl.DataFrame:
    """``call`` (place in ``calls``), ``kind`` (of SAYS) and ``value``, each once; all have an ``invite_message``."""
    message = calls["invite_message"]
    said = details(tables, message, ("uri", "from_uri", "to_uri"))
    numbers = {uri: user(uri) for name in ("uri", "from_uri", "to_uri") for uri in said[name].unique().to_list()}
    row = pl.int_range(len(calls), dtype=pl.UInt32, eager=True)
    parts = [
        pl.DataFrame({"call": row, "kind": [kind] * len(row), "value": said[column].replace_strict(
            numbers, return_dtype=pl.String)})
        for column, kind in (("from_uri", "calling"), ("to_uri", "called"), ("uri", "called"))
    ]
    parts += [_headers(tables, message.to_numpy(), calls["call_id"].to_list()), _media(tables, calls)]
    answer = calls["answer_message"]
    with_uuid = parts[-2].filter(pl.col("kind") == "uuid")["call"].unique().sort()
    with_uuid = with_uuid.filter(answer.gather(with_uuid).is_not_null())
    if len(with_uuid):
        # the answer has the other party's UUID
        found = _headers(tables, answer.gather(with_uuid).to_numpy(), [""] * len(with_uuid)).filter(
            pl.col("kind") == "uuid")
        parts.append(found.with_columns(call=with_uuid.gather(found["call"])))
    wire = calls["call_id"].str.split(";from-tag=").list.first()
    parts.append(pl.DataFrame({"call": row, "kind": ["own"] * len(row), "value": wire}))
    return pl.concat([p.cast({"call": pl.UInt32}) for p in parts]).drop_nulls().unique(maintain_order=True)


def user(uri: str | None) -> str | None:
    """Comparable user part of a URI: the last DIGITS digits of a number, else the name in lower case; None without."""
    match = _USER.match(uri) if uri else None
    if not match or not uri or ("@" not in uri and not uri.lower().startswith("tel:")):
        return None
    name = match[1].partition(":")[0]
    digits = name.translate(_SEPARATORS)
    if digits.isascii() and digits.isdigit():
        return digits.lstrip("0")[-DIGITS:] if len(digits) >= LEAST_DIGITS else None
    return name.lower()


def _headers(tables: Tables, messages: npt.NDArray[np.generic], call_ids: list[str]) -> pl.DataFrame:
    """Marks of the header fields of these messages; ``call`` is the place in ``messages``."""
    places = tables.sip.select("raw_offset", "raw_length", "sdp_offset")[pl.Series(messages, dtype=pl.UInt32)]
    offset = places["raw_offset"].to_numpy()
    length = np.minimum(places["sdp_offset"].fill_null(decode.HEAD_LIMIT).to_numpy(),
                        places["raw_length"].to_numpy().astype(np.int64))
    out: list[tuple[int, str, str]] = []
    many: Counter[tuple[int, str]] = Counter()
    for at in range(0, len(offset), AT_ONCE):
        part = slice(at, at + AT_ONCE)
        data, begin = sip_buffer.gather(tables.packets.space, offset[part], length[part])
        found = list(_LINES.finditer(data.data))
        owner = np.searchsorted(begin, [m.start() for m in found], side="right") - 1
        for m, i in zip(found, owner.tolist(), strict=True):
            for kind, value in _marks(m[1].decode().lower(), m[2].decode("latin-1"), call_ids[at + i]):
                many[at + i, kind] += 1
                if many[at + i, kind] <= MARKS:
                    out.append((at + i, kind, value))
    return pl.DataFrame(out, schema={"call": pl.UInt32, "kind": pl.String, "value": pl.String}, orient="row")


def _marks(name: str, value: str, own: str) -> list[tuple[str, str]]:
    if name == "session-id":
        match = _UUID.match(value)
        return [("uuid", u.lower()) for u in match.groups() if u and u != NIL] if match else []
    if name == "p-charging-vector":
        icid = _ICID.search(value)
        return [("icid", icid[1] or icid[2])] if icid else []
    if name == "p-asserted-identity":
        users = (user(decode.contact_uri(e)) for e in decode.elements(value, 4))
        return [("calling", u) for u in users if u]
    return [("other", decode.readable(value.strip()))] if value.strip() != own else []


def _media(tables: Tables, calls: pl.DataFrame) -> pl.DataFrame:
    """Where each call's caller first wants to receive, and the addresses that either side names for media."""
    lines = tables.media.filter(pl.col("address").is_not_null() & (pl.col("port") > 0)).select(
        "call", "side", "address", "port")
    first = lines.unique(["call", "side"], keep="first", maintain_order=True).join(
        calls.select("call").with_row_index("row"), on="call")
    caller, callee = (first.filter(pl.col("side") == side) for side in ("caller", "callee"))
    parts = [
        caller.select("row", kind=pl.lit("media"), value=pl.format("{} {}", "address", "port")),
        caller.select("row", kind=pl.lit("given"), value="address"),
        callee.select("row", kind=pl.lit("relay"), value="address"),
    ]
    return pl.concat(parts).select(call=pl.col("row").cast(pl.UInt32), kind="kind", value="value")
