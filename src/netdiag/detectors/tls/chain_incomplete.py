"""A server does not send the intermediate certificate, so clients that cannot get it elsewhere refuse it.

A server must send its certificate and then each certificate that certifies the one before, the root alone may be left
out (RFC 5246 §7.4.2, RFC 8446 §4.4.2). If the issuer of the leaf is neither sent nor a root, a client can build no
path (RFC 5280 §6.1) and answers with alert 48 unknown_ca, some with 42 or 46, some just close. Browsers hide the
fault: they cache intermediates, ship lists of them or fetch them from the address in the leaf (Authority Information
Access, RFC 5280 §4.2.2.1). Phones, card terminals and programs do not.

**What lifts the suspicion.** A leaf that names an address for its issuer's certificate, a certificate of another
chain sent in place of the right one, or the missing certificate seen in another handshake make the gap *probable*. A
refusal makes it *confirmed*, and clients that took the same certificates are the contrast that explains why nobody
saw it before. A leaf alone without any such hint is *suspected* when it is refused: a private root that signs leaves
itself would look the same.

**Wrong order.** All certificates are there, but not one after the other. Many clients sort them, TLS 1.2 does not ask
them to; RFC 8446 §4.4.2 does. Told with low severity unless somebody refuses.

**What looks alike and is not it.** An omitted root is right. A chain up to a root that the client lacks has the same
alert and another cure (TLS-CA-UNKNOWN). A private PKI whose peers are content is nobody's business. Alert 45 speaks
of dates (TLS-CERT-EXPIRED, or an expired root on the path that the client chose), 42 or 46 for a name that the
certificate does not cover speaks of that name.
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
    id="TLS-CHAIN-INCOMPLETE",
    title="Certificate chain is incomplete: an intermediate is not sent",
    severity=Severity.HIGH,
    cases=("incomplete-chain-and-dead-cross-root",),
    needs=("handshakes", "certs"),
    references=(Reference("RFC 5246 §7.4.2"), Reference("RFC 8446 §4.4.2, §6.2"), Reference("RFC 5280 §4.2.2.1, §6.1")),
    filter="tls.handshake.type == 11 || (tls && tcp.segment_data && !tls.record) "
           "|| tls.alert_message.desc in {42, 46, 48}",
    mitigation="Serve leaf and intermediates in this order (fullchain.pem instead of cert.pem) and reload.",
    fix="Deploy the bundle that the CA delivers with each certificate; leave the root out.",
    prevention="Let the deployment check connect with one root and no cached intermediates, once for each client "
               "family.",
    next_capture="A handshake in TLS 1.2, or with a key log of the client, shows which certificates are sent; "
                 "--ca-file says which roots the clients have.",
    settings=(Setting("close_within", 5, "s", "practice: a later close has other reasons"),
              Setting("survey_servers", 3, "servers", "practice: who closes on so many collects certificates")),
)

TLS13 = 0x0304
CLIENT = "Let this client send its certificate and then the intermediates (the CA's bundle), and connect again."
CLIENT_NEXT = "No capture is needed: --ca-file with the roots of the server says whether they include the issuer."


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Chains with a gap or in the wrong order, refused or not."""
    lists = list(tls.shown(tables, settings))
    occurrences: list[Occurrence] = []
    examined: dict[tuple[str, ...], int] = {}
    undecided = ""
    for item in lists:
        refused = trust.rejected(item)
        if not refused.height and trust.tidy(item):
            continue  # what nobody refuses and fits by name needs no signature check
        verdict = trust.verdict(tables, item)
        refused = trust.telling(verdict, refused)
        if verdict.kind == trust.OPEN and refused.height:
            undecided = f"{tls.servers(item.sessions)}: {trust.UNDECIDED.format(verdict.anchor)}"
        made = list(_occurrences(tables, item, verdict, refused))
        occurrences += made
        for group in {o.group for o in made}:
            examined[group] = examined.get(group, 0) + tls.count(item.sessions)
    if occurrences:
        return found(occurrences, population="handshakes", examined=examined)
    blind = tls.unseen(tables, tls.UNKNOWN_CA).height
    if undecided or (blind and not lists):
        return inconclusive(undecided or f"alert 48 in {tls.many(blind, 'handshake')}, certificates encrypted: "
                            "a gap or an unknown root", PATTERN.next_capture)
    if lists:
        return clear(f"{tls.many(len(lists), 'chain')} in clear: none has a gap that the sender should have filled")
    return tls.unseen_lists(tables, PATTERN.next_capture, *trust.REJECTED)


