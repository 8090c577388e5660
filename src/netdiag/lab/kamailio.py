"""kamailio in a lab node: a registrar and record-routing proxy for UDP phones behind NAT.

The routing script is the usual one for hosted phones: answer to the packet's source (``force_rport``,
RFC 3581), keep the received address of a registration (``fix_nated_register``) and reach a caller
behind NAT through an alias in its Contact. What differs between labs is passed in: module parameters,
where a call goes, and what is done to a message that may carry SDP.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from netdiag.lab.process import Process
from netdiag.lab.topology import Node

_MODULES = ("tm", "sl", "rr", "pv", "maxfwd", "textops", "siputils", "usrloc", "registrar", "nathelper")

_CONFIG = """\
debug=1
log_stderror=yes
children=2
auto_aliases=no
disable_tcp=yes
dns=no
rev_dns=no
server_signature=no
listen=udp:{address}:5060
{modules}
modparam("nathelper|registrar", "received_avp", "$avp(received)")
modparam("rr", "enable_full_lr", 1)
{params}

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    force_rport();
    if (is_method("REGISTER")) {{
        fix_nated_register();
        {on_register}
        if (!save("location")) {{ sl_reply_error(); }}
        exit;
    }}
    if (is_method("CANCEL")) {{
        if (t_check_trans()) {{ t_relay(); }}
        exit;
    }}
    if (has_totag()) {{
        if (loose_route()) {{
            handle_ruri_alias();
            route(MEDIA);
            t_on_reply("REPLY");
            t_relay();
        }} else if (is_method("ACK")) {{
            if (t_check_trans()) {{ t_relay(); }}
        }} else {{
            sl_send_reply("404", "Not here");
        }}
        exit;
    }}
    if (!t_newtran()) {{ exit; }}
    if (is_method("INVITE")) {{ send_reply("100", "Trying"); }}
    if (nat_uac_test("19")) {{ set_contact_alias(); }}
    record_route();
    route(DESTINATION);
    route(MEDIA);
    t_on_reply("REPLY");
    t_relay();
}}

onreply_route[REPLY] {{
    if (nat_uac_test("1")) {{ set_contact_alias(); }}
    route(MEDIA);
}}

route[DESTINATION] {{
{destination}
}}

route[MEDIA] {{
{media}
    return;
}}
"""

# Where calls go by default: to the registered contact of the dialled user.
TO_REGISTERED = """
    if (!lookup("location")) { t_reply("404", "Not Found"); exit; }
"""


def config(
    address: str,
    *,
    modules: Sequence[str] = (),
    params: Sequence[tuple[str, str, str | int]] = (),
    destination: str = TO_REGISTERED,
    media: str = "",
    on_register: str = "",
) -> str:
    """Return the text of a kamailio configuration that listens on ``address`` port 5060 over UDP.

    ``params`` are ``(module, name, value)``. ``destination`` (initial requests only), ``media`` (initial and
    in-dialog requests, and replies) and ``on_register`` are statements of kamailio's script language.
    """
    return _CONFIG.format(
        address=address,
        modules="\n".join(f'loadmodule "{name}.so"' for name in (*_MODULES, *modules)),
        params="\n".join(
            f'modparam("{module}", "{name}", {value})'
            if isinstance(value, int)
            else f'modparam("{module}", "{name}", "{value}")'
            for module, name, value in params
        ),
        destination=destination,
        media=media,
        on_register=on_register,
    )


def start(node: Node, workdir: Path, text: str) -> Process:
    """Start kamailio in ``node`` with the configuration ``text``; return its process once it listens.

    Files go to ``workdir/kamailio``. LabError with kamailio's log when it refuses the configuration.
    """
    directory = workdir / "kamailio"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "kamailio.cfg"
    path.write_text(text)
    argv = ["kamailio", "-f", str(path), "-DD", "-E", "-w", str(directory), "-Y", str(directory)]
    # 16 MB shared and 4 MB private memory are ample for a handful of dialogs (defaults: 64 and 8).
    argv += ["-P", str(directory / "pid"), "-m", "16", "-M", "4"]
    return node.start(argv, name="kamailio", ready=lambda: node.listening("udp", 5060))
