"""Which key and which roll-over counter SRTP packets verify with, stretch by stretch."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import recipes

from netdiag import registry
from netdiag.decode import keep
from netdiag.model import Status
from netdiag.tables import Options, Tables, intake, srtp_check, srtp_keys, srtp_senders
from netdiag.tables.reader import open_captures

sys.path.insert(0, str(recipes.SAMPLES))
network: Any = importlib.import_module("_craft.network")
craft: Any = importlib.import_module("_craft.srtp")
sip: Any = importlib.import_module("_craft.sip")
Wire, Key, ALICE, GATE = network.Wire, craft.Key, craft.ALICE, craft.GATE
call, described, offered, talk = craft.call, craft.described, craft.offered, craft.talk
PHONE, PORT, GATEWAY, GATEWAY_PORT = craft.PHONE, craft.PORT, craft.GATEWAY, craft.GATEWAY_PORT


def written(tmp_path: Path, wire: Any, snaplen: int = 0) -> str:
    path = tmp_path / "made.pcap"
    data = recipes.encode(wire.sorted())
    path.write_bytes(data)
    if snaplen:
        whole = path.with_name("whole.pcap")
        path.rename(whole)
        subprocess.run(["editcap", "-s", str(snaplen), str(whole), str(path)], check=True, capture_output=True)
    return str(path)


def tables_of(tmp_path: Path, wire: Any, **options: Any) -> Tables:
    return open_captures([written(tmp_path, wire)], options=Options(**options))


def simple(seconds: float = 6.0, **options: Any) -> Any:
    wire = Wire()
    _, answered = call(wire, seconds + 1)
    talk(wire, answered + 0.05, seconds, **options)
    return wire


def stretches(tables: Tables, *columns: str) -> list[tuple[Any, ...]]:
    return tables.srtp.select(columns or ("relation", "roc", "sampled", "matched")).rows()


def test_nothing_is_done_without_srtp(tmp_path: Path) -> None:
    wire = Wire()
    craft_rtp: Any = importlib.import_module("_craft.rtp")
    at = craft_rtp.call(wire, 3)
    craft_rtp.forth(wire, at + 0.1, 2)
    path = written(tmp_path, wire)
    code = ("import sys; from netdiag.tables.reader import open_captures; t = open_captures([sys.argv[1]]);"
            "assert t.srtp.height == 0 and t.rtp.height == 1; print('cryptography' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_sample_and_not_all(tmp_path: Path) -> None:
    wire = Wire()
    _, answered = call(wire, 41)
    talk(wire, answered + 0.05, 40, ptime=0.02)
    (row,) = stretches(tables_of(tmp_path, wire))
    assert row[:2] == ("agreed", 0)
    assert row[2] == row[3] < 40


@pytest.mark.parametrize("change", [6, 33, 40, 61])
def test_the_very_packet_of_a_change_is_found(tmp_path: Path, change: int) -> None:
    tables = tables_of(tmp_path, simple(key=lambda i: ALICE if i < change else Key("other")))
    got = stretches(tables, "relation", "first_sequence", "last_sequence")
    assert got == [("agreed", 1000, 999 + change), ("", 1000 + change, 1066)]


def test_counts_over_several_wraps(tmp_path: Path) -> None:
    wire = Wire()
    _, answered = call(wire, 60)
    at = answered + 0.05
    # Steps below half of the range are not lost count of.
    for first in (65500, 90_000, 120_000, 131_060, 160_000, 190_000, 196_600):
        talk(wire, at, 2, first=first)
        at += 3
    tables = tables_of(tmp_path, wire)
    (row,) = tables.srtp.iter_rows(named=True)
    assert (row["relation"], row["roc"], row["last_roc"]) == ("agreed", 0, 3)
    assert len(row["wrap_packets"]) == 3


def test_late_packets_around_a_wrap(tmp_path: Path) -> None:
    wire = Wire()
    _, answered = call(wire, 8)
    order = [*range(65520, 65535), 65537, 65536, 65535, 65538, *range(65539, 65560)]
    for i, number in enumerate(order):
        talk(wire, answered + 0.05 + 0.09 * i, 0.09, first=number)
    tables = tables_of(tmp_path, wire)
    assert {row[0] for row in stretches(tables)} == {"agreed"}
    assert sum(row[2] - row[3] for row in stretches(tables)) == 0


def test_a_key_in_force_and_the_one_before(tmp_path: Path) -> None:
    wire = Wire()
    dialog, answered = call(wire, 12)
    new = Key("new")
    talk(wire, answered + 0.05, 10, lambda i: ALICE if i < 60 else new)
    when = offered(dialog, answered + 1.0, described(PHONE, PORT, new.line(), version=2),
                   described(GATEWAY, GATEWAY_PORT, GATE.line(), "recvonly", version=2))
    got = tables_of(tmp_path, wire).srtp
    assert got["relation"].to_list() == ["agreed", "old", "agreed"]
    start = int(network.START * 1e9)
    assert got["first_ns"][1] - start - when * 1e9 == pytest.approx(srtp_keys.GRACE_NS, abs=1e8)


def test_the_other_key_is_found_among_all_calls(tmp_path: Path) -> None:
    wire = Wire()
    call(wire, 3, at=0, number=2)
    wire2_offer = described(PHONE, PORT, Key("first leg").line())
    _, answered = call(wire, 4, wire2_offer, at=0.3)
    talk(wire, answered + 0.05, 3)
    got = tables_of(tmp_path, wire).srtp.filter(pl.col("sampled") > 0)
    assert got["relation"].to_list() == ["other call"]
    assert got["used_packet"].is_not_null().all()


def test_hops_with_other_keys(tmp_path: Path) -> None:
    """A proxy that changes the key of the offer: the receiver knows the second hop's."""
    wire = Wire()
    proxy = "198.51.100.10"
    near = sip.Dialog(wire, PHONE, proxy, call_id="hops@a.example")
    far = sip.Dialog(wire, proxy, GATEWAY, call_id="hops@a.example", branches=20)
    answer = described(GATEWAY, GATEWAY_PORT, GATE.line())
    near.request(0, "INVITE", body=described(PHONE, PORT, ALICE.line(), "sendrecv"))
    far.request(0.01, "INVITE", body=described(PHONE, PORT, Key("proxy").line(), "sendrecv"))
    far.response(0.1, 200, "OK", body=answer)
    near.response(0.11, 200, "OK", body=answer)
    near.request(0.12, "ACK", to_tag=True)
    far.request(0.13, "ACK", to_tag=True)
    talk(wire, 0.2, 2)
    talk(wire, 0.2, 2, GATE, back=True, ssrc=9)
    got = tables_of(tmp_path, wire).srtp.sort("sender")
    assert got.select("sender", "relation").rows() == [("callee", "agreed"), ("caller", "same call")]
    packets = got.filter(pl.col("sender") == "caller").select("key_packet", "used_packet").row(0)
    assert packets == (1, 0)