def _occurrences(tables: Tables, item: tls.Shown, verdict: trust.Verdict,
                 refused: pl.DataFrame) -> Iterator[Occurrence]:
    order = verdict.kind == trust.ORDER
    sessions = refused if refused.height else item.sessions
    if order and not refused.height:
        # RFC 8446 §4.4.2: in TLS 1.3 any order should be taken.
        sessions = sessions.filter(pl.col("version") < TLS13)
    met = verdict.kind in (trust.GAP, trust.ORDER) and item.by == "server"
    if (not refused.height and not met) or verdict.kind not in (trust.GAP, trust.ORDER, trust.LONE_LEAF):
        return  # a server that is content with a client's lone certificate trusts its issuer directly
    contrast = trust.contrast(tables, item)
    top = item.certs[verdict.position]
    confidence = Confidence.PROBABLE
    if verdict.kind == trust.LONE_LEAF:
        confidence = Confidence.SUSPECTED
    elif refused["refusal"].max() not in (None, tls.CLOSED) and not (order and verdict.private):
        confidence = Confidence.CONFIRMED
    severity = Severity.HIGH if refused.height else Severity.LOW if order else Severity.MEDIUM
    sent = tls.many(len(item.certs), "certificate")
    if order:
        what = f"the {sent} of {tls.named(item.leaf)} are in the wrong order"
    else:
        what = (f"{sent} sent for {tls.named(item.leaf)}, and not that of {verdict.anchor}, which issued "
                + ("the leaf" if verdict.position == 0 else tls.named(top)))
    alternatives = []
    if not order:
        alternatives.append(Alternative(
            "the chain is whole and ends at a private root that this peer lacks (TLS-CA-UNKNOWN)",
            "the issuer is in no list of roots used here",
            "the reasons given point to an intermediate" if verdict.kind == trust.GAP else
            "nothing: these packets cannot tell"))
    elif verdict.private:
        alternatives.append(Alternative("the private root is unknown to the peer (TLS-CA-UNKNOWN)",
                                        f"{verdict.anchor} is no public root", "the order is wrong as well"))
    subjects = tls.Subjects()
    for number, session in enumerate(sessions.iter_rows(named=True)):
        answer = tls.answer(session, item.judge)
        yield Occurrence(
            subject=subjects.of(session), group=(item.by, item.leaf.subject, verdict.kind, verdict.anchor),
            summary=f"{session[item.by]}: {what}; {answer}.", confidence=confidence,
            reasons=(*verdict.why, answer, *((contrast,) if contrast else ())),
            evidence=tls.frames(tables, session, {
                **tls.certificate_facts(item.leaf, item.by), "tls.certificates": len(item.certs),
                "x509.issuer.missing": "" if order else verdict.anchor,
                "x509.aia": next(iter(top.aia_issuers), "")}, number),
            scope={f"tls.{item.by}.subject": item.leaf.subject, "destination.ip": session["server"],
                   "destination.port": session["server_port"]},
            flows=(session["flow"],),
            keys=frozenset({f"host:{session[item.by]}", f"cert:{item.leaf.sha256[:16]}"}),
            start_ns=session["start_ns"], end_ns=session["end_ns"], severity=severity,
            title="Certificate chain is sent in the wrong order" if order else "", alternatives=tuple(alternatives),
            mitigation="" if item.by == "server" else CLIENT,
            next_capture=f"No capture is needed: `{probe.command(session)}` from a client's network lists what is "
                         "sent; --ca-file says which roots the clients have."
                         if item.by == "server" else CLIENT_NEXT)
