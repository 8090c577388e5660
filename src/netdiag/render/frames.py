"""One line about a frame, from the first fact table that knows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from netdiag.decode import stun
from netdiag.render import words
from netdiag.tables import packets as p
from netdiag.tables.sip_details import added

if TYPE_CHECKING:
    from netdiag.tables import Tables

_FLAGS = ((p.SYN, "SYN"), (p.FIN, "FIN"), (p.RST, "RST"))
_PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 41: "IPv6 in IPv4", 47: "GRE", 50: "ESP", 51: "AH",
              58: "ICMPv6", 132: "SCTP"}  # IANA protocol numbers
AGAIN = ", sent again"
_RTCP = {200: "SR", 201: "RR", 202: "SDES", 203: "BYE", 204: "APP", 205: "RTPFB", 206: "PSFB", 207: "XR"}
_STUN_METHOD = {1: "Binding", 3: "Allocate", 4: "Refresh", 6: "Send", 7: "Data", 8: "CreatePermission",
                9: "ChannelBind"}  # RFC 8489 §18.2, RFC 8656 §18
_STUN_CLASS = ("request", "indication", "success", "error")  # RFC 8489 §5
TLS_VERSIONS = {0x0002: "SSL 2.0", 0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2",
                0x0304: "TLS 1.3"}


@dataclass(frozen=True, slots=True)
class Said:
    """``text`` says what the frame is; ``note`` adds to it; ``alike``: one of many of its kind."""

    text: str
    note: str = ""
    alike: bool = False


Source = Callable[["Tables", list[int]], Iterator[tuple[int, Said]]]


def describe(tables: Tables, rows: Sequence[int]) -> dict[int, Said]:
    """What each packet row is; every row gets an answer."""
    told: dict[int, list[Said]] = {}
    for source in _SOURCES:
        left = [r for r in rows if r not in told]
        if not left:
            break
        try:
            said = list(source(tables, left))
        except Exception:  # a table that cannot be built was reported as an error by the engine; the frame stays
            continue
        for row, text in said:
            told.setdefault(row, []).append(text)
    out = {row: _joined(told[row]) if row in told else _plain(tables, row) for row in rows}
    return _sent_again(tables, out)


def _joined(parts: list[Said]) -> Said:
    """Several messages in one frame."""
    texts, notes = dict.fromkeys(s.text for s in parts), dict.fromkeys(s.note for s in parts if s.note)
    return Said(" + ".join(texts), "; ".join(notes), all(s.alike for s in parts))


def _of(frame: pl.DataFrame, column: str, rows: list[int]) -> list[dict[str, Any]]:
    return frame.filter(pl.col(column).is_in(rows)).to_dicts()


def _sip(tables: Tables, rows: list[int]) -> Iterator[tuple[int, Said]]:
    messages = with_lines(tables, tables.sip.filter(pl.col("packet").is_in(rows))).to_dicts()
    offers = sdp_notes(tables, rows) if any(m["sdp_offset"] is not None for m in messages) else {}
    for m in messages:
        yield m["packet"], Said(sip_text(m), "; ".join([*offers.get(m["message"], ()), *_sip_notes(m)]))


def with_lines(tables: Tables, messages: pl.DataFrame) -> pl.DataFrame:
    """Rows of the SIP table with what their start lines say."""
    return added(tables, messages, ("uri", "reason"))


def sip_text(message: dict[str, Any]) -> str:
    """"INVITE sip:bob@b.example" or "200 OK (INVITE)" of a row of the SIP table."""
    if message["method"] is not None:
        return f"{message['method']} {message['uri'] or ''}".strip()
    return f"{message['status'] or '?'} {message['reason'] or ''}".strip() + f" ({message['cseq_method'] or '?'})"


def _sip_notes(m: dict[str, Any]) -> list[str]:
    out = [f"Call-ID {m['call_id']}"] if m["call_id"] else []
    out += [f"CSeq {m['cseq']}"] if m["cseq"] is not None else []
    out += ["sent again"] if m["retransmission"] else []
    return out + (["cut by the snap length"] if m["cut"] else [])


def sdp_notes(tables: Tables, rows: list[int]) -> dict[int, list[str]]:
    """For each SIP message in these packets, its media lines: "SDP audio 192.0.2.1:4000 PCMU, PCMA sendonly"."""
    out: dict[int, list[str]] = {}
    for m in _of(tables.media, "packet", rows):
        where = f"{m['address'] or '?'}:{m['port']}" if m["port"] else "rejected (port 0)"
        codecs = words.join((c.split("/")[0] for c in m["codecs"] if c), 4)
        direction = m["direction"] if m["direction"] != "sendrecv" else ""
        text = " ".join(t for t in (f"SDP {m['type']} {where}", codecs, direction) if t)
        out.setdefault(m["message"], []).append(text)
    return out


def _icmp(tables: Tables, rows: list[int]) -> Iterator[tuple[int, Said]]:
    for m in _of(tables.icmp, "packet", rows):
        note = ""
        if m["quoted_destination"]:
            ports = [f":{m[k]}" if m[k] else "" for k in ("quoted_source_port", "quoted_destination_port")]
            name = _PROTOCOLS.get(m["quoted_proto"] or -1, f"IP protocol {m['quoted_proto']}")
            note = f"about {name} {m['quoted_source']}{ports[0]} to {m['quoted_destination']}{ports[1]}"
        if m["mtu"]:
            note += f"; next-hop MTU {m['mtu']}"
        yield m["packet"], Said(f"ICMP {m['name']}", note.removeprefix("; "))


def _dns(tables: Tables, rows: list[int]) -> Iterator[tuple[int, Said]]:
    for m in _of(tables.lookups, "query_packet", rows):
        yield m["query_packet"], Said(f"DNS query {m['type']} {m['name']}", f"retry {m['retry']}" if m["retry"] else "")
    for m in _of(tables.lookups, "answer_packet", rows):
        asked = m["query_packet"] is not None
        after = f" after {words.duration((m['answer_ns'] - m['query_ns']) / 1e9)}" if asked else ""
        found = words.count(len(m["answers"]), "record")
        text = f"DNS answer {m['type']} {m['name']}: {m['rcode'] or '?'}, {found}"
        yield m["answer_packet"], Said(text + (", truncated" if m["truncated"] else "") + after)


def _tls(tables: Tables, rows: list[int]) -> Iterator[tuple[int, Said]]:
    shakes = tables.handshakes
    for h in _of(shakes, "client_hello_packet", rows):
        version = TLS_VERSIONS.get(h["client_max_version"] or 0, "")
        parts = [f"SNI {h['sni']}" if h["sni"] else "no SNI", f"up to {version}" if version else "",
                 f"ALPN {', '.join(h['alpn_offered'])}" if h["alpn_offered"] else ""]
        yield h["client_hello_packet"], Said("TLS ClientHello", ", ".join(t for t in parts if t))
    for h in _of(shakes, "server_hello_packet", rows):
        parts = [TLS_VERSIONS.get(h["version"] or 0, ""), f"cipher 0x{h['cipher']:04x}" if h["cipher"] else "",
                 "resumed" if h["resumed"] else ""]
        yield h["server_hello_packet"], Said("TLS ServerHello", ", ".join(t for t in parts if t))
    for who, packet, column in (("", "certificate_packet", "certificates"),
                                ("client ", "client_certificate_packet", "client_certificates")):
        for h in _of(shakes, packet, rows):
            note = _chain(tables, h[column]) if h[column] else ("empty" if who else "")
            yield h[packet], Said(f"TLS {who}Certificate", note)
    alerts = _of(tables.alerts, "packet", rows)
    for a in alerts:
        yield a["packet"], Said(f"TLS alert {a['name']} ({a['description']}) by {a['by']}")
    clear = {a["packet"] for a in alerts}
    for h in _of(shakes, "alert_packet", rows):
        if h["alert_packet"] not in clear:
            yield h["alert_packet"], Said(f"TLS alert by {h['alert_by'] or '?'}", "encrypted" * h["alert_encrypted"])


def _chain(tables: Tables, certificates: Sequence[int]) -> str:
    found = {c["cert"]: c for c in _of(tables.certs, "cert", list(certificates))}
    chain = [found[i] for i in certificates if i in found]
    parts = []
    for c in chain:
        name, dates = c["common_name"] or c["subject"], (c["not_before_ns"], c["not_after_ns"])
        valid = f"valid {words.utc(dates[0], 0)[:10]} to {words.utc(dates[1], 0)[:10]}" if any(dates) else ""
        parts.append(", ".join(t for t in (name, valid, c["problem"]) if t))
    return f"{words.count(len(certificates), 'certificate')}: " + "; ".join(parts)


def _tcp(tables: Tables, rows: list[int]) -> Iterator[tuple[int, Said]]:
    """What a connection says about a SYN: which try it was, and what it offers."""
    wanted = set(rows)
    frame = tables.tcp.filter(pl.col("syn_packets").list.eval(pl.element().is_in(rows)).list.any())
    for c in frame.to_dicts():
        for i, packet in enumerate(c["syn_packets"]):
            if packet in wanted:
                note = f"MSS {c['mss_client']}" if c["mss_client"] and not i else ""
                yield packet, Said("TCP SYN" + (f"{AGAIN} ({i})" if i else ""), note)


def _rtp(tables: Tables, rows: list[int]) -> Iterator[tuple[int, Said]]:
    """RTP by SSRC and codec; RTCP by its type and what it reports."""
    media = [r for r in rows if int(tables.packets.kind[r]) == p.KIND_RTP and int(tables.packets.proto[r]) == p.UDP]
    if not media:
        return
    reports: dict[int, list[str]] = {}
    for m in _of(tables.rtcp, "packet", media):
        if m["fraction_lost"] is not None:
            reports.setdefault(m["packet"], []).append(
                f"SSRC 0x{m['about_ssrc'] or 0:08x}: {m['fraction_lost']:.1%} lost since the last report")
    head = tables.packets.head(media, 12)
    flows = sorted({int(tables.packets.flow[r]) for r in media})
    codecs = {(s["flow"], s["ssrc"]): s["codec"] for s in _of(tables.rtp, "flow", flows)}
    for row, h in zip(media, head.astype(np.int64).tolist(), strict=True):
        if h[1] in _RTCP:  # RFC 5761 §4: these values do not occur as RTP payload types with marker
            yield row, Said(f"RTCP {_RTCP[h[1]]}", "; ".join(reports.get(row, ())))
            continue
        ssrc = int.from_bytes(bytes(h[8:12]), "big")
        codec = codecs.get((int(tables.packets.flow[row]), ssrc)) or f"payload type {h[1] & 0x7F}"
        yield row, Said(f"RTP {codec}, SSRC 0x{ssrc:08x}", alike=True)


def _stun(tables: Tables, rows: list[int]) -> Iterator[tuple[int, Said]]:
    some = [r for r in rows if int(tables.packets.kind[r]) == p.KIND_STUN]
    if not some:
        return
    for row, (a, b) in zip(some, tables.packets.head(some, 2).astype(int).tolist(), strict=True):
        kind = a << 8 | b
        method = kind & 0xF | kind >> 1 & 0x70 | kind >> 2 & 0xF80  # RFC 8489 §5, figure 3
        name = _STUN_METHOD.get(method, f"method {method}")
        said = _STUN_CLASS[kind >> 4 & 1 | kind >> 7 & 2]
        message = stun.read(tables.packets.payload(row)) if said == "error" else None
        code = message.value(stun.ERROR_CODE) if message else None
        if code and len(code) >= 4:  # RFC 8489 §14.8
            said += f" {(code[2] & 7) * 100 + code[3]}"
        yield row, Said(f"STUN {name} {said}")


_SOURCES: tuple[Source, ...] = (_sip, _icmp, _dns, _tls, _tcp, _rtp, _stun)


def _plain(tables: Tables, row: int) -> Said:
    """From the packet's columns alone."""
    packets = tables.packets
    proto, size, flags = int(packets.proto[row]), int(packets.wire[row]), int(packets.flags[row])
    if flags & p.BAD:
        return Said("broken header")
    name = _PROTOCOLS.get(proto, f"IP protocol {proto}" if proto else "no IP")
    if flags & p.FRAGMENT:
        return Said(f"{name} fragment, {size} bytes")
    if proto != p.TCP:
        return Said(f"{name}, {size} bytes" if proto else name, alike=proto == p.UDP)
    at = int(np.searchsorted(packets.tcp.row, row))
    if at >= len(packets.tcp.row) or int(packets.tcp.row[at]) != row:
        return Said(name)
    bits = int(packets.tcp.flags[at])
    named = "-".join([text for bit, text in _FLAGS if bits & bit] + (["ACK"] if bits & p.ACK else []))
    if size and not bits & p.SYN:
        first = "data" if named in ("ACK", "") else named
        return Said(f"TCP {first}, {words.count(size, 'byte')}", f"seq {int(packets.tcp.seq[at])}")
    return Said(f"TCP {named or 'without flags'}", f"ack {int(packets.tcp.ack[at])}" if named == "ACK" else "")


def _sent_again(tables: Tables, told: dict[int, Said]) -> dict[int, Said]:
    """Marks TCP data whose first byte was already sent by a frame of this list."""
    packets = tables.packets
    seen: set[tuple[int, ...]] = set()
    out = dict(told)
    for row in sorted(told, key=lambda r: (int(packets.ts[r]), r)):
        at = int(np.searchsorted(packets.tcp.row, row)) if int(packets.proto[row]) == p.TCP else -1
        if at < 0 or not int(packets.wire[row]) or at >= len(packets.tcp.row) or int(packets.tcp.row[at]) != row:
            continue
        point = int(packets.points([row])[0])
        key = (point, int(packets.flow[row]), int(packets.src[row]), int(packets.sport[row]), int(packets.tcp.seq[at]))
        if key in seen:
            said = told[row]
            out[row] = Said(said.text, "; ".join(t for t in (said.note, "sent again") if t), said.alike)
        seen.add(key)
    return out
