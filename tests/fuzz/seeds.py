"""Seeds of the fuzz targets: the captures of the project, and what the tables find in them."""

from __future__ import annotations

import gzip
import struct
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import zstandard

sys.path.insert(0, str(Path(__file__).parents[1]))

from checkout import ROOT, real_captures
from link_frames import CASES
from mutations import LIMIT, records
from targets import connection, joined, pcap

from netdiag.errors import CaptureError
from netdiag.tables import Options, Tables
from netdiag.tables.packets import FRAGMENT, ICMP, ICMPV6, KIND_DNS, KIND_DTLS, KIND_RTP, KIND_SIP, KIND_STUN, UDP
from netdiag.tables.reader import open_captures

MOST = 200
"""Seeds of one target (practice): the search does not gain from more of the same."""
LARGEST = 1 << 21
"""Captures above are not read for seeds (practice)."""

FROM_CAPTURES = ("sip-text", "sdp", "dns", "media", "stun-table", "dtls", "icmp", "tls-handshake", "x509")
"""Targets whose seeds are payloads of captures; one for each step of `_from_tables`."""

Seeds = dict[str, list[bytes]]
T = TypeVar("T")


def _files(most: int, real: bool, found: Seeds) -> Iterator[Path]:
    """So many samples, and more until there is something ``found`` for each target that lives on captures alone."""
    samples = sorted(p for p in (ROOT / "captures" / "samples").glob("**/*.pcap*") if p.is_file())
    chosen = _spread(samples, most)
    yield from (p for p in chosen + (real_captures() if real else []) if p.stat().st_size <= LARGEST)
    for path in sorted(set(samples) - set(chosen)):
        if all(found[name] for name in FROM_CAPTURES):
            break
        yield path


