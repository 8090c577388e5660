"""A SIP message over UDP is too large, is sent in fragments, and does not arrive, while small ones do.

A request above 1300 bytes must go over TCP where the path MTU is not known (RFC 3261 §18.1.1); over UDP it becomes IP
fragments, of which only the first has ports, and firewalls and NATs drop the others (RFC 8900 §3). The request is then
repeated until its timer runs out, as if there were no server: the first INVITE is answered with 407, the second, which
credentials made larger, dies. A 2xx that is too large is repeated because no ACK comes (§13.3.1.4). Next to the
receiver the capture shows first fragments alone.

**What lifts the suspicion.** Small messages between the same two hosts are answered (probable). An ICMP error that says
so (reassembly time exceeded, fragmentation needed), or another capture point where a part of the same message is
missing and which no filter on ports made: it shows later fragments, ARP or another protocol without ports (confirmed).

**What looks alike and is not it.** Large messages that are answered: no network has to drop them. A peer that does not
answer small messages either. A capture filter on a port keeps later fragments out of the file; the message is then
answered all the same. TCP and TLS carry messages of any size.
"""

from __future__ import annotations

from collections import Counter

import polars as pl

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
    times,
)
from netdiag.tables import Tables
from netdiag.tables.quality import beyond_ports
from netdiag.tables.schema import rows
from netdiag.tables.sip import Transaction
from netdiag.tables.sip_fragments import FirstFragment, first_fragments, pieces
from netdiag.tables.sip_weight import weight

PATTERN = Pattern(
    id="SIP-UDP-OVERSIZE",
    title="Large SIP message over UDP gets lost, small ones do not",
    severity=Severity.HIGH,
    cases=("oversized-invite-over-udp",),
    needs=("transactions", "sip", "icmp", "packets", "fragments", "quality"),
    references=(Reference("RFC 3261 §18.1.1"), Reference("RFC 8900 §3")),
    filter="(sip && udp) || ip.flags.mf == 1 || ip.frag_offset > 0 || ipv6.fraghdr",
    mitigation="Offer fewer codecs and remove headers that nobody needs; use compact header names.",
    fix="Send these messages over TCP or TLS (RFC 3261 §18.1.1), or let fragments pass every firewall of the path.",
    prevention="Watch the largest message of every trunk, and act at 1200 bytes.",
    next_capture="Capture at the receiver, without a filter on ports: which fragments arrive?",
    explains=("SIP-INVITE-TIMEOUT", "SIP-ACK-LOST"),
    settings=(Setting("min_sends", 4, "sends", "practice: 3.5 s of Timer A; fewer is loss or a slow answer"),),
)

