"""A registrar must reach a client over the TCP or TLS connection that the client opened, and it is gone.

A client behind a NAT or firewall registers over a connection from an ephemeral port; requests for it must come back
over that connection (RFC 5626 §5.3), since nobody listens at its port. When the connection has died (idle time-out of
a device, no keep-alive, restart of a load balancer, a sleeping phone) while the registration has not, the server
opens a new one to the Contact or the old source port. Its SYN is not answered, or is refused. Or it does not try, and
answers the caller with 430 (Flow Failed, §11.5) or 480. Calls to the client fail until it registers again, while
those that it makes itself work. Met where the SYN is sent twice or more without an answer, or is reset, to the source
port or Contact port of a registration over TCP that has not expired; with TLS and no keys, where a server of SIP
ports opens a connection to the very port from which a client had spoken to it.

**What lifts the suspicion.** The end of the old connection is seen (FIN, RST, data that is not acknowledged any more),
or it was silent for longer than the shortest idle time-out of load balancers, 240 s (probable). The client registers
again later, over a new connection (confirmed, where the registrations can be read).

**What looks alike and is not it.** Trunk peers open connections in both directions, and are answered. A client that
changed its network registers again within seconds. One that started again has closed its connection itself and speaks
over a newer one, where calls reach it; its old registration, of which it did not take leave, dies in silence. An
expired or removed registration is no promise. A 480 while the connection lives comes from the user's side.
"""

from __future__ import annotations

from collections import Counter

import polars as pl

from netdiag.detectors.sip._stream_bindings import (
    FLOW_FAILED,
    PORTS,
    UNAVAILABLE,
    Row,
    bindings,
    calls,
    newer,
    to_registered,
    to_spoken,
)
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
    not_applicable,
    number_of,
)
from netdiag.tables import Tables
from netdiag.tables.addresses import endpoint
from netdiag.tables.schema import rows
from netdiag.tables.tcp import Connection

PATTERN = Pattern(
    id="SIP-FLOW-LOST",
    title="The connection over which a client registered is gone: calls to it fail",
    severity=Severity.HIGH,
    cases=("registration-outlives-nat-binding",),
    needs=("tcp", "sip", "transactions", "registrations", "packets"),
    references=(Reference("RFC 5626 §4.4, §5.3, §11.5"), Reference("RFC 5923"), Reference("RFC 3261 §18")),
    filter="(tcp.flags.syn == 1 && tcp.flags.ack == 0) || sip.Status-Code == 430 || sip.Status-Code == 480",
    mitigation="Let the clients send CRLF keep-alives more often than the shortest idle time-out on the path.",
    fix="Use outbound (RFC 5626) with two flows and Flow-Timer, and push (RFC 8599) for clients that sleep.",
    prevention="Compare what is registered with the connections that live, and raise an alarm on the difference.",
    next_capture="Capture at the registrar from a registration until a call to it fails; with TLS, with a key log.",
    settings=(Setting("min_syns", 2, "SYNs", "practice: one may be lost"),
              Setting("idle", 240, "s", "Azure load balancer default: the shortest of common TCP idle time-outs"),
              Setting("grace", 10, "s", "practice: a client that changed its network registers again by then")),
    explains=("FW-SYN-DROP", "FW-REJECT"),
)

DETAILED = 1000
"""Failed connections and calls that are looked at closely (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Connections to registered clients that fail, and calls that are answered with 430 or 480 for want of one."""
    bound = bindings(tables)
    spoken = tables.tcp.filter(
        pl.col("server_port").is_in(PORTS) & (pl.col("data_client") > 0) & (pl.col("data_server") > 0))
    refused = tables.transactions.filter(
        (pl.col("method") == "INVITE") & pl.col("status").is_in([FLOW_FAILED, UNAVAILABLE]) & ~pl.col("midstream"))
    if not len(bound) and not len(spoken) and not refused["status"].eq(FLOW_FAILED).any():
        return not_applicable("no registration over TCP and no answered connection to a SIP port in this capture")
    failed = tables.tcp.filter(
        ~pl.col("midstream") & ~pl.col("established")
        & (pl.col("refused") | (pl.col("syn_packets").list.len() >= settings["min_syns"])))
    context = _Context(tables, settings, bound)
    occurrences = [o for row in [*to_registered(failed, bound), *to_spoken(failed, spoken, bound)][:DETAILED]
                   if (o := context.connection(row))]
    occurrences += [o for row in calls(tables, refused, bound)[:DETAILED] if (o := context.call(row))]
    if not occurrences:
        return clear(f"{number_of(len(bound), 'registrations')} over TCP, {number_of(len(spoken), 'connections')} to "
                     "SIP ports; nobody is seen to miss one that is gone")
    counts = Counter(bound.unique(["registrar", "aor"])["registrar"].to_list())
    return found(occurrences, population="registered clients", examined={(h,): n for h, n in counts.items()})