def _first_packets(data: bytes, size: int = LIMIT // 2) -> bytes:
    """As many packets of a pcap as fit; any other file as it is."""
    found = records(data)
    if found is None:
        return data[:LIMIT]
    out, total = [data[:24]], 24
    for record in found[1]:
        total += len(record)
        if total > size:
            break
        out.append(record)
    return b"".join(out)


def _payloads(tables: Tables, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[bytes]:
    rows = np.flatnonzero(chosen)[:60]
    return [tables.packets.payload(row, 4096) for row in rows.tolist()]


def _from_tables(out: Seeds, tables: Tables) -> None:
    p = tables.packets
    whole = (p.flags & FRAGMENT) == 0
    sip = _payloads(tables, (p.kind == KIND_SIP) & whole)
    for message in sip[:12]:
        head, _, body = message.partition(b"\r\n\r\n")
        out["sip-text"].append(head)
        if body.startswith(b"v=0"):
            out["sdp"].append(body)
    if sip:
        out["sip-messages"].append(joined(sip[:16]))
        out["sip-stream"].append(bytes(8) + b"".join(sip[:8]))
        out["sip-tcp"].append(b"".join(sip[:8]))
    dns = _payloads(tables, (p.kind == KIND_DNS) & (p.proto == UDP) & whole)
    out["dns"] += dns[:8]
    if dns:
        out["lookups"].append(joined(dns[:16]))
    media = _payloads(tables, (p.kind == KIND_RTP) & whole)
    if media:
        out["media"].append(joined(media[:40]))
        out["rtp"].append(b"".join(m[:12] for m in media if len(m) >= 12))
    for kind, name in ((KIND_STUN, "stun-table"), (KIND_DTLS, "dtls")):
        datagrams = _payloads(tables, (p.kind == kind) & whole)
        if datagrams:
            out[name].append(joined(datagrams[:40]))
        out["stun"] += datagrams[:8] if kind == KIND_STUN else []
    icmp = _payloads(tables, (p.proto == ICMP) | (p.proto == ICMPV6))
    out["icmp"] += icmp[:4]
    if icmp:
        out["icmp-table"].append(joined(icmp[:16]))
    for number in tables.handshakes["connection"].to_list()[:3]:
        sides = [stream.data[:16000] for stream in tables.streams.both(number)]
        out["tls-handshake"].append(joined(sides))
        for data in sides:
            out["tls-records"].append(b"\xff\xff" + data)
            out["tls-hello"].append(data[9:2000])
    out["x509"] += tables.certs["der"].to_list()[:6]


def _frames(data: bytes) -> list[bytes]:
    """The first frames of a pcap behind their link type; nothing of any other file."""
    found = records(data)
    if found is None:
        return []
    link = struct.unpack_from(found[0] + "I", data, 20)[0] & 0xFFFF
    return [link.to_bytes(2, "big") + joined([record[16:][:2000] for record in found[1][:24]])]


def collect(most: int = MOST, real: bool = True) -> Seeds:
    """Seeds for each target, at most ``most`` each and from as many samples, always the same for the same captures.

    ``real``: also from the real captures, where there are any.
    """
    out: Seeds = defaultdict(list)
    for path in _files(most, real, out):
        data = path.read_bytes()
        small = _first_packets(data)
        for target in ("captures", "engine", "two-points"):
            out[target].append(small)
        out["frames"] += _frames(data)
        try:
            tables = open_captures([str(path)], options=Options(checksums=False))
        except CaptureError:
            continue
        _from_tables(out, tables)
    # Every link type and tunnel: a mutation does not find one that no seed has.
    wrapped = sorted((ROOT / "captures" / "samples" / "encap" / "made").glob("*.pcap"))
    plain: dict[int, list[bytes]] = defaultdict(list)
    for case in CASES:
        plain[case.link].append(case.frame)
    out["frames"] = [seed for path in wrapped for seed in _frames(path.read_bytes())] + [
        link.to_bytes(2, "big") + joined(frames) for link, frames in plain.items()] + out["frames"][:most // 4]
    some = out["captures"][0]
    out["captures"] += [gzip.compress(some), zstandard.compress(some), _pcapng()]
    out["engine"].append(pcap(connection(b"GET / HTTP/1.1\r\n\r\n" * 200, b"HTTP/1.1 200 OK\r\n\r\n" * 200, 80)))
    asked = bytes.fromhex("1234010000010000000000000161076578616d706c650000010001")
    told = asked[:2] + bytes.fromhex("818000010001") + asked[8:] + bytes.fromhex("c00c000100010000000a0004c0000201")
    out["dns"] += [asked, told]
    out["lookups"].append(joined([asked, told]))
    error = bytes.fromhex("0301000000000000") + pcap(connection(b"", b"", 80))[54:82]
    out["icmp"].append(error)
    out["icmp-table"].append(joined([error]))
    out["tcp-options"].append(bytes.fromhex("020405b40402080a0000000100000000010303070000"))
    out["fragments"].append(b"".join(
        struct.pack(">BHHBH", 1, at, 1400, 2 * (at < 4200), 1) for at in range(0, 5600, 1400)))
    out["segments"].append(b"".join(
        struct.pack(">BBHHH", i & 1, 2 if i < 2 else 16, 30 * i, 30 * i, i) for i in range(40)))
    out["tls13"].append(joined([
        b"\x08\0\0\x02\0\0\x16", b"\x0b\0\0\x04\0\0\0\0\x16", b"\x14\0\0\x20" + bytes(32) + b"\x16",
        b"\x18\0\0\x01\0\x16", b"\x02\x28\x15", b"x\x17"]))
    web = [b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n",
           b"HTTP/1.1 101 \r\nSec-WebSocket-Protocol: sip\r\n\r\n"]
    said = [b"OPTIONS sip:a.example SIP/2.0\r\nCall-ID: 1\r\nl: 0\r\n\r\n",
            b"SIP/2.0 200 OK\r\nCall-ID: 1\r\nl: 0\r\n\r\n"]
    framed = [b"\x81\xb3\0\0\0\0" + said[0], b"\x89\0\x81" + bytes([len(said[1])]) + said[1]]
    out["tls-secure"] += [joined(said * 2), joined(web + framed)]
    out["tls-protected"].append(b"\xff\xff\x14\3\3\0\1\1" + (b"\x17\3\3\0\x40" + bytes(64)) * 3)
    out["websocket"] += [b"\1" + framed[0] * 2, b"\0" + framed[1] * 2, b"\2\x41\3\xf2\x48\xcd\x80\4\xc9\xc9\7\0"]
    sent = [struct.pack(">BBHII", 0x80, 0, n & 0xFFFF, 160 * n, 1 + n % 2) + bytes(40) for n in range(65520, 65552)]
    out["rtcp-xr"].append(joined([
        b"\1\0\0\3" + bytes(6) + b"\0\x1e\x40\5\xff\x0f", b"\2\0\0\2" + bytes(8), b"\3\0\0\3" + bytes(12), b"\4\0\0\2" +
        b"\1" * 8 + b"\5\0\0\3" + b"\1" * 12, b"\6\xf8\0\x09" + b"\2" * 36, b"\7\0\0\x08" + b"\x20" * 32]))
    for line in (b"1 AES_CM_128_HMAC_SHA1_80 inline:" + b"A" * 40 + b"|2^20|1:4",
                 b"1 AEAD_AES_128_GCM inline:" + b"AAAA" * 9 + b"AA== UNENCRYPTED_SRTCP"):
        out["srtp"].append(joined([line, line, *sent]))
    out["keylog"].append(b"CLIENT_RANDOM " + b"00" * 32 + b" " + b"11" * 48 + b"\n# comment\n")
    out["escape"] += ["`x` <b>|\x1b[31m ‮ https://a.example".encode(), b"\xff\xfe=1+1\r\n- a\n1. b"]
    return {name: _spread(list(dict.fromkeys(seeds)), most) for name, seeds in out.items()}


def _spread(of: list[T], most: int) -> list[T]:
    step = max(len(of) / most, 1.0)
    return [of[int(i * step)] for i in range(min(len(of), most))]


def _pcapng() -> bytes:
    def block(kind: int, body: bytes) -> bytes:
        size = 12 + len(body) + -len(body) % 4
        return struct.pack("<II", kind, size) + body + bytes(-len(body) % 4) + struct.pack("<I", size)

    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    out += block(1, struct.pack("<HHI", 1, 0, 65535) + struct.pack("<HHB3x", 9, 1, 9))
    frame = records(pcap(connection(b"x", b"y", 80)))
    for record in frame[1] if frame is not None else []:
        out += block(6, struct.pack("<IIIII", 0, 0, 5, len(record) - 16, len(record) - 16) + record[16:])
    return out + block(5, struct.pack("<III", 0, 0, 5) + struct.pack("<HHQ", 5, 8, 3))
