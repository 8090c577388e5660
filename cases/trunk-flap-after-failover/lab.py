"""A carrier's trunk to two PBX nodes behind a UDP load balancer, and a failover that the balancer alone notices.

    caller -- [net] -- eth0 [balancer] br-nodes -- node-a
    carrier --/  \\-- monitor                  \\-- node-b

The balancer is nftables DNAT to the active node. The carrier is kamailio: it probes the trunk with OPTIONS (dispatcher)
and sends everything from port 5060. Nodes, callers and the monitoring host are SIPp. Node A hangs when its process is
stopped by a signal: its port stays open, nothing answers, no ICMP. ``broken``: the rule is switched, the tracked flow
stays. ``purged``: the flow is deleted. ``fixed``: deleted, each node's Contact is its own address, and A is not killed.
``short-timeout``: no failover; the node stands still for longer than the carrier waits, and answers all the same.
Shorter than in the field: probes every 2 s (10 s), the wait for an answer to INVITE 4 s (32 s), A hangs for 5 s.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

from netdiag.lab import kamailio, process, sipp
from netdiag.lab.topology import Lab, Node

CARRIER, CALLER, MONITOR = "203.0.113.10", "203.0.113.60", "192.0.2.77"
VIP = "198.51.100.20"
NODES = {"node-a": ("10.60.0.11", "198.51.100.11"), "node-b": ("10.60.0.12", "198.51.100.12")}
PBX = "pbx.example"
ACCESS = 5080  # the carrier's port for its customers; the trunk is 5060 to 5060
HANG_S, PROBE_S, INVITE_WAIT_S, HELD_S = 5, 2, 4, 11
DISPATCHER: list[tuple[str, str, str | int]] = [
    ("tm", "fr_timer", 1000),  # how long a probe waits for its answer; INVITEs get a time of their own below
    ("dispatcher", "ds_ping_interval", PROBE_S),
    ("dispatcher", "ds_ping_from", "sip:probe@carrier.example"),
    ("dispatcher", "ds_probing_mode", 1),
]

# The map holds the active node; what is sent to a node's own address goes there in any case.
BALANCER = f"""
table ip balancer {{
    map active {{
        type ipv4_addr : ipv4_addr
        elements = {{ {VIP} : {NODES["node-a"][0]} }}
    }}
    chain in {{
        type nat hook prerouting priority dstnat
        iifname "eth0" udp dport 5060 dnat to ip daddr map @active
        iifname "eth0" ip daddr {NODES["node-a"][1]} udp dport 5060 dnat to {NODES["node-a"][0]}
        iifname "eth0" ip daddr {NODES["node-b"][1]} udp dport 5060 dnat to {NODES["node-b"][0]}
    }}
}}
"""

# A host firewall that lets no ICMP errors out, as many do: between kill and start the port is closed.
QUIET = """
table ip host {
    chain out {
        type filter hook output priority filter
        icmp type destination-unreachable drop
    }
}
"""

TRUNK = f"""
    if (!ds_select_dst("1", "8")) {{ t_reply("503", "Trunk Unavailable"); exit; }}
    $fs = "udp:{CARRIER}:5060";
    t_set_fr("60000", "{1000 * INVITE_WAIT_S}");
"""

ANSWER = """
    [last_Via:]
    [last_From:]
    [last_To:]{tag}
    [last_Call-ID:]
    [last_CSeq:]
