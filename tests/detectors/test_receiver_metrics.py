"""What receivers say in extended reports is quoted, and lifts an estimate that it agrees with."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from checkout import ROOT

from netdiag import engine
from netdiag.model import Confidence, Finding
from netdiag.tables.reader import open_captures

SAMPLES = ROOT / "captures" / "samples" / "rtp"


def told(path: Path, pattern: str) -> Finding:
    [finding] = engine.analyze(open_captures([str(path)]), select=[pattern]).findings
    return finding


def test_metrics_below_the_limit_lift_an_estimate() -> None:
    alone = told(SAMPLES / "mos_low.hit_loss.pcap", "RTP-MOS-LOW")
    seconded = told(SAMPLES / "mos_low.hit_metrics.pcap", "RTP-MOS-LOW")
    assert (alone.confidence, seconded.confidence) == (Confidence.SUSPECTED, Confidence.PROBABLE)
    assert any("R 41, MOS-LQ 2.1, 28.1% lost, 2.0% discarded" in reason for reason in seconded.reasons)


@pytest.mark.parametrize(("r", "quoted"), [(93, "R 93, "), (127, "MOS-LQ 2.1")])
def test_metrics_that_do_not_agree_are_quoted_only(tmp_path: Path, r: int, quoted: str) -> None:
    data = (SAMPLES / "mos_low.hit_metrics.pcap").read_bytes()
    old = struct.pack(">BBBB", 16, 41, 127, 21)
    assert data.count(old) == 1
    path = tmp_path / "other.pcap"
    path.write_bytes(data.replace(old, struct.pack(">BBBB", 16, r, 127, 21)))
    finding = told(path, "RTP-MOS-LOW")
    assert finding.confidence is Confidence.SUSPECTED
    assert any(quoted in reason for reason in finding.reasons)


def test_metrics_part_loss_from_lateness() -> None:
    finding = told(SAMPLES / "rtcp_remote_loss.hit_metrics.pcap", "RTP-RTCP-REMOTE-LOSS")
    assert any("6.6% lost, 1.2% discarded" in reason for reason in finding.reasons)
