"""Phones register through a balancer at two registrars, which challenge them with nonces of their own.

    phones, scanner -- [core] -- front [balancer] br-nodes -- [node-a]
                                                          \\-- [node-b]

Balancer and registrars are kamailio (dispatcher; auth), phones and scanner SIPp. ``broken``: round robin, and each
node signs its nonces with another secret. ``shared-secret``: the same secret; the phone with the wrong realm is left.
``pinned``: other secrets, but the balancer hashes the From, and node-b is drained half-way. ``fixed``: one secret and
the right realm. Phones refresh every second in place of every half an hour. The transport is UDP, in the clear.
"""

from __future__ import annotations

import json
import random
import sys
import time
from contextlib import ExitStack

from netdiag.lab import kamailio, sipp
from netdiag.lab.topology import Lab, Node

DOMAIN, OLD_REALM = "sip.example", "voice.example"
BALANCER, INNER = "192.0.2.10", "10.50.0.1"
NODES = {"node-a": "10.50.0.11", "node-b": "10.50.0.12"}
PHONES = {user: f"203.0.113.{user[-2:]}" for user in ("2221", "2222", "2223", "2224", "2225")}
ODD, ODD_ADDRESS = "2226", "203.0.113.26"
SCANNER = "198.51.100.66"
SECRETS = {"node-a": "one-of-two", "node-b": "two-of-two"}
CYCLES, TRIES = 6, 3
COMMANDS = 8090  # the balancer's control port, on its loopback
ROUND_ROBIN, BY_FROM = 4, 1  # algorithms of the dispatcher module

KAMAILIO = """\
debug=1
log_stderror=yes
children=2
auto_aliases=no
disable_tcp=yes
dns=no
rev_dns=no
server_signature=no
mhomed=1
"""

NODE = (
    KAMAILIO
    + """\
listen=udp:{address}:5060
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("auth", "secret", "{secret}")

request_route {{
    if (method != "REGISTER") {{ sl_send_reply("405", "Method Not Allowed"); exit; }}
    if (!pv_www_authenticate("{domain}", "pw-$au", "0")) {{ www_challenge("{domain}", "1"); exit; }}
    if (!save("location")) {{ sl_reply_error(); }}
    exit;
}}
"""
)

EDGE = (
    KAMAILIO
    + """\
listen=udp:{address}:5060
listen=udp:{inner}:5060
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "dispatcher.so"
loadmodule "jsonrpcs.so"
modparam("dispatcher", "list_file", "{folder}/nodes.list")
modparam("jsonrpcs", "transport", 4)
modparam("jsonrpcs", "dgram_socket", "udp:127.0.0.1:{commands}")

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (!ds_select_dst("1", "{algorithm}")) {{ sl_send_reply("503", "Service Unavailable"); exit; }}
    t_relay();
}}
"""
)

HEAD = """\
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    Max-Forwards: 70
    From: <sip:[user]@[domain]>;tag=[pid]reg[call_number]
    To: <sip:[user]@[domain]>
    Call-ID: [call_id]
    CSeq: [cseq] REGISTER
    Contact: <sip:[user]@[local_ip]:[local_port]>
    Expires: 3600
    User-Agent: [agent]
"""

# An account that was moved from another provider with its realm entered by hand: SIPp always takes the realm of the
# challenge, so the header is written here. No registrar of this realm can check the response, whatever it is.
OTHER_REALM = (
    f'Authorization: Digest username="{ODD}",realm="{OLD_REALM}",uri="sip:[domain]",nonce="[$nonce]",'
    'response="5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e",algorithm=MD5'
)
NONCE = """<action><ereg regexp="nonce=&quot;([^&quot;]*)" search_in="hdr" header="WWW-Authenticate:" check_it="true"
      assign_to="whole,nonce"/></action>"""


def credentials_of(user: str, password: str) -> str:
    """The header line in which SIPp answers the last challenge (it takes no keyword inside this one)."""
    return f"[authentication username={user} password={password}]"


def register(credentials: str) -> str:
    """One REGISTER with the given header line, or none."""
    line = f"    {credentials}\n" if credentials else ""
    return f"  <send retrans=\"500\"><![CDATA[\n    REGISTER sip:[domain] SIP/2.0\n{HEAD}{line}" \
           "    Content-Length: 0\n\n  ]]></send>\n"


def phone(user: str, credentials: str) -> str:
    """A phone that keeps its last nonce, tries up to TRIES times in answer to a challenge, waits, and begins again."""
    # SIPp's own random pauses are the same in each process: the phones would march in step.
    wait = random.Random(user).randint
    store = f'<recv response="401" auth="true">{NONCE if credentials is OTHER_REALM else ""}</recv>'
    steps = []
    for cycle in range(CYCLES):
        for attempt in range(TRIES + 1):
            steps.append(f'  <pause milliseconds="{wait(10, 150)}"/>\n' if attempt else "")
            steps.append(register(credentials if cycle or attempt else ""))
            steps.append(f'  <recv response="200" optional="true" next="done{cycle}"/>\n  {store}\n')
        steps.append(f'  <label id="done{cycle}"/>\n  <pause milliseconds="{wait(400, 1000)}"/>\n')
    unused = '  <Reference variables="whole"/>\n' if credentials is OTHER_REALM else ""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="phone">\n{"".join(steps)}{unused}</scenario>\n'


