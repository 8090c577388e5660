"""Client and server have no TLS version in common, so the handshake ends right after the first hello.

The client offers versions (supported_versions, before TLS 1.3 the single field legacy_version, RFC 8446 §4.2.1), the
server picks one or says protocol_version (alert 70, §6.2). After a hardening the server's floor lies above what old
phones and terminals offer; the other way round a new client will not speak what an old server has. Some stacks say 40
instead, some just close.

**What lifts the suspicion.** Alert 70 names the fault: *confirmed*. Alert 40 or a close or reset right after the
ClientHello is *probable* where the highest version offered lies below the lowest that this server accepted from
others in the same capture (or the lowest above the highest). That others got TLS 1.3 does not say that 1.2 is off, so a
client of 1.2 needs alert 70. Two more signs of the same trouble: alert 86
inappropriate_fallback (RFC 7507 §3: the client tried lower without need, *confirmed*), and a client that aborts with
47 because ServerHello carries the mark of a server that could do better (RFC 8446 §4.1.3, *confirmed*). A client that
fails, and at once succeeds with a lower version where nobody succeeds with the higher, has met a server or a box on
the path that cannot bear the higher offer: *suspected*, from the second time on *probable*.

**What looks alike and is not it.** Version 1.0 in the record header and 1.2 in the hello are normal for TLS 1.3 (RFC
8446 §5.1, §4.1.2). Alert 40 within a common version is about ciphers, after a CertificateRequest about certificates.
Alert 70 from the client without a ServerHello answers clear text. A scanner offers one server many versions in a short
time and fails by design, and HAProxy's `ssl-hello-chk` offers SSL 3.0 and is content with an alert.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from netdiag.detectors.tls import _presented as tls
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
    not_applicable,
)
from netdiag.tables import Tables

PATTERN = Pattern(
    id="TLS-VERSION-MISMATCH",
    title="No TLS version in common",
    severity=Severity.HIGH,
    cases=(),
    needs=("handshakes", "alerts"),
    references=(Reference("RFC 8446 §4.1.3, §4.2.1, §6.2, App. D"), Reference("RFC 7507"), Reference("RFC 8996")),
    filter="tls.handshake.type in {1, 2} || tls.alert_message.desc in {40, 47, 70, 86}",
    mitigation="Give the old clients a listener of their own with the old version, reachable from their network only.",
    fix="Update the firmware or the crypto policy of the clients that offer too little (or of the server that has too "
        "little); TLS 1.0 and 1.1 are not to be switched on again (RFC 8996).",
    prevention="Before a hardening, list from captures which versions each client family offers.",
    next_capture="The same client against a server that takes all versions: does it succeed, and with which?",
    settings=(
        Setting("close_within", 5, "s", "practice: a later close has other reasons"),
        Setting("retry_within", 10, "s", "practice: a fallback follows at once"),
        Setting("sweep_versions", 3, "versions", "practice: who offers so many to one server scans it"),
        Setting("sweep_window", 60, "s", "practice: a longer pause ends a scan"),
    ),
)

HANDSHAKE_FAILURE, ILLEGAL_PARAMETER, PROTOCOL_VERSION, INAPPROPRIATE_FALLBACK = 40, 47, 70, 86
"""RFC 8446 §6.2; RFC 7507 §2."""
SSL30, TLS12 = 0x0300, 0x0303
HAPROXY_CHECK = (b"HAPROXYSSLCHK\n" * 2).hex()
"""Random of the SSL 3.0 hello of HAProxy's option ssl-hello-chk, for which an alert is as good as ServerHello."""
NAMES = {0x0200: "SSL 2.0", 0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2",
         0x0304: "TLS 1.3"}

NEWER = "Switch a version that this client offers on at the server, or put a proxy in front of it that has one."
DO_NOW = {
    "downgrade": "Find what stands between the two (inspecting proxy, load balancer) and lowers the version; take this "
                 "client past it.",
    "fallback": "Find why the client's first try failed: that failure, and not the version, is the fault.",
    "intolerant": "Set the highest version of this client, or of the server, to the one that works, until the box that "
                  "cannot bear the higher offer is updated."}
