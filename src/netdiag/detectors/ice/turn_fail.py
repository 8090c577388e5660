"""TURN refuses a client, or what it granted runs out while media still flows.

A relay lends itself for a time: an allocation for the lifetime that it grants (600 s by default, RFC 8656 §3.2), a
permission for each peer address for 300 s (§9), a channel for 600 s (§12; ChannelBind renews the permission as well).
Errors say why it does not: 401 with credentials (wrong, or expired with their time stamp), 438 that no request with
the new nonce follows, 437 (it knows no such allocation), 441 (another user's), 403 (the peer is forbidden), 442, 486
(the user's quota), 508 (no capacity). Where an error stands at the end, with no later success of the client and
nothing relayed after it, media has no relay. Silence says it for what ran out: the server drops what comes from a
peer without permission and does not tell anybody, so data from the peer ends 300 s (600 s) after the last refresh that
was answered, while the client goes on sending.

**What lifts the suspicion.** An error code with nothing better after it is its own proof (confirmed). (With 401
it is also said when the user name is one of credentials for a time, and that time is over.) Data that stops
within 5 s of the computed end of a permission, channel or allocation is probable. (Without a channel the server
still relays to the client, as Data indications, and drops the ChannelData that the client sends.)

**What looks alike and is not it.** The first Allocate has no credentials and gets 401: that is how realm and nonce are
learnt. One 438 is followed by the same request with the new nonce. A Refresh with lifetime 0 deletes, also when it is
answered with 437 (§8.3). Peers that are forbidden or of another address family (403, 443) do no harm while another
peer is relayed, nor does 440 to a request for IPv6 when IPv4 is granted. 300 sends the client to another server. A
client that stops sending when the permission ends has hung up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl

from netdiag.detectors.ice._credentials import ended
from netdiag.detectors.ice._turn_cures import DO_NOW, LAPSED, TOLD
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
from netdiag.tables.addresses import routable
from netdiag.tables.schema import rows
from netdiag.tables.turn import Allocation, TurnPeer

PATTERN = Pattern(
    id="ICE-TURN-FAIL",
    title="TURN refuses, or its permission or allocation runs out",
    severity=Severity.HIGH,
    cases=("webrtc-through-turn",),
    needs=("stun", "allocations", "turn_peers", "quality"),
    references=(Reference("RFC 8656 §3.2, §5, §8.3, §9, §12, §19"), Reference("RFC 8489 §9.2.4, §9.2.5, §14.8")),
    filter="stun.att.error.class in {4, 5} || stun.type.method in {0x0003, 0x0004, 0x0008, 0x0009}",
    mitigation="For 401 give the client fresh credentials and compare the clocks; for 486 and 508 raise quota or "
               "ports; for 403 allow the peer range; for a lapse restart ICE.",
    fix="Refresh permissions before 300 s, channels before 600 s and allocations before their lifetime; issue "
        "credentials that outlive the longest call.",
    prevention="Allocate on each TURN server with real credentials every few minutes, and alert on its error codes.",
    next_capture="Capture at the TURN server on both of its legs: does data of the peer arrive that is not relayed?",
    settings=(Setting("slack", 5, "s", "practice: distance of the last data from the end of what was granted"),
              Setting("wait", 1, "s", "practice: a client that has an answer to the error has sent it by then")),
    explains=("ICE-CHECKS-FAIL", "ICE-CONSENT-LOST"),
)
ALLOCATE, REFRESH, PERMISSION, CHANNEL = 3, 4, 8, 9
NAMES = {ALLOCATE: "Allocate", REFRESH: "Refresh", PERMISSION: "CreatePermission", CHANNEL: "ChannelBind"}
CODES = {
    400: "Bad Request", 401: "Unauthenticated", 403: "Forbidden", 437: "Allocation Mismatch", 438: "Stale Nonce",
    440: "Address Family not Supported", 441: "Wrong Credentials", 442: "Unsupported Transport Protocol",
    443: "Peer Address Family Mismatch", 486: "Allocation Quota Reached", 508: "Insufficient Capacity",
}
TRY_ALTERNATE = 300
BY_PEER = (403, 443)
REACTED = 3
"""The same error so often is no first answer that the client has not seen yet (practice)."""
PERMISSION_NS, CHANNEL_NS = 300_000_000_000, 600_000_000_000
"""RFC 8656 §9, §12."""
DETAILED = 200
"""Clients whose frames are listed; the others of a flood are counted (practice)."""
Row = dict[str, Any]


class _Lapse(NamedTuple):
    what: str
    end_ns: int
    methods: tuple[int, ...]
    granted_ns: int
    peer: TurnPeer
    heard_ns: int
    """Last data of the peer that the grant let through, and its packet."""
    heard_packet: int | None
    sent_ns: int


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Errors that nothing better follows, and data that stops when a grant ends."""
    asked = tables.stun.filter(pl.col("method").is_in(list(NAMES)) & (pl.col("sends") > 0))
    if not asked.height and not tables.turn_peers.height:
        return not_applicable("no TURN in this capture")
    context = _Context(tables, asked)
    last = dict(tables.quality.select("point", "last_ns").iter_rows())
    wrong = [row for row in asked.filter(pl.col("response") == "error").iter_rows(named=True)
             if not context.harmless(row)]
    failed: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in wrong:
        failed[tuple(row[n] for n in ("point", "client", "client_port", "server", "method", "error"))].append(row)
    # Who got the same error three times has reacted to it.
    fresh = [key for key, several in failed.items() if len(several) < REACTED and last[several[0]["point"]]
             - min(row["response_ns"] for row in several) < settings["wait"] * 1e9]
    young = sum(len(failed.pop(key)) for key in fresh)
    lapses = [lapse for peer in rows(tables.turn_peers, TurnPeer) for lapse in context.lapses(peer, settings["slack"])]
    occurrences = [context.refused(several, i < DETAILED) for i, several in enumerate(failed.values())]
    occurrences += [context.lapsed(lapse, i < DETAILED) for i, lapse in enumerate(lapses)]
    if occurrences:
        ends = asked.unique(["point", "server", "client", "client_port"], keep="first").iter_rows(named=True)
        clients = Counter(server for server, _ in {(row["server"], context.client_of(row)) for row in ends})
        return found(occurrences, population="clients",
                     examined={o.group: max(clients[o.group[0]], 1) for o in occurrences})
    if young:
        return inconclusive(f"the capture ends right behind {number_of(young, 'TURN errors')}, before the client can "
                            "react",
                            "Capture until the client has an allocation, or gives up.")
    return clear(f"{number_of(asked.height, 'TURN requests')}; what was refused was granted to a later one, the same "
                 "host and user had another allocation, or it was not needed; nothing ran out under way")


