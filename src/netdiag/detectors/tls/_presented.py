"""Lists of certificates as servers and clients showed them in clear, and what the other side did about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from netdiag.model import Detection, Evidence, clear, inconclusive, not_applicable
from netdiag.tables import Tables, roots
from netdiag.tables.certs import Certificate
from netdiag.tables.roots import Roots
from netdiag.tables.schema import rows

BAD_CERTIFICATE, CERTIFICATE_EXPIRED, CERTIFICATE_UNKNOWN, UNKNOWN_CA = 42, 45, 46, 48
"""RFC 8446 §6.2."""
CLOSED = -1
"""Not an alert: the other side closed the connection right after the certificates."""
NAMES = {40: "handshake_failure", 42: "bad_certificate", 43: "unsupported_certificate", 44: "certificate_revoked",
         45: "certificate_expired", 46: "certificate_unknown", 47: "illegal_parameter", 48: "unknown_ca",
         70: "protocol_version", 86: "inappropriate_fallback"}
"""RFC 8446 §6, RFC 7507 §2."""
DETAILED = 200
"""Occurrences of one fault that carry frames of their own; the rest is counted (practice)."""
DAY_NS = 86_400 * 10**9

_KEPT = ("handshake", "connection", "flow", "point", "client", "client_port", "server", "server_port", "start_ns",
         "end_ns", "sni", "version", "session", "alert", "alert_packet", "close_packet", "completed", "starttls")
SESSION = pl.when(pl.col("client_random") == "").then(pl.format("{}:{}", "point", "handshake")).otherwise(
    pl.col("client_random")).alias("session")
"""The same at every capture point: a device that does not terminate TLS passes the random on."""


class Shown(NamedTuple):
    """One list of certificates, leaf first, and the handshakes in which one side sent it."""

    by: str
    """"server" or "client": who sent it. The other side judges it."""
    certs: tuple[Certificate, ...]
    sessions: pl.DataFrame
    """Columns of ``shown``."""

    @property
    def judge(self) -> str:
        return "client" if self.by == "server" else "server"

    @property
    def leaf(self) -> Certificate:
        return self.certs[0]

    def refused(self, *reasons: int) -> pl.DataFrame:
        """Sessions that ended with one of these alerts of the other side, or with CLOSED."""
        if self.sessions["refusal"].null_count() == self.sessions.height:
            return self.sessions.clear()
        return self.sessions.filter(pl.col("refusal").is_in(reasons))

    @property
    def accepted(self) -> int:
        """Distinct sessions that were completed, used and not refused: in TLS 1.3 a server can complete and refuse."""
        return count(self.sessions.filter(pl.col("completed") & ~pl.col("unused") & pl.col("refusal").is_null()))

    @property
    def unused(self) -> int:
        """Distinct sessions that the other side completed and closed without data."""
        return count(self.sessions.filter("unused"))

    def valid(self, at_ns: int) -> bool:
        """Are all certificates within their dates?"""
        return all(c.not_before_ns <= at_ns <= c.not_after_ns for c in self.certs)

    def names_fit(self, sni: str | None) -> bool:
        """A refused name has reasons of its own (a name mismatch is no pattern here)."""
        return self.by == "client" or not sni or self.leaf.covers(sni)


def known_roots(tables: Tables) -> Roots:
    """Roots that count as trusted: those of ``--ca-file``, else the public list."""
    return roots.load(tables.options.ca_file)


def count(sessions: pl.DataFrame) -> int:
    """Distinct handshakes: one seen at two points is one."""
    return sessions["session"].n_unique()


def shown(tables: Tables, settings: Mapping[str, float]) -> Iterator[Shown]:
    """Each distinct list of certificates in clear, with its sessions and two more columns.

    ``packet`` is the packet row with the end of the Certificate message. ``refusal`` is the alert with which the
    other side answered, CLOSED when it closed without a word within ``close_within`` seconds, else null. Who does
    that to ``survey_servers`` servers or more collects certificates and refuses none. ``unused``: it completed the
    handshake and closed without data, as health checks do, and programs that verify only then (Node.js).
    """
    handshakes = tables.handshakes.with_columns(SESSION)
    known: dict[int, Certificate] = {}
    for by in ("server", "client"):
        column, packet = ("certificates", "certificate_packet") if by == "server" else \
            ("client_certificates", "client_certificate_packet")
        some = handshakes.filter((pl.col(column).list.len() > 0) & pl.col(packet).is_not_null())
        if not some.height:
            continue
        if not known:
            known = {c.cert: c for c in rows(tables.certs, Certificate)}
        some = some.with_columns(pl.col(packet).alias("packet"), _waited(tables, some, packet))
        judge = "client" if by == "server" else "server"
        some = some.with_columns(
            _refusal(judge, settings).alias("refusal"),
            unused=pl.col("completed") & ~pl.col("application_data") & (pl.col("closed_by") == judge).fill_null(False))
        key = some[column].cast(pl.List(pl.String)).list.join(",").alias("key")
        some = some.with_columns(key).sort("key", maintain_order=True)
        first = some["key"].rle_id().search_sorted(pl.arange(0, some["key"].n_unique(), eager=True)).to_list()
        chains, sessions = some[column], some.select(*_KEPT, "packet", "refusal", "unused")
        for a, b in zip(first, [*first[1:], some.height], strict=True):
            # Some servers send a certificate twice; every client passes over the second.
            yield Shown(by, tuple(known[n] for n in dict.fromkeys(chains[a].to_list())), sessions[a:b])


def _waited(tables: Tables, some: pl.DataFrame, packet: str) -> pl.Series:
    """Seconds from the client's Certificate to the close; the server's is in the table already."""
    if packet == "certificate_packet":
        return some["close_after_certificate_s"].alias("waited")
    ts = tables.packets.ts
    closes = some["close_packet"].fill_null(0).to_numpy()
    seconds = (ts[closes] - ts[some[packet].to_numpy()]) / 1e9
    known = some["close_packet"].is_not_null().to_numpy()
    return pl.Series("waited", np.where(known, seconds, np.nan)).fill_nan(None)


def _refusal(judge: str, settings: Mapping[str, float]) -> pl.Expr:
    alert = (pl.col("alert_by") == judge) & pl.col("alert").is_not_null() & (pl.col("alert_packet") >= pl.col("packet"))
    before = (pl.col("alert_packet") <= pl.col("close_packet")).fill_null(False)  # later ones complain of the close
    silent = ((pl.col("closed_by") == judge) & ~before & ~pl.col("completed") & ~pl.col("truncated")
              & pl.col("waited").is_between(0, settings["close_within"]))
    silent &= pl.col("server").filter(silent).n_unique().over("client") < settings["survey_servers"]
    return pl.when(alert).then(pl.col("alert").cast(pl.Int16)).when(silent).then(pl.lit(CLOSED, pl.Int16))


def unseen(tables: Tables, alert: int) -> pl.DataFrame:
    """Handshakes that this alert ended although the certificates it judges are not visible (TLS 1.3 without keys).

    ``judge`` is the side that sent the alert, ``packet`` its row."""
    by_client = (pl.col("alert_by") == "client") & (pl.col("certificates").list.len() == 0)
    by_server = ((pl.col("alert_by") == "server") & (pl.col("client_certificates").list.len() == 0)
                 & (pl.col("version") >= 0x0304))
    found = tables.handshakes.filter((pl.col("alert") == alert) & (by_client | by_server)
                                     & pl.col("server_hello_packet").is_not_null())
    return found.with_columns(SESSION).select(
        *_KEPT, pl.col("alert_by").alias("judge"), pl.col("alert_packet").alias("packet"),
        pl.col("alert").cast(pl.Int16).alias("refusal"))


def showing(lists: Iterable[Shown]) -> set[tuple[str, int]]:
    """Servers (address, port) that showed somebody their certificates."""
    return {(address, port) for item in lists if item.by == "server"
            for address, port in item.sessions.select("server", "server_port").iter_rows()}


def hidden(tables: Tables) -> pl.DataFrame:
    """Handshakes that went past ServerHello, were not resumed, and show no certificate."""
    return tables.handshakes.filter(pl.col("server_hello_packet").is_not_null() & ~pl.col("resumed")
                                    & (pl.col("certificates").list.len() == 0))


def unseen_lists(tables: Tables, next_capture: str, *alerts: int) -> Detection:
    """The outcome where no certificate is in clear. ``alerts`` are those that can be about this pattern.

    Where data follows the handshake the peers took the certificates, and another alert in clear names another fault.
    """
    every = hidden(tables)
    if not every.height:
        return not_applicable("no handshake with certificates")
    used = pl.col("completed") & pl.col("application_data")
    untold = every.filter(~used & (pl.col("alert").is_null() | pl.col("alert").is_in(alerts))).height
    if untold:
        return inconclusive(f"{many(untold, 'handshake')}, certificates encrypted", next_capture)
    return clear(f"{many(every.height, 'handshake')}, certificates encrypted; no peer refused them for this")


class Subjects:
    """Text for a session that is the same at every capture point, whatever addresses NAT gave it there."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def of(self, session: dict[str, object]) -> str:
        own = f"{session['client']}:{session['client_port']} → {session['server']}:{session['server_port']}"
        return self._first.setdefault(str(session["session"]), own)


