"""A TLS client that builds certificate chains as OpenSSL 1.0.1 did: what the server sent comes first.

Since OpenSSL 1.1.0 the trust store is searched first (X509_V_FLAG_TRUSTED_FIRST in
X509_VERIFY_PARAM_set_flags(3)), and neither the openssl program nor Python's ssl module can
switch that off again. The library can: parameters marked "reset flags" replace its defaults.

Usage: old_firmware.py ADDRESS PORT NAME CA_FILE PATH. Prints the answer's status line, or the
reason for the refusal with exit status 1.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
import sys

# openssl/x509_vfy.h and openssl/ssl.h
X509_VP_FLAG_RESET_FLAGS = 0x4
X509_V_FLAG_NO_ALT_CHAINS = 0x100000
SSL_VERIFY_PEER = 1
SSL_CTRL_SET_TLSEXT_HOSTNAME = 55
SSL_CTRL_SET_MAX_PROTO_VERSION = 124
TLS1_2_VERSION = 0x0303

POINTER = ctypes.c_void_p


def library(name: str) -> ctypes.CDLL:
    path = ctypes.util.find_library(name)
    if path is None:
        raise SystemExit(f"lib{name} not found")
    return ctypes.CDLL(path)


def main(address: str, port: str, name: str, ca_file: str, path: str) -> int:
    ssl, crypto = library("ssl"), library("crypto")
    for function in (ssl.TLS_client_method, ssl.SSL_CTX_new, ssl.SSL_new, ssl.SSL_get0_param):
        function.restype = POINTER
    crypto.X509_verify_cert_error_string.restype = ctypes.c_char_p
    ssl.SSL_get_verify_result.restype = ctypes.c_long

    context = POINTER(ssl.SSL_CTX_new(POINTER(ssl.TLS_client_method())))
    if not ssl.SSL_CTX_load_verify_locations(context, ca_file.encode(), None):
        raise SystemExit(f"{ca_file}: not loaded")
    session = POINTER(ssl.SSL_new(context))
    ssl.SSL_ctrl(session, SSL_CTRL_SET_MAX_PROTO_VERSION, ctypes.c_long(TLS1_2_VERSION), None)
    ssl.SSL_ctrl(session, SSL_CTRL_SET_TLSEXT_HOSTNAME, ctypes.c_long(0), name.encode())
    ssl.SSL_set_cipher_list(session, b"ECDHE-RSA-AES128-SHA256:AES128-SHA256:AES128-SHA")
    ssl.SSL_set1_host(session, name.encode())
    ssl.SSL_set_verify(session, SSL_VERIFY_PEER, None)
    parameters = POINTER(ssl.SSL_get0_param(session))
    crypto.X509_VERIFY_PARAM_set_inh_flags(parameters, X509_VP_FLAG_RESET_FLAGS)
    crypto.X509_VERIFY_PARAM_set_flags(parameters, ctypes.c_ulong(X509_V_FLAG_NO_ALT_CHAINS))

    with socket.create_connection((address, int(port)), timeout=5) as plain:
        plain.settimeout(None)  # the library wants a blocking descriptor
        ssl.SSL_set_fd(session, plain.fileno())
        if ssl.SSL_connect(session) != 1:
            code = ctypes.c_long(ssl.SSL_get_verify_result(session))
            print(crypto.X509_verify_cert_error_string(code).decode())
            return 1
        request = f"GET {path} HTTP/1.0\r\nHost: {name}\r\n\r\n".encode()
        ssl.SSL_write(session, request, len(request))
        buffer = ctypes.create_string_buffer(4096)
        answer = b""
        while (length := ssl.SSL_read(session, buffer, len(buffer))) > 0:
            answer += buffer.raw[:length]
        ssl.SSL_shutdown(session)
        print(answer.decode("ascii", "replace").partition("\r\n")[0])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
