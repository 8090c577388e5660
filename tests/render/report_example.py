"""A report made by hand, with one of everything that a renderer must show."""

from __future__ import annotations

from netdiag.model import (
    Alternative,
    Anomaly,
    CaptureSummary,
    Confidence,
    Evidence,
    Finding,
    Incident,
    Outcome,
    Reference,
    Report,
    Severity,
    Status,
)

START = 1_790_000_000_123_456_789
SECOND = 1_000_000_000


def finding(**changes: object) -> Finding:
    """A plain finding; ``changes`` replace fields."""
    fields: dict[str, object] = {
        "id": "aaaaaaaaaaaa",
        "pattern": "NAT-UDP-EXPIRED",
        "title": "UDP mapping expired between two uses",
        "severity": Severity.HIGH,
        "confidence": Confidence.CONFIRMED,
        "reasons": ("the INVITE is in the outside capture and not in the inside one",
                    "three calls failed after the same silence of 120 s"),
        "summary": "198.51.100.5 called 203.0.113.9:40112 at 121.4 s of silence; the mapping was gone after 120 s.",
        "scope": {"client.ip": "192.168.1.10", "server.ip": "198.51.100.5"},
        "case": "phone-cannot-be-called",
        "evidence": (
            Evidence("inside", "traces/inside.pcap", (1, 2, 9), "sip.Call-ID == \"a84b4c76e66710@192.168.1.10\"",
                     {"sip.call_id": "a84b4c76e66710@192.168.1.10"}),
            Evidence("outside", "traces/outside.pcapng", (3, 4, 11, 12, 13, 14, 20),
                     "sip.Call-ID == \"a84b4c76e66710@192.168.1.10\"", {"nat.idle_s": 121.4}),
        ),
        "affected": ("a84b4c76e66710@192.168.1.10", "b1@192.168.1.10", "c2@192.168.1.10"),
        "affected_total": 5,
        "examined_total": 12,
        "population": "calls",
        "limitations": ("the device between the points was not asked for its timers",),
        "mitigation": "Let the phones refresh every 30 s.",
        "fix": "Raise the UDP timeout of the NAT above the registration interval, or use SIP outbound keep-alives.",
        "prevention": "Alarm on 408 answered to calls towards registered phones.",
        "next_capture": "Both sides of the NAT for ten minutes.",
        "references": (Reference("RFC 4787 REQ-5", "https://www.rfc-editor.org/rfc/rfc4787"),),
        "keys": frozenset({"call:a84b4c76e66710@192.168.1.10"}),
        "start_ns": START + 5 * SECOND,
        "end_ns": START + 130 * SECOND,
    }
    return Finding(**(fields | changes))  # type: ignore[arg-type]


def report(**changes: object) -> Report:
    """Two points, one incident with an impact, one finding that stands alone, a gate, and open questions."""
    mechanism = finding()
    impact = finding(
        id="bbbbbbbbbbbb", pattern="SIP-INVITE-TIMEOUT", title="INVITE unanswered until Timer B",
        confidence=Confidence.PROBABLE, summary="Seven INVITEs in 31.5 s, then 408.", case="phone-cannot-be-called",
        evidence=(Evidence("outside", "traces/outside.pcapng", (11, 12, 13, 14), "sip.Method == \"INVITE\""),),
        affected=("a84b4c76e66710@192.168.1.10",), affected_total=1, examined_total=1, limitations=(),
    )
    alone = finding(
        id="cccccccccccc", pattern="TLS-CERT-EXPIRED", title="Leaf or intermediate past notAfter",
        severity=Severity.CRITICAL, confidence=Confidence.PROBABLE, reasons=("notAfter lies before the handshake",),
        summary="sip.example expired on 2026-09-01.", case="expired-certificate",
        evidence=(Evidence("outside", "traces/outside.pcapng", (31,), "x509af.notAfter"),),
        affected=("203.0.113.9:5061",), affected_total=1, examined_total=0, population="servers",
        limitations=(), mitigation="Install the renewed certificate.", fix="Automate renewal.",
        prevention="Alarm 30 days before notAfter.", next_capture="", keys=frozenset(),
    )
    gate = finding(
        id="dddddddddddd", pattern="CAP-MIDSTREAM", title="Flow began before the capture", severity=Severity.INFO,
        confidence=Confidence.CONFIRMED, summary="2 of 3 TCP connections have no SYN.", case="",
        evidence=(Evidence("inside", "traces/inside.pcap", (5, 6), "tcp.stream eq 0"),),
        affected=("inside",), affected_total=2, examined_total=3, population="connections", limitations=(),
        mitigation="Start the capture before the application.", keys=frozenset(),
    )
    fields: dict[str, object] = {
        "version": "0.1.0",
        "captures": (
            CaptureSummary("traces/inside.pcap", "inside", "pcap", "11" * 32, 90_000, 120, 118, {"ARP": 2}, START,
                           START + 140 * SECOND, True),
            CaptureSummary("traces/outside.pcapng", "outside", "pcapng", "22" * 32, 95_000, 131, 131, {},
                           START + SECOND, START + 141 * SECOND, False, "cut inside frame 132 at byte 95000",
                           ("tap on the uplink",), ()),
        ),
        "outcomes": (
            Outcome("NAT-UDP-EXPIRED", Status.FOUND, "5 met"),
            Outcome("SIP-INVITE-TIMEOUT", Status.FOUND, "1 met"),
            Outcome("TLS-CERT-EXPIRED", Status.FOUND, "1 met"),
            Outcome("CAP-MIDSTREAM", Status.FOUND, "2 met"),
            Outcome("RTP-LOSS", Status.CLEAR, "no stream lost a packet"),
            Outcome("RTP-JITTER", Status.CLEAR, "no stream above 30 ms"),
            Outcome("QUIC-BLOCKED-FALLBACK", Status.NOT_APPLICABLE, "no QUIC"),
            Outcome("TLS-CHAIN-INCOMPLETE", Status.INCONCLUSIVE, "the certificates are encrypted (TLS 1.3)",
                    "The same handshake with a key log."),
            Outcome("TLS-CERT-EKU", Status.INCONCLUSIVE, "the certificates are encrypted (TLS 1.3)",
                    "The same handshake with a key log."),
            Outcome("DNS-TIMEOUT", Status.ERROR, "ZeroDivisionError in detect()"),
        ),
        "findings": (mechanism, impact, alone, gate),
        "incidents": (
            Incident("eeeeeeeeeeee", "Phones cannot be called", Severity.CRITICAL, Confidence.CONFIRMED, mechanism.id,
                     (impact.id,), (Alternative("The phone was switched off", "no answer at all",
                                                "it registered 2 s later"),),
                     "Frames on the phone's own port.", START, START + 130 * SECOND),
        ),
        "anomalies": (
            Anomaly("sip", "Content-Length longer than the body", 3, "inside", "traces/inside.pcap", 7),
            Anomaly("sip", "Content-Length longer than the body", 1, "outside", "traces/outside.pcapng", 8),
        ),
        "inventory": {"sip_messages": 46, "calls": 12, "tls_handshakes": 1, "rtp_streams": 0},
    }
    return Report(**(fields | changes))  # type: ignore[arg-type]
