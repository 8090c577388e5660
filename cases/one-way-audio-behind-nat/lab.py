"""Two softphones behind a home router, a hosted PBX whose media relay does (not) learn the real source.

    alice, bob -- br-lan [home] wan -- [isp] -- eth0 [pbx] eth1 -- [gateway]
                                          \\-- office

The PBX is kamailio with rtpengine; the gateway (SIPp) answers, plays audio and hangs up. The office phone
has a public address and takes no part in the fault. ``broken``: rtpengine is told to trust the SDP and not
to learn endpoints. ``fixed``: it learns them. ``announcement``: as ``broken``, but the number has been changed, which
the gateway says before it answers 404.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from netdiag.lab import baresip, kamailio, sipp
from netdiag.lab.scenario import Packet, expect, pause, play, response, scenario, write_rtp
from netdiag.lab.topology import Lab, Node

DOMAIN = "pbx.example"
PBX = "198.51.100.10"
GATEWAY = "192.0.2.20"
# Who calls, from where, and the number: its last digit selects the gateway's port.
CALLS = (("alice", "10.20.0.15", "5550100"), ("bob", "10.20.0.16", "5550102"), ("office", "203.0.113.140", "5550104"))
CHANGED = (("alice", "10.20.0.15", "5550106"), ("office", "203.0.113.140", "5550108"))
# The callers hang up 9.5 s after the answer, when the gateway has nothing more to say.
TALK_S = 9.0

NAT = """
table ip home {
    chain out {
        type nat hook postrouting priority srcnat
        oifname "wan" masquerade random
    }
}
"""

# SIPp plays audio from raw sockets and opens no port for what it receives: without this rule the gateway's
# kernel would answer the callers' audio with ICMP port unreachable.
SINK = """
table ip sink {
    chain in {
        type filter hook input priority filter
        udp dport 16000-16100 drop
    }
}
"""

DESTINATION = f"""
    $du = "sip:{GATEWAY}:506" + $(rU{{s.substr,-1,1}});
"""

# The offer comes from the phone, the answer from the gateway; only the phone's side differs by variant.
MEDIA = """
    if (is_request() && is_method("BYE|CANCEL")) {{ rtpengine_delete(); return; }}
    if (!has_body("application/sdp")) {{ return; }}
    if (is_request()) {{ rtpengine_offer("replace-origin replace-session-connection ICE=remove {phone}"); }}
    else {{ rtpengine_answer("replace-origin replace-session-connection ICE=remove"); }}
