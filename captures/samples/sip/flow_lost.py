"""Samples of SIP-FLOW-LOST: a phone registers over TCP, the connection dies, and calls to it fail."""

from _craft.network import Connection, Wire
from _craft.sip import Dialog, register

PHONE, OTHER, REGISTRAR, CALLER = "203.0.113.5", "203.0.113.6", "198.51.100.10", "203.0.113.77"
AOR = "sip:100@pbx.example"
SYNS = (0.0, 1.0, 3.0, 7.0)

HIT_FRAMES = {"hit": [4, *range(7, 12)], "hit_refused": [4, 8, 9, 11, 12], "hit_young": [4, *range(8, 12)],
              "hit_restored": [4, *range(7, 12), 15], "hit_contact": [4, *range(7, 12)],
              "hit_unacked": [4, *range(11, 16)], "hit_tls": list(range(7, 12)),
              "hit_another_device": [4, 8, 9, 18, 19, 20, 21], "hit_430": [4, 8, 9],
              "hit_480": [4, 8, 9, 11, 12]}


class Phone:
    """A phone and its connections to the registrar."""

    def __init__(self, port: int = 5060) -> None:
        self.wire, self.port = Wire(), port
        self.number = 0

    def connect(self, at: float, cport: int = 41000) -> Connection:
        connection = Connection(self.wire, PHONE, cport, REGISTRAR, self.port)
        connection.open(at)
        return connection

    def register(self, connection: Connection, at: float, expires: int = 3600, contact: str = "", aor: str = AOR,
                 call_id: str = "reg-1") -> None:
        """REGISTER and its 200."""
        self.number += 1
        where = contact or f"{PHONE}:{connection.cport}"
        head = (f"Via: SIP/2.0/TCP {where};branch=z9hG4bK{self.number}\r\nFrom: <{aor}>;tag=1\r\nTo: <{aor}>{{}}\r\n"
                f"Call-ID: {call_id}\r\nCSeq: {self.number} REGISTER\r\n"
                f"Contact: <sip:100@{where};transport=tcp>;expires={expires}\r\nContent-Length: 0\r\n\r\n")
        connection.data(at, True, f"REGISTER sip:pbx.example SIP/2.0\r\n{head.format('')}".encode())
        connection.data(at + 0.05, False, f"SIP/2.0 200 OK\r\n{head.format(';tag=2')}".encode())

    def reach(self, at: float, port: int = 41000, syns: tuple[float, ...] = SYNS,
              source: str = REGISTRAR) -> Connection:
        """The registrar tries to open a connection to the phone."""
        connection = Connection(self.wire, source, 38000, PHONE, port, client_ttl=57, server_ttl=64)
        for i, later in enumerate(syns):
            connection.syn(at + later, again=i > 0)
        return connection

    def refuse(self, at: float) -> None:
        """The registrar tries to open a connection, and the phone's host resets it."""
        connection = self.reach(at, syns=(0.0,))
        connection.segment(at + 0.02, False, "RA", ack=connection.cseq)

    def call(self, at: float, status: int) -> None:
        """Somebody calls, and the registrar refuses."""
        dialog = Dialog(self.wire, CALLER, REGISTRAR, callee_uri=AOR)
        dialog.request(at, "INVITE")
        dialog.response(at + 0.1, status, "X")
        dialog.request(at + 0.12, "ACK", to_tag=True, new_branch=False)

    def sorted(self):
        return self.wire.sorted()


def _registered(contact: str = "", expires: int = 3600) -> tuple[Phone, Connection]:
    phone = Phone()
    connection = phone.connect(0.0)
    phone.register(connection, 0.1, expires, contact)
    return phone, connection


def hit():
    """After 400 s of silence the registrar tries the old source port in vain."""
    phone, _ = _registered()
    phone.reach(400.0)
    return phone.sorted()


def hit_refused():
    """The phone closed its connection; its host resets the new one."""
    phone, connection = _registered()
    connection.close(60.0)
    phone.refuse(90.0)
    return phone.sorted()


def hit_young():
    """The SYN is not answered, and nothing tells why: suspected."""
    phone, _ = _registered()
    phone.reach(60.0)
    return phone.sorted()


def hit_restored():
    """The phone registers again ten minutes later, over a new connection."""
    phone, _ = _registered()
    phone.reach(400.0)
    phone.register(phone.connect(1000.0, 41777), 1000.1)
    return phone.sorted()


def hit_contact():
    """The registrar tries the port of the Contact, where no phone listens."""
    phone, _ = _registered(f"{PHONE}:5062")
    phone.reach(400.0, 5062)
    return phone.sorted()


def hit_unacked():
    """The registrar first sends on the old connection, without an ACK, then opens a new one."""
    phone, connection = _registered()
    request = b"OPTIONS sip:100@pbx.example SIP/2.0\r\nContent-Length: 0\r\n\r\n"
    connection.data(50.0, False, request, None)
    for later in (0.3, 0.9, 2.1):
        connection.again(50.0 + later, False, request)
    phone.reach(60.0)
    return phone.sorted()


def hit_tls():
    """TLS without keys: the server opens a connection to the port from which the client had spoken to it."""
    phone = Phone(5061)
    connection = phone.connect(0.0)
    connection.data(0.1, True, b"\x17\x03\x03\x00\x20" + bytes(32))
    connection.data(0.2, False, b"\x17\x03\x03\x00\x20" + bytes(32))
    phone.reach(400.0)
    return phone.sorted()


