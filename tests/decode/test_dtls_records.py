"""DTLS records, fragments and hellos."""

from __future__ import annotations

import random
import struct

from hypothesis import given
from hypothesis import strategies as st

from netdiag.decode import dtls

HELLO = (b"\xfe\xfd" + bytes(range(32)) + b"\0" + b"\3abc" + b"\0\2\xc0\x2b" + b"\1\0"
         + b"\0\x09" + b"\0\x0e\0\5\0\2\0\1\0")


def record(kind: int, body: bytes, epoch: int = 0, version: int = 0xFEFD) -> bytes:
    return struct.pack(">BHHHIH", kind, version, epoch, 0, 7, len(body)) + body


def piece(kind: int, body: bytes, start: int = 0, end: int | None = None, seq: int = 0) -> bytes:
    part = body[start:end]
    return (bytes([kind]) + len(body).to_bytes(3, "big") + seq.to_bytes(2, "big") + start.to_bytes(3, "big")
            + len(part).to_bytes(3, "big") + part)


def test_several_records_in_a_datagram() -> None:
    data = record(22, piece(1, HELLO)) + record(20, b"\1") + record(22, b"x" * 40, 1)
    found, odd = dtls.records(data)
    assert [(r.type, r.epoch, r.end - r.start) for r in found] == [(22, 0, 12 + len(HELLO)), (20, 0, 1), (22, 1, 40)]
    assert not odd


def test_what_is_no_record_is_noted() -> None:
    good = record(22, piece(1, HELLO))
    for bad in (good + b"\x16\xfe", good + b"\x50" + bytes(20), good[:-1], b"\x16\x03\x03" + bytes(20)):
        found, odd = dtls.records(bad)
        assert odd
        assert len(found) <= 1


def test_encrypted_records_of_dtls13_reach_to_the_end() -> None:
    found, odd = dtls.records(b"\x2f\x12\x34\0\x10" + bytes(16))
    assert [(r.type, r.end) for r in found] == [(dtls.UNIFIED, 21)]
    assert not odd


def test_fragments_in_any_order_overlapping_and_repeated() -> None:
    body = bytes(range(200))
    cuts = [(0, 80), (60, 120), (120, 150), (150, 200), (0, 80), (150, 200)]
    for seed in range(20):
        order = cuts[:]
        random.Random(seed).shuffle(order)
        assembly, done = dtls.Assembly(), []
        for start, end in order:
            data = record(22, piece(11, body, start, end, 2))
            found, bad = dtls.fragments(data, dtls.records(data)[0][0])
            assert not bad
            whole = assembly.add(found[0])
            done += [whole] if whole is not None else []
        assert done == [body]


def test_incomplete_message_is_not_made_up() -> None:
    assembly = dtls.Assembly()
    for start, end in ((0, 50), (100, 200), (100, 200)):
        assert assembly.add(dtls.Fragment(11, 200, 1, start, bytes(end - start))) is None


def test_fragment_that_lies_about_its_place() -> None:
    lie = b"\x0b" + b"\0\0\x0a" + b"\0\0" + b"\0\0\x08" + b"\0\0\x05"
    data = record(22, lie + bytes(5))
    assert dtls.fragments(data, dtls.records(data)[0][0]) == ([], True)


def test_fragments_without_number_cost_no_memory() -> None:
    assembly = dtls.Assembly()
    for seq in range(1000):
        for offset in range(3):
            assembly.add(dtls.Fragment(11, 100_000, seq, offset, b"x"))
    assert len(assembly._parts) <= dtls.MAX_MESSAGES


def test_client_hello_with_cookie() -> None:
    hello, cookie = dtls.client_hello(HELLO)
    assert hello is not None
    assert cookie == b"abc"
    assert hello.version == 0xFEFD
    assert hello.random == bytes(range(32))
    assert hello.ciphers == (0xC02B,)
    assert dtls.USE_SRTP in hello.extensions


def test_versions_of_server_hellos() -> None:
    head = bytes(32) + b"\0" + b"\xc0\x2b" + b"\0"
    old, new = dtls.server_hello(b"\xfe\xff" + head), dtls.server_hello(
        b"\xfe\xfd" + head + b"\0\6" + b"\0\x2b\0\2\xfe\xfc")
    assert old is not None
    assert old.version == 0xFEFF
    assert new is not None
    assert new.version == 0xFEFC


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    found, _ = dtls.records(data)
    assembly = dtls.Assembly()
    for r in found:
        assert r.start <= r.end <= len(data)
        for f in dtls.fragments(data, r)[0]:
            whole = assembly.add(f)
            assert whole is None or len(whole) == f.size
    dtls.client_hello(data)
    dtls.server_hello(data)