def frames(tables: Tables, session: dict[str, object], facts: dict[str, str | int | float],
           number: int) -> tuple[Evidence, ...]:
    """The certificates and what ended the handshake; nothing for those beyond ``DETAILED``."""
    if number >= DETAILED:
        return ()
    packets = [session["packet"]]
    if session["refusal"] is not None:
        packets.append(session["close_packet"] if session["refusal"] == CLOSED else session["alert_packet"])
    return tables.evidence([p for p in packets if isinstance(p, int)], facts)


def answer(session: Mapping[str, object], judge: str) -> str:
    """What the other side did, in words."""
    refusal = session["refusal"]
    if refusal is None and session.get("unused"):
        return f"the {judge} completed the handshake and closed without data"
    if refusal is None:
        return f"the {judge} did not object" + ("" if judge == "client" else " in the handshake")
    if refusal == CLOSED:
        return f"the {judge} closed right after the certificates, without an alert"
    return f"the {judge} answered with alert {refusal} ({NAMES.get(int(str(refusal)), 'unnamed')})"


def many(number: int, noun: str) -> str:
    """1 handshake, 2 handshakes."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def named(cert: Certificate) -> str:
    """Short name of a certificate: the first host name, else the common name, else the whole subject."""
    return next(iter(cert.san_dns), None) or cert.common_name or cert.subject or "(no name)"


def certificate_facts(cert: Certificate, by: str) -> dict[str, str | int | float]:
    """ECS names."""
    return {f"tls.{by}.subject": cert.subject, f"tls.{by}.issuer": cert.issuer,
            "x509.serial_number": cert.serial, f"tls.{by}.hash.sha256": cert.sha256}


def servers(sessions: pl.DataFrame) -> str:
    """Addresses and ports in a few words."""
    ends = sessions.select("server", "server_port").unique(maintain_order=True).head(4).rows()
    more = sessions.select("server", "server_port").n_unique() - len(ends)
    text = ", ".join(f"{a}:{p}" for a, p in ends) + (f" and {more} more" if more > 0 else "")
    return text + (" (a proxy; the certificate is of a server behind it)" if "http" in sessions["starttls"] else "")


def date(ns: int) -> str:
    """UTC, to the second."""
    return str(np.datetime64(ns, "ns").astype("datetime64[s]")).replace("T", " ") + " UTC"