"""
FIRST, INSIDE = ANSWER.format(tag=";tag=[pid]pbx[call_number]"), ANSWER.format(tag="")

NODE = f"""<?xml version="1.0" encoding="UTF-8"?>
<scenario name="PBX node">
  <recv request="OPTIONS" optional="true" next="ping"/>
  <recv request="BYE" optional="true" next="unknown"/>
  <recv request="INVITE"/>
  <send retrans="500"><![CDATA[
    SIP/2.0 200 OK{FIRST}    [last_Record-Route:]
    Contact: <sip:pbx@[contact]:5060>
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=pbx 1 1 IN IP4 {VIP}
    s=-
    c=IN IP4 {VIP}
    t=0 0
    m=audio 40000 RTP/AVP 0
    a=rtpmap:0 PCMU/8000

  ]]></send>
  <recv request="ACK"/>
  <recv request="BYE"/>
  <send next="over"><![CDATA[
    SIP/2.0 200 OK{INSIDE}    Content-Length: 0

  ]]></send>
  <label id="ping"/>
  <send next="over"><![CDATA[
    SIP/2.0 200 OK{FIRST}    Content-Length: 0

  ]]></send>
  <label id="unknown"/>
  <send><![CDATA[
    SIP/2.0 481 Call/Transaction Does Not Exist{INSIDE}    Content-Length: 0

  ]]></send>
  <label id="over"/>
</scenario>
"""

HEAD = f"""\
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    Max-Forwards: 70
    From: <sip:5550199@carrier.example>;tag=[pid]out[call_number]
    Call-ID: [call_id]
    To: <sip:5550100@{PBX}>"""

INVITE = f"""<?xml version="1.0" encoding="UTF-8"?>
<scenario name="caller">
  <send retrans="500"><![CDATA[
    INVITE sip:5550100@{PBX} SIP/2.0
{HEAD}
    CSeq: 1 INVITE
    Contact: <sip:5550199@[local_ip]:[local_port]>
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=caller 1 1 IN IP4 [local_ip]
    s=-
    c=IN IP4 [local_ip]
    t=0 0
    m=audio 42000 RTP/AVP 0
    a=rtpmap:0 PCMU/8000

  ]]></send>
  <recv response="100" optional="true"/>
"""

CALL = f"""{INVITE}
  <recv response="200" rrs="true"/>
  <send><![CDATA[
    ACK [next_url] SIP/2.0
{HEAD}[peer_tag_param]
    [routes]
    CSeq: 1 ACK
    Content-Length: 0

  ]]></send>
  <pause/>
  <send retrans="500"><![CDATA[
    BYE [next_url] SIP/2.0
{HEAD}[peer_tag_param]
    [routes]
    CSeq: 2 BYE
    Content-Length: 0

  ]]></send>
  <recv response="[ended]"/>
</scenario>
"""

REFUSED = f"""{INVITE}
  <recv response="[ended]"/>
  <send><![CDATA[
    ACK sip:5550100@{PBX} SIP/2.0
    [last_Via:]
    Max-Forwards: 70
    From: <sip:5550199@carrier.example>;tag=[pid]out[call_number]
    Call-ID: [call_id]
    To: <sip:5550100@{PBX}>[peer_tag_param]
    CSeq: 1 ACK
    Content-Length: 0

  ]]></send>
</scenario>
"""

# The monitoring host asks with OPTIONS, each time from a new socket and so from a new source port.
WATCH = f"""
import socket, time
while True:
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        s.settimeout(1.5)
        s.connect(("{VIP}", 5060))
        me = "%s:%d" % s.getsockname()
        text = ("OPTIONS sip:{PBX} SIP/2.0", "Via: SIP/2.0/UDP " + me + ";branch=z9hG4bK" + me[-5:],
                "Max-Forwards: 70", "From: <sip:monitor@{PBX}>;tag=" + me[-5:], "To: <sip:{PBX}>",
                "Call-ID: " + me[-5:] + "@" + me.split(":")[0], "CSeq: 1 OPTIONS", "Content-Length: 0", "", "")
        s.send("\\r\\n".join(text).encode())
        try:
            print(s.recv(2000).split(b"\\r\\n")[0], flush=True)
        except TimeoutError:
            print("down", flush=True)
    time.sleep(1.9)
