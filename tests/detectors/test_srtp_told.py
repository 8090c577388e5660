"""What is said about SRTP whose tags do not fit: the kind of disagreement, and how sure it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import recipes

from netdiag import engine
from netdiag.model import Confidence, Finding, Report
from netdiag.tables.reader import open_captures

FOLDER = Path(recipes.SAMPLES) / "rtp"


def report(name: str, select: str) -> Report:
    alone = FOLDER / f"{name}.pcap"
    points = [] if alone.exists() else [(p.name.split(".")[-2], str(p)) for p in sorted(FOLDER.glob(f"{name}.*.pcap"))]
    return engine.analyze(open_captures([str(alone)] if alone.exists() else [], points), select=[select])


def found(name: str, select: str) -> Finding:
    (finding,) = report(name, select).findings
    return finding


@pytest.mark.parametrize(("name", "title", "reason"), [
    ("hit", "SRTP packets fit no key of the signalling", ""),
    ("hit_peer", "A sender encrypts with its peer's SRTP key", "the 200 from 192.0.2.20 in frame 4"),
    ("hit_tag", "SRTP tags have another length than was agreed", "a tag of another length"),
    ("hit_identifier", "SRTP packets lack the key identifier that was agreed", "without a key identifier"),
    ("hit_plain", "Plain RTP is sent where SRTP was agreed", "without room for a tag"),
    ("hit_fork", "The receiver was told another SRTP key than the sender uses",
     "the 200 from 203.0.113.142 in frame 6"),
    ("hit_two_points", "The receiver was told another SRTP key than the sender uses", "in frame 1 at near"),
])
def test_kinds_of_disagreement(name: str, title: str, reason: str) -> None:
    finding = found(f"srtp_auth.{name}", "RTP-SRTP-AUTH")
    assert (finding.title, finding.confidence) == (title, Confidence.CONFIRMED)
    assert any(reason in text for text in finding.reasons[1:]) or not reason
    assert len(finding.reasons) == 1 + bool(reason)


def test_an_old_key_is_probable() -> None:
    finding = found("srtp_auth.hit_old_key", "RTP-SRTP-AUTH")
    assert (finding.title, finding.confidence) == ("The sender keeps its old SRTP key", Confidence.PROBABLE)
    assert "the INVITE from 203.0.113.140 in frame 17" in finding.summary
    assert "frame 1," in finding.reasons[1]


def test_tags_that_fit_exonerate() -> None:
    (outcome,) = report("srtp_auth.near_miss_fits", "RTP-SRTP-AUTH").outcomes
    assert outcome.reason == "28 of 28 tags computed, of 1 SRTP sender, fit the keys that were agreed"


@pytest.mark.parametrize(("name", "title", "confidence"), [
    ("hit", "The SRTP sender does not count the wrap", Confidence.CONFIRMED),
    ("hit_reset", "The SRTP sender lost its roll-over counter", Confidence.CONFIRMED),
    ("hit_moved", "The SRTP sender lost its roll-over counter", Confidence.CONFIRMED),
    ("hit_late", "A stream begins with a roll-over counter that its receiver does not know", Confidence.CONFIRMED),
    ("hit_receiver", "The receiver stops authenticating where the sequence number wraps", Confidence.CONFIRMED),
    ("hit_receiver_unknown", "The receiver stops authenticating where the sequence number wraps", Confidence.PROBABLE),
    ("hit_released", "SRTP calls are released soon after their sequence number wraps", Confidence.PROBABLE),
    ("hit_twice", "SRTP calls are released soon after their sequence number wraps", Confidence.SUSPECTED),
])
def test_kinds_of_lost_counters(name: str, title: str, confidence: Confidence) -> None:
    finding = found(f"srtp_roc.{name}", "RTP-SRTP-ROC")
    assert (finding.title, finding.confidence) == (title, confidence)


def test_no_key_is_printed() -> None:
    from netdiag.render import json as as_json
    for name in ("srtp_auth.hit_fork", "srtp_auth.hit_old_key"):
        data = (FOLDER / f"{name}.pcap").read_bytes()
        key = data[data.index(b"inline:") + 7 :][:40].decode()
        assert key not in as_json.render(report(name, "RTP-SRTP-AUTH"))
