"""A certificate is used after its notAfter date, and the other side refuses it.

A verifier compares notBefore and notAfter of every certificate on the path with its own clock (RFC 5280 §4.1.2.5,
§6.1.3(a)(2)). A leaf past its date has no way around; an intermediate past its date fails unless the verifier knows
another certificate for the same key. The usual story is not a forgotten renewal but a renewal that was not loaded:
the file on disk is new, the process still shows the old one, on one port or one node of several. Connections that
exist live on, so the failures grow with every reconnect.

**What lifts the suspicion.** The dates alone, with a peer that goes on, are *probable*: it does not verify, and the
fault is latent until a stricter one comes. A refusal (alert 45 certificate_expired, or 42 or 46, RFC 8446 §6.2, or a
close right after the certificates) makes it *confirmed*. Alert 45 in clear in TLS 1.3, where the certificates are
encrypted, is *suspected*: somebody's certificate is past its date by somebody's clock.

**Early warning.** A certificate with less than 14 days and less than 20 % of its lifetime left is told as
information. Either limit alone is wrong: 14 days is always true of six-day certificates, 20 % is 80 days of a 398-day
one.

**What looks alike and is not it.** An expired cross certificate, or one that is on no path, does no harm while
another path holds: whoever refuses it is an old path builder. The dates of a self-signed root
that is sent along do not count (RFC 5280 §6.1: a trust anchor is no part of the path). Alert 45 for a chain without
an expired certificate speaks of an expired root in the client's store, or of its clock. A capture
clock that stands years before the certificates were made cannot judge dates; `--at-time` can.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from netdiag.detectors.tls import _presented as tls
from netdiag.detectors.tls import _probe as probe
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
from netdiag.tables import Tables, chain
from netdiag.tables.certs import Certificate

PATTERN = Pattern(
    id="TLS-CERT-EXPIRED",
    title="Certificate past its end date",
    severity=Severity.CRITICAL,
    cases=(),
    needs=("handshakes", "alerts", "certs"),
    references=(Reference("RFC 5280 §4.1.2.5, §6.1.3(a)(2)"), Reference("RFC 8446 §6.2"),
                Reference("CA/Browser Forum ballot SC-081: lifetimes of 200, 100 and 47 days")),
    filter="tls.handshake.type == 11 || tls.alert_message.desc in {42, 45, 46}",
    mitigation="Install the renewed certificate and reload the process on this address and port; connections that "
               "exist still work, so do not restart what holds many of them.",
    fix="Renew by automation with a hook that reloads every process that uses the certificate: SIP, TURN, EAP and "
        "mail as well as the web server.",
    prevention="Probe the certificate on the wire, on each node and each port; a check of the file proves nothing.",
    next_capture="The same handshake with TLS 1.2, or with a key log (SSLKEYLOGFILE) of the client, shows the dates.",
    settings=(
        Setting("warn_days", 14, "days", "practice"),
        Setting("warn_share", 20, "% of the lifetime", "practice"),
        Setting("close_within", 5, "s", "practice: a later close has other reasons"),
        Setting("survey_servers", 3, "servers", "practice: who closes on so many collects certificates"),
        Setting("clock_days", 365, "days", "practice: no certificate is made so long before it starts"),
    ),
)

REFUSALS = (tls.CERTIFICATE_EXPIRED, tls.BAD_CERTIFICATE, tls.CERTIFICATE_UNKNOWN, tls.CLOSED)

CLIENT = "Install the renewed certificate on this client, and let it connect again."
CLIENT_NEXT = "No capture is needed: the next handshake of this client shows whether it has a new certificate by now."
BEHIND = "the clock of the capture looks wrong: other certificates in it start years later"


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Certificates in use past notAfter, or near it, with what the other side did."""
    lists = list(tls.shown(tables, settings))
    occurrences: list[Occurrence] = []
    examined: dict[tuple[str, ...], int] = {}
    behind = _clock_behind(tables, lists, settings["clock_days"])
    for item in lists:
        at = tables.options.at_ns or int(item.sessions["start_ns"].cast(pl.Int64).to_numpy().max())
        culprit = _expired(tables, item, at)
        made = _past(tables, item, culprit, behind) if culprit else _soon(tables, item, at, settings)
        for occurrence in made:
            if occurrence.group not in examined:
                sha = occurrence.group[1]
                examined[occurrence.group] = tls.count(pl.concat(
                    o.sessions for o in lists if o.by == item.by and any(c.sha256.startswith(sha) for c in o.certs)))
            occurrences.append(occurrence)
    occurrences += _unseen(tables, lists)
    if occurrences:
        return found(occurrences, population="handshakes", examined=examined)
    if behind:
        return inconclusive("the clock of the capture stands years before the certificates were made",
                            "Judge again with --at-time and the real time of the capture.")
    if lists:
        hidden = tls.hidden(tables).height
        return clear(f"{tls.many(len(lists), 'chain')} in clear, each with a path without one past its end date"
                     + (f"; {tls.many(hidden, 'handshake')} with encrypted certificates" if hidden else ""))
    return tls.unseen_lists(tables, PATTERN.next_capture, *REFUSALS)


