"""TLS certificate patterns where the user's options, two capture points or a wrong clock decide."""

from __future__ import annotations

import base64
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netdiag.model import Confidence, Detection, Severity, Status
from netdiag.registry import detector, get, settings
from netdiag.tables import Options
from netdiag.tables.reader import open_captures

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "captures" / "samples")]
craft: Any = importlib.import_module("_craft.tls")
network: Any = importlib.import_module("_craft.network")
recipes: Any = importlib.import_module("recipes")

SERVER, NAME = "203.0.113.10", "sip.edge.example"
ROOT = craft.Authority("Example Root", starts=-3000, ends=3000)
ISSUING = craft.Authority("Example Issuing CA", ROOT, starts=-1000, ends=1000)
LEAF = craft.leaf(NAME, ISSUING)

Judge = Callable[..., Detection]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    def run(pattern: str, frames: list[Any] | dict[str, list[Any]], roots: list[Any] | None = None,
            at_days: float | None = None) -> Detection:
        points = []
        for name, packets in (frames if isinstance(frames, dict) else {"": frames}).items():
            path = tmp_path / f"{name or 'one'}.pcap"
            path.write_bytes(recipes.encode(packets))
            points.append((name or "capture", str(path)))
        store = None
        if roots is not None:
            store = tmp_path / "roots.pem"
            store.write_text("".join(
                f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(r.der).decode()}-----END CERTIFICATE-----\n"
                for r in roots))
        at = None if at_days is None else round((network.START + at_days * 86400) * 10**9)
        options = Options(at_ns=at, ca_file=str(store) if store else None)
        tables = open_captures([], points, options)
        return detector(pattern)(tables, settings(get(pattern).pattern, {}))
    return run


def session(wire: Any, client: str = "10.20.0.21", cport: int = 40000, **more: Any) -> Any:
    return craft.Session(wire, client, cport, SERVER, **{"sni": NAME, **more})


def test_who_closes_after_the_handshake_is_not_called_content(judge: Judge) -> None:
    wire = network.Wire()
    probe = session(wire)
    probe.hello(0.0)
    probe.flight(0.05, [craft.leaf(NAME, ISSUING, aia=craft.AIA)])
    probe.finish(0.08)
    probe.close(0.13)
    (occurrence,) = judge("TLS-CHAIN-INCOMPLETE", wire.sorted()).occurrences
    assert occurrence.summary.endswith("the client completed the handshake and closed without data.")
    assert not any("completed with the same certificates" in reason for reason in occurrence.reasons)


def rejected(chain: list[Any], alert: int, shift: float = 0.0, **more: Any) -> list[Any]:
    wire = network.Wire()
    session(wire, **more).rejected(0.0, chain, alert)
    frames = wire.sorted()
    for frame in frames:
        frame.time += shift
    return frames


def accepted(chain: list[Any], **more: Any) -> list[Any]:
    wire = network.Wire()
    session(wire, **more).accepted(0.0, chain)
    return wire.sorted()


def only(detection: Detection) -> Any:
    assert detection.status is Status.FOUND, detection.reason
    assert len({o.group for o in detection.occurrences}) == 1
    return detection.occurrences[0]


def test_the_same_open_chain_is_judged_by_the_roots_that_the_clients_have(judge: Judge) -> None:
    frames = rejected([LEAF, ISSUING], craft.UNKNOWN_CA)
    without = only(judge("TLS-CA-UNKNOWN", frames))
    assert without.confidence is Confidence.SUSPECTED
    assert any("TLS-CHAIN-INCOMPLETE" in a.title for a in without.alternatives)
    assert judge("TLS-CHAIN-INCOMPLETE", frames).status is Status.INCONCLUSIVE
    known = only(judge("TLS-CA-UNKNOWN", frames, roots=[ROOT]))
    assert known.confidence is Confidence.PROBABLE
    assert "lacks" in known.title
    assert judge("TLS-CHAIN-INCOMPLETE", frames, roots=[ROOT]).status is Status.CLEAR


def test_a_leaf_from_a_known_root_has_no_gap(judge: Judge) -> None:
    direct = craft.leaf(NAME, ROOT, aia=craft.AIA)
    assert judge("TLS-CHAIN-INCOMPLETE", accepted([direct]), roots=[ROOT]).status is Status.CLEAR
    assert judge("TLS-CHAIN-INCOMPLETE", accepted([direct])).status is Status.FOUND


def test_a_known_root_is_refused_by_alert_48_only(judge: Judge) -> None:
    frames = rejected([LEAF, ISSUING], craft.BAD_CERTIFICATE)
    assert judge("TLS-CA-UNKNOWN", frames, roots=[ROOT]).status is Status.CLEAR
    assert judge("TLS-CA-UNKNOWN", frames).status is Status.FOUND


