"""The SIP table: which datagrams are messages, and what is read from them."""

from __future__ import annotations

import random

import polars as pl
import pytest
from sip_world import Datagram, message, world

from netdiag.decode import sip as decode
from netdiag.tables import Tables
from netdiag.tables.call_details import call_details
from netdiag.tables.packets import FRAGMENT
from netdiag.tables.schema import schema
from netdiag.tables.sip import SipMessage
from netdiag.tables.sip_details import SipDetails, added

A, B = "192.0.2.1", "198.51.100.2"
INVITE = (
    "INVITE sip:bob@b.example SIP/2.0",
    "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rport",
    'From: "Alice; <x>" <sip:alice@a.example>;tag=f1',
    "To: <sip:bob@b.example>",
    "Call-ID: c1@a.example",
    "CSeq: 7 INVITE",
    "Contact: <sip:alice@192.0.2.1>;expires=90",
    "User-Agent: phone 1",
)


def sent(*payloads: bytes, source_port: int = 5060, port: int = 5060, wire: int | None = None) -> Tables:
    return world([Datagram(float(i), A, source_port, B, port, p, wire) for i, p in enumerate(payloads)])


def whole(tables: Tables) -> pl.DataFrame:
    """The SIP table with the details of all messages."""
    return added(tables, tables.sip, [name for name in schema(SipDetails) if name != "message"])


def reasons(tables: Tables) -> dict[str, int]:
    return {a.reason: a.count for a in tables.anomalies()}


def test_every_field_of_a_request() -> None:
    payload = message(*INVITE, "Content-Type: application/sdp", "Session-Expires: 1800", "Expires: 10", body="v=0\r\n")
    tables = sent(payload)
    assert tables.sip.schema == schema(SipMessage)
    row = whole(tables).row(0, named=True)
    assert row == {
        "message": 0,
        "packet": 0,
        "point": "capture",
        "ts_ns": 0,
        "flow": 0,
        "source": A,
        "source_port": 5060,
        "destination": B,
        "destination_port": 5060,
        "transport": "udp",
        "method": "INVITE",
        "uri": "sip:bob@b.example",
        "status": None,
        "reason": None,
        "call_id": "c1@a.example",
        "cseq": 7,
        "cseq_method": "INVITE",
        "from_uri": "sip:alice@a.example",
        "from_tag": "f1",
        "to_uri": "sip:bob@b.example",
        "to_tag": None,
        "via": "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rport",
        "branch": "z9hG4bKa",
        "contact": "<sip:alice@192.0.2.1>;expires=90",
        "expires": 90,
        "user_agent": "phone 1",
        "reason_header": None,
        "has_reason": False,
        "session_expires": "1800",
        "sdp_offset": len(payload) - 5,
        "size": len(payload),
        "cut": False,
        "retransmission": False,
        "raw_offset": 42,
        "raw_length": len(payload),
    }
    assert reasons(tables) == {}


def test_response_compact_forms_folding_case_and_blanks() -> None:
    text = (
        b"SIP/2.0 486 Busy Here\r\nv  :\t SIP/2.0/UDP h.example\r\n ;branch=z9hG4bKb\r\n"
        b"f: <sip:a@x.example>\r\n\t;tag=1\r\n"
        b"T : sip:b@x.example;tag=2\r\ni: id\r\ncSEQ: 3  INVITE \r\nSERVER: s\r\nx: 90\r\nl: 0\r\n\r\n"
    )
    row = whole(sent(text)).row(0, named=True)
    got = [
        row[k]
        for k in (
            "method",
            "status",
            "reason",
            "branch",
            "from_tag",
            "to_uri",
            "to_tag",
            "call_id",
            "cseq",
            "cseq_method",
            "user_agent",
            "session_expires",
        )
    ]
    assert got == [None, 486, "Busy Here", "z9hG4bKb", "1", "sip:b@x.example", "2", "id", 3, "INVITE", "s", "90"]


def test_first_of_repeated_headers_wins_and_bodies_are_not_headers() -> None:
    row = sent(message(*INVITE, "Call-ID: second", "Via: SIP/2.0/UDP z;branch=no", body="Call-ID: third\r\n")).sip.row(
        0, named=True
    )
    assert (row["call_id"], row["branch"]) == ("c1@a.example", "z9hG4bKa")


def test_line_ends_before_the_start_line() -> None:
    tables = sent(b"\r\n\r\n" + message(*INVITE))
    assert tables.sip["method"].to_list() == ["INVITE"]
    assert tables.sip["raw_offset"].to_list() == [46]


def test_unknown_methods_count_on_sip_ports_and_flows_only() -> None:
    odd = message("NEWMETHOD sip:b@b.example SIP/2.0", *INVITE[1:])
    assert len(sent(odd).sip) == 1
    assert len(sent(odd, source_port=7000, port=7001).sip) == 0
    assert len(sent(message(*INVITE), odd, source_port=7000, port=7001).sip) == 2


def test_what_only_looks_like_sip_is_an_anomaly() -> None:
    tables = sent(b"INVITE me to dinner\r\n\r\n", b"SIP/2.0 2x0 OK\r\n\r\n")
    assert len(tables.sip) == 0
    assert reasons(tables) == {"starts like SIP, but its first line is not valid": 2}


