"""Columns, wrapping and colour on a character terminal. Widths are display cells, not code points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len, chop_cells

from netdiag.model import Confidence, Severity

INDENT = 3
LABEL = 10
GAP = 2
LEAST = 8
"""Cells that a cut column keeps."""

_SEVERITY = {Severity.CRITICAL: "1;97;41", Severity.HIGH: "1;31", Severity.MEDIUM: "1;33", Severity.LOW: "36",
             Severity.INFO: "34"}
_CONFIDENCE = {Confidence.CONFIRMED: "1", Confidence.PROBABLE: "", Confidence.SUSPECTED: "2"}


class Palette(NamedTuple):
    """SGR codes when ``colour``, else nothing at all."""

    colour: bool = False

    def paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code and text else text

    def severity(self, severity: Severity, text: str) -> str:
        return self.paint(_SEVERITY[severity], text)

    def confidence(self, confidence: Confidence, text: str) -> str:
        return self.paint(_CONFIDENCE[confidence], text)

    def strong(self, text: str) -> str:
        return self.paint("1", text)

    def dim(self, text: str) -> str:
        return self.paint("2", text)

    def alarm(self, text: str) -> str:
        return self.paint("1;31", text)

    def good(self, text: str) -> str:
        return self.paint("32", text)


def pad(text: str, width: int) -> str:
    """Filled with spaces to ``width`` cells; never cut."""
    return text + " " * max(0, width - cell_len(text))


def clip(text: str, width: int, mark: str = "…") -> str:
    """At most ``width`` cells; ``mark`` stands where something was cut off."""
    if cell_len(text) <= width:
        return text
    room = width - cell_len(mark)
    return chop_cells(text, room)[0] + mark if room > 0 else mark[: max(0, width)]


def wrap(text: str, width: int, whole_words: bool = False) -> list[str]:
    """Lines of at most ``width`` cells, broken at spaces. A longer word is chopped, unless ``whole_words``."""
    width = max(8, width)
    lines: list[str] = []
    line, used = "", 0
    for word in text.split(" "):
        pieces = [word] if whole_words or cell_len(word) <= width else chop_cells(word, width)
        for piece in pieces:
            size = cell_len(piece)
            if line and used + 1 + size > width:
                lines.append(line)
                line, used = piece, size
            elif line:
                line, used = f"{line} {piece}", used + 1 + size
            else:
                line, used = piece, size
    if line or not lines:
        lines.append(line)
    return lines


def paragraph(text: str, width: int, indent: int = INDENT) -> list[str]:
    return [" " * indent + line for line in wrap(text, width - indent)]


def labelled(label: str, text: str, width: int, palette: Palette, whole_words: bool = False) -> list[str]:
    """A label in its column and the text beside it, wrapped with a hanging indent."""
    column = INDENT + LABEL + GAP - 1
    lines = wrap(text, width - column, whole_words)
    head = " " * INDENT + palette.dim(pad(label, LABEL)) + " " * (GAP - 1)
    return [(head if i == 0 else " " * column) + line for i, line in enumerate(lines)]


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], width: int | None = None,
          right: frozenset[int] = frozenset(), palette: Palette | None = None,
          firm: frozenset[int] = frozenset()) -> list[str]:
    """Aligned columns with a heading. With ``width`` the wide ones are cut to fit, ``firm`` ones never."""
    palette = palette or Palette()
    body = [list(r) for r in rows]
    sizes = [max([cell_len(h), *(cell_len(r[i]) for r in body)]) for i, h in enumerate(headers)]
    if width is not None:
        least = [size if i in firm else min(size, max(cell_len(h), LEAST))
                 for i, (h, size) in enumerate(zip(headers, sizes, strict=True))]
        sizes = _fit(sizes, least, width - GAP * (len(sizes) - 1))

    def line(cells: Sequence[str]) -> str:
        shown = []
        for i, text in enumerate(cells):
            cut = clip(text, sizes[i])
            shown.append(" " * (sizes[i] - cell_len(cut)) + cut if i in right else pad(cut, sizes[i]))
        return (" " * GAP).join(shown).rstrip()

    return [palette.strong(line(headers)), *map(line, body)]


def _fit(sizes: list[int], least: list[int], room: int) -> list[int]:
    sizes = list(sizes)
    for _ in range(sum(sizes) - room):
        widest = max(range(len(sizes)), key=lambda i: sizes[i] if sizes[i] > least[i] else 0)
        if sizes[widest] <= least[widest]:
            break
        sizes[widest] -= 1
    return sizes
