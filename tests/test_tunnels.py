"""Tags and tunnels: each is opened down to the packet inside, and what is none stays what it is."""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import recipes
from checkout import ROOT, PcapWriter, real_captures, udp_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP as IcmpLayer
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from netdiag.decode import encap, tunnels
from netdiag.tables import Tables
from netdiag.tables.packets import BAD, CUT, ICMP, ICMPV6, IPV4, IPV6, KIND_DNS, KIND_NONE, KIND_RTP, KIND_SIP
from netdiag.tables.packets import TCP as TCP_PROTOCOL
from netdiag.tables.packets import UDP as UDP_PROTOCOL
from netdiag.tables.reader import open_captures

make = recipes.load(ROOT / "captures" / "samples" / "encap" / "make.py")
MADE = ROOT / "captures" / "samples" / "encap" / "made"
UNKNOWN_TO_TSHARK = {"hep3": "tshark 4.0 does not read HEP3", "hep3_ipv6": "tshark 4.0 does not read HEP3",
                     "erspan_3_ip": "tshark shows frame types other than Ethernet as data",
                     **dict.fromkeys(("gue", "gue_private", "gue_ipv6"), "tshark 4.0 does not read GUE")}
_FRAMES, _SUBLAYER = "l2tp.pw_type==0,eth", "l2tp.l2_specific:Default L2-Specific"
TOLD: dict[str, list[str]] = {
    "gue_bare": ["-d", "udp.port==6080,ip"], "gue_bare_ipv6": ["-d", "udp.port==6080,ipv6"],
    "mpls_in_udp_ethernet": ["-d", "mpls.label==100,pwethcw", "-d", "mpls.label==101,pwethcw"],
    "l2tpv3": ["-d", _FRAMES, "-o", "l2tp.cookie_size:None", "-o", "l2tp.l2_specific:None"],
    "l2tpv3_cookie": ["-d", _FRAMES, "-o", "l2tp.cookie_size:4 Byte Cookie", "-o", "l2tp.l2_specific:None"],
    "l2tpv3_long_cookie": ["-d", _FRAMES, "-o", "l2tp.cookie_size:8 Byte Cookie", "-o", "l2tp.l2_specific:None"],
    "l2tpv3_all": ["-d", _FRAMES, "-o", "l2tp.cookie_size:8 Byte Cookie", "-o", _SUBLAYER],
    "l2tpv3_udp": ["-d", _FRAMES, "-o", "l2tp.cookie_size:None", "-o", _SUBLAYER],
}
"""What tshark must be told, as it does not find it in the packets."""
PORTS = (1701, 2152, 3544, 4789, 4790, 6080, 6081, 6635, 8472)
UNNAMED = {"vlan_priority", "meta", "hsr", "e_tag", "vn_tag", "macsec", "macsec_channel", "ah", "ah_long"}
"""Samples whose wrapping is no part of the key of a flow."""
MS = 1_000_000
CLIENT, SERVER = make.INSIDE4

Row = tuple[str, str, int, int]


def rows_of(tables: Tables) -> list[Row | None]:
    """Addresses and ports of each frame; None without IP."""
    p = tables.packets
    return [(p.source(i), p.destination(i), int(p.sport[i]), int(p.dport[i])) if p.flags[i] & (IPV4 | IPV6) else None
            for i in range(p.n)]


def said(sample: str) -> list[Row]:
    """What the frames of a sample hold, as it was put in."""
    client, server = make.SAMPLES[sample].inside
    ports = [(make.SIP, make.SIP)] * 2 + [(make.CLIENT, make.SERVER), (make.SERVER, make.CLIENT),
                                          (make.CLIENT, make.SERVER)]
    ends = [(client, server), (server, client), (client, server), (server, client), (client, server)]
    out = [(*a, *b) for a, b in zip(ends, ports, strict=True)]
    return out[:2] if make.SAMPLES[sample].datagrams_only else out


def read(pcap: PcapWriter, packets: list[bytes | Packet], **options: int) -> Tables:
    """One frame each millisecond."""
    return open_captures([str(pcap([(make.START_NS + i * MS, bytes(p)) for i, p in enumerate(packets)], **options))])


def encaps(tables: Tables) -> list[str]:
    return [tables.packets.wrapping(i) for i in range(tables.packets.n)]


@pytest.mark.parametrize("name", make.SAMPLES)
def test_sample_reproduces_its_bytes(name: str) -> None:
    assert make.encode(make.frames(name)) == (MADE / f"{name}.pcap").read_bytes(), "run captures/samples/encap/make.py"


def test_every_sample_is_made() -> None:
    assert {p.stem for p in MADE.glob("*.pcap")} == set(make.SAMPLES)


@pytest.mark.parametrize("name", make.SAMPLES)
def test_the_packet_inside_is_found(name: str) -> None:
    sample = make.SAMPLES[name]
    tables = open_captures([str(MADE / f"{name}.pcap")])
    p = tables.packets
    assert rows_of(tables) == said(name)
    assert not tables.captures[0].skipped
    assert not (p.flags & (BAD | CUT)).any()
    assert p.kind.tolist() == ([KIND_SIP] * 2 + [KIND_NONE] * 3)[: p.n]
    assert p.locate(np.arange(p.n))[1].tolist() == list(range(1, p.n + 1))
    assert encaps(tables) == [sample.encap] * p.n
    assert tables.flows["encap"].to_list() == [sample.encap] * (1 if sample.datagrams_only else 2)
    assert tables.flows["packets_ba"].to_list() == [1, 1][: tables.flows.height]
    assert tables.sip["packet"].to_list() == [0, 1]
    assert tables.tcp.height == (0 if sample.datagrams_only else 1)
    if not sample.datagrams_only:
        assert tables.tcp["established"].to_list() == [True]
        assert p.tcp.row.tolist() == [2, 3, 4]
        assert p.tcp.seq.tolist() == [1000, 5000, 1001]


