"""SIP inside TLS, opened with a key log, and inside WebSockets: rows, frames, bytes, and what stops it."""

from __future__ import annotations

import ssl
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import tls_wire
from checkout import ROOT
from sip_world import message
from tcp_wire import ACK, CLIENT, PSH, SERVER, Talk, read, write
from test_tls import talk
from tls_wire import contexts, converse, signed
from websocket_wire import ANSWER, ASK, MASK, frame

from netdiag.decode import tls_application as app
from netdiag.decode import websocket as ws
from netdiag.model import Anomaly
from netdiag.tables import Options, Tables, decrypted, sip_inside
from netdiag.tables.reader import open_captures
from netdiag.tables.sip_details import detail

LEAF = signed("sip.example")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
RECORDED = ROOT / "captures" / "samples" / "transports" / "recorded" / "sip_tls_ws.pcapng"


def request(number: int, body: str = "") -> bytes:
    return message("OPTIONS sip:b@b.example SIP/2.0", *head(number), f"CSeq: {number} OPTIONS",
                   f"User-Agent: phone {number}", body=body)


def answer(number: int) -> bytes:
    return message("SIP/2.0 200 OK", *head(number), f"CSeq: {number} OPTIONS")


def head(number: int) -> tuple[str, ...]:
    return (f"Via: SIP/2.0/TLS h.example;branch=z9hG4bK{number}", "From: <sip:a@a.example>;tag=a",
            "To: <sip:b@b.example>", f"Call-ID: c{number}")


def masked(data: bytes, final: bool = True, bits: int = 0) -> bytes:
    return frame(data, final=final, mask=MASK, bits=bits)


def exchange(path: Path, version: ssl.TLSVersion, said: tls_wire.Flights) -> tuple[tls_wire.Flights, bytes]:
    return converse(*contexts(path, version, LEAF), "sip.example", keylog=True, said=said)


def opened(path: Path, flights: tls_wire.Flights, keys: bytes, size: int = 1400) -> Tables:
    log = path / "keys"
    log.write_bytes(keys)
    return open_captures([str(write(path / "a.pcap", talk(flights, size=size).frames))],
                         options=Options(keylog=str(log)))


def told(tables: Tables) -> list[bytes]:
    """The bytes of all messages."""
    return [tables.packets.space.read(a, n) for a, n in tables.sip.select("raw_offset", "raw_length").iter_rows()]


def noted(tables: Tables) -> list[Anomaly]:
    assert tables.sip is not None
    return [a for a in tables.anomalies() if a.table in ("sip", "decrypted")]


@pytest.mark.parametrize("size", [1400, 90])
@pytest.mark.parametrize("version", VERSIONS)
def test_sip_over_tls(tmp_path: Path, version: ssl.TLSVersion, size: int) -> None:
    one, two = request(1, body="x" * 200), request(2)
    said = [(True, b"\r\n\r\n" + one[:30]), (True, one[30:] + two), (False, answer(1)), (False, answer(2))]
    tables = opened(tmp_path, *exchange(tmp_path, version, said), size=size)
    sip = tables.sip
    assert told(tables) == [one, two, answer(1), answer(2)]
    assert sip["transport"].to_list() == ["tls"] * 4
    assert sip["method"].to_list() == ["OPTIONS", "OPTIONS", None, None]
    assert sip["source"].to_list() == [CLIENT, CLIENT, SERVER, SERVER]
    assert not sip["cut"].any()
    assert detail(tables, 1).user_agent == "phone 2"
    assert tables.transactions["status"].to_list() == [200, 200]
    assert tables.transactions["transport"].to_list() == ["tls", "tls"]
    # One record held the end of the first request and the second; each answer had its own.
    packets = sip["packet"].to_list()
    assert packets[0] == packets[1] < packets[2] < packets[3]
    assert sip["ts_ns"].to_list() == tables.packets.ts[packets].tolist()
    assert noted(tables) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_key_log_there_is_nothing(tmp_path: Path, version: ssl.TLSVersion) -> None:
    flights, _ = exchange(tmp_path, version, [(True, request(1)), (False, answer(1))])
    tables = read(tmp_path / "a.pcap", talk(flights).frames)
    assert tables.decrypted.connections == []
    assert (len(tables.sip), noted(tables)) == (0, [])


