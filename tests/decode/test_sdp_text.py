"""Session descriptions, line by line."""

from __future__ import annotations

import random
import time

import numpy as np

from netdiag.decode import sdp, sdp_columns
from netdiag.decode.sip_columns import Span
from netdiag.decode.sip_headers import PAD

HEAD = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.2\r\nt=0 0\r\n"


def test_media_line_with_everything() -> None:
    session = sdp.parse(
        HEAD
        + (
            b"m=audio 4000 UDP/TLS/RTP/SAVPF 111 8\r\nc=IN IP4 198.51.100.1/127\r\n"
            b"a=rtpmap:111 opus/48000/2\r\na=ptime:20\r\n"
            b"a=sendonly\r\na=rtcp:4005 IN IP4 198.51.100.1\r\na=ice-ufrag:x\r\n"
            b"a=candidate:1 1 UDP 2130706431 10.0.0.1 5000 typ host\r\n"
        )
    )
    assert session.origin_address == "192.0.2.1"
    assert session.media == (
        (
            "audio",
            "198.51.100.1",
            4000,
            "UDP/TLS/RTP/SAVPF",
            (111, 8),
            ("opus/48000/2", "PCMA/8000"),
            "sendonly",
            4005,
            20,
            True,
            ("10.0.0.1",),
        ),
    )
    assert session.odd == ""


def test_defaults_come_from_the_session_part() -> None:
    audio, video = sdp.parse(
        HEAD + b"a=inactive\r\nm=audio 4000 RTP/AVP 0 96\r\nm=video 0 RTP/AVP 31\r\na=recvonly\r\n"
    ).media
    assert (audio.address, audio.direction, audio.rtcp_port, audio.codecs) == (
        "192.0.2.2",
        "inactive",
        4001,
        ("PCMU/8000", ""),
    )
    assert (video.port, video.direction, video.rtcp_port) == (0, "recvonly", None)


def test_rtcp_mux_shares_the_port() -> None:
    assert sdp.parse(HEAD + b"m=audio 4000 RTP/AVP 0\r\na=rtcp-mux\r\n").media[0].rtcp_port == 4000


def test_memory_of_sections_does_not_mix_calls() -> None:
    first = sdp.parse(HEAD + b"m=audio 4000 RTP/AVP 0\r\na=sendrecv\r\n").media[0]
    second = sdp.parse(HEAD.replace(b"192.0.2.2", b"192.0.2.9") + b"m=audio 5000 RTP/AVP 8\r\na=sendrecv\r\n").media[0]
    assert (first.address, first.port, first.payload_types) == ("192.0.2.2", 4000, (0,))
    assert (second.address, second.port, second.payload_types) == ("192.0.2.9", 5000, (8,))


def test_stops_where_a_multipart_piece_ends() -> None:
    assert len(sdp.parse(HEAD + b"m=audio 4000 RTP/AVP 0\r\n--edge\r\na=inactive\r\n").media) == 1
    assert sdp.parse(HEAD + b"m=audio 4000 RTP/AVP 0\r\n--edge\r\na=inactive\r\n").media[0].direction == "sendrecv"


def test_bad_and_too_many_lines_are_said() -> None:
    assert sdp.parse(HEAD + b"m=audio x RTP/AVP 0\r\n").odd == "SDP with a bad media line"
    many = sdp.parse(HEAD + b"m=audio 4000 RTP/AVP 0\r\n" * 100)
    assert len(many.media) == 64
    assert many.odd
    lines = b"".join(b"a=candidate:1 1 UDP 1 10.0.%d.%d 5000 typ host\r\n" % (i >> 8, i & 255) for i in range(400))
    crowded = sdp.parse(HEAD + b"m=audio 4000 RTP/AVP 0\r\n" + lines)
    assert len(crowded.media[0].candidates) == 256
    assert crowded.odd


def test_any_bytes_in_linear_time() -> None:
    begin = time.process_time()
    for body in (b"\nm=", b"a=rtpmap:", b"\xff\0", b"\no=", b"m=audio 1 x\n", b"a=candidate:" + b" x" * 9 + b"\n"):
        sdp.parse(body * 10_000)
    assert time.process_time() - begin < 5


USUAL = (b"v=0\r\no=- 7 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 %b\r\nt=0 0\r\nm=audio %d RTP/AVP 0 101\r\n"
         b"a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n%b")


TAILS = (b"a=sendonly\r\n", b"a=rtcp:4000\r\n", b"a=rtcp-mux\r\n", b"", b"a=ptime:30\r\n",
         b"a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n", b"c=IN IP4 10.0.0.9\r\n")
BODIES = [USUAL % (address, port, tail) for tail in TAILS for port in (0, 7, 10000, 65534, 65535, 65536)
          for address in (b"10.0.0.1", b"192.0.2.77", b"pbx.example", b"224.0.0.1/127", b"\x01", b"h" * 70)]


def in_columns(bodies: list[bytes]) -> list[sdp.Session | None]:
    """Sessions put together from what ``sdp_columns`` cuts out; None where the shape is not the usual one."""
    data = np.frombuffer(b"".join(b + b"\n" for b in bodies) + bytes(PAD), np.uint8)
    end = np.cumsum([len(b) + 1 for b in bodies]) - 1
    begin = end - np.array([len(b) for b in bodies])
    found = sdp_columns.split(data, begin, end)

    def text(span: Span, row: int) -> bytes:
        return data[span.begin[row] : span.end[row]].tobytes()

    out: list[sdp.Session | None] = []
    for i in range(len(bodies)):
        made = sdp_columns.template(text(found.middle, i), text(found.tail, i)) if found.usual[i] else None
        if made is None:
            out.append(None)
            continue
        line, shared, odd = made
        port = int(found.port[i])
        address = text(found.address, i).decode() if shared else line.address
        line = line._replace(address=address, port=port, rtcp_port=port + (not sdp_columns.shares_port(line)))
        out.append(sdp.Session(text(found.origin, i).decode(), (line,), odd))
    return out


def test_columns_read_what_the_parser_reads() -> None:
    sessions = in_columns(BODIES)
    assert {i: s for i, s in enumerate(sessions) if s is not None and s != sdp.parse(BODIES[i])} == {}
    usual = [b for b in BODIES if b"/127" not in b and b"a=rtcp:" not in b and b"\x01" not in b and b"h" * 70 not in b
             and b"audio 0 " not in b and b"audio 65535" not in b and b"audio 65536" not in b]
    assert [b for b, s in zip(BODIES, sessions, strict=True) if s is not None] == usual


def test_columns_read_what_the_parser_reads_of_any_text() -> None:
    rng = random.Random(3)
    words = (b"\r\n", b"\n", b" ", b"  ", b"\t", b"m=", b"c=", b"o=", b"a=", b"/", b"\x01", b"\xff", b"40000", b":")
    bodies = []
    for _ in range(4000):
        body = bytearray(rng.choice(BODIES))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(body))
            body[at : at + rng.choice((0, 0, 1, 3))] = rng.choice(words)
        bodies.append(bytes(body))
    sessions = in_columns(bodies)
    assert sum(s is not None for s in sessions) > 300
    assert {bodies[i]: s for i, s in enumerate(sessions) if s is not None and s != sdp.parse(bodies[i])} == {}
