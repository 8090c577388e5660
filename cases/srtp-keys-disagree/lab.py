"""SRTP by SDES across a border proxy: a forked call, calls held before and behind a wrap, and a trunk without SRTP.

    forked, inbound, early, strict -- [border] -- [core] -- desk1, desk2, carrier, fax

The border is kamailio; its host routes the media, which do not pass through it. Signalling is SIPp's and media are
libsrtp's (``srtp_peer.py``), but ``strict`` and ``fax`` are baresips. ``broken``: the border puts the first key of a
call into all later answers, desk1's announcement does not stop, the carrier's stack makes its cryptographic context
anew at each re-INVITE, and ``strict`` demands SRTP of whomever it calls.
"""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import ExitStack
from pathlib import Path

from netdiag.errors import LabError
from netdiag.lab import baresip, kamailio, sipp
from netdiag.lab.process import Process
from netdiag.lab.topology import Lab, Node

DOMAIN, BORDER = "voice.example", "198.51.100.10"
PHONES = {"forked": "192.0.2.11", "inbound": "192.0.2.12", "early": "192.0.2.13", "strict": "192.0.2.14"}
CORE = {"desk1": "203.0.113.18", "desk2": "203.0.113.34", "carrier": "203.0.113.66", "fax": "203.0.113.82"}
LATE_FIRST = 65496  # first sequence number of the carrier's longer call: it wraps after 1.6 s
DESK2_SSRC, CARRIER_SSRC = 0xDE5C0002, 0xCA441E40
SUITE = "AES_CM_128_HMAC_SHA1_80"

DESTINATION = f"""
    switch ($rU) {{
        case "5550130":
            $ru = "sip:5550130@{CORE['desk1']}";
            append_branch("sip:5550130@{CORE['desk2']}");
            break;
        case "5550112": $ru = "sip:5550112@{PHONES['inbound']}"; break;
        case "5550113": $ru = "sip:5550113@{PHONES['early']}:5062"; break;
        default: $ru = "sip:fax@{CORE['fax']}";
    }}
"""

# Written when a gateway named another key in its 200 than in its 183, and the phones of that time fell silent.
ONE_KEY_PER_CALL = """
    if (is_request() || !has_body("application/sdp")) { return; }
    if ($avp(key) == $null) { $avp(key) = $(rb{line.sw,a=crypto}); return; }
    if ($(rb{line.sw,a=crypto}) != $avp(key)) {
        subst_body('@a=crypto:[0-9]+ [A-Za-z0-9_]+ inline:[A-Za-z0-9+/]+@$avp(key)@');
    }
"""

TOLD = """<action>
    <ereg regexp="inline:([A-Za-z0-9+/]*)" search_in="body" check_it="true" assign_to="whole,key"/>
    <exec command="ln -sfn [$key] told"/>
  </action>"""
UNUSED = '  <Reference variables="whole"/>\n'


def master(name: str) -> str:
    """The lab's master key and salt of one side, as a=crypto writes it."""
    return base64.b64encode(hashlib.sha256(f"lab {name}".encode()).digest()[:30]).decode()


def do(*words: str) -> str:
    """A SIPp step that tells the media peer what to do."""
    return f'  <nop><action><exec command="touch {" ".join(words)}"/></action></nop>\n'


def described(direction: str = "sendrecv", version: int = 1) -> str:
    return f"""Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=- 7 {version} IN IP4 [local_ip]
    s=-
    c=IN IP4 [local_ip]
    t=0 0
    m=audio [media] RTP/SAVP 3
    a=rtpmap:3 GSM/8000
    a=ptime:40
    a=crypto:1 {SUITE} inline:[master]
    a={direction}
"""


def ask(method: str, cseq: int, rest: str = "Content-Length: 0\n", routed: bool = True, retrans: bool = True) -> str:
    """A request of the calling side, in the dialog once it is ``routed``."""
    uri = "[next_url]" if routed else f"sip:[number]@{DOMAIN}"
    tag = "[peer_tag_param]" if routed else ""
    return f"""  <send{' retrans="500"' if retrans else ''}><![CDATA[
    {method} {uri} SIP/2.0
    Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
    {"[routes]" if routed else "Max-Forwards: 70"}
    From: <sip:caller@{DOMAIN}>;tag=[pid]from[call_number]
    To: <sip:[number]@{DOMAIN}>{tag}
    Call-ID: [call_id]
    CSeq: {cseq} {method}
    Contact: <sip:caller@[local_ip]:[local_port]>
    {rest}
  ]]></send>
"""


