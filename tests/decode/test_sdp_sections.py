"""What offer and answer are compared by."""

from __future__ import annotations

import random

import pytest

from netdiag.decode.sdp_sections import comparable, is_secure, parse

HEAD = b"v=0\r\no=- 7 3 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"


@pytest.mark.parametrize(("codec", "fmtp", "expected"), [
    ("PCMU/8000", "", "pcmu/8000"), ("pcmu/8000/1", "", "pcmu/8000"), ("opus/48000/2", "", "opus/48000/2"),
    ("AMR/8000", "mode-set=0; octet-align=1", "amr/8000;octet-align=1"), ("AMR/8000", "", "amr/8000;octet-align=0"),
    ("G729/8000", "annexb=no", "g729/8000"), ("", "", ""),
])
def test_comparable_codecs(codec: str, fmtp: str, expected: str) -> None:
    assert comparable(codec, fmtp) == expected


@pytest.mark.parametrize(("protocol", "secure"), [
    ("RTP/AVP", False), ("RTP/AVPF", False), ("RTP/SAVP", True), ("UDP/TLS/RTP/SAVPF", True), ("rtp/savp", True),
    ("udptl", False),
])
def test_profiles(protocol: str, secure: bool) -> None:
    assert is_secure(protocol) is secure


def test_keys_and_roles() -> None:
    said = parse(HEAD + b"a=setup:actpass\r\na=fingerprint:sha-256 AB\r\nm=audio 4000 RTP/SAVP 8 101\r\n"
                        b"a=rtpmap:101 telephone-event/8000\r\na=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:k\r\n"
                        b"m=video 4002 RTP/SAVP 99\r\na=setup:Passive\r\na=curr:qos local none\r\n")
    audio, video = said.sections
    assert (said.version, said.whole) == (3, True)
    assert [(c.tag, c.suite) for c in audio.crypto] == [("2", "AES_CM_128_HMAC_SHA1_80")]
    assert (audio.setup, audio.fingerprint, audio.preconditions) == ("actpass", True, False)
    assert (video.setup, video.crypto, video.preconditions) == ("passive", (), True)
    assert audio.mapping() == {8: "pcma/8000", 101: "telephone-event/8000"}
    assert audio.voices() == {"pcma/8000"}
    assert video.mapping() == {}


def test_identity_leaves_out_the_version() -> None:
    assert parse(HEAD).identity == parse(HEAD.replace(b" 3 IN", b" 4 IN")).identity
    assert parse(HEAD).identity != parse(HEAD.replace(b"- 7 3", b"- 8 3")).identity


@pytest.mark.parametrize("word", [b"x", b"-1", b"9" * 21, b"\xd9\xa3"])
def test_bad_version_is_none(word: bytes) -> None:
    assert parse(HEAD.replace(b" 3 IN", b" " + word + b" IN")).version is None


def test_bad_media_line_is_not_whole() -> None:
    said = parse(HEAD + b"m=audio x RTP/AVP 0\r\nm=video 4000 RTP/AVP 99\r\n")
    assert (said.whole, said.sections) == (False, ())


def test_any_bytes_are_read() -> None:
    whole = HEAD + b"m=audio 4000 RTP/SAVP 8 97\r\na=fmtp:97 octet-align\r\na=crypto:1 X inline:\r\na=setup:\r\n"
    dice = random.Random(4)
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 12)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        for section in parse(bytes(data[: dice.randrange(len(data))])).sections:
            assert section.voices() <= set(section.mapping().values())


def test_long_bodies_are_bounded() -> None:
    said = parse(HEAD + b"m=audio 4000 RTP/SAVP 8\r\n" + b"a=crypto:1 X inline:k\r\n" * 3000)
    assert len(said.sections[0].crypto) == 64
