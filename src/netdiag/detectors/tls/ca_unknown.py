"""A peer refuses a certificate chain that is whole, because it does not know the authority at its end.

A verifier accepts a path only if it ends at a trust anchor of its own (RFC 5280 §6.1). A server with a private CA, a
self-signed certificate left from an installation, or a new root that old devices never got: in each case nothing is
missing in the list of certificates, and the verifier says unknown_ca (alert 48: "could not be matched with a known
trust anchor", RFC 8446 §6.2). Some stacks say 42 or 46, some just close.

**What lifts the suspicion.** A chain up to a root that is in no list used here, or a self-signed leaf, that the peer
refuses with 42, 46 or a close is *probable*; alert 48 makes it *confirmed*. A chain up to a known public root with
alert 48 is *probable*: this client's store is older than the root. Where the root is not sent and not known here
(leaf, intermediate, alert 48) one more intermediate may be missing instead: *suspected*, with both readings named.

Which roots count as known: those of `--ca-file`, else the public list of the certifi package.

**What looks alike and is not it.** A gap in the list has the same alert and another cure: TLS-CHAIN-INCOMPLETE. A
private PKI whose peers are content is no fault. Where other clients take the same bytes with a cross certificate among
them, the path building of this client is at fault; where the same server has another issuer on another network,
something on the path opens TLS. Expired certificates and names that do not fit explain 42 and 46 by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from netdiag.detectors.tls import _presented as tls
from netdiag.detectors.tls import _probe as probe
from netdiag.detectors.tls import _trust as trust
from netdiag.model import (
    Alternative,
    Confidence,
    Detection,
    Occurrence,
    Pattern,
    Reference,
    Setting,
    Severity,
    clear,
    found,
    inconclusive,
)
from netdiag.tables import Tables

PATTERN = Pattern(
    id="TLS-CA-UNKNOWN",
    title="The certificate authority is not trusted by the peer",
    severity=Severity.HIGH,
    cases=("incomplete-chain-and-dead-cross-root",),
    needs=("handshakes", "certs"),
    references=(Reference("RFC 8446 §6.2"), Reference("RFC 5280 §6.1")),
    filter="tls.handshake.type == 11 || tls.alert_message.desc in {42, 46, 48}",
    mitigation="Install the root on the peers that refuse it, or use a certificate of an authority that they know.",
    fix="Roll a new root out to all trust stores before the first certificate under it is used; keep both until "
        "the last certificate under the old one is gone.",
    prevention="Keep an inventory of the trust stores of all device families, with their roots and dates.",
    next_capture="A handshake in TLS 1.2, or with a key log of the client, shows which certificates are sent; "
                 "--ca-file says which roots the clients have.",
    settings=(Setting("close_within", 5, "s", "practice: a later close has other reasons"),
              Setting("survey_servers", 3, "servers", "practice: who closes on so many collects certificates")),
)

TITLES = {
    trust.SELF_SIGNED: "A self-signed certificate is not trusted by the peer",
    trust.PRIVATE: "A private root is not trusted by the peer",
    trust.COMPLETE: "The peer lacks a root that is publicly trusted",
    trust.OPEN: "",
}

UNUSED = ("{}: the root is none that is known here, and {} completed and closed without data: a health check, or a "
          "program that verifies only then")

TRIES = 2
"""Handshakes without data that are told: once is a look at the certificate (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Refused chains without a gap, whose root is the only thing left to refuse."""
    lists = list(tls.shown(tables, settings))
    occurrences: list[Occurrence] = []
    examined: dict[tuple[str, ...], int] = {}
    undecided = ""
    for item in lists:
        refused = trust.rejected(item)
        if not refused.height:
            if item.unused >= TRIES and not item.accepted and trust.verdict(tables, item).kind in (
                    trust.PRIVATE, trust.SELF_SIGNED, trust.OPEN):
                undecided = undecided or UNUSED.format(tls.servers(item.sessions), tls.many(item.unused, "handshake"))
            continue
        verdict = trust.verdict(tables, item)
        refused = trust.telling(verdict, refused)
        if verdict.kind == trust.LONE_LEAF and refused.height:
            undecided = f"{tls.servers(item.sessions)}: {trust.UNDECIDED.format(verdict.anchor)}"
        split = verdict.crossed and item.accepted  # same bytes, two path builders
        if verdict.kind not in TITLES or split or not refused.height:
            continue
        made = list(_occurrences(tables, item, verdict, refused))
        occurrences += made
        group = made[0].group
        examined[group] = examined.get(group, 0) + tls.count(item.sessions)
    if not occurrences and not undecided:
        occurrences += _unseen(tables, lists)
    if occurrences:
        return found(occurrences, population="handshakes", examined=examined)
    if undecided:
        return inconclusive(undecided, PATTERN.next_capture)
    if lists:
        return clear(f"{tls.many(len(lists), 'chain')} in clear: none without a gap was refused for its authority")
    return tls.unseen_lists(tables, PATTERN.next_capture, *trust.REJECTED)


def _occurrences(tables: Tables, item: tls.Shown, verdict: trust.Verdict,
                 refused: pl.DataFrame) -> Iterator[Occurrence]:
    contrast = trust.contrast(tables, item)
    says = refused["refusal"].max()
    confidence = Confidence.PROBABLE
    if verdict.kind == trust.OPEN:
        confidence = Confidence.SUSPECTED
    elif verdict.kind != trust.COMPLETE and says == tls.UNKNOWN_CA:
        confidence = Confidence.CONFIRMED
    alternatives = [Alternative("TLS is opened and signed again on the path (an inspecting proxy)",
                                "the issuer is not a public one" if verdict.private else "nothing",
                                "no second network or point shows another issuer for this server")]
    if verdict.kind == trust.OPEN:
        alternatives.insert(0, Alternative("one more intermediate is missing (TLS-CHAIN-INCOMPLETE)",
                                           f"{verdict.anchor} is not sent", "a server may leave out the root"))
    if tls.UNKNOWN_CA not in refused["refusal"]:
        key = f"{item.leaf.key_type} {item.leaf.key_bits}" if item.leaf.key_bits else item.leaf.key_type
        alternatives.append(Alternative(
            f"the {item.judge} dislikes something else in the certificate: key, signature, usage or revocation",
            f"no alert says that the authority is unknown; the key is {key}, signed with "
            f"{item.leaf.signature_algorithm}", "dates and names fit"))
    subjects = tls.Subjects()
    for number, session in enumerate(refused.iter_rows(named=True)):
        answer = tls.answer(session, item.judge)
        yield Occurrence(
            subject=subjects.of(session), group=(item.by, verdict.kind, verdict.anchor),
            summary=f"{tls.named(item.leaf)} at {session[item.by]} rests on {verdict.anchor}, and {answer}.",
            confidence=confidence, reasons=(*verdict.why, answer, *((contrast,) if contrast else ())),
            evidence=tls.frames(tables, session, {
                **tls.certificate_facts(item.leaf, item.by), "tls.certificates": len(item.certs),
                "x509.root": verdict.anchor}, number),
            scope={f"tls.{item.by}.issuer": item.leaf.issuer, "x509.root": verdict.anchor,
                   "destination.ip": session["server"], "destination.port": session["server_port"]},
            flows=(session["flow"],),
            keys=frozenset({f"host:{session[item.by]}", f"cert:{item.leaf.sha256[:16]}"}),
            start_ns=session["start_ns"], end_ns=session["end_ns"], title=TITLES[verdict.kind],
            alternatives=tuple(alternatives),
            next_capture="No capture is needed: --ca-file with the roots of the refusing device says whether it has "
                         f"this one, and `{probe.command(session)}` lists what is sent."
                         if item.by == "server" else "")


def _unseen(tables: Tables, lists: list[tls.Shown]) -> Iterator[Occurrence]:
    """Alert 48 about certificates that cannot be read, from servers that show theirs to nobody."""
    blind = tls.unseen(tables, tls.UNKNOWN_CA)
    known = tls.showing(lists) if blind.height else set()
    subjects = tls.Subjects()
    for number, session in enumerate(blind.iter_rows(named=True)):
        whose = "server" if session["judge"] == "client" else "client"
        if whose == "server" and (session["server"], session["server_port"]) in known:
            continue
        yield Occurrence(
            subject=subjects.of(session), group=("unseen", whose, session["server"], str(session["server_port"])),
            summary=f"The {session['judge']} does not trust the certificates of the {whose} {session[whose]} "
                    "(alert 48); they are encrypted.",
            confidence=Confidence.SUSPECTED,
            reasons=("alert 48 unknown_ca in clear", "TLS 1.3: no certificate is visible without keys"),
            evidence=tls.frames(tables, session, {"tls.alert": "unknown_ca"}, number),
            scope={"destination.ip": session["server"], "destination.port": session["server_port"]},
            flows=(session["flow"],), keys=frozenset({f"host:{session[whose]}"}),
            start_ns=session["start_ns"], end_ns=session["end_ns"],
            alternatives=(Alternative("an intermediate is not sent (TLS-CHAIN-INCOMPLETE)",
                                      "the same alert", "nothing: the list is not visible"),))