"""What helps at once where the server does not simply want more than the client has."""
PEER = ("point", "client", "server", "server_port")
SERVER = ("server", "server_port")
BURST = (*PEER, "burst")
"""Tries of one client at one server with no long pause between them."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Handshakes that ended for their version."""
    hellos = tables.handshakes.filter(pl.col("client_hello_packet").is_not_null()
                                      & pl.col("client_max_version").is_not_null())
    if not hellos.height:
        return not_applicable("no ClientHello")
    hellos = _marked(tables, _unanswered(hellos.with_columns(tls.SESSION)), settings)
    met = hellos.filter(pl.col("kind").is_not_null() & ~pl.col("swept"))
    if not met.height:
        ended, offered = hellos.filter(pl.col("ended") & ~pl.col("swept")), pl.col("client_max_version")
        for open_, what in (
                (ended.filter((offered < TLS12) & pl.col("floor").is_null()), "nothing above TLS 1.1 (RFC 8996) ended "
                 "at once, and nothing shows which versions the server accepts"),
                (ended.filter(offered < pl.col("floor")), "TLS 1.2 at most ended at once where others got TLS 1.3: the "
                 "server lacks TLS 1.2, or a cipher suite of theirs")):
            if open_.height:
                number = tls.many(open_["session"].n_unique(), "ClientHello")
                return inconclusive(f"{number} with {what}", PATTERN.next_capture)
        return clear(f"{tls.many(hellos['session'].n_unique(), 'ClientHello')}, none refused for its version" + (
            f" as far as the packets say; {ended['session'].n_unique()} ended at once" if ended.height else ""))
    occurrences = list(_occurrences(tables, hellos, met))
    counts = hellos.group_by(SERVER).agg(pl.col("session").n_unique())
    examined = {(s, str(p)): n for s, p, n in counts.iter_rows()}
    return found(occurrences, population="handshakes",
                 examined={o.group: examined[o.group[0], o.group[1]] for o in occurrences})


def _unanswered(hellos: pl.DataFrame) -> pl.DataFrame:
    """Without the alerts that a client sends when the server has closed already: OpenSSL says decode_error then."""
    late = ((pl.col("alert_by") == "client") & (pl.col("closed_by") == "server")
            & (pl.col("alert_packet") > pl.col("close_packet"))).fill_null(False)
    return hellos.with_columns(pl.when(~late).then(n).alias(n) for n in ("alert", "alert_packet", "alert_by"))


def _marked(tables: Tables, hellos: pl.DataFrame, settings: dict[str, float]) -> pl.DataFrame:
    """Adds ``floor`` and ``ceiling`` (versions the server accepted), ``kind`` of failure or null, and ``swept``."""
    ts = tables.packets.ts
    closes = hellos["close_packet"].fill_null(0).to_numpy()
    after = pl.Series("after", (ts[closes] - hellos["start_ns"].to_numpy()) / 1e9)
    hellos = hellos.with_columns(
        after, pl.col("client_versions").list.min().alias("lowest"),
        *(getattr(pl.col("version").filter(pl.col("completed")), how)().over(SERVER).alias(name)
          for how, name in (("min", "floor"), ("max", "ceiling"))),
        pl.col("client_max_version").filter(pl.col("completed")).max().over(SERVER).alias("borne"),
    ).sort("point", "start_ns", "handshake")
    offered, alert, silent = pl.col("client_max_version"), pl.col("alert"), pl.col("server_hello_packet").is_null()
    closed = ((pl.col("closed_by") == "server") & pl.col("alert_packet").is_null() & ~pl.col("truncated")
              & pl.col("after").is_between(0, settings["close_within"]))
    by_server, by_client = pl.col("alert_by") == "server", pl.col("alert_by") == "client"
    ended = silent & ((by_server & (alert == HANDSHAKE_FAILURE)) | closed)
    # Who picks 1.3 from an offer of both may know 1.2 as well.
    apart = ((offered < pl.col("floor")) & (offered < TLS12)) | (pl.col("lowest") > pl.col("ceiling"))
    pause = (pl.col("start_ns").diff() > settings["sweep_window"] * 1e9).fill_null(False)
    hellos = hellos.with_columns(ended.alias("ended"), pause.cast(pl.Int32).cum_sum().over(PEER).alias("burst"))
    again = (_then(1, settings) | _then(2, settings)) & (offered > pl.col("borne"))  # so it completed with less
    kind = (pl.when(alert.eq(PROTOCOL_VERSION) & ((by_server & silent) | (by_client & ~silent))).then(pl.lit("refused"))
            .when((alert == INAPPROPRIATE_FALLBACK) & by_server).then(pl.lit("fallback"))
            .when((alert == ILLEGAL_PARAMETER) & by_client & pl.col("downgrade_sentinel").is_not_null()
                  & (offered > pl.col("version"))).then(pl.lit("downgrade"))
            .when(pl.col("ended") & apart).then(pl.lit("apart"))
            .when(pl.col("ended") & again).then(pl.lit("intolerant")))
    return hellos.with_columns(kind.alias("kind"), _swept(settings).alias("swept"))