def test_the_hop_of_a_relay_whose_phone_is_behind_nat(tmp_path: Path) -> None:
    """Two hops with keys of their own: the phone names a private address, so only the target tells the hop."""
    wire = Wire()
    relay, inner = "198.51.100.10", "10.0.0.5"
    near = sip.Dialog(wire, PHONE, relay, call_id="hops@a.example")
    far = sip.Dialog(wire, relay, GATEWAY, call_id="hops@a.example", branches=20)
    near.request(0, "INVITE", body=described(inner, PORT, ALICE.line()))
    far.request(0.01, "INVITE", body=described(relay, 30000, Key("relay").line()))
    far.response(0.1, 200, "OK", body=described(GATEWAY, GATEWAY_PORT, GATE.line(), "recvonly"))
    near.response(0.11, 200, "OK", body=described(relay, 30002, Key("relay back").line(), "recvonly"))
    near.request(0.12, "ACK", to_tag=True)
    far.request(0.13, "ACK", to_tag=True)
    for source, sport, target, port, key in ((PHONE, 41000, relay, 30002, ALICE),
                                             (relay, 30000, GATEWAY, GATEWAY_PORT, Key("relay"))):
        scratch = Wire()
        talk(scratch, 0.2, 2, key)
        for frame in scratch.sorted():
            wire.udp(frame.time - network.START, source, sport, target, port, bytes(frame)[42:])
    got = tables_of(tmp_path, wire).srtp
    assert got["relation"].to_list() == ["agreed", "agreed"]
    assert sorted(got["key_packet"].to_list()) == [0, 1]


