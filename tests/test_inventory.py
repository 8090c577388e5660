"""What did not succeed is counted by outcome, once for what several points saw."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from scapy.layers.dns import DNS, DNSQR

from netdiag.inventory import failures
from netdiag.tables.reader import open_captures

SAMPLES = ROOT / "captures" / "samples"
sys.path[:0] = [str(ROOT / "tests"), str(SAMPLES)]
network: Any = importlib.import_module("_craft.network")
recipes: Any = importlib.import_module("recipes")


def failed(*names: str, **points: str) -> dict[str, dict[str, int]]:
    return failures(open_captures([str(SAMPLES / f"{n}.pcap") for n in names],
                                  [(point, str(SAMPLES / f"{name}.pcap")) for point, name in points.items()]))


@pytest.mark.parametrize(("sample", "counted"), [
    ("sip/auth_loop.hit", {"registrations": {"401": 1}}), ("sip/reg_storm.hit", {"registrations": {"503": 22}}),
    ("sip/invite_timeout.hit", {"calls": {"no answer": 1}}),
    ("tls/ca_unknown.hit_closed", {"tls_handshakes": {"closed by client": 1}}),
    ("sip/503_storm.hit", {"calls": {"503": 52, "407": 13}}),
    ("tls/cert_expired.near_miss_tls13_judged_late_inconclusive", {"tls_handshakes": {"alert by server": 1}}),
    ("ice/dtls_stall.hit_alert", {"dtls_handshakes": {"bad_certificate": 1}}),
    ("ice/dtls_stall.hit", {"dtls_handshakes": {"no answer": 1}}),
    ("tls/version_mismatch.hit", {"tls_handshakes": {"protocol_version": 3}}),
    ("fw/reject.hit", {"tcp_connections": {"refused": 1}}),
    ("fw/syn_drop.hit", {"tcp_connections": {"no answer": 1}}),
    ("cases/incomplete-chain-and-dead-cross-root/fixed.client", {}), ("sip/ack_lost.hit", {})])
def test_outcomes(sample: str, counted: dict[str, dict[str, int]]) -> None:
    assert failed(sample) == counted


def test_a_lookup_without_answer_and_those_that_fail(tmp_path: Path) -> None:
    wire = network.Wire()
    for number, code in enumerate((0, 2, 2, 3, None)):
        asked = DNS(id=number, rd=1, qd=DNSQR(qname=f"host{number}.b.example"))
        wire.udp(number, "10.20.0.15", 40000 + number, "192.0.2.53", 53, bytes(asked))
        if code is not None:
            answer = DNS(id=number, qr=1, rd=1, rcode=code, qd=asked.qd)
            wire.udp(number + 0.02, "192.0.2.53", 53, "10.20.0.15", 40000 + number, bytes(answer))
    path = tmp_path / "dns.pcap"
    path.write_bytes(recipes.encode(wire.sorted()))
    assert failures(open_captures([str(path)])) == {"dns_lookups": {"SERVFAIL": 2, "NXDOMAIN": 1, "no answer": 1}}


def test_an_alert_counts_where_the_hellos_are_cut(tmp_path: Path) -> None:
    whole = open_captures([str(SAMPLES / "tls/cert_expired.hit_tls13.pcap")])
    tls: Any = importlib.import_module("_craft.tls")
    wire = network.Wire()
    session = tls.Session(wire, "10.20.0.15", 40000, "192.0.2.53")
    session.tcp.open(0.0, 0.02)
    session.alert(0.1, tls.CERTIFICATE_EXPIRED)
    session.close(0.2)
    path = tmp_path / "a.pcap"
    path.write_bytes(recipes.encode(wire.sorted()))
    assert failures(open_captures([str(path)])) == failures(whole) == {"tls_handshakes": {"certificate_expired": 1}}


def test_a_client_hello_that_nobody_answers(tmp_path: Path) -> None:
    """Counted when the capture goes on long enough; a close says more."""
    tls: Any = importlib.import_module("_craft.tls")
    for seconds, counted in ((2.0, {}), (8.0, {"tls_handshakes": {"no answer": 1}})):
        wire = network.Wire()
        tls.Session(wire, "10.20.0.15", 40000, "192.0.2.53").hello(0.0)
        wire.udp(seconds, "10.20.0.15", 40000, "192.0.2.99", 9, b"later")
        path = tmp_path / f"{seconds}.pcap"
        path.write_bytes(recipes.encode(wire.sorted()))
        assert failures(open_captures([str(path)])) == counted


def test_what_two_points_saw_counts_once() -> None:
    name = "fw/syn_drop.hit_two_points"
    alone, both = failed(f"{name}.inside"), failed(inside=f"{name}.inside", outside=f"{name}.outside")
    assert alone == both != {}


def test_a_table_that_cannot_be_built_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from netdiag.tables import calls
    monkeypatch.setattr(calls, "build", lambda tables: 1 / 0)
    assert failed("tls/version_mismatch.hit") == {"tls_handshakes": {"protocol_version": 3}}
