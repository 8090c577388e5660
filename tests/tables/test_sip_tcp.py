"""SIP over TCP: messages are framed out of the byte stream, and belong to the packet that completed them."""

from __future__ import annotations

from pathlib import Path

from sip_world import message
from tcp_wire import ACK, CLIENT, PSH, SERVER, Talk, read

HEAD = (
    "Via: SIP/2.0/TCP h.example;branch=z9hG4bK1",
    "From: <sip:a@a.example>;tag=a",
    "To: <sip:b@b.example>",
    "Call-ID: c1",
)
OPTIONS = message("OPTIONS sip:b@b.example SIP/2.0", *HEAD, "CSeq: 1 OPTIONS", body="text")
OK = message("SIP/2.0 200 OK", *HEAD, "CSeq: 1 OPTIONS")


def test_one_message_over_many_segments_and_two_in_one(tmp_path: Path) -> None:
    data = OPTIONS + b"\r\n\r\n" + OPTIONS + OPTIONS[:40]
    talk = Talk().handshake()
    talk.c(20, ACK, 1, 1, OPTIONS[:50]).c(21, ACK, 51, 1, OPTIONS[50:])
    talk.s(30, ACK | PSH, 1, 1 + len(OPTIONS), OK)
    talk.c(40, ACK | PSH, 1 + len(OPTIONS), 1 + len(OK), data[: len(data) - 40]).c(
        50, ACK, 1 + len(OPTIONS) + len(data) - 40, 1 + len(OK), OPTIONS[:40]
    )
    tables = read(tmp_path / "a.pcap", talk.frames)
    sip = tables.sip
    assert sip["packet"].to_list() == [4, 5, 6, 6, 7]
    assert sip["method"].to_list() == ["OPTIONS", None, "OPTIONS", "OPTIONS", "OPTIONS"]
    assert sip["transport"].unique().to_list() == ["tcp"]
    assert sip["source"].to_list() == [CLIENT, SERVER, CLIENT, CLIENT, CLIENT]
    assert sip["cut"].to_list() == [False, False, False, False, True]
    for offset, length, want in zip(
        sip["raw_offset"], sip["raw_length"], (OPTIONS, OK, OPTIONS, OPTIONS, OPTIONS[:40]), strict=True
    ):
        assert tables.packets.space.read(offset, length) == want
    assert tables.transactions["status"].to_list() == [200]
    assert [(a.table, a.reason, a.count) for a in tables.anomalies() if a.table == "sip"] == [
        ("sip", "header without an end", 1)
    ]


def test_lost_segment_leaves_the_rest(tmp_path: Path) -> None:
    long = message("OPTIONS sip:b@b.example SIP/2.0", *HEAD, "CSeq: 2 OPTIONS", body="x" * 500)
    talk = Talk().handshake()
    talk.c(20, ACK, 1, 1, long[:300])  # the next 200 bytes are not in the capture
    talk.c(22, ACK, 501, 1, long[500:]).c(30, ACK, 1 + len(long), 1, OPTIONS)
    sip = read(tmp_path / "a.pcap", talk.frames).sip
    assert sip["cseq"].to_list() == [2, 1]
    assert sip["cut"].to_list() == [True, False]


def test_other_protocols_on_a_stream_are_no_messages(tmp_path: Path) -> None:
    talk = Talk().handshake().c(20, ACK, 1, 1, b"OPTIONS * HTTP/1.1\r\nHost: b.example\r\n\r\n")
    assert len(read(tmp_path / "a.pcap", talk.frames).sip) == 0
