"""ICMP errors and the packets they quote."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcp_wire import CLIENT, SERVER, Frame, ip4, ip6, read, tcp_header

from netdiag.decode import icmp as messages
from netdiag.tables import Tables, icmp
from netdiag.tables.reader import open_captures
from netdiag.tables.schema import rows, schema

ROUTER = "203.0.113.1"
A6, B6, R6 = "2001:db8::a", "2001:db8::b", "2001:db8::1"
SYN4 = ip4(CLIENT, SERVER, 6, tcp_header(40000, 443, 7, 0, 2))
SYN6 = ip6(A6, B6, 6, tcp_header(40000, 443, 7, 0, 2))


def error4(kind: int, code: int, quoted: bytes, rest: int = 0, to: str = CLIENT) -> bytes:
    return ip4(ROUTER, to, 1, struct.pack(">BBHI", kind, code, 0, rest) + quoted, ttl=63)


def error6(kind: int, code: int, quoted: bytes, rest: int = 0) -> bytes:
    return ip6(R6, A6, 58, struct.pack(">BBHI", kind, code, 0, rest) + quoted, hops=63)


def load(path: Path, *frames: bytes) -> Tables:
    numbered: list[Frame] = [(10**18 + i * 10**6, f) for i, f in enumerate(frames)]
    return read(path / "t.pcap", numbered)


def all_rows(tables: Tables) -> list[icmp.IcmpError]:
    assert tables.icmp.schema == schema(icmp.IcmpError)
    return list(rows(tables.icmp, icmp.IcmpError))


def test_quotes_and_names(tmp_path: Path) -> None:
    tables = load(tmp_path, SYN4, SYN6, error4(3, 13, SYN4[14:42]), error4(3, 4, SYN4[14:42], 1400),
                  error6(1, 4, SYN6[14:]), error6(2, 0, SYN6[14:], 1280), error4(3, 4, SYN4[14:42], 0))
    a, b, c, d, e = all_rows(tables)
    assert (a.packet, a.version, a.type, a.code, a.ttl) == (2, 4, 3, 13, 63)
    assert (a.name, a.source, a.destination) == ("communication administratively prohibited", ROUTER, CLIENT)
    assert (a.quoted_proto, a.quoted_source, a.quoted_source_port) == (6, CLIENT, 40000)
    assert (a.quoted_destination, a.quoted_destination_port, a.mtu) == (SERVER, 443, None)
    assert a.quoted_flow == int(tables.packets.flow[0])
    assert (b.name, b.mtu) == ("fragmentation needed", 1400)
    assert (c.version, c.name, c.source, c.quoted_flow) == (6, "port unreachable", R6, int(tables.packets.flow[1]))
    assert (d.name, d.mtu, d.quoted_destination_port) == ("packet too big", 1280, 443)
    assert e.mtu is None  # a router older than RFC 1191


def test_quote_that_was_cut(tmp_path: Path) -> None:
    tables = load(tmp_path, SYN4, error4(3, 1, SYN4[14:36]), error4(3, 1, SYN4[14:30]), error4(3, 1, b""))
    a, b, c = all_rows(tables)
    assert (a.quoted_proto, a.quoted_source, a.quoted_source_port, a.quoted_flow) == (6, CLIENT, None, None)
    assert (b.quoted_source, c.quoted_proto) == (None, None)
    assert [(x.table, x.count) for x in tables.anomalies()] == [("icmp", 2)]


def test_reply_direction_and_unknown_flow(tmp_path: Path) -> None:
    back = ip4(SERVER, CLIENT, 6, tcp_header(443, 40000, 7, 8, 16))
    other = ip4(SERVER, CLIENT, 6, tcp_header(443, 40001, 7, 8, 16))
    a, b = all_rows(load(tmp_path, SYN4, error4(11, 0, back[14:42], to=SERVER), error4(11, 0, other[14:42], to=SERVER)))
    assert (a.quoted_source, a.quoted_source_port, a.quoted_flow) == (SERVER, 443, 0)
    assert b.quoted_flow is None


def test_later_fragment_has_no_ports(tmp_path: Path) -> None:
    piece = ip4(CLIENT, SERVER, 17, b"\x9c\x40\x01\xbb" + b"x" * 20, fragment=0x00B9)
    (a,) = all_rows(load(tmp_path, error4(11, 1, piece[14:])))
    assert (a.name, a.quoted_source_port) == ("fragment reassembly time exceeded", None)


def test_extension_headers_in_quote() -> None:
    header = SYN6[14:54]
    hop = b"\x2c\0" + bytes(6)
    fragment = b"\x06\0" + b"\0\0" + bytes(4)
    packet = header[:6] + b"\0" + header[7:] + hop + fragment + SYN6[54:]
    found = messages.quote(6, bytes(8) + packet)
    assert found
    assert (found.proto, found.source_port, found.destination_port) == (6, 40000, 443)


def test_echo_and_neighbour_discovery_are_no_errors(tmp_path: Path) -> None:
    echo, solicitation = bytes([8, 0]) + bytes(6), bytes([135, 0]) + bytes(22)
    wrong_family = ip6(A6, B6, 1, bytes([3, 1]) + bytes(60))
    tables = load(tmp_path, ip4(CLIENT, SERVER, 1, echo), ip6(A6, B6, 58, solicitation), wrong_family)
    assert all_rows(tables) == []


def test_points_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    load(tmp_path / "a", SYN4)
    load(tmp_path / "b", error4(3, 1, SYN4[14:42]))
    tables = open_captures([], [("in", str(tmp_path / "a/t.pcap")), ("out", str(tmp_path / "b/t.pcap"))])
    (a,) = all_rows(tables)
    assert (a.point, a.quoted_flow) == ("out", None)  # the flow was captured, but elsewhere


def test_flood_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(icmp, "ROW_LIMIT", 3)
    tables = load(tmp_path, *(error4(3, 1, SYN4[14:42] + bytes([i])) for i in range(5)))
    assert tables.icmp.height == 3
    assert [(x.table, x.count) for x in tables.anomalies()] == [("icmp", 2)]


def test_real_captures(real: Path) -> None:
    tables = open_captures([str(real / "icmp-pmtu__suricata-verify__bug-3616-smtp-input.pcap")])
    assert tables.icmp["mtu"].to_list() == [1492] * 4
    assert tables.icmp["quoted_flow"].null_count() == 0
    tables = open_captures([str(real / "icmp__community-id-spec__combined.pcap.gz")])
    assert tables.icmp["name"].to_list().count("port unreachable") == 3


@given(st.sampled_from([4, 6]), st.binary(max_size=120))
def test_any_bytes(version: int, data: bytes) -> None:
    found = messages.quote(version, data)
    assert found is None or found.version == version
    messages.mtu(version, data)
