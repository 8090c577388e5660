from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import dns.message
import dns.rrset
import pytest
from checkout import udp_frame

from netdiag.tables import Tables
from netdiag.tables.lookups import Lookup
from netdiag.tables.reader import open_captures
from netdiag.tables.schema import rows, schema

S = 10**9
T0 = 1_700_000_000 * S
CLIENT, SERVER = "192.0.2.10", "198.51.100.53"
Frame = tuple[int, bytes]


def query(seconds: float, name: str = "sip.example", kind: str = "A", number: int = 7, port: int = 40000) -> Frame:
    message = dns.message.make_query(name, kind, use_edns=0, payload=1232, id=number)
    return T0 + int(seconds * S), udp_frame(CLIENT, SERVER, port, 53, message.to_wire())


def answer(seconds: float, name: str = "sip.example", kind: str = "A", number: int = 7, port: int = 40000,
           data: str = "192.0.2.99", flags: int = 0, rcode: int = 0) -> Frame:
    message = dns.message.make_response(dns.message.make_query(name, kind, id=number))
    if data:
        message.answer.append(dns.rrset.from_text(name + ".", 60, "IN", kind, data))
    wire = bytearray(message.to_wire())
    wire[2] |= flags
    wire[3] |= rcode
    return T0 + int(seconds * S), udp_frame(SERVER, CLIENT, 53, port, bytes(wire))


@pytest.fixture
def lookups(pcap: Callable[..., Path]) -> Callable[..., tuple[list[Lookup], Tables]]:
    def make(*frames: Frame) -> tuple[list[Lookup], Tables]:
        tables = open_captures([str(pcap(list(frames)))])
        assert dict(tables.lookups.schema) == schema(Lookup)
        return list(rows(tables.lookups, Lookup)), tables
    return make


Make = Callable[..., tuple[list[Lookup], Tables]]


def test_query_and_answer(lookups: Make) -> None:
    (row,), _ = lookups(query(0), answer(0.02))
    assert (row.client, row.client_port, row.server, row.server_port) == (CLIENT, 40000, SERVER, 53)
    assert (row.name, row.type, row.id, row.transport, row.edns_size) == ("sip.example", "A", 7, "udp", 1232)
    assert (row.query_packet, row.answer_packet, row.rcode) == (0, 1, "NOERROR")
    assert row.answers == ("sip.example. 60 IN A 192.0.2.99",)
    assert row.answer_ns is not None
    assert row.answer_ns - row.query_ns == 20_000_000
    assert not row.duplicate


def test_retry_with_the_same_id_gets_the_answer_behind_it(lookups: Make) -> None:
    found, _ = lookups(query(0), query(5), answer(5.02))
    assert [(r.query_packet, r.answer_packet, r.retry) for r in found] == [(0, None, 0), (1, 2, 1)]


def test_late_answer_to_the_first_of_two_ids(lookups: Make) -> None:
    found, _ = lookups(query(0, number=1), query(5, number=2, port=40001), answer(6, number=1),
                       answer(6.1, number=2, port=40001))
    assert [(r.query_packet, r.answer_packet, r.retry) for r in found] == [(0, 2, 0), (1, 3, 1)]


def test_retry_window_is_30_seconds(lookups: Make) -> None:
    found, _ = lookups(query(0, number=1), query(30, number=2), query(61, number=3))
    assert [r.retry for r in found] == [0, 1, 0]


def test_second_answer_is_a_duplicate_and_a_stray_one_is_not(lookups: Make) -> None:
    found, _ = lookups(query(0), answer(0.01, data="203.0.113.66"), answer(0.02), answer(0.5, number=99))
    assert [(r.query_packet, r.answer_packet, r.duplicate) for r in found] == [
        (0, 1, False), (None, 2, True), (None, 3, False)]
    assert found[1].client == CLIENT


def test_answer_must_have_the_same_question(lookups: Make) -> None:
    found, _ = lookups(query(0), answer(0.1, kind="AAAA", data="2001:db8::1"))
    assert [(r.type, r.query_packet, r.answer_packet) for r in found] == [("A", 0, None), ("AAAA", None, 1)]


def test_error_without_question_matches_by_id(lookups: Make) -> None:
    bare = struct.pack(">6H", 7, 0x8001, 0, 0, 0, 0)
    (row,), _ = lookups(query(0), (T0 + S, udp_frame(SERVER, CLIENT, 53, 40000, bare)))
    assert (row.name, row.rcode, row.answer_packet) == ("sip.example", "FORMERR", 1)


def test_flags_of_the_answer(lookups: Make) -> None:
    (row,), _ = lookups(query(0), answer(0.1, data="", flags=0x06, rcode=2))
    assert (row.truncated, row.authoritative, row.rcode, row.answers) == (True, True, "SERVFAIL", ())


def test_malformed_messages_are_anomalies(lookups: Make) -> None:
    loop = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1"
    found, tables = lookups(query(0), (T0 + 1, udp_frame(CLIENT, SERVER, 40000, 53, loop)),
                            (T0 + 2, udp_frame(CLIENT, SERVER, 40000, 53, b"short")))
    assert len(found) == 1
    assert [(a.reason, a.count, a.first_frame) for a in tables.anomalies() if a.table == "lookups"] == [
        ("DNS message not read: name with a compression pointer that does not point back", 1, 2),
        ("DNS message shorter than its header", 1, 3)]


def test_no_dns(lookups: Make) -> None:
    found, _ = lookups((T0, udp_frame()))
    assert found == []


def test_real_captures_hold_what_tshark_counts(real: Path) -> None:
    wanted = {  # queries and answers by tshark 4.0.17
        "dns-fail__dnscap__edns.pcap": (7, 7), "encap-l2tp__dpkt__nb6-http.pcap": (8, 8),
        "dns-tc__go-dnscollector__dnsdump_udp_truncated_tcp_fragmented.pcap": (2, 2),
        "dns-fragment__go-dnscollector__dnsdump_ip6_fragmented_udp.pcap": (1, 1),
    }
    for name, (queries, answers) in wanted.items():
        frame = open_captures([str(real / name)]).lookups
        assert (frame["query_packet"].count(), frame["answer_packet"].count()) == (queries, answers), name


def test_tcp_messages_over_several_segments(real: Path) -> None:
    frame = open_captures([str(real / "dns-tc__go-dnscollector__dnsdump_udp_truncated_tcp_fragmented.pcap")]).lookups
    assert frame["transport"].to_list() == ["udp", "tcp"]
    assert frame["truncated"].to_list() == [True, False]
    assert frame["answer_count"][1] > frame["answers"][1].len() == 16
