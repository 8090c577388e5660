"""baresip softphones in a lab node, without a sound card.

The microphone is a sine generator (``ausine``), the loudspeaker a bridge nobody listens to
(``aubridge``); both run at 48 kHz, which baresip resamples for the codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from netdiag.lab.process import Process
from netdiag.lab.topology import Node

_CONFIG = """\
sip_listen {address}:{port}
audio_player aubridge,{user}
audio_source ausine,440
audio_alert aubridge,{user}
ausrc_srate 48000
auplay_srate 48000
ausrc_channels 2
auplay_channels 2
audio_buffer 20-160
rtp_tos 184
rtp_ports {rtp_ports}
rtcp_mux no
jitter_buffer_delay 5-10
net_interface {interface}
module_path {modules}
{codecs}
module ausine.so
module aubridge.so
module_app account.so
module_app menu.so
"""

# Debian installs the modules here; other systems use /usr/local.
_MODULE_DIRECTORIES = (Path("/usr/lib/baresip/modules"), Path("/usr/local/lib/baresip/modules"))


def _modules() -> Path:
    return next((path for path in _MODULE_DIRECTORIES if path.is_dir()), _MODULE_DIRECTORIES[0])


def start(
    node: Node,
    workdir: Path,
    user: str,
    *,
    address: str,
    domain: str,
    proxy: str,
    interface: str = "eth0",
    port: int = 5060,
    rtp_ports: str = "16384-16484",
    codec: str = "gsm",
    modules: Sequence[str] = (),
    registration_s: int = 3600,
    account: str = "",
    commands: Sequence[str] = (),
    seconds: int | None = None,
) -> Process:
    """Start a softphone that registers ``user@domain`` through ``proxy`` (``host:port``); return its process.

    ``codec`` is a baresip codec module and the only codec offered, ``modules`` are further ones. ``registration_s`` 0
    means that it does not register. ``account`` holds further account parameters (``;answermode=auto``),
    ``commands`` run at start (``/dial sip:...``); after ``seconds`` it hangs up, unregisters and ends. Configuration
    and log are kept in ``workdir/baresip-USER``.
    """
    directory = workdir / f"baresip-{user}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config").write_text(
        _CONFIG.format(
            address=address,
            port=port,
            user=user,
            rtp_ports=rtp_ports,
            interface=interface,
            modules=_modules(),
            codecs="\n".join(f"module {name}.so" for name in (codec, *modules)),
        )
    )
    (directory / "accounts").write_text(
        f'<sip:{user}@{domain}>;outbound="sip:{proxy}";auth_pass=lab;regint={registration_s}{account}\n'
    )
    (directory / "contacts").write_text("")
    argv = ["baresip", "-4", "-f", str(directory)]
    for command in commands:
        argv += ["-e", command]
    if seconds is not None:
        argv += ["-t", str(seconds)]
    return node.start(argv, name=f"baresip-{user}", ready=lambda: node.listening("udp", port))