def reply(status: str, rest: str = "Content-Length: 0\n", retrans: bool = False) -> str:
    """A response of the called side."""
    return f"""  <send{' retrans="500"' if retrans else ''}><![CDATA[
    SIP/2.0 {status}
    [last_Via:]
    [last_Record-Route:]
    [last_From:]
    [last_To:];tag=[pid]to
    [last_Call-ID:]
    [last_CSeq:]
    Contact: <sip:callee@[local_ip]:[local_port]>
    {rest}
  ]]></send>
"""


def again(status: str, rest: str = "Content-Length: 0\n") -> str:
    """A response in a dialog: the To tag is there already."""
    return reply(status, rest).replace(";tag=[pid]to", "")


def scenario(*steps: str) -> str:
    return '<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="lab">\n' + "".join(steps) + "</scenario>\n"


def pause(seconds: float) -> str:
    return f'  <pause milliseconds="{round(seconds * 1000)}"/>\n'


OFFERED = f'  <recv request="INVITE" rrs="true">{TOLD}</recv>\n'
ANSWERED = '  <recv response="100" optional="true"/>\n' \
    f'  <recv response="183" optional="true">{TOLD}</recv>\n  <recv response="180" optional="true"/>\n' \
    f'  <recv response="200" rrs="true">{TOLD}</recv>\n'
TALK = 2.5  # s

FORKED = scenario(ask("INVITE", 1, described(), routed=False), ANSWERED, ask("ACK", 1, retrans=False), do("start"),
                  pause(TALK), ask("BYE", 2), '  <recv response="200"/>\n', do("stop"), UNUSED)
# An announcement, then the CANCEL of the lost branch.
DESK1 = scenario(OFFERED, reply("183 Session Progress", described()), do("start"),
                 '  <recv request="CANCEL"/>\n', reply("200 OK"), "{stop}",
                 reply("487 Request Terminated", retrans=True).replace("[last_CSeq:]", "CSeq: 1 INVITE"),
                 '  <recv request="ACK"/>\n', "{late}", UNUSED)
DESK2 = scenario(OFFERED, reply("180 Ringing"), pause(1.0), reply("200 OK", described(), retrans=True),
                 '  <recv request="ACK"/>\n', do("start"), '  <recv request="BYE"/>\n', again("200 OK"), do("stop"),
                 UNUSED)
CARRIER = scenario(
    ask("INVITE", 1, described(), routed=False), ANSWERED, ask("ACK", 1, retrans=False), do("start"), pause(TALK),
    do("pause"), ask("INVITE", 2, described("sendonly", 2)), '  <recv response="100" optional="true"/>\n',
    '  <recv response="200"/>\n', ask("ACK", 2, retrans=False), pause(1.5),
    ask("INVITE", 3, described("sendrecv", 3)), '  <recv response="100" optional="true"/>\n',
    '  <recv response="200"/>\n', ask("ACK", 3, retrans=False), do("resume"), pause(TALK), ask("BYE", 4),
    '  <recv response="200"/>\n', do("stop"), UNUSED)
HELD = scenario(
    OFFERED, reply("180 Ringing"), reply("200 OK", described(), retrans=True), '  <recv request="ACK"/>\n', do("start"),
    '  <recv request="INVITE"/>\n', do("pause"), again("200 OK", described("recvonly", 2)), '  <recv request="ACK"/>\n',
    '  <recv request="INVITE"/>\n', again("200 OK", described("sendrecv", 3)), '  <recv request="ACK"/>\n',
    do("resume"), '  <recv request="BYE"/>\n', again("200 OK"), do("stop"), UNUSED)


def network(lab: Lab) -> dict[str, Node]:
    """Four phones on a bridge of the border, four other ends behind a core router."""
    nodes = {name: lab.node(name, forward=name in ("border", "core")) for name in (*PHONES, "border", "core", *CORE)}
    border, core = nodes["border"], nodes["core"]
    border.run(["ip", "link", "add", "br-phones", "type", "bridge", "mcast_snooping", "0"])
    border.sysctl("net/ipv6/conf/br-phones/disable_ipv6", 1)
    for index, (name, address) in enumerate(PHONES.items(), 2):
        lab.link(nodes[name], "eth0", f"{address}/24", border, name, f"192.0.2.{index}/24")
        border.run(["ip", "address", "flush", "dev", name])
        border.run(["ip", "link", "set", "dev", name, "master", "br-phones"])
        nodes[name].route("default", "192.0.2.1")
    border.run(["ip", "address", "add", "192.0.2.1/24", "dev", "br-phones"])
    border.run(["ip", "link", "set", "dev", "br-phones", "up"])
    border.run(["ethtool", "-K", "br-phones", "tx", "off"])
    lab.link(border, "core", f"{BORDER}/24", core, "border", "198.51.100.1/24")
    border.route("203.0.113.0/24", "198.51.100.1")
    core.route("default", BORDER)
    for name, address in CORE.items():
        head, _, last = address.rpartition(".")
        gateway = f"{head}.{int(last) - 1}"
        lab.link(nodes[name], "eth0", f"{address}/28", core, name, f"{gateway}/28")
        nodes[name].route("default", gateway)
    return nodes


