"""Samples of FW-REJECT: who says no, the host, a device in its name, or a device in its own name."""

from _craft.network import Connection, Wire, ip
from scapy.layers.inet6 import ICMPv6DestUnreach
from scapy.packet import Raw

CLIENT, SERVER, FILTER = "10.20.0.15", "198.51.100.20", "203.0.113.1"
CLIENT6, SERVER6, FILTER6 = "2001:db8:20::15", "2001:db8:51::20", "2001:db8:71::1"

HIT_FRAMES = {"hit": [5, 6], "hit_closed_port": [5, 6], "hit_other_initial_ttl": [5, 6], "hit_alone": [1, 2],
              "hit_prohibited": [1, 2, 3, 4], "hit_port_unreachable": [1, 2], "hit_host_unreachable": [1, 2],
              "hit_protocol_unreachable": [1, 2], "hit_net_unreachable": [1, 2], "hit_next_to_the_host": [5, 6],
              "hit_prohibited_udp": [3], "hit_ipv6": [1, 2], "hit_keeps_failing": [1, 2, 3, 4, 5, 6],
              "hit_everywhere": list(range(1, 41))}


def _genuine(wire: Wire, at: float = 0.0, ttl: int = 57) -> None:
    """Another port of the host works, seven routers away."""
    other = Connection(wire, CLIENT, 40001, SERVER, 443, server_ttl=ttl)
    other.open(at)
    wire_end = other.close(at + 20.0)
    assert wire_end


def _refused(wire: Wire, at: float, ttl: int, cport: int = 40000, port: int = 5061) -> Connection:
    conn = Connection(wire, CLIENT, cport, SERVER, port)
    conn.syn(at)
    conn.segment(at + 0.002, False, "RA", seq=0, ttl=ttl, window=0)
    return conn


def hit():
    """The reset has passed two routers, the host's packets seven: a device refuses in the host's name."""
    wire = Wire()
    _genuine(wire)
    wire.udp(0.5, CLIENT, 5353, SERVER, 4000, b"unrelated")
    _refused(wire, 1.0, ttl=62)
    return wire.sorted()


def hit_closed_port():
    """The reset comes from where the host is: nothing listens there."""
    wire = Wire()
    _genuine(wire)
    wire.udp(0.5, CLIENT, 5353, SERVER, 4000, b"unrelated")
    _refused(wire, 1.0, ttl=57)
    return wire.sorted()


def hit_other_initial_ttl():
    """The host's resets start at 255 and its data at 64; both passed seven routers, so it is the host."""
    wire = Wire()
    _genuine(wire)
    wire.udp(0.5, CLIENT, 5353, SERVER, 4000, b"unrelated")
    _refused(wire, 1.0, ttl=248)
    return wire.sorted()


def hit_alone():
    """Only the refusal: nothing to compare the TTL with."""
    wire = Wire()
    _refused(wire, 0.0, ttl=57)
    return wire.sorted()


def _icmp(code: int) -> Wire:
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    syn = conn.syn(0.0)
    wire.icmp_error(0.005, FILTER, wire.frames[syn], type=3, code=code, ttl=62)
    return wire


def hit_prohibited():
    """Communication administratively prohibited, for the SYN and its repetition."""
    wire = _icmp(13)
    wire.add(1.0, wire.frames[0].payload.copy())
    wire.icmp_error(1.005, FILTER, wire.frames[0], type=3, code=13, ttl=62)
    return wire.sorted()


def hit_port_unreachable():
    """Port unreachable about TCP, from the host's address: the default answer of a packet filter on it."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    syn = conn.syn(0.0)
    wire.icmp_error(0.005, SERVER, wire.frames[syn], type=3, code=3, ttl=57)
    return wire.sorted()


def hit_host_unreachable():
    """Host unreachable, from the last router."""
    return _icmp(1).sorted()


def hit_net_unreachable():
    """Network unreachable, from a router without a route."""
    return _icmp(0).sorted()


def hit_protocol_unreachable():
    """Protocol unreachable about TCP, from a device that is not the host."""
    return _icmp(2).sorted()


def hit_next_to_the_host():
    """The reset has passed one router less than the host's packets: the device before it, or another way."""
    wire = Wire()
    _genuine(wire)
    wire.udp(0.5, CLIENT, 5353, SERVER, 4000, b"unrelated")
    _refused(wire, 1.0, ttl=58)
    return wire.sorted()


def hit_prohibited_udp():
    """A filter prohibits a UDP flow."""
    wire = Wire()
    wire.udp(0.0, CLIENT, 40000, SERVER, 5090, b"one")
    sent = wire.udp(0.5, CLIENT, 40000, SERVER, 5090, b"two")
    wire.icmp_error(0.505, FILTER, wire.frames[sent], type=3, code=10, ttl=62)
    return wire.sorted()


def hit_ipv6():
    """Administratively prohibited over IPv6."""
    wire = Wire()
    conn = Connection(wire, CLIENT6, 40000, SERVER6, 5061)
    syn = conn.syn(0.0)
    quoted = bytes(wire.frames[syn].payload)
    wire.add(0.005, ip(FILTER6, CLIENT6, 62) / ICMPv6DestUnreach(code=1) / Raw(quoted))
    return wire.sorted()


def hit_keeps_failing():
    """Three refusals before it works are more than a restart."""
    wire = Wire()
    for n in range(3):
        _refused(wire, n * 1.0, ttl=57, cport=40000 + 2 * n)
    Connection(wire, CLIENT, 40010, SERVER, 5061).open(9.0)
    return wire.sorted()


