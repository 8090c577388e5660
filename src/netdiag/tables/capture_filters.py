"""What a capture filter lets through, read from its text (pcap-filter(7), option if_filter of pcapng).

The text is not compiled: it is asked, as the machine would be, whether it passes a packet of a few kinds that matter
as evidence. Each primitive says yes, no, or "depends" (None), and the operators join these as they do in the filter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

LIMIT = 4096
"""Characters of a filter that are read; longer ones are not understood (practice)."""
DEPTH = 64
"""Nested parentheses that are read (practice)."""


class Kind(Enum):
    """A packet between hosts that the filter names, or any where it names none."""

    ICMP = "ICMP errors"
    """From a router on the way to the host that sent the packet in question."""
    LATER_FRAGMENT = "later fragments of datagrams"
    """UDP, without the ports, which stand in the first fragment only (RFC 791 §3.2)."""
    OTHER_PORT = "UDP on ports that it does not name"
    TAGGED = "frames with a VLAN tag"
    """Where the tag is in the frame: some adapters take it out before the filter sees it."""


_TOKEN = re.compile(r"\s*(&&|\|\||[()\[\]!]|[<>=!]=?|<<|>>|[&|+*^%]|\\?[\w.:$/\\-]+)")
_AND, _OR, _NOT = ("and", "&&"), ("or", "||"), ("not", "!")
_RELATIONS = ("=", "==", "!=", "<", ">", "<=", ">=")
_NETWORK = ("ip", "ip6")
_TRANSPORT = ("tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "esp", "ah", "pim", "vrrp")
_OTHERS = ("arp", "rarp", "atalk", "aarp", "decnet", "iso", "stp", "ipx", "netbeui", "lat", "moprc", "mopdl", "clnp",
           "esis", "isis")
_LINK = ("ether", "link", "fddi", "tr", "wlan", "ppp", "slip")
_DIRECTIONS = ("src", "dst", "inbound", "outbound")
_TYPES = ("host", "net", "port", "portrange", "proto", "protochain", "gateway", "mask", "less", "greater")
_WRAPPED = ("vlan", "mpls", "pppoed", "pppoes", "geneve", "vxlan")
_QUALIFIERS = frozenset((*_NETWORK, *_TRANSPORT, *_OTHERS, *_LINK, *_DIRECTIONS, *_TYPES, *_WRAPPED, "multicast",
                         "broadcast"))
_DEPENDS = frozenset(("inbound", "outbound", "less", "greater", "multicast", "broadcast", "gateway"))
_NUMBERS = {"1": "icmp", "58": "icmp6", "6": "tcp", "17": "udp", "132": "sctp", "44": "fragment",
            "ipv6-frag": "fragment"}
_FRAGMENT_TEST = re.compile(r"ip\[6(:2)?\]&(0x[0-9a-f]+|\d+)(!=|>|==?)0$")
"""Offset and more-fragments bit of RFC 791 §3.1."""


@dataclass(slots=True)
class _Reader:
    """One pass over the tokens, for one kind of packet."""

    tokens: list[str]
    kind: Kind
    at: int = 0
    depth: int = 0
    tagged: bool = False
    """The word vlan came: what follows looks behind the tag."""
    qualifiers: list[str] = field(default_factory=list)

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def expression(self) -> bool | None:
        """"and" and "or" bind alike, from left to right."""
        value = self.factor()
        while self.peek() in _AND + _OR:
            both = self.take() in _AND
            other = self.factor()
            if both:
                value = False if value is False or other is False else None if None in (value, other) else True
            else:
                value = True if value is True or other is True else None if None in (value, other) else False
        return value

    def factor(self) -> bool | None:
        denied = False
        while self.peek() in _NOT:
            self.take()
            denied = not denied
        if self.peek() == "(" and not self._arithmetic():
            self.take()
            self.depth += 1
            if self.depth > DEPTH:
                raise ValueError("too deep")
            value = self.expression()
            if self.take() != ")":
                raise ValueError("a parenthesis is missing")
            self.depth -= 1
        else:
            value = self.relation() if self._arithmetic() else self.primitive()
        return value if value is None else value is not denied

    def _arithmetic(self) -> bool:
        """A comparison of bytes or lengths begins here."""
        at = self.at
        while at < len(self.tokens) and self.tokens[at] == "(":
            at += 1
        here, then = (self.tokens[i] if i < len(self.tokens) else "" for i in (at, at + 1))
        return then == "[" or ((here == "len" or here.isdigit()) and then in (*_RELATIONS, "&", "+", "*"))

    def relation(self) -> bool | None:
        text, depth = "", 0
        while (token := self.peek()) and token not in _AND + _OR and not (token == ")" and depth == 0):
            depth += {"(": 1, ")": -1}.get(token, 0)
            text += self.take()
        if not any(sign in text for sign in ("=", "<", ">")):
            raise ValueError("no comparison")
        test = _FRAGMENT_TEST.match(text.replace("(", "").replace(")", "").lower())
        if test is None:
            protocol = re.match(r"\(*(\w+)\[", text)  # tcp[13] & 2 != 0 is also a test for TCP
            return self._answer([protocol.group(1).lower()], "") and None if protocol else None
        if self.kind is Kind.TAGGED and not self.tagged:
            return False
        return (self.kind is Kind.LATER_FRAGMENT) == (test.group(3) in ("!=", ">"))

    def primitive(self) -> bool | None:
        words: list[str] = []
        while self.peek().lower() in _QUALIFIERS:
            words.append(self.take().lower())
        named = bool(words)
        if named:
            self.qualifiers = words
        else:  # "port 80 or 443": the qualifiers of the one before
            words = self.qualifiers
        bare = bool(words) and words[-1] not in _TYPES + _DIRECTIONS + _LINK
        value = ""
        after = self.peek()
        if (not bare or not self.qualifiers or words[-1] in _WRAPPED) and after not in ("", ")", *_AND, *_OR):
            value = self.take().lower().lstrip("\\")
            if not re.match(r"[\w:]", value):
                raise ValueError(f"{value!r} is not understood")
        if not value and (not named or words[-1] in (*_TYPES, "src", "dst")):
            raise ValueError("a word is missing")
        if words and words[-1] == "net" and self.peek().lower() == "mask":
            self.at += 2
        return self._answer(words, value)

    def _answer(self, words: list[str], value: str) -> bool | None:
        if any(word in _WRAPPED for word in words):
            self.tagged = self.tagged or "vlan" in words
            return self.kind is not Kind.TAGGED or "vlan" in words
        if self.kind is Kind.TAGGED and not self.tagged:
            return None if any(word in _LINK for word in words) else False
        if not _DEPENDS.isdisjoint(words):
            return None
        if "proto" in words or "protochain" in words:
            words = [*(w for w in words if w not in ("proto", "protochain")), _NUMBERS.get(value, value)]
        mine = {Kind.ICMP: ("icmp", "icmp6"), Kind.LATER_FRAGMENT: ("udp", "fragment"), Kind.OTHER_PORT: ("udp",),
                Kind.TAGGED: ("udp", "tcp")}[self.kind]
        if any(word in _OTHERS for word in words):
            return False
        if any(word in (*_TRANSPORT, "fragment") and word not in mine for word in words):
            return False
        if "port" in words or "portrange" in words:
            if self.kind is Kind.TAGGED:
                return True
            return None if self.kind is Kind.OTHER_PORT and "portrange" in words else False
        return not (self.kind is Kind.ICMP and "src" in words and "dst" not in words)


def lost(text: str) -> tuple[Kind, ...] | None:
    """Kinds of packets that the filter surely keeps out; None when its text is not understood."""
    if len(text) > LIMIT:
        return None
    tokens, at = [], 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        tokens.append(match.group(1))
        at = match.end()
    if not tokens:
        return ()
    out = []
    for kind in Kind:
        reader = _Reader(tokens, kind)
        try:
            value = reader.expression()
        except ValueError:
            return None
        if reader.at < len(tokens):
            return None
        if value is False:
            out.append(kind)
    return tuple(out)
