"""Packets that a capture holds twice count once; what only looks like a copy stays."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import recipes
from checkout import ROOT, PcapWriter
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from netdiag import engine
from netdiag.model import Status
from netdiag.tables import Tables, speakers
from netdiag.tables import tcp_segments as seg
from netdiag.tables.packets import KIND_NONE
from netdiag.tables.reader import open_captures

START = 1_767_225_600 * 10**9
MS = 1_000_000
ANN, BOB = "192.0.2.10", "198.51.100.20"
REQUEST = b"GET / HTTP/1.1\r\n\r\n"
ANN6, BOB6 = "2001:db8:1::10", "2001:db8:2::20"

Timed = tuple[float, Packet]
"""(milliseconds after START, frame)."""


def ether(packet: Packet, vlan: int | None = None, hop: int = 0) -> Packet:
    header = Ether(src=f"02:00:00:00:{hop:02x}:01", dst=f"02:00:00:00:{hop:02x}:02")
    return header / packet if vlan is None else header / Dot1Q(vlan=vlan) / packet


def ip(ident: int, up: bool = True, ttl: int = 64, six: bool = False) -> Packet:
    if six:
        return IPv6(src=ANN6 if up else BOB6, dst=BOB6 if up else ANN6, hlim=ttl)
    return IP(src=ANN if up else BOB, dst=BOB if up else ANN, id=ident, ttl=ttl, flags="DF")


def rtp(number: int, ident: int = 0, **options: int) -> Packet:
    data = struct.pack(">BBHII", 0x80, 0, number, 160 * number, 0xABCD) + bytes([number % 256]) * 160
    ports = (16384, 16386) if options.get("up", True) else (16386, 16384)
    return ip(ident, **options) / UDP(sport=ports[0], dport=ports[1]) / Raw(data)


def tcp(ident: int, flags: str, seq: int, ack: int = 0, data: bytes = b"", up: bool = True, **options: int) -> Packet:
    ports = (40000, 8080) if up else (8080, 40000)
    return ip(ident, up, **options) / TCP(sport=ports[0], dport=ports[1], flags=flags, seq=seq, ack=ack) / Raw(data)


def read(pcap: PcapWriter, timed: list[Timed], **options: int) -> Tables:
    return open_captures([str(pcap([(START + round(ms * MS), bytes(p)) for ms, p in timed], **options))])


def copies(tables: Tables) -> list[tuple[int, int, int]]:
    """(frame, frame that it repeats, kind) of a capture of one file."""
    d = tables.packets.duplicates
    return [] if d is None else list(zip((d.row + 1).tolist(), (d.of + 1).tolist(), d.kind.tolist(), strict=True))


def handshake_and_data() -> list[Timed]:
    """SYN, SYN-ACK without an identification (as Linux sends it), ACK, data, ACK, FIN both ways."""
    return [(0, tcp(1, "S", 1000)), (20, tcp(0, "SA", 5000, 1001, up=False)), (20.2, tcp(2, "A", 1001, 5001)),
            (21, tcp(3, "PA", 1001, 5001, REQUEST)), (41, tcp(7, "A", 5001, 1019, up=False)),
            (42, tcp(8, "FA", 5001, 1019, up=False)), (62, tcp(4, "FA", 1019, 5002))]


def doubled(timed: list[Timed], copy: Callable[[Packet], Packet] = lambda p: p, after: float = 0.05) -> list[Timed]:
    return [each for ms, p in timed for each in ((ms, ether(p)), (ms + after, ether(copy(p))))]


def routed(packet: Packet) -> Packet:
    """The packet behind a router."""
    again = packet.copy()
    if IPv6 in again:
        again.hlim -= 1
    else:
        again.ttl -= 1
        del again.chksum
    return again


def quiet(tables: Tables) -> bool:
    """No segment looks sent again."""
    return not (seg.segments(tables).classes & (seg.RETRANSMISSION | seg.FAST_RETRANSMISSION | seg.DUPLICATE_ACK
                                                | seg.SPURIOUS_RETRANSMISSION | seg.OUT_OF_ORDER)).any()


# What is a copy.


@pytest.mark.parametrize(("copy", "kind"), [(lambda p: p, 0), (routed, 1)], ids=["mirror", "router"])
def test_a_connection_captured_twice_counts_once(pcap: PcapWriter, copy: Callable[[Packet], Packet], kind: int) -> None:
    tables = read(pcap, doubled(handshake_and_data(), copy))
    assert copies(tables) == [(2 * i + 2, 2 * i + 1, kind) for i in range(7)]
    p = tables.packets
    assert tables.flows.select("packets_ab", "packets_ba").rows() == [(4, 3)]
    assert p.flow.tolist() == [0, 1] * 7
    assert p.tcp.row.tolist() == list(range(0, 14, 2))
    assert tables.tcp.select("established", "retransmissions_client", "retransmissions_server").rows() == [(True, 0, 0)]
    assert quiet(tables)
    summary = tables.captures[0]
    assert (summary.frames, summary.decoded) == (14, 14)
    assert p.locate(p.order)[1].tolist() == list(range(1, 15, 2))


def test_all_interfaces_of_a_host(pcap: PcapWriter) -> None:
    """LINKTYPE_LINUX_SLL2: each packet on the bridge and on its port."""
    def cooked(packet: Packet, interface: int) -> bytes:
        head = struct.pack(">HHIHBB8s", 0x0800, 0, interface, 1, 0, 6, b"\2\0\0\0\0\1\0\0")
        return head + bytes(packet)

    timed = [each for ms, p in handshake_and_data() for each in ((ms, cooked(p, 2)), (ms + 0.01, cooked(p, 3)))]
    tables = read(pcap, timed, link=276)
    assert [c[0] for c in copies(tables)] == list(range(2, 15, 2))
    assert quiet(tables)


@pytest.mark.parametrize("ident", [0, 77], ids=["without identification", "with identification"])
@pytest.mark.parametrize("copy", [lambda p: p, routed], ids=["bridged", "routed"])
def test_copies_on_two_vlans(pcap: PcapWriter, ident: int, copy: Callable[[Packet], Packet]) -> None:
    timed = []
    for n in range(6):
        up = n % 2 == 0
        there = rtp(n, ident and ident + n, up=up)
        vlans = (10, 20) if up else (20, 10)
        timed += [(20 * n, ether(there, vlans[0])), (20 * n + 0.3, ether(copy(there), vlans[1], 1))]
    tables = read(pcap, timed)
    assert [c[0] for c in copies(tables)] == [2, 4, 6, 8, 10, 12]
    # What is left has one VLAN for each direction.
    assert tables.flows.select("packets_ab", "packets_ba").rows() == [(3, 3)]


def test_a_tagged_copy_of_an_untagged_frame(pcap: PcapWriter) -> None:
    tables = read(pcap, [(0, ether(rtp(1))), (0.1, ether(rtp(1), 10)), (20, ether(rtp(2))), (20.1, ether(rtp(2), 10))])
    assert copies(tables) == [(2, 1, 0), (4, 3, 0)]
    assert tables.flows.height == 1


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_burst_and_then_its_copy(pcap: PcapWriter, size: int) -> None:
    burst = [(0.01 * i, ether(rtp(i, 100 + i))) for i in range(size)]
    tables = read(pcap, [*burst, *((ms + 0.5, p) for ms, p in burst)])
    assert copies(tables) == [(size + i + 1, i + 1, 0) for i in range(size)]


def test_copies_of_copies_repeat_the_first_one(pcap: PcapWriter) -> None:
    tables = read(pcap, [(i, ether(rtp(1, 9, ttl=64 - i))) for i in range(40)])
    assert copies(tables) == [(i + 1, 1, 1) for i in range(1, 40)]


def test_a_copy_that_is_written_a_little_too_early(pcap: PcapWriter) -> None:
    """Two interfaces in one file are not always in order of time."""
    tables = read(pcap, [(0.2, ether(rtp(1))), (0.1, ether(rtp(1))), (20, ether(rtp(2)))])
    assert copies(tables) == [(2, 1, 0)]


@pytest.mark.parametrize(("ident", "late_ms", "found"), [
    (9, 5.0, True), (9, 5.001, False), (0, 1.0, True), (0, 1.001, False)])
def test_how_late_a_copy_may_be(pcap: PcapWriter, ident: int, late_ms: float, found: bool) -> None:
    tables = read(pcap, [(0, ether(rtp(1, ident))), (late_ms, ether(rtp(1, ident)))])
    assert bool(copies(tables)) == found
    assert tables.flows["packets_ab"].to_list() == [1 if found else 2]


def test_copies_cut_by_the_snap_length(pcap: PcapWriter) -> None:
    tables = read(pcap, [(0, ether(rtp(1))), (0.1, ether(rtp(1))), (0.2, ether(rtp(2)))], snaplen=80)
    assert copies(tables) == [(2, 1, 0)]


@pytest.mark.parametrize("flags", ["S", "SA", "FA"])
@pytest.mark.parametrize("six", [False, True])
def test_what_begins_or_ends_a_connection_needs_no_identification(pcap: PcapWriter, flags: str, six: bool) -> None:
    segment = ether(tcp(0, flags, 1, 2, six=six))
    assert copies(read(pcap, [(0, segment), (0.1, segment)])) == [(2, 1, 0)]


# What is none.


@pytest.mark.parametrize("flags", ["A", "R", "RA"])
def test_a_bare_segment_without_identification_may_be_sent_twice(pcap: PcapWriter, flags: str) -> None:
    unnumbered, numbered = ether(tcp(0, flags, 1, 2)), ether(tcp(5, flags, 1, 2))
    assert copies(read(pcap, [(0, unnumbered), (0.1, unnumbered)])) == []
    assert copies(read(pcap, [(0, numbered), (0.1, numbered)])) == [(2, 1, 0)]


@pytest.mark.parametrize(("ident", "again", "after_ms"), [(3, 4, 0.5), (3, 4, 300), (0, 0, 1.5), (3, 3, 220)])
def test_a_retransmission_is_a_packet_of_its_own(pcap: PcapWriter, ident: int, again: int, after_ms: float) -> None:
    timed = [(ms, ether(p)) for ms, p in handshake_and_data()[:3]]
    timed += [(21, ether(tcp(ident, "PA", 1001, 5001, REQUEST))),
              (21 + after_ms, ether(tcp(again, "PA", 1001, 5001, REQUEST)))]
    tables = read(pcap, timed)
    assert copies(tables) == []
    assert tables.tcp["retransmissions_client"].to_list() == [1]


def test_a_sip_request_sent_again(pcap: PcapWriter) -> None:
    text = b"OPTIONS sip:b@server.example SIP/2.0\r\nVia: SIP/2.0/UDP a.example;branch=z9hG4bK1\r\n" \
           b"Call-ID: 1@a.example\r\nCSeq: 1 OPTIONS\r\n\r\n"
    once = ether(ip(0) / UDP(sport=5060, dport=5060) / Raw(text))
    tables = read(pcap, [(0, once), (0.2, once), (500, once), (500.2, once)])
    assert copies(tables) == [(2, 1, 0), (4, 3, 0)]
    assert tables.sip["packet"].to_list() == [0, 2]
    assert tables.packets.kind[[1, 3]].tolist() == [KIND_NONE] * 2
    assert tables.transactions["sends"].to_list() == [2]


@pytest.mark.parametrize(("dst", "six"), [("224.0.0.18", False), ("255.255.255.255", False), ("ff02::12", True)])
def test_a_router_greets_each_of_its_vlans(pcap: PcapWriter, dst: str, six: bool) -> None:
    head = IPv6(src=ANN6, dst=dst, hlim=255) if six else IP(src=ANN, dst=dst, id=0, ttl=255)
    hello = head / UDP(sport=1985, dport=1985) / Raw(b"hello, all alike")
    tables = read(pcap, [(0.1 * i, ether(hello, vlan)) for i, vlan in enumerate((10, 20, 30, 30))])
    assert copies(tables) == [(4, 3, 0)]
    assert tables.flows["encap"].to_list() == ["VLAN 10", "VLAN 20", "VLAN 30"]


def test_both_sides_of_a_nat_are_kept(pcap: PcapWriter) -> None:
    def outside(packet: Packet) -> Packet:
        again = routed(packet)
        if again.src == ANN:
            again.src = "203.0.113.5"
        else:
            again.dst = "203.0.113.5"
        del again[TCP].chksum
        return again

    tables = read(pcap, doubled(handshake_and_data(), outside))
    assert copies(tables) == []
    assert sorted(tables.tcp["client"].to_list()) == [ANN, "203.0.113.5"]
    assert tables.tcp.select("retransmissions_client", "retransmissions_server").rows() == [(0, 0), (0, 0)]


@pytest.mark.parametrize("other", [
    rtp(1, 9, ttl=65), rtp(1, 10), rtp(2, 9), rtp(1, 9, up=False),
    IP(src=ANN, dst=BOB, id=9, flags="DF") / UDP(sport=16385, dport=16386) / rtp(1)[Raw],
    IP(src=ANN, dst=BOB, id=9, flags="DF") / UDP(sport=16384, dport=16386) / Raw(rtp(1)[Raw].load[:-1] + b"!"),
    IP(src=ANN, dst=BOB, id=9, flags="DF") / UDP(sport=16384, dport=16386) / Raw(rtp(1)[Raw].load[:-1]),
    IP(src=ANN, dst=BOB, id=9, proto=99, flags="DF") / Raw(bytes(rtp(1)[UDP])),
], ids=["higher TTL", "identification", "content", "direction", "port", "last byte", "length", "protocol"])
def test_what_differs_is_no_copy(pcap: PcapWriter, other: Packet) -> None:
    assert copies(read(pcap, [(0, ether(rtp(1, 9))), (0.1, ether(other))])) == []


@pytest.mark.parametrize(("change", "value"), [("seq", 1002), ("ack", 5002), ("window", 1), ("flags", "A"),
                                               ("urgptr", 3), ("options", [("Timestamp", (7, 8))])])
def test_any_other_tcp_field_is_another_segment(pcap: PcapWriter, change: str, value: object) -> None:
    one = tcp(3, "PA", 1001, 5001, b"data", up=True)
    one[TCP].options = [("Timestamp", (6, 8))]
    two = one.copy()
    setattr(two[TCP], change, value)
    assert copies(read(pcap, [(0, ether(one)), (0.1, ether(two))])) == []
    assert copies(read(pcap, [(0, ether(one)), (0.1, ether(one.copy()))])) == [(2, 1, 0)]


# Tables count each packet once.


def test_media_and_lookups_and_errors_count_once(pcap: PcapWriter) -> None:
    question = ip(50) / UDP(sport=50000, dport=53) / DNS(id=7, rd=1, qd=DNSQR(qname="www.example"))
    answer = ip(51, up=False) / UDP(sport=53, dport=50000) / DNS(id=7, qr=1, rcode=3, qd=DNSQR(qname="www.example"))
    error = ip(52, up=False) / ICMP(type=3, code=3) / Raw(bytes(rtp(1, 1))[:28])
    report = ip(53, up=False) / UDP(sport=16387, dport=16385) / Raw(
        struct.pack(">BBHIIIIIII", 0x81, 201, 7, 1, 0xABCD, 0, 30, 0, 0, 0))
    timed = [(20 * n, rtp(n, 100 + n)) for n in range(1, 31)]
    timed += [(700, question), (720, answer), (730, error), (740, report)]
    once, twice = read(pcap, [(ms, ether(p)) for ms, p in timed]), read(pcap, doubled(timed, routed))
    assert len(copies(twice)) == len(timed)
    for name, columns in (("rtp", ["packets", "lost", "duplicates", "ssrc"]), ("lookups", ["name", "rcode", "retry"]),
                          ("icmp", ["type", "code", "source"]), ("rtcp", ["about_ssrc", "highest_sequence"]),
                          ("quality", ["icmp_packets", "first_fragments"])):
        here, there = getattr(once, name), getattr(twice, name)
        assert here.height
        known = [c for c in columns if c in here.columns]
        assert known
        assert here.select(known).rows() == there.select(known).rows(), name
    assert twice.captures[0].frames == 2 * len(timed)


def test_a_copy_behind_a_router_says_nothing_about_its_sender(pcap: PcapWriter) -> None:
    tables = read(pcap, doubled(handshake_and_data(), routed))
    assert speakers.genuine_ttls(tables, [0]) == [(64,)]


def test_a_reset_behind_a_router_is_no_genuine_packet(pcap: PcapWriter) -> None:
    timed = [*handshake_and_data()[:4], (30, tcp(9, "R", 5001, up=False, ttl=30))]
    tables = read(pcap, doubled(timed, routed))
    assert len(copies(tables)) == 5
    assert speakers.genuine_ttls(tables, [8]) == [(64,)]


def pcap_frames(path: Path) -> list[tuple[int, bytes]]:
    """(ns, frame) of a capture that ``recipes.encode`` wrote."""
    data, at, out = path.read_bytes(), 24, []
    while at < len(data):
        seconds, rest, size, _ = struct.unpack_from("<IIII", data, at)
        out.append((seconds * 10**9 + rest, data[at + 16 : at + 16 + size]))
        at += 16 + size
    return out


HITS = [s for s in recipes.samples() if s.name == "hit" and s.recipe.parent.name != "cap"]


@pytest.mark.parametrize("sample", HITS, ids=lambda s: s.pattern)
def test_the_same_is_found_when_all_is_captured_twice(pcap: PcapWriter, sample: recipes.Sample) -> None:
    def statuses(paths: dict[str, Path]) -> tuple[dict[str, Status], list[str]]:
        points = [(point, str(path)) for point, path in paths.items() if point]
        report = engine.analyze(open_captures([] if points else [str(paths[""])], points))
        outcomes = {o.pattern: o.status for o in report.outcomes if o.pattern != "CAP-DUP"}
        return outcomes, [f.title for f in report.findings if f.pattern != "CAP-DUP"]

    twice = {point: pcap([each for ns, data in pcap_frames(path) for each in ((ns, data), (ns + 400, data))])
             for point, path in sample.paths.items()}
    assert statuses(twice) == statuses(sample.paths)


# Fragments, tunnels, points.


def whole(ident: int = 9, six: bool = False) -> list[Packet]:
    payload = UDP(sport=7000, dport=7000) / Raw(bytes(2200))
    if six:
        return list(fragment6(IPv6(src=ANN6, dst=BOB6) / IPv6ExtHdrFragment(id=ident) / payload, 1000))
    return list(fragment(IP(src=ANN, dst=BOB, id=ident) / payload, 1000))


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("order", ["each", "all"])
@pytest.mark.parametrize("vlans", [(None, None), (10, 20)])
def test_fragments_captured_twice(pcap: PcapWriter, six: bool, order: str,
                                  vlans: tuple[int | None, int | None]) -> None:
    """The payload is the same byte everywhere, so that pieces of one datagram look alike too."""
    parts = whole(six=six)
    assert len(parts) == 3
    if order == "each":
        timed = [each for i, p in enumerate(parts)
                 for each in ((0.1 * i, ether(p, vlans[0])), (0.1 * i + 0.05, ether(routed(p), vlans[1])))]
        expected = [(2, 1, 1), (4, 3, 1), (6, 5, 1)]
    else:
        timed = [(0.1 * i, ether(p, vlans[0])) for i, p in enumerate(parts)]
        timed += [(0.5 + 0.1 * i, ether(routed(p), vlans[1])) for i, p in enumerate(parts)]
        expected = [(4, 1, 1), (5, 2, 1), (6, 3, 1)]
    tables = read(pcap, timed)
    assert copies(tables) == expected
    assert tables.flows.select("packets_ab", "bytes_ab").rows() == [(3, 2200)]
    assert tables.fragments.select("complete", "pieces", "overlap").rows() == [(True, 3, False)]
    assert not [a for a in tables.anomalies() if "fragment" in a.reason]
    once = read(pcap, [(0.1 * i, ether(p)) for i, p in enumerate(parts)])
    counted = ["first_fragments", "later_fragments"]
    assert tables.quality.select(counted).rows() == once.quality.select(counted).rows()


def test_fragments_sent_again_are_no_copies(pcap: PcapWriter) -> None:
    parts = [ether(p) for p in whole()]
    tables = read(pcap, [(0.1 * i, p) for i, p in enumerate(parts)] + [(500 + 0.1 * i, p) for i, p in enumerate(parts)])
    assert copies(tables) == []
    assert tables.fragments["complete"].to_list() == [True, True]


def test_the_pieces_of_a_datagram_are_no_copies_of_each_other(pcap: PcapWriter) -> None:
    """Those in the middle are alike: zeros, no payload of their own, one identification."""
    parts = fragment(IP(src=ANN, dst=BOB, id=9) / UDP(sport=7000, dport=7000) / Raw(bytes(4000)), 1000)
    tables = read(pcap, [(0.1 * i, ether(p)) for i, p in enumerate(parts)])
    assert tables.packets.duplicates is None
    assert tables.flows["packets_ab"].to_list() == [5]


def test_each_point_has_its_own_copies(pcap: PcapWriter) -> None:
    near = pcap([(START + i * 20 * MS, bytes(ether(rtp(i)))) for i in range(5)], name="near.pcap")
    far = pcap([(START + i * 20 * MS + n, bytes(ether(rtp(i)))) for i in range(5) for n in (0, 1)], name="far.pcap")
    tables = open_captures([], [("near", str(near)), ("far", str(far))])
    d = tables.packets.duplicates
    assert d is not None
    assert d.row.tolist() == [6, 8, 10, 12, 14]
    assert d.of.tolist() == [5, 7, 9, 11, 13]
    assert tables.flows["packets_ab"].to_list() == [5, 5]


make = recipes.load(ROOT / "captures" / "samples" / "encap" / "make.py")


@pytest.mark.parametrize("name", make.SAMPLES)
def test_copies_inside_tunnels(pcap: PcapWriter, name: str) -> None:
    """All but the ACK over IPv6, which has no identification."""
    frames = make.frames(name)
    tables = open_captures([str(pcap([each for ns, data in frames for each in ((ns, data), (ns + 10_000, data))]))])
    expected = [(2 * i + 2, 2 * i + 1, 0) for i in range(len(frames))]
    if make.SAMPLES[name].inside == make.INSIDE6 and len(frames) == 5:
        expected = expected[:4]
    assert copies(tables) == expected
    assert tables.sip.height == 2
    assert tables.flows["encap"].unique().to_list() == [make.SAMPLES[name].encap]


def test_damaged_captures_are_survived(pcap: PcapWriter) -> None:
    random = np.random.default_rng(4)
    kinds = [bytes(ether(p)) for p in (rtp(1, 9), tcp(3, "PA", 1, 2, b"x" * 20), tcp(0, "SA", 1, 2), whole()[0])]
    timed: list[tuple[int, bytes]] = []
    for _ in range(400):
        data = bytearray(kinds[int(random.integers(4))])
        for _ in range(int(random.integers(3))):
            data[int(random.integers(14, len(data)))] = int(random.integers(256))
        size = len(data) if random.integers(2) else int(random.integers(20, len(data) + 1))
        timed.append((START + len(timed) * 1000, bytes(data[:size])))
    tables = open_captures([str(pcap(timed))])
    d = tables.packets.duplicates
    assert d is not None
    assert len(d.row) > 20
    assert (np.diff(d.row.astype(np.int64)) > 0).all()
    assert not np.isin(d.of, d.row).any()
    assert not np.isin(d.row, tables.packets.tcp.row).any()
    assert not np.isin(d.row, tables.packets.order).any()
    summary = tables.captures[0]
    assert summary.frames == summary.decoded + sum(summary.skipped.values()) == 400
