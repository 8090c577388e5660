"""A router on the path edits the text of SIP messages: an application-level gateway (ALG).

NAT changes the addresses of packets and leaves their content alone. A SIP ALG also writes its public address into Via,
Contact and SDP; many do it in part or with errors, so that responses, later requests or audio go astray. A proxy would
add a Via of its own (RFC 3261 §16.6 item 8), a border controller would start new dialogs with other tags and Call-IDs
(RFC 5853 §3); an ALG leaves topmost branch, CSeq and tags as they are. Its marks on one side: a Call-ID or tag that
still names a private address under a Via with the public one, a Contact and an SDP of different realms, a port that
was appended twice, a Content-Length that is wrong by just what the new address is longer or shorter.

**What lifts the suspicion.** Two marks that do not depend on each other (probable). The same message with different
text at two points, or from two addresses in a capture of both sides (confirmed).

**What looks alike and is not it.** A device that knows its public address, and writes it everywhere. One that learns
it for one purpose only, from received and rport for Via and Contact or from STUN for its media, and so has a Contact
and an SDP of different realms (SIP-CONTACT-PRIVATE where that hurts). Messages that a proxy has passed on: they have
two Vias. A Content-Length that is wrong by another number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from netdiag.model import (
    Confidence,
    Detection,
    Occurrence,
    Pattern,
    Reference,
    Severity,
    clear,
    found,
    not_applicable,
    number_of,
)
from netdiag.tables import Tables
from netdiag.tables.addresses import realm, routable, routable_v4
from netdiag.tables.contacts import contact_host
from netdiag.tables.packets import IPV6
from netdiag.tables.schema import rows
from netdiag.tables.sip import SipMessage
from netdiag.tables.sip_head import head

PATTERN = Pattern(
    id="SIP-ALG-REWRITE",
    title="A router edits SIP messages (SIP ALG)",
    severity=Severity.HIGH,
    cases=("sip-alg-rewrites-messages",),
    needs=("sip", "media"),
    references=(Reference("RFC 3261 §16.6 item 8, §18.2.1"), Reference("RFC 5853 §3"),
                Reference("Linux kernel, net/netfilter/nf_nat_sip.c")),
    filter="sip.Method == \"INVITE\" || sip.Method == \"REGISTER\"",
    mitigation="Switch the router's SIP ALG off (nf_conntrack_sip, \"inspect sip\", a session helper), or use TLS.",
    fix="Sign in over TLS or another port than 5060, and let ICE or the border element deal with NAT.",
    prevention="Have a probe compare what a device sends with what the server receives when a site is connected.",
    next_capture="Capture the same call on both sides of the router.",
    explains=("RTP-ONEWAY", "RTP-SDP-UNREACHABLE", "SIP-RPORT-MISSING", "SIP-CONTACT-PRIVATE", "SIP-SDP-OA-BROKEN"),
)

PER_HOST = 3
"""Requests of each pair of hosts and method that are compared (practice)."""
_PRIVATE = re.compile(r"@(\d{1,3}(?:\.\d{1,3}){3})\b")
_TWO_PORTS = re.compile(r"\d\.\d{1,3}\.\d{1,3}:\d{1,5}:\d{1,5}")
SENDERS = 8
"""Points and addresses at which one request is looked at (practice); a hostile capture has it everywhere."""
CHANGES = 8
"""Changes of one request that are told (practice)."""
ADDRESSES = 4
"""Times an address stands in SDP: in o=, c= and two more (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Requests with marks of editing, and requests that differ between two points."""
    asked = tables.sip.select("message", "method", "retransmission", "branch", "flow").filter(
        pl.col("method").is_not_null() & ~pl.col("retransmission")).filter(
        pl.col("method").is_in(["INVITE", "REGISTER"]))
    if not len(asked):
        return not_applicable("no INVITE or REGISTER in this capture")
    edits = [*_told_once(list(_differing(tables, asked))), *_marked(tables, asked)]
    if not edits:
        return clear(f"{len(asked)} INVITE and REGISTER requests; none has the marks of an ALG")
    examined = Counter(e.message.source for e in edits)
    return found([_occurrence(tables, e) for e in edits], population="requests",
                 examined={(host,): n for host, n in examined.items()})


class _Edit(NamedTuple):
    message: SipMessage
    """As it leaves the router."""
    reasons: tuple[str, ...]
    confidence: Confidence
    packets: tuple[int, ...]


class _Text(NamedTuple):
    """What an ALG changes."""

    call_id: str
    via: str
    vias: int
    contact: str
    contact_value: str
    content_length: str
    lines: tuple[str, ...]
    """o=, c= and m= of SDP."""
    missing: int
    """Content-Length minus the body that is there."""


def _text(tables: Tables, m: SipMessage) -> _Text:
    fields = head(tables, m.message)
    raw = tables.packets.space.read(m.raw_offset, m.raw_length)
    end = raw.find(b"\r\n\r\n")
    body = raw[end + 4 :] if end >= 0 else b""
    sdp = body.decode("latin-1").splitlines() if m.sdp_offset is not None else []
    stated = fields.get("content-length", [""])[0]
    vias = [v for value in fields.get("via", []) for v in value.split(",")]
    sent_by = vias[0].partition(";")[0].split()[-1] if vias and vias[0].split() else ""
    contact = fields.get("contact", [""])[0]
    known = stated.isascii() and stated.isdigit() and len(stated) < 6 and m.transport == "udp" and not m.cut
    return _Text(m.call_id or "", sent_by, len(vias), contact_host(contact), contact.partition(";")[0], stated,
                 tuple(line for line in sdp if line[:2] in ("o=", "c=", "m=")),
                 int(stated) - (m.size - end - 4) if known and end >= 0 else 0)


def _differing(tables: Tables, asked: pl.DataFrame) -> Iterator[_Edit]:
    """Requests that are at two points, or from two addresses, under one branch, with other text."""
    same = ["method", "cseq", "branch", "from_tag"]
    again = asked.filter(pl.col("branch").is_duplicated() & pl.col("branch").str.starts_with("z9hG4bK"))["message"]
    both = tables.sip.select("message", "point", "source", "size", *same)[again].unique(
        [*same, "point", "source"], keep="first", maintain_order=True).group_by(same, maintain_order=True).head(SENDERS)
    ways = ["source", "source_other"]
    pairs = both.join(both, on=same, suffix="_other").filter(
        (pl.col("message") < pl.col("message_other"))
        & ((pl.col("point") != pl.col("point_other")) | (pl.col("source") != pl.col("source_other")))).unique(
        [*same, *ways], keep="first", maintain_order=True)
    # The largest have most that could be edited.
    pairs = pairs.sort("size", descending=True, maintain_order=True).group_by(
        *ways, "method", maintain_order=True).head(PER_HOST).sort("message", "message_other")
    for pair in pairs.select("message", "message_other").iter_rows():
        one, two = rows(tables.sip[list(pair)], SipMessage)
        a, b = _text(tables, one), _text(tables, two)
        # An ALG edits the host in a Call-ID; where the rest differs too, a device chose the same branch twice.
        if a.vias != b.vias or a.call_id.partition("@")[0] != b.call_id.partition("@")[0]:
            continue
        if not routable(b.via.partition(":")[0]) and routable(a.via.partition(":")[0]):
            one, two, a, b = two, one, b, a
        changed = [f"{name} {x} becomes {y}" for name, x, y in (
            ("Via", a.via, b.via), ("Contact", a.contact_value, b.contact_value), ("Call-ID", a.call_id, b.call_id),
            ("Content-Length", a.content_length, b.content_length),
            *(("SDP", x, y) for x, y in zip(a.lines, b.lines, strict=False))) if x != y]
        changed += [f"SDP {line} is cut off" for line in a.lines[len(b.lines):]]
        changed += [f"SDP {line} is added" for line in b.lines[len(a.lines):]]
        if changed:
            where = f"at {one.point} and {two.point}" if one.point != two.point else (
                f"from {one.source} and from {two.source}")
            yield _Edit(two, (f"the same branch and CSeq {where}, and no Via more", *changed[:CHANGES]),
                        Confidence.CONFIRMED, (one.packet, two.packet))


def _told_once(edits: list[_Edit]) -> list[_Edit]:
    """The first of each source also tells what is changed in others only."""
    first: dict[str, int] = {}
    for i, e in enumerate(edits):
        lead = first.setdefault(e.message.source, i)
        known = {_part(reason) for reason in edits[lead].reasons}
        if i > lead:
            which = _other(e.message.method or "", edits[lead].message.method or "")
            more = (f"in {which}: {r}" for r in e.reasons[1:] if _part(r) not in known)
            edits[lead] = edits[lead]._replace(reasons=(*edits[lead].reasons, *more)[:2 * CHANGES])
    return edits


def _other(method: str, lead: str) -> str:
    return f"another {method}" if method == lead else f"an {method}" if method == "INVITE" else f"a {method}"


def _part(reason: str) -> str:
    """What a change is about, such as "Contact" or "SDP m=video cut"."""
    words = reason.rpartition(": ")[2].split() if reason.startswith("in a") else reason.split()
    return " ".join((words[0], *(words[1:2] if words[0] == "SDP" else ()), *(words[-2:-1] if "cut" in words else ())))


def _marked(tables: Tables, asked: pl.DataFrame) -> Iterator[_Edit]:
    """Requests from public addresses whose fields contradict each other."""
    p = tables.packets
    packet = tables.sip["packet"].gather(asked["message"]).to_numpy()
    outside = routable_v4(p.src[packet]) | (p.flags[packet] & IPV6 > 0)
    asked, packet = asked.filter(pl.Series(outside)), packet[outside]
    host = p.points(packet).astype(np.int64) << 34 | p.src[packet].astype(np.int64) << 2
    host |= (p.flags[packet] & IPV6 > 0).astype(np.int64) << 1 | (asked["method"] == "INVITE").to_numpy()
    # The first and the last request of each host and method: a router edits all of them.
    ends = [np.unique(host, return_index=True)[1], len(host) - 1 - np.unique(host[::-1], return_index=True)[1]]
    some = tables.sip[asked["message"][np.unique(np.concatenate(ends))]]
    public = [source for source in some["source"].unique().to_list() if routable(source)]
    some = some.filter(pl.col("source").is_in(public))
    for m in rows(some, SipMessage):
        text = _text(tables, m)
        if text.vias != 1:
            continue
        marks, alone = _marks(m, text)
        if marks and (alone or len(marks) > 1):
            yield _Edit(m, tuple(marks), Confidence.PROBABLE if len(marks) > 1 else Confidence.SUSPECTED, (m.packet,))


def _marks(m: SipMessage, text: _Text) -> tuple[list[str], bool]:
    """Clauses, and whether one of them says something by itself."""
    marks = []
    inner = next((a for value in (text.call_id, m.from_tag or "") for a in _PRIVATE.findall(value)
                  if realm(a) in ("private", "cgn")), "")
    host = text.via.rpartition(":")[0] if ":" in text.via and "]" not in text.via else text.via
    if inner and host == m.source:
        marks.append(f"Call-ID or tag names {inner}, Via the public {m.source}")
    if _TWO_PORTS.search(text.via) or _TWO_PORTS.search(text.contact_value):
        marks.append(f"a port appended twice: Via {text.via}, Contact {text.contact_value}")
    longer = len(m.source) - len(inner)
    if inner and longer and abs(text.missing) in [abs(longer) * n for n in range(1, ADDRESSES + 1)]:
        off = f"{abs(text.missing)} too {'many' if text.missing > 0 else 'few'}"
        marks.append(f"Content-Length {text.content_length} is {off}: {m.source} and {inner} differ in length by "
                     f"{abs(longer)}")
    alone = bool(marks)
    media = next((line.split()[-1].partition("/")[0] for line in text.lines if line.startswith("c=") and line.split()),
                 "")
    realms = realm(text.contact), realm(media)
    if "public" in realms and ("private" in realms or "cgn" in realms):
        marks.append(f"Contact has {text.contact}, SDP {media}")  # devices that learn one of both do so too
    return marks, alone


def _occurrence(tables: Tables, e: _Edit) -> Occurrence:
    m = e.message
    return Occurrence(
        subject=m.call_id or "", group=(m.source,),
        summary=f"{m.method} from {m.source}: {e.reasons[0]}; " + (
            f"changed: {', '.join(dict.fromkeys(_part(r).split()[0] for r in e.reasons[1:]))}."
            if e.confidence == Confidence.CONFIRMED else f"{number_of(len(e.reasons), 'marks')} of editing."),
        confidence=e.confidence, reasons=e.reasons, severity=None if e.confidence else Severity.MEDIUM,
        evidence=tables.evidence(e.packets, {"sip.call_id": m.call_id or "", "source.ip": m.source}),
        scope={"source.ip": m.source}, flows=(m.flow,),
        keys=frozenset({f"call:{m.call_id}", f"host:{m.source}"}), start_ns=m.ts_ns, end_ns=m.ts_ns)
