"""Samples of SIP-AUTH-LOOP: a phone registers and is challenged again and again."""

from _craft.network import Wire
from _craft.sip import Dialog

PHONE, NODE, SECOND = "203.0.113.66", "198.51.100.20", "198.51.100.21"
AOR = "sip:100@pbx.example"

HIT_FRAMES = {"hit": list(range(1, 9)), "hit_stale": list(range(1, 9)), "hit_nodes": list(range(1, 11)),
              "hit_forbidden": list(range(1, 13)), "hit_algorithm": list(range(1, 7)),
              "hit_old_nonce": list(range(1, 7)), "hit_no_credentials": list(range(1, 7)),
              "hit_by_turns": list(range(1, 13)), "hit_other_realm": list(range(1, 7)),
              "hit_invite": [1, 2, 4, 5, 7, 8], "hit_call_forbidden": [1, 2, 4, 5, 7, 8],
              "hit_each_call_without": [3, 4, 6, 7, 9, 10]}


class Client:
    """REGISTERs of one user; one Call-ID, CSeq rising."""

    def __init__(self, wire: Wire, user: str = "100", call_id: str = "reg-1@a.example", agent: str = "Phone/1") -> None:
        self.wire, self.user, self.call_id, self.agent, self.cseq = wire, user, call_id, agent, 0

    def round(self, at: float, nonce: str = "", status: int = 401, issued: str = "", *, node: str = NODE,
              realm: str = "pbx.example", asked: str = "pbx.example", stale: bool = False, algorithm: str = "MD5",
              offered: str = "MD5", method: str = "REGISTER", proxy: bool = False) -> None:
        """A request, with credentials when there is a ``nonce``, and the final response."""
        self.cseq += 1
        aor = f"sip:{self.user}@pbx.example"
        dialog = Dialog(self.wire, PHONE, node, call_id=self.call_id, caller_uri=aor,
                        callee_uri=aor if method == "REGISTER" else "sip:bob@b.example", cseq=self.cseq,
                        branches=self.cseq)
        credentials = (f'Authorization: Digest username="{self.user}", realm="{realm}", nonce="{nonce}", '
                       f'uri="sip:pbx.example", algorithm={algorithm}, response="{"0" * 32}"\r\n') if nonce else ""
        credentials = ("Proxy-" if proxy and nonce else "") + credentials
        dialog.request(at, method, extra=f"User-Agent: {self.agent}\r\n{credentials}")
        header = "Proxy-Authenticate" if status == 407 else "WWW-Authenticate"
        challenge = (f'{header}: Digest realm="{asked}", nonce="{issued}", algorithm={offered}, qop="auth"'
                     f'{", stale=true" if stale else ""}\r\n') if status in (401, 407) else ""
        dialog.response(at + 0.01, status, "X", method, extra=challenge)
        if method == "INVITE":
            dialog.request(at + 0.02, "ACK", to_tag=True, new_branch=False)


def hit():
    """Three times the nonce just issued is used, and refused with a new one."""
    wire = Wire()
    client = Client(wire)
    client.round(0.0, "", 401, "n1")
    for i in range(1, 4):
        client.round(i * 1.0, f"n{i}", 401, f"n{i + 1}")
    return wire.sorted()


def hit_stale():
    """The credentials are right, but each nonce is called stale."""
    wire = Wire()
    client = Client(wire)
    client.round(0.0, "", 401, "n1")
    for i in range(1, 4):
        client.round(i * 1.0, f"n{i}", 401, f"n{i + 1}", stale=True)
    return wire.sorted()


def hit_nodes():
    """Each of two nodes refuses nonces of the other and accepts its own."""
    wire = Wire()
    client = Client(wire)
    client.round(0.0, "", 401, "a1")
    client.round(1.0, "a1", 401, "b1", node=SECOND)
    client.round(2.0, "b1", 200, node=SECOND)
    client.round(60.0, "b1", 401, "a2")
    client.round(61.0, "a2", 200)
    return wire.sorted()


