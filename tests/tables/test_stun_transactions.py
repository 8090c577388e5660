"""STUN transactions, TURN allocations, ICE pairs: from UDP, TCP and inside TURN."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import recipes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netdiag.tables import Tables
from netdiag.tables.ice import Check
from netdiag.tables.reader import open_captures
from netdiag.tables.schema import rows, schema
from netdiag.tables.stun import StunTransaction
from netdiag.tables.turn import Allocation, TurnPeer

sys.path.insert(0, str(recipes.SAMPLES))

from _craft.network import START, Connection, Wire
from _craft.sip import Dialog
from _craft.stun import ALLOCATE, BINDING, REQUEST, SUCCESS, Agents, TurnClient, attribute, message, number, sdp, xored

A, B, SERVER = ("192.0.2.10", 40000), ("198.51.100.20", 50000), ("203.0.113.7", 3478)
T0 = round(START * 1e9)


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def opened(wire: Wire, name: str = "a.pcap") -> Tables:
        path = tmp_path / name
        path.write_bytes(recipes.encode(wire.sorted()))
        return open_captures([str(path)])

    return opened


def transactions(tables: Tables) -> list[StunTransaction]:
    assert tables.stun.schema == schema(StunTransaction)
    return list(rows(tables.stun, StunTransaction))


def reasons(tables: Tables, *names: str) -> dict[str, int]:
    for name in names or ("stun", "allocations", "checks"):
        getattr(tables, name)
    return {a.reason: a.count for a in tables.anomalies()}


def test_nothing_without_stun(read: Any) -> None:
    wire = Wire()
    wire.udp(0.0, *A, *B, b"\x80\0" + bytes(20))
    tables = read(wire)
    assert tables.stun_traffic is None
    for name in ("stun", "checks", "allocations", "turn_peers", "dtls", "ice_descriptions"):
        assert getattr(tables, name).height == 0


def test_retransmissions_are_one_transaction(read: Any) -> None:
    wire = Wire()
    pair = Agents(wire, A, B)
    pair.request(0.0, nominate=True)
    pair.request(0.5, again=True)
    pair.response(0.6)
    pair.response(0.7)
    (t,) = transactions(read(wire))
    assert (t.client, t.client_port, t.server, t.server_port, t.method) == (*A, *B, BINDING)
    assert (t.sends, t.response, t.error, t.username) == (2, "success", None, "bbbb:aaaa")
    assert (t.request_packets, t.response_packets) == ((0, 1), (2, 3))
    assert (t.first_ns, t.last_ns, t.response_ns) == (T0, T0 + 5 * 10**8, T0 + 6 * 10**8)
    assert (t.use_candidate, t.controlling, t.controlled, t.signed, t.priority) == (True, True, False, True, 0x6E0001FF)
    assert (t.mapped, t.mapped_port) == A
    assert (t.relayed, t.transport, t.classic, t.cut) == (False, "udp", False, False)
    assert t.id == struct.pack(">I", 0x2112A442) + number(1)


def test_error_and_response_alone(read: Any) -> None:
    wire = Wire()
    pair = Agents(wire, A, B)
    pair.request(0.0)
    pair.refusal(0.1, 487)
    pair.tids = 7
    pair.response(1.0, to_a=False)
    refused, lone = transactions(read(wire))
    assert (refused.response, refused.error) == ("error", 487)
    assert (lone.sends, lone.response, lone.client, lone.server) == (0, "success", B[0], A[0])
    assert lone.username is None


def test_one_id_used_again_after_long_is_another_transaction(read: Any) -> None:
    wire = Wire()
    pair = Agents(wire, A, B)
    pair.request(0.0)
    for at in (16.0, 60.0, 60.5):
        pair.request(at, again=True)
    assert [t.sends for t in transactions(read(wire))] == [2, 2]


def test_response_from_elsewhere(read: Any) -> None:
    wire = Wire()
    pair = Agents(wire, A, B)
    pair.request(0.0)
    pair.response(0.1, source=("198.51.100.20", 61000))
    asked, lone = transactions(read(wire))
    assert asked.response is None
    assert asked.astray == "198.51.100.20:61000"
    assert lone.astray is None


def test_ipv6_and_classic(read: Any) -> None:
    wire = Wire()
    a, b = ("2001:db8::1", 40000), ("2001:db8::2", 3478)
    wire.udp(0.0, *a, *b, message(REQUEST, BINDING, number(1)))
    wire.udp(0.1, *b, *a, message(SUCCESS, BINDING, number(1), attribute(0x20, xored(a, number(1)))))
    classic = b"\0\1\0\0" + bytes(range(16))
    wire.udp(1.0, *A, *SERVER, classic)
    mapped = attribute(1, b"\0\1" + struct.pack(">H", 1234) + bytes([198, 51, 100, 9]))
    wire.udp(1.1, *SERVER, *A, b"\1\1" + struct.pack(">H", len(mapped)) + bytes(range(16)) + mapped)
    wire.udp(2.0, "192.0.2.50", 5000, "192.0.2.51", 5001, classic)
    six, old = transactions(read(wire))
    assert (six.client, six.mapped, six.mapped_port) == ("2001:db8::1", *a)
    assert (old.classic, old.mapped, old.mapped_port, old.id) == (True, "198.51.100.9", 1234, bytes(range(16)))


def test_odd_messages_are_told(read: Any) -> None:
    wire = Wire()
    good = message(REQUEST, BINDING, number(1), attribute(6, b"bbbb:aaaa"))
    wire.udp(0.0, *A, *B, good + b"\0\0\0\0")
    wire.udp(0.1, *A, *B, good[:-1] + bytes([good[-1] ^ 1]))
    broken = message(REQUEST, BINDING, number(2), b"\0\6\0\x30", fingerprint=False)
    wire.udp(0.2, *A, *B, broken)
    tables = read(wire)
    assert reasons(tables) == {"STUN cookie in a datagram that its length does not fit": 1,
                               "STUN message with a wrong FINGERPRINT": 1,
                               "STUN attribute reaches beyond its message": 1}
    assert tables.stun.height == 2


def test_snap_length_is_told(tmp_path: Path) -> None:
    wire = Wire()
    Agents(wire, A, B).request(0.0)
    raw = bytearray(recipes.encode(wire.sorted()))
    struct.pack_into("<I", raw, 24 + 8, 70)
    path = tmp_path / "cut.pcap"
    path.write_bytes(raw[: 24 + 16 + 70])
    (t,) = transactions(open_captures([str(path)]))
    assert t.cut
    assert t.username is None


def test_tcp_in_any_segments(read: Any) -> None:
    client = b"".join(message(REQUEST, ALLOCATE, number(i), attribute(0x0D, struct.pack(">I", 60 * i))) for i in (1, 2))
    server = message(SUCCESS, ALLOCATE, number(1), attribute(0x16, xored(("198.51.100.9", 50000), number(1)))
                     + attribute(0x0D, struct.pack(">I", 60)))
    for size in (7, 33, 1000):
        wire = Wire()
        connection = Connection(wire, A[0], 41000, *SERVER)
        connection.open(0.0)
        for i in range(0, len(client), size):
            connection.data(1.0 + i / 1000, True, client[i : i + size])
        connection.data(2.0, False, server)
        first, second = transactions(read(wire, f"{size}.pcap"))
        assert (first.transport, first.lifetime_asked, first.lifetime) == ("tcp", 60, 60)
        assert (first.client, first.server, first.relay, first.relay_port) == (
            A[0], SERVER[0], "198.51.100.9", 50000)
        assert (second.lifetime_asked, second.response) == (120, None)


def test_turn_allocation_and_peers(read: Any) -> None:
    wire = Wire()
    turn = TurnClient(wire, A, SERVER)
    turn.challenged(0.0)
    turn.allocate(1.0, lifetime=300)
    turn.permit(2.0, B)
    turn.bind(3.0, B, 0x4001)
    turn.refresh(100.0, lifetime=200)
    turn.send(110.0, B, b"\x80data")
    turn.channel(111.0, b"\x80media", channel=0x4001)
    turn.channel(112.0, b"\x80media", out=False, channel=0x4001)
    turn.receive(113.0, B, b"\x80media")
    turn.permit(200.0, B)
    turn.refresh(210.0, lifetime=0)
    tables = read(wire)
    (a,) = rows(tables.allocations, Allocation)
    rtt = 20_000_000
    assert (a.client, a.server, a.relay, a.relay_port, a.lifetime) == (A[0], SERVER[0], "198.51.100.9", 50000, 200)
    assert (a.granted_ns, a.refreshed_ns) == (T0 + 10**9 + rtt, (T0 + 100 * 10**9 + rtt,))
    assert a.deleted_ns == T0 + 210 * 10**9
    assert a.lapses_ns == a.refreshed_ns[0] + 200 * 10**9
    assert len(a.transactions) == 3
    (peer,) = rows(tables.turn_peers, TurnPeer)
    assert (peer.peer, peer.peer_port, peer.channel) == (*B, 0x4001)
    assert peer.permitted_ns == tuple(T0 + s * 10**9 + rtt for s in (2, 3, 200))
    assert peer.bound_ns == (T0 + 3 * 10**9 + rtt,)
    assert peer.permission_ends_ns == T0 + 500 * 10**9 + rtt
    assert peer.channel_ends_ns == T0 + 603 * 10**9 + rtt
    assert (peer.sent, peer.received) == (2, 2)
    assert (peer.channel_sent_last_ns, peer.sent_last_ns) == (T0 + 111 * 10**9, T0 + 111 * 10**9)
    assert (peer.channel_received_last_ns, peer.received_last_ns) == (T0 + 112 * 10**9, T0 + 113 * 10**9)


def test_channel_data_needs_turn_on_its_flow(read: Any) -> None:
    wire = Wire()
    turn = TurnClient(wire, A, SERVER)
    turn.channel(1.0, b"\x80media")
    tables = read(wire)
    assert tables.turn_peers.height == 0


def test_checks_inside_turn_are_a_pair_of_the_relayed_address(read: Any) -> None:
    wire, inner = Wire(), Wire()
    turn = TurnClient(wire, A, SERVER)
    turn.challenged(0.0)
    turn.allocate(0.1)
    turn.permit(0.2, B)
    turn.bind(0.3, B)
    pair = Agents(inner, turn.relay, B)
    pair.connect(1.0)
    for i in range(3):
        pair.data(2.0 + i, b"\x80\x6f" + bytes(10), from_a=bool(i % 2))
    for i, frame in enumerate(inner.sorted()):
        payload, out = bytes(frame["UDP"].payload), frame["IP"].src == turn.relay[0]
        at = float(frame.time) - START
        if i % 2:
            turn.channel(at, payload, out)
        else:
            (turn.send if out else turn.receive)(at, B, payload)
    tables = read(wire)
    mine, other = rows(tables.checks, Check)
    assert (mine.local, mine.local_port, mine.remote, mine.remote_port) == (*turn.relay, *B)
    assert (other.local, other.remote) == (B[0], turn.relay[0])
    assert mine.relayed
    assert mine.path == other.path
    assert (mine.successes, mine.nominated, other.successes) == (2, True, 1)
    assert (mine.media_sent, mine.media_received, other.media_sent) == (1, 2, 2)
    assert reasons(tables) == {}


def test_pairs_and_what_went_over_them(read: Any) -> None:
    wire = Wire()
    Dialog(wire, A[0], B[0]).answered(0.0, sdp(*A, "aaaa", "x" * 22), sdp(*B, "bbbb", "y" * 22, ("10.0.0.9 9 host",)),
                                      ring=0.02)
    pair = Agents(wire, A, B)
    pair.request(0.1, role="controlled")
    pair.refusal(0.12, 487)
    pair.connect(0.2)
    pair.data(1.0, b"\x80\x6f" + bytes(10))
    pair.data(1.5, b"\x17\xfe\xfd" + bytes(20), from_a=False)
    mine, other = rows(read(wire).checks, Check)
    assert (mine.session, other.session) == ("aaaa:bbbb", "aaaa:bbbb")
    assert (mine.local_ufrag, mine.remote_ufrag) == ("aaaa", "bbbb")
    assert (mine.local_type, mine.remote_type) == ("host", "prflx")
    assert (mine.role, mine.roles, other.role, other.roles) == ("controlling", 2, "controlled", 1)
    assert (mine.transactions, mine.successes, mine.errors, mine.codes, mine.role_conflicts) == (3, 2, 1, (487,), 1)
    assert (mine.nominated, other.nominated) == (True, False)
    assert (mine.media_sent, mine.media_received, other.media_sent, other.media_received) == (1, 1, 1, 1)
    assert mine.media_sent_last_ns == T0 + 10**9
    assert mine.heard_last_ns == T0 + 15 * 10**8
    assert mine.lapse_checks == 0


def test_signature_against_the_password_of_the_description(read: Any) -> None:
    for theirs, right in (("y" * 22, True), ("z" * 22, False)):
        wire = Wire()
        Dialog(wire, A[0], B[0]).answered(0.0, sdp(*A, "aaaa", "x" * 22), sdp(*B, "bbbb", theirs), ring=0.02)
        Agents(wire, A, B, passwords=("x" * 22, "y" * 22)).connect(0.2)
        mine, other = rows(read(wire).checks, Check)
        assert (mine.signed_right, other.signed_right) == (right, True)
    wire = Wire()
    Agents(wire, A, B).connect(0.2)
    assert [c.signed_right for c in rows(read(wire).checks, Check)] == [None, None]


def test_longest_time_without_consent(read: Any) -> None:
    wire = Wire()
    pair = Agents(wire, A, B)
    pair.request(0.0)
    pair.check(1.0)
    pair.request(5.0)
    pair.check(10.0)
    for at in (15.0, 20.0, 25.0):
        pair.request(at)
    pair.check(30.0)
    pair.request(35.0)
    (c,) = rows(read(wire).checks, Check)
    assert (c.lapse_checks, c.lapse_ns, c.lapse_last_ns) == (3, T0 + 10_020_000_000, T0 + 25 * 10**9)
    assert c.recovered_ns == T0 + 30_020_000_000
    assert (c.transactions, c.successes) == (9, 3)


def test_requests_without_username_are_no_checks(read: Any) -> None:
    wire = Wire()
    wire.udp(0.0, *A, *SERVER, message(REQUEST, BINDING, number(1)))
    tables = read(wire)
    assert tables.stun.height == 1
    assert tables.checks.height == 0


def test_media_and_dtls_are_not_stun_and_stun_is_no_media(read: Any) -> None:
    """RFC 7983 §7: the first byte tells them apart on one port."""
    wire = Wire()
    pair = Agents(wire, A, B)
    pair.connect(0.0)
    cookie = struct.pack(">I", 0x2112A442)
    for i in range(30):
        pair.data(1.0 + i * 0.02, b"\x80\x6f" + struct.pack(">HI", i, i * 160) + bytes(4) + b"media")
    pair.data(2.0, b"\x80\x6f\0\1" + cookie + bytes(12))
    pair.data(3.0, b"\x16\xfe\xfd\0\0\0\0\0\0\0\0\0\0")
    tables = read(wire)
    assert tables.stun.height == 3
    assert tables.rtp["packets"].sum() >= 30


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=80), st.booleans()), max_size=12))
def test_any_messages(read: Any, messages: list[tuple[int, bytes, bool]]) -> None:
    wire = Wire()
    for i, (kind, body, back) in enumerate(messages):
        body = body[: len(body) & ~3]
        raw = struct.pack(">HHI", kind, len(body), 0x2112A442) + number(kind % 5) + body
        wire.udp(i * 0.1, *(SERVER if back else A), *(A if back else SERVER), raw)
    wire.udp(9.0, *A, *SERVER, b"\x40\0\0\4abcd")
    tables = read(wire)
    for name in ("stun", "checks", "allocations", "turn_peers", "dtls"):
        getattr(tables, name)
    packets = {p for t in transactions(tables) for p in (*t.request_packets, *t.response_packets)}
    assert packets <= set(range(tables.packets.n))
