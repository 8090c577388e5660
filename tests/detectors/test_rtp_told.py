"""What the media patterns say together: one cause is one incident, and what streams share is named."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from netdiag import engine
from netdiag.model import Confidence, Incident, Report
from netdiag.tables.reader import open_captures

TESTS = Path(__file__).parents[1]
SAMPLES = TESTS.parent / "captures" / "samples"
sys.path[:0] = [str(TESTS), str(SAMPLES)]
network: Any = importlib.import_module("_craft.network")
rtp: Any = importlib.import_module("_craft.rtp")
sip: Any = importlib.import_module("_craft.sip")
stun: Any = importlib.import_module("_craft.stun")
recipes: Any = importlib.import_module("recipes")


def analyzed(path: Path) -> Report:
    return engine.analyze(open_captures([str(path)]))


def crafted(wire: Any, tmp_path: Path) -> Report:
    path = tmp_path / "one.pcap"
    path.write_bytes(recipes.encode(wire.sorted()))
    return analyzed(path)


def told(report: Report) -> list[tuple[str, list[str]]]:
    """Mechanism and impacts of each incident, by pattern."""
    names = {f.id: f.pattern for f in report.findings}

    def patterns(i: Incident) -> tuple[str, list[str]]:
        return names[i.mechanism], [names[f] for f in i.impacts]

    return [patterns(i) for i in report.incidents]


@pytest.mark.parametrize(("sample", "title", "reason"), [
    ("hit", "RTP packets are lost", ""),
    ("hit_all_pause", "All RTP streams stop at the same moments: capture gap or network stop",
     "all 6 streams under way lack packets at the same moments"),
    ("hit_both_ways", "Both directions of a call stop at the same moments: the path of this call stood still",
     "rather than the capture, which has 4 other streams then")])
def test_loss_at_the_same_moments_is_one_finding_that_says_so(sample: str, title: str, reason: str) -> None:
    report = analyzed(SAMPLES / "rtp" / f"loss.{sample}.pcap")
    finding, = (f for f in report.findings if f.pattern == "RTP-LOSS")
    assert finding.title == title
    assert any(reason in r for r in finding.reasons)
    assert ("expedited class" in finding.mitigation) is (sample == "hit")
    (mechanism, impacts), = told(report)
    assert (mechanism, set(impacts)) == ("RTP-LOSS", {"RTP-MOS-LOW"})


def test_loss_that_receivers_count_too_is_no_gap_of_the_capture(tmp_path: Path) -> None:
    wire, lost = network.Wire(), frozenset({*range(30, 35), *range(90, 95)})
    at = rtp.call(wire, 12.5, rtp.body(rtp.PHONE, rtp.PORT), rtp.body(rtp.GATEWAY, rtp.GATEWAY_PORT))
    for ssrc in (1, 2):
        rtp.forth(wire, at + 0.02, 11.5, ssrc=ssrc, back=ssrc == 2, lost=lost)
        rtp.report(wire, at + 11.6, about=ssrc, lost=10, highest=1127, ssrc=3 - ssrc, back=ssrc == 1)
    finding, = (f for f in crafted(wire, tmp_path).findings if f.pattern == "RTP-LOSS")
    assert finding.title == "Both directions of a call stop at the same moments: the network stood still"
    assert finding.confidence is Confidence.PROBABLE


@pytest.mark.parametrize("capture", ["rtp/format_mismatch.hit_digits_too.pcap",
                                     "cases/codec-and-dtmf-mismatch/numbers-reused.outside.pcap"])
def test_wrong_numbers_of_audio_and_digits_are_one_incident(capture: str) -> None:
    assert told(analyzed(SAMPLES / capture)) == [("RTP-FORMAT-MISMATCH", ["RTP-DTMF-MISMATCH"])]


def test_the_call_that_a_media_timer_ends_because_one_side_is_silent_is_one_incident(tmp_path: Path) -> None:
    wire = network.Wire()
    dialog = sip.Dialog(wire, rtp.PHONE, rtp.GATEWAY)
    at = dialog.answered(0.0, rtp.body(rtp.PHONE, rtp.PORT), rtp.body(rtp.GATEWAY, rtp.GATEWAY_PORT))
    rtp.forth(wire, at + 0.02, 5.0)
    rtp.forth(wire, at + 0.02, 35.0, ssrc=2, back=True)
    dialog.cseq += 1
    dialog.request(at + 35.0, "BYE", from_caller=False, to_tag=True,
                   extra='Reason: Q.850;cause=102;text="RTP timeout"\r\n')
    dialog.response(at + 35.01, 200, "OK", "BYE", to_caller=False)
    assert told(crafted(wire, tmp_path)) == [("RTP-ONEWAY", ["RTP-TIMEOUT-BYE"])]


def test_one_dtls_role_for_both_and_the_handshake_that_never_begins_are_one_incident() -> None:
    assert told(analyzed(SAMPLES / "ice" / "dtls_stall.hit_both_passive.pcap")) == [
        ("SIP-SRTP-OFFER", ["ICE-DTLS-STALL"])]


def test_an_answer_outside_the_offer_and_the_audio_that_follows_it_are_one_incident(tmp_path: Path) -> None:
    wire = network.Wire()
    at = rtp.call(wire, 3.0, rtp.body(rtp.PHONE, rtp.PORT), rtp.body(rtp.GATEWAY, rtp.GATEWAY_PORT, {8: "PCMA/8000"}))
    rtp.forth(wire, at + 0.02, 2.5)
    assert told(crafted(wire, tmp_path)) == [("SIP-SDP-OA-BROKEN", ["RTP-FORMAT-MISMATCH"])]


@pytest.mark.parametrize(("hears", "confidence"), [(False, Confidence.SUSPECTED), (True, Confidence.PROBABLE)])
def test_checks_on_a_relayed_candidate_are_those_of_the_client_behind_it(
        hears: bool, confidence: Confidence, tmp_path: Path) -> None:
    wire, peer = network.Wire(), ("198.51.100.20", 50000)
    turn = stun.TurnClient(wire, ("192.0.2.10", 40000), ("198.51.100.9", 3478))
    agent = stun.Agents(network.Wire(), turn.relay, peer)
    turn.challenged(0.0)
    turn.allocate(0.1)
    turn.permit(0.2, peer)
    agent.request(0.0)
    for i in range(7):
        turn.send(0.3 + 0.5 * (2**i - 1), peer, agent.repeated)
    for at in (5.0, 45.0):
        wire.udp(at, "203.0.113.5", 5060, "192.0.2.10" if hears else "192.0.2.11", 5060, b"\r\n\r\n")
    finding, = (f for f in crafted(wire, tmp_path).findings if f.pattern == "ICE-CHECKS-FAIL")
    assert finding.summary.startswith("198.51.100.9:50000 (relayed for 192.0.2.10) and 198.51.100.20:50000 find no")
    assert finding.confidence is confidence


def test_a_sender_behind_a_nat_is_one_sender_at_two_points() -> None:
    points = [(name, str(SAMPLES / "rtp" / f"srtp_roc.hit_nat.{name}.pcap")) for name in ("outside", "inside")]
    finding, = (f for f in engine.analyze(open_captures([], points)).findings if f.pattern == "RTP-SRTP-ROC")
    assert finding.scope["source.ip"] in ("192.168.1.5", rtp.PHONE)
    assert {e.point for e in finding.evidence} == {"inside", "outside"}
    assert finding.affected_total == 1


@pytest.mark.parametrize(("sample", "title"), [
    ("hit", "RTP arrives too unevenly for a play-out buffer"),
    ("hit_all", "RTP of all streams arrives unevenly: the capturing host, or what they share")])
def test_unevenness_of_all_streams_is_one_finding_that_says_so(sample: str, title: str) -> None:
    finding, = (f for f in analyzed(SAMPLES / "rtp" / f"jitter.{sample}.pcap").findings if f.pattern == "RTP-JITTER")
    assert finding.title == title
    assert finding.affected_total == finding.examined_total == (4 if sample == "hit_all" else 1)


def test_silence_that_begins_with_a_new_description_is_said_to(tmp_path: Path) -> None:
    wire = network.Wire()
    dialog = sip.Dialog(wire, rtp.PHONE, rtp.GATEWAY)
    at = dialog.answered(0.0, rtp.body(rtp.PHONE, rtp.PORT), rtp.body(rtp.GATEWAY, rtp.GATEWAY_PORT))
    for back in (False, True):
        rtp.forth(wire, at + 0.02, 19.0 if back else 5.0, ssrc=1 + back, back=back)
    dialog.cseq += 1
    dialog.request(at + 5.0, "INVITE", to_tag=True, body=rtp.body("203.0.113.141", rtp.PORT, version=2))
    dialog.response(at + 5.1, 200, "OK", body=rtp.body(rtp.GATEWAY, rtp.GATEWAY_PORT, version=2))
    dialog.request(at + 5.11, "ACK", to_tag=True)
    for i in range(150):
        wire.udp(at + 5.2 + i * 0.09, rtp.GATEWAY, rtp.GATEWAY_PORT, "203.0.113.141", rtp.PORT,
                 rtp.packet(i, 720 * i, 3))
    dialog.bye(at + 19.5)
    finding, = (f for f in crafted(wire, tmp_path).findings if f.pattern == "RTP-ONEWAY")
    assert finding.summary.startswith("The callee (192.0.2.20) hears nothing from 5.1 s after the answer on")


@pytest.mark.parametrize(("sample", "points", "confidence"), [
    ("hit", (), Confidence.SUSPECTED), ("hit_two_points", ("far", "near"), Confidence.CONFIRMED),
    ("hit_two_points_untold", ("far", "near"), Confidence.PROBABLE)])
def test_only_a_point_before_it_proves_that_packets_were_lost_on_the_way(
        sample: str, points: tuple[str, ...], confidence: Confidence) -> None:
    files = [(point, str(SAMPLES / "rtp" / f"loss.{sample}.{point}.pcap")) for point in points]
    report = engine.analyze(open_captures([] if points else [str(SAMPLES / "rtp" / f"loss.{sample}.pcap")], files))
    assert [f.confidence for f in report.findings if f.pattern == "RTP-LOSS"] == [confidence]


@pytest.mark.parametrize(("sample", "confidence"), [("hit_all_pause", Confidence.SUSPECTED),
                                                    ("hit_both_ways", Confidence.PROBABLE)])
def test_another_point_does_not_prove_that_a_pause_of_all_is_the_networks(
        sample: str, confidence: Confidence, tmp_path: Path) -> None:
    whole = tmp_path / "near.pcap"
    whole.write_bytes(recipes.encode(recipes.load(SAMPLES / "rtp" / "loss.py")._three()))
    points = [("far", str(SAMPLES / "rtp" / f"loss.{sample}.pcap")), ("near", str(whole))]
    finding, = (f for f in engine.analyze(open_captures([], points)).findings if f.pattern == "RTP-LOSS")
    assert finding.confidence is confidence
    assert any("near has 10 of the packets that far lacks" in reason for reason in finding.reasons)


@pytest.mark.parametrize(("sample", "confidence"), [("hit_all", Confidence.SUSPECTED), ("hit", Confidence.CONFIRMED)])
def test_another_point_does_not_prove_that_unevenness_of_all_is_the_networks(
        sample: str, confidence: Confidence, tmp_path: Path) -> None:
    recipe = recipes.load(SAMPLES / "rtp" / "jitter.py")
    recipe._often = lambda i: 0.0
    even = tmp_path / "near.pcap"
    even.write_bytes(recipes.encode(recipe.hit_all() if sample == "hit_all" else recipe.hit_two_points()["near"]))
    points = [("far", str(SAMPLES / "rtp" / f"jitter.{sample}.pcap")), ("near", str(even))]
    finding, = (f for f in engine.analyze(open_captures([], points)).findings if f.pattern == "RTP-JITTER")
    assert finding.confidence is confidence
    assert any("at near the same packets come evenly" in reason for reason in finding.reasons)


def test_loss_besides_what_the_capture_lost_is_told_without_its_shape() -> None:
    finding, = (f for f in analyzed(SAMPLES / "rtp" / "loss.hit_besides_the_capture.pcap").findings
                if f.pattern == "RTP-LOSS")
    assert finding.confidence is Confidence.PROBABLE
    assert "(5 in 12 s)" in finding.occurrences[0].summary
    assert "more are missing here, which passed: see CAP-LOSS" in finding.reasons
    assert not any("runs of missing" in reason for reason in finding.reasons)


def test_a_stream_that_lacks_packets_is_not_called_whole(tmp_path: Path) -> None:
    wire = network.Wire()
    at = rtp.call(wire, 13.0, rtp.body(rtp.PHONE, rtp.PORT), rtp.body(rtp.GATEWAY, rtp.GATEWAY_PORT))
    rtp.forth(wire, at + 0.02, 12.0, lost=frozenset({20, 30}))
    for i, lost in enumerate((4, 12, 20)):
        rtp.report(wire, 4.0 + 4 * i, about=1, lost=lost, highest=1042 + 44 * i)
    finding, = (f for f in crafted(wire, tmp_path).findings if f.pattern == "RTP-RTCP-REMOTE-LOSS")
    assert "of which 2 are missing at" in finding.summary


def test_packets_that_the_interface_dropped_are_not_proved_lost_on_the_way() -> None:
    files = [(point, str(SAMPLES / "rtp" / f"loss.hit_two_points.{point}.pcap")) for point in ("far", "near")]
    for dropped, confidence in ((0, Confidence.CONFIRMED), (3, Confidence.SUSPECTED)):
        tables = open_captures([], files)
        tables.__dict__["interface_drops"] = {"far": dropped, "near": 0}
        report = engine.analyze(tables)
        assert [f.confidence for f in report.findings if f.pattern == "RTP-LOSS"] == [confidence]