def run(lab: Lab, variant: str) -> None:
    """Four calls at once, with a recording on each side of the border."""
    broken = variant == "broken"
    nodes = network(lab)
    kamailio.start(nodes["border"], lab.workdir, kamailio.config(
        BORDER, modules=["corex"], destination=DESTINATION, media=ONE_KEY_PER_CALL if broken else ""))
    lab.capture(nodes["border"], "br-phones", "phones")
    lab.capture(nodes["border"], "core", "core")
    late = DESK1.format(stop="" if broken else do("stop"), late=pause(0.8) + do("stop") if broken else "")
    peers: dict[str, Process] = {}
    with ExitStack() as agents:
        def end(name: str, text: str, other: str, ssrc: int, *options: str, first: int = 1000, line: int = 0,
                to: str = "") -> None:
            """A SIPp agent, calling where there is a number to call, and its media peer; ``line`` of several."""
            label = f"{name}{line or ''}"
            folder = lab.workdir / f"sipp-{label}"
            folder.mkdir(parents=True, exist_ok=True)
            address, remote = ({**PHONES, **CORE}[side] for side in (name, other))
            port = str(16000 + line)
            words = (str(folder), address, remote, port, master(label), f"{ssrc:08x}", str(first), *options)
            peers[label] = nodes[name].python(Path(__file__).with_name("srtp_peer.py"), *words, name=f"peer-{label}",
                                              ready="ready")
            keys = {"master": master(label), "media": port, "number": to}
            local = (address, 5060 + line)
            if to:
                agent = sipp.uac(nodes[name], lab.workdir, label, text, local=local, remote=(BORDER, 5060), keys=keys)
            else:
                agent = sipp.uas(nodes[name], lab.workdir, label, text, local=local, keys=keys)
            running.append(agents.enter_context(agent))

        running: list[sipp.Agent] = []
        renew = ["renew"] if broken else []
        fax = baresip.start(nodes["fax"], lab.workdir, "fax", address=CORE["fax"], domain=DOMAIN,
                            proxy=f"{BORDER}:5060", account=";answermode=auto", registration_s=0)
        end("desk1", late, "forked", 0xDE5C0001)
        end("desk2", DESK2, "forked", DESK2_SSRC)
        end("inbound", HELD, "carrier", 0x0F0E0012)
        end("early", HELD, "carrier", 0x0F0E0013, line=2)
        end("forked", FORKED, "desk2", 0x0F0E0011, to="5550130")
        end("carrier", CARRIER, "inbound", CARRIER_SSRC, "music", *renew, first=LATE_FIRST, to="5550112")
        end("carrier", CARRIER, "early", 0xCA441E41, "music", *renew, line=2, to="5550113")
        mode = "srtp-mand" if broken else "srtp"
        strict = baresip.start(nodes["strict"], lab.workdir, "strict", address=PHONES["strict"], domain=DOMAIN,
                               proxy=f"{BORDER}:5060", modules=["srtp"], account=f";mediaenc={mode}", registration_s=0,
                               commands=[f"/dial sip:5550150@{DOMAIN}"], seconds=2)
        for agent in running:
            agent.wait(timeout=30)
        strict.wait(timeout=20, check=False)
        fax.stop()
    for peer in peers.values():
        peer.wait(timeout=5)
    heard = "\n".join(f"{name}: {line}" for name, peer in peers.items() for line in peer.output().splitlines()[1:])
    (lab.workdir / "heard.txt").write_text(heard + "\n")
    counted = {who: (int(got), int(good)) for who, got, good in re.findall(
        r"(\S+: SSRC \w+): received (\d+), authenticated (\d+)", heard)}
    (desk, desk_good), (held, held_good) = counted[f"forked: SSRC 0x{DESK2_SSRC:08x}"], counted[
        f"inbound: SSRC 0x{CARRIER_SSRC:08x}"]
    others = len(counted) - 2 * broken
    # The first packets may overtake the key that SIPp hands over.
    if (sum(good > 0.7 * got for got, good in counted.values()) != others
            or broken != (desk > desk_good == 0) or broken != (held > held_good > 0)):
        raise LabError(f"{variant}: what was authenticated is not as expected\n{heard}")