def test_wrong_order_and_refusal_is_confirmed_only_where_the_root_is_known(judge: Judge) -> None:
    frames = rejected([LEAF, ROOT, ISSUING], craft.UNKNOWN_CA)
    assert only(judge("TLS-CHAIN-INCOMPLETE", frames, roots=[ROOT])).confidence is Confidence.CONFIRMED
    private = only(judge("TLS-CHAIN-INCOMPLETE", frames))
    assert private.confidence is Confidence.PROBABLE
    assert private.severity is Severity.HIGH


def test_an_intermediate_as_trust_anchor_completes_the_chain(judge: Judge) -> None:
    frames = accepted([craft.leaf(NAME, ISSUING, aia=craft.AIA)])
    assert judge("TLS-CHAIN-INCOMPLETE", frames, roots=[ISSUING]).status is Status.CLEAR


def test_alert_48_with_encrypted_certificates_leaves_both_readings_open(judge: Judge) -> None:
    frames = rejected([LEAF], craft.UNKNOWN_CA, version=craft.TLS13, versions=(craft.TLS13,))
    assert judge("TLS-CHAIN-INCOMPLETE", frames).status is Status.INCONCLUSIVE
    assert only(judge("TLS-CA-UNKNOWN", frames)).confidence is Confidence.SUSPECTED


def test_at_time_judges_dates_and_proves_no_refusal(judge: Judge) -> None:
    frames = rejected([LEAF, ISSUING], craft.BAD_CERTIFICATE)
    assert judge("TLS-CERT-EXPIRED", frames).status is Status.CLEAR
    later = only(judge("TLS-CERT-EXPIRED", frames, at_days=400))
    assert later.confidence is Confidence.PROBABLE
    assert later.severity is Severity.MEDIUM
    soon = only(judge("TLS-CERT-EXPIRED", frames, at_days=300))
    assert soon.severity is Severity.INFO


def test_expiry_within_the_capture_divides_it(judge: Judge) -> None:
    wire = network.Wire()
    chain = [craft.leaf(NAME, ISSUING, starts=-90, ends=0.001), ISSUING]  # 86.4 s
    session(wire).accepted(0.0, chain)
    session(wire, cport=40001).rejected(100.0, chain, craft.CERTIFICATE_EXPIRED)
    detection = judge("TLS-CERT-EXPIRED", wire.sorted())
    occurrence = only(detection)
    assert len(detection.occurrences) == 1
    assert detection.examined[occurrence.group] == 2
    assert any("before that date: 1 handshake" in r for r in occurrence.reasons)


def test_a_clock_years_behind_is_said(judge: Judge) -> None:
    behind = -3 * 365 * 86400.0
    frames = rejected([LEAF, ISSUING], craft.CERTIFICATE_EXPIRED, shift=behind)
    assert judge("TLS-CERT-EXPIRED", frames).status is Status.INCONCLUSIVE
    assert judge("TLS-CERT-EXPIRED", frames, at_days=0).status is Status.CLEAR
    expired = craft.leaf("old.edge.example", ISSUING, starts=-3000, ends=-2000)
    both = [*frames, *rejected([expired], craft.CERTIFICATE_EXPIRED, shift=behind, cport=40001)]
    occurrence = only(judge("TLS-CERT-EXPIRED", sorted(both, key=lambda f: f.time)))
    assert occurrence.confidence is Confidence.PROBABLE
    assert occurrence.limitations


def test_one_handshake_at_two_points_is_one(judge: Judge) -> None:
    """The translator changes address and port, the ClientHello passes."""
    expired = [craft.leaf(NAME, ISSUING, starts=-92, ends=-2), ISSUING]
    inside = rejected(expired, craft.CERTIFICATE_EXPIRED)
    outside = network.Wire()
    translated = craft.Session(outside, "192.0.2.1", 61000, SERVER, sni=NAME)
    translated.label = f"10.20.0.21:40000-{SERVER}:443"  # the same randoms
    translated.rejected(0.0, expired, craft.CERTIFICATE_EXPIRED)
    detection = judge("TLS-CERT-EXPIRED", {"inside": inside, "outside": outside.sorted()})
    occurrence = only(detection)
    assert {o.subject for o in detection.occurrences} == {occurrence.subject}
    assert detection.examined[occurrence.group] == 1


def test_only_the_first_two_hundred_carry_frames(judge: Judge) -> None:
    wire = network.Wire()
    for i in range(210):
        session(wire, cport=20000 + i).rejected(i * 1.0, [craft.leaf(NAME, None)], craft.UNKNOWN_CA)
    detection = judge("TLS-CA-UNKNOWN", wire.sorted())
    assert len(detection.occurrences) == 210
    assert sum(bool(o.evidence) for o in detection.occurrences) == 200


def test_an_answer_with_a_foreign_ttl_is_told(judge: Judge) -> None:
    wire = network.Wire()
    old = session(wire, offer=craft.TLS10, version=craft.TLS10)
    old.hello(0.0)
    old.tcp.server_ttl = 250
    old.alert(0.05, craft.PROTOCOL_VERSION, by_client=False)
    old.close(0.06, by_client=False)
    occurrence = only(judge("TLS-VERSION-MISMATCH", wire.sorted()))
    assert "TTL is 250" in occurrence.alternatives[-1].speaks_for