class _Context:
    def __init__(self, tables: Tables, settings: dict[str, float], bound: pl.DataFrame) -> None:
        self._tables, self._settings, self._bound = tables, settings, bound
        self._grace_ns = int(settings["grace"] * 1e9)

    def _old(self, row: Row) -> Connection | None:
        """The connection over which the client had registered or spoken."""
        if row.get("old_flow") is None:
            return None
        mine = self._tables.tcp.filter((pl.col("flow") == row["old_flow"]) & (pl.col("first_ns") <= row["ts_ns"])
                                       & (pl.col("last_ns") >= row["ts_ns"]))
        return next(rows(mine, Connection), None)

    def _death(self, old: Connection, before_ns: int) -> tuple[str, list[int], bool]:
        """How the old connection ended before that time: a clause, packets, and whether it was closed."""
        ends = [p for p in (old.fin_client_packet, old.fin_server_packet, *old.rst_packets) if p is not None]
        times = self._tables.packets.ts
        gone = sorted(p for p in ends if times[p] < before_ns)
        if gone:
            by_server = gone[0] == old.fin_server_packet
            how = "reset" if gone[0] in old.rst_packets else f"closed by the {'server' if by_server else 'client'}"
            # Whoever answers a FIN with RST did not know the connection any more.
            refused = ", whose FIN was answered with RST" if by_server and set(gone[1:2]) & set(old.rst_packets) else ""
            before_s = (before_ns - int(times[gone[0]])) / 1e9
            return f"its connection was {how} {before_s:.0f} s before{refused}", gone[:2], True
        if old.last_ns >= before_ns:
            return "", [], False
        if old.tail_server_unacked > 1:
            return (f"on its connection the server sent {old.tail_server_unacked} times without an ACK",
                    [old.last_packet], False)
        silent = (before_ns - old.last_ns) / 1e9
        return ((f"its connection had been silent for {silent:.0f} s", [old.last_packet], False)
                if silent >= self._settings["idle"] else ("", [], False))

    def _again(self, row: Row, at_ns: int) -> tuple[bool, str, list[int]]:
        """Whether the device registered again in time (or took leave); else what tells that it did so later."""
        later = row.get("next_ts_ns")
        if later is None:
            return False, "", []
        if later <= at_ns + self._grace_ns:
            return True, "", []
        if row["next_source_port"] == row["source_port"]:
            return False, "", []
        return False, f"it registers again {(later - at_ns) / 1e9:.0f} s later, over a new connection", [
            row["next_request_packet"]]

    def connection(self, row: Row) -> Occurrence | None:
        """A SYN of the server to the client that was refused or not answered."""
        client, port, at_ns = row["server"], row["server_port"], row["first_ns"]
        soon, later, again = self._again(row, at_ns)
        old = self._old(row)
        left = old is not None and "by the client" in self._death(old, at_ns)[0]
        if soon or (left and old and newer(self._tables, row, self._bound, old, at_ns + self._grace_ns)):
            return None
        syns = row["syn_packets"]
        what = "is reset" if row["refused"] else f"is not answered ({len(syns)} SYNs)"
        where = "from which it had spoken to the server" if not row["aor"] else (
            "from which it had registered" if port == row["source_port"] else "of its Contact")
        reasons = [f"a new connection to {endpoint(client, port)}, the port {where}, {what}"]
        return self._made(row, row["aor"] or endpoint(client, port), row["client"], at_ns, reasons, later, [
            *syns, *row["rst_packets"], *again], not row["refused"], client)

    def call(self, row: Row) -> Occurrence | None:
        """A call that the server refuses with 430, or with 480 although the registration holds."""
        soon, later, again = self._again(row, row["first_ns"])
        old = self._old(row)
        closed = old is not None and self._death(old, row["first_ns"])[2]
        if soon or (row["status"] == UNAVAILABLE and not closed):
            return None
        reasons = [f"{row['server']} answers a call to it with {row['status']}"
                   + (" (Flow Failed)" if row["status"] == FLOW_FAILED else ", although its registration holds")]
        sip = self._tables.sip["packet"]
        cited = [sip[row["request"]], sip[row["final_message"]], *again]
        return self._made(row, row["aor"] or row["call_id"], row["server"], row["first_ns"], reasons, later, cited,
                          False, row.get("source") or "", {f"call:{row['call_id']}"})

    def _made(self, row: Row, subject: str, server: str, at_ns: int, reasons: list[str], later: str, cited: list[int],
              absence: bool, client: str, keys: set[str] | None = None) -> Occurrence:
        old = self._old(row)
        death, packets, _ = self._death(old, at_ns) if old is not None else ("", [], False)
        confidence = Confidence.PROBABLE if death else Confidence.SUSPECTED
        reasons += [death] if death else []
        if later:
            confidence = Confidence.CONFIRMED if death else confidence
            reasons.append(later)
        cited = [*cited, *packets, *([row["request_packet"]] if row.get("request_packet") is not None else [])]
        who = row["aor"] or client
        names = {f"aor:{row['aor']}"} if row["aor"] else set()
        seen = (pl.col("client") == client) & (pl.col("last_ns") > at_ns)
        unseen = not later and not self._tables.tcp.filter(seen).height
        flows = {f for f in (row.get("flow"), old.flow if old is not None else None) if f is not None}
        return Occurrence(
            subject=subject, group=(server,), summary=f"{server} cannot reach {who}: {reasons[0]}.",
            confidence=confidence, reasons=tuple(reasons),
            evidence=self._tables.evidence(cited, {"destination.ip": client or server}),
            scope={"source.ip": server, "destination.ip": client}, flows=tuple(flows),
            keys=frozenset({f"host:{server}", *names, *(keys or set())} | ({f"host:{client}"} if client else set())),
            absence=absence, start_ns=int(row.get("ts_ns") or at_ns), end_ns=at_ns, alternatives=(
                Alternative("the client is off or has left the network",
                            "nothing else of it is seen since" if unseen else "", later),
                Alternative("a device on the path forgot the idle connection",
                            death if "silent" in death or "with RST" in death else "",
                            death if "by the client" in death else "")))
