"""What findings say and ask for: no contradiction, no repetition, the known host and port, and what stays open."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from netdiag import engine
from netdiag.model import Confidence, Detection, Finding, Report, Status
from netdiag.registry import detector, get, patterns, settings
from netdiag.tables.reader import open_captures

TESTS = Path(__file__).parents[1]
SAMPLES = TESTS.parent / "captures" / "samples"
sys.path[:0] = [str(TESTS), str(SAMPLES)]
network: Any = importlib.import_module("_craft.network")
rtp: Any = importlib.import_module("_craft.rtp")
sip: Any = importlib.import_module("_craft.sip")
stun: Any = importlib.import_module("_craft.stun")
tls: Any = importlib.import_module("_craft.tls")
recipes: Any = importlib.import_module("recipes")
NAT_CASE = SAMPLES / "cases" / "registration-outlives-nat-binding"
AUDIO_CASE = SAMPLES / "cases" / "one-way-audio-behind-nat"
TIMER_CASE = SAMPLES / "cases" / "session-timer-call-drop"
TURN_CASE = SAMPLES / "cases" / "webrtc-through-turn"
CODEC_CASE = SAMPLES / "cases" / "codec-and-dtmf-mismatch"


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


@pytest.mark.parametrize(("hit", "confidence"), [
    ("hit_two_points", Confidence.CONFIRMED), ("hit_two_points_filtered", Confidence.PROBABLE)])
def test_missing_fragments_prove_something_only_where_no_filter_was(hit: str, confidence: Confidence) -> None:
    points = {point: SAMPLES / "sip" / f"udp_oversize.{hit}.{point}.pcap" for point in ("sender", "receiver")}
    finding = only(analyzed(select="SIP-UDP-OVERSIZE", **points), "SIP-UDP-OVERSIZE")
    assert finding.confidence is confidence
    assert ("receiver" in " ".join(finding.reasons)) is (confidence is Confidence.CONFIRMED)


def test_a_refresh_that_fails_at_one_point_and_is_missing_at_another_is_one_finding() -> None:
    paths = {point: SAMPLES / "sip" / f"session_timer.hit_two_points.{point}.pcap" for point in ("callee", "caller")}
    finding = only(analyzed(**paths), "SIP-SESSION-TIMER")
    assert finding.confidence is Confidence.CONFIRMED
    assert any("not seen at callee" in reason for o in finding.occurrences for reason in o.reasons)
    assert only(analyzed(paths["callee"]), "SIP-SESSION-TIMER").confidence < Confidence.CONFIRMED


def test_a_call_stuck_on_hold_is_told_once_and_at_the_side_of_who_answers() -> None:
    paths = {point: TIMER_CASE / f"broken.{point}.pcap" for point in ("inside", "outside")}
    finding = only(analyzed(**paths), "RTP-HOLD-STUCK")
    assert [o.scope["host.ip"] for o in finding.occurrences] == ["198.51.100.20"]


def test_what_a_router_edits_in_other_requests_is_told_too() -> None:
    finding = only(analyzed(SAMPLES / "sip" / "alg_rewrite.hit_both_sides.pcap"), "SIP-ALG-REWRITE")
    assert finding.confidence is Confidence.CONFIRMED
    assert finding.reasons[0] == ("the same branch and CSeq from 192.168.1.20 and from 203.0.113.66, and no Via more")
    assert "in another INVITE: SDP m=video 16002 RTP/AVP 31 is cut off" in finding.reasons
    assert len({reason.partition(": ")[2] or reason for reason in finding.reasons}) == len(finding.reasons)


def test_a_refusal_that_is_passed_on_belongs_to_who_refused_first() -> None:
    paths = {point: CODEC_CASE / f"broken.{point}.pcap" for point in ("inside", "outside")}
    finding = only(analyzed(**paths), "SIP-CODEC-488")
    occurrence, = finding.occurrences
    assert occurrence.scope["destination.ip"] == "198.51.100.30"
    assert any("203.0.113.1 passes it on, at inside" in reason for reason in occurrence.reasons)


@pytest.mark.parametrize(("username", "code", "told"), [
    ("{}:alice", 401, "62 s before (2025-12-31 23:58:58 UTC)"), ("{}", 401, "62 s before"),
    ("{}:alice", 486, ""), ("{}alice", 401, ""), ("alice:{}", 401, ""),
    ("1001:alice", 401, ""), ("2025550100:alice", 401, ""), ("0202555010:alice", 401, "")])
def test_turn_credentials_that_have_ended_are_said_to_have(username: str, code: int, told: str, tmp_path: Path) -> None:
    wire = network.Wire()
    client = stun.TurnClient(wire, ("192.0.2.10", 40000), ("203.0.113.7", 3478),
                             username=username.format(int(network.START) - 62))
    client.challenged(0.0)
    client.allocate(0.1, code)
    wire.udp(5.0, "192.0.2.10", 5060, "203.0.113.5", 5060, b"\r\n\r\n")
    occurrence, = judged("ICE-TURN-FAIL", wire.sorted(), tmp_path).occurrences
    assert occurrence.confidence is Confidence.CONFIRMED
    assert ("credentials ended" in " ".join(occurrence.reasons)) is bool(told)
    assert told in " ".join(occurrence.reasons)
    assert ("turn.credentials_ended_s" in occurrence.evidence[0].facts) is bool(told)


def test_a_turn_client_behind_a_nat_is_one_client_at_two_points() -> None:
    report = analyzed(**{point: TURN_CASE / f"credentials.{point}.pcap" for point in ("browser", "turn")})
    finding = only(report, "ICE-TURN-FAIL")
    assert (finding.affected_total, finding.examined_total) == (2, 2)
    incident, = report.incidents
    assert incident.mechanism == finding.id
    assert incident.impacts == (only(report, "ICE-CHECKS-FAIL").id,)


def test_a_relayed_end_says_for_whom() -> None:
    paths = {"browser": TURN_CASE / "broken.browser.pcap", "turn": TURN_CASE / "broken.turn.pcap.gz"}
    both = only(analyzed(select="ICE-CONSENT-LOST", **paths), "ICE-CONSENT-LOST").summary
    assert both.startswith("198.51.100.30:49845 (relayed for 10.30.0.10) stops sending to 198.51.100.30:49829 (rel")
    alone = only(analyzed(paths["browser"], select="ICE-CONSENT-LOST"), "ICE-CONSENT-LOST").summary
    assert " (relayed for 10.30.0.10) stops sending to 198.51.100.30:49829 " in alone


@pytest.mark.parametrize(("delays", "stale", "told"), [
    ((17.1, 17.3), False, "17.1 to 17.3 s"), ((17.1, 17.1), True, "17.1 s"), ((17.1, 0.5), False, ""),
    ((0.5, 0.5), True, "")])
def test_credentials_that_come_late_are_said_to(delays: tuple[float, ...], stale: bool, told: str,
                                                tmp_path: Path) -> None:
    auth: Any = importlib.import_module("sip.auth_loop")
    wire, at = network.Wire(), 0.0
    client = auth.Client(wire)
    for i, delay in enumerate(delays):
        client.round(at, "", 401, f"n{i}")
        client.round(at + 0.01 + delay, f"n{i}", 401, f"m{i}", stale=stale)
        at += 60.0
    occurrence, = judged("SIP-AUTH-LOOP", wire.sorted(), tmp_path).occurrences
    first = occurrence.alternatives[0]
    assert (f"the credentials come {told} after their challenge" in occurrence.reasons) is bool(told)
    assert ("expired before it was used" in first.title) is bool(told)
    assert (first.speaks_for == f"they come {told} late") is bool(told)
    assert (first.speaks_against == "no refusal says stale=true") is (bool(told) and not stale)


COUNTED = ("calls", "streams", "requests", "events", "digits", "runs", "times", "spells", "connections", "flows",
           "pairs", "sessions", "handshakes", "packets", "clients", "INVITEs", "challenges", "marks", "responses",
           "errors")


@pytest.mark.parametrize("sample", [
    "rtp/dtmf_mismatch.hit_split", "sip/options_flap.hit_false_alarm", "sip/udp_oversize.hit",
    "rtp/mos_low.near_miss_once", "cap/filter.hit_one_port",
    "nat/tcp_idle_drop.near_miss_short_rest_inconclusive", "sip/auth_loop.hit_by_turns",
    "rtp/oneway.hit_refused", "ice/checks_fail.near_miss_inconclusive_cut", "sip/alg_rewrite.hit_length",
    "ice/turn_fail.near_miss_inconclusive_end"])
def test_one_of_a_kind_is_not_told_as_several(sample: str) -> None:
    report = analyzed(SAMPLES / f"{sample}.pcap")
    texts = [o.reason for o in report.outcomes]
    for f in report.findings:
        texts += [f.title, f.summary, *f.reasons, *f.limitations, *(t for a in f.alternatives for t in (
            a.title, a.speaks_for, a.speaks_against))]
    told = re.compile(rf"(?<![\d.,])1 (?:[A-Za-z]+ )?(?:{'|'.join(COUNTED)})\b")
    assert not [text for text in texts if told.search(text)]


def test_the_only_stretch_of_a_short_stream_is_as_long_as_the_stream(tmp_path: Path) -> None:
    wire = network.Wire()
    rtp.forth(wire, rtp.call(wire, 2.0) + 0.02, 1.8, ptime=0.03, late=lambda i: 0.11 if i % 11 == 10 else 0.0)
    (tmp_path / "short.pcap").write_bytes(recipes.encode(wire.sorted()))
    finding = only(analyzed(tmp_path / "short.pcap", select="RTP-JITTER"), "RTP-JITTER")
    assert " 5 of 60 packets in 1.8 s are more than 60 ms late" in finding.summary
    assert "bad stretches of up to 5 s: 1 of 1;" in finding.reasons[0]


@pytest.mark.parametrize(("sample", "pattern", "word"), [
    ("tls/version_mismatch.hit", "TLS-VERSION-MISMATCH", "old clients"),
    ("tls/version_mismatch.hit_downgrade", "TLS-VERSION-MISMATCH", "lowers the version"),
    ("tls/version_mismatch.hit_client_refuses", "TLS-VERSION-MISMATCH", "at the server"),
    ("tls/version_mismatch.hit_too_new", "TLS-VERSION-MISMATCH", "at the server"),
    ("tls/cert_expired.hit_client_certificate", "TLS-CERT-EXPIRED", "on this client"),
    ("ice/turn_fail.hit_quota", "ICE-TURN-FAIL", "quota"),
    ("ice/turn_fail.hit_forbidden", "ICE-TURN-FAIL", "address range"),
    ("ice/turn_fail.hit_permission", "ICE-TURN-FAIL", "before 300 s")])
def test_what_to_do_now_fits_the_kind_of_the_fault(sample: str, pattern: str, word: str) -> None:
    assert word in only(analyzed(SAMPLES / f"{sample}.pcap"), pattern).mitigation


def test_texts_name_no_pattern_that_does_not_exist() -> None:
    known = set(patterns())
    families = "|".join(sorted({name.partition("-")[0] for name in known} | {"TCP", "IP", "LB", "DNS"}))
    root = SAMPLES.parents[1]
    detectors, cases = (root / "src" / "netdiag" / "detectors").glob("*/*.py"), (root / "cases").glob("*/case.toml")
    for path in sorted([*detectors, *cases]):
        named = set(re.findall(rf"\b(?:{families})(?:-[A-Z0-9]+)+\b", path.read_text(encoding="utf-8")))
        assert named <= known, path
