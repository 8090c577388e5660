"""One fault that several capture points show under other addresses is told once, with the frames of each."""

from __future__ import annotations

import pytest

from netdiag import engine
from netdiag.cases import all_cases
from netdiag.lab.runner import recorded_captures
from netdiag.model import Finding
from netdiag.tables.reader import open_captures


def findings(slug: str, variant: str, pattern: str) -> list[Finding]:
    captures = recorded_captures(all_cases()[slug], variant)
    tables = open_captures([], [(point, str(path)) for point, path in captures.items()])
    report = engine.analyze(tables, select=[pattern])
    return [f for f in report.findings if f.pattern == pattern]


@pytest.mark.parametrize(("slug", "variant", "pattern", "host"), [
    ("trunk-flap-after-failover", "broken", "SIP-OPTIONS-FLAP", "10.60.0.11"),
    ("trunk-flap-after-failover", "broken", "SIP-DIALOG-481", "10.60.0.11"),
    ("trunk-flap-after-failover", "purged", "SIP-DIALOG-481", "10.60.0.12"),
    ("overload-retry-storm", "broken", "SIP-503-STORM", "10.70.0.11"),
])
def test_behind_a_balancer_or_proxy(slug: str, variant: str, pattern: str, host: str) -> None:
    finding, = findings(slug, variant, pattern)
    assert {e.point for e in finding.evidence} == set(all_cases()[slug].points)
    assert f"host:{host}" in finding.keys


def test_users_that_loop_before_and_behind_a_balancer_are_one_group_and_another_realm_is_another() -> None:
    pool, realm = sorted(findings("authentication-loop", "broken", "SIP-AUTH-LOOP"), key=lambda f: -f.confidence)
    assert pool.title.endswith("servers do not share their nonces")
    assert {e.point for e in pool.evidence} == {"front", "back"}
    assert realm.title.endswith("the credentials are for another realm")
    assert realm.affected == ("sip:2226@sip.example",)