def tshark_rows(path: Path, *told: str) -> list[tuple[str, str, str, str] | None]:
    """Addresses of the innermost IP header of each frame, and the ports behind it; None for quoting ICMP errors."""
    assert shutil.which("tshark"), "tshark is needed: make install-system"
    names = ["ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport"]
    argv = ["tshark", "-n", "-r", str(path), "-d", "udp.port==8472,vxlan", *told, "-T", "fields", "-E", "occurrence=l",
            "-e", "frame.protocols", *(x for n in names for x in ("-e", n))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    out: list[tuple[str, str, str, str] | None] = []
    for line in done.stdout.splitlines():
        layers, *values = line.split("\t")
        field = dict(zip(names, values, strict=True))
        order = layers.split(":")
        last = max((i for i, layer in enumerate(order) if layer in ("ip", "ipv6")), default=-1)
        behind = [layer for layer in order[last + 1 :] if layer in ("tcp", "udp")]
        quoting = any(layer in ("icmp", "icmpv6") for layer in order)
        if last < 0 or quoting:
            out.append(None)
            continue
        ports = (field[f"{behind[0]}.srcport"], field[f"{behind[0]}.dstport"]) if behind else ("0", "0")
        out.append((field[f"{order[last]}.src"], field[f"{order[last]}.dst"], *ports))
    return out


def strings(tables: Tables) -> list[tuple[str, str, str, str] | None]:
    p = tables.packets
    return [(r[0], r[1], str(r[2]), str(r[3])) if r and p.proto[i] not in (ICMP, ICMPV6) else None
            for i, r in enumerate(rows_of(tables))]


@pytest.mark.tshark
def test_samples_agree_with_tshark(pcap: PcapWriter) -> None:
    names = [n for n in make.SAMPLES if n not in UNKNOWN_TO_TSHARK and n not in TOLD]
    every = [(name, frame) for name in names for frame in make.frames(name)]
    path = pcap([(make.START_NS + i * MS, data) for i, (_, (_, data)) in enumerate(every)])
    mine, theirs = strings(open_captures([str(path)])), tshark_rows(path)
    assert len(mine) == len(theirs) == len(every)
    assert {name for (name, _), a, b in zip(every, mine, theirs, strict=True) if a != b} == set()


@pytest.mark.tshark
@pytest.mark.parametrize("name", TOLD)
def test_samples_agree_with_tshark_that_is_told(name: str) -> None:
    path = MADE / f"{name}.pcap"
    assert strings(open_captures([str(path)])) == tshark_rows(path, *TOLD[name])


@pytest.mark.tshark
@pytest.mark.parametrize("path", [p for p in real_captures() if p.name.startswith(("encap-", "sip-ipv6-volte"))],
                         ids=lambda p: p.name)
def test_real_captures_agree_with_tshark(path: Path) -> None:
    mine, theirs = strings(open_captures([str(path)])), tshark_rows(path)
    assert len(mine) == len(theirs)
    assert sum(row is not None for row in mine) > 40
    assert [(i + 1, a, b) for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b] == []


# What keeps flows apart.


def datagram(up: bool, number: int, payload: bytes = b"same five-tuple") -> Packet:
    ends = (CLIENT, SERVER) if up else (SERVER, CLIENT)
    return IP(src=ends[0], dst=ends[1], id=number) / UDP(sport=7000, dport=7000) / Raw(payload + bytes([number]))


def tagged(vlan: int, up: bool, number: int) -> Packet:
    return make.ether(up) / Dot1Q(vlan=vlan) / datagram(up, number)


def vxlan(vni: int, up: bool, number: int) -> Packet:
    return make.udp(up, 4789) / VXLAN(vni=vni, flags=8) / make.bridged(datagram(up, number), up)


@pytest.mark.parametrize("wrap", [tagged, vxlan])
def test_the_same_addresses_in_two_networks_are_two_flows(pcap: PcapWriter, wrap: Callable[..., Packet]) -> None:
    tables = read(pcap, [wrap(n, up, i) for i, (n, up) in enumerate(
        [(100, True), (200, True), (100, False), (200, False)], 1)])
    assert tables.packets.flow.tolist() == [0, 1, 0, 1]
    assert [e.split()[1] for e in tables.flows["encap"]] == ["100", "200"]


@pytest.mark.parametrize("wrap", [tagged, vxlan])
def test_one_network_for_each_direction_is_one_flow(pcap: PcapWriter, wrap: Callable[..., Packet]) -> None:
    tables = read(pcap, [wrap(100 if i % 2 else 200, i % 2 == 1, i) for i in range(1, 7)])
    assert tables.flows.select("packets_ab", "packets_ba").rows() == [(3, 3)]


def test_one_direction_is_not_joined_to_a_complete_conversation(pcap: PcapWriter) -> None:
    tables = read(pcap, [tagged(100, True, 1), tagged(100, False, 2), tagged(200, True, 3)])
    assert tables.packets.flow.tolist() == [0, 0, 1]


def test_two_networks_with_the_same_direction_stay_apart(pcap: PcapWriter) -> None:
    tables = read(pcap, [tagged(100, True, 1), tagged(200, True, 2), tagged(100, True, 3)])
    assert tables.packets.flow.tolist() == [0, 1, 0]


def test_a_tunnel_in_the_other_direction_is_the_same_tunnel(pcap: PcapWriter) -> None:
    tables = read(pcap, [vxlan(7, True, 1), vxlan(7, False, 2)])
    assert tables.flows["encap"].to_list() == [f"VXLAN 7 {make.ENDS4}"]
    assert len(tables.packets.paths) == 2  # and the empty one


def test_tagged_and_untagged_frames_side_by_side(pcap: PcapWriter) -> None:
    tables = read(pcap, [make.ether(True) / datagram(True, 1), tagged(5, True, 2),
                         make.ether(False) / datagram(False, 3)])
    assert tables.packets.flow.tolist() == [0, 1, 0]
    assert tables.flows["encap"].to_list() == ["", "VLAN 5"]


def test_many_paths_share_the_last_number() -> None:
    paths = encap.Paths()
    n = encap.MAX_PATHS + 5000
    numbers = paths.extend(np.zeros(n, np.uint16), encap.VXLAN, np.arange(n, dtype=np.uint32))
    assert len(paths.values) == encap.MAX_PATHS + 1
    assert paths.values[encap.MAX_PATHS] == (encap.Level(encap.MORE),)
    assert len(set(numbers[: encap.MAX_PATHS - 1].tolist())) == encap.MAX_PATHS - 1
    assert set(numbers[encap.MAX_PATHS - 1 :].tolist()) == {encap.MAX_PATHS}
    assert set(paths.extend(numbers[-3:], encap.VLAN).tolist()) == {encap.MAX_PATHS}
    assert len(paths.extend(numbers[:0], encap.VLAN)) == 0


# Depth, cut frames, lengths that do not fit.


def nested(depth: int) -> Packet:
    packet: Packet = IP(src="10.1.0.1", dst="10.1.0.2", id=depth + 1) / UDP(sport=7000, dport=7000) / Raw(b"innermost")
    for level in range(depth, 0, -1):
        packet = IP(src=f"10.0.{level - 1}.1", dst=f"10.0.{level - 1}.2", proto=4) / packet
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet


@pytest.mark.parametrize("depth", [1, tunnels.MAX_DEPTH - 1, tunnels.MAX_DEPTH])
def test_nested_as_deep_as_is_followed(pcap: PcapWriter, depth: int) -> None:
    tables = read(pcap, [nested(depth)])
    assert rows_of(tables) == [("10.1.0.1", "10.1.0.2", 7000, 7000)]
    assert len(tables.packets.paths[int(tables.packets.encap[0])]) == depth


@pytest.mark.parametrize("depth", [tunnels.MAX_DEPTH + 1, tunnels.MAX_DEPTH + 2, 12, 40])
def test_nested_deeper_stops_at_a_whole_packet(pcap: PcapWriter, depth: int) -> None:
    """Path and row speak of the same packet."""
    tables = read(pcap, [nested(depth)])
    last = tunnels.MAX_DEPTH
    assert rows_of(tables) == [(f"10.0.{last}.1", f"10.0.{last}.2", 0, 0)]
    assert len(tables.packets.paths[int(tables.packets.encap[0])]) == last
    assert tables.packets.wrapping(0).endswith(f"IP-in-IP 10.0.{last - 1}.1–10.0.{last - 1}.2")


def test_forty_tags_are_no_packet(pcap: PcapWriter) -> None:
    frame = make.ether(True)
    for i in range(40):
        frame = frame / Dot1Q(vlan=i + 1)
    tables = read(pcap, [frame / datagram(True, 1)])
    assert rows_of(tables) == [None]
    assert tables.captures[0].skipped == {"EtherType 0x8100": 1}


@pytest.mark.parametrize("name", make.SAMPLES)
def test_cut_anywhere_by_the_snap_length(tmp_path: Path, name: str) -> None:
    """The innermost packet from some length on; before that its wrapping or nothing, never anything else."""
    whole = make.frames(name)[-1 if not make.SAMPLES[name].datagrams_only else 0][1]
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)]
    out += [struct.pack("<IIII", 1, n * 6 * MS, n, len(whole)) + whole[:n] for n in range(1, len(whole) + 1)]
    path = tmp_path / "cut.pcap"
    path.write_bytes(b"".join(out))
    tables = open_captures([str(path)])
    p = tables.packets
    assert p.n == len(whole)
    assert (p.flags[:-1] & CUT).all()
    inner = said(name)[-1 if not make.SAMPLES[name].datagrams_only else 0]
    rows = rows_of(tables)
    outside = {make.OUTSIDE4, make.OUTSIDE6}
    found = [r is not None and r[:2] == inner[:2] for r in rows]
    assert rows[-1] == inner
    assert found == sorted(found)
    assert all(r is None or f or {r[:2], r[1::-1]} & outside for r, f in zip(rows, found, strict=True))
    within_space(tables)


