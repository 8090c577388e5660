"""Names of TLS alerts (IANA TLS Alerts registry; RFC 8446 §6, RFC 5246 §7.2)."""

from __future__ import annotations

NAMES = {
    0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 21: "decryption_failed", 22: "record_overflow",
    30: "decompression_failure", 40: "handshake_failure", 41: "no_certificate", 42: "bad_certificate",
    43: "unsupported_certificate", 44: "certificate_revoked", 45: "certificate_expired", 46: "certificate_unknown",
    47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error", 51: "decrypt_error",
    60: "export_restriction", 70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
    86: "inappropriate_fallback", 90: "user_canceled", 100: "no_renegotiation", 109: "missing_extension",
    110: "unsupported_extension", 111: "certificate_unobtainable", 112: "unrecognized_name",
    113: "bad_certificate_status_response", 114: "bad_certificate_hash_value", 115: "unknown_psk_identity",
    116: "certificate_required", 120: "no_application_protocol", 121: "ech_required",
}

WARNING, FATAL = 1, 2


def name(description: int) -> str:
    """For example "unknown_ca"; "alert 99" for one that the registry does not know."""
    return NAMES.get(description, f"alert {description}")


def fatal(level: int, description: int, version: int | None) -> bool:
    """Does it end the connection as an error? In TLS 1.3 all but close_notify and user_canceled do, whatever the level
    says (RFC 8446 §6)."""
    return level == FATAL or (version is not None and version >= 0x0304 and description not in (0, 90))
