"""The only way out for text from the wire: what could act on a terminal, a document or a sheet becomes visible text.

Each output has one function here, applied once, when the text is written. Data in the
report stays as it was captured; JSON needs no function because its encoder escapes.
"""

from __future__ import annotations

import re

# Printable for Unicode, and yet invisible or without width of their own: fillers and selectors.
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(c) for c in range(0xFE00, 0xFE10)}
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|~&#$@]")
_BLOCK_START = re.compile(r"^(?:[-+=]|\d{1,9}(?=[.)](?:\s|$)))")
_LINK = re.compile(r"(?i)://|\bwww\.")
_SPAN = re.compile(r"(`[^`]+`)")
_TICKS = re.compile(r"`+")
_MERMAID = {"#": "#35;", ";": "#59;", "<": "#lt;", ">": "#gt;", "%": "#37;", '"': "#quot;", "`": "#96;", "$": "#36;",
            "&": "#amp;", "{": "#123;", "}": "#125;", "\\": "#92;"}
# OWASP "CSV Injection": a cell that starts with one of these is a formula to a spreadsheet; full-width forms count.
_FORMULA = "=+-@\t\r\uff1d\uff0b\uff0d\uff20"


def plain(text: str) -> str:
    """Text for a terminal: control characters, escape sequences, direction overrides and unseen characters become
    ``\\x1b``, ``\\u202e`` and the like. Line ends too: one string stays one line.
    """
    if text.isprintable() and _UNSEEN.isdisjoint(text):
        return text
    return "".join(c if c.isprintable() and c not in _UNSEEN else _visible(c) for c in text)


def _visible(character: str) -> str:
    number = ord(character)
    if number < 0x100 or 0xDC80 <= number <= 0xDCFF:  # PEP 383: a byte of a file name that was no UTF-8
        return f"\\x{number & 0xFF:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def markdown(text: str) -> str:
    """Text inside a Markdown paragraph, list item or table cell: no markup, no link, no HTML comes of it."""
    out = _MARKDOWN.sub(lambda m: "\\" + m.group(), plain(text))
    out = _LINK.sub(lambda m: ":\\/\\/" if m.group() == "://" else m.group()[:-1] + "\\.", out)
    start = _BLOCK_START.match(out)
    if start is None:
        return out
    end = start.end()
    return f"{out[:end]}\\{out[end:]}" if out[0].isdigit() else "\\" + out


def advice(text: str) -> str:
    """Our own sentences in Markdown: as `markdown`, but `code` between single backticks stays code."""
    return "".join(code(part[1:-1]) if part.startswith("`") else markdown(part) for part in _SPAN.split(text) if part)


def code(text: str, cell: bool = False) -> str:
    """A Markdown code span; ``cell`` says that it stands in a table, where a bar must be escaped even so."""
    shown = plain(text)
    if not shown.strip():
        return "–"
    fence = "`" * (1 + max((len(m) for m in _TICKS.findall(shown)), default=0))
    pad = " " if shown[0] in "` " or shown[-1] in "` " else ""
    if cell:
        shown = shown.replace("|", "\\|")
    return f"{fence}{pad}{shown}{pad}{fence}"


def block(text: str, language: str = "") -> str:
    """A fenced Markdown block. Line ends of ``text`` are kept, so each line has to be escaped before."""
    fence = "`" * max(3, 1 + max((len(m) for m in _TICKS.findall(text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def cell(text: str) -> str:
    """Text of a CSV cell: an apostrophe goes before what a spreadsheet would take for a formula."""
    start = text.lstrip(" ")
    return ("'" if start[:1] and start[0] in _FORMULA else "") + plain(text)


def valid(text: str) -> str:
    """Text that UTF-8 can encode, for JSON: bytes of a file name that were no UTF-8 become ``\\xff``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def mermaid(text: str) -> str:
    """Text of a Mermaid message, note or alias; characters that end it or start markup become entity codes."""
    return "".join(_MERMAID.get(c, c) for c in plain(text))