def test_ciphers_are_not_loaded_without_a_key_log(tmp_path: Path) -> None:
    flights, _ = exchange(tmp_path, VERSIONS[1], [(True, request(1))])
    path = write(tmp_path / "a.pcap", talk(flights).frames)
    code = ("import sys\nfrom netdiag.tables.reader import open_captures\n"
            f"tables = open_captures([{str(path)!r}])\nassert tables.sip.height == 0\n"
            "print(sorted(m for m in sys.modules if m in ('cryptography', 'netdiag.tables.decrypted', "
            "'netdiag.decode.tls_cipher', 'netdiag.decode.websocket')))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("keys", [True, False])
def test_what_was_decrypted_reaches_no_file(tmp_path: Path, keys: bool) -> None:
    flights, log = exchange(tmp_path, VERSIONS[0], [(True, request(1)), (False, answer(1))])
    tables = opened(tmp_path, flights, log if keys else b"")
    assert tables.sip.height == 2 * keys
    assert tables.packets.space.decrypted == keys


@pytest.mark.parametrize("version", VERSIONS)
def test_damaged_record_ends_that_side(tmp_path: Path, version: ssl.TLSVersion) -> None:
    said = [(True, request(1)), (False, answer(1)), (True, request(2)), (False, answer(2)), (True, request(3))]
    flights, keys = exchange(tmp_path, version, said)
    which = [i for i, (side, data) in enumerate(flights) if side and len(data) > len(request(2))][-2]
    data = flights[which][1]
    flights[which] = (True, data[:60] + bytes([data[60] ^ 4]) + data[61:])
    tables = opened(tmp_path, flights, keys)
    assert told(tables) == [request(1), answer(1), answer(2)]
    (note,) = noted(tables)
    assert (note.table, note.reason, note.count) == ("decrypted", app.DAMAGED, 1)
    assert note.first_frame == which + 4  # three frames of TCP come first


@pytest.mark.parametrize("version", VERSIONS)
def test_missing_bytes_end_that_side(tmp_path: Path, version: ssl.TLSVersion) -> None:
    said = [(True, request(1)), (False, answer(1)), (True, request(2)), (False, answer(2)), (True, request(3))]
    flights, keys = exchange(tmp_path, version, said)
    which = [i for i, (side, data) in enumerate(flights) if side and len(data) > len(request(2))][-2]
    frames = talk(flights, size=4000).frames
    del frames[3 + which]
    (tmp_path / "keys").write_bytes(keys)
    tables = open_captures([str(write(tmp_path / "a.pcap", frames))], options=Options(keylog=str(tmp_path / "keys")))
    assert told(tables) == [request(1), answer(1), answer(2)]
    assert [(a.reason, a.count) for a in noted(tables)] == [(app.MISSING, 1)]


def test_secrets_of_another_connection(tmp_path: Path) -> None:
    flights, _ = exchange(tmp_path, VERSIONS[1], [(True, request(1))])
    _, other = exchange(tmp_path, VERSIONS[1], [(True, request(1))])
    tables = opened(tmp_path, flights, other)
    assert (len(tables.sip), noted(tables), tables.decrypted.connections) == (0, [], [])


def test_secrets_that_do_not_fit(tmp_path: Path) -> None:
    flights, keys = exchange(tmp_path, VERSIONS[0], [(True, request(1)), (False, answer(1))])
    label, random, secret = keys.split()[-3:]
    tables = opened(tmp_path, flights, b" ".join([label, random, b"00" * (len(secret) // 2)]))
    assert len(tables.sip) == 0
    assert [(a.reason, a.count) for a in noted(tables)] == [(app.NO_KEY, 2)]


def test_handshake_secrets_alone(tmp_path: Path) -> None:
    flights, keys = exchange(tmp_path, VERSIONS[1], [(True, request(1))])
    tables = opened(tmp_path, flights, b"\n".join(k for k in keys.splitlines() if b"HANDSHAKE" in k))
    assert (len(tables.sip), tables.handshakes["decrypted"].to_list()) == (0, [True])
    assert [a.reason for a in noted(tables)] == [decrypted.NO_SECRET]


def test_missing_hello(tmp_path: Path) -> None:
    flights, keys = exchange(tmp_path, VERSIONS[0], [(True, request(1)), (False, answer(1))])
    (tmp_path / "keys").write_bytes(keys)
    frames = [f for i, f in enumerate(talk(flights).frames) if i != 4]  # the server's first
    tables = open_captures([str(write(tmp_path / "a.pcap", frames))], options=Options(keylog=str(tmp_path / "keys")))
    assert len(tables.sip) == 0
    assert [a.reason for a in noted(tables)] == [decrypted.NO_HELLO]


def test_cleartext_for_others(tmp_path: Path) -> None:
    flights, keys = exchange(tmp_path, VERSIONS[1], [(True, b"one"), (True, b"two"), (False, b"three")])
    tables = opened(tmp_path, flights, keys)
    pair = tables.decrypted.both(0)
    assert pair is not None
    client, server = pair
    assert (client.data, server.data, client.holes, client.truncated) == (b"onetwo", b"three", (), False)
    assert client.packet_at(0) == client.packet_at(2) < client.packet_at(3) < server.packet_at(0)
    assert client.packets(1, 5).tolist() == [client.packet_at(0), client.packet_at(3)]
    assert client.packets(3, 3).tolist() == []
    assert client.time_at(3) == int(tables.packets.ts[client.packet_at(3)])
    assert (len(tables.sip), noted(tables)) == (0, [])


def test_long_connections_are_read_to_the_end(tmp_path: Path) -> None:
    said = [(True, request(i, body="x" * 3000)) for i in range(1, 40)] + [(False, answer(1))]
    tables = opened(tmp_path, *exchange(tmp_path, VERSIONS[1], said))
    assert tables.sip["cseq"].to_list() == [*range(1, 40), 1]
    assert noted(tables) == []


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sip_inside, "KEPT", len(request(1)) + 10)
    tables = opened(tmp_path, *exchange(tmp_path, VERSIONS[1], [(True, request(1)), (True, request(2))]))
    assert told(tables) == [request(1)]
    assert [("left out" in a.reason, a.count) for a in noted(tables)] == [(True, 1)]


def test_a_real_connection_is_opened_whole(real: Path) -> None:
    """TLS 1.2 with reordering and retransmissions; tshark's bytes, with its out-of-order reassembly on."""
    tables = open_captures([str(real / "pcapng-dsb__gopacket__test301.pcapng")])
    pair = tables.decrypted.both(*tables.decrypted.connections)
    assert pair is not None
    assert [len(side.data) for side in pair] == [207, 857_814]
    assert pair[0].data.startswith(b"GET /s?wd=ccc HTTP/1.1\r\n")
    assert pair[1].data.endswith(b"\r\n0\r\n\r\n")  # the last chunk (RFC 9112 §7.1)
    assert noted(tables) == []


# WebSocket.

SAID = [(True, ASK), (False, ANSWER), (True, masked(request(1)) + masked(b"\r\n\r\n")),
        (False, frame(b"", ws.PING) + frame(answer(1)))]


def test_sip_over_a_websocket_in_clear(tmp_path: Path) -> None:
    two = request(2, body="y" * 900)
    said = [*SAID, (True, masked(two[:40], final=False) + frame(b"", ws.PONG, mask=MASK)),
            (True, frame(two[40:], ws.CONTINUATION, mask=MASK))]
    tables = read(tmp_path / "a.pcap", talk(said, size=700).frames)
    assert told(tables) == [request(1), answer(1), two]
    assert tables.sip["transport"].to_list() == ["ws"] * 3
    assert tables.sip["packet"].to_list() == [5, 6, 9]
    assert tables.transactions["status"].to_list() == [200, None]
    assert noted(tables) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_sip_over_a_secure_websocket(tmp_path: Path, version: ssl.TLSVersion) -> None:
    tables = opened(tmp_path, *exchange(tmp_path, version, SAID))
    assert told(tables) == [request(1), answer(1)]
    assert tables.sip["transport"].to_list() == ["wss"] * 2
    assert noted(tables) == []


def test_other_subprotocols_are_left_alone(tmp_path: Path) -> None:
    said = [(f, data.replace(b"sip, msrp", b"msrp").replace(b"col: sip", b"col: msrp")) for f, data in SAID]
    tables = read(tmp_path / "a.pcap", talk(said).frames)
    assert (len(tables.sip), noted(tables)) == (0, [])


def test_what_is_no_sip_is_said(tmp_path: Path) -> None:
    said = [*SAID, (True, masked(b"hello")), (False, b"nonsense")]
    tables = read(tmp_path / "a.pcap", talk(said).frames)
    assert told(tables) == [request(1), answer(1)]
    assert {(a.reason, a.count) for a in noted(tables)} == {("WebSocket message that is no SIP", 1), (ws.NO_FRAME, 1)}


def test_length_beyond_the_websocket_message(tmp_path: Path) -> None:
    long = request(1).replace(b"Content-Length: 0", b"Content-Length: 9")
    tables = read(tmp_path / "a.pcap", talk([*SAID[:2], (True, masked(long))]).frames)
    assert told(tables) == [long]
    assert [a.reason for a in noted(tables)] == ["Content-Length is larger than the WebSocket message"]


def test_compressed_websocket(tmp_path: Path) -> None:
    asked = b"Protocol: sip\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    agreed = b"Protocol: sip\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    packers = {side: zlib.compressobj(9, wbits=-15) for side in (True, False)}

    def packed(side: bool, data: bytes) -> bytes:
        return (packers[side].compress(data) + packers[side].flush(zlib.Z_SYNC_FLUSH))[:-4]

    said = [(True, ASK.replace(b"Protocol: sip, msrp\r\n", asked)),
            (False, ANSWER.replace(b"Protocol: sip\r\n\r\n", agreed))]
    for number in (1, 2):
        data = packed(True, request(number, body="x" * 300))
        said += [(True, masked(data[:9], final=False, bits=0x40) + frame(b"", ws.PING, mask=MASK)
                  + frame(data[9:], ws.CONTINUATION, mask=MASK)),
                 (False, frame(packed(False, answer(number)), bits=0x40))]
    tables = read(tmp_path / "a.pcap", talk(said).frames)
    assert told(tables) == [request(1, "x" * 300), answer(1), request(2, "x" * 300), answer(2)]
    assert noted(tables) == []


def test_lost_segment_ends_a_websocket(tmp_path: Path) -> None:
    frames = talk([*SAID, (True, masked(request(2))), (True, masked(request(3)))]).frames
    del frames[7]
    tables = read(tmp_path / "a.pcap", frames)
    assert told(tables) == [request(1), answer(1)]


def test_one_direction_of_a_websocket(tmp_path: Path) -> None:
    out = Talk()
    at = 1
    for data in (ASK, masked(request(1)), masked(request(2))):
        out.c(at, ACK | PSH, at, 1, data)
        at += len(data)
    assert told(read(tmp_path / "a.pcap", out.frames)) == [request(1), request(2)]


# A recording with secrets inside: kamailio with phones on TLS 1.2 and 1.3, ws and wss.

def test_recorded_call_over_tls_and_websockets() -> None:
    tables = open_captures([str(RECORDED)])
    assert dict(tables.sip.group_by("transport").len().iter_rows()) == {"tls": 31, "ws": 8, "wss": 18}
    assert tables.calls["state"].to_list() == ["completed"] * 3
    assert set(tables.handshakes["version"].to_list()) == {0x0303, 0x0304}
    assert noted(tables) == []


@pytest.mark.tshark
def test_recorded_messages_are_those_of_tshark() -> None:
    fields = ("frame.number", "sip.Call-ID", "sip.CSeq.seq")
    done = subprocess.run(["tshark", "-r", str(RECORDED), "-Y", "sip", "-T", "fields", "-E", "aggregator=|",
                           *(a for f in fields for a in ("-e", f))], capture_output=True, text=True, check=True)
    theirs = []
    for line in done.stdout.splitlines():
        number, ids, cseqs = line.split("\t")
        theirs += [(int(number), i, int(c)) for i, c in zip(ids.split("|"), cseqs.split("|"), strict=True)]
    tables = open_captures([str(RECORDED)])
    frames = tables.packets.locate(tables.sip["packet"].to_numpy())[1].tolist()
    assert sorted(zip(frames, tables.sip["call_id"], tables.sip["cseq"], strict=True)) == sorted(theirs)