"""

SDP = """
v=0
o=gateway 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 3
a=rtpmap:3 GSM/8000
a=ptime:20
a=sendrecv
"""

# A GSM 06.10 frame of silence: what its encoder gives for zero samples.
GSM_SILENCE = bytes.fromhex("d820a2e15a50004924924924500049249249245000492492492450004924924924")


def gateway(audio: Path, announces: bool) -> str:
    """The gateway answers and plays ``audio``; or it plays it before it says that the number has been changed."""
    if announces:
        progress = response("183 Session Progress", sdp=SDP, tag=True).replace(' retrans="500"', "")
        return scenario(expect("INVITE"), progress, play(audio), pause(TALK_S - 1),
                        response("404 Not Found", tag=True), expect("ACK"))
    return scenario(
        expect("INVITE"), response("180 Ringing", tag=True), pause(0.5), response("200 OK", sdp=SDP, tag=True),
        expect("ACK"), play(audio), expect("BYE"), response("200 OK"),
    )


def network(lab: Lab) -> dict[str, Node]:
    """Build the nodes; the ISP drops what goes to private addresses, as networks that filter RFC 1918 do."""
    names = ("alice", "bob", "home", "isp", "office", "pbx", "gateway")
    nodes = {name: lab.node(name, forward=name in ("home", "isp")) for name in names}
    home, isp, pbx = nodes["home"], nodes["isp"], nodes["pbx"]
    lab.link(nodes["alice"], "eth0", "10.20.0.15/24", home, "lan1", "10.20.0.1/24")
    lab.link(nodes["bob"], "eth0", "10.20.0.16/24", home, "lan2", "10.20.0.2/24")
    lab.link(home, "wan", "203.0.113.27/25", isp, "home", "203.0.113.1/25")
    lab.link(nodes["office"], "eth0", "203.0.113.140/25", isp, "office", "203.0.113.129/25")
    lab.link(isp, "core", "198.51.100.1/24", pbx, "eth0", f"{PBX}/24")
    lab.link(pbx, "eth1", "192.0.2.1/24", nodes["gateway"], "eth0", f"{GATEWAY}/24")
    home.run(["ip", "link", "add", "br-lan", "type", "bridge", "mcast_snooping", "0"])
    home.sysctl("net/ipv6/conf/br-lan/disable_ipv6", 1)
    for port in ("lan1", "lan2"):
        home.run(["ip", "address", "flush", "dev", port])
        home.run(["ip", "link", "set", "dev", port, "master", "br-lan"])
    home.run(["ip", "address", "add", "10.20.0.1/24", "dev", "br-lan"])
    home.run(["ip", "link", "set", "dev", "br-lan", "up"])
    for name, via in (
        ("alice", "10.20.0.1"),
        ("bob", "10.20.0.1"),
        ("home", "203.0.113.1"),
        ("office", "203.0.113.129"),
        ("pbx", "198.51.100.1"),
        ("gateway", "192.0.2.1"),
    ):
        nodes[name].route("default", via)
    isp.run(["ip", "route", "add", "blackhole", "10.0.0.0/8"])
    home.nft(NAT)
    nodes["gateway"].nft(SINK)
    return nodes


def run(lab: Lab, variant: str) -> None:
    """Make all calls of the variant at once and record the home LAN and the relay's public interface."""
    announces = variant == "announcement"
    calls = CHANGED if announces else CALLS
    nodes = network(lab)
    pbx = nodes["pbx"]
    relay = ["rtpengine", "--foreground", "--log-stderr", "--table=-1", f"--interface={PBX}"]
    relay += ["--listen-ng=127.0.0.1:2223", "--port-min=30000", "--port-max=30100", "--num-threads=2"]
    relay += ["--endpoint-learning=immediate"]
    pbx.start(relay, name="rtpengine", ready=lambda: pbx.listening("udp", 2223))
    phone = "trust-address asymmetric" if variant != "fixed" else "trust-address"
    text = kamailio.config(
        PBX,
        modules=["rtpengine"],
        params=[("rtpengine", "rtpengine_sock", "udp:127.0.0.1:2223")],
        destination=DESTINATION,
        media=MEDIA.format(phone=phone),
    )
    kamailio.start(pbx, lab.workdir, text)
    lab.capture(nodes["home"], "br-lan", "lan")
    lab.capture(pbx, "eth0", "relay")
    with ExitStack() as agents:
        servers = []
        for index, (user, _, number) in enumerate(calls):
            voice = (Packet(n * 0.02, 3, 160 * n, GSM_SILENCE, n == 0) for n in range(int(50 * TALK_S)))
            audio = write_rtp(lab.workdir / f"{user}.pcap", voice, 0x5EED0000 + index)
            server = sipp.uas(
                nodes["gateway"],
                lab.workdir,
                f"gateway-{user}",
                gateway(audio, announces),
                local=(GATEWAY, 5060 + int(number[-1])),
                keys={"user": "gateway"},
                media_addr=GATEWAY,
                media_port=16000 + 10 * index,
            )
            servers.append(agents.enter_context(server))
        phones = [
            baresip.start(
                nodes[user],
                lab.workdir,
                user,
                address=address,
                domain=DOMAIN,
                proxy=f"{PBX}:5060",
                commands=[f"/dial sip:{number}@{DOMAIN}"],
                seconds=10,
            )
            for user, address, number in calls
        ]
        for softphone in phones:
            softphone.wait(timeout=25, check=False)
        for server in servers:
            server.wait(timeout=5)