def _then(steps: int, settings: dict[str, float]) -> pl.Expr:
    """Did a try of the same client complete soon after?"""
    completed, start = (pl.col(n).shift(-steps).over(PEER) for n in ("completed", "start_ns"))
    return (completed & (start - pl.col("start_ns") <= settings["retry_within"] * 1e9)).fill_null(False)


def _swept(settings: dict[str, float]) -> pl.Expr:
    """Does the client scan this server? In order of time, a fallback goes down only, and only after failures."""
    offered = pl.col("client_max_version").cast(pl.Int32)
    many = pl.col("client_max_version").n_unique().over(BURST) >= settings["sweep_versions"]
    step = offered.diff()
    needless = ((step > 0) | ((step < 0) & pl.col("completed").shift(1))).fill_null(False).any().over(BURST)
    sweep = many & needless & ~pl.col("application_data").any().over(BURST)
    lone = (offered <= SSL30) & ((offered <= SSL30).sum().over(PEER) < 2)  # one SSL 3.0 hello is a probe
    return sweep | lone | pl.col("client_random").str.ends_with(HAPROXY_CHECK)


def _occurrences(tables: Tables, hellos: pl.DataFrame, met: pl.DataFrame) -> Iterator[Occurrence]:
    known = hellos.filter("completed", pl.col("version").is_not_null())  # without its ServerHello it has no version
    accepted = {(s, p): sorted(v) for s, p, v in known.group_by(SERVER).agg(
        pl.col("version").unique()).iter_rows()}
    repeated = met.filter(pl.col("kind") == "intolerant").group_by(SERVER).agg(pl.col("session").n_unique())
    times = {(s, p): n for s, p, n in repeated.iter_rows()}
    subjects = tls.Subjects()
    for number, h in enumerate(met.iter_rows(named=True)):
        where = h["server"], h["server_port"]
        others = ", ".join(_name(v) for v in accepted.get(where, ()) if v is not None)
        offer = "–".join(dict.fromkeys(
            _name(v) for v in ((h["lowest"],) if h["lowest"] is not None else ()) + (h["client_max_version"],)))
        kind, what = h["kind"], _ended(h)
        confidence, why = _grade(kind, h, times.get(where, 0))
        foreign = _foreign(tables, h)
        alternatives = [Alternative("a device on the path ended it", foreign, "nothing here")] if foreign else []
        if kind == "apart":
            alternatives.insert(0, Alternative("no cipher suite in common",
                                               "old clients offer old suites too", "the versions are apart already"))
        packets = [h["client_hello_packet"], h["server_hello_packet"],
                   h["close_packet"] if h["alert_packet"] is None else h["alert_packet"]]
        yield Occurrence(
            subject=subjects.of(h), group=(h["server"], str(h["server_port"]), *_family(kind)),
            summary=f"{h['client']} offers {offer} to {h['server']}:{h['server_port']}: {what}."
                    + (f" The server accepts {others} from others." if others else ""),
            confidence=confidence, reasons=(*why, *((f"accepted here: {others}",) if others else ())),
            evidence=() if number >= tls.DETAILED else tables.evidence([p for p in packets if p is not None], {
                "tls.client.versions": offer, "tls.server.versions": others or "none seen", "tls.client.ja4": h["ja4"],
                "tls.client.server_name": h["sni"] or "", "source.ip": h["client"], "destination.ip": h["server"]}),
            scope={"destination.ip": h["server"], "destination.port": h["server_port"], "tls.client.versions": offer},
            flows=(h["flow"],), keys=frozenset({f"host:{h['server']}"}), start_ns=h["start_ns"], end_ns=h["end_ns"],
            title={"fallback": "Client falls back to a lower TLS version without need",
                   "downgrade": "TLS version was lowered on the way",
                   "intolerant": "A higher TLS version offer is not tolerated"}.get(kind, ""),
            severity=Severity.MEDIUM if kind in ("fallback", "intolerant") else None, alternatives=tuple(alternatives),
            mitigation=DO_NOW.get(kind, "") or (NEWER if _too_new(h) else ""))