def within_space(tables: Tables) -> None:
    p = tables.packets
    assert (p.offset >= 0).all()
    assert (p.offset + p.length <= len(p.space.array)).all()
    assert (p.length <= p.wire).all()
    assert (np.diff(p.tcp.row.astype(np.int64)) > 0).all()
    assert (p.proto[p.tcp.row] == TCP_PROTOCOL).all()
    extent = p.space.extents[0]
    in_file = p.offset < extent.start + extent.size
    assert (p.offset[in_file] + p.length[in_file] <= extent.start + extent.size).all()


def longer(frame: Packet, kind: type[Packet], by: int) -> bytes:
    """The frame with a wrong total length in its innermost IPv4 header."""
    frame = frame.__class__(bytes(frame))
    inner = frame
    while inner.payload.getlayer(kind):
        inner = inner.payload.getlayer(kind)
    inner.len += by
    return bytes(frame)


@pytest.mark.parametrize("name", ["erspan_2", "gre_ethernet", "vxlan"])
def test_a_mirror_may_cut_the_frames_it_carries(pcap: PcapWriter, name: str) -> None:
    frame = longer(make.SAMPLES[name].wrap(datagram(True, 1), True), IP, 400)
    tables = read(pcap, [frame])
    assert rows_of(tables) == [(CLIENT, SERVER, 7000, 7000)]
    assert tables.packets.flags[0] & CUT


@pytest.mark.parametrize("name", ["gtp_u", "l2tp", "gre", "ip_in_ip"])
def test_a_packet_that_does_not_fit_is_no_packet(pcap: PcapWriter, name: str) -> None:
    frame = make.SAMPLES[name].wrap(datagram(True, 1), True)
    data = bytearray(bytes(frame))
    at = bytes(data).index(bytes(datagram(True, 1)))
    data[at + 2 : at + 4] = struct.pack(">H", 400)
    tables = read(pcap, [bytes(data)])
    assert rows_of(tables)[0][:2] == make.OUTSIDE4
    assert encaps(tables) == [""]
    assert not tables.packets.flags[0] & (CUT | BAD)