def hit_430():
    """The edge says it: Flow Failed."""
    phone, _ = _registered()
    phone.call(50.0, 430)
    return phone.sorted()


def hit_480():
    """The phone is registered, its connection is closed, and calls get 480."""
    phone, connection = _registered()
    connection.close(60.0)
    phone.call(90.0, 480)
    return phone.sorted()


def near_miss_answered():
    """Condition: not answered. A trunk peer takes connections; the first SYN got lost."""
    phone, _ = _registered(f"{PHONE}:5060")
    connection = phone.reach(400.0, 5060, syns=SYNS[:2])
    connection.segment(401.02, False, "SA")
    connection.segment(401.04, True, "A")
    return phone.sorted()


def near_miss_one_syn():
    """Condition: two SYNs. One may be lost."""
    phone, _ = _registered()
    phone.reach(400.0, syns=(0.0,))
    return phone.sorted()


def near_miss_registers_again():
    """Condition: not registered again within 10 s. The phone has changed its network."""
    phone, _ = _registered()
    phone.reach(400.0)
    phone.register(phone.connect(405.0, 41777), 405.1)
    return phone.sorted()


def _started_again(aor: str = AOR) -> Phone:
    """A phone closes its connection without leave; then one of that address registers ``aor`` over another."""
    phone, connection = _registered()
    connection.close(50.0)
    again = phone.connect(60.0, 41002)
    phone.register(again, 60.1, aor=aor, call_id="reg-2")
    return phone


def near_miss_started_again():
    """Condition: no newer connection of the client. The phone restarted: another Call-ID, and its old Contact dies."""
    phone = _started_again()
    phone.refuse(90.0)
    return phone.sorted()


def hit_another_device():
    """The newer connection from that address is of another address of record, as behind a NAT."""
    phone = _started_again("sip:101@pbx.example")
    phone.reach(90.0)
    return phone.sorted()


def near_miss_started_again_tls():
    """Condition: no newer connection of the client. With TLS and no keys, too."""
    phone = Phone(5061)
    for start, cport in ((0.0, 41000), (60.0, 41002)):
        connection = phone.connect(start, cport)
        connection.data(start + 0.1, True, b"\x17\x03\x03\x00\x20" + bytes(32))
        connection.data(start + 0.2, False, b"\x17\x03\x03\x00\x20" + bytes(32))
        if not start:
            connection.close(50.0)
    phone.refuse(90.0)
    return phone.sorted()


def near_miss_expired():
    """Condition: the registration holds. It was for 300 s."""
    phone, _ = _registered(expires=300)
    phone.reach(400.0)
    return phone.sorted()


def near_miss_removed():
    """Condition: the registration holds. The phone has removed it."""
    phone, connection = _registered()
    phone.register(connection, 100.0, 0)
    phone.reach(400.0)
    return phone.sorted()


def near_miss_other_port():
    """Condition: the source port or that of the Contact. The registrar connects to a web server there."""
    phone, _ = _registered()
    phone.reach(400.0, 443)
    return phone.sorted()


def near_miss_other_host():
    """Condition: the registrar tries. Somebody else scans the phone."""
    phone, _ = _registered()
    phone.reach(400.0, source=CALLER)
    return phone.sorted()


def near_miss_before():
    """Condition: after the registration. The SYNs came first."""
    phone = Phone()
    phone.reach(0.0)
    phone.register(phone.connect(20.0), 20.1)
    return phone.sorted()


def near_miss_480_alive():
    """Condition: for 480, the connection was closed. This one lives: the user does not want calls."""
    phone, _ = _registered()
    phone.call(90.0, 480)
    return phone.sorted()


def near_miss_480_expired():
    """Condition: for 480, the registration holds. It was for 60 s."""
    phone, connection = _registered(expires=60)
    connection.close(60.0)
    phone.call(90.0, 480)
    return phone.sorted()


def near_miss_udp():
    """Condition: a registration over TCP. This one was over UDP, and another phone's over TCP."""
    phone, _ = _registered()
    register(phone.wire, 1.0, OTHER, 5060, REGISTRAR, contact=f"200@{OTHER}:5060", call_id="reg-2", cseq=1)
    connection = Connection(phone.wire, REGISTRAR, 38000, OTHER, 5060)
    for i, later in enumerate(SYNS):
        connection.syn(400.0 + later, again=i > 0)
    return phone.sorted()


def near_miss_not_spoken():
    """Condition: with TLS, the client had spoken from that port. It had used another one."""
    phone = Phone(5061)
    connection = phone.connect(0.0)
    connection.data(0.1, True, b"\x17\x03\x03\x00\x20" + bytes(32))
    connection.data(0.2, False, b"\x17\x03\x03\x00\x20" + bytes(32))
    phone.reach(400.0, 41001)
    return phone.sorted()


def near_miss_other_service():
    """Condition: a SIP port. The client had spoken to a web server from there, and to a SIP port from another."""
    phone = Phone(443)
    for port, cport in ((443, 41000), (5061, 41001)):
        phone.port = port
        connection = phone.connect(0.0, cport)
        connection.data(0.1, True, b"\x17\x03\x03\x00\x20" + bytes(32))
        connection.data(0.2, False, b"\x17\x03\x03\x00\x20" + bytes(32))
    phone.reach(400.0)
    return phone.sorted()
