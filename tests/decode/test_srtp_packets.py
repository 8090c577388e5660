"""SRTP keys and tags against the vectors of the RFCs, a packet of libsrtp and a handshake of OpenSSL."""

from __future__ import annotations

import pytest

from netdiag.decode import dtls, srtp
from netdiag.decode.srtp import SUITES, Key, crypto, derive, header_size, verify

hexed = bytes.fromhex
MASTER, SALT = hexed("E1F97A0D3E018BE0D64FA32C06DE4139"), hexed("0EC675AD498AFEEBB6960B3AABE6")
SHORT, LONG = SUITES["AES_CM_128_HMAC_SHA1_32"], SUITES["AES_CM_128_HMAC_SHA1_80"]
# Master key and salt of RFC 3711 App. B.3, sequence 0x1234, ROC 0: what libsrtp makes of sixteen bytes 0xab.
SEALED = hexed("800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb")
# base64 of the same 30 bytes
INLINE = "inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm"


def test_key_derivation_of_rfc_3711() -> None:
    assert derive(MASTER, SALT, 0, 16) == hexed("C61E7A93744F39EE10734AFE3FF7A087")
    assert derive(MASTER, SALT, 2, 14) == hexed("30CBBC08863D8C85D49DB34A9AE1")
    assert derive(MASTER, SALT, 1, 20) == hexed("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4")


def test_key_derivation_of_rfc_6188() -> None:
    key = Key(SUITES["AES_256_CM_HMAC_SHA1_80"],
              hexed("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6"),
              hexed("3b04803de51ee7c96423ab5b78d2"))
    assert key.cipher == (hexed("5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"),
                          hexed("fa31791685ca444a9e07c6c64e93"))
    assert key.auth == hexed("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05")


@pytest.mark.parametrize(("size", "sealed"), [
    (16, "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf"
         "8833899d7f27beb16a9152cf765ee4390cce"),
    (32, "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799"
         "b87b7aa3db36dfffd6b0f9bb7878d7a76c13"),
])
def test_gcm_of_rfc_7714(size: int, sealed: str) -> None:
    """§16.1.1 and §16.2.1 give the session key and salt themselves."""
    key = Key(SUITES[f"AEAD_AES_{size * 8}_GCM"], bytes(size), bytes(12))
    vars(key)["cipher"] = bytes(range(size)), b"Quid pro quo"
    packet = hexed("8040f17b8041f8d35501a0b2" + sealed)
    assert verify(key, packet, 0)
    assert not verify(key, packet, 1)
    assert not verify(key, packet[:-1], 0)
    named = key.shaped(16, b"\x01\x02")
    vars(named)["cipher"] = vars(key)["cipher"]
    assert verify(named, packet + b"\x01\x02", 0)
    assert not verify(named, packet + b"\x01\x03", 0)
    assert not verify(named, packet, 0)


def test_tag_of_libsrtp() -> None:
    key = Key(LONG, MASTER, SALT)
    assert verify(key, SEALED, 0)
    assert not any(verify(key, SEALED, roc) for roc in (1, 2, 1 << 31))
    for i in range(len(SEALED)):
        assert not verify(key, SEALED[:i] + bytes((SEALED[i] ^ 1,)) + SEALED[i + 1 :], 0), i
    assert not verify(Key(LONG, SALT + b"xx", SALT), SEALED, 0)


def test_lengths_of_tag_and_identifier() -> None:
    body, tag = SEALED[:-10], SEALED[-10:]
    assert verify(Key(SHORT, MASTER, SALT), body + tag[:4], 0)
    assert not verify(Key(SHORT, MASTER, SALT), SEALED, 0)
    assert not verify(Key(LONG, MASTER, SALT), body + tag[:4], 0)
    named = Key(LONG, MASTER, SALT, b"\x00\x07")
    assert verify(named, body + b"\x00\x07" + tag, 0)
    assert not verify(named, body + b"\x00\x08" + tag, 0)
    assert not verify(named, SEALED, 0)
    assert verify(named.shaped(10, b""), SEALED, 0)


@pytest.mark.parametrize("size", range(24))
def test_packets_without_room_for_a_tag(size: int) -> None:
    for suite in SUITES.values():
        key = Key(suite, bytes(suite.key), bytes(suite.salt))
        assert not verify(key, b"\xbf" * size, 0)


@pytest.mark.parametrize(("packet", "size"), [
    (b"\x80" + bytes(11), 12), (b"\x82" + bytes(19), 20), (b"\x82" + bytes(18), 0), (b"\x90" + bytes(15), 16),
    (b"\x90" + bytes(13) + b"\0\1" + bytes(4), 20), (b"\x90" + bytes(13) + b"\xff\xff", 0), (b"\x80", 0),
])
def test_header_with_sources_and_extension(packet: bytes, size: int) -> None:
    assert header_size(packet) == size


