"""Two agents, an office router with a mirror port, and a carrier that polices the voice class.

    agent1 ----------\\
    agent2 --[air]-- [office] -- wan -- [carrier] -- customer1, customer2, registrar
                        | mirror
                     [sensor]

Phones are baresip with G.711, the registrar and proxy is kamailio; media go straight between the phones. The carrier
drops packets marked EF above a rate, for each direction; small ones, such as RTCP, are not counted. The sensor gets
copies of what the office router receives on either side. ``air`` is a bridge that holds packets back in bunches and
loses none.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from netdiag.lab import baresip, kamailio
from netdiag.lab.process import Process
from netdiag.lab.topology import Lab, Node

DOMAIN = "voice.example"
REGISTRAR = "198.51.100.5"
PHONES = {"agent1": "10.20.1.11", "agent2": "10.20.2.12", "customer1": "203.0.113.21", "customer2": "203.0.113.42"}
# A call of G.711 is 50 packets a second each way; the contract of the broken variant does not quite cover two.
CONTRACT = {"broken": (93, 5)}
ENOUGH = (400, 100)
# The first call is alone for some seconds; both end before the phones do.
FIRST_S, ALONE_S, SECOND_S = 22, 4, 17

POLICER = """
table ip contract {{
    chain voice {{
        type filter hook forward priority filter
        iifname "office" ip dscp ef meta length > 150 limit rate over {rate}/second burst {burst} packets drop
        oifname "office" ip dscp ef meta length > 150 limit rate over {rate}/second burst {burst} packets drop
    }}
}}
"""

# Copies of what comes in on each side go to the sensor; a sensor that is too slow misses some of them.
MIRROR = """
table netdev mirror {{
    chain agent1 {{
        type filter hook ingress device "lan1" priority 0
        {misses}
        dup to "mirror"
    }}
    chain agent2 {{
        type filter hook ingress device "lan2" priority 0
        {misses}
        dup to "mirror"
    }}
    chain outside {{
        type filter hook ingress device "wan" priority 0
        {misses}
        dup to "mirror"
    }}
}}
"""
MISSES = "ip dscp ef numgen random mod 100 < 12 accept"


def network(lab: Lab, variant: str) -> dict[str, Node]:
    """Build the nodes, the contract and the mirror port."""
    routers = ("office", "carrier")
    nodes = {n: lab.node(n, forward=n in routers) for n in (*PHONES, *routers, "registrar", "sensor", "air")}
    office, carrier = nodes["office"], nodes["carrier"]
    lab.link(nodes["agent1"], "eth0", "10.20.1.11/24", office, "lan1", "10.20.1.1/24")
    if variant == "radio":
        lab.link(nodes["agent2"], "eth0", "10.20.2.12/24", nodes["air"], "near", "10.20.2.253/24")
        lab.link(nodes["air"], "far", "10.20.2.254/24", office, "lan2", "10.20.2.1/24")
        for port in ("near", "far"):
            nodes["air"].run(["ip", "address", "flush", "dev", port])
        script = Path(__file__).with_name("air.py")
        nodes["air"].python(script, "near", "far", name="air", ready="forwarding")
    else:
        lab.link(nodes["agent2"], "eth0", "10.20.2.12/24", office, "lan2", "10.20.2.1/24")
    lab.link(office, "wan", "192.0.2.2/30", carrier, "office", "192.0.2.1/30")
    lab.link(carrier, "c1", "203.0.113.17/28", nodes["customer1"], "eth0", "203.0.113.21/28")
    lab.link(carrier, "c2", "203.0.113.33/28", nodes["customer2"], "eth0", "203.0.113.42/28")
    lab.link(carrier, "core", "198.51.100.1/24", nodes["registrar"], "eth0", f"{REGISTRAR}/24")
    lab.link(office, "mirror", "10.255.0.1/30", nodes["sensor"], "eth0", "10.255.0.2/30")
    for name, via in (
        ("agent1", "10.20.1.1"),
        ("agent2", "10.20.2.1"),
        ("office", "192.0.2.1"),
        ("customer1", "203.0.113.17"),
        ("customer2", "203.0.113.33"),
        ("registrar", "198.51.100.1"),
    ):
        nodes[name].route("default", via)
    carrier.route("10.20.0.0/16", "192.0.2.2")
    rate, burst = CONTRACT.get(variant, ENOUGH)
    carrier.nft(POLICER.format(rate=rate, burst=burst))
    office.nft(MIRROR.format(misses=MISSES if variant == "sensor" else ""))
    return nodes


def run(lab: Lab, variant: str) -> None:
    """One call alone, then a second beside it; recorded at the mirror port and on the way to the carrier."""
    with suppress(PermissionError):
        # Softphones that wait for a busy processor send uneven audio, and netdiag would rightly say so.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    nodes = network(lab, variant)
    kamailio.start(nodes["registrar"], lab.workdir, kamailio.config(REGISTRAR))
    lab.capture(nodes["sensor"], "eth0", "floor")
    lab.capture(nodes["office"], "wan", "wan")

    def phone(name: str, account: str = "", seconds: int | None = None, dial: str = "") -> Process:
        commands = [f"/dial sip:{dial}@{DOMAIN}"] if dial else []
        return baresip.start(
            nodes[name], lab.workdir, name, address=PHONES[name], domain=DOMAIN, proxy=f"{REGISTRAR}:5060",
            codec="g711", account=f"{account};audio_codecs=PCMA", seconds=seconds, commands=commands,
        )

    phone("customer1", ";answermode=auto")
    phone("customer2", ";answermode=auto")
    first = phone("agent1", seconds=FIRST_S, dial="customer1")
    time.sleep(ALONE_S)
    second = phone("agent2", seconds=SECOND_S, dial="customer2")
    second.wait(timeout=SECOND_S + 10, check=False)
    first.wait(timeout=10, check=False)
