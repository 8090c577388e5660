"""Samples of SIP-REG-STORM: phones that all register at once, and a registrar that cannot answer them."""

import random

from _craft.network import Wire

REGISTRAR = "198.51.100.10"

HIT_FRAMES = {"hit": list(range(17, 37)), "hit_jitter": list(range(17, 37)), "hit_from_the_start": list(range(1, 21)),
              "hit_silent": list(range(1, 11)), "hit_boundary": list(range(17, 37)),
              "hit_fills_the_capture": list(range(11, 31)), "hit_throughout": list(range(1, 21))}


class Phones:
    """REGISTER transactions of phones, each with an address of its own."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.number = 0

    def register(self, at: float, phone: int, status: int | None = 200, *, source: str = "",
                 resends: tuple[float, ...] = ()) -> None:
        self.number += 1
        src = source or f"203.0.113.{phone + 1}"
        head = (f"Via: SIP/2.0/UDP {src};branch=z9hG4bK{self.number}\r\nFrom: <sip:{phone}@a.example>;tag=1\r\n"
                f"To: <sip:{phone}@a.example>{{}}\r\nCall-ID: {phone}\r\nCSeq: {self.number} REGISTER\r\n")
        end = "Content-Length: 0\r\n\r\n"
        for later in (0.0, *resends):
            request = f"REGISTER sip:a.example SIP/2.0\r\n{head.format('')}Contact: <sip:{src}>\r\n{end}"
            self.wire.udp(at + later, src, 5060, REGISTRAR, 5060, request.encode())
        if status is not None:
            answer = f"SIP/2.0 {status} X\r\n{head.format(';tag=2')}{end}"
            self.wire.udp(at + 0.01, REGISTRAR, 5060, src, 5060, answer.encode())

    def calm(self, count: int = 8, every: float = 1.0) -> "Phones":
        """Registrations before, which succeed."""
        for i in range(count):
            self.register(i * every, 100 + i % 90)
        return self

    def burst(self, at: float, phones: int = 22, status: int | None = 503, source: str = "") -> "Phones":
        """All phones within 0.9 s."""
        for i in range(phones):
            self.register(at + i * 0.9 / phones, i, status, source=source)
        return self

    def sorted(self):
        return self.wire.sorted()


def hit():
    """22 phones get 503, and come again after four seconds each time."""
    phones = Phones().calm()
    for k in range(3):
        phones.burst(10.0 + 4 * k)
    return phones.sorted()


def hit_boundary():
    """Half of each wave falls into one second of the clock and half into the next; together they are one wave."""
    phones = Phones().calm()
    for k in range(3):
        phones.burst(10.55 + 4 * k)
    return phones.sorted()


def hit_fills_the_capture():
    """Waves on boundaries of seconds touch more than half of the capture's: they are not what is usual."""
    phones = Phones().calm(5, 0.5)
    for k in range(4):
        phones.burst(3.55 + 3 * k)
    return phones.sorted()


def hit_throughout():
    """The capture holds nothing but the storm, 25 in each second: the 503 and the equal retries tell."""
    phones = Phones()
    for k in range(200):
        phones.register(k * 0.04, k % 75, 503)
    return phones.sorted()


def hit_jitter():
    """They come again at random times, as they should: probable, by 503 and by what was before."""
    phones, chance = Phones().calm().burst(10.0), random.Random(7)
    for i in range(22):
        phones.register(13.0 + chance.random() * 6, i, 503)
    return phones.sorted()


def hit_from_the_start():
    """The capture begins in the storm: the 503 alone tells."""
    phones = Phones().burst(0.0)
    phones.register(6.0, 99)
    return phones.sorted()


def hit_silent():
    """Nobody is answered, and nothing is known of before."""
    phones = Phones().burst(0.0, status=None)
    phones.register(6.0, 99)
    return phones.sorted()


def near_miss_refresh():
    """Condition: they fail. 22 phones refresh at once, and all succeed."""
    return Phones().calm().burst(10.0, status=200).sorted()


def near_miss_some_fail():
    """Condition: fewer than 80 % succeed. 19 of 22 do."""
    phones = Phones().calm().burst(10.0, 19, 200)
    for i in range(3):
        phones.register(10.05 + i * 0.1, 50 + i, 503)
    return phones.sorted()


def near_miss_refused():
    """Condition: 5xx, 408 or no answer. A registrar that works refuses with 403."""
    return Phones().calm().burst(10.0, status=403).sorted()


def near_miss_few_sources():
    """Condition: 20 sources. 19 phones, and a gateway among them that has three users more."""
    return Phones().calm().burst(10.0, 19).burst(10.0, 3, source="203.0.113.1").sorted()


def near_miss_rate():
    """Condition: more than 20 in a second. There are 20, of 20 sources."""
    return Phones().calm().burst(10.0, 20).burst(14.0, 20).sorted()


def near_miss_usual():
    """Condition: ten times the median second. Here three come in each second anyway."""
    return Phones().calm(60, 1 / 3).burst(20.0).sorted()


def near_miss_always_busy():
    """Condition: where no second has fewer, 5xx, 408 or equal retries. 25 a second, and no answer is in the capture."""
    phones = Phones()
    for k in range(240):
        phones.register(k * 0.04, k, None)
    return phones.sorted()


def near_miss_busy_with_bursts():
    """Condition: ten times the median of the other seconds. 15 in each succeed, and 22 more fail in two of them."""
    return Phones().calm(180, 1 / 15).burst(4.0).burst(8.0).sorted()


def near_miss_repeats():
    """Condition: transactions count. 20 phones send each request twice in a second."""
    phones = Phones().calm()
    for i in range(20):
        phones.register(10.0 + i * 0.02, i, None, resends=(0.5, 1.5, 3.5))
    phones.register(18.0, 99)
    return phones.sorted()


def near_miss_capture_ends():
    """Condition: the capture lasts for 4 s after the request. This one ends after one."""
    return Phones().calm().burst(10.0, status=None).sorted()
