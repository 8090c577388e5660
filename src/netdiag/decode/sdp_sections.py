"""All that a comparison of offer and answer needs of a session description, for the few bodies that are compared.

``decode.sdp`` reads what media paths need, of every body. This adds the version of the session and, to each media
line, what its codecs and its keys are agreed by. Linear time for any bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from netdiag.decode import sdp

SUPPLEMENTS = frozenset({"telephone-event", "cn", "red", "tone", "ulpfec", "flexfec", "rtx", "cisco-rtp-dtmf"})
"""Formats that go with a codec and cannot carry speech alone (RFC 4733, RFC 3389, RFC 2198, RFC 5109, RFC 4588)."""
_DECISIVE = {
    "amr": (("octet-align", "0"),), "amr-wb": (("octet-align", "0"),),  # RFC 4867 §8.3.1: the same in both directions
}
"""Format parameters, with their defaults, that offer and answer must have in common."""


class Crypto(NamedTuple):
    """One a=crypto line (RFC 4568 §4)."""

    tag: str
    suite: str
    parameters: str
    """Key and session parameters (``decode.srtp.crypto`` reads them); never to be shown."""


class Section(NamedTuple):
    """One media line with what stands below it; keys and roles of the session part apply where it has none."""

    line: sdp.MediaLine
    formats: tuple[str, ...]
    """The words behind the protocol: payload types, or names such as "t38"."""
    fmtp: dict[str, str]
    crypto: tuple[Crypto, ...]
    fingerprint: bool
    """A certificate is named: keys by DTLS (RFC 5763, RFC 8122)."""
    setup: str
    """actpass, active, passive, holdconn (RFC 4145 §4), or ""."""
    preconditions: bool
    """a=curr or a=des: media waits for resources (RFC 3312)."""

    @property
    def secure(self) -> bool:
        return is_secure(self.line.protocol)

    def mapping(self) -> dict[int, str]:
        """Payload type to comparable codec, of the formats whose codec is known."""
        out = {}
        for number, codec in zip(self.line.payload_types, self.line.codecs, strict=True):
            name = comparable(codec, self.fmtp.get(str(number), ""))
            if name:
                out[number] = name
        return out

    def voices(self) -> frozenset[str]:
        """Comparable codecs that can carry the stream, without those that only go with one."""
        return frozenset(c for c in self.mapping().values() if c.partition("/")[0] not in SUPPLEMENTS)


class Description(NamedTuple):
    """One body."""

    version: int | None
    """sess-version of o= (RFC 8866 §5.2)."""
    identity: str
    """The other words of o=: a changed one is another session."""
    sections: tuple[Section, ...]
    whole: bool
    """Every media line was understood, so that the sections can be counted."""


def is_secure(protocol: str) -> bool:
    """SRTP by profile: RTP/SAVP, RTP/SAVPF, and the same over DTLS (RFC 3711, RFC 5124, RFC 5764)."""
    return "/SAVP" in f"/{protocol.upper()}"


def comparable(codec: str, fmtp: str = "") -> str:
    """"name/clock/channels" in lower case with the parameters that must agree; "" for an unknown codec."""
    name, _, rest = codec.lower().partition("/")
    if not name:
        return ""
    clock, _, channels = rest.partition("/")
    text = f"{name}/{clock}" + (f"/{channels}" if channels not in ("", "1") else "")
    for parameter, default in _DECISIVE.get(name, ()):
        given = dict(p.partition("=")[::2] for p in fmtp.lower().replace(" ", "").split(";"))
        text += f";{parameter}={given.get(parameter, default)}"
    return text


def parse(body: bytes) -> Description:
    """Reads a body as ``decode.sdp.parse`` does, and what else it says."""
    session = sdp.parse(body)
    head, *texts = body.decode("utf-8", "replace").replace("\r\n", "\n").split("\nm=", sdp.MEDIA_LIMIT + 1)
    common = _extras(head)
    origin = next((line[2:].split() for line in head.split("\n") if line.startswith("o=")), [])
    version = origin[2] if len(origin) >= 6 else ""
    whole = len(texts) == len(session.media)
    sections = []
    for line, text in zip(session.media, texts if whole else (), strict=False):
        first, _, rest = text.partition("\n")
        own = _extras(rest)
        sections.append(Section(line, tuple(first.split()[3 : 3 + sdp.FORMAT_LIMIT]), own.fmtp,
                                own.crypto or common.crypto, own.fingerprint or common.fingerprint,
                                own.setup or common.setup, own.preconditions or common.preconditions))
    return Description(int(version) if version.isascii() and version.isdigit() and len(version) <= 20 else None,
                       " ".join(origin[:2] + origin[3:6]), tuple(sections), whole)


class _Extras(NamedTuple):
    fmtp: dict[str, str]
    crypto: tuple[Crypto, ...]
    fingerprint: bool
    setup: str
    preconditions: bool


def _extras(text: str) -> _Extras:
    fmtp: dict[str, str] = {}
    crypto: list[Crypto] = []
    fingerprint = preconditions = False
    setup = ""
    for line in text.split("\n"):
        if line and line[1:2] != "=":
            break
        if line[:2] != "a=":
            continue
        name, _, value = line[2:].partition(":")
        value = value.strip()
        if name == "fmtp":
            number, _, parameters = value.partition(" ")
            fmtp.setdefault(number, parameters[: sdp.WORD_LIMIT])
        elif name == "crypto":
            words = value.split(None, 2)
            if len(words) == 3 and len(crypto) < sdp.MEDIA_LIMIT:
                crypto.append(Crypto(words[0][: sdp.WORD_LIMIT], words[1][: sdp.WORD_LIMIT],
                                     words[2][: sdp.MEMO_BYTES]))
        elif name == "fingerprint":
            fingerprint = True
        elif name == "setup":
            setup = value[: sdp.WORD_LIMIT].lower()
        elif name in ("curr", "des"):
            preconditions = True
    return _Extras(fmtp, tuple(crypto), fingerprint, setup, preconditions)
