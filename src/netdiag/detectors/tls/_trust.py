"""What is wrong with a list of certificates apart from dates and names: a gap, the order, or the root at its end.

The same alert 48 has two cures: the server must send what is missing, or the client must learn a root. This module
tells them apart from what was sent, and says when that cannot be done.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from netdiag.detectors.tls import _presented as tls
from netdiag.tables import Tables, chain, roots
from netdiag.tables.certs import Certificate
from netdiag.tables.schema import rows

COMPLETE = "complete"
"""Reaches a root that counts as known."""
ORDER = "order"
"""All is there, but a certificate does not certify the one before it."""
GAP = "gap"
"""The issuer of a certificate is not sent, and is no root as far as anything shows."""
LONE_LEAF = "lone leaf"
"""Only the leaf is sent: an intermediate is missing, or a root unknown here signs leaves itself."""
OPEN = "open end"
"""Leaf and intermediates; the issuer of the last one is a root unknown here, or one more intermediate is missing."""
PRIVATE = "private"
"""Complete up to a root that does not count as known."""
SELF_SIGNED = "self-signed"
"""The leaf vouches for itself."""

REJECTED = (tls.UNKNOWN_CA, tls.BAD_CERTIFICATE, tls.CERTIFICATE_UNKNOWN, tls.CLOSED)
"""Answers that can be about trust (RFC 8446 §6.2); only the first always is."""
UNDECIDED = "the issuer {} is a root unknown here, or an intermediate that is missing"


class Verdict(NamedTuple):
    """What kind of chain it is, and why that is so."""

    kind: str
    anchor: str
    """Name of the root it ends at, or of the issuer that is missing."""
    position: int
    """Of the certificate whose issuer is missing; 0 is the leaf."""
    why: tuple[str, ...]
    private: bool
    """It ends at a root that does not count as known (for ORDER)."""
    crossed: bool
    """A cross certificate is among those sent."""


def verdict(tables: Tables, item: tls.Shown) -> Verdict:
    """Judges the certificates of ``item``; looks at all other certificates of the captures for the missing one."""
    known = tls.known_roots(tables)
    facts = chain.analyse(item.certs, known)
    crossed = bool(facts.cross_signed)
    if facts.self_signed_leaf and not facts.trusted:
        return Verdict(SELF_SIGNED, item.leaf.subject, 0, ("the leaf is signed with its own key",), True, crossed)
    whole = [p for p in facts.paths if p.end == chain.TRUSTED]
    whole = whole or [p for p in facts.paths if p.end == chain.SELF_SIGNED]
    if whole:
        private = whole[0].end == chain.SELF_SIGNED
        if all(p.certs != tuple(range(len(p.certs))) for p in whole):
            order = " → ".join(str(i + 1) for i in whole[0].certs)
            return Verdict(ORDER, whole[0].anchor, 0, (
                f"the path from the leaf upwards is certificate {order} of those sent",), private, crossed)
        if not private:
            return Verdict(COMPLETE, whole[0].anchor, 0, (
                f"complete up to a known root ({known.source})",), False, crossed)
        return Verdict(PRIVATE, whole[0].anchor, 0, (
            f"complete up to its own root, which is not in {known.source}",), True, crossed)
    position, anchor = facts.missing_for, facts.missing_issuer
    if position is None or anchor is None:
        return Verdict(OPEN, item.leaf.issuer, 0, ("the certificates cannot be read",), True, crossed)
    top = item.certs[position]
    parent = _elsewhere(tables, top, known)
    if parent is not None and parent.self_signed:
        return Verdict(PRIVATE, anchor, position, (
            "complete but for its root, which another list in the capture shows to be self-signed",), True, crossed)
    if known.public is False and roots.load().named(top.issuer_der):
        return Verdict(PRIVATE, anchor, position, (
            f"complete up to a public root, which is not in {known.source}",), True, crossed)
    why = []
    if parent is not None:
        why.append("the capture shows the missing certificate in another list, and it is no root")
    if position == 0 and any(url.lower().startswith("http") for url in top.aia_issuers):
        # A root needs no such address: who trusts it has it. Directories (ldap:) of private CAs still name one.
        why.append("the leaf says where its issuer's certificate can be fetched (AIA caIssuers)")
    # Behind leaf and issuer, a foreign certificate is litter; behind the leaf it stands where the issuer should.
    strays = [item.certs[i] for i in facts.unused if item.certs[i].is_ca] if position == 0 else []
    if strays:
        why.append(f"a CA certificate that belongs to another chain is sent: {tls.named(strays[0])}")
    if why:
        return Verdict(GAP, anchor, position, tuple(why), False, crossed)
    return Verdict(OPEN if position else LONE_LEAF, anchor, position, (
        f"its issuer is neither sent nor in {known.source}",), True, crossed)


def _elsewhere(tables: Tables, cert: Certificate, known: roots.Roots) -> Certificate | None:
    """The issuer of that certificate, where another handshake of the captures shows it."""
    others = tables.certs.filter((pl.col("subject_der") == cert.issuer_der) & (pl.col("sha256") != cert.sha256))
    for other in rows(others.head(chain.MAX_CHAIN), Certificate):
        if 1 in chain.analyse((cert, other), known).issuers[0]:
            return other
    return None


def tidy(item: tls.Shown) -> bool:
    """Does each certificate, by name and key identifier, certify the one before? Such a list has no gap to find."""
    pairs = list(zip(item.certs, item.certs[1:], strict=False))
    return bool(pairs) and all(a.issuer_der == b.subject_der and (
        None in (a.authority_key_id, b.subject_key_id) or a.authority_key_id == b.subject_key_id) for a, b in pairs)


def rejected(item: tls.Shown) -> pl.DataFrame:
    """Sessions whose end is about trust: alert 48, or a vaguer answer that dates and names do not explain."""
    sessions = item.refused(*REJECTED)
    if not sessions.height:
        return sessions
    keep = [s["refusal"] == tls.UNKNOWN_CA or (item.valid(s["start_ns"]) and item.names_fit(s["sni"]))
            for s in sessions.iter_rows(named=True)]
    return sessions.filter(pl.Series(keep, dtype=pl.Boolean))


def telling(verdict: Verdict, refused: pl.DataFrame) -> pl.DataFrame:
    """Those of the refusals that say something about this kind of chain.

    A known root is only refused by name; where root and gap cannot be told apart, a close without a word says nothing.
    """
    if verdict.kind == COMPLETE:
        return refused.filter(pl.col("refusal") == tls.UNKNOWN_CA)
    if verdict.kind in (LONE_LEAF, OPEN):
        return refused.filter(pl.col("refusal") != tls.CLOSED)
    return refused


def contrast(tables: Tables, item: tls.Shown) -> str:
    """Peers that took the same certificates, or completed TLS 1.3 with the same server; "" when there are none."""
    out = []
    if item.accepted:
        out.append(f"completed with the same certificates: {tls.many(item.accepted, 'handshake')}")
    if item.by == "server":
        ends = item.sessions.select("server", "server_port").unique()
        same = tables.handshakes.with_columns(tls.SESSION).join(ends, on=["server", "server_port"], how="semi")
        hidden = same.filter(pl.col("completed") & (pl.col("certificates").list.len() == 0) & ~pl.col("resumed"))
        if hidden.height:
            out.append("completed with the same server, certificates encrypted: "
                       + tls.many(tls.count(hidden), "handshake"))
    return ", ".join(out)
