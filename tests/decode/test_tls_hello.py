from __future__ import annotations

import struct

from netdiag.decode import tls_hello
from netdiag.decode.tls_hello import ClientHello


def vector(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def words(*values: int) -> bytes:
    return b"".join(struct.pack(">H", v) for v in values)


def hello(extensions: list[tuple[int, bytes]]) -> bytes:
    block = b"".join(struct.pack(">H", k) + vector(2, d) for k, d in extensions)
    ciphers = words(0x0A0A, 0x1301, 0x5600)
    return b"\x03\x03" + bytes(range(32)) + b"\0" + vector(2, ciphers) + b"\x01\x00" + vector(2, block)


FULL = [
    (0x2A2A, b""),
    (0, vector(2, b"\0" + vector(2, b"sip.voice.example"))),
    (10, vector(2, words(0x3A3A, 4588, 29))),
    (13, vector(2, words(0x0403, 0x0804))),
    (16, vector(2, vector(1, b"h2") + vector(1, b"sip/2"))),
    (35, b"ticket"),
    (43, vector(1, words(0x4A4A, 0x0304, 0x0303))),
    (51, vector(2, words(0x3A3A) + vector(2, b"\0") + words(29) + vector(2, bytes(32)))),
]


def test_client_hello() -> None:
    found = tls_hello.client_hello(hello(FULL))
    assert found is not None
    assert found.sni == "sip.voice.example"
    assert found.alpn == ("h2", "sip/2")
    assert found.versions == (0x0304, 0x0303)
    assert found.max_version == 0x0304
    assert found.groups == (4588, 29)
    assert found.key_shares == (29,)
    assert found.ciphers == (0x1301, 0x5600)
    assert (found.ticket, found.psk, found.early_data) == (True, False, False)
    assert found.problem == ""


def test_grease_is_both_bytes_alike() -> None:
    assert [v for v in range(65536) if tls_hello.grease(v)] == [0x0A0A + 0x1010 * i for i in range(16)]


def test_ja4_of_the_published_example() -> None:
    # The worked example of the JA4 specification (Chrome, TLS 1.3).
    ciphers = [0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC013, 0xC014, 0x9C,
               0x9D, 0x2F, 0x35]
    kinds = [0x1B, 0, 0x33, 0x10, 0x4469, 0x17, 0x2D, 0xD, 5, 0x23, 0x12, 0x2B, 0xFF01, 0xB, 0xA, 0x15]
    signatures = (0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)
    example = ClientHello(0x0303, b"", b"", tuple(ciphers), tuple(kinds), "a.example", ("h2",), (0x0304, 0x0303), (),
                          signatures, (), False, False, False, "")
    assert tls_hello.ja4(example) == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def test_lengths_that_lie_are_problems_not_errors() -> None:
    base = hello([(43, b"\xff\x03\x04")])
    found = tls_hello.client_hello(base)
    assert found is not None
    assert found.problem == "extension whose inner length is wrong"
    cut = tls_hello.client_hello(hello(FULL)[:-20])
    assert cut is not None
    assert cut.problem == "extension list longer than its hello"
    assert tls_hello.client_hello(b"\x03\x03" + bytes(10)) is None
    assert tls_hello.client_hello(b"\x03\x03" + bytes(32) + b"\xff" + bytes(300)) is None


def test_extension_list_of_65535_bytes() -> None:
    many = hello([(0xFF00, b"")] * 16383)
    found = tls_hello.client_hello(many)
    assert found is not None
    assert found.problem == "extension that appears twice (RFC 8446 §4.2)"
    assert tls_hello.ja4(found).startswith("t12i0299")


def test_server_hello_retry_and_sentinel() -> None:
    def server(random: bytes, extensions: list[tuple[int, bytes]]) -> bytes:
        block = b"".join(struct.pack(">H", k) + vector(2, d) for k, d in extensions)
        return b"\x03\x03" + random + b"\0\x13\x01\0" + vector(2, block)
    retry = tls_hello.server_hello(server(tls_hello.HELLO_RETRY_RANDOM, [(43, words(0x0304)), (51, words(24))]))
    assert retry is not None
    assert (retry.retry, retry.version, retry.group) == (True, 0x0304, 24)
    old = tls_hello.server_hello(server(bytes(24) + b"DOWNGRD\x01", []))
    assert old is not None
    assert (old.retry, old.version, old.sentinel) == (False, 0x0303, 0x0303)
    plain = tls_hello.server_hello(server(bytes(24) + b"DOWNGRD\x02", []))
    assert plain is not None
    assert plain.sentinel is None


def test_certificate_lists() -> None:
    entries = vector(3, b"leaf") + vector(3, b"ca")
    assert tls_hello.certificates(vector(3, entries), 0x0303) == ((b"leaf", b"ca"), "")
    entries13 = vector(3, b"leaf") + vector(2, b"") + vector(3, b"ca") + vector(2, b"xy")
    assert tls_hello.certificates(b"\0" + vector(3, entries13), 0x0304) == ((b"leaf", b"ca"), "")
    assert tls_hello.certificates(vector(3, b""), 0x0303) == ((), "")
    ders, problem = tls_hello.certificates(vector(3, vector(3, b"leaf") + b"\xff\xff\xffx"), 0x0303)
    assert ders == (b"leaf",)
    assert problem


def test_certificate_request_names() -> None:
    names = vector(2, b"name1") + vector(2, b"name2")
    tls12 = tls_hello.certificate_request(vector(1, b"\1") + vector(2, words(0x0403)) + vector(2, names), 0x0303)
    assert (tls12.authorities, tls12.names, tls12.size) == ((b"name1", b"name2"), 2, 14)
    tls11 = tls_hello.certificate_request(vector(1, b"\1") + vector(2, names), 0x0302)
    assert tls11.authorities == (b"name1", b"name2")
    tls13 = tls_hello.certificate_request(b"\0" + vector(2, words(47) + vector(2, vector(2, names))), 0x0304)
    assert tls13.authorities == (b"name1", b"name2")
    assert tls_hello.certificate_request(vector(1, b"\1") + vector(2, b"\0\5x"), 0x0302).problem