def _many(wire: Wire, port: int = 25) -> None:
    for n in range(21):
        conn = Connection(wire, CLIENT, 40000 + n, f"198.51.100.{100 + n}", port)
        conn.syn(n * 0.01)
        conn.segment(n * 0.01 + 0.002, False, "RA", seq=0, ttl=62, window=0)


def hit_everywhere():
    """One port of 21 hosts refuses, once each: one finding, with the frames of the first twenty."""
    wire = Wire()
    _many(wire)
    return wire.sorted()


def near_miss_other_ack():
    """Condition: the reset acknowledges the SYN. This one answers an older connection on the same ports."""
    wire = Wire()
    _genuine(wire)
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    conn.syn(1.0)
    conn.segment(1.002, False, "RA", seq=0, ack=77777, ttl=62, window=0)
    return wire.sorted()


def near_miss_after_handshake():
    """Condition: the reset answers the SYN. Here the handshake was complete."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    conn.open(0.0)
    conn.segment(0.05, False, "RA", seq=conn.sseq, ack=1001, ttl=62, window=0)
    return wire.sorted()


def near_miss_then_works():
    """Condition: not only until it works. Two refusals while the service restarts, then it answers."""
    wire = Wire()
    _refused(wire, 0.0, ttl=57, cport=40000)
    _refused(wire, 1.0, ttl=57, cport=40002)
    Connection(wire, CLIENT, 40004, SERVER, 5061).open(2.0)
    return wire.sorted()


def near_miss_then_works_two_points():
    """Condition: not only until it works. The same two refusals at two points are two."""
    client, server = Wire(), Wire()
    for wire, later, ttl in ((client, 0.0, 57), (server, 0.001, 64)):
        _refused(wire, 0.0 + later, ttl=ttl, cport=40000)
        _refused(wire, 1.0 + later, ttl=ttl, cport=40002)
        Connection(wire, CLIENT, 40004, SERVER, 5061).open(2.0 + later)
    return {"client": client.sorted(), "server": server.sorted()}


def near_miss_udp_protocol():
    """Condition: about UDP, only a prohibition counts. Protocol unreachable is the host's own word."""
    wire = Wire()
    sent = wire.udp(0.0, CLIENT, 40000, SERVER, 5090, b"one")
    wire.icmp_error(0.005, SERVER, wire.frames[sent], type=3, code=2, ttl=57)
    Connection(wire, CLIENT, 40001, SERVER, 443).open(1.0)
    return wire.sorted()


def near_miss_sweep():
    """Condition: no port sweep. 21 ports of one host are refused to one client."""
    wire = Wire()
    for n in range(21):
        _refused(wire, n * 0.1, ttl=57, cport=40100 + n, port=7000 + n)
    return wire.sorted()


def near_miss_sweep_prohibited():
    """Condition: no port sweep. 21 ports of one host are prohibited to one client."""
    wire = Wire()
    for n in range(21):
        syn = Connection(wire, CLIENT, 40100 + n, SERVER, 7000 + n).syn(n * 0.1)
        wire.icmp_error(n * 0.1 + 0.005, FILTER, wire.frames[syn], type=3, code=13, ttl=62)
    return wire.sorted()


def near_miss_udp_port():
    """Condition: about UDP, only a prohibition counts. Port unreachable is a closed UDP port."""
    wire = Wire()
    sent = wire.udp(0.0, CLIENT, 40000, SERVER, 5090, b"one")
    wire.icmp_error(0.005, SERVER, wire.frames[sent], type=3, code=3, ttl=57)
    Connection(wire, CLIENT, 40001, SERVER, 443).open(1.0)
    return wire.sorted()


def near_miss_udp_host():
    """Condition: about UDP, only a prohibition counts. Host unreachable may be a phone that was switched off."""
    wire = Wire()
    sent = wire.udp(0.0, CLIENT, 40000, SERVER, 5090, b"one")
    wire.icmp_error(0.005, FILTER, wire.frames[sent], type=3, code=1, ttl=62)
    Connection(wire, CLIENT, 40001, SERVER, 443).open(1.0)
    return wire.sorted()


def near_miss_running():
    """Condition: the connection has not begun. A router without a route complains about one that works."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    conn.open(0.0)
    sent = conn.segment(1.0, True, "PA", b"data")
    wire.icmp_error(1.005, FILTER, wire.frames[sent], type=3, code=1, ttl=62)
    return wire.sorted()


def near_miss_fragmentation():
    """Condition: the codes of a refusal. Fragmentation needed is another story."""
    return _icmp(4).sorted()


def near_miss_time_exceeded():
    """Condition: destination unreachable. Time exceeded in transit is a loop or a traceroute."""
    wire = Wire()
    conn = Connection(wire, CLIENT, 40000, SERVER, 5061)
    syn = conn.syn(0.0)
    wire.icmp_error(0.005, FILTER, wire.frames[syn], type=11, code=1, ttl=62)
    return wire.sorted()


def near_miss_quote_alone():
    """Condition: host unreachable counts when its SYN was captured. Alone, it may be about anything."""
    wire = _icmp(1)
    other = Wire()
    Connection(other, CLIENT, 40001, SERVER, 443).open(0.0)
    wire.frames[0] = other.frames[0]
    wire.frames += other.frames[1:]
    return wire.sorted()
