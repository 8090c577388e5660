"""Finds the connections that speak TLS and builds the frames of handshakes, alerts and certificates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from netdiag.decode import keylog, tls_alerts
from netdiag.decode import tls_records as rec
from netdiag.decode.keylog import KeyLog
from netdiag.tables.certs import Certificate, CertificateStore
from netdiag.tables.columns import frame_of
from netdiag.tables.packets import KIND_TLS
from netdiag.tables.packets import U32 as Rows
from netdiag.tables.schema import empty, schema
from netdiag.tables.tls import Alert, Handshake
from netdiag.tables.tls_handshake import Facts, ReadAlert, assemble, choose_alert

if TYPE_CHECKING:
    from netdiag.tables import Tables

FIRST_LIMIT = 1 << 15
"""Bytes of a direction that are read at first: usual handshakes have some 6 kB (practice)."""
LIMIT = rec.MAX_MESSAGE + (1 << 18)
"""Bytes read when that was not enough: one message of the largest size that is read, and what goes around it."""
MAX_HANDSHAKES = 200_000
"""Handshakes that are read (practice: 0.4 ms and some 2 kB of memory each)."""
MAX_ALERTS = 200_000
"""Alerts that become rows (practice): seven bytes make one."""

_COLUMNS = ("connection", "flow", "point", "client", "client_port", "server", "server_port", "first_packet",
            "last_packet", "packets_client", "packets_server", "midstream", "fin_client_packet", "fin_server_packet",
            "rst_packets", "acked_unseen")


@dataclass(slots=True)
class _Starts:
    """TLS records at the start of a segment: rows of packets, by record type, and their first bytes."""

    row: Rows
    flow: Rows
    type: np.ndarray[Any, np.dtype[np.uint8]]
    head: np.ndarray[Any, np.dtype[np.uint8]]

    def between(self, first: int, last: int, wanted: Rows) -> Rows:
        """Indices of ``wanted`` (ascending by row) that lie within these packet rows."""
        rows = self.row[wanted]
        if rows[0] >= first and rows[-1] <= last:
            return wanted
        return wanted[np.searchsorted(rows, first) : np.searchsorted(rows, last, side="right")]


@dataclass(slots=True)
class _Builder:
    tables: Tables
    starts: _Starts
    by_flow: dict[int, Rows]
    keys: KeyLog
    store: CertificateStore = field(default_factory=CertificateStore)
    handshakes: dict[str, list[Any]] = field(default_factory=lambda: {n: [] for n in schema(Handshake)})
    alerts: dict[str, list[Any]] = field(default_factory=lambda: {n: [] for n in schema(Alert)})
    left_out: dict[str, list[int]] = field(default_factory=dict)
    """What is beyond a limit: [how many, first packet]."""

    def connection(self, c: dict[str, Any]) -> None:
        """Reads one connection; ``c`` holds the columns of its row."""
        mine = self.starts.between(c["first_packet"], c["last_packet"], self.by_flow[c["flow"]])
        if not len(mine):
            return
        types = self.starts.type[mine]
        if len(self.handshakes["handshake"]) >= MAX_HANDSHAKES:
            self._leave_out(f"TLS connections behind the first {MAX_HANDSHAKES} handshakes not read", c["first_packet"])
            return
        facts = self._read(c["connection"]) if (types == rec.HANDSHAKE).any() else None
        late, sealed = self._late_alerts(c, mine[types == rec.ALERT], facts)
        if facts is None:
            self._add_alerts(c, late, None)
            return
        self._finish(c, facts, late, sealed, mine)
        for (reason, packet), count in Counter(facts.problems).items():
            self.tables.anomaly_log.add("handshakes", reason, packet, count)
        number = len(self.handshakes["handshake"])
        for name, cells in self.handshakes.items():
            cells.append(number if name == "handshake" else facts.values[name])
        self._add_alerts(c, facts.alerts, number)

    def _read(self, connection: int) -> Facts | None:
        streams = self.tables.streams
        facts = None
        for limit in (FIRST_LIMIT, LIMIT):
            first, second = streams.both(connection, limit)
            facts = assemble(first, second, self.store, self.keys)
            more = first.truncated or second.truncated
            if not more or (facts is not None and (facts.finished or not facts.cut)):
                break
        return facts

    def _late_alerts(self, c: dict[str, Any], found: Rows,
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
        for i in found.tolist():
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

    def _finish(self, c: dict[str, Any], facts: Facts, late: list[ReadAlert], sealed: list[tuple[int, str]],
                mine: Rows) -> None:
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
            data = mine[self.starts.type[mine] == rec.APPLICATION_DATA]
            by = {self._sender(c, int(row), swapped) for row in self.starts.row[data[[0, -1]]]} if len(data) else set()
            if len(by) < 2 and len(data) > 2:
                by |= {self._sender(c, int(row), swapped) for row in self.starts.row[data[:64]]}
            v["completed"] = len(by) == 2
            v["application_data"] |= bool(by)
        self._close(c, facts, swapped)
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
        room = MAX_ALERTS - len(self.alerts["packet"])
        if len(alerts) > room:
            self._leave_out(f"TLS alerts behind the first {MAX_ALERTS} left out", alerts[room].packet,
                            len(alerts) - room)
        for alert in alerts[:room]:
            values = {"packet": alert.packet, "point": c["point"], "ts_ns": alert.ts, "connection": c["connection"],
                      "handshake": handshake, "by": alert.by, "level": alert.level,
                      "description": alert.description, "name": tls_alerts.name(alert.description)}
            for name, cells in self.alerts.items():
                cells.append(values[name])

    def _leave_out(self, reason: str, packet: int, count: int = 1) -> None:
        self.left_out.setdefault(reason, [0, packet])[0] += count


def _starts(tables: Tables) -> tuple[_Starts, dict[int, Rows]]:
    """Segments that start with a TLS record, and by flow the indices of those worth a look, in order of time."""
    packets = tables.packets
    row = np.flatnonzero(packets.kind == KIND_TLS).astype(np.uint32)
    head = packets.head(row, 7)
    starts = _Starts(row, packets.flow[row], head[:, 0], head)
    # Connections where neither a handshake record nor an alert starts a segment have nothing for these tables.
    worth = (head[:, 0] == rec.HANDSHAKE) | (head[:, 0] == rec.ALERT)
    flows = np.unique(starts.flow[worth])
    keep = np.flatnonzero(np.isin(starts.flow, flows))
    order = keep[np.argsort(starts.flow[keep], kind="stable")].astype(np.uint32)
    cut = np.searchsorted(starts.flow[order], flows)
    pieces = np.split(order, cut[1:]) if len(flows) else []
    return starts, dict(zip(flows.tolist(), pieces, strict=True))


def build(tables: Tables) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """See ``netdiag.tables.tls.build``."""
    keys = keylog.read(tables.options.keylog, tables.secrets)
    starts, by_flow = _starts(tables)
    if not by_flow:
        return empty(Handshake), empty(Alert), empty(Certificate)
    builder = _Builder(tables, starts, by_flow, keys)
    wanted = pl.Series("flow", list(by_flow), dtype=pl.UInt32)
    connections = tables.tcp.filter(pl.col("flow").is_in(wanted.implode())).select(_COLUMNS)
    for c in connections.iter_rows(named=True):
        builder.connection(c)
    store = builder.store
    if keys.garbage:
        tables.anomaly_log.add("handshakes", "key log line that is no secret", int(starts.row[0]), keys.garbage)
    if store.refused:
        tables.anomaly_log.add("certs", "distinct certificates beyond what is kept", int(starts.row[0]), store.refused)
    for reason, (count, packet) in builder.left_out.items():
        tables.anomaly_log.add("handshakes", reason, packet, count)
    for cert in store.rows:
        if cert.problem:
            tables.anomaly_log.add("certs", f"certificate: {cert.problem}", cert.first_packet)
    certs = frame_of(Certificate, {n: [getattr(r, n) for r in store.rows] for n in schema(Certificate)})
    return frame_of(Handshake, builder.handshakes), frame_of(Alert, builder.alerts).sort("packet"), certs
