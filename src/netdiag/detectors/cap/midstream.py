"""Flows that began before the capture: what was agreed at their start is unknown.

A TCP connection whose first captured packet is no SYN has no known window scale and no maximum segment size (RFC 9293
§3.2, RFC 7323 §2.2). A SIP request inside a dialog without the INVITE that began it has no offer and answer to judge
media by (RFC 3261 §12, RFC 3264). RTP that flows from the first seconds without SDP has no agreed codec. Findings
that rest on something not seen are capped for such flows: it may have been there before.

**What lifts the suspicion.** Nothing is needed: the flow is there and its beginning is not (confirmed).

**What looks alike and is not it.** Packets of an old connection in the middle of the capture that meet only resets or
silence: a device or a host has lost its state. RTP that starts later without SDP: its signalling
is encrypted, or passes elsewhere, and the start of the stream itself was captured. RTP behind the checks that nominate
its pair (RFC 8445 §8.1.1): there it begins.
"""

from __future__ import annotations

import polars as pl

from netdiag.detectors.cap._accounts import accounts
from netdiag.model import (
    Confidence,
    Detection,
    Occurrence,
    Pattern,
    Reference,
    Setting,
    Severity,
    clear,
    found,
    not_applicable,
    number_of,
)
from netdiag.tables import Tables

PATTERN = Pattern(
    id="CAP-MIDSTREAM",
    title="Flows began before the capture",
    severity=Severity.INFO,
    cases=(),
    needs=("tcp", "sip", "calls", "rtp", "flows", "quality", "checks"),
    references=(Reference("RFC 9293 §3.2"), Reference("RFC 7323 §2.2"), Reference("RFC 3261 §12"),
                Reference("RFC 3264")),
    filter="(tcp.flags.syn == 0 && !(tcp.completeness & 1)) || sip.to.tag || (sip.Method && !sip.To) "
           "|| (udp && !sip && !dns)",
    mitigation="Judge these flows by what is seen only; repeat the test with the capture already running.",
    fix="Start the capture before the test, in a ring of files that is long enough.",
    prevention="Keep a ring buffer running at the places where faults are looked for.",
    next_capture="The same traffic from its beginning: start the capture, then the test.",
    settings=(Setting("start_window_s", 5, "s", "practice: what is under way at the start shows itself that soon"),),
    caps=("absence",),
)


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Flows whose start is not in the capture; one group for each point."""
    flows = tables.flows
    if not flows.height:
        return not_applicable("no flow is in this capture")
    window = int(settings["start_window_s"] * 1e9)
    early = {point: first + window for point, first in tables.quality.select("point", "first_ns").iter_rows()}
    begun = pl.concat([_tcp(tables, early), _sip(tables), _rtp(tables, early)]).unique(
        "flow", keep="first", maintain_order=True)
    if not begun.height:
        return clear(f"{number_of(flows.height, 'flows')}: all begin inside the capture, as far as they show it")
    begun = begun.sort("flow")
    met = begun.hstack(flows.select("point", "first_ns", "last_ns")[begun["flow"]])  # the row of a flow is its number
    occurrences = []
    for told, meant in accounts(met):
        f = flows.row(told["flow"], named=True) | told
        where = f" at {f['point']}" if len(tables.points) > 1 else ""
        occurrences.append(Occurrence(
            subject=f"{f['a']}:{f['a_port']} → {f['b']}:{f['b_port']}", group=(f["point"],),
            summary=f"The beginning of a flow between {f['a']} and {f['b']} is not in the capture{where}: {f['what']}.",
            confidence=Confidence.CONFIRMED, reasons=(f["what"],),
            evidence=tables.evidence([f["packet"]], {"source.ip": f["a"], "destination.ip": f["b"]}),
            scope={"capture.point": f["point"]}, **meant))
    examined: dict[tuple[str, ...], int] = {
        (point,): count for point, count in flows.group_by("point").len().iter_rows()}
    return found(occurrences, examined=examined)


def _tcp(tables: Tables, early: dict[str, int]) -> pl.DataFrame:
    """Connections without SYN, unless late and met by resets or silence only."""
    resets = pl.col("rst_packets").list.len()
    unmet = ((pl.col("packets_server") == 0) | (pl.col("packets_client") == 0)
             | (pl.col("rst_by_server") & (pl.col("packets_server") <= resets))
             | (pl.col("rst_by_client") & (pl.col("packets_client") <= resets)))
    late = pl.col("first_ns") > pl.col("point").replace_strict(early, return_dtype=pl.Int64)
    begun = tables.tcp.select("flow", "first_packet", begun=pl.col("midstream") & ~(late & unmet)).filter("begun")
    return begun.select("flow", packet="first_packet", what=pl.lit("its first packet is no SYN"))


def _sip(tables: Tables) -> pl.DataFrame:
    """Dialogs of which the first message is a request with To tag."""
    calls = tables.calls.filter("midstream").select(message=pl.col("messages").list.first())
    first = calls.join(tables.sip.select("message", "flow", "packet", "method", "to_tag"), on="message",
                       maintain_order="left").filter(pl.col("method").is_not_null() & pl.col("to_tag").is_not_null())
    return first.select("flow", "packet", what=pl.format("its first message is {} inside a dialog", "method"))


def _rtp(tables: Tables, early: dict[str, int]) -> pl.DataFrame:
    """Media without signalling that is there from the start, and no nomination by ICE before it."""
    start = pl.col("point").replace_strict(early, return_dtype=pl.Int64)
    some = tables.rtp.filter(pl.col("heuristic") & (pl.col("first_ns") <= start)).select(
        "flow", "first_packet", "first_ns")
    begins = tables.checks.filter("nominated").group_by("flow").agg(begin_ns=pl.col("first_ns").min())
    some = some.join(begins, on="flow", how="left", maintain_order="left").filter(
        ~(pl.col("begin_ns") < pl.col("first_ns")).fill_null(False))
    return some.select("flow", packet="first_packet", what=pl.lit("media flows from the start, and no SDP names it"))
