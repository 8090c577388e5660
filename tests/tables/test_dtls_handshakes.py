"""DTLS handshakes: flights, repeats, roles, certificates against SDP, inside TURN."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import recipes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netdiag.tables import Tables
from netdiag.tables.dtls import READ, DtlsHandshake
from netdiag.tables.reader import open_captures
from netdiag.tables.schema import rows, schema

sys.path.insert(0, str(recipes.SAMPLES))

from _craft.dtls import Peers, fingerprint
from _craft.network import START, Wire
from _craft.sip import Dialog
from _craft.stun import Agents, TurnClient, sdp
from _craft.tls import Authority

A, B = ("192.0.2.10", 40000), ("198.51.100.20", 50000)
MINE, THEIRS = Authority("a.example"), Authority("b.example")
T0 = round(START * 1e9)


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def opened(wire: Wire) -> Tables:
        path = tmp_path / "a.pcap"
        path.write_bytes(recipes.encode(wire.sorted()))
        return open_captures([str(path)])

    return opened


def plain(wire: Wire, label: str = "x") -> Peers:
    def send(at: float, raw: bytes, from_client: bool) -> int:
        return wire.udp(at, *(A if from_client else B), *(B if from_client else A), raw)

    return Peers(send, THEIRS, MINE, label)


def one(tables: Tables) -> DtlsHandshake:
    assert tables.dtls.schema == schema(DtlsHandshake)
    (d,) = rows(tables.dtls, DtlsHandshake)
    return d


def test_complete_handshake_with_cookie_and_pieces(read: Any) -> None:
    wire = Wire()
    peers = plain(wire)
    peers.hello(0.0)
    peers.verify(0.1, b"cookie")
    peers.hello(0.2, b"cookie", sequence=1)
    peers.flight(0.3, mtu=200, sequence=1)
    peers.finish(0.4, sequence=2)
    peers.close(1.0)
    tables = read(wire)
    d = one(tables)
    assert (d.client, d.client_port, d.server, d.server_port) == (*A, *B)
    assert (d.verified, d.srtp, d.version, d.completed, d.cut) == (True, True, 0xFEFD, True, False)
    assert (d.client_hello_packets, d.rival_hello_packets) == ((0, 2), ())
    assert d.server_hello_packet == 3
    assert sum(d.fragment_lengths) == len(THEIRS.der) + 6
    assert len(d.fragment_lengths) > 1
    assert d.server_fingerprint == hashlib.sha256(THEIRS.der).digest().hex(":").upper() == fingerprint(THEIRS)
    assert d.client_fingerprint == fingerprint(MINE)
    assert (d.client_repeats, d.server_repeats) == (0, 0)
    assert d.largest == tables.packets.wire[list(d.packets)].max()
    assert (d.alert, d.alert_by) == (None, "client")
    assert d.closed_ns == T0 + 10**9


def test_repeats_name_the_flight(read: Any) -> None:
    wire = Wire()
    peers = plain(wire)
    for at in (0.0, 1.0, 3.0):
        peers.hello(at)
        peers.flight(at + 0.1)
    d = one(read(wire))
    assert (d.client_repeats, d.client_repeated, d.server_repeats, d.server_repeated) == (
        2, "ClientHello", 2, "ServerHello")
    assert [ns - T0 for ns in d.client_repeat_ns] == [0, 10**9, 3 * 10**9]
    assert d.server_repeat_packets == (1, 3, 5)
    assert d.server_certificate_packets == (1,)
    assert d.packets == (0, 1, 2, 3, 4, 5)
    assert not d.completed


def test_both_sides_begin_and_alert(read: Any) -> None:
    wire = Wire()
    peers = plain(wire)
    peers.hello(0.0)
    peers.hello(0.1, from_client=False, label="y")
    peers.alert(0.2, 0, level=1)
    peers.alert(0.3, 40, from_client=False)
    d = one(read(wire))
    assert (d.client_hello_packets, d.rival_hello_packets) == ((0,), (1,))
    assert (d.alert, d.alert_level, d.alert_by, d.alert_packet) == (40, 2, "server", 3)
    assert d.closed_ns == T0 + 2 * 10**8


def test_server_first_seen_mid_handshake_is_the_server(read: Any) -> None:
    wire = Wire()
    peers = plain(wire)
    peers.flight(0.0)
    d = one(read(wire))
    assert (d.client, d.server) == (A[0], B[0])
    assert d.client_hello_packets == ()


def test_new_random_is_a_new_handshake(read: Any) -> None:
    wire = Wire()
    for i in range(2):
        peers = plain(wire, f"run {i}")
        peers.hello(i * 10.0)
        peers.flight(i * 10.0 + 0.1)
        peers.finish(i * 10.0 + 0.2)
    assert [d.completed for d in rows(read(wire).dtls, DtlsHandshake)] == [True, True]


def test_certificates_against_sdp(read: Any) -> None:
    for theirs, wrong in ((THEIRS, False), (Authority("c.example"), True)):
        wire = Wire()
        bodies = [sdp(*end, ufrag, "p" * 22, setup=setup, fingerprint=fingerprint(of)) for end, ufrag, setup, of in (
            (A, "aaaa", "actpass", MINE), (B, "bbbb", "passive", theirs))]
        Dialog(wire, A[0], B[0]).answered(0.0, *bodies)
        pair = Agents(wire, A, B)
        pair.connect(0.3)
        peers = Peers(lambda at, raw, from_client, pair=pair: pair.data(at, raw, from_client), THEIRS, MINE)
        peers.hello(0.5)
        peers.flight(0.6)
        peers.finish(0.7)
        d = one(read(wire))
        assert (d.client_setup, d.server_setup) == ("actpass", "passive")
        assert (d.client_mismatch, d.server_mismatch) == (False, wrong)
        assert d.mismatch_sdp == (f"sha-256 {fingerprint(theirs)}" if wrong else "")


def test_inside_turn(read: Any) -> None:
    wire = Wire()
    turn = TurnClient(wire, A, ("203.0.113.7", 3478))
    turn.challenged(0.0)
    turn.allocate(0.1)
    turn.bind(0.2, B)
    peers = Peers(lambda at, raw, from_client: turn.channel(at, raw, from_client), THEIRS, MINE)
    peers.hello(1.0)
    peers.flight(1.1)
    peers.finish(1.2)
    d = one(read(wire))
    assert (d.client, d.client_port, d.server, d.server_port) == (*turn.relay, *B)
    assert (d.relayed, d.completed) == (True, True)


def test_a_flood_of_handshake_messages_is_bounded(read: Any) -> None:
    wire = Wire()
    peers = plain(wire)
    for i in range(READ + 20):
        peers.hello(i * 0.01)
    tables = read(wire)
    assert one(tables).client_repeats == READ - 1
    assert [(a.count, a.table) for a in tables.anomalies()] == [(20, "dtls")]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(20, 26), st.binary(max_size=60), st.booleans()), max_size=8))
def test_any_records(read: Any, datagrams: list[tuple[int, bytes, bool]]) -> None:
    wire = Wire()
    for i, (kind, body, back) in enumerate(datagrams):
        raw = bytes([kind]) + b"\xfe\xfd" + bytes(8) + len(body).to_bytes(2, "big") + body
        wire.udp(i * 0.1, *(B if back else A), *(A if back else B), raw)
    wire.udp(9.0, *A, *B, b"x")
    tables = read(wire)
    assert tables.dtls.height <= len(datagrams)