# What is no tunnel.


@pytest.mark.parametrize("port", PORTS)
def test_ordinary_datagrams_on_a_tunnel_port(pcap: PcapWriter, port: int) -> None:
    answer = bytes.fromhex("11ff8180000100010000000003777777076578616d706c650000010001c00c000100010000003c0004c0000201")
    rtp = struct.pack(">BBHII", 0x80, 0, 7, 160, 0xABCD) + bytes(range(160))
    stun = bytes.fromhex("000100002112a442") + bytes(range(0x60, 0x6C))
    sip = b"OPTIONS sip:b@server.example SIP/2.0\r\nCall-ID: 1\r\n\r\n"
    tables = read(pcap, [udp_frame(sport=53, dport=port, payload=answer, ident=1),
                         udp_frame(sport=port, dport=16384, payload=rtp, ident=2),
                         udp_frame(sport=16384, dport=port, payload=rtp, ident=3),
                         udp_frame(sport=port, dport=3478, payload=stun, ident=4),
                         udp_frame(sport=port, dport=5060, payload=sip, ident=5)])
    assert tables.packets.encap is None
    assert {(r[0], r[1]) for r in rows_of(tables)} == {("192.0.2.1", "198.51.100.2")}
    assert tables.packets.kind.tolist()[:3] == [KIND_DNS, KIND_RTP, KIND_RTP]
    assert tables.packets.kind[4] == KIND_SIP


NOT_OPENED: dict[str, Callable[[bytes], Packet]] = {
    "FOU": lambda inside: UDP(sport=50000, dport=5555) / Raw(inside),
    "GUE with anything but IP": lambda inside: UDP(sport=50000, dport=6080) / Raw(
        bytes.fromhex("002f000000000800") + inside),
    "GRE with routing": lambda inside: Raw(bytes.fromhex("400008000000000000000000") + inside),
    "L2TPv3 with anything but Ethernet": lambda inside: Raw(bytes.fromhex("0000004d") + inside),
    "ESP": lambda inside: Raw(bytes.fromhex("0000000500000001") + inside),
}
"""What docs/formats.md says stays what it is, each as written in its own RFC."""
NOT_OPENED_PROTOCOLS = {"L2TPv3 with anything but Ethernet": 115, "ESP": 50}


@pytest.mark.parametrize("name", NOT_OPENED)
def test_what_is_not_opened_stays_the_packet_around_it(pcap: PcapWriter, name: str) -> None:
    assert name in (ROOT / "docs" / "formats.md").read_text()
    body = NOT_OPENED[name](bytes(datagram(True, 1)))
    proto = 17 if UDP in body else NOT_OPENED_PROTOCOLS.get(name, 47)
    tables = read(pcap, [make.outer(True, proto=proto) / body])
    assert rows_of(tables)[0][:2] == make.OUTSIDE4
    assert (encaps(tables), tables.packets.proto.tolist()) == ([""], [proto])


@pytest.mark.parametrize("flags", [0x0010, 0x0400, 0x1000, 0x2000, 0x8000, 1])
def test_what_is_reserved_in_l2tp_is_zero(pcap: PcapWriter, flags: int) -> None:
    """Control messages, other versions, and chance."""
    tables = read(pcap, [make.l2tp(datagram(True, 1), True, flags), make.l2tp(datagram(True, 2), True, 0x0100)])
    assert [e[:4] for e in encaps(tables)] == ["", "L2TP"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payloads=st.lists(st.binary(min_size=0, max_size=120), min_size=1, max_size=20))
def test_any_payload_on_a_tunnel_port_stays_what_it_is(pcap: PcapWriter, payloads: list[bytes]) -> None:
    tables = read(pcap, [udp_frame(sport=30000, dport=port, payload=payload, ident=i + 1)
                         for i, payload in enumerate(payloads) for port in PORTS])
    assert {(r[0], r[1]) for r in rows_of(tables)} == {("192.0.2.1", "198.51.100.2")}
    within_space(tables)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payloads=st.lists(st.binary(min_size=0, max_size=120), min_size=1, max_size=20),
       proto=st.sampled_from([4, 41, 47, 51, 97, 115, 137]))
def test_any_payload_of_a_tunnel_protocol_is_survived(pcap: PcapWriter, payloads: list[bytes], proto: int) -> None:
    tables = read(pcap, [make.outer(True, proto=proto, id=i + 1) / Raw(payload) for i, payload in enumerate(payloads)])
    assert tables.packets.n == len(payloads)
    within_space(tables)
    assert tables.flows["packets_ab"].sum() + tables.flows["packets_ba"].sum() <= len(payloads)


@pytest.mark.parametrize("seed", range(6))
def test_damaged_tunnels_are_survived(pcap: PcapWriter, seed: int) -> None:
    r = random.Random(seed)
    frames = [data for name in make.SAMPLES for _, data in make.frames(name)]
    damaged = []
    for data in frames * 4:
        broken = bytearray(data)
        for _ in range(r.randint(1, 6)):
            broken[r.randrange(12, len(broken))] = r.choice((0, 0xFF, 0x45, 0x60, r.randrange(256)))
        damaged.append(bytes(broken[: r.randint(20, len(broken))] if r.random() < 0.2 else broken))
    tables = read(pcap, damaged)
    within_space(tables)
    summary = tables.captures[0]
    assert summary.frames == summary.decoded + sum(summary.skipped.values()) == len(damaged)
    assert tables.flows.height
    assert tables.sip.height
    assert tables.tcp.height


# Fragments and tunnels.

LONG = b"INFO sip:b@server.example SIP/2.0\r\nCall-ID: long@client.example\r\nCSeq: 2 INFO\r\n" \
       b"Via: SIP/2.0/UDP client.example;branch=z9hG4bKlong\r\nContent-Length: 1600\r\n\r\n" + b"x" * 1600


