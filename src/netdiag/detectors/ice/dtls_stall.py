"""ICE has a pair, and DTLS does not come about on it: the handshake is repeated, refused, or never begun.

Keys for SRTP come from a DTLS handshake on the nominated pair (RFC 5763, RFC 5764). One side is active (a=setup) and
sends the ClientHello. What is not answered is sent again after 1 s, 2 s, 4 s… (RFC 6347 §4.2.4.1; some stacks begin
sooner), whole flights at a time, so that the repeated message names the place where it hangs: a ClientHello that gets
no ServerHello (filtered as no STUN, or nobody listens), the flight with the certificates (its fragments are too large
for the path, or one of them is lost each time). Both sides active or both passive cannot agree. A fatal alert says why
in clear, and up to DTLS 1.2 the certificate is in clear too: its hash must be one that a=fingerprint of its sender
names (RFC 8122 §6.2), or the other side has to end the session.

**What lifts the suspicion.** Three repeats over 3 s are probable. An alert, a certificate that no description of its
agent names, ClientHellos from both sides, or fragments that are seen at one point and not at the other make it
certain.

**What looks alike and is not it.** A single repeat is loss or a ClientHello that came before the answer was applied
(less than 2 s). A ClientHello that is sent again because of a HelloVerifyRequest carries a cookie and is no repeat.
DTLS on a pair that was not nominated does not matter while another one is. An alert behind a complete handshake ends
a session that worked.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import polars as pl

from netdiag.detectors.ice._surroundings import Descriptions, Relays
from netdiag.model import (
    Alternative,
    Confidence,
    Detection,
    Occurrence,
    Pattern,
    Reference,
    Setting,
    Severity,
    clear,
    found,
    inconclusive,
    not_applicable,
    number_of,
)
from netdiag.tables import Tables
from netdiag.tables.dtls import DtlsHandshake
from netdiag.tables.ice import Check
from netdiag.tables.schema import rows
from netdiag.tables.vanished import Vanished

PATTERN = Pattern(
    id="ICE-DTLS-STALL",
    title="DTLS handshake stalls or is refused after ICE found a path",
    severity=Severity.HIGH,
    cases=("webrtc-through-turn",),
    needs=("dtls", "checks", "allocations", "ice_descriptions", "icmp", "quality", "crosspoint"),
    references=(Reference("RFC 6347 §4.2.4.1"), Reference("RFC 5763 §5"), Reference("RFC 8122 §5, §6.2"),
                Reference("RFC 8842 §5")),
    filter="dtls || stun.att.type == 0x0025",
    mitigation="Let DTLS pass where STUN passes; answer with the role that is left (active to actpass); send the "
               "certificate that the SDP names.",
    fix="ECDSA certificates and a DTLS MTU of 1200 bytes or less; roles and fingerprints from the body that is sent, "
        "also behind a B2BUA.",
    prevention="Measure the setup of calls phase by phase: ICE, DTLS, first media.",
    next_capture="Capture at the other agent too, with the signalling, filter `udp`: which flights arrive there?",
    settings=(Setting("min_repeats", 3, "flights", "practice: one is loss"),
              Setting("min_span", 3, "s", "practice: RFC 6347 §4.2.4.1 repeats at 1 s, 3 s and 7 s"),
              Setting("silence", 5, "s", "practice: from nomination, without any DTLS")),
)
ALERTS = {10: "unexpected_message", 40: "handshake_failure", 42: "bad_certificate", 43: "unsupported_certificate",
          45: "certificate_expired", 46: "certificate_unknown", 47: "illegal_parameter", 48: "unknown_ca",
          50: "decode_error", 51: "decrypt_error", 70: "protocol_version", 71: "insufficient_security",
          80: "internal_error"}
"""RFC 5246 §7.2."""
DETAILED = 200
"""Handshakes whose frames are listed; the others of a flood are counted (practice)."""


class _Fault(NamedTuple):
    kind: tuple[str, ...]
    title: str
    text: str
    reasons: tuple[str, ...]
    confidence: Confidence
    packets: tuple[int, ...]
    flight: tuple[int, ...] = ()
    """Packets that carry what is repeated, for asking the other point."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Handshakes on pairs that ICE found which do not end well, and nominated pairs without any."""
    good = tables.checks.filter(pl.col("successes") > 0)
    chosen = good.filter("nominated").select("session", "point").unique()
    used = good.join(chosen, on=["session", "point"], how="anti")["path"].to_list() + good.filter(
        "nominated")["path"].to_list()
    shakes = tables.dtls.filter(pl.col("path").is_in(used))
    ill = shakes.filter(~pl.col("completed") | pl.col("client_mismatch") | pl.col("server_mismatch"))
    context = _Context(tables, settings, good.filter(pl.col("path").is_in(ill["path"].implode())))
    silent = context.silent(good)
    if not shakes.height and not silent:
        if good.height and tables.dtls.height:
            return clear("DTLS runs on pairs only that were not nominated")
        return not_applicable("no DTLS on a pair that ICE found")
    faults: list[tuple[Check, DtlsHandshake | None, _Fault]] = [(c, None, fault) for c, fault in silent]
    for d in rows(ill, DtlsHandshake):
        fault = context.fault(d)
        if fault is not None:
            faults.append((context.check[d.path], d, fault))
    if faults:
        ends = shakes.select("client", "server", "client_port", "server_port").unique()
        hosts = Counter(host for client, server, *_ in ends.iter_rows() for host in (client, server))
        return found([context.occurrence(c, d, fault, i < DETAILED) for i, (c, d, fault) in enumerate(faults)],
                     population="handshakes", examined={f.kind: max(hosts[f.kind[1]], 1) for _, _, f in faults})
    young = shakes.join(tables.quality.select("point", end="last_ns"), on="point").filter(
        ~pl.col("completed") & (pl.col("end") - pl.col("start_ns") < settings["min_span"] * 1e9))
    if young.height:
        return inconclusive(f"the capture ends during {number_of(young.height, 'DTLS handshakes')}",
                            "Capture until media flows, or the call is given up.")
    return clear(f"{number_of(shakes.height, 'DTLS handshakes')} on pairs that ICE found; none of them hangs, is "
                 "refused or shows another certificate than its SDP")


