"""With which keys SRTP streams verify: the tags of some packets of each stream, computed (RFC 3711 §4.2, RFC 7714).

Never all packets: some 30 of each sender, more where something changes, and no more tags in all than
``srtp_senders.VERIFICATIONS``. Of the packets of a stream that the engine read in windows most are not kept whole:
those cannot be verified. Without SRTP in the signalling and without a key log nothing is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from netdiag.tables.schema import U16, U32, empty, frame

if TYPE_CHECKING:
    from netdiag.tables import Tables


@dataclass(frozen=True, slots=True)
class SrtpStretch:
    """Packets in a row, of one SSRC of one sender, that verify with the same key and the same count of wraps."""

    chain: U32
    """The same for all stretches of a sender, whose flow may change."""
    stream: U32
    """Row of ``Tables.rtp`` that its first packet belongs to."""
    point: str
    call: U32 | None
    call_id: str | None
    sender: str | None
    """"caller" or "callee"."""
    source: str
    """Where the keys come from: "SDES" or "DTLS"."""
    suite: str
    """The crypto-suite that is in force when it begins."""
    key_packet: U32 | None
    """Packet with the key that is in force when it begins."""
    relation: str
    """What it verifies with: "agreed": the key in force; "old", "early": a key of the same sender that another had
    replaced 2 s before, or that came 2 s later; "tag length", "key identifier": the key with a tag or identifier of
    another length; "same call": another key that this side, "other side": that its peer named; "other call"; "plain":
    not protected at all; "": no key that was captured. "unjudged": nothing was verified, see ``note``."""
    used_packet: U32 | None
    """Packet with the key that fits."""
    roc: U32 | None
    """Roll-over counter that fits at its beginning."""
    last_roc: U32 | None
    """The same at its end."""
    expected_roc: U32 | None
    """What a receiver counts there (RFC 3711 §3.3.1) that followed the stretch before; None for the first stretch of a
    key, and behind a pause in which wraps may have been missed."""
    wraps: int
    """Wraps of the sequence number between the first packet of the chain and its beginning."""
    first_packet: U32
    last_packet: U32
    first_ns: int
    last_ns: int
    first_sequence: U16
    last_sequence: U16
    sampled: U32
    """Packets whose tag was computed, and those of them that fit ``relation`` (with "": that fit any key)."""
    matched: U32
    wrap_packets: tuple[U32, ...]
    """The first packet behind each wrap of the sequence number in it."""
    from_start: bool
    """Its first packet is the first of the chain, and the beginning of the call was captured."""
    note: str
    """Why nothing was judged."""


def build(tables: Tables) -> pl.DataFrame:
    """All stretches, chain by chain in order of time; schema of ``SrtpStretch``."""
    calls = secure_calls(tables) if tables.media.height else pl.Series(dtype=pl.UInt32)
    logged = bool((tables.options.keylog or tables.secrets) and tables.dtls.height)
    if not (len(calls) or logged) or not tables.rtp.height:
        return empty(SrtpStretch)
    from netdiag.tables import srtp_senders
    rows = list(srtp_senders.stretches(tables, calls))
    return frame(SrtpStretch, rows).sort("chain", "first_ns", maintain_order=True)


def _secure(tables: Tables) -> pl.DataFrame:
    media = tables.media
    names = [p for p in media["protocol"].unique().to_list() if "/SAVP" in f"/{p.upper()}"]
    return media.filter(pl.col("protocol").is_in(names), pl.col("port") > 0)


def secure_calls(tables: Tables) -> pl.Series:
    """Rows of ``Tables.calls`` with a media line of SRTP."""
    return _secure(tables)["call"].unique().sort()


def agreed(tables: Tables) -> bool:
    """Was SRTP offered and answered in some call?"""
    return bool((_secure(tables).group_by("call").agg(pl.col("role").n_unique())["role"] > 1).any())