def message(ident: int = 9) -> Packet:
    return IP(src=CLIENT, dst=SERVER, id=ident) / UDP(sport=5060, dport=5060) / Raw(LONG)


def pieces(frame: Packet, size: int) -> list[Packet]:
    """The frame with its outermost IPv4 datagram in fragments."""
    return [Ether(src=frame.src, dst=frame.dst) / part for part in fragment(frame[IP], size)]


def read_message(tables: Tables, row: int, encap: str) -> None:
    p = tables.packets
    assert rows_of(tables)[row] == (CLIENT, SERVER, 5060, 5060)
    assert p.payload(row) == LONG
    assert p.wrapping(row) == encap
    assert tables.sip.select("packet", "method", "call_id").rows() == [(row, "INFO", "long@client.example")]
    assert not [a for a in tables.anomalies() if "fragment" in a.reason]


def test_fragments_outside_a_tunnel(pcap: PcapWriter) -> None:
    whole = make.udp(True, 4789) / VXLAN(vni=42, flags=8) / make.bridged(message(), True)
    parts = pieces(whole, 800)
    tables = read(pcap, [parts[1], parts[0], *parts[2:]])
    read_message(tables, len(parts) - 1, f"VXLAN 42 {make.ENDS4}")


def test_fragments_outside_a_tunnel_over_ipv6(pcap: PcapWriter) -> None:
    header = IPv6(src=make.OUTSIDE6[0], dst=make.OUTSIDE6[1]) / IPv6ExtHdrFragment(id=77)
    inside = UDP(sport=50000, dport=4789) / VXLAN(vni=42, flags=8) / make.bridged(message(), True)
    parts = [make.ether(True) / part for part in fragment6(header / inside, 900)]
    assert len(parts) > 1
    read_message(read(pcap, parts), len(parts) - 1, f"VXLAN 42 {make.ENDS6}")


@pytest.mark.parametrize("name", ["vxlan", "gre", "gtp_u_session", "vlan", "mpls", "6in4"])
def test_fragments_inside_a_tunnel(pcap: PcapWriter, name: str) -> None:
    sample = make.SAMPLES[name]
    if sample.inside == make.INSIDE6:
        whole = IPv6(src=make.INSIDE6[0], dst=make.INSIDE6[1]) / IPv6ExtHdrFragment(id=5) / message()[UDP]
        parts = fragment6(whole, 900)
        tables = read(pcap, [sample.wrap(part, True) for part in parts])
        assert tables.sip["packet"].to_list() == [len(parts) - 1]
        return
    parts = fragment(message(), 800)
    read_message(read(pcap, [sample.wrap(part, True) for part in parts]), len(parts) - 1, sample.encap)


def test_fragments_inside_and_outside(pcap: PcapWriter) -> None:
    """The first pieces of the inner datagram do not fit through the tunnel and are fragmented again, the last does."""
    frames: list[Packet] = []
    for number, part in enumerate(fragment(message(), 1400)):
        whole = make.gre(part, True)
        whole[IP].id = 100 + number
        frames += pieces(whole, 1000)
    assert len(frames) == 3
    read_message(read(pcap, frames), 2, f"GRE 0 {make.ENDS4}")


def test_the_same_identification_in_two_networks_is_not_mixed(pcap: PcapWriter) -> None:
    def parts(vni: int, text: bytes) -> list[Packet]:
        whole = IP(src=CLIENT, dst=SERVER, id=9) / UDP(sport=7000, dport=7000) / Raw(text * 1000)
        return [make.udp(True, 4789) / VXLAN(vni=vni, flags=8) / make.bridged(p, True) for p in fragment(whole, 800)]

    first, second = parts(1, b"a"), parts(2, b"b")
    assert len(first) == 2
    tables = read(pcap, [first[0], second[0], second[1], first[1]])
    p = tables.packets
    assert (p.payload(2), p.payload(3)) == (b"b" * 1000, b"a" * 1000)
    assert tables.fragments["complete"].to_list() == [True, True]
    assert p.flow[2] != p.flow[3]


def test_tcp_rows_ascend_with_segments_at_all_depths(pcap: PcapWriter) -> None:
    frames: list[Packet] = []
    for i in range(40):
        segment = IP(src=CLIENT, dst=SERVER, id=i + 1) / TCP(sport=40000, dport=80, flags="A", seq=i) / Raw(b"x")
        wraps = (lambda p: make.ether(True) / p, lambda p: make.gre(p, True),
                 lambda p: make.SAMPLES["gre_in_gre"].wrap(p, True), lambda p: make.SAMPLES["vxlan"].wrap(p, True))
        frames.append(wraps[(i * 7) % 4](segment))
    tables = read(pcap, frames)
    assert tables.packets.tcp.row.tolist() == list(range(40))
    assert tables.packets.tcp.seq.tolist() == list(range(40))


# Near misses of headers that say little of themselves.


def stays(pcap: PcapWriter, *frames: bytes | Packet) -> None:
    """The packets around are what is read, and nothing is said to be wrapped."""
    tables = read(pcap, list(frames))
    assert [r[:2] if r else None for r in rows_of(tables)] == [make.OUTSIDE4] * len(frames)
    assert encaps(tables) == [""] * len(frames)
    assert not (tables.packets.flags & (CUT | BAD)).any()


def opened(pcap: PcapWriter, frame: bytes | Packet) -> None:
    assert rows_of(read(pcap, [frame])) == [(CLIENT, SERVER, 7000, 7000)]


INSIDE = bytes(datagram(True, 1))


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize("head", ["1c00000100002a00", "0400000100002a00", "0800000100002a00", "0d00000100002a00",
                                  "0c01000100002a00", "0c00010100002a00", "0c00000100002a01", "0c00000000002a00",
                                  "0c00000600002a00", "0c00000200002a00"])
