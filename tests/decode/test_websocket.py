"""WebSocket: the upgrade, and messages out of frames of every length and every damage."""

from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websocket_wire import ANSWER, ASK, MASK, frame

from netdiag.decode import websocket as ws


def texts(data: bytes, **how: bool) -> list[bytes]:
    found = list(ws.messages(data, 0, **how))
    assert all(m.complete and not m.note for m in found)
    return [m.data for m in found]


def test_frames_of_rfc_6455() -> None:
    # §5.7
    assert texts(bytes.fromhex("810548656c6c6f")) == [b"Hello"]
    assert texts(bytes.fromhex("818537fa213d7f9f4d5158"), masked=True) == [b"Hello"]
    assert texts(bytes.fromhex("010348656c80026c6f")) == [b"Hello"]
    assert texts(bytes.fromhex("890548656c6c6f") + bytes.fromhex("8a8537fa213d7f9f4d5158")) == []
    assert texts(bytes.fromhex("827e0100") + bytes(256)) == [bytes(256)]
    assert texts(bytes.fromhex("827f0000000000010000") + bytes(65536)) == [bytes(65536)]


def test_compressed_frames_of_rfc_7692() -> None:
    # §7.2.3.1 and §7.2.3.2: the second message refers back to the first
    first, again = bytes.fromhex("c107f248cdc9c90700"), bytes.fromhex("c105f200110000")
    assert texts(first, deflate=True) == [b"Hello"]
    assert texts(bytes.fromhex("4103f248cd") + bytes.fromhex("8004c9c90700"), deflate=True) == [b"Hello"]
    assert texts(first + again, deflate=True) == [b"Hello", b"Hello"]
    alone = list(ws.messages(first + again, 0, deflate=True, alone=True))
    assert [(m.data, m.complete, m.note) for m in alone] == [(b"Hello", True, ""), (b"", False, ws.BAD_DEFLATE)]
    (unasked,) = ws.messages(first, 0)
    assert (unasked.opcode, unasked.note) == (-1, ws.NO_FRAME)


def test_control_frames_between_fragments() -> None:
    data = frame(b"one ", final=False) + frame(b"ping", ws.PING) + frame(b"two ", ws.CONTINUATION, False)
    data += frame(b"", ws.CONTINUATION, False) + frame(b"", ws.PONG) + frame(b"three", ws.CONTINUATION)
    (found,) = ws.messages(frame(b"x", ws.PONG) + data + frame(b"", ws.CLOSE) + frame(b"late"), 0)
    assert found == ws.Message(ws.TEXT, 3, 3 + len(data), b"one two three", True, "")


