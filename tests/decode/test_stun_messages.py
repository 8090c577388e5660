"""STUN messages: the test vectors of RFC 5769, and anything else."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdiag.capture.space import Space
from netdiag.decode import stun

REQUEST = bytes.fromhex("""
    000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b1
    51263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf""")
IPV4 = bytes.fromhex("""
    0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643000800142b91f599
    fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96""")
IPV6 = bytes.fromhex("""
    010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5
    bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c""")
LONG_TERM = bytes.fromhex("""
    000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c662f2f3439396b39
    353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f72670000080014f67024656dd64a3e02b8e0712e85c9a2
    8ca89666""")
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
"""RFC 5769 §2.1 to §2.4."""


def space(data: bytes) -> Space:
    fd = os.memfd_create("stun")
    try:
        os.write(fd, data or b"\0")
        return Space([(fd, max(len(data), 1))])
    finally:
        os.close(fd)


@pytest.mark.parametrize("raw", [REQUEST, IPV4, IPV6], ids=["request", "ipv4", "ipv6"])
def test_vectors_with_short_term_credentials(raw: bytes) -> None:
    message = stun.read(raw)
    assert message is not None
    assert message.raw == raw
    assert stun.fingerprint_fits(raw) is True
    assert stun.integrity_fits(message, PASSWORD) is True
    assert stun.integrity_fits(message, PASSWORD + b"x") is False


def test_vector_with_long_term_credentials() -> None:
    message = stun.read(LONG_TERM)
    assert message is not None
    username = message.value(stun.USERNAME)
    assert username is not None
    assert username.decode() == "マトリックス"
    key = stun.long_term_key("マトリックス", "example.org", "TheMatrIX")
    assert stun.integrity_fits(message, key) is True
    assert stun.integrity_fits(message, b"TheMatrIX") is False
    assert stun.fingerprint_fits(LONG_TERM) is None


def test_values_of_the_vectors() -> None:
    message = stun.read(REQUEST)
    assert message is not None
    assert (message.kind, message.method) == (stun.REQUEST, stun.BINDING)
    assert message.value(stun.USERNAME) == b"evtj:h6vY"
    assert message.value(stun.PRIORITY) == bytes.fromhex("6e0001ff")
    assert message.value(stun.ICE_CONTROLLED) == bytes.fromhex("932ff9b151263b36")
    assert message.value(stun.USE_CANDIDATE) is None
    for raw, end in ((IPV4, ("192.0.2.1", 32853)), (IPV6, ("2001:db8:1234:5678:11:2233:4455:6677", 32853))):
        answer = stun.read(raw)
        assert answer is not None
        assert answer.endpoints(stun.XOR_MAPPED_ADDRESS) == [end]


def test_a_changed_byte_breaks_fingerprint_and_integrity() -> None:
    changed = REQUEST[:30] + b"X" + REQUEST[31:]
    message = stun.read(changed)
    assert message is not None
    assert stun.fingerprint_fits(changed) is False
    assert stun.integrity_fits(message, PASSWORD) is False


def test_integrity_with_sha256() -> None:
    import hmac
    head = REQUEST[:20]
    user = REQUEST[60:76]
    covered = head[:2] + (len(user) + 36).to_bytes(2, "big") + head[4:] + user
    raw = covered + b"\0\x1c\0\x20" + hmac.digest(b"key", covered, "sha256")
    message = stun.read(raw)
    assert message is not None
    assert stun.integrity_fits(message, b"key") is True
    assert stun.integrity_fits(message, b"kez") is False


def test_columns_agree_with_single_messages() -> None:
    every = (REQUEST, IPV4, IPV6, LONG_TERM)
    data = space(b"".join(every))
    at = np.cumsum([0, *map(len, every[:-1])])
    size = np.array([*map(len, every)])
    head = stun.headers(data.gather(at, stun.HEADER))
    assert head.kind.tolist() == [stun.REQUEST, stun.SUCCESS, stun.SUCCESS, stun.REQUEST]
    assert head.method.tolist() == [1, 1, 1, 1]
    assert head.cookie.all()
    assert stun.plausible(head, data.gather(at, 1)[:, 0], size).all()
    assert not stun.plausible(head, data.gather(at, 1)[:, 0], size + 4).any()
    found = stun.attributes(data, at, at + size)
    assert not found.broken.any()
    assert found.there(stun.USERNAME).tolist() == [True, False, False, True]
    assert data.read(int(found.at(stun.USERNAME)[0]), int(found.size(stun.USERNAME)[0])) == b"evtj:h6vY"
    rows = np.array([1, 2])
    plain = stun.plain_addresses(data, found.at(stun.XOR_MAPPED_ADDRESS)[rows], head.high[rows], head.low[rows], True)
    assert [stun.endpoint(value.tobytes()) for value in plain] == [
        ("192.0.2.1", 32853), ("2001:db8:1234:5678:11:2233:4455:6677", 32853)]


def test_what_stands_behind_integrity_does_not_count() -> None:
    """RFC 8489 §14.5: an attribute that anybody may have appended."""
    extra = b"\0\x25\0\0"
    raw = REQUEST[:2] + (len(REQUEST) - 20 + 4).to_bytes(2, "big") + REQUEST[4:-8] + extra + REQUEST[-8:]
    data = space(raw)
    found = stun.attributes(data, np.array([0]), np.array([len(raw)]))
    assert not found.there(stun.USE_CANDIDATE)[0]
    assert found.there(stun.FINGERPRINT)[0]


def test_first_of_repeated_attributes_counts() -> None:
    body = b"\0\x24\0\4\0\0\0\1" + b"\0\x24\0\4\0\0\0\2"
    raw = b"\0\1" + len(body).to_bytes(2, "big") + REQUEST[4:20] + body
    data = space(raw)
    found = stun.attributes(data, np.array([0]), np.array([len(raw)]))
    assert found.at(stun.PRIORITY).tolist() == [24]


def test_attribute_beyond_the_message_is_noted() -> None:
    raw = b"\0\1\0\4" + REQUEST[4:20] + b"\0\6\0\x40"
    data = space(raw)
    assert stun.attributes(data, np.array([0]), np.array([len(raw)])).broken.tolist() == [True]
    many = b"\x7f\0\0\0" * (stun.MAX_ATTRIBUTES + 1)
    raw = b"\0\1" + len(many).to_bytes(2, "big") + REQUEST[4:20] + many
    data = space(raw)
    assert stun.attributes(data, np.array([0]), np.array([len(raw)])).broken.tolist() == [True]


def test_classic_message_without_cookie_is_binding_only() -> None:
    data = np.frombuffer(b"\0\1\0\0" + bytes(16) + b"\0\3\0\0" + bytes(16), np.uint8).reshape(2, 20)
    head = stun.headers(data)
    assert stun.plausible(head, data[:, 0], np.array([20, 20])).tolist() == [True, False]


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    message = stun.read(data)
    if message is None:
        return
    assert all(at + size <= len(message.raw) for _, at, size in message.attributes)
    stun.integrity_fits(message, b"key")
    message.endpoints(stun.XOR_PEER_ADDRESS)
    stun.fingerprint_fits(message.raw)
    columns = stun.attributes(space(data), np.array([0]), np.array([len(message.raw)]))
    for kind in stun.COLUMNS:
        place = int(columns.at(kind)[0])
        assert place < 0 or place + int(columns.size(kind)[0]) <= len(message.raw)
