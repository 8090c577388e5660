"""Opening TLS records: the vectors of RFC 8448, live exchanges of OpenSSL in each suite, and what damage does."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from tls_wire import contexts, converse, record, signed

from netdiag.decode import tls_application as app
from netdiag.decode import tls_cipher, tls_hello
from netdiag.decode import tls_records as rec
from netdiag.decode.keylog import KeyLog
from netdiag.decode.tls_cipher import Keys13

LEAF = signed("sip.example")
NO_ENCRYPT_THEN_MAC = 1 << 19  # SSL_OP_NO_ENCRYPT_THEN_MAC of OpenSSL 3
REQUEST, ANSWER = b"OPTIONS sip:a.example SIP/2.0\r\n", b"SIP/2.0 200 OK\r\n" * 20

# RFC 8448 §3, "Simple 1-RTT Handshake".
CLIENT_HANDSHAKE = bytes.fromhex("b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21")
CLIENT_SECRET = bytes.fromhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
SERVER_SECRET = bytes.fromhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
CLIENT_FINISHED = bytes.fromhex(
    "170303003575ec4dc238cce60b298044a71e219c56cc77b0517fe9b93c7a4bfc44d87f38f80338ac98fc46deb384bd1caeacab6867d726c40546")
CLIENT_DATA = bytes.fromhex(
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a2"
    "977014bd1e3deae63aeebb21694915e4")
CLIENT_ALERT = bytes.fromhex("1703030013c9872760655666b74d7ff1153efd6db6d0b0e3")
SERVER_TICKET = bytes.fromhex(
    "17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d6af8f6b580dcf3d11d63c758db289a015940252f55713e"
    "061dc13e078891a38efbcf5753ad8ef170ad3c7353d16d9da773b9ca7f2b9fa1b6c0d4a3d03f75e09c30ba1e62972ac46f75f7b981be6343"
    "9b2999ce13064615139891d5e4c5b406f16e3fc181a77ca475840025db2f0a77f81b5ab05b94c01346755f69232c86519d86cbeeac87aac3"
    "47d143f9605d64f650db4d023e70e952ca49fe5137121c74bc2697687e248746d6df353005f3bce18696129c8153556b3b6c6779b37bf159"
    "85684f")
SERVER_DATA = bytes.fromhex(
    "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a2"
    "1c0047c2abf332540dd032e167c2955d")
PAYLOAD = bytes(range(50))


def test_keys_and_records_of_rfc_8448() -> None:
    client, server = Keys13(0x1301, CLIENT_SECRET), Keys13(0x1301, SERVER_SECRET)
    assert client.iv.to_bytes(12, "big").hex() == "5b78923dee08579033e523d9"
    assert client.open(CLIENT_DATA) == (rec.APPLICATION_DATA, PAYLOAD)
    assert client.open(CLIENT_ALERT) == (rec.ALERT, b"\1\0")
    ticket = server.open(SERVER_TICKET)
    assert ticket is not None
    assert (ticket[0], ticket[1][0], len(ticket[1])) == (rec.HANDSHAKE, rec.NEW_SESSION_TICKET, 205)
    assert server.open(SERVER_DATA) == (rec.APPLICATION_DATA, PAYLOAD)


@pytest.mark.parametrize("secrets", [(CLIENT_HANDSHAKE, CLIENT_SECRET), (CLIENT_SECRET,)])
def test_stream_of_rfc_8448_with_and_without_the_handshake_secret(secrets: tuple[bytes, ...]) -> None:
    data = CLIENT_FINISHED + CLIENT_DATA + CLIENT_ALERT
    found = app.read(data, 0, (), [Keys13(0x1301, s) for s in secrets], 0x0304)
    assert (bytes(found.data), found.problem, found.at) == (PAYLOAD, "", len(data))
    assert (list(found.end), list(found.record_end)) == ([50], [len(CLIENT_FINISHED + CLIENT_DATA)])


def streams(flights: list[tuple[bool, bytes]]) -> tuple[bytes, bytes]:
    client, server = (b"".join(data for from_client, data in flights if from_client is side) for side in (True, False))
    return client, server


def opened(flights: list[tuple[bool, bytes]], log: bytes) -> list[app.Application]:
    """Client and server, as the key log opens them."""
    keys = KeyLog()
    keys.add(log)
    both = streams(flights)
    hello = next(m.body for m in rec.read(both[0]).messages if m.type == rec.CLIENT_HELLO)
    answer = tls_hello.server_hello(next(m.body for m in rec.read(both[1]).messages if m.type == rec.SERVER_HELLO))
    assert answer is not None
    assert tls_cipher.supported(answer.cipher, answer.version)
    random = hello[2:34]
    if answer.version < 0x0304:
        master = keys.get("CLIENT_RANDOM", random)
        assert master is not None
        pair = tls_cipher.connection_keys(answer.cipher, answer.version, master, random, answer.random,
                                          answer.encrypt_then_mac)
        sides: list[list[tls_cipher.Keys]] = [[pair[0]], [pair[1]]]
    else:
        labels = ("HANDSHAKE_TRAFFIC_SECRET", "TRAFFIC_SECRET_0")
        sides = [[Keys13(answer.cipher, s) for label in labels if (s := keys.get(f"{who}_{label}", random)) is not None]
                 for who in ("CLIENT", "SERVER")]
    return [app.read(data, 0, (), side, answer.version) for data, side in zip(both, sides, strict=True)]


SUITES_12 = ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-ECDSA-AES128-SHA256",
             "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
             "ECDHE-ECDSA-AES128-CCM", "ECDHE-ECDSA-AES256-CCM", "ECDHE-ECDSA-AES128-CCM8", "ECDHE-ECDSA-AES256-CCM8",
             "ECDHE-ECDSA-CHACHA20-POLY1305"]


@pytest.mark.parametrize(("suite", "encrypt_then_mac"), [*((s, True) for s in SUITES_12), *(
    (s, False) for s in SUITES_12[:4])])
def test_tls12_suites(tmp_path: Path, suite: str, encrypt_then_mac: bool) -> None:
    client, server = contexts(tmp_path, ssl.TLSVersion.TLSv1_2, LEAF)
    for end in (client, server):
        end.set_ciphers(suite)
    if not encrypt_then_mac:
        client.options |= NO_ENCRYPT_THEN_MAC
    flights, log = converse(client, server, "sip.example", keylog=True)
    both = opened(flights, log)
    assert [bytes(side.data) for side in both] == [REQUEST, ANSWER]
    assert [side.problem for side in both] == ["", ""]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("encrypt_then_mac", [True, False])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_versions_before_tls12(tmp_path: Path, version: ssl.TLSVersion, encrypt_then_mac: bool) -> None:
    client, server = contexts(tmp_path, ssl.TLSVersion.TLSv1_2, LEAF)
    for end in (client, server):
        end.set_ciphers("ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
        end.minimum_version = end.maximum_version = version
    if not encrypt_then_mac:
        client.options |= NO_ENCRYPT_THEN_MAC
    both = opened(*converse(client, server, "sip.example", keylog=True))
    assert [bytes(side.data) for side in both] == [REQUEST, ANSWER]


def test_tls13(tmp_path: Path) -> None:
    both = opened(*converse(*contexts(tmp_path, ssl.TLSVersion.TLSv1_3, LEAF), "sip.example", keylog=True))
    assert [bytes(side.data) for side in both] == [REQUEST, ANSWER]


@pytest.mark.parametrize("suite", ["", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-GCM-SHA256",
                                   "ECDHE-ECDSA-CHACHA20-POLY1305"])
def test_one_wrong_bit_ends_it(tmp_path: Path, suite: str) -> None:
    client, server = contexts(tmp_path, ssl.TLSVersion.TLSv1_2 if suite else ssl.TLSVersion.TLSv1_3, LEAF)
    if suite:
        client.set_ciphers(suite)
        server.set_ciphers(suite)
    flights, log = converse(client, server, "sip.example", keylog=True)
    which = next(i for i in reversed(range(len(flights))) if not flights[i][0] and len(flights[i][1]) > len(ANSWER))
    whole = flights[which][1]
    for at in (5, len(whole) // 2, len(whole) - 1):
        flights[which] = (False, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        both = opened(flights, log)
        assert bytes(both[0].data) == REQUEST
        assert (bytes(both[1].data), both[1].problem) == (b"", app.DAMAGED)


def test_key_update_is_followed() -> None:
    data = b"".join(sealed_with_updates())
    found = app.read(data, 0, (), [Keys13(0x1303, bytes(range(32)))], 0x0304)
    assert (bytes(found.data), found.problem) == (b"beforebetweenafter", "")


def sealed_with_updates() -> list[bytes]:
    """Records of one side, with a KeyUpdate behind the first and the second of three texts."""
    keys = Keys13(0x1303, bytes(range(32)))
    out = []
    for text in (b"before", b"between", b"after"):
        for kind, content in ((rec.APPLICATION_DATA, text), (rec.HANDSHAKE, b"\x18\0\0\1\0")):
            inner = content + bytes([kind]) + bytes(3)
            head = bytes([23, 3, 3]) + (len(inner) + 16).to_bytes(2, "big")
            nonce = (keys.iv ^ keys.number).to_bytes(12, "big")
            out.append(head + keys.key.encrypt(nonce, inner, head))
            keys.number += 1
        keys = keys.updated()
    return out[:-1]


def test_what_is_missing_is_said() -> None:
    keys = [Keys13(0x1301, CLIENT_SECRET)]
    data = CLIENT_DATA + CLIENT_ALERT
    hole = (len(CLIENT_DATA) + 9, len(CLIENT_DATA) + 12)
    found = app.read(data, 0, [hole], keys, 0x0304)
    assert (bytes(found.data), found.problem, found.at) == (PAYLOAD, app.MISSING, len(CLIENT_DATA))
    found = app.read(data + b"GET /", 0, (), [Keys13(0x1301, CLIENT_SECRET)], 0x0304)
    assert (bytes(found.data), found.problem, found.at) == (PAYLOAD, app.NO_RECORD, len(data))
    found = app.read(data[:-1], 0, (), [Keys13(0x1301, CLIENT_SECRET)], 0x0304)
    assert (bytes(found.data), found.problem) == (PAYLOAD, "")


def test_wrong_secret_opens_nothing() -> None:
    found = app.read(CLIENT_DATA * 3, 0, (), [Keys13(0x1301, SERVER_SECRET)], 0x0304)
    assert (bytes(found.data), found.problem) == (b"", app.NO_KEY)
    with pytest.raises(ValueError, match="another size"):
        Keys13(0x1302, SERVER_SECRET)


def test_renegotiation_ends_it() -> None:
    change = record(rec.CHANGE_CIPHER_SPEC, b"\1")
    keys = tls_cipher.connection_keys(0xC02B, 0x0303, bytes(48), bytes(32), bytes(32), False)
    assert app.read(change + change, 0, (), [keys[0]], 0x0303).problem == app.RENEGOTIATED


def test_what_is_supported() -> None:
    assert tls_cipher.supported(0x1301, 0x0304)
    assert not tls_cipher.supported(0x1301, 0x0303)
    assert not tls_cipher.supported(0xC02F, 0x0304)
    assert not tls_cipher.supported(0xC02F, 0x0302)  # GCM came with TLS 1.2
    assert tls_cipher.supported(0x2F, 0x0301)
    assert not tls_cipher.supported(0x2F, 0x0300)
    assert not tls_cipher.supported(0x05, 0x0303)  # RC4
    assert not tls_cipher.supported(None, 0x0303)
