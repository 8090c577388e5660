"""Twenty-two phones register at once with a platform that can do eight of them in two seconds.

    phones -- [net] -- eth0 [edge] br-core -- [node-1], [node-2], [overflow], [service]

Edge, nodes and overflow are kamailio, phones and service SIPp; each phone has an address of its own. A node counts
requests and answers 503 above its limit. ``broken``: the challenge of a registration uses up what its answer would
need; refused calls go to the next node, then to the overflow proxy, whose default route is the edge. ``admission``: the
edge limits new registrations only, and does not use the overflow. ``fixed``: the phones also wait for a random time.
Smaller than in the field: 22 phones for 20 000, Max-Forwards 10 for 70, a retry after 4 s for 30 s.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from netdiag.lab import kamailio, sipp
from netdiag.lab.topology import Lab, Node

DOMAIN = "sip.example"
EDGE, INNER = "198.51.100.10", "10.70.0.1"
NODES = {"node-1": "10.70.0.11", "node-2": "10.70.0.12"}
OVERFLOW, SERVICE = "10.70.0.20", "10.70.0.30"
PHONES = [(f"203.0.113.{20 + i}", f"{3001 + i}") for i in range(22)]
EARLY = [(f"203.0.113.{60 + i}", f"{3101 + i}") for i in range(5)]
CALLER, BEFORE = ("203.0.113.70", "3110"), ("203.0.113.71", "3111")
WINDOW_S = 2  # of whole clock seconds, in which requests are counted
LIMIT = 8  # requests in a window and node
NEW = 6  # registrations that the edge lets begin in a window: two requests each, for two nodes; the rest is for calls
RETRY_MS, TRIES = 4000, 4
THINK_MS = 100  # what a phone takes to compute its answer; all challenges of a wave are out by then
SPREAD_MS = 14000

COMMON = """\
debug=1
log_stderror=yes
children=2
auto_aliases=no
disable_tcp=yes
dns=no
rev_dns=no
server_signature=no
mhomed=1
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "htable.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("htable", "htable", "load=>size=6;autoexpire=5;initval=0")
modparam("auth", "secret", "one-for-all")
{listen}

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    force_rport();
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); }}
        else if (is_method("ACK") && t_check_trans()) {{ t_relay(); }}
        exit;
    }}
    {route}
}}
"""

COUNT = f"""$var(window) = $Ts / {WINDOW_S};
    $var(n) = $shtinc(load=>$var(window));"""
# A node counts every request of the running window, whatever becomes of it.
NODE_ROUTE = f"""{COUNT}
    if ($var(n) > {LIMIT}) {{ sl_send_reply("503", "Service Unavailable"); exit; }}
    if (is_method("REGISTER")) {{
        if (!pv_www_authenticate("{DOMAIN}", "pw-$au", "0")) {{ www_challenge("{DOMAIN}", "1"); exit; }}
        save("location");
        exit;
    }}
    record_route();
    $du = "sip:{SERVICE}:5060";
    t_relay();"""

OVERFLOW_ROUTE = f"""record_route();
    $du = "sip:{INNER}:5060";
    t_relay();"""

# A user always has the same node. A registration without credentials is a new one.
EDGE_ROUTE = f"""if (is_method("REGISTER")) {{
        ADMISSION
        if ($(fU{{s.int}}) mod 2 == 0) {{ $du = "sip:{NODES["node-1"]}:5060"; }}
        else {{ $du = "sip:{NODES["node-2"]}:5060"; }}
        t_relay();
        exit;
    }}
    record_route();
    t_on_failure("NEXT");
    $avp(tried) = 1;
    $du = "sip:{NODES["node-1"]}:5060";
    t_relay();
}}