def test_upgrade() -> None:
    found = ws.upgrade(ASK + b"x", ANSWER + b"y")
    assert found == ws.Upgrade(len(ASK), len(ANSWER), "sip", ("sip", "msrp"), "/sip")
    deflate = ANSWER.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate; "
                             b"server_no_context_takeover\r\n\r\n")
    found = ws.upgrade(ASK, deflate)
    assert found is not None
    assert found.deflate == ws.Deflate(client_alone=False, server_alone=True)
    # refused first, then asked again on the same connection
    other = ASK.replace(b"dGhl", b"ZGhl").replace(b"Upgrade: WebSocket\r\n", b"")
    found = ws.upgrade(other + ASK, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n" + ANSWER)
    assert found is not None
    assert (found.client, found.problem) == (len(other + ASK), "")
    found = ws.upgrade(ASK.replace(b"dGhl", b"ZGhl"), ANSWER)
    assert found is not None
    assert "does not answer" in found.problem
    one_way = ws.upgrade(ASK, b"")
    assert one_way is not None
    assert (one_way.server, one_way.protocol) == (None, "sip")


@pytest.mark.parametrize(("client", "server"), [
    (b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", ANSWER), (ASK, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    (ASK[:-2], ANSWER), (ASK, ANSWER[:-2]), (b"", b""), (b"INVITE sip:a SIP/2.0\r\n\r\n", ANSWER),
])
def test_no_upgrade(client: bytes, server: bytes) -> None:
    assert ws.upgrade(client, server) is None


@pytest.mark.parametrize(("data", "note"), [
    (b"HTTP/1.1 200 OK\r\n", ws.NO_FRAME), (frame(b"x", 3), ws.NO_FRAME), (frame(b"x", bits=0x40), ws.NO_FRAME),
    (frame(b"x", ws.PING, False), ws.NO_FRAME), (frame(b"x" * 126, ws.PING), ws.NO_FRAME),
    (frame(b"x", ws.CONTINUATION), ws.BAD_FRAGMENT), (frame(b"x", final=False) + frame(b"y"), ws.BAD_FRAGMENT),
])
def test_what_breaks_the_protocol_ends_it(data: bytes, note: str) -> None:
    *before, last = ws.messages(frame(b"first") + data + frame(b"after"), 0)
    assert [m.data for m in before] == [b"first"]
    assert (last.opcode, last.complete, last.note) == (-1, False, note)


def test_lengths_that_lie() -> None:
    for head in (bytes.fromhex("817fffffffffffffffff"), bytes.fromhex("817f7fffffffffffffff"), b"\x81\x7e\xff\xff"):
        (found,) = ws.messages(head + b"INVITE", 0)
        assert (found.data, found.complete, found.end) == (b"INVITE", False, len(head) + 6)
    for size in range(1, 14):  # the header itself is cut
        assert all(not m.complete for m in ws.messages(frame(bytes(200), mask=MASK, width=8)[:size], 0, masked=True))


def test_mask_where_there_should_be_none() -> None:
    assert [(m.data, m.note) for m in ws.messages(frame(b"a", mask=MASK) + frame(b"b"), 0)] == [
        (b"a", ws.BAD_MASK), (b"b", "")]
    assert [(m.data, m.note) for m in ws.messages(frame(b"a"), 0, masked=True)] == [(b"a", ws.BAD_MASK)]


def test_holes_end_it() -> None:
    data = frame(b"one") + frame(b"twotwo") + frame(b"three")
    found = list(ws.messages(data, 0, [(9, 11)]))
    assert [(m.data, m.complete) for m in found] == [(b"one", True), (b"tw", False)]


def test_long_messages_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws, "MAX_MESSAGE", 100)
    found = list(ws.messages(frame(bytes(150)) + frame(b"x"), 0))
    assert [(len(m.data), m.complete, m.note) for m in found] == [(100, False, ws.LONG), (1, True, "")]
    found = list(ws.messages(frame(bytes(70), final=False) + frame(bytes(70), ws.CONTINUATION) + frame(b"x"), 0))
    assert [(len(m.data), m.complete, m.note) for m in found] == [(100, False, ws.LONG), (1, True, "")]


def test_what_inflates_without_end() -> None:
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(bytes(8 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    found = list(ws.messages(frame(bomb[:-4], bits=0x40) + frame(bomb[:9], bits=0x40), 0, deflate=True))
    assert [(len(m.data), m.complete, m.note) for m in found] == [
        (ws.MAX_MESSAGE, False, ws.BAD_DEFLATE), (0, False, ws.BAD_DEFLATE)]


def test_many_inflated_messages_are_bounded() -> None:
    packer = zlib.compressobj(9, wbits=-15)
    data = b""
    for _ in range(50):
        data += frame((packer.compress(bytes(1 << 19)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4], bits=0x40)
    total = sum(len(m.data) for m in ws.messages(data, 0, deflate=True))
    assert total <= ws.MAX_MESSAGE + ws.MAX_RATIO * len(data)


def test_too_many_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws, "MAX_FRAMES", 5)
    *_, last = ws.messages(frame(b"", ws.PING) * 6, 0)
    assert last.note == ws.TOO_MANY


@given(st.lists(st.tuples(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=3), st.booleans()),
                max_size=5), st.binary(min_size=4, max_size=4))
def test_whatever_is_sent_arrives(said: list[tuple[bytes, list[int], bool]], mask: bytes) -> None:
    data, kept = b"", []
    for text, cuts, binary in said:
        places = sorted({0, len(text), *(c for c in cuts if c < len(text))})
        pieces = [text[a:b] for a, b in pairwise(places)] or [b""]
        for i, piece in enumerate(pieces):
            opcode = ws.CONTINUATION if i else ws.BINARY if binary else ws.TEXT
            data += frame(piece, opcode, i == len(pieces) - 1, mask) + frame(b"", ws.PONG, mask=mask)
        kept.append(text)
    assert texts(data, masked=True) == kept


@given(st.binary(max_size=400), st.booleans(), st.booleans())
def test_any_bytes_are_survived(data: bytes, masked: bool, deflate: bool) -> None:
    ends = [0]
    for message in ws.messages(data, 0, masked=masked, deflate=deflate):
        assert ends[-1] <= message.start <= message.end <= len(data)
        ends.append(message.end)
    ws.upgrade(data, data)
