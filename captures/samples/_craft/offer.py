"""Session descriptions with any media lines, codecs and keys, for samples."""

from __future__ import annotations

NAMES = {0: "PCMU/8000", 3: "GSM/8000", 8: "PCMA/8000", 9: "G722/8000", 18: "G729/8000", 96: "opus/48000/2",
         97: "iLBC/8000", 98: "AMR/8000", 99: "H264/90000", 101: "telephone-event/8000"}


def media(port: int, formats: tuple[int, ...] = (0,), *, kind: str = "audio", protocol: str = "RTP/AVP",
          extra: str = "", names: dict[int, str] | None = None) -> str:
    """One media line with its attributes; ``extra`` lines follow."""
    known = {**NAMES, **(names or {})}
    maps = "".join(f"a=rtpmap:{n} {known[n]}\r\n" for n in formats)
    return f"m={kind} {port} {protocol} {' '.join(map(str, formats))}\r\n{maps}{extra}"


def body(address: str, *lines: str, version: int = 1, origin: str = "", session: str = "") -> str:
    """A description; ``origin`` is the address of o= when it is another."""
    return (f"v=0\r\no=- 100 {version} IN IP4 {origin or address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n{session}"
            + "".join(lines))
