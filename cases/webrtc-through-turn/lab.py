"""Two browsers behind NATs of their own, and the TURN server over which alone they can meet.

    caller -- [home] -- wan -- [isp] -- wan -- [office] -- callee
                                 |
                               [turn]

Browsers are aiortc, the TURN server is coturn; its credentials are valid for a time (the user name says until when,
the password is a keyed hash of it). Both NATs give a new port for each peer. ``credentials``: the application hands out
credentials that have ended. ``dtls``: an inspection box of the office drops DTLS handshakes with certificates.
``broken``: the home router's firewall forgets and blocks the flow in the middle of a call. ``fixed``: none of these.
"""

from __future__ import annotations

import base64
import hmac
import time
from contextlib import suppress
from pathlib import Path

from netdiag.errors import LabError
from netdiag.lab.topology import Lab, Node

CALLER, CALLEE, TURN = "10.30.0.10", "10.40.0.20", "198.51.100.30"
REALM, SECRET = "voice.example", "lab"
# How long each variant's call is to last once it is up; the one that is cut ends when consent does (RFC 7675 §5.1),
# which its browser notices 27 to 39 s later: it counts six checks, 4 to 6 s apart, and gives each 0.5 s.
TALK_S = {"broken": 60, "credentials": 5, "dtls": 5, "fixed": 8}
GIVE_UP_S = {"broken": 50, "credentials": 48, "dtls": 16, "fixed": 25}
UP_S = 5

NAT = """
table ip nat {
    chain out {
        type nat hook postrouting priority srcnat
        oifname "wan" masquerade random
    }
}
"""
# ChannelData (RFC 8656 §12.4) that holds a DTLS record of the content type handshake (22), too long for a ClientHello.
INSPECTION = """
table ip inspection {
    chain dtls {
        type filter hook forward priority filter
        iifname "wan" meta l4proto udp @th,64,8 0x40 @th,96,8 22 meta length > 500 drop
    }
}
"""
CUT = """
table ip cut {
    chain forget {
        type filter hook forward priority filter
        meta l4proto udp drop
    }
}
"""


def credentials(until: float) -> tuple[str, str]:
    """User name and password that end at ``until``, seconds since the epoch."""
    user = f"{int(until)}:caller"
    return user, base64.b64encode(hmac.digest(SECRET.encode(), user.encode(), "sha1")).decode()


def network(lab: Lab) -> dict[str, Node]:
    """Build the nodes; nobody outside routes private addresses."""
    nodes = {n: lab.node(n, forward=n in ("home", "isp", "office")) for n in
             ("caller", "home", "isp", "office", "callee", "turn")}
    home, isp, office = nodes["home"], nodes["isp"], nodes["office"]
    lab.link(nodes["caller"], "eth0", f"{CALLER}/24", home, "lan", "10.30.0.1/24")
    lab.link(nodes["callee"], "eth0", f"{CALLEE}/24", office, "lan", "10.40.0.1/24")
    lab.link(home, "wan", "203.0.113.27/28", isp, "home", "203.0.113.17/28")
    lab.link(office, "wan", "192.0.2.44/28", isp, "office", "192.0.2.33/28")
    lab.link(nodes["turn"], "eth0", f"{TURN}/24", isp, "core", "198.51.100.1/24")
    for name, via in (("caller", "10.30.0.1"), ("callee", "10.40.0.1"), ("home", "203.0.113.17"),
                      ("office", "192.0.2.33"), ("turn", "198.51.100.1")):
        nodes[name].route("default", via)
    isp.run(["ip", "route", "add", "blackhole", "10.0.0.0/8"])
    home.nft(NAT)
    office.nft(NAT)
    return nodes


def run(lab: Lab, variant: str) -> None:
    """One call, recorded at the caller's LAN and at the TURN server."""
    nodes = network(lab)
    turn = nodes["turn"]
    turn.start(
        ["turnserver", "-n", "--no-cli", "-L", TURN, "-r", REALM, "--use-auth-secret", f"--static-auth-secret={SECRET}",
         "--no-tls", "--no-dtls", "--min-port=49152", "--max-port=49999", "--log-file=stdout", "--simple-log",
         f"--pidfile={lab.workdir / 'turn.pid'}", f"--userdb={lab.workdir / 'turn.db'}"],
        name="turnserver", ready=lambda: turn.listening("udp", 3478),
    )
    if variant == "dtls":
        nodes["office"].nft(INSPECTION)
    lab.capture(nodes["home"], "lan", "browser")
    lab.capture(turn, "eth0", "turn")
    now = time.time()
    user, password = credentials(now - 60 if variant == "credentials" else now + 3600)
    url = f"turn:{TURN}:3478?transport=udp"
    script = Path(__file__).with_name("peer.py")
    said = (str(lab.workdir), url, user, password, str(TALK_S[variant]))
    peers = [
        nodes[name].python(script, role, *said, name=f"peer-{role}")
        for name, role in (("caller", "offer"), ("callee", "answer"))
    ]
    if variant == "broken":
        peers[0].wait_ready("connected", timeout=30)
        time.sleep(UP_S)
        nodes["home"].nft(CUT)
    begun = time.monotonic()
    for peer in peers:
        # A browser that still tries when its time is up is stopped with the lab.
        with suppress(LabError):
            peer.wait(timeout=max(0.1, GIVE_UP_S[variant] - (time.monotonic() - begun)), check=False)
