"""How the certificates of one Certificate message hang together: facts for the chain patterns, no judgement on dates.

Path building is free (RFC 5280 §6, RFC 4158): one chain can hold several paths, and clients differ in which they find.
All paths from the leaf are listed, each with how it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from netdiag.tables.certs import Certificate
from netdiag.tables.roots import Root, Roots, public_key

MAX_CHAIN = 16
"""Certificates of one message that are looked at; real chains have two to five (practice)."""
MAX_PATHS = 16
MAX_VISITS = 256

TRUSTED = "trusted"
MISSING = "missing-issuer"
SELF_SIGNED = "self-signed"


class Path(NamedTuple):
    """One way up from the leaf."""

    certs: tuple[int, ...]
    """Positions in the chain, leaf (0) first."""
    end: str
    """TRUSTED: the last certificate is issued by a known root, or has the name and key of one.
    MISSING: the issuer of the last one was not sent and is no known root.
    SELF_SIGNED: the last one is self-signed and no known root."""
    anchor: str
    """Name of the root, or of the missing issuer, or of the self-signed certificate; RFC 4514 text."""

class ChainFacts(NamedTuple):
    """What the sent certificates are to each other; positions count from 0, the leaf."""

    length: int
    in_order: bool
    """Each certificate certifies the one before it (RFC 5246 §7.4.2; RFC 8446 §4.4.2 makes it SHOULD)."""
    paths: tuple[Path, ...]
    """All paths, trusted ones first, then longer ones first."""
    unused: tuple[int, ...]
    """Certificates on no path from the leaf: from another chain, or copies."""
    issuers: tuple[tuple[int, ...], ...]
    """For each certificate, positions of its issuers among the sent ones (name, key ids and signature fit)."""
    broken: tuple[tuple[int, int], ...]
    """(certificate, other): the other has the issuer's name, but its key id or key does not fit."""
    cross_signed: tuple[int, ...]
    """Certificates that are not self-issued although a known root, or another sent one, has their name and key."""
    root_sent: bool
    """A self-signed CA certificate is among those after the leaf: needless, not wrong (RFC 8446 §4.4.2)."""
    self_signed_leaf: bool
    unreadable: tuple[int, ...]
    """Positions of what is no certificate."""
    roots: str
    """``Roots.source``."""

    @property
    def trusted(self) -> bool:
        """At least one path ends at a known root (dates and usages not looked at)."""
        return any(path.end == TRUSTED for path in self.paths)

    @property
    def missing_issuer(self) -> str | None:
        """Name of the certificate that would complete the best path; None when a path is complete."""
        if not self.paths or any(path.end != MISSING for path in self.paths):
            return None
        return self.paths[0].anchor

    @property
    def missing_for(self) -> int | None:
        """Position of the certificate whose issuer is missing (0: the leaf's own)."""
        return self.paths[0].certs[-1] if self.missing_issuer is not None else None


def analyse(chain: Sequence[Certificate], roots: Roots) -> ChainFacts:
    """Facts of the chain as sent, leaf first. The same chain with the same roots is computed once."""
    return _analyse(tuple(chain), roots)


@lru_cache(maxsize=512)
def _analyse(chain: tuple[Certificate, ...], roots: Roots) -> ChainFacts:
    length = len(chain)
    chain = chain[:MAX_CHAIN]
    keys = tuple(_key(c.der) for c in chain)
    issuers, broken = _links(chain)
    paths = _Walk(chain, keys, issuers, roots).paths()
    used = {i for path in paths for i in path.certs}
    cross = tuple(
        i for i, c in enumerate(chain)
        if i and c.subject_der and not c.self_issued and keys[i]
        and (roots.knows_key(c.subject_der, keys[i])
             or any(j != i and d.subject_der == c.subject_der and keys[j] == keys[i] and d.issuer_der != c.issuer_der
                    for j, d in enumerate(chain)))
    )
    return ChainFacts(
        length=length,
        in_order=all(i + 1 in issuers[i] for i in range(len(chain) - 1)),
        paths=paths,
        unused=tuple(i for i in range(len(chain)) if i not in used),
        issuers=issuers,
        broken=broken,
        cross_signed=cross,
        root_sent=any(c.self_signed for c in chain[1:]),
        self_signed_leaf=bool(chain) and chain[0].self_signed,
        unreadable=tuple(i for i, c in enumerate(chain) if not c.subject_der and not c.issuer_der),
        roots=roots.source,
    )