def test_packets_captured_in_part_are_not_judged(tmp_path: Path) -> None:
    wire = Wire()
    _, answered = call(wire, 4)
    talk(wire, answered + 0.05, 3, size=1200)
    tables = open_captures([written(tmp_path, wire, snaplen=1000)])
    (row,) = tables.srtp.iter_rows(named=True)
    assert (row["relation"], row["sampled"]) == ("unjudged", 0)
    assert "whole" in row["note"]


def test_streams_of_which_most_packets_are_kept_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine leaves out of a stream is no failed tag."""
    monkeypatch.setattr(keep, "WHOLE", 0)
    monkeypatch.setattr(intake, "WHOLE", 0, raising=False)
    wire = Wire()
    _, answered = call(wire, 8)
    talk(wire, answered + 0.05, 7, size=160, ptime=0.02)
    path = written(tmp_path, wire)
    reader, writer = __import__("os").pipe()
    feed = subprocess.Popen(["cat", path], stdout=writer)
    __import__("os").close(writer)
    tables = open_captures([f"/proc/self/fd/{reader}"])
    feed.wait()
    __import__("os").close(reader)
    p = tables.packets
    assert (p.length[p.kind == 2] < p.wire[p.kind == 2]).any() or (p.length < p.wire).any()
    (row,) = tables.srtp.iter_rows(named=True)
    assert row["relation"] == "agreed"
    assert 5 <= row["sampled"] == row["matched"] <= 22


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    for i in range(6):
        _, answered = call(wire, 3, at=4.0 * i, number=i + 1)
        talk(wire, answered + 0.05, 2, Key("wrong"), number=i + 1)
    path = written(tmp_path, wire)
    monkeypatch.setattr(srtp_senders, "STREAMS", 3)
    few = open_captures([path]).srtp
    assert few["note"].to_list().count("more streams than are looked at") == 3
    monkeypatch.setattr(srtp_senders, "STREAMS", 100)
    monkeypatch.setattr(srtp_senders, "VERIFICATIONS", 600)
    few = open_captures([path]).srtp
    assert 1 <= few["note"].to_list().count("more tags than are computed") <= 5
    monkeypatch.setattr(srtp_senders, "SEARCHES", 0)
    assert set(open_captures([path]).srtp["relation"]) <= {"", "unjudged"}


def test_the_beginning_is_not_known_in_the_middle_of_a_call(tmp_path: Path) -> None:
    wire = Wire()
    dialog, answered = call(wire, 20)
    talk(wire, answered + 0.05, 12, first=65530, roc=lambda n: n + (30 << 16) >> 16)
    offered(dialog, answered + 2.0, described(PHONE, PORT, ALICE.line(), version=2),
            described(GATEWAY, GATEWAY_PORT, GATE.line(), "recvonly", version=2))
    wire.frames = [f for f in wire.frames if f.time > network.START + 1]
    (row,) = tables_of(tmp_path, wire).srtp.iter_rows(named=True)
    assert (row["relation"], row["roc"], row["from_start"]) == ("agreed", 31, False)


CLIENT_HELLO = bytes.fromhex(
    "16feff000000000000000000960100008a000000000000008afefd11e12162445ec78ccd3f74aaf61ac7e102355d3e7c35fe9c712decf2addda2"
    "9e00000002c02c0100005eff01000100000b00020100000a000c000a001d0017001e0018001900230000000e0005000200080000160000001700"
    "00000d002a0028040305030603080708080809080a080b080408050806040105010601030303010302040205020602")
SERVER_HELLO = bytes.fromhex(
    "16fefd00000000000000000050020000440000000000000044fefdf31e8545ba0d61dbaec4c0fc72c3aa69640a4bcecd3eb31bd62579b9c0b181"
    "5c00c02c00001cff01000100000b0002010000230000000e0005000200080000170000")
KEY_LOG = ("CLIENT_RANDOM 11e12162445ec78ccd3f74aaf61ac7e102355d3e7c35fe9c712decf2addda29e "
           "e91b1e275726c792b66a9a16d2f66d4959150e3fce36a32ae5fe37fd8057146657f7088d16cde06651d578cf22414166\n")
MATERIAL = bytes.fromhex(
    "b1152109cce75a8a19fd5ec32f09c2abf944f767747ebf82ac5487edfe08350638c452b929bd9fe2fbc4d50cffd8535492ce1ef99bf0e31135"
    "d42ad6bcefaeebc05bc0da119b5d63014c6c6dee316c78fc3cdf65f93420f636da223e")
"""A handshake of OpenSSL 3 with AEAD_AES_256_GCM, and what it exported."""


class Made(craft.Key):  # type: ignore[misc]
    """A key with material of its own."""

    @property
    def material(self) -> bytes:
        return bytes(MATERIAL[:32] + MATERIAL[64:76] if self.name == "client" else MATERIAL[32:64] + MATERIAL[76:88])


@pytest.mark.parametrize(("sender", "relation"), [("client", "agreed"), ("server", "")])
def test_keys_by_dtls(tmp_path: Path, sender: str, relation: str) -> None:
    wire = Wire()
    wire.udp(0.0, PHONE, PORT, GATEWAY, GATEWAY_PORT, CLIENT_HELLO)
    wire.udp(0.1, GATEWAY, GATEWAY_PORT, PHONE, PORT, SERVER_HELLO)
    talk(wire, 0.3, 6, Made(sender, "AEAD_AES_256_GCM"), first=65500)
    log = tmp_path / "keys.log"
    log.write_text(KEY_LOG)
    path = written(tmp_path, wire)
    assert open_captures([path]).srtp.height == 0
    (row,) = open_captures([path], options=Options(keylog=str(log))).srtp.iter_rows(named=True)
    assert (row["source"], row["suite"], row["relation"]) == ("DTLS", "AEAD_AES_256_GCM", relation)
    assert row["key_packet"] == 1
    if relation:
        assert (row["roc"], row["last_roc"]) == (0, 1)


def test_dtls_in_a_call_without_a_key_log(tmp_path: Path) -> None:
    wire = Wire()
    lines = "a=fingerprint:sha-256 AB\r\na=setup:{}\r\n"
    _, answered = call(wire, 4, described(PHONE, PORT, lines.format("actpass"), protocol="UDP/TLS/RTP/SAVPF"),
                       described(GATEWAY, GATEWAY_PORT, lines.format("active"), "recvonly",
                                 protocol="UDP/TLS/RTP/SAVPF"))
    talk(wire, answered + 0.05, 3)
    tables = tables_of(tmp_path, wire)
    (row,) = tables.srtp.iter_rows(named=True)
    assert (row["relation"], row["note"]) == ("unjudged", "keys by DTLS without a key log of it")
    pattern = registry.patterns()["RTP-SRTP-AUTH"]
    told = registry.detector(pattern.id)(tables, registry.settings(pattern, {}))
    assert told.status is Status.INCONCLUSIVE


def test_wraps_as_a_receiver_counts_them() -> None:
    import numpy as np
    numbers = np.array([65534, 65535, 0, 65533, 1, 40000, 20000], np.uint16)
    assert srtp_check.wraps(numbers).tolist() == [0, 0, 1, 0, 1, 0, 0]
    assert srtp_check.unseen(np.array([0, 20, 40, 60], np.int64) * 1_000_000).tolist() == []
    assert srtp_check.unseen(np.array([0, 20, 40, 400_000, 400_020], np.int64) * 1_000_000).tolist() == [3]
