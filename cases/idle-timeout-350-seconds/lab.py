"""A connection pool across a firewall that forgets idle connections without telling anybody.

    app -- firewall (nft ct state, strict) -- db

The firewall keeps an established connection for IDLE_LIMIT seconds here, where the boxes of the
study keep it for 350 or 3600, and it takes no connection up in the middle (tcp_loose = 0), as
commercial firewalls do. Nothing is translated, so both capture points see the same addresses.
"""

from __future__ import annotations

import sys
from pathlib import Path

from netdiag.errors import LabError
from netdiag.lab.topology import Lab, Node

DB = "10.30.2.20"
PORT = 9440
IDLE_LIMIT = 3  # s
SHORT_REST = 1.5  # s, survives
LONG_REST = 4.5  # s, does not
PATIENCE = 8.0  # s the application waits: Linux retransmits after about 0.2, 0.4, 0.8, 1.7, 3.3 and 6.8 s
KEEPALIVE = 1  # s, in the fixed variant

RULES = f"""
table inet firewall {{
  chain forward {{
    type filter hook forward priority filter
    policy drop
    ct state invalid counter drop
    ct state established,related accept
    ip daddr {DB} tcp dport {PORT} tcp flags & (syn | ack | rst | fin) == syn ct state new accept
  }}
}}
"""


def run(lab: Lab, variant: str) -> None:
    app, firewall, db = build(lab)
    guard(firewall)
    pool = Path(__file__).with_name("pool.py")
    db.start([sys.executable, "-u", str(pool), "serve", str(PORT)], name="db", ready=lambda: db.listening("tcp", PORT))
    lab.capture(app, "eth0", "client")
    lab.capture(db, "eth0", "server")
    rests = [f"{seconds}" for seconds in (SHORT_REST, LONG_REST, PATIENCE)]
    keepalive = str(KEEPALIVE if variant == "fixed" else 0)
    client = app.start([sys.executable, "-u", str(pool), "use", DB, str(PORT), *rests, keepalive], name="pool")
    client.wait_ready("done", timeout=60)
    expected = "hung 3 answered 0" if variant == "broken" else "hung 0 answered 3"
    if expected not in client.output():
        raise LabError(f"{variant}: expected {expected!r}, got\n{client.output()}")


def build(lab: Lab) -> tuple[Node, Node, Node]:
    app, firewall, db = lab.node("app"), lab.node("firewall", forward=True), lab.node("db")
    lab.link(app, "eth0", "10.30.1.11/24", firewall, "inside0", "10.30.1.1/24")
    lab.link(firewall, "outside0", "10.30.2.1/24", db, "eth0", f"{DB}/24")
    app.route("default", "10.30.1.1")
    db.route("default", "10.30.2.1")
    return app, firewall, db


def guard(firewall: Node) -> None:
    firewall.nft(RULES)
    firewall.sysctl("net.netfilter.nf_conntrack_tcp_loose", 0)
    firewall.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", IDLE_LIMIT)
