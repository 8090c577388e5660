"""Realms of addresses, one example for each network and its edges."""

import pytest

from netdiag.tables.addresses import realm, routable


@pytest.mark.parametrize(("address", "expected"), [
    ("10.255.255.255", "private"), ("11.0.0.0", "public"), ("172.15.255.255", "public"), ("172.16.0.0", "private"),
    ("172.31.255.255", "private"), ("172.32.0.0", "public"), ("192.168.0.1", "private"), ("192.0.2.1", "public"),
    ("100.64.0.1", "cgn"), ("100.128.0.0", "public"), ("169.254.9.9", "link-local"), ("127.0.0.1", "loopback"),
    ("0.0.0.0", "unspecified"), ("239.1.1.1", "multicast"), ("fd00::1", "private"), ("fe80::1", "link-local"),
    ("2001:db8::1", "public"), ("::1", "loopback"), ("::", "unspecified"), ("ff02::1", "multicast"),
    ("::ffff:10.0.0.1", "private"), ("pbx.example", "name"), ("", "name"), ("10.0.0.1\x00", "name"), ("1.2.3", "name")])
def test_realm(address: str, expected: str) -> None:
    assert realm(address) == expected
    assert routable(address) is (expected == "public")
