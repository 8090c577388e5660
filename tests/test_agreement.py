"""Agreement with tshark on captures that nobody here made: counts, and a reason for every difference."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from checkout import ROOT, real_captures

from netdiag.tables import Tables
from netdiag.tables.packets import RST
from netdiag.tables.reader import open_captures

FIELDS = ("frame.number", "_ws.col.Protocol", "sip.Method", "sip.Status-Code", "sip.Call-ID", "tls.handshake.type",
          "tls.handshake.certificate", "tls.alert_message.desc", "tcp.flags.reset", "dns.flags.response", "icmp.type",
          "icmpv6.type", "mdns", "llmnr", "nbns")
AGGREGATOR = "\x1f"
DIFFERENCES = ROOT / "tests" / "tshark_differences.tsv"


def differences() -> dict[tuple[str, str], tuple[str, str, str]]:
    """(capture, quantity) to (ours, tshark's, reason)."""
    out = {}
    for line in DIFFERENCES.read_text().splitlines()[1:]:
        capture, quantity, ours, theirs, reason = line.split("\t")
        assert len(reason) > 20, line
        out[capture, quantity] = (ours, theirs, reason)
    return out


def tshark(path: Path) -> dict[str, object]:
    """Counts by tshark, without frames that quote a packet inside ICMP."""
    argv = ["tshark", "-r", str(path), "-T", "fields", "-E", "occurrence=a", "-E", f"aggregator={AGGREGATOR}"]
    for field in FIELDS:
        argv += ["-e", field]
    done = subprocess.run(argv, capture_output=True, check=False)  # a cut file ends in a non-zero status
    counts: Counter[str] = Counter()
    calls: set[str] = set()
    for line in done.stdout.decode("utf-8", "replace").split("\n"):
        values = line.split("\t")
        if len(values) != len(FIELDS):
            continue
        row = {name: [v for v in value.split(AGGREGATOR) if v] for name, value in zip(FIELDS, values, strict=True)}
        counts["frames"] += 1
        if row["icmp.type"] or row["icmpv6.type"]:
            continue
        counts["sip requests"] += len(row["sip.Method"])
        counts["sip responses"] += len(row["sip.Status-Code"])
        calls.update(row["sip.Call-ID"])
        counts["client hellos"] += row["tls.handshake.type"].count("1")
        counts["server hellos"] += row["tls.handshake.type"].count("2")
        counts["certificates"] += len(row["tls.handshake.certificate"])
        counts["alerts"] += len(row["tls.alert_message.desc"])
        counts["resets"] += row["tcp.flags.reset"].count("1") + row["tcp.flags.reset"].count("True")
        if not (row["mdns"] or row["llmnr"] or row["nbns"]):
            counts["dns queries"] += sum(v in ("0", "False") for v in row["dns.flags.response"])
    return {**{q: counts[q] for q in QUANTITIES}, "call-ids": len(calls)}


QUANTITIES = ("frames", "sip requests", "sip responses", "client hellos", "server hellos", "certificates", "alerts",
              "resets", "dns queries")


def ours(path: Path) -> dict[str, object]:
    tables = open_captures([str(path)])
    sip, shakes = tables.sip, tables.handshakes
    return {
        "frames": tables.captures[0].frames,
        "sip requests": sip.filter(pl.col("method").is_not_null()).height,
        "sip responses": sip.filter(pl.col("status").is_not_null()).height,
        "call-ids": sip["call_id"].drop_nulls().n_unique(),
        "client hellos": int(shakes["client_hellos"].sum()),
        "server hellos": int(shakes["server_hellos"].sum()),
        "certificates": int(shakes["certificates"].list.len().sum() + shakes["client_certificates"].list.len().sum()),
        "alerts": tables.alerts.height,
        "resets": _resets(tables),
        "dns queries": tables.lookups.filter(pl.col("query_packet").is_not_null()).height,
    }


def _resets(tables: Tables) -> int:
    return int(((tables.packets.tcp.flags & RST) != 0).sum())


@pytest.mark.tshark
@pytest.mark.parametrize("path", real_captures(), ids=lambda p: p.name)
def test_counts_agree_with_tshark(path: Path) -> None:
    assert shutil.which("tshark"), "tshark is needed: make install-system"
    mine, theirs = ours(path), tshark(path)
    listed = differences()
    seen = {(path.name, q): (str(mine[q]), str(theirs[q])) for q in mine if mine[q] != theirs[q]}
    assert seen == {key: value[:2] for key, value in listed.items() if key[0] == path.name}


def test_differences_name_captures_that_are_there(real: Path) -> None:
    present = {p.name for p in real_captures()}
    assert {capture for capture, _ in differences()} <= present
