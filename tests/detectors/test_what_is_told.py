"""What findings say and ask for: no contradiction, no repetition, the known host and port, and what stays open."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from netdiag import engine
from netdiag.model import Detection, Finding, Report, Status
from netdiag.registry import detector, get, settings
from netdiag.tables.reader import open_captures

TESTS = Path(__file__).parents[1]
SAMPLES = TESTS.parent / "captures" / "samples"
sys.path[:0] = [str(TESTS), str(SAMPLES)]
network: Any = importlib.import_module("_craft.network")
sip: Any = importlib.import_module("_craft.sip")
tls: Any = importlib.import_module("_craft.tls")
recipes: Any = importlib.import_module("recipes")
NAT_CASE = SAMPLES / "cases" / "registration-outlives-nat-binding"
AUDIO_CASE = SAMPLES / "cases" / "one-way-audio-behind-nat"


def analyzed(*paths: Path, select: str = "", **points: Path) -> Report:
    tables = open_captures([str(p) for p in paths], [(name, str(p)) for name, p in points.items()])
    return engine.analyze(tables, select=[select] if select else [])


def only(report: Report, pattern: str) -> Finding:
    finding, = (f for f in report.findings if f.pattern == pattern)
    return finding


def judged(pattern: str, frames: list[Any], tmp_path: Path) -> Detection:
    path = tmp_path / "one.pcap"
    path.write_bytes(recipes.encode(frames))
    return detector(pattern)(open_captures([str(path)]), settings(get(pattern).pattern, {}))


def test_calls_and_registrations_are_counted_once_at_two_points() -> None:
    outside = analyzed(NAT_CASE / "broken.outside.pcap").inventory
    inside = analyzed(NAT_CASE / "broken.inside.pcap").inventory
    both = analyzed(inside=NAT_CASE / "broken.inside.pcap", outside=NAT_CASE / "broken.outside.pcap").inventory
    assert (both["calls"], both["registrations"]) == (outside["calls"], outside["registrations"])
    assert both["packets"] == inside["packets"] + outside["packets"]
    assert both["sip_messages"] == inside["sip_messages"] + outside["sip_messages"]


def test_the_calls_of_the_head_are_not_fewer_or_more_than_those_examined() -> None:
    report = analyzed(lan=AUDIO_CASE / "broken.lan.pcap", relay=AUDIO_CASE / "broken.relay.pcap")
    assert report.inventory["calls"] == only(report, "RTP-ONEWAY").examined_total


@pytest.mark.parametrize("named", [False, True])
def test_a_point_is_named_only_where_there_are_several(named: bool, tmp_path: Path) -> None:
    hit = SAMPLES / "cap" / "midstream.hit.pcap"
    other = NAT_CASE / "fixed.inside.pcap"
    report = analyzed(left=hit, right=other, select="CAP-MIDSTREAM") if named else analyzed(hit, select="CAP-MIDSTREAM")
    text = only(report, "CAP-MIDSTREAM").summary
    assert (" is not in the capture at left: " if named else " is not in the capture: ") in text


def test_the_next_capture_of_dropped_syns_names_server_and_port() -> None:
    finding = only(analyzed(SAMPLES / "fw" / "syn_drop.hit.pcap"), "FW-SYN-DROP")
    wanted = f"tcp port {finding.scope['destination.port']} and host {finding.scope['destination.ip']}`"
    assert wanted in finding.next_capture
    assert "SERVER" not in finding.next_capture


@pytest.mark.parametrize(("server", "name", "command"), [
    ("203.0.113.10", "sip.edge.example", "-connect 203.0.113.10:5061 -servername sip.edge.example`"),
    ("2001:db8::10", "", "-connect [2001:db8::10]:5061`"),
    ("203.0.113.10", "x`;reboot;", "-connect 203.0.113.10:5061`")])
def test_an_incomplete_chain_asks_for_a_probe_of_that_server(server: str, name: str, command: str,
                                                             tmp_path: Path) -> None:
    wire = network.Wire()
    client = "2001:db8::21" if ":" in server else "10.20.0.21"
    issuing = tls.Authority("Example Issuing CA", tls.Authority("Example Root"))
    leaf = tls.leaf("sip.edge.example", issuing, aia=tls.AIA)
    tls.Session(wire, client, 40000, server, 5061, sni=name).rejected(0.0, [leaf], tls.UNKNOWN_CA)
    found = judged("TLS-CHAIN-INCOMPLETE", wire.sorted(), tmp_path)
    occurrence, = found.occurrences
    assert command in occurrence.next_capture
    other, = occurrence.alternatives
    assert not set(occurrence.reasons) & set(other.speaks_against.split("; "))
    assert "Issuing CA" in occurrence.summary
    assert "Issuing CA" not in other.speaks_for + other.speaks_against


def test_rtcp_says_when_it_counted_and_the_clause_is_not_repeated() -> None:
    report = analyzed(lan=AUDIO_CASE / "broken.lan.pcap", relay=AUDIO_CASE / "broken.relay.pcap")
    for pattern in ("RTP-SDP-UNREACHABLE", "RTP-ONEWAY"):
        finding = only(report, pattern)
        assert any(" s into its stream, counts " in r and " by then" in r for r in finding.reasons), finding.reasons
        other, = finding.alternatives
        assert other.speaks_against == "the receiver itself says that nothing arrives"
        assert other.speaks_against not in finding.reasons


def test_one_way_audio_says_in_which_window_it_counted() -> None:
    finding = only(analyzed(SAMPLES / "rtp" / "oneway.hit.pcap"), "RTP-ONEWAY")
    assert " in 5 s, from 3.0 s after the answer on, and none arrives at it" in finding.reasons[0]
    assert "packets of its own are on their way in all" in finding.summary


def test_loopback_speaks_against_a_capture_that_misses_a_direction(tmp_path: Path) -> None:
    wire = network.Wire()
    here, there = "127.0.0.1", "127.0.0.2"
    dialog = sip.Dialog(wire, here, there)
    dialog.request(0.0, "INVITE", body=sip.sdp(here, 6000))
    dialog.response(0.1, 200, "OK", body=sip.sdp(there, 7000))
    dialog.request(0.2, "ACK", to_tag=True)
    sip.rtp(wire, 0.3, here, 6000, there, 7000, 12.0)
    dialog.request(12.4, "BYE", to_tag=True)
    dialog.response(12.5, 200, "OK", "BYE")
    occurrence, = judged("RTP-ONEWAY", wire.sorted(), tmp_path).occurrences
    assert any("loopback" in r for r in occurrence.reasons)
    assert occurrence.alternatives[0].speaks_against == "a capture on the loopback interface shows both directions"


@pytest.mark.parametrize(("days", "text"), [(1649.9, "1649 days"), (30.2, "30 days"), (29.96, "30.0 days"),
                                            (8.9, "8.9 days")])
def test_days_have_no_false_precision(days: float, text: str, tmp_path: Path) -> None:
    wire = network.Wire()
    root = tls.Authority("Example Root", starts=-3000, ends=3000)
    chain = [tls.leaf("sip.edge.example", root, starts=-2500, ends=-days)]
    tls.Session(wire, "10.20.0.21", 40000, "203.0.113.10", sni="sip.edge.example").rejected(
        0.0, chain, tls.CERTIFICATE_EXPIRED)
    occurrence, = judged("TLS-CERT-EXPIRED", wire.sorted(), tmp_path).occurrences
    assert f" expired {text} before" in occurrence.summary
    assert f", {text} before" in occurrence.reasons[0]


@pytest.mark.tshark
@pytest.mark.parametrize(("capture", "pattern"), [
    ("sip-malformed__resiprocate__rfc4475-torture-udp.pcap", "CAP-MIDSTREAM"),
    ("tls-incomplete-chain__zeek__missing-intermediate.pcap", "TLS-CHAIN-INCOMPLETE")])
def test_filters_select_all_cited_frames_of_odd_messages(capture: str, pattern: str, real: Path) -> None:
    assert shutil.which("tshark"), "tshark is needed: make install-system"
    path = real / capture
    cited = {n for e in only(analyzed(path), pattern).evidence for n in e.frames}
    out = subprocess.run(["tshark", "-r", str(path), "-Y", get(pattern).pattern.filter, "-T", "fields", "-e",
                          "frame.number"], capture_output=True, text=True, check=True)
    assert cited <= {int(x) for x in out.stdout.split()}


# --- SIP-REG-NAT-EXPIRY at the phone's side

PHONE, REGISTRAR = "10.30.0.21", "198.51.100.20"


def registered(*, at: tuple[float, ...] = (0.0, 60.0), phone: str = PHONE, registrar: str = REGISTRAR,
               **more: object) -> Any:
    wire = network.Wire()
    for cseq, when in enumerate(at, 1):
        values = {"contact": f"100@{phone}:5060", "call_id": "reg1@a.example", **more}
        sip.register(wire, when, phone, 5060, registrar, cseq=cseq, **values)
    return wire


def test_the_phone_side_alone_leaves_lost_calls_open(tmp_path: Path) -> None:
    report = analyzed(NAT_CASE / "broken.inside.pcap")
    outcome = next(o for o in report.outcomes if o.pattern == "SIP-REG-NAT-EXPIRY")
    assert outcome.status is Status.INCONCLUSIVE
    assert "16.9 s (2 such clients)" in outcome.reason
    assert outcome.next_capture.startswith("Capture outside the NAT")
    assert judged("SIP-REG-NAT-EXPIRY", registered().sorted(), tmp_path).status is Status.INCONCLUSIVE


def test_both_sides_of_a_healthy_nat_leave_nothing_open() -> None:
    for points in ({"inside": NAT_CASE / "fixed.inside.pcap"},
                   {"inside": NAT_CASE / "fixed.inside.pcap", "outside": NAT_CASE / "fixed.outside.pcap"}):
        report = analyzed(select="SIP-REG-NAT-EXPIRY", **points)
        assert [o.status for o in report.outcomes] == [Status.CLEAR]


def test_a_silence_whose_outside_was_captured_too_is_not_open(tmp_path: Path) -> None:
    outside = registered(phone="203.0.113.66")
    for name, wire in (("inside", registered()), ("outside", outside)):
        (tmp_path / f"{name}.pcap").write_bytes(recipes.encode(wire.sorted()))
    report = analyzed(inside=tmp_path / "inside.pcap", outside=tmp_path / "outside.pcap", select="SIP-REG-NAT-EXPIRY")
    assert [o.status for o in report.outcomes] == [Status.CLEAR]


@pytest.mark.parametrize("why", ["public phone", "registrar in the same network", "short silence", "lapsed", "removed",
                                 "kept alive", "reached after the silence", "never registered again"])
def test_what_leaves_nothing_open_at_the_phone_side(why: str, tmp_path: Path) -> None:
    if why == "removed":
        wire = registered(at=(0.0,))
        sip.register(wire, 60.0, PHONE, 5060, REGISTRAR, contact=f"100@{PHONE}:5060", call_id="reg1@a.example",
                     cseq=2, expires=0)
    else:
        wire = {
            "public phone": lambda: registered(phone="203.0.113.66"),
            "registrar in the same network": lambda: registered(registrar="10.30.0.5"),
            "short silence": lambda: registered(at=(0.0, 4.0)),
            "lapsed": lambda: registered(granted=50),
            "never registered again": lambda: registered(at=(0.0,)),
        }.get(why, registered)()
    if why == "kept alive":  # RFC 5626 §3.5.1
        for at in (20.0, 40.0):
            wire.udp(at, PHONE, 5060, REGISTRAR, 5060, b"\r\n\r\n")
    if why == "reached after the silence":
        sip.Dialog(wire, REGISTRAR, PHONE, call_id="ping@b.example").request(50.0, "OPTIONS")
    assert judged("SIP-REG-NAT-EXPIRY", wire.sorted(), tmp_path).status is Status.CLEAR