"""

# The cluster's heartbeat is a process of its own: it goes on while the PBX process hangs.
HEARTBEAT = """
import socket, time
s = socket.socket(type=socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.bind(("", 694))
while True:
    s.sendto(b"alive", ("10.60.0.255", 694))
    time.sleep(1)
"""


def network(lab: Lab) -> dict[str, Node]:
    """Build the nodes; the balancer routes for both PBX nodes and holds their public addresses."""
    names = ("caller", "carrier", "monitor", "net", "balancer", *NODES)
    nodes = {name: lab.node(name, forward=name in ("net", "balancer")) for name in names}
    net, balancer = nodes["net"], nodes["balancer"]
    lab.link(nodes["carrier"], "eth0", f"{CARRIER}/27", net, "carrier", "203.0.113.1/27")
    lab.link(nodes["caller"], "eth0", f"{CALLER}/27", net, "caller", "203.0.113.33/27")
    lab.link(nodes["monitor"], "eth0", f"{MONITOR}/24", net, "monitor", "192.0.2.1/24")
    lab.link(balancer, "eth0", f"{VIP}/24", net, "trunk", "198.51.100.1/24")
    balancer.run(["ip", "link", "add", "br-nodes", "type", "bridge", "mcast_snooping", "0"])
    balancer.sysctl("net/ipv6/conf/br-nodes/disable_ipv6", 1)
    for index, (name, (address, public)) in enumerate(NODES.items(), 2):
        lab.link(nodes[name], "eth0", f"{address}/24", balancer, name, f"10.60.0.{index}/24")
        balancer.run(["ip", "address", "flush", "dev", name])
        balancer.run(["ip", "link", "set", "dev", name, "master", "br-nodes"])
        balancer.run(["ip", "address", "add", f"{public}/24", "dev", "eth0"])
        nodes[name].nft(QUIET)
    balancer.run(["ip", "address", "add", "10.60.0.1/24", "dev", "br-nodes"])
    balancer.run(["ip", "link", "set", "dev", "br-nodes", "up"])
    balancer.run(["ethtool", "-K", "br-nodes", "tx", "off", "tso", "off", "gso", "off", "gro", "off"])
    for name, via in (("carrier", "203.0.113.1"), ("caller", "203.0.113.33"), ("monitor", "192.0.2.1"),
                      ("balancer", "198.51.100.1"), ("node-a", "10.60.0.1"), ("node-b", "10.60.0.1")):
        nodes[name].route("default", via)
    balancer.nft(BALANCER)
    return nodes


class Trunk:
    """One run: its nodes, and what is done to them."""

    def __init__(self, lab: Lab, variant: str, agents: ExitStack) -> None:
        self.lab, self.variant, self.agents = lab, variant, agents
        self.nodes = network(lab)
        self.started: dict[str, list[sipp.Agent]] = {"node-a": [], "node-b": []}
        self.callers = 0

    def start_node(self, name: str) -> None:
        """Start the PBX process of a node; it knows no call yet."""
        address, public = NODES[name]
        count = len(self.started[name])
        self.started[name].append(self.agents.enter_context(sipp.uas(
            self.nodes[name], self.lab.workdir, f"{name}-{count}", NODE, local=(address, 5060), calls=1000,
            keys={"contact": public if self.variant == "fixed" else VIP})))

    def fail_over(self) -> None:
        """Switch the balancer to node B. What is tracked already goes on to A unless it is deleted."""
        element = f"{VIP} : {NODES['node-b'][0]}"
        self.nodes["balancer"].nft(f"delete element ip balancer active {{ {VIP} }}\n"
                                   f"add element ip balancer active {{ {element} }}")
        if self.variant != "broken":
            self.nodes["balancer"].run(["conntrack", "-D", "-p", "udp", "--orig-dst", VIP])

    def call(self, scenario: str, ended: int, calls: int = 1, talk_s: float = 1.0) -> sipp.Agent:
        """Place calls from the carrier's customer; they end with the status ``ended``."""
        self.callers += 1
        return self.agents.enter_context(sipp.uac(
            self.nodes["caller"], self.lab.workdir, f"caller-{self.callers}", scenario.replace("[ended]", str(ended)),
            local=(CALLER, 5060 + 2 * self.callers), remote=(CARRIER, ACCESS), calls=calls, rate=10,
            pause_duration=int(1000 * talk_s)))

    def wait_for_answer(self) -> None:
        """Until a probe is answered that is sent from now on: a node that goes on answers old ones, too late."""
        asked = self._probes(rb"OPTIONS sip:")
        process.wait_until(lambda: self._probes(rb"SIP/2\.0 200 OK") - asked, "an answered probe", 10)

    def _probes(self, start: bytes) -> set[bytes]:
        """Branches of the carrier's probes, or of their answers, as recorded so far."""
        seen = self.lab.recorders["carrier"].path.read_bytes()
        messages = re.findall(start + rb"[^\r]*\r\n((?:[^\r]+\r\n)*?)From: <sip:probe@", seen)
        return {branch for lines in messages for branch in re.findall(rb"branch=(z9hG4bK[^;\r]+)", lines)[:1]}

    def hang(self, during: Callable[[], object], seconds: float = HANG_S) -> None:
        """Node A's process stands still; then it goes on, or (``broken``, ``purged``) is killed and started anew."""
        running = self.started["node-a"][-1]
        running.send(signal.SIGSTOP)
        until = time.monotonic() + seconds
        during()
        time.sleep(max(0.0, until - time.monotonic()))
        if self.variant in ("broken", "purged"):
            running.send(signal.SIGKILL)
            running.stop()
            self.start_node("node-a")
        else:
            running.send(signal.SIGCONT)


def fail_over_with_calls_up(trunk: Trunk) -> None:
    """Four calls are up, the balancer fails over, node A hangs; then these calls end. In ``broken`` it hangs again."""
    broken = trunk.variant == "broken"
    new = REFUSED if broken else CALL

    def new_calls() -> None:
        trunk.call(new, 408 if broken else 200, calls=2).wait(10)
        trunk.call(new, 503 if broken else 200).wait(10)

    held = trunk.call(CALL, 200 if trunk.variant == "fixed" else 481, calls=4, talk_s=HELD_S)
    trunk.call(CALL, 200).wait(10)
    trunk.wait_for_answer()
    trunk.fail_over()
    trunk.hang(new_calls)
    trunk.wait_for_answer()
    held.wait(15)
    if broken:
        trunk.wait_for_answer()
        trunk.hang(lambda: None)
        trunk.wait_for_answer()


def stand_still(trunk: Trunk) -> None:
    """No failover: twice the node stands still for two probes, and answers all of them afterwards."""
    for _ in range(2):
        trunk.call(CALL, 200).wait(10)
        trunk.wait_for_answer()
        time.sleep(PROBE_S - 0.2)
        trunk.hang(lambda: (time.sleep(2), trunk.call(REFUSED, 503).wait(10)), seconds=2 * PROBE_S + 0.6)
        trunk.wait_for_answer()


def run(lab: Lab, variant: str) -> None:
    """Start the trunk, let happen what the variant is about, and make a last call."""
    with ExitStack() as agents:
        trunk = Trunk(lab, variant, agents)
        lab.capture(trunk.nodes["carrier"], "eth0", "carrier")
        lab.capture(trunk.nodes["balancer"], "br-nodes", "inside")
        for name in NODES:
            trunk.start_node(name)
            trunk.nodes[name].python(HEARTBEAT, name="heartbeat")
        folder = lab.workdir / "carrier"
        folder.mkdir()
        (folder / "trunk.list").write_text(f"1 sip:{VIP}:5060\n")
        params = [*DISPATCHER, ("dispatcher", "list_file", str(folder / "trunk.list"))]
        text = kamailio.config(CARRIER, modules=["dispatcher"], params=params, destination=TRUNK)
        customers = f"listen=udp:{CARRIER}:5060\nlisten=udp:{CARRIER}:{ACCESS}"
        kamailio.start(trunk.nodes["carrier"], folder, text.replace(f"listen=udp:{CARRIER}:5060", customers))
        trunk.wait_for_answer()
        trunk.nodes["monitor"].python(WATCH, name="watch")
        (stand_still if variant == "short-timeout" else fail_over_with_calls_up)(trunk)
        trunk.call(CALL, 200).wait(10)
        trunk.wait_for_answer()
        # The nodes outlive the recordings: a probe to a node that has ended would be refused by its host.
        for recorder in lab.recorders.values():
            recorder.stop()