def test_vxlan_gpe_holds_together(pcap: PcapWriter, head: str) -> None:
    """Version, bits, what is reserved, next protocol: draft-ietf-nvo3-vxlan-gpe §3."""
    def frame(hexed: str) -> Packet:
        return make.udp(True, 4790) / Raw(bytes.fromhex(hexed) + INSIDE)

    stays(pcap, frame(head))
    opened(pcap, frame("0c00000100002a00"))


@pytest.mark.parametrize("body", [
    bytes.fromhex("20040000") + INSIDE,  # control message
    bytes.fromhex("00040002") + INSIDE, bytes.fromhex("00040100") + INSIDE,  # flags nobody has defined
    bytes.fromhex("00040001") + INSIDE,  # private flags, and no room for them
    bytes.fromhex("00290000") + INSIDE, bytes.fromhex("00110000") + INSIDE,  # another protocol
    bytes.fromhex("01040000") + INSIDE, bytes.fromhex("1f040000") + INSIDE,  # another length of the header
    bytes.fromhex("80040000") + INSIDE, bytes.fromhex("c0040000") + INSIDE,  # variants 2 and 3
    bytes.fromhex("00040000") + INSIDE + bytes(40), INSIDE + bytes(40),  # does not fill the datagram
    bytes.fromhex("00040000") + changed(INSIDE, 10, b"\0\0"), changed(INSIDE, 10, b"\0\0"),  # checksum
    bytes.fromhex("00040000"), b"", b"\x45", INSIDE[:19],
])
def test_gue_holds_together(pcap: PcapWriter, body: bytes) -> None:
    stays(pcap, make.udp(True, 6080) / Raw(body))
    opened(pcap, make.udp(True, 6080) / Raw(bytes.fromhex("00040000") + INSIDE))


@pytest.mark.parametrize("body", [
    bytes.fromhex("00007040") + INSIDE,  # no bottom of the stack
    bytes.fromhex("00007140") + INSIDE + bytes(40), bytes.fromhex("00007140") + INSIDE[:-1],
    bytes.fromhex("00007140") + changed(INSIDE, 10, b"\0\0"), bytes.fromhex("00007140") + changed(INSIDE, 0, b"\x55"),
])
def test_mpls_in_udp_holds_together(pcap: PcapWriter, body: bytes) -> None:
    stays(pcap, make.udp(True, 6635) / Raw(body))
    opened(pcap, make.udp(True, 6635) / Raw(bytes.fromhex("00007140") + INSIDE))


def test_rtp_that_reads_like_a_label_and_an_ip_header(pcap: PcapWriter) -> None:
    """Sequence numbers with the bit of the last label, timestamps like version, header length and total length."""
    frames = [udp_frame(dport=6635, payload=struct.pack(">BBHII", 0x80, 0, 0x0100 + i, 0x45000000 | i, 7) + bytes(160))
              for i in range(150, 200)]
    p = read(pcap, frames).packets
    assert p.encap is None
    assert (p.kind == KIND_RTP).all()


def two_readings(both: bool) -> bytes:
    """A frame in a session of L2TPv3 that is also one four bytes later: two IP headers over one another."""
    words = [0x4500, 0x0800, 0x4500, 0x0800 - 4, 0x4011, 0, 0x0A01, 0, 0x0A02, 1, 0x4500, 0x0800]
    total = sum(words[:10])
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    words[5] = 0xFFFF - total
    if not both:
        words[11] += 1
    packet = struct.pack(">12H", *words) + bytes(2048 - 24)
    return bytes(12) + b"\x08\x00" + packet


def test_two_readings_of_l2tpv3_are_none(pcap: PcapWriter) -> None:
    head = struct.pack(">I", 30)
    tables = read(pcap, [make.outer(True, proto=115) / Raw(head + two_readings(both)) for both in (True, False)])
    assert [e.split(" ")[0] for e in encaps(tables)] == ["", "L2TPv3"]


@pytest.mark.parametrize("body", [
    bytes(4) + bytes(make.bridged(datagram(True, 1), True)),  # control message: session 0
    b"\0\0\0\1\0" + bytes(make.bridged(datagram(True, 1), True)),  # five bytes are no header
    b"\0\0\0\1" + bytes(make.bridged(datagram(True, 1), True))[:-1],
    b"\0\0\0\1" + bytes(make.bridged(datagram(True, 1), True)) + bytes(30),
    b"\0\0\0\1" + changed(bytes(make.bridged(datagram(True, 1), True)), 24, b"\0\0"), b"\0\0\0\1", b"",
])
def test_l2tpv3_holds_together(pcap: PcapWriter, body: bytes) -> None:
    stays(pcap, make.outer(True, proto=115) / Raw(body),
          make.udp(True, 1701, to_port_only=False) / Raw(b"\0\3\0\0" + body))
    opened(pcap, make.outer(True, proto=115) / Raw(b"\0\0\0\1" + bytes(make.bridged(datagram(True, 1), True))))


def test_a_vlan_tag_in_l2tpv3_could_be_a_part_of_the_addresses(pcap: PcapWriter) -> None:
    """With four bytes more of cookie there would be none; unless there is as much in front as there can be."""
    tagged = bytes(make.ether(True) / Dot1Q(vlan=5) / datagram(True, 1))
    stays(pcap, *(make.outer(True, proto=115) / Raw(b"\0\0\0\1" + bytes(size) + tagged) for size in (0, 4, 8)))
    tables = read(pcap, [make.outer(True, proto=115) / Raw(b"\0\0\0\1" + bytes(12) + tagged)])
    assert encaps(tables) == [f"L2TPv3 {make.ENDS4} / VLAN 5"]
    assert rows_of(tables) == [(CLIENT, SERVER, 7000, 7000)]


def test_padding_in_l2tpv3(pcap: PcapWriter) -> None:
    short = bytes(make.bridged(datagram(True, 1, b""), True)).ljust(60, b"\0")
    opened(pcap, make.outer(True, proto=115) / Raw(b"\0\0\0\1" + short))