def hit_forbidden():
    """The server refuses wrong credentials with 403; each attempt has a Call-ID of its own."""
    wire = Wire()
    for i in range(3):
        client = Client(wire, call_id=f"reg-{i}@a.example")
        client.round(30.0 * i, "", 401, f"n{i}")
        client.round(30.0 * i + 1, f"n{i}", 403)
    return wire.sorted()


def hit_algorithm():
    """SHA-256 is offered, the client answers with MD5."""
    wire = Wire()
    client = Client(wire)
    client.round(0.0, "", 401, "n1", offered="SHA-256")
    for i in range(1, 3):
        client.round(i * 1.0, f"n{i}", 401, f"n{i + 1}", offered="SHA-256")
    return wire.sorted()


def hit_old_nonce():
    """The client goes on using the first nonce."""
    wire = Wire()
    client = Client(wire)
    client.round(0.0, "", 401, "n1")
    client.round(1.0, "n0", 401, "n2")
    client.round(2.0, "n0", 401, "n3")
    return wire.sorted()


def hit_no_credentials():
    """The client asks three times and never answers the challenge."""
    wire = Wire()
    client = Client(wire)
    for i in range(3):
        client.round(i * 60.0, "", 401, f"n{i}")
    return wire.sorted()


def hit_by_turns():
    """One address accepts a nonce that it has refused, then refuses fresh ones again: two servers behind it."""
    wire = Wire()
    client = Client(wire)
    client.round(0.0, "", 401, "a1")
    client.round(1.0, "a1", 401, "b1")
    client.round(2.0, "b1", 401, "a1")
    client.round(60.0, "a1", 200)
    client.round(120.0, "a1", 401, "b2")
    client.round(121.0, "b2", 401, "a2")
    return wire.sorted()


def hit_other_realm():
    """The client answers each challenge with credentials for a realm that nobody asked for."""
    wire = Wire()
    client = Client(wire)
    client.round(0.0, "", 401, "n1")
    client.round(1.0, "n1", 401, "n2", realm="old.example")
    client.round(2.0, "n2", 401, "n3", realm="old.example")
    return wire.sorted()


def hit_invite():
    """A proxy challenges an INVITE three times."""
    wire = Wire()
    client = Client(wire)
    client.round(0.0, "", 407, "n1", method="INVITE")
    client.round(1.0, "n1", 407, "n2", method="INVITE", proxy=True)
    client.round(2.0, "n2", 407, "n3", method="INVITE", proxy=True)
    return wire.sorted()


def hit_call_forbidden():
    """A proxy refuses credentials with the nonce just issued, first with a challenge, then with 403."""
    wire = Wire()
    client = Client(wire)
    client.round(0.0, "", 407, "n1", method="INVITE")
    client.round(1.0, "n1", 407, "n2", method="INVITE", proxy=True)
    client.round(2.0, "n2", 403, method="INVITE", proxy=True)
    return wire.sorted()


def _calls_without(wire: Wire, method: str = "INVITE", known: bool = True) -> Client:
    """Three requests with a Call-ID each, and no credentials; the server has an OPTIONS for a client it knows."""
    if known:
        probe = Dialog(wire, NODE, PHONE, call_id="probe-1@b.example")
        probe.request(0.0, "OPTIONS")
        probe.response(0.01, 200, "OK", "OPTIONS")
    for i in range(3):
        client = Client(wire, call_id=f"call-{i}@a.example")
        client.round(10.0 * i + 5, "", 401, f"n{i}", method=method)
    return client


def hit_each_call_without():
    """Every call ends with the challenge: a trunk that has no credentials, though the server probes it."""
    wire = Wire()
    _calls_without(wire)
    return wire.sorted()


def near_miss_stranger():
    """Condition: the server knows the client. Who tries numbers without an account does not come back either."""
    wire = Wire()
    _calls_without(wire, known=False)
    return wire.sorted()


def near_miss_probes():
    """Condition: not OPTIONS. A probe that is challenged shows that the server lives."""
    wire = Wire()
    _calls_without(wire, "OPTIONS")
    return wire.sorted()


