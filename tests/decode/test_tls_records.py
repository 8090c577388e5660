from __future__ import annotations

import ssl
from pathlib import Path

import tls_wire
from hypothesis import given, settings
from hypothesis import strategies as st

from netdiag.decode import tls_hello, tls_records
from netdiag.decode.tls_records import ALERT, CERTIFICATE, CHANGE_CIPHER_SPEC, CLIENT_HELLO, HANDSHAKE, SERVER_HELLO

HELLO = b"\x03\x03" + bytes(range(32)) + b"\0" + b"\0\2\x13\x01" + b"\1\0"


def test_messages_over_several_records_and_several_in_one() -> None:
    joined = tls_wire.message(CLIENT_HELLO, HELLO) + tls_wire.message(CERTIFICATE, b"c" * 50)
    pieces = [joined[i : i + 7] for i in range(0, len(joined), 7)]
    data = b"".join(tls_wire.record(HANDSHAKE, p) for p in pieces)
    side = tls_records.read(data)
    assert [(m.type, m.body) for m in side.messages] == [(CLIENT_HELLO, HELLO), (CERTIFICATE, b"c" * 50)]
    assert side.messages[1].end == len(data)
    assert not side.cut
    assert not side.problems


def test_end_of_a_message_is_where_its_last_byte_lies() -> None:
    first, second = tls_wire.message(CLIENT_HELLO, HELLO), tls_wire.message(14, b"")
    data = b"preface" + tls_wire.record(HANDSHAKE, first + second)
    side = tls_records.read(data, 7)
    assert [(m.start, m.end) for m in side.messages] == [(12, 12 + len(first)), (12 + len(first), len(data))]


def test_hole_ends_the_reading() -> None:
    data = tls_wire.record(HANDSHAKE, tls_wire.message(CLIENT_HELLO, HELLO)) + bytes(40)
    whole = len(data) - 40
    side = tls_records.read(data, 0, ((whole, whole + 40),))
    assert len(side.messages) == 1
    assert side.cut
    inside = tls_records.read(data, 0, ((20, 24),))
    assert inside.messages == []
    assert inside.cut


def test_alerts_in_clear_and_encrypted() -> None:
    data = (tls_wire.record(ALERT, b"\1\x70") + tls_wire.record(CHANGE_CIPHER_SPEC, b"\1")
            + tls_wire.record(ALERT, b"x" * 26) + tls_wire.record(ALERT, b"\2\x30"))
    side = tls_records.read(data)
    assert [(a.level, a.description) for a in side.alerts] == [(1, 112), (2, 48)]
    assert side.encrypted_alerts == [len(data) - 7]


def test_hello_after_change_cipher_spec_is_read() -> None:
    hello = tls_wire.message(CLIENT_HELLO, HELLO)
    data = tls_wire.record(CHANGE_CIPHER_SPEC, b"\1") + tls_wire.record(HANDSHAKE, hello)
    side = tls_records.read(data)
    assert [m.type for m in side.messages] == [CLIENT_HELLO]
    assert side.encrypted_handshake == []


def test_lying_lengths_are_said() -> None:
    assert tls_records.read(b"\x16\x03\x03\xff\xff" + bytes(70000)).problems
    assert tls_records.read(tls_wire.record(HANDSHAKE, b"\x0b\xff\xff\xff" + bytes(100))).problems
    assert tls_records.read(tls_wire.record(HANDSHAKE, b"")).problems
    assert tls_records.read(tls_wire.record(HANDSHAKE, tls_wire.message(CLIENT_HELLO, HELLO)) + b"GET / HTTP").problems


def test_find_hello_behind_a_preface() -> None:
    hello = tls_wire.record(HANDSHAKE, tls_wire.message(CLIENT_HELLO, HELLO), 0x0301)
    text = b"EHLO a.example\r\nSTARTTLS\r\n"
    assert tls_records.find_hello(text + hello, CLIENT_HELLO) == len(text)
    assert tls_records.find_hello(text + hello, SERVER_HELLO) == -1
    assert tls_records.find_hello(tls_wire.record(HANDSHAKE, b"\1"), CLIENT_HELLO) == 0


def flights(tmp_path: Path) -> bytes:
    leaf = tls_wire.signed("sip.example")
    out, _ = tls_wire.converse(*tls_wire.contexts(tmp_path, ssl.TLSVersion.TLSv1_2, leaf), "sip.example")
    return b"".join(data for from_client, data in out if not from_client)


def everything(data: bytes) -> None:
    """All decoders over hostile bytes: they may find nothing, they may not raise."""
    for start in (0, tls_records.find_hello(data, SERVER_HELLO), tls_records.find_hello(data, CLIENT_HELLO)):
        side = tls_records.read(data, max(start, 0), ((len(data) // 2, len(data) // 2 + 3),) if start else ())
        for m in side.messages:
            assert 0 < m.end <= len(data)
            tls_hello.client_hello(m.body)
            tls_hello.server_hello(m.body)
            for version in (0x0300, 0x0303, 0x0304):
                tls_hello.certificates(m.body, version)
                tls_hello.certificate_request(m.body, version)


def test_mutated_handshakes_never_raise(tmp_path: Path) -> None:
    real = flights(tmp_path)

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, len(real) - 1), st.integers(0, 255)), max_size=8),
           st.integers(0, len(real)))
    def mutate(changes: list[tuple[int, int]], cut: int) -> None:
        data = bytearray(real)
        for at, value in changes:
            data[at] = value
        everything(bytes(data[:cut]))

    mutate()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_never_raise(data: bytes) -> None:
    everything(data)
    everything(b"\x16\x03\x01" + len(data).to_bytes(2, "big") + data)
    if (hello := tls_hello.client_hello(data)) is not None:
        assert tls_hello.ja4(hello).count("_") == 2