failure_route[NEXT] {{
    if ($avp(tried) == 1) {{ $du = "sip:{NODES["node-2"]}:5060"; }}
    else if ($avp(tried) == 2 && LAST_RESORT) {{ $du = "sip:{OVERFLOW}:5060"; }}
    else {{ t_reply("503", "Service Unavailable"); exit; }}
    $avp(tried) = $(avp(tried){{s.int}}) + 1;
    t_on_failure("NEXT");
    t_relay();"""

ADMISSION = f"""if (!is_present_hf("Authorization")) {{
            {COUNT}
            if ($var(n) > {NEW}) {{ sl_send_reply("503", "Service Unavailable"); exit; }}
        }}"""

REGISTER = f"""
  <send retrans="500"><![CDATA[
    REGISTER sip:{DOMAIN} SIP/2.0
    Via: SIP/2.0/UDP [field0]:5060;branch=[branch]
    Max-Forwards: 10
    From: <sip:[field1]@{DOMAIN}>;tag=[pid]r[call_number]
    To: <sip:[field1]@{DOMAIN}>
    Call-ID: [call_id]
    CSeq: [cseq] REGISTER
    Contact: <sip:[field1]@[field0]:5060>
    Expires: 3600
    User-Agent: SIPp desk phone
CREDENTIALS    Content-Length: 0

  ]]></send>
"""

HEAD = f"""\
    Via: SIP/2.0/UDP [field0]:5060;branch=[branch]
    Max-Forwards: 10
    From: <sip:[field1]@{DOMAIN}>;tag=[pid]c[call_number]
    Call-ID: [call_id]
    To: <sip:100@{DOMAIN}>"""

# A user of SIPp's table begins after its own time.
WAIT = """\
  <nop><action>
    <assignstr assign_to="text" value="[field2]"/>
    <todouble assign_to="wait" variable="text"/>
  </action></nop>
  <pause variable="wait"/>"""

CALL = f"""<?xml version="1.0" encoding="UTF-8"?>
<scenario name="caller">
{WAIT}
  <send retrans="500"><![CDATA[
    INVITE sip:100@{DOMAIN} SIP/2.0
{HEAD}
    CSeq: 1 INVITE
    Contact: <sip:[field1]@[field0]:5060>
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=- 1 1 IN IP4 [field0]
    s=-
    c=IN IP4 [field0]
    t=0 0
    m=audio 42000 RTP/AVP 0

  ]]></send>
  <recv response="100" optional="true"/>
  <recv response="503" optional="true" next="refused"/>
  <recv response="200" rrs="true"/>
  <send><![CDATA[
    ACK [next_url] SIP/2.0
{HEAD}[peer_tag_param]
    [routes]
    CSeq: 1 ACK
    Content-Length: 0

  ]]></send>
  <pause milliseconds="300"/>
  <send retrans="500"><![CDATA[
    BYE [next_url] SIP/2.0
{HEAD}[peer_tag_param]
    [routes]
    CSeq: 2 BYE
    Content-Length: 0

  ]]></send>
  <recv response="200" next="over"/>
  <label id="refused"/>
  <send><![CDATA[
    ACK sip:100@{DOMAIN} SIP/2.0
    [last_Via:]
    Max-Forwards: 10
    From: <sip:[field1]@{DOMAIN}>;tag=[pid]c[call_number]
    Call-ID: [call_id]
    To: <sip:100@{DOMAIN}>[peer_tag_param]
    CSeq: 1 ACK
    Content-Length: 0

  ]]></send>
  <label id="over"/>
</scenario>
"""

ANSWER = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="service">
  <recv request="INVITE" rrs="true"/>
  <send retrans="500"><![CDATA[
    SIP/2.0 200 OK
    [last_Via:]
    [last_From:]
    [last_To:];tag=[pid]s[call_number]
    [last_Call-ID:]
    [last_CSeq:]
    [last_Record-Route:]
    Contact: <sip:[local_ip]:[local_port]>
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=- 1 1 IN IP4 [local_ip]
    s=-
    c=IN IP4 [local_ip]
    t=0 0
    m=audio 40000 RTP/AVP 0

  ]]></send>
  <recv request="ACK"/>
  <recv request="BYE"/>
  <send><![CDATA[
    SIP/2.0 200 OK
    [last_Via:]
    [last_From:]
    [last_To:]
    [last_Call-ID:]
    [last_CSeq:]
    Content-Length: 0

  ]]></send>
</scenario>
"""


def phone() -> str:
    """A phone registers with digest authentication; refused, it begins again after RETRY_MS, up to TRIES times."""
    ask, answer = REGISTER.replace("CREDENTIALS", ""), REGISTER.replace("CREDENTIALS", "    [field3]\n")
    steps = [WAIT]
    for attempt in range(TRIES):
        # A proxy makes 500 of a node's 503 (RFC 3261 16.7 item 6).
        refused = "".join(f'  <recv response="{status}" optional="true" next="NEXT{attempt}"/>\n'
                          for status in (500, 503))
        steps.append(f"""{ask}{refused.replace("NEXT", "at-once-")}  <recv response="401" auth="true"/>
  <pause milliseconds="{THINK_MS}"/>
{answer}{refused.replace("NEXT", "later-")}  <recv response="200" next="done"/>
  <label id="at-once-{attempt}"/>
  <pause milliseconds="{THINK_MS}"/>
  <label id="later-{attempt}"/>""")
        if attempt + 1 < TRIES:
            steps.append(f'  <pause milliseconds="{RETRY_MS - THINK_MS}"/>')
    steps.append('  <label id="done"/>\n')
    return '<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="phone">\n' + "\n".join(steps) + "</scenario>\n"


def network(lab: Lab) -> dict[str, Node]:
    """Build the nodes. The phones are addresses of one host."""
    inner = {**NODES, "overflow": OVERFLOW, "service": SERVICE}
    nodes = {name: lab.node(name, forward=name == "net") for name in ("phones", "net", "edge", *inner)}
    net, edge = nodes["net"], nodes["edge"]
    lab.link(nodes["phones"], "eth0", "203.0.113.2/24", net, "access", "203.0.113.1/24")
    lab.link(edge, "eth0", f"{EDGE}/24", net, "edge", "198.51.100.1/24")
    for address, _ in (*PHONES, *EARLY, CALLER, BEFORE):
        nodes["phones"].run(["ip", "address", "add", f"{address}/24", "dev", "eth0"])
    nodes["phones"].route("default", "203.0.113.1")
    edge.route("default", "198.51.100.1")
    edge.run(["ip", "link", "add", "br-core", "type", "bridge", "mcast_snooping", "0"])
    edge.sysctl("net/ipv6/conf/br-core/disable_ipv6", 1)
    for index, (name, address) in enumerate(inner.items(), 2):
        lab.link(nodes[name], "eth0", f"{address}/24", edge, name, f"10.70.0.{index}/24")
        edge.run(["ip", "address", "flush", "dev", name])
        edge.run(["ip", "link", "set", "dev", name, "master", "br-core"])
        nodes[name].route("default", INNER)
    edge.run(["ip", "address", "add", f"{INNER}/24", "dev", "br-core"])
    edge.run(["ip", "link", "set", "dev", "br-core", "up"])
    edge.run(["ethtool", "-K", "br-core", "tx", "off", "tso", "off", "gso", "off", "gro", "off"])
    return nodes


def servers(lab: Lab, nodes: dict[str, Node], variant: str) -> None:
    """Start the proxies and registrars."""
    broken = variant == "broken"
    edge = EDGE_ROUTE.replace("ADMISSION", "" if broken else ADMISSION).replace("LAST_RESORT", str(int(broken)))
    configs = {"overflow": (OVERFLOW, OVERFLOW_ROUTE), **{name: (at, NODE_ROUTE) for name, at in NODES.items()}}
    for name, (address, route) in configs.items():
        text = COMMON.format(listen=f"listen=udp:{address}:5060", route=route)
        kamailio.start(nodes[name], lab.workdir / name, text)
    listen = f"listen=udp:{EDGE}:5060\nlisten=udp:{INNER}:5060"
    kamailio.start(nodes["edge"], lab.workdir / "edge", COMMON.format(listen=listen, route=edge))


def users(file: Path, phones: list[tuple[str, str]], waits_ms: list[int]) -> str:
    """Write SIPp's table of users: address, user, time to wait at first, and credentials."""
    lines = [f"{address};{user};{wait};[authentication username={user} password=pw-{user}]"
             for (address, user), wait in zip(phones, waits_ms, strict=True)]
    file.write_text("SEQUENTIAL\n" + "\n".join(lines) + "\n")
    return str(file)


def run(lab: Lab, variant: str) -> None:
    """Some phones refresh and call; then all the others register, and somebody calls in their waves and between."""
    with suppress(PermissionError):
        # A wave that waits for a busy processor is spread over seconds, and then it is none.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    nodes = network(lab)
    servers(lab, nodes, variant)
    lab.capture(nodes["edge"], "eth0", "edge")
    lab.capture(nodes["edge"], "br-core", "inside")
    with ExitStack() as agents:
        agents.enter_context(sipp.uas(
            nodes["service"], lab.workdir, "service", ANSWER, local=(SERVICE, 5060), calls=1000))

        def start(name: str, scenario: str, phones: list[tuple[str, str]], waits_ms: list[int]) -> sipp.Agent:
            # One socket for each address of the table.
            return agents.enter_context(sipp.uac(
                nodes["phones"], lab.workdir, name, scenario, local=(phones[0][0], 5060), remote=(EDGE, 5060),
                calls=len(phones), transport="ui", rate=1000, info_file=users(lab.workdir / name, phones, waits_ms)))

        early = start("early", phone(), EARLY, [200 + 700 * i for i in range(len(EARLY))])
        start("call-before", CALL, [BEFORE], [0]).wait(10)
        early.wait(20)
        # All at the same moment, and early in a window of the nodes' count, so that a wave falls into one.
        begin = time.time() + 1
        begin += WINDOW_S - begin % WINDOW_S
        delay = int(1000 * (begin - time.time()))
        jitter = random.Random(36)
        waits = [delay + (jitter.randint(0, SPREAD_MS) if variant == "fixed" else 0) for _ in PHONES]
        storm = start("storm", phone(), PHONES, waits)
        # They are there before it is time: on a busy machine a process may take longer to start than a wave lasts.
        calls = start("calls", CALL, [CALLER] * 3, [delay + at for at in (200, 4200, 6000)])
        storm.wait(40)
        calls.wait(10)