def near_miss_given_up():
    """Condition: never credentials. Three callers hang up at the challenge, and a fourth call is let in."""
    wire = Wire()
    _calls_without(wire)
    client = Client(wire, call_id="call-4@a.example")
    client.round(50.0, "", 401, "n9", method="INVITE")
    client.round(50.5, "n9", 200, method="INVITE")
    return wire.sorted()


def near_miss_normal():
    """Condition: credentials are refused. One challenge, then success, three times."""
    wire = Wire()
    client = Client(wire)
    for i in range(3):
        client.round(i * 60.0, "", 401, f"n{i}")
        client.round(i * 60.0 + 1, f"n{i}", 200)
    return wire.sorted()


def near_miss_refused_once():
    """Condition: refused at least twice. The old nonce is stale, the next one is accepted."""
    wire = Wire()
    client = Client(wire)
    client.round(0.0, "", 401, "n1")
    client.round(1.0, "n1", 401, "n2", stale=True)
    client.round(2.0, "n2", 200)
    return wire.sorted()


def near_miss_success_between():
    """Condition: no success between. Every minute the old nonce is refused once, and the new one is accepted."""
    wire = Wire()
    client = Client(wire)
    client.round(0.0, "", 401, "n1")
    client.round(0.1, "", 401, "n1")
    for i in range(1, 4):
        client.round(i * 60.0, f"n{i - 1}", 401, f"n{i}", stale=True)
        client.round(i * 60.0 + 1, f"n{i}", 200)
    return wire.sorted()


def near_miss_two_realms():
    """Condition: the same realm. The proxy challenges, then the server behind it, and both are satisfied."""
    wire = Wire()
    client = Client(wire)
    client.round(0.0, "", 407, "p1", method="INVITE", asked="proxy.example")
    client.round(1.0, "p1", 401, "s1", method="INVITE", realm="proxy.example", proxy=True)
    client.round(2.0, "s1", 401, "s2", method="INVITE")
    client.round(3.0, "s2", 486, method="INVITE")
    return wire.sorted()


def near_miss_scanner():
    """Condition: no scanning tool. One guesses passwords of one user."""
    wire = Wire()
    client = Client(wire, agent="friendly-scanner")
    client.round(0.0, "", 401, "n1")
    for i in range(1, 4):
        client.round(i * 1.0, f"n{i}", 401, f"n{i + 1}")
    return wire.sorted()


def near_miss_many_users():
    """Condition: few users. One address tries 21 of them in vain."""
    wire = Wire()
    for user in range(21):
        client = Client(wire, user=str(200 + user), call_id=f"reg-{user}@a.example")
        client.round(user * 1.0, "", 401, "n1")
        client.round(user * 1.0 + 0.1, "n1", 401, "n2")
        client.round(user * 1.0 + 0.2, "n2", 401, "n3")
    return wire.sorted()


def near_miss_call_not_allowed():
    """Condition: 403 counts on REGISTER only. An INVITE passes authentication, and its user may not call there."""
    wire = Wire()
    client = Client(wire, call_id="call-1@a.example")
    client.round(0.0, "", 407, "n1", method="INVITE")
    client.round(1.0, "n1", 407, "n2", method="INVITE", proxy=True, stale=True)
    client.round(2.0, "n2", 403, method="INVITE", proxy=True)
    return wire.sorted()


def near_miss_call_not_allowed_later():
    """Condition: the nonce just issued was refused. It was an old one, and with the new one the user may not call."""
    wire = Wire()
    client = Client(wire, call_id="call-1@a.example")
    client.round(0.0, "", 407, "n1", method="INVITE")
    client.round(1.0, "n0", 407, "n2", method="INVITE", proxy=True)
    client.round(2.0, "n2", 403, method="INVITE", proxy=True)
    return wire.sorted()


def near_miss_two_unanswered_challenges():
    """Condition: three requests without credentials. A client that asks twice may still be waiting for its user."""
    wire = Wire()
    client = Client(wire)
    for i in range(2):
        client.round(i * 60.0, "", 401, f"n{i}")
    return wire.sorted()
