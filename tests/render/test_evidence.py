"""The evidence section."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
from made_call import CALL_ID, GATEWAY, PHONE, START, call, write
from report_example import finding, report

from netdiag.errors import NetdiagError
from netdiag.model import Evidence, Finding, Report
from netdiag.render import evidence, frames
from netdiag.tables import Tables
from netdiag.tables.reader import open_captures


@pytest.fixture
def made(tmp_path: Path) -> tuple[Tables, Report, Finding]:
    tables = open_captures([write(tmp_path / "call.pcap", call())])
    path = tables.captures[0].path
    one = finding(
        pattern="RTP-ONEWAY", scope={"client.ip": PHONE, "server.ip": GATEWAY}, affected=(CALL_ID,), affected_total=1,
        examined_total=1, keys=frozenset({f"call:{CALL_ID}"}), start_ns=START, end_ns=START + 2_600_000_000,
        evidence=(Evidence("capture", path, (1, 2, 4, *range(6, 40), 107), "rtp || icmp", {"rtp.lost": 3}),))
    return tables, report(captures=tables.captures, findings=(one,), incidents=()), one


def test_the_section_has_what_a_postmortem_needs(made: tuple[Tables, Report, Finding]) -> None:
    tables, whole, one = made
    text = evidence.render(tables, whole, [one])
    digest = hashlib.sha256(Path(tables.captures[0].path).read_bytes()).hexdigest()
    for part in ("## Evidence", f"`{digest}`", "#### Timeline", "INVITE sip:bob\\@b.example",
                 "```mermaid\nsequenceDiagram",
                 "```\nrtp || icmp\n```", "**Why this confidence**", "**What this does not show**", "**To be asked**",
                 "- **Do now:**", "- **Fix:**", "- **Prevent:**", "`netdiag lab run phone-cannot-be-called`",
                 "Written by netdiag 0.1.0.", "`rtp.lost`"):
        assert part in text, part


def test_the_timeline_is_in_order_and_folds_media(made: tuple[Tables, Report, Finding]) -> None:
    tables, whole, one = made
    text = evidence.render(tables, whole, [one])
    lines = [line for line in text.splitlines() if line.startswith("| 2026-09-21 14:13")]
    assert len(lines) == 6
    assert lines == sorted(lines)
    assert "ICMP port unreachable" in lines[-1]
    assert "(×17, until 14:13:21.5" in lines[3]


def test_what_cannot_be_known_is_asked_by_name(made: tuple[Tables, Report, Finding]) -> None:
    tables, whole, one = made
    text = evidence.render(tables, whole, [one])
    assert f"Ask: SIP ALG and UDP time-outs of the devices between {PHONE} and {GATEWAY}" in text


def test_findings_are_chosen_by_case_id_and_pattern() -> None:
    whole = report()
    assert [f.pattern for f in evidence.choose(whole)] == ["NAT-UDP-EXPIRED", "SIP-INVITE-TIMEOUT", "TLS-CERT-EXPIRED"]
    assert [f.pattern for f in evidence.choose(whole, case="expired-certificate")] == ["TLS-CERT-EXPIRED"]
    assert [f.id for f in evidence.choose(whole, finding="cccc")] == ["cccccccccccc"]
    assert [f.pattern for f in evidence.choose(whole, finding="cap-midstream")] == ["CAP-MIDSTREAM"]


@pytest.mark.parametrize("choice", [{"case": "none"}, {"finding": "none"}])
def test_choosing_nothing_says_what_there_is(choice: dict[str, str]) -> None:
    with pytest.raises(NetdiagError, match="found: NAT-UDP-EXPIRED"):
        evidence.choose(report(), **choice)


def test_a_finding_without_frames_of_these_files_still_gets_its_section(made: tuple[Tables, Report, Finding]) -> None:
    tables, whole, one = made
    other = dataclasses.replace(one, evidence=(Evidence("x", "gone.pcap", (1,), "ip"),), keys=frozenset())
    text = evidence.render(tables, whole, [other])
    assert "#### Timeline" not in text
    assert "`gone.pcap`" in text


def test_nothing_found_is_written_down_too(made: tuple[Tables, Report, Finding]) -> None:
    tables, whole, _ = made
    text = evidence.render(tables, dataclasses.replace(whole, findings=()), [])
    assert "No fault found" in text
    assert "patterns checked" in text


def test_a_stun_error_is_told_with_its_code(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "captures" / "samples" / "ice" / "turn_fail.hit.pcap"
    tables = open_captures([str(path)])
    told = frames.describe(tables, [1, 2])
    assert [told[row].text for row in (1, 2)] == ["STUN Allocate error 401", "STUN Allocate request"]
