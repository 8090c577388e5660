"""Fact tables as lists: calls, RTP streams, TLS handshakes, TCP connections, DNS lookups.

Packet rows, which mean nothing outside, become frame numbers (``first_packet`` to
``first_frame``), and every ``…_ns`` gets a sister in ISO 8601. ``path`` is the file of the
row's first frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from netdiag.render import words
from netdiag.render.frames import TLS_VERSIONS
from netdiag.render.listing import Column, Listing, Row, field
from netdiag.render.timeline import endpoint
from netdiag.tables import rtp_reports
from netdiag.tables.calls import named
from netdiag.tables.flows import community_ids

if TYPE_CHECKING:
    from netdiag.tables import Tables

# Addresses in the capture's memory and bulk bytes: of no use outside.
_DROPPED = frozenset({"raw_offset", "raw_length", "der", "subject_der", "issuer_der"})


def of(tables: Tables, noun: str) -> Listing:
    """The listing of that name; KeyError for another one."""
    frame, columns = _LISTINGS[noun](tables)
    rows = _rows(tables, frame)
    if noun == "handshakes":
        rows = [_with_certificates(tables, row) for row in rows]
    empty = f"no {noun}"
    if noun == "handshakes" and not rows and tables.dtls.height:
        empty = f"no TLS handshakes; DTLS handshakes: {tables.dtls.height}, judged by ICE-DTLS-STALL"
    return Listing(rows, columns, empty, _fields(frame))


def _fields(frame: pl.DataFrame) -> list[str]:
    names = [n for name in frame.columns if name not in _DROPPED for n in _renamed(name)]
    return [*names, "path"]


def _renamed(name: str) -> tuple[str, ...]:
    if name.endswith("_ns"):
        return name, name.removesuffix("_ns")
    for old, new in (("packets", "frames"), ("packet", "frame"), ("messages", "frames"), ("message", "frame")):
        # Counters such as packets_client keep their name; only a suffix, or the whole, is a reference.
        if name == old or name.endswith("_" + old):
            return (name[: len(name) - len(old)] + new,) if not _counter(name) else (name,)
    return (name,)


def _counter(name: str) -> bool:
    return name in ("packets", "marker_packets", "sender_packets")


def _rows(tables: Tables, frame: pl.DataFrame) -> list[dict[str, Any]]:
    references = {name: _renamed(name)[0] for name in frame.columns
                  if not name.endswith("_ns") and _renamed(name) != (name,)}
    rows = frame.drop([n for n in frame.columns if n in _DROPPED]).to_dicts()
    messages = tables.sip["packet"].to_list() if any("message" in n for n in references) else []
    wanted: set[int] = set()
    for row in rows:
        for name in references:
            row[name] = _packets(row[name], messages if "message" in name else None)
            wanted.update(p for p in _listed(row[name]))
    where = _located(tables, sorted(wanted))
    return [_outside(tables, row, references, where) for row in rows]


def _packets(value: Any, messages: list[int] | None) -> Any:
    """A reference as packet row or list of them; a message row becomes the packet that holds it."""
    if value is None or messages is None:
        return value
    return [messages[m] for m in value] if isinstance(value, list) else messages[value]


def _listed(value: Any) -> Iterable[int]:
    return () if value is None else value if isinstance(value, list) else (value,)


def _located(tables: Tables, packets: list[int]) -> dict[int, tuple[int, int]]:
    if not packets:
        return {}
    captures, frames = tables.packets.locate(packets)
    return dict(zip(packets, zip(captures.tolist(), frames.tolist(), strict=True), strict=True))


def _outside(tables: Tables, row: Mapping[str, Any], references: Mapping[str, str],
             where: Mapping[int, tuple[int, int]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    first: int | None = None
    for name, value in row.items():
        if name in references:
            some = list(_listed(value))
            first = min([*some, *([first] if first is not None else [])], default=None)
            numbers = [where[p][1] for p in some]
            out[references[name]] = numbers if isinstance(value, list) else (numbers[0] if numbers else None)
        else:
            out[name] = value
            if name.endswith("_ns"):
                out[name.removesuffix("_ns")] = words.iso(value) if value is not None else None
    out["path"] = tables.captures[where[first][0]].path if first is not None else None
    return out


def _with_certificates(tables: Tables, row: dict[str, Any]) -> dict[str, Any]:
    """Certificate rows become what identifies a certificate."""
    for name in ("certificates", "client_certificates"):
        found = {c["cert"]: c for c in tables.certs.filter(pl.col("cert").is_in(row[name])).to_dicts()} \
            if row[name] else {}
        row[name] = [{
            "sha256": c["sha256"], "subject": c["subject"], "issuer": c["issuer"], "san_dns": c["san_dns"],
            "not_before": words.iso(c["not_before_ns"]), "not_after": words.iso(c["not_after_ns"]),
        } for c in (found[i] for i in row[name] if i in found)]
    return row


def _when(frame: pl.DataFrame, name: str, tables: Tables) -> list[Column]:
    """The time, its date in the heading when there is but one, and the point when there are several."""
    days = {words.utc(ns, 0)[:10] for ns in (frame[name].min(), frame[name].max()) if isinstance(ns, int)}
    if len(days) == 1:
        time = Column(f"{days.pop()} UTC", lambda r: words.clock(r[name]), firm=True)
    else:
        time = Column("TIME UTC", lambda r: words.utc(r[name]), firm=True)
    return [time] + ([field("POINT", "point")] if len(tables.points) > 1 else [])


def _pair(title: str, address: str, port: str) -> Column:
    return Column(title, lambda r: endpoint(r[address], r[port]), firm=True)


def _seconds(title: str, name: str, least: int = 0) -> Column:
    return Column(title, lambda r: words.duration(r[name]) if r[name] is not None else None, True, least=least)


def _first(title: str, *names: str, least: int = 0) -> Column:
    return Column(title, lambda r: next((r[n] for n in names if r[n] is not None), None), True, least=least)


def _calls(tables: Tables) -> tuple[pl.DataFrame, list[Column]]:
    from netdiag.tables.call_details import call_details
    from netdiag.tables.legs import families
    shown = named(tables).join(call_details(tables), on="call").join(families(tables), on="call").sort(
        "invite_ns", "call")
    joined = bool(shown["legs"].list.len().max())

    def ended(r: Row) -> str:
        how = r["cause"] or ("" if r["release"] == "none seen" else r["release"])
        return f"{r['released_by'] or ''} {how}".strip()

    return shown, [
        *_when(tables.calls, "invite_ns", tables), field("STATE", "state", firm=True),
        Column("FROM", lambda r: _user(r["from_uri"])), Column("TO", lambda r: _user(r["to_uri"])),
        _seconds("PDD", "post_dial_delay_s"), _seconds("RING", "ring_s", 110), _seconds("TALK", "talk_s"),
        Column("ENDED BY AND WHY", ended),
        *([Column("LEGS", lambda r: len(r["legs"]) + 1 if r["legs"] else None, True, least=96)] if joined else []),
        Column("FRAME", lambda r: next(iter(r["frames"]), None), True, least=104),
        field("CALL-ID", "call_id", least=96),
    ]


def _user(uri: str | None) -> str | None:
    """The number or name of a URI, where it has one: the host is what can be spared first."""
    return (_bare(uri) or "").partition("@")[0] or None


def _bare(uri: str | None) -> str | None:
    """Without the scheme that nearly all have."""
    return uri.removeprefix("sip:") if uri else uri


def _registrations(tables: Tables) -> tuple[pl.DataFrame, list[Column]]:
    def lifetime(r: Row) -> str | None:
        return words.duration(float(r["expires_s"])) if r["expires_s"] is not None else None

    def seen(r: Row) -> str | None:
        known = r["received"] or (r["rport"] is not None and r["source"])
        return endpoint(known, r["rport"] or 0) if known else None

    asked, came = tables.registrations["request_packet"], tables.sip["packet"]
    shown = tables.bindings.sort("first_ns", "binding")
    lists = {"registration_packets": (asked, "registrations"), "request_packets": (came, "requests")}
    shown = shown.with_columns(
        pl.Series(name, [packets.gather(rows).to_list() for rows in shown[column]], dtype=pl.List(pl.UInt32))
        for name, (packets, column) in lists.items()).drop("registrations", "requests")
    return shown, [
        *_when(tables.bindings, "first_ns", tables), field("STATE", "state", firm=True), field("CODE", "status", True),
        Column("AOR", lambda r: _bare(r["aor"])), Column("CONTACT", lambda r: _bare(r["contact_uri"])),
        _pair("SOURCE", "source", "source_port"), Column("SEEN AS", seen, least=140),
        Column("REGISTRAR", lambda r: endpoint(r["registrar"], r["registrar_port"]), firm=True, least=130),
        Column("EXPIRES", lifetime, True), field("REFRESHES", "refreshes", True, least=100),
        Column("USED", lambda r: len(r["request_frames"]), True, least=96),
        Column("FRAME", lambda r: next(iter(r["registration_frames"]), None), True, least=110),
    ]


def _streams(tables: Tables) -> tuple[pl.DataFrame, list[Column]]:
    streams = tables.rtp.hstack(rtp_reports.told(tables)).sort("first_ns", "stream")
    told = []  # without RTCP these would be empty
    if streams["rtt_ms"].count():
        told.append(Column("RTT", lambda r: f"{r['rtt_ms']:.1f} ms" if r["rtt_ms"] is not None else None, True,
                           least=140))
    if streams["reported_lost"].count() or streams["reported_mos"].count():
        told.append(Column("FAR END", _far_end, least=130))
    return streams, [
        *_when(tables.rtp, "first_ns", tables), _pair("SOURCE", "source", "source_port"),
        _pair("DESTINATION", "destination", "destination_port"),
        Column("SSRC", lambda r: f"0x{r['ssrc']:08x}", firm=True, least=120),
        Column("CODEC", lambda r: r["codec"] or f"PT {r['payload_type']}"),
        field("PACKETS", "packets", True, least=96),
        Column("LOST", lambda r: f"{r['lost'] / r['expected']:.1%}" if r["expected"] else None, True),
        Column("JITTER", lambda r: f"{r['jitter_max_ms']:.1f} ms", True, least=96), *told,
        Column("LASTED", lambda r: words.duration((r["last_ns"] - r["first_ns"]) / 1e9), True, least=110),
        field("FRAME", "first_frame", True, least=120), field("CALL-ID", "call_id", least=130),
    ]


def _far_end(r: Row) -> str:
    """What the receiver itself reports: lost packets (RFC 3550 §6.4.1), MOS (RFC 3611 §4.7.5)."""
    lost, mos = r["reported_lost"], r["reported_mos"]
    return ", ".join(([f"{lost} lost"] if lost is not None else []) + ([f"MOS {mos:.1f}"] if mos is not None else []))


def _handshakes(tables: Tables) -> tuple[pl.DataFrame, list[Column]]:
    names = dict(tables.alerts.select("description", "name").iter_rows())

    def result(r: Row) -> str:
        if r["alert_frame"] is not None and r["completed"] and r["alert"] is None:
            return f"completed; encrypted alert by {r['alert_by'] or '?'}"  # as a rule its close_notify
        if r["alert_frame"] is not None:
            name = names.get(r["alert"], r["alert"]) if r["alert"] is not None else "(encrypted)"
            return f"alert {name} by {r['alert_by'] or '?'}"
        return "completed" if r["completed"] else "truncated" if r["truncated"] else \
            f"closed by {r['closed_by']}" if r["closed_by"] else "open"

    return tables.handshakes.sort("start_ns", "handshake"), [
        *_when(tables.handshakes, "start_ns", tables), _pair("CLIENT", "client", "client_port"),
        _pair("SERVER", "server", "server_port"), field("NAME", "sni", least=96),
        Column("VERSION", lambda r: TLS_VERSIONS.get(r["version"] or 0, r["version"]), least=110),
        Column("RESULT", result),
        Column("CERT UNTIL", lambda r: r["certificates"][0]["not_after"][:10] if r["certificates"] else None,
               least=130),
        _first("FRAME", "client_hello_frame", "server_hello_frame", least=120),
    ]


def _connections(tables: Tables) -> tuple[pl.DataFrame, list[Column]]:
    names = community_ids(tables.packets, tables.tcp["first_packet"].to_numpy())
    return tables.tcp.with_columns(community_id=names).sort("first_ns", "connection"), [
        *_when(tables.tcp, "first_ns", tables), _pair("CLIENT", "client", "client_port"),
        _pair("SERVER", "server", "server_port"), field("STATE", "state"),
        Column("LASTED", lambda r: words.duration((r["last_ns"] - r["first_ns"]) / 1e9), True, least=90),
        field("SENT", "data_client", True, least=130), field("RECEIVED", "data_server", True, least=130),
        Column("RETRANS", lambda r: r["retransmissions_client"] + r["retransmissions_server"], True),
        _seconds("RTT", "handshake_rtt_s", 140), _seconds("MAX IDLE", "max_idle_s", 100),
        field("FRAME", "first_frame", True, least=110),
    ]


def _lookups(tables: Tables) -> tuple[pl.DataFrame, list[Column]]:
    return tables.lookups.sort("query_ns", "lookup"), [
        *_when(tables.lookups, "query_ns", tables), _pair("CLIENT", "client", "client_port"),
        field("SERVER", "server"), field("TYPE", "type"), field("NAME", "name"),
        Column("RESULT", lambda r: r["rcode"] or "no answer"),
        Column("AFTER", lambda r: words.duration((r["answer_ns"] - r["query_ns"]) / 1e9)
               if r["answer_ns"] is not None else None, True, least=90),
        field("RETRY", "retry", True, least=120), _first("FRAME", "query_frame", "answer_frame", least=110),
        Column("ANSWERS", lambda r: words.join(r["answers"], 2), least=96),
    ]


def _checks(tables: Tables) -> tuple[pl.DataFrame, list[Column]]:
    def result(r: Row) -> str:
        answered = r["successes"] or r["peer_successes"]
        said = "nominated" if r["nominated"] else "valid" if answered else "no answer"
        return " ".join([said, *(str(code) for code in r["codes"])]) if answered or not r["codes"] else \
            "refused " + ", ".join(map(str, r["codes"]))

    def types(r: Row) -> str | None:
        return f"{r['local_type'] or '?'}–{r['remote_type'] or '?'}" if r["local_type"] or r["remote_type"] else None

    told = [Column("TYPES", types)] if tables.checks["local_type"].count() else []  # without SDP it would be empty
    pairs = _pairs(tables.checks)
    return pairs, [
        *_when(tables.checks, "first_ns", tables), _pair("AGENT", "local", "local_port"),
        _pair("PEER", "remote", "remote_port"), *told,
        Column("ROLE", lambda r: r["role"], least=120),
        Column("ANSWERED", lambda r: f"{r['successes']}/{r['transactions']}", True, least=90),
        Column("PEER'S", lambda r: f"{r['peer_successes']}/{r['peer_transactions']}", True, least=90),
        Column("RESULT", result, firm=True), field("MEDIA", "media_sent", True, least=100),
        field("BACK", "media_received", True, least=100),
        *([field("LEGS", "legs", True, least=120)] if (pairs["legs"] > 1).any() else []),
        field("FRAME", "first_frame", True, least=110), Column("SESSION", lambda r: r["session"], least=130),
    ]


def _pairs(checks: pl.DataFrame) -> pl.DataFrame:
    """One row for each candidate pair, of the agent that checks it first: with ``peer_transactions`` and
    ``peer_successes`` of the other one, and ``legs``, how many hops of a TURN server show it; the best of them counts.
    """
    ends = [pl.concat_str(f"{side}", pl.lit(" "), f"{side}_port") for side in ("local", "remote")]
    each = checks.sort("nominated", "successes", "transactions", descending=True, maintain_order=True).group_by(
        "point", "session", pair=pl.concat_list(*ends), maintain_order=True).agg(pl.all().first(), legs=pl.len())
    both = each.with_columns(pair=pl.col("pair").list.sort().list.join(" ")).sort("first_ns", "check").group_by(
        "point", "session", "pair", maintain_order=True).agg(
            pl.exclude("nominated", "nominating_packet", "codes", "legs").first(), pl.col("legs").max(),
            pl.col("nominated").any(), pl.col("nominating_packet").drop_nulls().first(),
            pl.col("codes").list.explode(keep_nulls=False, empty_as_null=False).unique(maintain_order=True),
            peer_transactions=pl.col("transactions").sum() - pl.col("transactions").first(),
            peer_successes=pl.col("successes").sum() - pl.col("successes").first())
    return both.select(*checks.columns, "peer_transactions", "peer_successes", "legs")


_LISTINGS: dict[str, Callable[[Tables], tuple[pl.DataFrame, list[Column]]]] = {
    "calls": _calls, "streams": _streams, "handshakes": _handshakes, "connections": _connections, "lookups": _lookups,
    "registrations": _registrations, "checks": _checks,
}
