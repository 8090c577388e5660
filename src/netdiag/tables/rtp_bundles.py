"""Media that share one port (BUNDLE, RFC 9143 §9.2): which m= line of the description a stream belongs to.

Told apart by payload type; where several lines have it, by the SSRC that the sender's description announces (RFC 5576
§4.1), then by the MID in a header extension (RFC 9143 §15), else not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import rtp as header
from netdiag.decode import sdp_sources
from netdiag.tables.rtp_binding import Bound, Seen
from netdiag.tables.rtp_lines import EARLY_NS, Formats

if TYPE_CHECKING:
    from netdiag.tables import Tables

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

LOOKED_AT = 10_000
"""Streams of a block whose line is looked for among several (practice); the others keep the one of their port."""
COMPARED = 500
"""Of those, streams whose payload type several lines have (practice: a second)."""
BODY_LIMIT = 65535
"""Bytes of a body that are read: what UDP could carry (RFC 768)."""
HEAD = 256
"""Bytes of a packet in which its header extension is looked for (practice: WebRTC uses some 40)."""


def choose(tables: Tables, formats: Formats, s: Seen, bound: Bound, payload_type: U8, wanted: I64) -> Mask:
    """Corrects ``bound.media`` of the ``wanted`` streams by what else their description has; says where it stays open.
    """
    open_ = np.zeros(len(bound.media), np.bool_)
    wanted = wanted[:LOOKED_AT]
    message = tables.media["message"].to_numpy()
    mates = _mates(tables, message[bound.media[wanted]])
    left = COMPARED
    for stream in wanted.tolist():
        group = mates.get(int(message[bound.media[stream]]), [])
        if len(group) < 2:
            continue
        places = np.array(group)
        fit = [int(row) for row in places[formats.has(places, np.full(len(places), payload_type[stream]))]]
        if len(fit) > 1 and left:
            left -= 1
            fit = _told_apart(tables, s, bound, stream, fit) or fit
        if fit:
            bound.media[stream] = fit[0]
        open_[stream] = len(fit) != 1
    return open_


def _mates(tables: Tables, messages: npt.NDArray[np.uint32]) -> dict[int, list[int]]:
    """Message to its lines, where they are in one bundle: by the same port, or by a=group:BUNDLE."""
    rows = tables.media.select("message", "address", "port").with_row_index("media").filter(
        pl.col("message").is_in(pl.Series(np.unique(messages)).implode()), pl.len().over("message") > 1)
    out: dict[int, list[int]] = {}
    for (message,), group in rows.group_by("message", maintain_order=True):
        one_port = group.select(pl.struct("address", "port").n_unique()).item() == 1
        if one_port or sdp_sources.bundled(_body(tables, int(str(message)))):
            out[int(str(message))] = group["media"].to_list()
    return out


def _body(tables: Tables, message: int) -> bytes:
    offset, length, sdp = tables.sip.select("raw_offset", "raw_length", "sdp_offset").row(message)
    return b"" if sdp is None else tables.packets.space.read(offset + sdp, min(length - sdp, BODY_LIMIT))


def _told_apart(tables: Tables, s: Seen, bound: Bound, stream: int, fit: list[int]) -> list[int]:
    """Those of the lines ``fit`` that the sender's description gives this SSRC, or whose MID the first packet has."""
    media = tables.media
    index = dict(zip(fit, media["index"].gather(fit).to_list(), strict=True))
    side = "caller" if bound.caller[stream] else "callee"
    own = media.filter(pl.col("call") == int(bound.call[stream]), pl.col("side") == side,
                       pl.col("ts_ns") <= int(s.first_ns[stream]) + EARLY_NS)
    if not len(own):
        return []
    sections = sdp_sources.sections(_body(tables, own["message"][-1]))
    named = [i for i, section in enumerate(sections) if int(s.ssrc[stream]) in section.ssrcs]
    if not named:
        packet = tables.packets.payload(int(s.first[stream]), HEAD)
        named = [i for i, section in enumerate(sections) if section.mid and section.extension
                 and header.extension(packet, section.extension) == section.mid]
    return [row for row in fit if index[row] in named]
