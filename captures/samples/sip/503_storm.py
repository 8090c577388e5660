"""Samples of SIP-503-STORM: a server that refuses calls, and clients that make it worse."""

from _craft.network import Wire

CLIENT, SERVER, OTHERS = "198.51.100.10", "203.0.113.20", ("203.0.113.21", "203.0.113.22")

HIT_FRAMES = {"hit": [4, 5, 11, 17, 18, 19, 27, 28, 36, 37, 38, 39, 49, 61],
              "hit_collapse": [22, 23, 26, 29, 30, 31, 36, 37, 42, 43, 44, 45, 52, 61],
              "hit_early": [1, 2, 5, 8, 11, 14, 15, 16, 21, 22, 27, 28],
              "hit_in_turn": [2, 5, 8, *range(11, 36, 3)],
              "hit_rising": list(range(23, 51, 3))}


class Storm:
    """Calls of a client to a server, each INVITE with its final response and ACK."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.number = 0

    def call(self, at: float, caller: str, status: int, *, server: str = SERVER, call_id: str = "",
             extra: str = "", delay: float = 0.01) -> None:
        """One attempt: ``caller`` calls a number of the same name."""
        self.number += 1
        head = (f"Via: SIP/2.0/UDP {CLIENT};branch=z9hG4bK{self.number}\r\nFrom: <sip:{caller}@a.example>;tag=1\r\n"
                f"To: <sip:{caller}@b.example>{{}}\r\nCall-ID: {call_id or self.number}\r\nCSeq: 1 {{}}\r\n")
        uri = f"sip:{caller}@b.example SIP/2.0\r\n"
        end = "Content-Length: 0\r\n\r\n"
        self.wire.udp(at, CLIENT, 5060, server, 5060, f"INVITE {uri}{head.format('', 'INVITE')}{end}".encode())
        answer = f"SIP/2.0 {status} X\r\n{head.format(';tag=2', 'INVITE')}{extra}{end}"
        self.wire.udp(at + delay, server, 5060, CLIENT, 5060, answer.encode())
        if 200 <= status < 300:
            head = head.replace("branch=z9hG4bK", "branch=z9hG4bKack")
        ack = f"ACK {uri}{head.format(';tag=2', 'ACK')}{end}"
        self.wire.udp(at + delay + 0.01, CLIENT, 5060, server, 5060, ack.encode())

    def retried(self, callers: int = 13, attempts: int = 4, every: float = 1.0, wait: float = 2.0, start: float = 0.0,
                status: int = 503, extra: str = "") -> "Storm":
        """Each of the callers begins ``every`` seconds after the one before, and tries again after ``wait``."""
        for i in range(callers):
            for k in range(attempts):
                self.call(start + i * every + k * wait + 0.003 * k, f"c{i}", status, extra=extra)
        return self

    def answered(self, count: int, every: float = 1.0, start: float = 0.0) -> "Storm":
        for i in range(count):
            self.call(start + i * every + 0.1, f"a{start:.0f}x{i}", 200)
        return self

    def sorted(self):
        return self.wire.sorted()


def hit():
    """13 callers, challenged at first, try four times each, two seconds apart; all get 503."""
    storm = Storm().retried()
    for i in range(13):
        storm.call(i - 0.04, f"c{i}", 407)
    return storm.sorted()


def hit_collapse():
    """Before, calls were answered; then none is, and callers retry."""
    return Storm().answered(7).retried(start=7.0).sorted()


def hit_early():
    """Callers try once more, although Retry-After asks them to wait 60 s."""
    return Storm().retried(26, 2, 0.5, extra="Retry-After: 60\r\n").sorted()


def hit_in_turn():
    """A proxy tries three nodes in turn for each call, and all refuse; another load is refused by the first."""
    storm = Storm()
    for i in range(52):
        for k, server in enumerate((SERVER, *OTHERS) if i % 13 == 0 else (SERVER,)):
            storm.call(i * 0.25 + k * 0.05, f"c{i}", 503, server=server, call_id=f"t{i}")
    return storm.sorted()


def hit_rising():
    """Four times the load of before, nobody retries yet, and nobody is answered."""
    return Storm().answered(7).retried(52, 1, 0.25, start=7.0).sorted()


def near_miss_failover():
    """Condition: three nodes in turn refuse three calls. The second one takes the calls, but for the first one."""
    storm = Storm()
    for i in range(52):
        storm.call(i * 0.25, f"c{i}", 503, call_id=f"t{i}")
        if i % 5 == 0:
            storm.call(i * 0.25 + 0.05, f"c{i}", 200 if i else 503, server=OTHERS[0], call_id=f"t{i}")
    storm.call(0.1, "c0", 503, server=OTHERS[1], call_id="t0")
    return storm.sorted()


def near_miss_two_nodes_refuse():
    """Condition: three nodes in turn. Two nodes refuse."""
    storm = Storm()
    for i in range(52):
        storm.call(i * 0.25, f"c{i}", 503, call_id=f"t{i}")
        if i % 5 == 0:
            storm.call(i * 0.25 + 0.05, f"c{i}", 503, server=OTHERS[0], call_id=f"t{i}")
    return storm.sorted()


def near_miss_busy():
    """Condition: 503, 500 or 408. The called users are busy, and the callers try again."""
    return Storm().retried(status=486).sorted()


def near_miss_limit():
    """Condition: a sign of feedback. Half of the calls are refused, at a steady rate and without retries."""
    storm = Storm()
    for i in range(60):
        storm.call(i * 0.25, f"c{i}", 503 if i % 2 else 200)
    return storm.sorted()


def near_miss_still_answers():
    """Condition: answered calls fall. The load is four times that of before, and as many are answered."""
    storm = Storm().answered(7)
    for i in range(52):
        storm.call(7 + i * 0.25, f"c{i}", 503 if i % 4 else 200)
    return storm.sorted()


def near_miss_load_falls():
    """Condition: the offered load rises. Fewer calls come, and they are refused."""
    return Storm().answered(8, 0.2).answered(30, 0.2, 2.0).retried(52, 1, 0.5, start=8.0).sorted()


def near_miss_few():
    """Condition: fifty transactions. There are 48, with retries."""
    return Storm().retried(12).sorted()


def near_miss_short():
    """Condition: ten seconds. The same retries, all within 9 s."""
    return Storm().retried(every=0.5, wait=1.0).sorted()


def near_miss_share():
    """Condition: a fifth is refused. Three callers retry, 80 others are answered."""
    return Storm().retried(3, 4, 4.0).answered(80, 0.2).sorted()


def near_miss_two_attempts():
    """Condition: more than two attempts. Each caller tries once more."""
    return Storm().retried(26, 2, 0.5).sorted()


def near_miss_later():
    """Condition: the retry comes within ten seconds. Callers wait for 11 s."""
    return Storm().retried(13, 4, 0.7, 11.0).sorted()


def near_miss_waits():
    """Condition: before Retry-After is over. It asks for one second, and callers wait two."""
    return Storm().retried(26, 2, 0.5, extra="Retry-After: 1\r\n").sorted()


def near_miss_one_number():
    """Condition: three callers who retry. One does; others share two numbers, and every fourth gets through."""
    storm = Storm().retried(1)
    for i in range(52):
        storm.call(i * 0.25, "office" if i % 2 else "desk", 200 if i % 8 > 5 else 503)
    return storm.sorted()


def near_miss_anonymous():
    """Condition: callers are known. Anonymous ones share a name (RFC 3323 §4.1); three others try once."""
    storm = Storm().retried(3, 1)
    for i in range(52):
        storm.call(i * 0.25, "anonymous", 503)
    return storm.sorted()


def near_miss_at_once():
    """Condition: the attempt before has failed. Here the next call of that name begins before it."""
    storm = Storm()
    for i in range(52):
        storm.call(i * 0.25, "office", 503, delay=0.4)
    return storm.sorted()