class _Context:
    def __init__(self, tables: Tables, settings: dict[str, float], good: pl.DataFrame) -> None:
        self._tables, self._settings = tables, settings
        self._said, self._relays = Descriptions(tables), Relays(tables)
        self._vanished: Vanished | None = None
        self.check: dict[int, Check] = {c.path: c for c in rows(good.sort("nominated"), Check)}
        self._media = {path: max(times) for path, *times in good.group_by("path").agg(
            pl.col("media_sent_last_ns", "media_received_last_ns").max().fill_null(0)).iter_rows()}

    def fault(self, d: DtlsHandshake) -> _Fault | None:
        """The surest of what is wrong with a handshake."""
        client, server = self._ends(d)
        works = d.completed and self._media.get(d.path, 0) > d.end_ns
        if (d.client_mismatch or d.server_mismatch) and not works:
            who, name, shown, packets = (
                (d.client, client, d.client_fingerprint, d.client_certificate_packets) if d.client_mismatch
                else (d.server, server, d.server_fingerprint, d.server_certificate_packets))
            return _Fault(("certificate", who), "DTLS certificate is not the one in the SDP",
                          f"{name} shows a certificate whose hash its SDP does not name",
                          (f"SHA-256 of the certificate is {shown}", f"a=fingerprint is {d.mismatch_sdp}"),
                          Confidence.CONFIRMED, (*packets[:4], *_some(d.mismatch_packet, d.alert_packet)))
        if d.completed:
            return None
        if d.alert is not None and d.alert_by is not None:
            who, other, host = (client, server, d.server) if d.alert_by == "client" else (server, client, d.client)
            name = ALERTS.get(d.alert, f"alert {d.alert}")
            return _Fault(("alert", host, name), f"DTLS handshake is refused with {name}",
                          f"{who} refuses the handshake with {other}: {name}", (f"fatal alert {d.alert} by {who}",),
                          Confidence.CONFIRMED, (*d.client_hello_packets[:1], *_some(d.alert_packet)))
        if len(d.client_hello_packets) > 1 and len(d.rival_hello_packets) > 1 and d.server_hello_packet is None:
            return _Fault(("roles", d.client), "Both sides start DTLS", f"{client} and {server} both send "
                          "ClientHellos, and neither answers",
                          (f"{len(d.client_hello_packets)} ClientHellos of {client}, "
                           f"{len(d.rival_hello_packets)} of {server}", *self._roles(d)),
                          Confidence.CONFIRMED, (*d.client_hello_packets[:2], *d.rival_hello_packets[:2]))
        return self._repeated(d)

    def _ends(self, d: DtlsHandshake) -> tuple[str, str]:
        return self._relays.named(d.client, d.client_port), self._relays.named(d.server, d.server_port)

    def _repeated(self, d: DtlsHandshake) -> _Fault | None:
        """A flight that is sent again and again; the server's first, since the client repeats when it is lost."""
        ends = self._ends(d)
        for client, count, what, times, packets in (
                (False, d.server_repeats, d.server_repeated, d.server_repeat_ns, d.server_repeat_packets),
                (True, d.client_repeats, d.client_repeated, d.client_repeat_ns, d.client_repeat_packets)):
            span = (times[-1] - times[0]) / 1e9 if times else 0.0
            if count < self._settings["min_repeats"] or span < self._settings["min_span"]:
                continue
            size = f"the largest datagram has {d.largest} bytes"
            if len(d.fragment_lengths) > 1 and what != "ClientHello":
                size += f", the certificate comes in pieces of {', '.join(map(str, d.fragment_lengths[:6]))}"
            if not client and d.server_certificate_packets:
                what = "Certificate"
            hello = what == "ClientHello"
            who, other = ends if client else ends[::-1]
            flight = () if hello else d.client_certificate_packets if client else d.server_certificate_packets
            return _Fault(
                ("stall", d.server), "DTLS ClientHello is not answered" if hello else
                f"DTLS handshake hangs at the flight with {what}",
                f"{who} sends {what} to {other} {count + 1} times over {span:.1f} s" + (
                    ", and gets no ServerHello" if hello else ""),
                (f"{what} is repeated {count} times over {span:.1f} s", *(() if hello else (size,)), *self._roles(d)),
                Confidence.PROBABLE, (*packets[:4], *flight[:4]), flight or packets[:4])
        return None

    def _roles(self, d: DtlsHandshake) -> list[str]:
        mine, other = (setup or "unknown" for setup in (d.client_setup, d.server_setup))
        known = d.client_setup or d.server_setup
        return [f"a=setup of the client is {mine}, that of the server {other}"] if known else []

    def silent(self, good: pl.DataFrame) -> list[tuple[Check, _Fault]]:
        """Nominated pairs of agents that announced DTLS and do not begin it."""
        busy = self._tables.dtls["path"].unique().implode()
        idle = good.filter(pl.col("nominated") & ~pl.col("path").is_in(busy) & (pl.col("media_sent") == 0)
                           & (pl.col("media_received") == 0)).join(
            self._tables.quality.select("point", end="last_ns"), on="point").filter(
            pl.min_horizontal("end", "last_ns") - pl.col("first_response_ns") >= self._settings["silence"] * 1e9)
        out = []
        for c in rows(idle, Check):
            both = [self._said.of(ufrag) for ufrag in (c.local_ufrag, c.remote_ufrag)]
            if not all(some and any(d.fingerprints for d in some) for some in both):
                continue
            setups = sorted(some[-1].setup for some in both)
            stuck = setups in (["actpass", "actpass"], ["passive", "passive"])
            since = (c.last_ns - (c.first_response_ns or c.first_ns)) / 1e9
            out.append((c, _Fault(
                ("none", c.local), "Neither side starts DTLS",
                f"{self._relays.named(c.local, c.local_port)} and {self._relays.named(c.remote, c.remote_port)} have a "
                f"pair for {since:.0f} s, and neither sends a ClientHello",
                (f"a=setup is {' and '.join(s or 'absent' for s in setups)}",
                 f"no DTLS for {since:.0f} s after the first success"),
                Confidence.CONFIRMED if stuck else Confidence.SUSPECTED,
                _some(c.nominating_packet, c.last_response_packet, both[0][-1].packet, both[1][-1].packet))))
        return out

    def occurrence(self, c: Check, d: DtlsHandshake | None, fault: _Fault, detailed: bool) -> Occurrence:
        tables, confidence, reasons, cited = self._tables, fault.confidence, list(fault.reasons), list(fault.packets)
        clock = False
        if fault.flight and detailed:
            icmp = tables.icmp.filter((pl.col("quoted_flow") == c.flow) & (pl.col("ts_ns") >= (d.start_ns if d else 0)))
            if icmp.height and not c.relayed:
                confidence = Confidence.CONFIRMED
                reasons.append(f"{icmp['source'][0]} reports {icmp['name'][0]} about this pair")
                cited += icmp["packet"].head(3).to_list()
            self._vanished = self._vanished or Vanished(tables, tables.dtls["packets"].explode().drop_nulls())
            missing = [p for p in fault.flight if self._vanished.at([p])]
            if missing:
                confidence, clock = Confidence.CONFIRMED, True
                reasons.append(f"{len(missing)} of {len(fault.flight)} datagrams of the flight do not reach "
                               f"{self._vanished.at(missing[:1])}")
        facts: dict[str, str | int | float] = {"source.ip": c.local, "destination.ip": c.remote,
                                               "stun.username": f"{c.remote_ufrag}:{c.local_ufrag}"}
        if d is not None:
            facts |= {"dtls.largest": d.largest, "tls.server.hash.sha256": d.server_fingerprint or "not seen"}
        return Occurrence(
            subject=c.session, group=fault.kind, title=fault.title, summary=f"{fault.text}.", confidence=confidence,
            reasons=tuple(reasons), evidence=tables.evidence(cited, facts) if detailed else (),
            scope={"source.ip": c.local, "destination.ip": c.remote}, flows=(c.flow,),
            keys=self._said.keys(c.session) | {f"host:{c.local}", f"host:{c.remote}"},
            absence=confidence < Confidence.CONFIRMED, clock=clock, start_ns=d.start_ns if d else c.first_ns,
            end_ns=d.end_ns if d else c.last_ns, alternatives=(Alternative(
                "a filter lets STUN through and not DTLS", "checks on the same pair are answered",
                "nothing shows the filter"),) if fault.kind[0] == "stall" else ())


def _some(*packets: int | None) -> tuple[int, ...]:
    return tuple(p for p in packets if p is not None)