def _too_new(h: dict[str, object]) -> bool:
    """Is it the server whose versions are too low? Then the client refuses, or offers nothing that low."""
    lowest, ceiling = h["lowest"], h["ceiling"]
    return h["alert_by"] == "client" or (isinstance(lowest, int) and isinstance(ceiling, int) and lowest > ceiling)


def _family(kind: str) -> tuple[str, ...]:
    """Refusals with and without alert 70 are one fault of a server."""
    return () if kind in ("refused", "apart") else (kind,)


def _ended(h: dict[str, object]) -> str:
    if h["alert"] is not None:
        picked = f"the server picks {_name(h['version'])}, " if h["version"] is not None else ""
        name = tls.NAMES.get(int(str(h["alert"])), "")
        return f"{picked}the {h['alert_by']} answers with alert {h['alert']} ({name})"
    return f"the {h['closed_by']} {'resets' if h['closed_how'] == 'rst' else 'closes'} without a word"


def _grade(kind: str, h: dict[str, object], times: int) -> tuple[Confidence, tuple[str, ...]]:
    if kind == "refused":
        return Confidence.CONFIRMED, (f"alert 70 protocol_version from the {h['alert_by']}",)
    if kind == "fallback":
        return Confidence.CONFIRMED, ("alert 86 inappropriate_fallback: the server knows a higher version, and an "
                                      "earlier try of the client failed for another reason",)
    if kind == "downgrade":
        return Confidence.CONFIRMED, (f"the server's random says that it can do more than {_name(h['version'])}, "
                                      "and the client aborts with alert 47",)
    if kind == "apart":
        return Confidence.PROBABLE, (_ended(h) + " right after the ClientHello",
                                     "no version offered is among those that the server accepted from others")
    grade = Confidence.PROBABLE if times > 1 else Confidence.SUSPECTED
    return grade, (f"failed with {_name(h['client_max_version'])} and at once succeeded with less: "
                   + tls.many(times, "time"),
                   "nobody succeeded here with an offer as high")


def _foreign(tables: Tables, h: dict[str, object]) -> str:
    """Does what ended the handshake carry another TTL than the server's first packet? Then how, else ""."""
    end = h["alert_packet"] if h["alert_packet"] is not None else h["close_packet"]
    by = h["alert_by"] or h["closed_by"]
    if not isinstance(end, int) or by != "server":
        return ""
    packets = tables.packets
    mine = packets.flow_rows(int(str(h["flow"])))
    mine = mine[(packets.sport[mine] == packets.sport[end]) & (packets.src[mine] == packets.src[end])]
    first, last = int(packets.ttl[mine[0]]), int(packets.ttl[end])
    return f"its TTL is {last}, that of the server's first packet {first}" if first != last else ""


def _name(version: object) -> str:
    return NAMES.get(int(str(version)), f"version {int(str(version)):#06x}")
