"""The capture filter kept the evidence out: what a finding misses may have been on the wire.

A filter such as ``port 5060`` looks at the TCP or UDP header, so it never passes the later fragments of a datagram,
which have none (RFC 791 §3.2), nor the ICMP errors that say why a packet went nowhere (RFC 792), nor the media that
SDP announces on other ports. A file without them says nothing about the network. pcapng may hold the filter itself
(option if_filter); without it the file gives the filter away: first fragments of several hosts and not one later
fragment; five minutes of unanswered packets to several hosts, and nothing but TCP and UDP; answered calls, and one port
number in all that was captured. Findings that rest on absence are capped.

**What lifts the suspicion.** A stored filter that is read and keeps such packets out, or a later fragment at another
point whose hop count says that it passed this one (confirmed). Missing later fragments of two or more hosts, or of a
SIP message that got its response, so that its receiver had all of it (probable).

**What looks alike and is not it.** Later fragments of some hosts are there: fragments are lost on
the way. A filter that only leaves out what it names (``not port 22``), or only chooses hosts: their ICMP errors
and fragments pass. ARP or another protocol without ports in the file: no filter on ports was at work, and the fragments
were lost before this point. A tap at a proxy that the media does not pass: it looks the same, so one port alone stays a
suspicion.
"""

from __future__ import annotations

from netdiag.detectors.cap._kept_out import Sign, fragments, media, no_icmp
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
)
from netdiag.tables import Tables
from netdiag.tables.capture_filters import Kind, lost

PATTERN = Pattern(
    id="CAP-FILTER",
    title="The capture filter kept evidence out",
    severity=Severity.INFO,
    cases=("oversized-invite-over-udp",),
    needs=("quality", "packets", "flows", "fragments", "tcp", "lookups", "transactions", "sip", "calls", "media"),
    references=(Reference("pcap-filter(7)"), Reference("RFC 791 §3.2"), Reference("RFC 792"),
                Reference("RFC 3264 §5.1")),
    filter="ip.flags.mf == 1 || ip.frag_offset > 0 || ipv6.fraghdr || (tcp.flags.syn == 1 && tcp.flags.ack == 0) "
           "|| sdp.media.port || dns.flags.response == 0",
    mitigation="Capture again with a filter that passes fragments and ICMP: `tcpdump -ni eth0 -s 0 -w all.pcap '(port "
               "5060) or (ip[6:2] & 0x3fff != 0) or (ip6 proto 44) or icmp or icmp6'`. Behind a trunk port add `or "
               "(vlan and port 5060)` at the end.",
    fix="Choose hosts, not ports: `tcpdump -ni eth0 -s 0 -w all.pcap 'host 192.0.2.10 or icmp or icmp6'`; choose ports "
        "when reading, with a display filter.",
    prevention="Keep the filter with the file: `dumpcap -i eth0 -f 'host 192.0.2.10' -w all.pcapng` stores it, "
               "tcpdump's pcap does not.",
    next_capture="The same test without a filter, in a ring of files: `dumpcap -i eth0 -b filesize:100000 -b files:20 "
                 "-w ring.pcapng`.",
    settings=(Setting("first_fragments", 2, "packets", "practice: one alone may be the last packet before the end"),
              Setting("without_icmp_s", 300, "s", "practice: in five minutes some router has something to say"),
              Setting("unanswered_hosts", 3, "hosts", "practice: three independent silences, no single device"),
              Setting("media_s", 5, "s", "practice: in a call this long RTP would have come")),
    caps=("absence",),
)

SHOWN = 10
"""Packets of each sign that are cited (practice)."""
QUOTED = 200
"""Characters of a stored filter that are quoted: it may be made from a long list (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Points where packets are missing as only a filter makes them; one group for each."""
    if not tables.quality.height:
        return not_applicable("no packet is in this capture")
    occurrences, notes = [], []
    for q in tables.quality.iter_rows(named=True):
        name, text = q["point"], q["capture_filter"]
        calls = media(tables, name, settings)
        signs = [s for s in (_stored(text, calls), fragments(tables, q, settings), no_icmp(tables, q, settings), calls)
                 if s is not None]
        if signs:
            occurrences.append(_occurrence(tables, q, signs))
        elif text:
            notes.append(f"the filter stored for {name}, {text[:QUOTED]!r}, passes ICMP errors and later fragments of "
                         "the hosts that it chooses")
        else:
            notes.append(f"nothing is missing at {name} as if by a filter (first fragments: {q['first_fragments']}, "
                         f"ICMP packets: {q['icmp_packets']})")
    return found(occurrences, population="capture points") if occurrences else clear("; ".join(notes))


def _occurrence(tables: Tables, q: dict[str, int | str], signs: list[Sign]) -> Occurrence:
    lead = max(signs, key=lambda s: s.confidence)
    rows = [row for s in signs for row in s.rows[:SHOWN]]
    narrow = all(s.flows for s in signs)
    missing = ", nor ".join(dict.fromkeys(s.missing for s in signs))
    why = "its filter kept them out" if lead.confidence is Confidence.CONFIRMED else "as if a filter had kept them out"
    stored = str(q["capture_filter"] or "not stored")[:QUOTED]
    return Occurrence(
        subject=str(q["point"]), group=(str(q["point"]),), confidence=lead.confidence,
        summary=f"The capture at {q['point']} cannot show {missing}: {why}.",
        reasons=tuple(reason for s in sorted(signs, key=lambda s: -s.confidence) for reason in s.reasons),
        evidence=tables.evidence(rows, {"capture.filter": stored}) if rows else (),
        scope={"capture.point": str(q["point"]), "capture.filter": stored},
        flows=tuple(sorted({flow for s in signs for flow in s.flows})) if narrow else (),
        start_ns=int(q["first_ns"]), end_ns=int(q["last_ns"]),
        alternatives=tuple(a for s in signs for a in s.alternatives))


def _stored(text: str | None, calls: Sign | None) -> Sign | None:
    """A filter that the file itself names, if it keeps out what findings need."""
    if not text:
        return None
    kept_out: dict[str, None] = {}
    for one in dict.fromkeys(text.split("; ")):
        kinds = lost(one)
        if kinds is None:
            return Sign(Confidence.CONFIRMED, "what the stored filter did not choose",
                         (f"the file names its capture filter, which is not understood here: {one[:QUOTED]!r}",))
        if Kind.ICMP in kinds or Kind.LATER_FRAGMENT in kinds or (Kind.OTHER_PORT in kinds and calls):
            kept_out |= dict.fromkeys(kind.value for kind in kinds)
    if not kept_out:
        return None
    return Sign(Confidence.CONFIRMED, ", ".join(kept_out), (f"the file names its capture filter: {text[:QUOTED]!r}",))
