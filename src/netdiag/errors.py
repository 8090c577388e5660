"""The errors netdiag raises on purpose: four, flat.

``NetdiagError`` is what a caller catches; the others say where to look: at the
input, at netdiag's own registry, or at the lab host.
"""


class NetdiagError(Exception):
    """Base of every error that netdiag raises on purpose; the message is one line for the user."""


class CaptureError(NetdiagError):
    """A capture could not be read at all: missing, a directory, empty, or not a capture."""


class RegistryError(NetdiagError):
    """A detector or a case breaks its contract."""


class LabError(NetdiagError):
    """A lab cannot run here, or a component of it failed."""
