"""Loss that streams share at the same moments: one finding for them, and what it may be."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import polars as pl

from netdiag.detectors.rtp import _share
from netdiag.model import number_of, times
from netdiag.tables.rtp_pauses import Pause

ALL, BOTH = "all at", "both ways"
DO_NOW = {
    "unproved": "Blame no call before you know whether the capture has a gap: read the drop counters of the capturing "
                "host and of the mirror port.",
    "all": "Look at what these streams share, at these times: link, port, switch or route that fails.",
    "both": "Look at what the host hangs on: radio cell, switch port or uplink that fails at times.",
}


def groups(lossy: pl.DataFrame, pauses: dict[int, Pause]) -> dict[int, tuple[str, ...]]:
    """``_share.groups``, and for those that pause together their point, or the host that most of them share."""
    out = _share.groups(lossy.filter(~pl.col("stream").is_in(list(pauses))))
    lines = lossy.filter(pl.col("stream").is_in(list(pauses))).select("stream", "point", "source", "destination").rows()
    hosts = Counter(host for stream, _, *ends in lines if pauses[stream].kind == "both" for host in ends)
    for stream, point, *ends in lines:
        out[stream] = (ALL, point) if pauses[stream].kind == "all" else (
            BOTH, max(ends, key=lambda host: (hosts[host], host)))
    return out


def examined(streams: pl.DataFrame, names: set[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """How many of ``streams`` each of these groups could have had."""
    paused = {name for name in names if name[0] in (ALL, BOTH)}
    out = _share.examined(streams, names - paused)
    for kind, name in paused:
        at_host = (pl.col("source") == name) | (pl.col("destination") == name)
        out[kind, name] = streams.filter(pl.col("point") == name if kind == ALL else at_host).height
    return out


class Words(NamedTuple):
    """What a pause is, for people."""

    title: str
    summary: str
    reason: str
    do_now: str
    speaks_for: str
    """That the capture lost the packets."""
    speaks_against: str


def words(pause: Pause, lost: int, proof: bool) -> Words:
    """``proof``: the receiver lacks them too, or another point has them."""
    who = f"all {pause.streams} streams under way" if pause.kind == "all" else "both directions"
    others = number_of(pause.others, "other streams")
    title = "All RTP streams stop" if pause.kind == "all" else "Both directions of a call stop"
    if proof:
        cause = what = "the network stood still"
    elif pause.kind == "both" and pause.others:
        cause = what = "the path of this call stood still"
        what += f" rather than the capture, which has {others} then"
    else:
        cause, what = "capture gap or network stop", "the capture has a gap there, or the network stood still"
    longest = f"{pause.longest_ms:.0f} ms" if pause.longest_ms < 1000 else f"{pause.longest_ms / 1000:.1f} s"
    often = f"{times(pause.moments)}, {longest}" + (" at most" if pause.moments > 1 else "")
    part = "all" if pause.missing >= lost else str(pause.missing)
    return Words(
        f"{title} at the same moments: {cause}",
        f"{part} of them while {who} pause ({often})",
        f"{who} lack packets at the same moments: {what}",
        DO_NOW[pause.kind if proof or (pause.kind == "both" and pause.others) else "unproved"],
        f"{who} lack packets at once",
        f"{others} lack{'s' if pause.others == 1 else ''} none then" if pause.others else
        "a link that they share does the same when it stops")