@pytest.mark.parametrize("head", ["4000883e", "2000883e00000001", "1000883e00000001"])
def test_wccp_with_other_fields_is_not_opened(pcap: PcapWriter, head: str) -> None:
    stays(pcap, make.outer(True, proto=47) / Raw(bytes.fromhex(head) + INSIDE))


def test_a_redirect_header_that_begins_like_ip(pcap: PcapWriter) -> None:
    """WCCP version 2: the bit of the alternative bucket makes the first byte 0x40."""
    opened(pcap, make.outer(True, proto=47) / Raw(bytes.fromhex("0000883e40220000") + INSIDE))


@pytest.mark.parametrize(("kind", "fields"), [
    (0x8909, "020100010010"), (0x8909, "010200010010"), (0x88E5, "080000000001"), (0x88E5, "0c0000000001"),
    (0x88E5, "040000000001"), (0x88E5, "800000000001"), (0x88E5, "003000000001"), (0x88E5, "000000000000"),
    (0x88E5, "6000000000010200000000010001"), (0x88E7, "01000001" + "02" * 12), (0x88E7, "02000001" + "02" * 12),
    (0x894F, "4fc60101000042ff" + "00" * 16), (0x894F, "2fc60101000042ff" + "00" * 16),
    (0x894F, "0fc50101000042ff" + "00" * 12), (0x894F, "0fc10201"), (0x894F, "0fc60301000042ff" + "00" * 16),
    (0x894F, "0fc60106000042ff" + "00" * 16)])
def test_tags_that_do_not_hold_together_are_counted(pcap: PcapWriter, kind: int, fields: str) -> None:
    """What is encrypted, reserved or of another version."""
    data = bytes.fromhex(fields) + (b"" if kind == 0x894F else b"\x08\x00") + INSIDE
    tables = read(pcap, [make.ether(True, kind) / Raw(data)])
    assert rows_of(tables) == [None]
    assert tables.captures[0].skipped == {f"EtherType 0x{kind:04x}": 1}


@pytest.mark.parametrize(("name", "at"), [("pbb", 21), ("gpe", 48)])
def test_the_same_addresses_in_two_instances_are_two_flows(pcap: PcapWriter, name: str, at: int) -> None:
    """I-SID and VNI are in the key of a flow."""
    frames = [bytes(make.SAMPLES[name].wrap(datagram(up, 1 + i), up)) for i, up in enumerate((True, False))]
    other = [changed(f, at, bytes([f[at] ^ 1])) for f in frames]
    tables = read(pcap, [frames[0], other[0], frames[1], other[1]])
    assert tables.packets.flow.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("name", ["meta", "hsr", "e_tag", "vn_tag", "macsec", "ah"])
def test_tags_of_one_direction_do_not_part_a_flow(pcap: PcapWriter, name: str) -> None:
    """Also not from frames without the tag, as they are behind the switch that takes it away."""
    wrap = make.SAMPLES[name].wrap
    tables = read(pcap, [wrap(datagram(True, 1), True), make.ether(False) / datagram(False, 2),
                         wrap(datagram(False, 3), False), make.ether(True) / datagram(True, 4)])
    assert tables.packets.flow.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("head", ["1100" + "0000" * 5, "11ff" + "0000" * 5, "110f" + "0000" * 5])
def test_an_authentication_header_that_does_not_fit_stays(pcap: PcapWriter, head: str) -> None:
    body = bytes.fromhex(head) + bytes(UDP(sport=7000, dport=7000)) + b"x" * 9
    tables = read(pcap, [make.outer(True, proto=51) / Raw(body)])
    assert rows_of(tables) == [(*make.OUTSIDE4, 0, 0)]
    assert tables.packets.proto.tolist() == [51]
    assert tables.packets.wire.tolist() == [len(body)]


def test_fragments_with_an_authentication_header(pcap: PcapWriter) -> None:
    whole = make.authenticated(message(), True)
    parts = pieces(whole, 800)
    read_message(read(pcap, [parts[1], parts[0], *parts[2:]]), len(parts) - 1, "")


def test_an_authentication_header_in_a_tunnel(pcap: PcapWriter) -> None:
    frame = make.outer(True, proto=4) / make.authenticated(datagram(True, 1), True)[IP]
    tables = read(pcap, [frame])
    assert rows_of(tables) == [(CLIENT, SERVER, 7000, 7000)]
    assert encaps(tables) == [f"IP-in-IP {make.ENDS4}"]


# HEP3.


def report(chunks: list[tuple[int, bytes]], total: int | None = None) -> bytes:
    body = b"".join(struct.pack(">HHH", 0, kind, 6 + len(data)) + data for kind, data in chunks)
    return udp_frame(dport=9060, payload=b"HEP3" + struct.pack(">H", 6 + len(body) if total is None else total) + body)


ENDS = [(3, bytes([192, 0, 2, 10])), (4, bytes([198, 51, 100, 20])), (7, b"\x13\xc4"), (8, b"\x13\xc4")]
TEXT = b"OPTIONS sip:b@server.example SIP/2.0\r\nCall-ID: 1\r\n\r\n"


@pytest.mark.parametrize("frame", [
    report([]), report([(11, b"\x01")]), report([*ENDS, (11, b"\x01")]), report([*ENDS, (15, TEXT)]),
    report([*ENDS[1:], (11, b"\x01"), (15, TEXT)]), report([*ENDS, (11, b"\x01"), (15, TEXT)], total=20),
    report([*ENDS, (11, b"\x01"), (15, b"")]), report([(0, b"")] * 60), report([*ENDS, (11, b"\x64"), (15, b"a log")]),
    report([*ENDS, (11, b"\x05"), (15, b'{"sender_information":{}}')]),
    udp_frame(dport=9060, payload=b"HEP3" + b"\0" * 40), udp_frame(dport=9060, payload=b"HEP3\xff\xff\0\0\0\1\0\0" * 9),
    udp_frame(dport=4789, payload=b"HEP3\0\x40\0\0" + bytes(40)),
])
def test_reports_without_a_packet_stay_reports(pcap: PcapWriter, frame: bytes) -> None:
    tables = read(pcap, [frame])
    assert rows_of(tables)[0][:2] == ("192.0.2.1", "198.51.100.2")
    assert encaps(tables) == [""]
    assert not tables.sip.height


