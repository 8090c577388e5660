"""Records SIP over TLS 1.2, TLS 1.3, WebSocket and secure WebSocket, with the secrets in the file.

``python captures/samples/transports/record.py`` writes ``recorded/sip_tls_ws.pcapng`` again: five phones register
at kamailio, and three calls go from one transport to another. It asks for root, kamailio with the packages
kamailio-tls-modules and kamailio-websocket-modules, openssl, tcpdump, and editcap. No hit or near miss of a pattern.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OUT = Path(__file__).parent / "recorded" / "sip_tls_ws.pcapng"
SERVER = "192.0.2.20"
PORTS = {"tls": 5061, "ws": 80, "wss": 443}
PHONES = tuple(f"192.0.2.{n}" for n in range(10, 16))
MODULES = ("tls", "kex", "corex", "tm", "sl", "rr", "pv", "maxfwd", "textops", "siputils", "usrloc", "registrar",
           "nathelper", "xhttp", "websocket")
CONFIG = """
debug=1
log_stderror=yes
children=1
tcp_children=2
enable_tls=yes
auto_aliases=no
dns=no
rev_dns=no
server_signature=no
tcp_accept_no_cl=yes
listen=tls:{server}:5061
listen=tcp:{server}:80
listen=tls:{server}:443
{modules}
modparam("tls", "tls_method", "TLSv1.2+")
modparam("tls", "private_key", "{folder}/key.pem")
modparam("tls", "certificate", "{folder}/cert.pem")
modparam("nathelper|registrar", "received_avp", "$avp(received)")
modparam("rr", "enable_full_lr", 1)
request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    force_rport();
    if (is_method("REGISTER")) {{ fix_nated_register(); if (!save("location")) {{ sl_reply_error(); }} exit; }}
    if (is_method("OPTIONS")) {{ sl_send_reply("200", "OK"); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ handle_ruri_alias(); t_on_reply("REPLY"); t_relay(); }}
        exit;
    }}
    if (!t_newtran()) {{ exit; }}
    set_contact_alias();
    record_route();
    if (!lookup("location")) {{ t_reply("404", "Not Found"); exit; }}
    t_on_reply("REPLY");
    t_relay();
}}
onreply_route[REPLY] {{ set_contact_alias(); }}
event_route[xhttp:request] {{
    set_reply_close();
    set_reply_no_connect();
    if ($hdr(Upgrade) =~ "websocket" && $rm =~ "GET") {{ ws_handle_handshake(); exit; }}
    xhttp_reply("404", "Not Found", "", "");
}}
"""
SDP = ("v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0 8\r\n"
       "a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n")


class Phone:
    """One connection to kamailio, and the user that is registered over it."""

    def __init__(self, user: str, address: str, transport: str, keys: Path, version: ssl.TLSVersion | None = None,
                 suites: str = "") -> None:
        self.user, self.address, self.transport = user, address, transport
        self.received = b""
        self.socket = socket.create_connection((SERVER, PORTS[transport]), 5, (address, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if version is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.keylog_filename = str(keys)
            context.minimum_version = context.maximum_version = version
            if suites:
                context.set_ciphers(suites)
            self.socket = context.wrap_socket(self.socket, server_hostname="sip.example")
        if transport != "tls":
            self._upgrade()
        self.send(self.request("REGISTER", "sip:sip.example", f"register-{user}@{address}", 1, user,
                               extra="Expires: 600\r\n"))
        self.receive()

    def _upgrade(self) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((
            f"GET /sip HTTP/1.1\r\nHost: sip.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n"
            f"Origin: http://sip.example\r\n\r\n").encode())
        while b"\r\n\r\n" not in self.received:
            self.received += self.socket.recv(4096)
        self.received = self.received.partition(b"\r\n\r\n")[2]

    def send(self, text: str) -> None:
        data = text.encode()
        if self.transport == "tls":
            self.socket.sendall(data)
            return
        mask = os.urandom(4)
        head = bytes([0x81, 0x80 | len(data)]) if len(data) < 126 else b"\x81\xfe" + len(data).to_bytes(2, "big")
        self.socket.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def receive(self) -> str:
        """The next message."""
        while True:
            data = self.received
            if self.transport == "tls":
                head = data.find(b"\r\n\r\n") + 4
                length = re.search(rb"(?i)content-length: *(\d+)", data[:head]) if head > 3 else None
                begin, end = 0, head + int(length[1]) if length else len(data) + 1
            else:
                begin = 4 if len(data) > 1 and data[1] == 126 else 2
                size = int.from_bytes(data[2:4], "big") if begin == 4 else data[1] if len(data) > 1 else len(data)
                end = begin + size
            if len(data) >= end:
                self.received = data[end:]
                return data[begin:end].decode()
            self.received += self.socket.recv(65536)

    def request(self, method: str, uri: str, call_id: str, cseq: int, to: str, tag: str = "", extra: str = "",
                body: str = "") -> str:
        return (f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{self.transport.upper()} {self.address}:5999"
                f";branch=z9hG4bK{os.urandom(5).hex()};rport\r\nMax-Forwards: 70\r\n"
                f"From: <sip:{self.user}@sip.example>;tag={self.user}1\r\nTo: <sip:{to}@sip.example>{tag}\r\n"
                f"Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{self._contact()}{extra}{_body(body)}")

    def answer(self, request: str, status: str, body: str = "") -> None:
        same = "".join(f"{name}: {value}\r\n" for name in ("Via", "Record-Route", "From", "Call-ID", "CSeq")
                       for value in _values(request, name))
        to = _values(request, "To")[0]
        to += "" if ";tag=" in to else f";tag={self.user}2"
        self.send(f"SIP/2.0 {status}\r\n{same}To: {to}\r\n{self._contact()}{_body(body)}")

    def _contact(self) -> str:
        return f"Contact: <sip:{self.user}@{self.address}:5999;transport={self.transport}>\r\n"


def _body(body: str) -> str:
    kind = "Content-Type: application/sdp\r\n" if body else ""
    return f"{kind}Content-Length: {len(body)}\r\n\r\n{body}"


def _values(text: str, name: str) -> list[str]:
    return re.findall(rf"(?mi)^{name}: *(.*?)\r$", text)


def call(caller: Phone, callee: Phone, call_id: str) -> None:
    """INVITE, 180, 200, ACK, and BYE by the caller."""
    caller.send(caller.request("INVITE", f"sip:{callee.user}@sip.example", call_id, 1, callee.user,
                               body=SDP.format(caller.address)))
    invite = callee.receive()
    callee.answer(invite, "180 Ringing")
    callee.answer(invite, "200 OK", SDP.format(callee.address))
    while not (reply := caller.receive()).startswith("SIP/2.0 200"):
        pass
    target = _values(reply, "Contact")[0].strip("<>")
    routes = "".join(f"Route: {one.strip()}\r\n" for value in reversed(_values(reply, "Record-Route"))
                     for one in reversed(value.split(",")))
    tag = f";tag={callee.user}2"
    caller.send(caller.request("ACK", target, call_id, 1, callee.user, tag, routes))
    callee.receive()
    time.sleep(0.3)
    caller.send(caller.request("BYE", target, call_id, 2, callee.user, tag, routes))
    callee.answer(callee.receive(), "200 OK")
    caller.receive()


def talk(keys: Path) -> None:
    """All that is recorded."""
    new, old = ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2
    alice = Phone("alice", PHONES[0], "tls", keys, new)
    bob = Phone("bob", PHONES[1], "tls", keys, old, "ECDHE-RSA-AES256-SHA384")
    call(alice, bob, "tls13-tls12@192.0.2.10")
    carol = Phone("carol", PHONES[2], "wss", keys, new)
    dave = Phone("dave", PHONES[3], "ws", keys)
    erin = Phone("erin", PHONES[4], "wss", keys, old, "ECDHE-RSA-AES128-GCM-SHA256")
    call(carol, dave, "wss-ws@192.0.2.12")
    call(erin, alice, "wss-tls@192.0.2.14")
    frank = Phone("frank", PHONES[5], "tls", keys, old, "ECDHE-RSA-CHACHA20-POLY1305")
    one, two, three = (frank.request("OPTIONS", "sip:sip.example", f"options-{n}@192.0.2.15", 1, "frank")
                       for n in range(3))
    for part in (one[:50], one[50:90], one[90:], two + three):  # one message in three records, two in one
        frank.send(part)
        time.sleep(0.05)
    for _ in range(3):
        frank.receive()
    for phone in (alice, bob, carol, dave, erin, frank):
        phone.socket.close()


def record(folder: Path) -> None:
    """Runs in a network namespace of its own, with nothing but its loopback interface."""
    for command in ("link set lo mtu 1500 up", *(f"addr add {a}/32 dev lo" for a in (*PHONES, SERVER))):
        subprocess.run(["ip", *command.split()], check=True)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=sip.example", "-days",
                    "30", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
    config = folder / "kamailio.cfg"
    config.write_text(CONFIG.format(server=SERVER, folder=folder,
                                    modules="\n".join(f'loadmodule "{name}.so"' for name in MODULES)))
    with open(folder / "log", "wb") as log:
        proxy = subprocess.Popen(["kamailio", "-f", config, "-DD", "-E", "-w", folder, "-Y", folder, "-P",
                                  folder / "pid"], stderr=log)
        recorder = subprocess.Popen(["tcpdump", "--immediate-mode", "-U", "-Z", "root", "-i", "lo", "-w",
                                     folder / "lo.pcap", "tcp"], stderr=log)
        try:
            time.sleep(2)
            talk(folder / "keys")
            time.sleep(0.3)
        finally:
            for process in (recorder, proxy):
                process.terminate()
                process.wait(10)


def main() -> None:
    if len(sys.argv) > 1:
        record(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["unshare", "-n", sys.executable, __file__, name], check=True)
        OUT.parent.mkdir(exist_ok=True)
        subprocess.run(["editcap", "--inject-secrets", f"tls,{name}/keys", f"{name}/lo.pcap", OUT], check=True)
    print(OUT.name, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