def test_crypto_line() -> None:
    line = crypto("1", "aes_cm_128_hmac_sha1_80", INLINE + "|2^20|1:4 UNENCRYPTED_SRTCP KDR=0")
    assert (line.tag, line.suite, line.unknown) == ("1", "AES_CM_128_HMAC_SHA1_80", "")
    assert line.keys == (Key(LONG, MASTER, SALT, b"\0\0\0\1"),)
    two = crypto("1", "AES_CM_128_HMAC_SHA1_80", f"{INLINE}|1:1;{INLINE}|2^20|2:1")
    assert [key.mki for key in two.keys] == [b"\1", b"\2"]
    assert crypto("1", "AES_CM_128_HMAC_SHA1_80", INLINE + "|2^31").keys == (Key(LONG, MASTER, SALT),)


@pytest.mark.parametrize(("suite", "text", "why"), [
    ("AES_CM_128_HMAC_MD5", INLINE, "unknown suite"), ("AEAD_AES_128_GCM", INLINE, "unreadable key"),
    ("AES_CM_128_HMAC_SHA1_80", INLINE + " UNAUTHENTICATED_SRTP", "packets without a tag were agreed"),
    ("AES_CM_128_HMAC_SHA1_80", INLINE + " kdr=3", "keys that are derived anew"),
    ("AES_CM_128_HMAC_SHA1_80", INLINE + "|1:129", "unreadable key"),
    ("AES_CM_128_HMAC_SHA1_80", INLINE + "|256:1", "unreadable key"),
    ("AES_CM_128_HMAC_SHA1_80", INLINE + "|" + "9" * 4000 + ":4", "unreadable key"),
    ("AES_CM_128_HMAC_SHA1_80", "", "unreadable key"), ("AES_CM_128_HMAC_SHA1_80", "inline:é", "unreadable key"),
    ("AES_CM_128_HMAC_SHA1_80", "uri:x", "unreadable key"),
])
def test_lines_without_a_key(suite: str, text: str, why: str) -> None:
    assert crypto("1", suite, text) == ("1", suite, (), why)


def test_a_key_is_not_shown() -> None:
    shown = repr(crypto("1", "AES_CM_128_HMAC_SHA1_80", INLINE))
    assert "4fl6" not in shown
    assert MASTER.hex() not in shown
    assert repr(MASTER)[2:-1] not in shown


# One handshake of OpenSSL 3 (DTLS 1.2, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384), its key log and what it exported.
CLIENT_RANDOM = hexed("11e12162445ec78ccd3f74aaf61ac7e102355d3e7c35fe9c712decf2addda29e")
SECRET = hexed("e91b1e275726c792b66a9a16d2f66d4959150e3fce36a32ae5fe37fd8057146657f7088d16cde06651d578cf22414166")
SERVER_HELLO = hexed(
    "fefdf31e8545ba0d61dbaec4c0fc72c3aa69640a4bcecd3eb31bd62579b9c0b1815c00c02c00001cff01000100000b0002010000230000000e"
    "0005000200080000170000")
MATERIAL = hexed(
    "b1152109cce75a8a19fd5ec32f09c2abf944f767747ebf82ac5487edfe08350638c452b929bd9fe2fbc4d50cffd8535492ce1ef99bf0e31135"
    "d42ad6bcefaeebc05bc0da119b5d63014c6c6dee316c78fc3cdf65f93420f636da223e")


def test_keys_of_dtls_as_openssl_exports_them() -> None:
    hello = dtls.server_hello(SERVER_HELLO)
    assert hello is not None
    assert srtp.chosen_profile(SERVER_HELLO) == 8
    made = srtp.exported(SECRET, CLIENT_RANDOM, hello.random, True)
    assert made[: len(MATERIAL)] == MATERIAL
    assert srtp.exported(SECRET, CLIENT_RANDOM, hello.random, False)[:16] != MATERIAL[:16]
    client, server = srtp.dtls_keys(8, made) or (None, None)
    assert client == Key(SUITES["AEAD_AES_256_GCM"], MATERIAL[:32], MATERIAL[64:76])
    assert server == Key(SUITES["AEAD_AES_256_GCM"], MATERIAL[32:64], MATERIAL[76:88])


@pytest.mark.parametrize("profile", [0, 3, 5, 6, 65535])
def test_profiles_without_a_tag_and_a_cipher(profile: int) -> None:
    assert srtp.dtls_keys(profile, bytes(92)) is None


def test_server_hello_without_a_profile() -> None:
    assert srtp.chosen_profile(SERVER_HELLO.replace(b"\x00\x0e\x00\x05", b"\x00\x0f\x00\x05")) == 0
    for size in range(len(SERVER_HELLO)):
        assert srtp.chosen_profile(SERVER_HELLO[:size]) in (0, 8)
    assert srtp.dtls_keys(8, bytes(87)) is None