@lru_cache(maxsize=2048)
def _key(der: bytes) -> bytes:
    from netdiag.decode import x509  # takes long to import, and most captures hold no certificate
    certificate = x509.load(der)
    if certificate is None:
        return b""
    try:
        return public_key(certificate)
    except Exception:  # key types and curves the package does not know
        return b""


def _links(chain: Sequence[Certificate]) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, int], ...]]:
    from netdiag.decode import x509
    issuers: list[tuple[int, ...]] = []
    broken: list[tuple[int, int]] = []
    for i, child in enumerate(chain):
        found = []
        for j, parent in enumerate(chain):
            if i == j or not child.issuer_der or parent.subject_der != child.issuer_der or parent.der == child.der:
                continue
            ids = child.authority_key_id, parent.subject_key_id
            fits = None in ids or ids[0] == ids[1]
            # A signature that cannot be computed (unknown algorithm) leaves name and key id to decide.
            if fits and x509.issued_by(child.der, parent.der) is not False:
                found.append(j)
            else:
                broken.append((i, j))
        issuers.append(tuple(found))
    return tuple(issuers), tuple(broken)


class _Walk:
    """Depth-first search for paths, within MAX_PATHS and MAX_VISITS."""

    def __init__(self, chain: tuple[Certificate, ...], keys: tuple[bytes, ...], issuers: tuple[tuple[int, ...], ...],
                 roots: Roots) -> None:
        self.chain, self.keys, self.issuers, self.roots = chain, keys, issuers, roots
        self.found: dict[tuple[tuple[int, ...], str, str], Path] = {}
        self.visits = 0

    def paths(self) -> tuple[Path, ...]:
        if self.chain and self.chain[0].subject_der:
            self._from((0,))
        return tuple(sorted(self.found.values(), key=lambda p: (p.end != TRUSTED, -len(p.certs))))

    def _add(self, certs: tuple[int, ...], end: str, anchor: str) -> None:
        if len(self.found) < MAX_PATHS:
            self.found.setdefault((certs, end, anchor), Path(certs, end, anchor))

    def _from(self, certs: tuple[int, ...]) -> None:
        self.visits += 1
        if self.visits > MAX_VISITS:
            return
        last = certs[-1]
        cert = self.chain[last]
        if self.roots.knows_key(cert.subject_der, self.keys[last]):
            self._add(certs, TRUSTED, cert.subject)
        if cert.self_signed:
            if not self.roots.knows_key(cert.subject_der, self.keys[last]):
                self._add(certs, SELF_SIGNED, cert.subject)
            return
        root = self._issuing_root(cert)
        if root is not None:
            self._add(certs, TRUSTED, root.subject)
        onward = [j for j in self.issuers[last]
                  if not any(self._same(j, i) for i in certs)]
        for j in onward:
            self._from((*certs, j))
        if not onward and root is None:
            self._add(certs, MISSING, cert.issuer)

    def _same(self, a: int, b: int) -> bool:
        """The same authority twice on a path leads nowhere (RFC 4158 §2.4.1)."""
        return a == b or (self.chain[a].subject_der == self.chain[b].subject_der and self.keys[a] == self.keys[b])

    def _issuing_root(self, cert: Certificate) -> Root | None:
        from netdiag.decode import x509
        for root in self.roots.named(cert.issuer_der):
            if x509.issued_by(cert.der, root.der) is not False:
                return root
        return None