class _Context:
    def __init__(self, tables: Tables, asked: pl.DataFrame) -> None:
        self._tables, self._asked = tables, asked
        self._allocations: dict[tuple[str, str, str | None], list[Allocation]] = defaultdict(list)
        self._by_flow: dict[int, list[Allocation]] = defaultdict(list)
        for a in rows(tables.allocations, Allocation):
            self._allocations[a.point, a.client, a.username].append(a)
            self._by_flow[a.flow].append(a)
        done = asked.filter(pl.col("response") == "success")
        key = ["point", "client", "username", "method", "peer"]
        latest = done.group_by(key).agg(pl.col("response_ns").max())
        self._done = {tuple(k): ns for *k, ns in latest.iter_rows()}
        heard = tables.turn_peers.filter(pl.col("received") > 0).group_by("flow").agg(pl.col("received_last_ns").max())
        self._heard = dict(heard.iter_rows())
        self._relayed = set(heard["flow"])
        self._inner: dict[bytes, str] = {}
        if len(tables.points) > 1:
            ends = asked.select("id", "client", "client_port", "server", "server_port")
            for tid, client, port, server, server_port in ends.filter(pl.col("id").is_duplicated()).iter_rows():
                if tid not in self._inner or not routable(client):
                    self._inner[tid] = f"{client}:{port} → {server}:{server_port}"

    def client_of(self, row: Row) -> str:
        """Client and server, the same at each capture point: behind a NAT by the client's own address."""
        return self._inner.get(row["id"], f"{row['client']}:{row['client_port']} → "
                                          f"{row['server']}:{row['server_port']}")

    def harmless(self, row: Row) -> bool:
        """Was this error part of the game, or made good?"""
        code, at = row["error"], row["response_ns"]
        if code == TRY_ALTERNATE or (code == 401 and not row["signed"]) or row["lifetime_asked"] == 0:
            return True
        mine = self._allocations.get((row["point"], row["client"], row["username"]), [])
        if row["method"] == ALLOCATE:
            return any(a.granted_ns > at or a.granted_ns <= at < a.lapses_ns for a in mine)
        later = self._done.get((row["point"], row["client"], row["username"], row["method"], row["peer"]))
        if (later is not None and later > at) or self._heard.get(row["flow"], 0) > at:
            return True
        return any(a.granted_ns > at for a in mine) or (code in BY_PEER and row["flow"] in self._relayed)

    def refused(self, several: list[Row], detailed: bool) -> Occurrence:
        first, last = several[0], several[-1]
        code, method = first["error"], NAMES[first["method"]]
        name = f"{code} {CODES[code]}" if code in CODES else f"error {code}"
        client = f"{first['client']}:{first['client_port']}"
        reasons = [f"{name} to {number_of(len(several), f'{method} requests')}"
                   + (" with credentials" if first["signed"] else ""),
                   "no later success of this client, and nothing is relayed for it after that"]
        over, told = ended(last["username"] or "", last["first_ns"]) if code == 401 else (0, "")
        reasons += [told] if told else []
        if code == 438:
            reasons.append("no request with the new nonce gets through")
        if first["peer"] is not None:
            reasons.append(f"the peer is {first['peer']}")
        facts: dict[str, str | int | float] = {
            "source.ip": first["client"], "destination.ip": first["server"], "stun.method": method, "stun.error": code}
        if over:
            facts["turn.credentials_ended_s"] = over
        cited = [p for row in (first, last) for p in (*row["request_packets"][:1], *row["response_packets"][:1])]
        return Occurrence(
            subject=self.client_of(first), group=(first["server"], method, str(code)),
            title=f"TURN server refuses {method} with {name}",
            summary=f"{first['server']} refuses {method} of {client} with {name}.", confidence=Confidence.CONFIRMED,
            reasons=tuple(reasons), evidence=self._tables.evidence(cited, facts) if detailed else (),
            scope={"destination.ip": first["server"], "stun.error": code},
            flows=tuple(sorted({row["flow"] for row in several})),
            keys=frozenset({f"host:{first['client']}", f"host:{first['server']}"}), start_ns=first["first_ns"],
            end_ns=last["response_ns"], mitigation=DO_NOW.get(code, ""), next_capture=TOLD)

    def lapses(self, peer: TurnPeer, slack: float) -> Iterator[_Lapse]:
        """Grants whose end is the end of the peer's data, while the client goes on; the first that fits."""
        data = peer.received_last_ns, peer.received_last_packet, peer.sent_last_ns
        ends: list[tuple[str, int, tuple[int, ...], int, tuple[int | None, int | None, int | None]]] = []
        if peer.permitted_ns:
            ends.append(("permission", PERMISSION_NS, (PERMISSION, CHANNEL), peer.permitted_ns[-1], data))
        if peer.bound_ns:
            ends.append(("channel", CHANNEL_NS, (CHANNEL,), peer.bound_ns[-1], (
                peer.channel_received_last_ns, peer.channel_received_last_packet, peer.channel_sent_last_ns)))
        for a in self._by_flow.get(peer.flow, [])[-1:]:
            granted = a.refreshed_ns[-1] if a.refreshed_ns else a.granted_ns
            ends.append(("allocation", a.lapses_ns - granted, (ALLOCATE, REFRESH), granted, data))
        for what, lifetime, methods, granted, (heard, packet, sent) in ends:
            end = granted + lifetime
            if heard is None or sent is None:
                continue
            if abs(heard - end) <= slack * 1e9 and sent >= end + slack * 1e9:
                yield _Lapse(what, end, methods, granted, peer, heard, packet, sent)
                return

    def lapsed(self, lapse: _Lapse, detailed: bool) -> Occurrence:
        peer = lapse.peer
        age = (lapse.end_ns - lapse.granted_ns) / 1e9
        client = f"{peer.client}:{peer.client_port}"
        of_flow = self._asked.filter((pl.col("flow") == peer.flow) & pl.col("method").is_in(lapse.methods))
        grant = of_flow.filter(pl.col("response_ns") == lapse.granted_ns)
        tried = of_flow.filter((pl.col("first_ns") > lapse.granted_ns) & pl.col("response").is_null()
                               & (pl.col("first_ns") < lapse.end_ns)).height
        off = (lapse.heard_ns - lapse.end_ns) / 1e9
        reasons = [f"data of {peer.peer} ends {abs(off):.1f} s {'before' if off < 0 else 'after'} the end of the "
                   f"{lapse.what}, {age:.0f} s after it was granted last",
                   f"{client} goes on sending for {(lapse.sent_ns - lapse.end_ns) / 1e9:.0f} s"]
        if lapse.what == "channel" and (peer.received_last_ns or 0) > lapse.heard_ns:
            reasons.append("the server goes on with Data indications, and drops ChannelData of the client")
        reasons.append(f"{number_of(tried, 'requests')} to renew it found no "
                       "answer" if tried else "no request to renew it is here")
        effect = "data of the peer ends with it"
        if lapse.what == "channel":
            effect = "what the client sends by it is dropped"
        cited = [p for column in ("request_packets", "response_packets") for p in grant[column].list.first().to_list()]
        cited += [p for p in (lapse.heard_packet, peer.sent_last_packet) if p is not None]
        facts: dict[str, str | int | float] = {
            "source.ip": peer.client, "destination.ip": peer.server, "turn.peer": peer.peer, "turn.age_s": age}
        return Occurrence(
            subject=f"{client} → {peer.server}:{peer.server_port}", group=(peer.server, f"{lapse.what} ran out"),
            title=f"TURN {lapse.what} runs out under way",
            summary=f"The {lapse.what} of {client} for {peer.peer} at {peer.server} ran out after {age:.0f} s, and "
                    f"{effect}.",
            confidence=Confidence.PROBABLE, reasons=tuple(reasons),
            evidence=self._tables.evidence(cited, facts) if detailed else (), scope={"destination.ip": peer.server},
            flows=(peer.flow,), keys=frozenset({f"host:{peer.client}", f"host:{peer.server}", f"host:{peer.peer}"}),
            absence=True, mitigation=LAPSED, constant=age, start_ns=lapse.granted_ns, end_ns=lapse.sent_ns,
            alternatives=(Alternative("the peer stopped sending at that moment", f"its data ends {abs(off):.1f} s off",
                                      "the client goes on as if it had not"),))