def test_a_report_of_rtcp_as_it_was_on_the_wire(pcap: PcapWriter) -> None:
    rtcp = struct.pack(">BBHI", 0x80, 201, 1, 7)
    tables = read(pcap, [report([*ENDS, (11, b"\x05"), (15, rtcp)])])
    assert tables.packets.kind.tolist() == [KIND_RTP]
    assert tables.packets.payload(0) == rtcp


def test_a_report_on_a_tunnel_port_is_a_report(pcap: PcapWriter) -> None:
    """Bytes that are a HEP3 message and a VXLAN header with a packet: the magic number says more than a port."""
    hidden = bytes(6) + b"\x08\x00" + bytes(datagram(True, 1))
    chunks = [(15, bytes(2) + hidden), *ENDS, (11, b"\x01")]
    body = b"".join(struct.pack(">HHH", 0, kind, 6 + len(data)) + data for kind, data in chunks)
    payload = b"HEP3" + struct.pack(">H", 6 + len(body)) + body
    tables = read(pcap, [udp_frame(dport=4789, payload=payload), udp_frame(dport=4789, payload=b"X" + payload[1:])])
    assert [e.split()[0] for e in encaps(tables)] == ["HEP3", "VXLAN"]
    assert rows_of(tables) == [(CLIENT, SERVER, 5060, 5060), (CLIENT, SERVER, 7000, 7000)]


def test_the_time_of_a_report_is_that_of_its_packet() -> None:
    tables = open_captures([str(MADE / "hep3.pcap")])
    assert tables.packets.ts.tolist() == [make.START_NS + 250 * MS, make.START_NS + 255 * MS]
    assert tables.packets.proto.tolist() == [UDP_PROTOCOL] * 2


def test_a_report_without_a_time_has_that_of_its_frame(pcap: PcapWriter) -> None:
    tables = read(pcap, [report([*ENDS, (10, struct.pack(">I", 5)), (11, b"\x01"), (15, TEXT)])])
    assert tables.packets.ts.tolist() == [make.START_NS]
    assert encaps(tables) == ["HEP3 0"]


def test_a_report_cut_by_the_snap_length(pcap: PcapWriter) -> None:
    frame = report([*ENDS, (11, b"\x01"), (15, TEXT)])
    tables = read(pcap, [frame], snaplen=len(frame) - 10)
    p = tables.packets
    assert (int(p.length[0]), int(p.wire[0])) == (len(TEXT) - 10, len(TEXT))
    assert p.kind.tolist() == [KIND_SIP]


# ICMP, and the page that names all this.


@pytest.mark.parametrize("six", [False, True])
def test_an_icmp_error_about_an_authenticated_packet_finds_its_flow(pcap: PcapWriter, six: bool) -> None:
    """RFC 1812 §4.3.2.3 and RFC 4443 §2.4: routers quote more than eight bytes, and the ports are in them."""
    if six:
        tail = b"\x11\4\0\0" + bytes(20) + bytes(UDP(sport=7000, dport=7000) / Raw(b"x" * 20))
        asked: Packet = IPv6(src=make.INSIDE6[0], dst=make.INSIDE6[1], nh=51) / Raw(tail)
        error: Packet = IPv6(src=make.INSIDE6[1], dst=make.INSIDE6[0], nh=58) / Raw(b"\1\4" + bytes(6) + bytes(asked))
        frames = [make.ether(True) / asked, make.ether(False) / error]
    else:
        frame = make.authenticated(datagram(True, 1), True)
        quote = IcmpLayer(type=3, code=3) / Raw(bytes(frame[IP])[:60])
        frames = [frame, make.ether(False) / IP(src=SERVER, dst=CLIENT, id=8) / quote]
    tables = read(pcap, frames)
    found = tables.icmp.select("packet", "quoted_proto", "quoted_source_port", "quoted_flow")
    assert found.rows() == [(1, 17, 7000, 0)]


def test_an_icmp_error_inside_a_tunnel_finds_its_flow(pcap: PcapWriter) -> None:
    asked = datagram(True, 1)
    quoted = bytes(asked)[:28]
    error = IP(src=SERVER, dst=CLIENT, id=8) / IcmpLayer(type=3, code=3) / Raw(quoted)
    tables = read(pcap, [make.SAMPLES["vxlan"].wrap(p, u) for p, u in ((asked, True), (error, False))])
    assert tables.icmp.select("packet", "quoted_flow").rows() == [(1, 0)]


def test_every_kind_is_on_the_page_of_formats() -> None:
    """Each row of the table: name, how it is recognised, what is in the key of a flow, samples."""
    page = (ROOT / "docs" / "formats.md").read_text()
    section = page.split("## Tunnels and tags\n")[1].split("\n## ")[0]
    table = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")][1:]
    kinds = set(encap.NAMES) - {encap.NAMES[encap.MORE]}
    assert kinds < {cells[0].strip() for cells in table}
    named: set[str] = set()
    for cells in table:
        samples = re.findall(r"`(\w+)`", cells[3])
        assert samples, cells[0]
        named |= set(samples)
        for name in samples:
            assert cells[0].strip() in make.SAMPLES[name].encap or (cells[0].strip() not in kinds) or name in UNNAMED
        assert cells[0].strip() in kinds or cells[2].strip() == "nothing"
    assert named == set(make.SAMPLES)


def test_a_capture_without_wrapping_has_no_column_for_it(pcap: PcapWriter) -> None:
    tables = read(pcap, [udp_frame()])
    assert tables.packets.encap is None
    assert tables.flows.select(pl.col("encap").unique()).rows() == [("",)]
