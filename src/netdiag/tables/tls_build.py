"""Finds the connections that speak TLS and builds the frames of handshakes, alerts and certificates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from netdiag.decode import tls_alerts
from netdiag.decode import tls_records as rec
from netdiag.decode.keylog import KeyLog
from netdiag.tables.certs import Certificate, CertificateStore
from netdiag.tables.columns import frame_of
from netdiag.tables.packets import I64, KIND_TLS
from netdiag.tables.packets import U32 as Rows
from netdiag.tables.schema import empty, schema
from netdiag.tables.streams import Stream
from netdiag.tables.tls import Alert, Handshake
from netdiag.tables.tls_handshake import Facts, ReadAlert, assemble, choose_alert
from netdiag.tables.tls_refusal import hidden_alert

if TYPE_CHECKING:
    from netdiag.tables import Tables

FIRST_LIMIT = 1 << 15
"""Bytes of a direction that are read at first: usual handshakes have some 6 kB (practice)."""
LIMIT = rec.MAX_MESSAGE + (1 << 18)
"""Bytes read when that was not enough: one message of the largest size that is read, and what goes around it."""
MAX_HANDSHAKES = 200_000
"""Handshakes that are read (practice: 0.2 ms and some 2 kB of memory each)."""
MAX_ALERTS = 200_000
"""Alerts that become rows (practice): seven bytes make one."""

_COLUMNS = ("connection", "flow", "point", "client", "client_port", "server", "server_port", "first_packet",
            "last_packet", "packets_client", "packets_server", "midstream", "fin_client_packet", "fin_server_packet",
            "rst_packets", "acked_unseen")


_HANDSHAKE_CELLS = itemgetter(*schema(Handshake))
_ALERT_CELLS = itemgetter(*schema(Alert))


class _Starts(NamedTuple):
    """TLS records at the start of a segment, of flows worth a look; by flow, then in order of time."""

    row: Rows
    """Packet row."""
    flow: Rows
    type: np.ndarray[Any, np.dtype[np.uint8]]
    head: np.ndarray[Any, np.dtype[np.uint8]]
    """First bytes, shape (n, 7)."""
    first_row: int
    """First packet of all."""

    def ranges(self, connections: pl.DataFrame) -> pl.DataFrame:
        """Adds to each connection what lies between its first and last packet: ``from`` and ``to`` (indices), and how
        many ``handshakes`` and ``alerts`` are among them."""
        place = self.flow.astype(np.int64) << 32 | self.row
        flow = connections["flow"].to_numpy().astype(np.int64) << 32
        a = place.searchsorted(flow | connections["first_packet"].to_numpy())
        b = place.searchsorted(flow | connections["last_packet"].to_numpy(), side="right")
        counts: dict[str, I64] = {}
        for name, kind in (("handshakes", rec.HANDSHAKE), ("alerts", rec.ALERT)):
            before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.type == kind)])
            counts[name] = before[b] - before[a]
        added = [pl.Series("from", a), pl.Series("to", b), *(pl.Series(n, c) for n, c in counts.items())]
        return connections.with_columns(added).filter(pl.col("to") > pl.col("from"))

    def of(self, c: dict[str, Any], kind: int) -> I64:
        """Indices of the records of one type that belong to a connection."""
        a: int = c["from"]
        return a + np.flatnonzero(self.type[a : c["to"]] == kind)


@dataclass(slots=True)
class _Builder:
    tables: Tables
    starts: _Starts
    keys: KeyLog
    store: CertificateStore = field(default_factory=CertificateStore)
    handshakes: list[tuple[Any, ...]] = field(default_factory=list)
    alerts: list[tuple[Any, ...]] = field(default_factory=list)
    left_out: dict[str, list[int]] = field(default_factory=dict)
    """What is beyond a limit: [how many, first packet]."""

    def read(self, connections: pl.DataFrame) -> None:
        """Reads all connections, rows of ``_Starts.ranges``."""
        wanted = connections.filter(pl.col("handshakes") > 0)["connection"]
        streams = self.tables.streams.each(wanted.to_list(), FIRST_LIMIT)
        for c in connections.iter_rows(named=True):
            if len(self.handshakes) >= MAX_HANDSHAKES:
                self._leave_out(f"TLS connections behind the first {MAX_HANDSHAKES} handshakes not read",
                                c["first_packet"])
                continue
            self._connection(c, self._read(c["connection"], *next(streams)) if c["handshakes"] else None)

    def _connection(self, c: dict[str, Any], facts: Facts | None) -> None:
        late, sealed = self._late_alerts(c, facts) if c["alerts"] else ([], [])
        if facts is None:
            self._add_alerts(c, late, None)
            return
        self._finish(c, facts, late, sealed)
        if facts.problems:
            for (reason, packet), count in Counter(facts.problems).items():
                self.tables.anomaly_log.add("handshakes", reason, packet, count)
        number = facts.values["handshake"] = len(self.handshakes)
        self.handshakes.append(_HANDSHAKE_CELLS(facts.values))
        self._add_alerts(c, facts.alerts, number)

    def _read(self, connection: int, first: Stream, second: Stream) -> Facts | None:
        facts = assemble(first, second, self.store, self.keys)
        if (first.truncated or second.truncated) and (facts is None or (facts.cut and not facts.finished)):
            facts = assemble(*self.tables.streams.both(connection, LIMIT), self.store, self.keys)
        return facts

    def _late_alerts(self, c: dict[str, Any],
                     facts: Facts | None) -> tuple[list[ReadAlert], list[tuple[int, str]]]:
        """Alerts at the start of a segment that the streams did not reach: (in clear, encrypted)."""
        packets = self.tables.packets
        seen: dict[str, int] = {}
        if facts is not None:
            for by, half in (("client", facts.client), ("server", facts.server)):
                if half is not None and half.side.records:
                    seen[by] = half.packet(half.side.records[-1].end)
        clear: list[ReadAlert] = []
        sealed: list[tuple[int, str]] = []
        sent: set[tuple[str, int]] = set()
        swapped = facts is not None and facts.values["swapped"]
        found = self.starts.of(c, rec.ALERT)
        both = min(seen.get("client", -1), seen.get("server", -1))
        for i in found[self.starts.row[found] > both].tolist():
            row = int(self.starts.row[i])
            by = self._sender(c, row, swapped)
            number = int(packets.tcp.seq[np.searchsorted(packets.tcp.row, row)])
            if row <= seen.get(by, -1) or (by, number) in sent:
                continue
            sent.add((by, number))  # a retransmission is the same alert
            head = self.starts.head[i]
            size = int(head[3]) << 8 | int(head[4])
            if size == 2 and head[5] in (1, 2):
                clear.append(ReadAlert(row, int(packets.ts[row]), by, int(head[5]), int(head[6])))
            elif facts is not None and 2 < size <= rec.MAX_RECORD:
                sealed.append((row, by))
        return clear, sealed

    def _sender(self, c: dict[str, Any], row: int, swapped: bool) -> str:
        packets = self.tables.packets
        client = int(packets.sport[row]) == c["client_port"]
        if c["client_port"] == c["server_port"]:
            client = packets.source(row) == c["client"]
        return "client" if client != swapped else "server"

    def _finish(self, c: dict[str, Any], facts: Facts, late: list[ReadAlert],
                sealed: list[tuple[int, str]]) -> None:
        v = facts.values
        swapped = v["swapped"]
        for name in ("connection", "flow", "point"):
            v[name] = c[name]
        ends = ("server", "client") if swapped else ("client", "server")
        for role, column in zip(("client", "server"), ends, strict=True):
            v[role], v[f"{role}_port"] = c[column], c[f"{column}_port"]
        if late or (sealed and v["alert_packet"] is None):
            facts.alerts = sorted([*facts.alerts, *late], key=lambda a: a.packet)
            known = [(v["alert_packet"], v["alert_by"])] if v["alert_encrypted"] else []
            choose_alert(v, facts.alerts, known + sealed)
            v["end_ns"] = max([v["end_ns"], *(a.ts for a in late)])
        if facts.cut and not v["completed"] and (v["version"] or 0x0303) < 0x0304:
            # Behind bytes that are missing, application data both ways shows that the handshake went through.
            data = self.starts.of(c, rec.APPLICATION_DATA)
            by = {self._sender(c, int(row), swapped) for row in self.starts.row[data[[0, -1]]]} if len(data) else set()
            if len(by) < 2 and len(data) > 2:
                by |= {self._sender(c, int(row), swapped) for row in self.starts.row[data[:64]]}
            v["completed"] = len(by) == 2
            v["application_data"] |= bool(by)
        self._close(c, facts, swapped)
        hidden_alert(facts, v["close_packet"])
        missing = facts.cut or c["midstream"] or c["acked_unseen"] or not c["packets_client"] or not c["packets_server"]
        v["truncated"] = v["client_hello_packet"] is None or bool(missing and not self._whole(facts))

    @staticmethod
    def _whole(facts: Facts) -> bool:
        """Was everything read up to the end of the handshake, or up to the alert that ended it?"""
        v = facts.values
        if v["alert"] is not None and v["alert_by"] is not None and not facts.cut:
            return True
        return bool(v["completed"]) and v["server_hello_packet"] is not None and (
            v["version"] >= 0x0304 or v["resumed"] or v["certificate_packet"] is not None or not facts.cut)

    def _close(self, c: dict[str, Any], facts: Facts, swapped: bool) -> None:
        v = facts.values
        closes: list[tuple[int, str, str]] = []
        for column, side in (("fin_client_packet", "client"), ("fin_server_packet", "server")):
            if c[column] is not None:
                by = side if not swapped else ("server" if side == "client" else "client")
                closes.append((c[column], by, "fin"))
        if c["rst_packets"]:
            closes.append((c["rst_packets"][0], self._sender(c, c["rst_packets"][0], swapped), "rst"))
        v |= {"closed_by": None, "closed_how": None, "close_packet": None, "close_after_certificate_s": None}
        if not closes:
            return
        v["close_packet"], v["closed_by"], v["closed_how"] = min(closes)
        shown = v["certificate_packet"]
        if shown is None or v["close_packet"] < shown:
            return
        client = facts.client
        last = next((r for r in reversed(client.side.records) if r.type != rec.ALERT), None) if client else None
        if client is not None and not client.side.cut and (last is None or client.packet(last.end) <= shown):
            ts = self.tables.packets.ts
            v["close_after_certificate_s"] = int(ts[v["close_packet"]] - ts[shown]) / 1e9

    def _add_alerts(self, c: dict[str, Any], alerts: list[ReadAlert], handshake: int | None) -> None:
        room = MAX_ALERTS - len(self.alerts)
        if len(alerts) > room:
            self._leave_out(f"TLS alerts behind the first {MAX_ALERTS} left out", alerts[room].packet,
                            len(alerts) - room)
        for alert in alerts[:room]:
            values = {"packet": alert.packet, "point": c["point"], "ts_ns": alert.ts, "connection": c["connection"],
                      "handshake": handshake, "by": alert.by, "level": alert.level,
                      "description": alert.description, "name": tls_alerts.name(alert.description)}
            self.alerts.append(_ALERT_CELLS(values))

    def _leave_out(self, reason: str, packet: int, count: int = 1) -> None:
        self.left_out.setdefault(reason, [0, packet])[0] += count


def _starts(tables: Tables) -> _Starts:
    packets = tables.packets
    row = np.flatnonzero(packets.kind == KIND_TLS).astype(np.uint32)
    flow, head = packets.flow[row], packets.head(row, 7)
    # Flows where neither a handshake record nor an alert starts a segment have nothing for these tables.
    worth = (head[:, 0] == rec.HANDSHAKE) | (head[:, 0] == rec.ALERT)
    keep = np.flatnonzero(np.isin(flow, np.unique(flow[worth])))
    order = keep[np.argsort(flow[keep], kind="stable")]
    return _Starts(row[order], flow[order], head[order, 0], head[order], int(row[0]) if len(row) else 0)


def build(tables: Tables) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """See ``netdiag.tables.tls.build``."""
    keys = tables.keylog
    starts = _starts(tables)
    if not len(starts.row):
        return empty(Handshake), empty(Alert), empty(Certificate)
    builder = _Builder(tables, starts, keys)
    wanted = pl.Series("flow", np.unique(starts.flow))
    builder.read(starts.ranges(tables.tcp.select(_COLUMNS).filter(pl.col("flow").is_in(wanted.implode()))))
    store = builder.store
    if keys.garbage:
        tables.anomaly_log.add("handshakes", "key log line that is no secret", starts.first_row, keys.garbage)
    if store.refused:
        tables.anomaly_log.add("certs", "distinct certificates beyond what is kept", starts.first_row, store.refused)
    for reason, (count, packet) in builder.left_out.items():
        tables.anomaly_log.add("handshakes", reason, packet, count)
    for cert in store.rows:
        if cert.problem:
            tables.anomaly_log.add("certs", f"certificate: {cert.problem}", cert.first_packet)
    certs = frame_of(Certificate, {n: [getattr(r, n) for r in store.rows] for n in schema(Certificate)})
    return (frame_of(Handshake, _columns(Handshake, builder.handshakes)),
            frame_of(Alert, _columns(Alert, builder.alerts)).sort("packet"), certs)


def _columns(row: type, cells: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    names = list(schema(row))
    return {n: list(c) for n, c in zip(names, zip(*cells, strict=True) if cells else [()] * len(names), strict=True)}
