"""netdiag reads packet captures and says what broke, how sure it is, and which frames prove it.

>>> import netdiag
>>> report = netdiag.analyze("incident.pcap")                       # doctest: +SKIP
>>> [(f.pattern, f.confidence.label) for f in report.findings]      # doctest: +SKIP
[('RTP-ONEWAY', 'confirmed')]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netdiag.errors import CaptureError, LabError, NetdiagError, RegistryError
from netdiag.model import (
    Confidence,
    Evidence,
    Finding,
    Incident,
    Outcome,
    Pattern,
    Report,
    Severity,
    Status,
)

if TYPE_CHECKING:
    from netdiag.tables import Options, Tables

__version__ = "0.1.0"

__all__ = [
    "CaptureError", "Confidence", "Evidence", "Finding", "Incident", "LabError", "NetdiagError", "Outcome", "Pattern",
    "RegistryError", "Report", "Severity", "Status", "analyze", "open",
]


def open(*paths: str, points: dict[str, str] | None = None, options: Options | None = None) -> Tables:
    """Reads captures into fact tables. ``paths`` are files of one point, ``points`` maps point names to files.

    Raises CaptureError when a file cannot be used at all; a damaged file is read as far as it goes.
    """
    from netdiag.tables.reader import open_captures
    return open_captures(paths, list((points or {}).items()), options)


def analyze(*paths: str, points: dict[str, str] | None = None, options: Options | None = None,
            **choices: Any) -> Report:
    """Reads captures and judges them; ``choices`` go to ``netdiag.engine.analyze`` (select, ignore, settings)."""
    from netdiag import engine
    return engine.analyze(open(*paths, points=points, options=options), **choices)