LIMIT = 1300
"""Bytes of a message (RFC 3261 §18.1.1)."""
SIZE_ERRORS = ("fragment reassembly time exceeded", "fragmentation needed", "packet too big")
DETAILED = 200
"""Messages that are looked at closely; the others of a flood are counted (practice)."""
_HOP = ["point", "client", "server"]


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Large requests and 2xx that are repeated in vain, and first fragments whose other fragments never came."""
    udp = tables.transactions.filter(pl.col("transport") == "udp")
    torn = first_fragments(tables)
    if not len(udp) and not torn:
        return not_applicable("no SIP over UDP in this capture")
    silent = udp.filter(~pl.col("midstream") & (pl.col("response_messages").list.len() == 0)
                        & (pl.col("ack_messages").list.len() == 0) & (pl.col("sends") >= settings["min_sends"]))
    silent = _sized(tables, silent.with_columns(message=pl.col("request_messages").list.first()))
    finals = _sized(tables, udp.filter(
        (pl.col("method") == "INVITE") & pl.col("status").is_between(200, 299)
        & (pl.col("final_sends") >= settings["min_sends"]) & (pl.col("ack_messages").list.len() == 0)
    ).with_columns(message=pl.col("final_message")))
    context = _Context(tables, udp, silent, torn)
    occurrences: list[Occurrence] = []
    for large, response in ((silent, False), (finals, True)):
        chosen = large.filter(pl.col("size") > LIMIT)
        for t, message, size in zip(rows(chosen, Transaction), chosen["message"], chosen["size"], strict=True):
            found_one = context.repeated(t, message, size, response, len(occurrences) < DETAILED)
            occurrences += [found_one] if found_one else []
    told = {o.subject for o in occurrences}
    broken = [o for o in context.broken(int(settings["min_sends"])) if o.subject not in told]
    # Without contrast a filter of the capture explains them.
    occurrences += [o for o in broken if o.confidence > Confidence.SUSPECTED]
    if broken and not occurrences:
        return inconclusive("only first fragments of large messages were captured, and nothing else shows whether "
                            "the others were sent", PATTERN.next_capture)
    if not occurrences:
        return clear(f"{number_of(len(udp), 'SIP transactions')} over UDP; no message above {LIMIT} bytes is repeated "
                     "in vain between hosts where small ones are answered")
    return found(occurrences, population="calls with a large message",
                 examined=context.examined({o.group for o in occurrences}))


def _sized(tables: Tables, transactions: pl.DataFrame) -> pl.DataFrame:
    return transactions.with_columns(size=tables.sip["size"].gather(transactions["message"]))


class _Context:
    def __init__(self, tables: Tables, udp: pl.DataFrame, silent: pl.DataFrame, torn: list[FirstFragment]) -> None:
        self._tables, self._udp, self._torn = tables, udp, torn
        later = dict(tables.quality.select("point", "later_fragments").iter_rows())
        whole = {point for point in {f.point for f in torn} if later.get(point) or beyond_ports(tables, point)}
        self._of_call: dict[str, list[FirstFragment]] = {}
        for f in torn:
            if f.point in whole:  # elsewhere a filter on ports may have kept the others out
                self._of_call.setdefault(f.call_id, []).append(f)
        small = silent.filter(pl.col("size") <= LIMIT)
        self._deaf: set[tuple[str, ...]] = set(small.select(_HOP).unique().iter_rows())
        self._contrast: dict[tuple[str, ...], tuple[int, int]] | None = None

    def _answered(self, point: str, client: str, server: str) -> tuple[int, int]:
        """Small requests with a response between two hosts, and the size of the largest."""
        if self._contrast is None:
            asked = _sized(self._tables, self._udp.filter(
                ~pl.col("midstream") & (pl.col("response_messages").list.len() > 0)
            ).with_columns(message=pl.col("request_messages").list.first())).filter(pl.col("size") <= LIMIT)
            self._contrast = {(a, b, c): (n, size) for a, b, c, n, size in asked.group_by(_HOP).agg(
                n=pl.len(), size=pl.col("size").max()).iter_rows()}
        return self._contrast.get((point, client, server), (0, 0))

    def repeated(self, t: Transaction, message: int, size: int, response: bool, detailed: bool) -> Occurrence | None:
        """A large message in ``Tables.sip``; None where small ones fail as well."""
        if (t.point, t.client, t.server) in self._deaf:
            return None
        sip = self._tables.sip
        messages = [m for m in t.response_messages if sip["status"][m] == t.status] if response else t.request_messages
        sends = t.final_sends if response else t.sends
        packets = pieces(self._tables, sip["packet"].gather(list(messages)).to_list()) if detailed else []
        name = f"{t.status} to {t.method}" if response else t.method
        reasons = [f"{name} of {size} bytes is sent {times(sends)}, " + ("no ACK" if response else "no response")]
        if detailed:
            reasons.append("most bytes are in " + ", ".join(f"{n} ({w})" for n, w in weight(self._tables, message)))
        if len(packets) > len(messages):
            reasons.append(f"each is sent in {len(packets) // len(messages)} IP fragments")
        torn = [f for f in self._of_call.get(t.call_id, ()) if f.branch == t.branch and f.point != t.point
                and bool(f.method) != response and f.missing]
        source, destination = (t.server, t.client) if response else (t.client, t.server)
        packets += [row for f in torn for row in f.packets] if detailed else []
        return self._occurrence(t.point, t.call_id, source, destination, reasons, packets, torn,
                                [int(sip["flow"][message])], (t.client, t.server), (t.first_ns, t.last_ns), size)

    def broken(self, least: int) -> list[Occurrence]:
        """Messages that are known by their first fragments only, sent ``least`` times without an answer."""
        series: dict[tuple[str, str, str, str], list[FirstFragment]] = {}
        for f in self._torn:
            if f.missing and f.size > LIMIT and f.method:
                series.setdefault((f.point, f.call_id, f.branch, f.cseq), []).append(f)
        many = {key: fragments for key, fragments in series.items() if len(fragments) >= least}
        if not many:
            return []
        known = set(self._tables.sip.filter(pl.col("call_id").is_in([key[1] for key in many])).select(
            "point", "call_id", "branch").iter_rows())
        out = []
        for (point, call_id, branch, _), fragments in many.items():
            f = fragments[0]
            if (point, call_id, branch) in known or (point, f.source, f.destination) in self._deaf:
                continue
            reasons = [f"{f.method} of {f.size} bytes comes {times(len(fragments))}, each time without "
                       f"{f.missing} bytes of its later fragments", "no response"]
            out.append(self._occurrence(
                point, call_id, f.source, f.destination, reasons, [row for x in fragments for row in x.packets], [],
                [f.flow], (f.source, f.destination), (f.ts_ns, fragments[-1].ts_ns), f.size))
        return out

    def _occurrence(self, point: str, call_id: str, source: str, destination: str, reasons: list[str],
                    packets: list[int], torn: list[FirstFragment], flows: list[int], hop: tuple[str, str],
                    span: tuple[int, int], size: int) -> Occurrence:
        confidence = Confidence.SUSPECTED
        answered, largest = self._answered(point, *hop)
        if answered:
            confidence = Confidence.PROBABLE
            reasons.append(f"{number_of(answered, 'smaller requests')} of {hop[0]} to {hop[1]}, up to {largest} "
                           "bytes, got an answer")
        errors = self._tables.icmp.filter(
            pl.col("name").is_in(SIZE_ERRORS) & (pl.col("quoted_source") == source)
            & (pl.col("quoted_destination") == destination) & (pl.col("ts_ns") >= span[0]))
        if torn:
            reasons.append(f"at {torn[0].point} {torn[0].missing} bytes of its later fragments are missing")
        if len(errors):
            reasons.append(f"ICMP {errors['name'][0]} from {errors['source'][0]}")
        sure = bool(torn) or len(errors) > 0
        return Occurrence(
            subject=call_id, group=(source, destination),
            summary=f"A message of {size} bytes from {source} does not reach {destination} over UDP.",
            confidence=Confidence.CONFIRMED if sure else confidence, reasons=tuple(reasons),
            evidence=self._tables.evidence([*packets, *errors["packet"].head(3).to_list()], {
                "sip.call_id": call_id, "sip.size": size, "source.ip": source, "destination.ip": destination}
            ) if packets else (),
            scope={"source.ip": source, "destination.ip": destination}, flows=tuple(flows),
            keys=frozenset({f"call:{call_id}"}), absence=not sure, start_ns=span[0],
            end_ns=span[1], alternatives=(
                Alternative("the receiver does not answer this kind of message", "only its own side can tell",
                            "its fragments do not arrive" if sure else
                            "smaller ones are answered" if answered else ""),))

    def examined(self, groups: set[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
        sip = self._tables.sip.filter((pl.col("size") > LIMIT) & (pl.col("transport") == "udp"))
        calls = {(a, b, c) for a, b, c in sip.select("source", "destination", "call_id").iter_rows()}
        calls |= {(f.source, f.destination, f.call_id) for f in self._torn}
        count = Counter((a, b) for a, b, _ in calls)
        return {group: count[group[0], group[1]] for group in groups}