GUESS = f"""<?xml version="1.0" encoding="UTF-8"?>
<scenario name="scanner">
{register("")}
  <recv response="401" auth="true"/>
{register(credentials_of("100", "1234"))}
  <recv response="401"/>
</scenario>
"""


def network(lab: Lab) -> dict[str, Node]:
    """Build the nodes. The office's phones are addresses of one host."""
    names = ("office", "scanner", "core", "balancer", *NODES)
    nodes = {name: lab.node(name, forward=name == "core") for name in names}
    core, balancer = nodes["core"], nodes["balancer"]
    lab.link(nodes["office"], "eth0", "203.0.113.2/24", core, "office", "203.0.113.1/24")
    lab.link(nodes["scanner"], "eth0", f"{SCANNER}/24", core, "other", "198.51.100.1/24")
    lab.link(balancer, "front", f"{BALANCER}/24", core, "edge", "192.0.2.1/24")
    for address in (*PHONES.values(), ODD_ADDRESS):
        nodes["office"].run(["ip", "address", "add", f"{address}/24", "dev", "eth0"])
    for name, via in (("office", "203.0.113.1"), ("scanner", "198.51.100.1"), ("balancer", "192.0.2.1")):
        nodes[name].route("default", via)
    balancer.run(["ip", "link", "add", "br-nodes", "type", "bridge", "mcast_snooping", "0"])
    balancer.sysctl("net/ipv6/conf/br-nodes/disable_ipv6", 1)
    for index, (name, address) in enumerate(NODES.items(), 2):
        lab.link(nodes[name], "eth0", f"{address}/24", balancer, name, f"10.50.0.{index}/24")
        balancer.run(["ip", "address", "flush", "dev", name])
        balancer.run(["ip", "link", "set", "dev", name, "master", "br-nodes"])
    balancer.run(["ip", "address", "add", f"{INNER}/24", "dev", "br-nodes"])
    balancer.run(["ip", "link", "set", "dev", "br-nodes", "up"])
    balancer.run(["ethtool", "-K", "br-nodes", "tx", "off", "tso", "off", "gso", "off", "gro", "off"])
    return nodes


def servers(lab: Lab, nodes: dict[str, Node], variant: str) -> None:
    """Start registrars and balancer."""
    for name, address in NODES.items():
        secret = SECRETS[name] if variant in ("broken", "pinned") else "one-for-both"
        text = NODE.format(address=address, secret=secret, domain=DOMAIN)
        kamailio.start(nodes[name], lab.workdir / name, text)
    folder = lab.workdir / "balancer"
    folder.mkdir()
    (folder / "nodes.list").write_text("".join(f"1 sip:{address}:5060\n" for address in NODES.values()))
    text = EDGE.format(address=BALANCER, inner=INNER, folder=folder, commands=COMMANDS,
                       algorithm=BY_FROM if variant == "pinned" else ROUND_ROBIN)
    kamailio.start(nodes["balancer"], folder, text)


def drain(balancer: Node, address: str) -> None:
    """Take a registrar out of the balancer's set, as an operator does before maintenance."""
    command = {"jsonrpc": "2.0", "method": "dispatcher.set_state", "params": ["d", 1, f"sip:{address}:5060"], "id": 1}
    send = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(5); " \
           "s.sendto(sys.argv[1].encode(), ('127.0.0.1', int(sys.argv[2]))); print(s.recv(2000))"
    balancer.run([sys.executable, "-c", send, json.dumps(command), str(COMMANDS)])


def run(lab: Lab, variant: str) -> None:
    """One phone by itself, then all of them and a scanner; in ``pinned`` a node is drained between."""
    nodes = network(lab)
    servers(lab, nodes, variant)
    lab.capture(nodes["balancer"], "front", "front")
    lab.capture(nodes["balancer"], "br-nodes", "back")
    with ExitStack() as agents:
        def start(user: str, address: str, credentials: str = "") -> sipp.Agent:
            credentials = credentials or credentials_of(user, f"pw-{user}")
            return agents.enter_context(sipp.uac(
                nodes["office"], lab.workdir, f"phone-{user}", phone(user, credentials), local=(address, 5060),
                remote=(BALANCER, 5060), keys={"user": user, "domain": DOMAIN, "agent": "SIPp desk phone"}))

        running = [start("2221", PHONES["2221"])]
        time.sleep(0.7)
        running += [start(user, PHONES[user]) for user in list(PHONES)[1:]]
        running.append(start(ODD, ODD_ADDRESS, OTHER_REALM if variant in ("broken", "shared-secret") else ""))
        running.append(agents.enter_context(sipp.uac(
            nodes["scanner"], lab.workdir, "scanner", GUESS, local=(SCANNER, 5060), remote=(BALANCER, 5060), calls=6,
            keys={"user": "100", "domain": DOMAIN, "agent": "friendly-scanner"})))
        if variant == "pinned":
            time.sleep(2)
            drain(nodes["balancer"], NODES["node-b"])
        for agent in running:
            agent.wait(timeout=40)