def _expired(tables: Tables, item: tls.Shown, at: int) -> Certificate | None:
    """The certificate that breaks every path at that time; None when some path holds."""
    certs = item.certs
    if not any(0 < c.not_after_ns < at for c in certs):
        return None
    if 0 < item.leaf.not_after_ns < at:
        return item.leaf
    broken = []
    for path in chain.analyse(certs, tls.known_roots(tables)).paths:
        bad = [i for i in path.certs if not certs[i].self_signed and 0 < certs[i].not_after_ns < at]
        if not bad:
            return None
        broken.append(bad[0])
    first = min(broken, default=0)
    # Above the leaf's own issuer it can be a cross certificate; that somebody found another path shows that it is.
    return None if first == 0 or (first > 1 and item.accepted) else certs[first]


def _past(tables: Tables, item: tls.Shown, cert: Certificate, behind: bool) -> Iterator[Occurrence]:
    asked = tables.options.at_ns is not None
    late = item.sessions if asked else item.sessions.filter(pl.col("start_ns") > cert.not_after_ns)
    refused = late.filter(pl.col("refusal").is_in(REFUSALS) & (pl.col("start_ns") > cert.not_after_ns))
    before = tls.count(item.sessions.filter((pl.col("start_ns") <= cert.not_after_ns) & pl.col("completed")))
    role = "leaf" if cert is item.leaf else "intermediate"
    who = tls.servers(late) if item.by == "server" else "client " + ", ".join(late["client"].unique().sort().head(4))
    subjects = tls.Subjects()
    for number, session in enumerate((refused if refused.height else late).iter_rows(named=True)):
        at = tables.options.at_ns or session["start_ns"]
        days = (at - cert.not_after_ns) / tls.DAY_NS
        done = tls.answer(session, item.judge)
        confidence = Confidence.CONFIRMED if refused.height and not behind else Confidence.PROBABLE
        reasons = [f"notAfter of the {role} is {tls.date(cert.not_after_ns)}, {_days(days)} days before "
                   + ("the given time" if asked else "the handshake"), done]
        if before:
            reasons.append(f"completed with the same chain before that date: {tls.many(before, 'handshake')}")
        if not refused.height and session["refusal"] is None and not session["unused"]:
            reasons.append("latent: it will fail with the first peer that verifies" if item.by == "server" else
                           "latent, or refused above TLS: web servers such as nginx answer with status 400")
        severity = Severity.HIGH if item.by == "client" else Severity.CRITICAL
        yield Occurrence(
            subject=subjects.of(session), group=(item.by, cert.sha256[:16]),
            summary=f"The {role} certificate {tls.named(cert)} sent by {who} expired {_days(days)} days before, "
                    f"and {done}.",
            confidence=confidence, reasons=tuple(reasons),
            evidence=tls.frames(tables, session, {**tls.certificate_facts(cert, item.by),
                                                  f"tls.{item.by}.not_after": tls.date(cert.not_after_ns)}, number),
            scope=_scope(cert, item.by, session), flows=(session["flow"],),
            keys=frozenset({f"host:{session[item.by]}", f"cert:{cert.sha256[:16]}"}),
            start_ns=session["start_ns"], end_ns=session["end_ns"],
            severity=severity if refused.height else Severity.MEDIUM,
            title=("Client certificate" if item.by == "client" else
                   "Certificate" if role == "leaf" else "Intermediate certificate") + " past its end date",
            limitations=(BEHIND,) if behind else (), clock=not asked,
            alternatives=(Alternative(
                "the clock of the capturing host is ahead", "dates are compared with packet times",
                "the other side refused as well" if refused.height else "no peer refused it for its date"),),
            mitigation=CLIENT if item.by == "client" else "",
            next_capture=_next(session) if item.by == "server" else CLIENT_NEXT)


