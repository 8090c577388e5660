"""``netdiag.toml`` and ``--config``: what reaches the engine, who wins, and what is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "render"))

from made_call import call, write  # noqa: E402
from report_example import report  # noqa: E402

from netdiag import cli, engine  # noqa: E402
from netdiag.model import Report  # noqa: E402
from netdiag.tables import Tables  # noqa: E402


@pytest.fixture
def capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "call.pcap", call())


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What ``engine.analyze`` is called with; it answers with a complete report that has a critical finding."""
    box: dict[str, Any] = {}

    def analyze(tables: Tables, **more: object) -> Report:
        box.update(more, ca_file=tables.options.ca_file)
        return report(incidents=(), captures=report().captures[:1], outcomes=report().outcomes[:9])

    monkeypatch.setattr(engine, "analyze", analyze)
    return box


FILE = """
select = ["RTP", "SIP"]
ignore = "CAP, FW-REJECT"
[settings]
"RTP-ONEWAY.min_packets" = 51
rtp-oneway.window = 2.5
[settings.FW-SYN-DROP]
min_syns = 9
"""
SETTINGS = {"RTP-ONEWAY.min_packets": 51.0, "RTP-ONEWAY.window": 2.5, "FW-SYN-DROP.min_syns": 9.0}


@pytest.mark.parametrize("command", ["analyze", "evidence"])
def test_a_file_named_with_config(command: str, capture: str, given: dict[str, Any],
                                  capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.toml").write_text(FILE)
    cli.run([command, capture, "--config", "other.toml"])
    assert (given["select"], given["ignore"]) == (["RTP", "SIP"], ["CAP", "FW-REJECT"])
    assert given["settings"] == SETTINGS
    assert "netdiag.toml" not in capsys.readouterr().err


def test_netdiag_toml_of_the_directory_is_used_and_said_so(capture: str, given: dict[str, Any],
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    Path("netdiag.toml").write_text(FILE)
    cli.run(["analyze", capture])
    assert given["settings"] == SETTINGS
    assert "netdiag: using netdiag.toml of this directory\n" in capsys.readouterr().err
    cli.run(["analyze", capture, "--config", "/dev/null"])
    assert (given["select"], given["settings"]) == ([], {})


def test_the_command_line_wins(capture: str, given: dict[str, Any]) -> None:
    Path("netdiag.toml").write_text(FILE)
    cli.run(["analyze", capture, "--select", "TLS", "--set", "RTP-ONEWAY.min_packets=7", "--set", "TLS-X.y=1"])
    assert (given["select"], given["ignore"]) == (["TLS"], ["CAP", "FW-REJECT"])
    assert given["settings"] == SETTINGS | {"RTP-ONEWAY.min_packets": 7.0, "TLS-X.y": 1.0}


def test_severities(capture: str, given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["analyze", capture]) == 1
    assert "not shown" not in capsys.readouterr().out
    Path("netdiag.toml").write_text('fail_on = "never"\nmin_severity = "Critical"')
    assert cli.run(["analyze", capture]) == 0
    assert "of lower severity not shown" in capsys.readouterr().out
    assert cli.run(["analyze", capture, "--fail-on", "low", "--min-severity", "info"]) == 1
    assert "not shown" not in capsys.readouterr().out


def test_the_ca_file_is_relative_to_the_configuration(capture: str, given: dict[str, Any], tmp_path: Path) -> None:
    import certifi
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "roots.pem").write_bytes(Path(certifi.where()).read_bytes())
    (tmp_path / "there" / "x.toml").write_text('ca_file = "roots.pem"')
    cli.run(["analyze", capture, "--config", "there/x.toml"])
    assert given["ca_file"] == "there/roots.pem"


@pytest.mark.parametrize(("text", "said"), [
    ("colour = 1", "unknown key 'colour'"),
    ("[setings]\n", "unknown key 'setings'"),
    ("settings = 3", "must be a table"),
    ("settings.RTP-ONEWAY.min_packet = 3", "no setting RTP-ONEWAY.min_packet; there are RTP-ONEWAY.min_packets"),
    ("settings.RTP-NOWAY.min_packets = 3", "no setting RTP-NOWAY.min_packets"),
    ("settings.RTP-ONEWAY = 3", "no setting RTP-ONEWAY."),
    ("settings.RTP-ONEWAY.min_packets = '3'", "must be a number"),
    ("settings.RTP-ONEWAY.min_packets = true", "must be a number"),
    ("settings.RTP-ONEWAY.min_packets = nan", "must be a number"),
    (f"settings.RTP-ONEWAY.min_packets = {'9' * 400}", "must be a number"),
    ('[settings]\n"RTP-ONEWAY.min_packets" = 1\n[settings.rtp-oneway]\nmin_packets = 2', "given twice"),
    ("select = ['RTP-ONWAY']", "no pattern 'RTP-ONWAY'; did you mean RTP-ONEWAY"),
    ("ignore = 7", "must be a list"),
    ("ignore = [7]", "must be a list"),
    ("fail_on = 'bad'", "fail_on must be one of info, low, medium, high, critical, never"),
    ("min_severity = 'never'", "min_severity must be one of"),
    ("ca_file = 'nowhere.pem'", "there is no file nowhere.pem"),
    ("ca_file = 1", "must be the path"),
    ("select = [", "not TOML"),
    ("\x00", "not TOML"),
    ("#" * (1 << 20) + "\n", "larger than 1 MiB"),
])
def test_what_is_not_understood_is_one_usage_error(text: str, said: str, capture: str, given: dict[str, Any],
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    Path("netdiag.toml").write_text(text)
    assert cli.run(["analyze", capture]) == 2
    output = capsys.readouterr()
    line, = [line for line in output.err.splitlines() if line.startswith("Error:")]
    assert line.startswith("Error: netdiag.toml: ")
    assert said in line
    assert (output.out, given) == ("", {})


@pytest.mark.parametrize("name", ["nowhere.toml", "."])
def test_a_file_that_cannot_be_read(name: str, capture: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["analyze", capture, "--config", name]) == 2
    assert f"Error: {name}: " in capsys.readouterr().err


def test_the_example_of_the_documentation_works(capture: str, given: dict[str, Any], tmp_path: Path) -> None:
    import certifi
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "roots.pem").write_bytes(Path(certifi.where()).read_bytes())
    (tmp_path / "netdiag.toml").write_text(example)
    assert cli.run(["analyze", capture]) == 1
    assert given["settings"] == {"RTP-ONEWAY.min_packets": 50.0, "FW-SYN-DROP.min_syns": 4.0}
    assert (given["select"], given["ignore"]) == (["SIP", "RTP", "NAT"], ["RTP-SDP-UNREACHABLE"])
    assert given["ca_file"] == "roots.pem"