def test_missing_headers_are_null_and_counted() -> None:
    tables = sent(b"OPTIONS sip:b@b.example SIP/2.0\r\nCSeq: 99999999999 OPTIONS\r\n\r\n")
    row = whole(tables).row(0, named=True)
    assert [row[k] for k in ("call_id", "from_uri", "to_uri", "via", "cseq", "cseq_method")] == [None] * 5 + ["OPTIONS"]
    assert reasons(tables) == {
        "message without Call-ID": 1,
        "message without From": 1,
        "message without To": 1,
        "message without Via": 1,
        "CSeq is no number of 32 bits": 1,
    }


def test_bytes_that_are_not_utf8_do_not_spoil_their_neighbours() -> None:
    bad = message(*INVITE).replace(b"c1@a.example", b"c\xff1\x00@\xc3\xa9")
    tables = sent(bad, message(*INVITE))
    assert tables.sip["call_id"].to_list() == ["c\ufffd1\0@é", "c1@a.example"]
    assert tables.sip["from_tag"].to_list() == ["f1", "f1"]


@pytest.mark.parametrize(("keep", "cut"), [(100, True), (-3, True), (None, False)])
def test_cut_by_the_snap_length(keep: int | None, cut: bool) -> None:
    payload = message(*INVITE, body="x" * 20)
    tables = sent(payload[:keep], wire=len(payload))
    assert tables.sip["cut"].to_list() == [cut]
    assert reasons(tables) == {}


def test_fragment_without_its_rest_is_no_message() -> None:
    piece = b"\0" * 8 + message(*INVITE)
    tables = world([Datagram(0, A, 5060, B, 5060, piece, flags=FRAGMENT, ip_id=3)])
    assert len(tables.sip) == 0
    assert reasons(tables) == {"SIP in an IP fragment whose other pieces are missing": 1}


def test_retransmission_is_the_same_message_on_the_same_hop() -> None:
    one = message(*INVITE)
    other = one.replace(b"z9hG4bKa", b"z9hG4bKb")
    assert sent(one, one, other).sip["retransmission"].to_list() == [False, True, False]


def test_sdp_inside_a_multipart_body() -> None:
    body = "--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--\r\n"
    payload = message(*INVITE, "Content-Type: multipart/mixed;boundary=b", body=body)
    offset = sent(payload).sip["sdp_offset"][0]
    assert payload[offset : offset + 3] == b"v=0"


def test_columns_and_text_parser_agree() -> None:
    """The column-wise cut of addresses, Via and CSeq gives what the text functions give."""
    addresses = [
        "<sip:a@b>;tag=1",
        '"q" <sip:a@b>',
        "sip:a@b;tag=2",
        '"a\\"<" <sip:a@b>;x="y;tag=no";tag=3',
        "<sip:a@b>; tag=4",
        "<sip:a@b>;tag=5;p",
        "<sip:a@b>;p;tag=6 ",
        "<>",
        "x",
        '"a <sip:c@d>;tag=7',
        "<sip:a@b;tag=in>;tag=8",
        "<sip:a",
    ]
    vias = [
        "SIP/2.0/UDP h;branch=b1",
        "SIP/2.0/UDP h;branch=b2;rport, SIP/2.0/TCP i;branch=no",
        "SIP/2.0/UDP h",
        "SIP / 2.0 / UDP h ; branch = b3",
        'SIP/2.0/UDP h;x=",";branch=b4',
        "SIP/2.0/UDP h;rport,SIP/2.0/UDP i;branch=no",
    ]
    numbers = ["1 INVITE", "  2   INVITE ", "3", "INVITE", "4294967296 INVITE", "5 INVITE x", "007 ACK"]
    rng = random.Random(5)
    rows = [(rng.choice(addresses), rng.choice(vias), rng.choice(numbers)) for _ in range(300)]
    tables = sent(
        *(
            message("OPTIONS sip:b@b.example SIP/2.0", f"From: {a}", f"Via: {v}", f"CSeq: {n}", "Call-ID: x", "To: y")
            for a, v, n in rows
        )
    )
    data = whole(tables)
    assert data.select("from_uri", "from_tag").rows() == [decode.address(a.strip()) for a, _, _ in rows]
    assert data.select("via", "branch").rows() == [decode.via(v.strip()) for _, v, _ in rows]
    assert data.select("cseq", "cseq_method").rows() == [decode.cseq(n.strip()) for _, _, n in rows]


def test_any_damage_is_survived() -> None:
    rng = random.Random(11)
    base = message(
        *INVITE, "Content-Type: application/sdp", body="v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\n"
    )
    payloads = []
    for _ in range(600):
        data = bytearray(base)
        for _ in range(rng.randrange(1, 12)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        payloads.append(bytes(data[: rng.randrange(4, len(data))] if rng.random() < 0.3 else data))
    tables = sent(*payloads)
    for frame in (tables.sip, tables.transactions, tables.calls, tables.media, tables.registrations, tables.legs,
                  tables.bindings):
        assert isinstance(frame, pl.DataFrame)
    assert len(call_details(tables)) == len(tables.calls)
    assert len(tables.sip) > 300


def test_no_sip_at_all() -> None:
    tables = sent(b"\x80\0" * 20, source_port=4000, port=4002)
    for frame in (tables.sip, tables.transactions, tables.calls, tables.media, tables.registrations, tables.legs,
                  tables.bindings):
        assert len(frame) == 0