def _soon(tables: Tables, item: tls.Shown, at: int, settings: dict[str, float]) -> Iterator[Occurrence]:
    """A warning for a certificate of the chain that will soon be past its date."""
    for cert in item.certs:
        left, life = cert.not_after_ns - at, cert.not_after_ns - cert.not_before_ns
        limit = min(settings["warn_days"] * tls.DAY_NS, settings["warn_share"] / 100 * life)
        if (cert.self_signed and cert is not item.leaf) or not 0 <= left < limit:
            continue
        subjects = tls.Subjects()
        for number, session in enumerate(item.sessions.iter_rows(named=True)):
            yield Occurrence(
                subject=subjects.of(session), group=(item.by, cert.sha256[:16]),
                summary=f"The certificate {tls.named(cert)} sent by {session[item.by]} ends in "
                    f"{_days(left / tls.DAY_NS)} days.",
                confidence=Confidence.PROBABLE,
                reasons=(f"notAfter is {tls.date(cert.not_after_ns)}: {_days(left / tls.DAY_NS)} of "
                         f"{life / tls.DAY_NS:.0f} days are left", "nothing has failed because of it"),
                evidence=tls.frames(tables, session | {"refusal": None}, tls.certificate_facts(cert, item.by), number),
                scope=_scope(cert, item.by, session), flows=(session["flow"],),
                keys=frozenset({f"cert:{cert.sha256[:16]}"}), start_ns=session["start_ns"], end_ns=session["end_ns"],
                severity=Severity.INFO, title="Certificate will expire soon",
                next_capture=_next(session) if item.by == "server" else CLIENT_NEXT)


def _unseen(tables: Tables, lists: list[tls.Shown]) -> Iterator[Occurrence]:
    """Alert 45 about certificates that cannot be read, unless that server shows others what it has."""
    blind = tls.unseen(tables, tls.CERTIFICATE_EXPIRED)
    known = tls.showing(lists) if blind.height else set()
    subjects = tls.Subjects()
    for number, session in enumerate(blind.iter_rows(named=True)):
        by_client = session["judge"] == "client"
        if by_client and (session["server"], session["server_port"]) in known:
            continue
        whose = "server" if by_client else "client"
        yield Occurrence(
            subject=subjects.of(session), group=("unseen", whose, session["server"], str(session["server_port"])),
            summary=f"The {session['judge']} says that a certificate of the {whose} {session[whose]} has expired "
                    "(alert 45); the certificates are encrypted.",
            confidence=Confidence.SUSPECTED,
            reasons=("alert 45 certificate_expired in clear", "TLS 1.3: no certificate is visible without keys"),
            evidence=tls.frames(tables, session, {"tls.alert": "certificate_expired"}, number),
            scope={"destination.ip": session["server"], "destination.port": session["server_port"]},
            flows=(session["flow"],), keys=frozenset({f"host:{session[whose]}"}), severity=Severity.HIGH,
            start_ns=session["start_ns"], end_ns=session["end_ns"],
            alternatives=(
                Alternative(f"the clock of the {session['judge']} is wrong", "only its own clock decided",
                            "not visible in these packets"),
                Alternative("an expired root or cross certificate on the path it chose",
                            "path building is the verifier's", "other clients of the server would be served")))


def _next(session: dict[str, object]) -> str:
    return f"No capture is needed: `{probe.command(session)}` shows whether that port sends a new certificate by now."


def _days(days: float) -> str:
    """Whole days from 30 up, tenths below (practice)."""
    return str(int(days)) if days >= 30 else f"{days:.1f}"


def _clock_behind(tables: Tables, lists: list[tls.Shown], days: float) -> bool:
    """Do most leaves start long after the packet that carries them? Then the packet's time is wrong."""
    if tables.options.at_ns is not None or not lists:
        return False
    future = [o.leaf.not_before_ns > int(o.sessions["start_ns"][0]) + days * tls.DAY_NS for o in lists]
    return sum(future) * 2 >= len(future)


def _scope(cert: Certificate, by: str, session: dict[str, object]) -> dict[str, str | int | float]:
    return {f"tls.{by}.subject": cert.subject, f"tls.{by}.not_after": tls.date(cert.not_after_ns),
            "destination.ip": str(session["server"]), "destination.port": int(str(session["server_port"]))}
