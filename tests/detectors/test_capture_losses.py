"""CAP-LOSS, CAP-OFFLOAD and CAP-SNAPLEN: how sure they are, and which findings they touch."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import SAMPLES

from netdiag import engine
from netdiag.model import Confidence, Finding, Report, Status
from netdiag.render import evidence, json, markdown, terminal
from netdiag.tables.reader import open_captures

SUSPECTED, PROBABLE, CONFIRMED = Confidence


def report(sample: str, *points: str, select: str, **settings: float) -> Report:
    given = {f"{select}.{name}": value for name, value in settings.items()}
    paths = [(point, str(SAMPLES / "cap" / f"{sample}.{point}.pcap")) for point in points]
    plain = [] if points else [str(SAMPLES / "cap" / f"{sample}.pcap")]
    return engine.analyze(open_captures(plain, paths), select=[select], settings=given)


def finding(sample: str, *points: str, select: str) -> Finding:
    (found,) = report(sample, *points, select=select).findings
    return found


def with_statistics(source: Path, path: Path, dropped: int) -> str:
    """``source``, a nanosecond pcap of Ethernet, as pcapng with an Interface Statistics Block at its end."""
    def block(kind: int, body: bytes) -> bytes:
        return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))

    data, at = source.read_bytes(), 24
    out = [block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
           block(1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HHB3x", 9, 1, 9))]
    while at < len(data):
        seconds, ns, size, wire = struct.unpack_from("<IIII", data, at)
        frame, ticks = data[at + 16 : at + 16 + size], seconds * 10**9 + ns
        out.append(block(6, struct.pack("<IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, size, wire)
                         + frame + bytes(-size % 4)))
        at += 16 + size
    out.append(block(5, struct.pack("<III", 0, 0, 0) + struct.pack("<HHQ", 5, 8, dropped)))
    path.write_bytes(b"".join(out))
    return str(path)


@pytest.mark.parametrize(("hit", "points", "confidence", "flows"), [
    ("hit", (), SUSPECTED, 1), ("hit_together", (), PROBABLE, 3), ("hit_rtcp", (), SUSPECTED, 1),
    ("hit_two_points", ("mirror", "server"), CONFIRMED, 1), ("hit_both_directions", (), SUSPECTED, 1),
    ("hit_further_on", ("tap", "server"), CONFIRMED, 1), ("hit_behind_a_relay", ("tap", "server"), CONFIRMED, 1),
    ("hit_reported_elsewhere", ("tap", "server"), SUSPECTED, 1)])
def test_loss_is_as_sure_as_its_witnesses(hit: str, points: tuple[str, ...], confidence: Confidence,
                                          flows: int) -> None:
    f = finding(f"loss.{hit}", *points, select="CAP-LOSS")
    assert (f.confidence, f.affected_total) == (confidence, flows)
    assert all(len(o.flows) == 1 for o in f.occurrences)


def test_loss_tells_which_bytes_are_missing() -> None:
    f = finding("loss.hit", select="CAP-LOSS")
    assert (f.evidence[0].facts["tcp.missing_bytes"], f.evidence[0].facts["tcp.seq"]) == (100, 6)
    assert finding("loss.hit_two_points", "mirror", "server", select="CAP-LOSS").scope["capture.point"] == "mirror"


def test_loss_at_the_same_moment_counts_below_the_share_too() -> None:
    assert report("loss.hit", select="CAP-LOSS", max_share=100).outcomes[0].status is Status.CLEAR
    (f,) = report("loss.hit_together", select="CAP-LOSS", max_share=100).findings
    assert f.affected_total == 3
    (f,) = report("loss.hit_together", select="CAP-LOSS", min_flows=4).findings
    assert f.confidence is SUSPECTED


@pytest.mark.parametrize(("setting", "hit"), [("min_packets", "hit_rtcp"), ("min_moments", "hit_both_directions")])
def test_loss_of_media_can_be_set(setting: str, hit: str) -> None:
    assert report(f"loss.{hit}", select="CAP-LOSS", **{setting: 7}).outcomes[0].status is Status.CLEAR


def test_dropped_packets_of_the_interface_touch_the_whole_point(tmp_path: Path) -> None:
    source = SAMPLES / "fw" / "syn_drop.hit.pcap"
    clean, lossy = (engine.analyze(open_captures([with_statistics(source, tmp_path / "a.pcapng", n)])) for n in (0, 7))
    before, after = ({f.pattern: f for f in r.findings} for r in (clean, lossy))
    assert "CAP-LOSS" not in before
    assert before["FW-SYN-DROP"].confidence is PROBABLE
    assert after["CAP-LOSS"].confidence is CONFIRMED
    assert after["CAP-LOSS"].scope == {"capture.point": "capture", "capture.dropped": 7}
    assert after["FW-SYN-DROP"].confidence is SUSPECTED
    assert "CAP-LOSS" in after["FW-SYN-DROP"].reasons[-1]


def test_lost_bytes_are_confirmed_by_the_drop_counter(tmp_path: Path) -> None:
    path = with_statistics(SAMPLES / "cap" / "loss.hit.pcap", tmp_path / "a.pcapng", 3)
    found = engine.analyze(open_captures([path]), select=["CAP-LOSS"]).findings
    assert {f.confidence for f in found} == {CONFIRMED}
    assert len(found) == 2


@pytest.mark.parametrize("render", [markdown.render, terminal.render, json.render])
def test_a_finding_without_frames_can_be_shown(tmp_path: Path, render: Callable[[Report], str]) -> None:
    path = with_statistics(SAMPLES / "fw" / "syn_drop.hit.pcap", tmp_path / "a.pcapng", 7)
    tables = open_captures([path])
    result = engine.analyze(tables)
    assert "dropped 7 packets" in " ".join(render(result).split())
    assert "dropped 7 packets" in evidence.render(tables, result, result.findings)


@pytest.mark.parametrize("hit", ["hit", "hit_received", "hit_giant_datagram", "hit_length_zero"])
def test_wrong_sizes_touch_the_whole_point(hit: str) -> None:
    f = finding(f"offload.{hit}", select="CAP-OFFLOAD")
    assert f.confidence is CONFIRMED
    assert [(o.flows, o.scope) for o in f.occurrences] == [((), {"capture.point": "capture"})]


@pytest.mark.parametrize(("hit", "flows"), [
    ("hit_checksums", (0,)), ("hit_zero_checksums", (0,)), ("hit_checksums_ipv6", ())])
def test_unset_checksums_touch_the_connections_of_the_host(hit: str, flows: tuple[int, ...]) -> None:
    f = finding(f"offload.{hit}", select="CAP-OFFLOAD")
    assert f.confidence is PROBABLE
    assert [o.flows for o in f.occurrences] == [flows]
    assert "capture.point" not in f.scope  # nothing is said of the other hosts there


def test_cut_packets_touch_their_flow_and_headless_ones_the_point() -> None:
    f = finding("snaplen.hit", select="CAP-SNAPLEN")
    assert [o.flows for o in f.occurrences] == [(0,)]
    assert (f.confidence, f.evidence[0].facts["payload.lost"]) == (CONFIRMED, 258)
    f = finding("snaplen.hit_ip_header", select="CAP-SNAPLEN")
    assert [(o.flows, o.scope) for o in f.occurrences] == [((), {"capture.point": "capture"})]
    assert finding("snaplen.hit_sip", select="CAP-SNAPLEN").evidence[0].facts["network.protocol"] == "SIP"
