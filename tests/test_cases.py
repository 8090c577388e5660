"""Every shipped case is complete, and the check for that notices each kind of gap."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from netdiag import cases
from netdiag.cases import SECTIONS, all_cases, load_case, problems
from netdiag.errors import RegistryError

TOML = """
slug = "small-case"
title = "A small case"
summary = "Something fails."
patterns = ["FW-SYN-DROP"]
[points]
client = "here"
[variants.broken]
description = "fails"
expect = ["FW-SYN-DROP"]
[variants.fixed]
description = "works"
expect = []
absent = ["FW-SYN-DROP"]
"""

README = "# A small case\n\nRun `netdiag lab run small-case`.\n\n" + "\n".join(
    f"## {heading}\n\nHost 192.0.2.7 said so (RFC 5280 §4.2.2.1).\n" for heading in SECTIONS
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete case."""
    monkeypatch.setattr(cases, "samples_dir", lambda: tmp_path / "samples")
    made = tmp_path / "small-case"
    made.mkdir()
    (made / "case.toml").write_text(TOML)
    (made / "README.md").write_text(README)
    (made / "lab.py").write_text("def run(lab, variant):\n    pass\n")
    recordings = tmp_path / "samples" / "cases" / "small-case"
    recordings.mkdir(parents=True)
    for variant in ("broken", "fixed"):
        (recordings / f"{variant}.client.pcap").touch()
    return made


@pytest.mark.parametrize("slug", sorted(all_cases()))
def test_shipped_case_is_complete(slug: str) -> None:
    assert problems(all_cases()[slug]) == []


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("slug", sorted(all_cases()))
def test_shown_commands_print_what_the_study_shows(slug: str) -> None:
    case = all_cases()[slug]
    for block in re.findall(r"^```\n\$ (tshark -r .*?)^```", case.readme.read_text(), re.MULTILINE | re.DOTALL):
        command, _, shown = re.sub(r" \\\n\s*", " ", block).partition("\n")
        folder = case.recording("broken", "x").parent
        done = subprocess.run(shlex.split(command), cwd=folder, capture_output=True, text=True, check=True)
        assert done.stdout.split() == shown.split(), command


def test_there_are_cases() -> None:
    assert {"incomplete-chain-and-dead-cross-root", "idle-timeout-350-seconds"} <= set(all_cases())


def test_a_complete_case_is_read_and_has_no_problems(folder: Path) -> None:
    case = load_case(folder)
    assert problems(case) == []
    assert case.patterns == ("FW-SYN-DROP",)
    assert case.points == {"client": "here"}
    assert case.variants["fixed"].absent == ("FW-SYN-DROP",)
    assert case.variants["broken"].expect == ("FW-SYN-DROP",)
    assert case.requires == ()
    assert tuple(case.sections()) == SECTIONS
    assert case.sections()["Root Cause"] == "Host 192.0.2.7 said so (RFC 5280 §4.2.2.1)."


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("case.toml", '"small-case"', '"Other"', "slug 'Other' is not the name of its folder"),
        ("case.toml", '"Something fails."', '"Something fails"', "summary is not one line"),
        ("case.toml", '["FW-SYN-DROP"]\n[points]', "[]\n[points]", "no patterns"),
        ("case.toml", '["FW-SYN-DROP"]\n[points]', '["FW-SYN-DROP", "FW-REJECT"]\n[points]', "no variant shows FW-REJ"),
        ("case.toml", '["FW-SYN-DROP"]\n[points]', '["fw", "FW-SYN-DROP"]\n[points]', "'fw' is not a pattern id"),
        ("case.toml", '["FW-SYN-DROP"]\n[points]', '["FW-SYN-DROP", "FW-SYN-DROP"]\n[points]', "listed twice"),
        ("case.toml", "variants.fixed", "variants.repaired", "no variant 'fixed'"),
        ("case.toml", "expect = []", 'expect = ["FW-SYN-DROP"]', "variant 'fixed' still expects a pattern"),
        ("case.toml", "expect = []", 'expect = ["FW-SYN-DROP"]', "both expects and excludes FW-SYN-DROP"),
        ("case.toml", "client =", "Client =", "'Client' is not a point name"),
        ("case.toml", "client =", "server =", "no recording broken.server.pcap"),
        ("lab.py", "def run", "def go", "lab.py has no run()"),
        ("README.md", "# A small case", "# Another case", "README.md does not begin with the title"),
        ("README.md", "## Root Cause", "## Cause", "not the seven in order"),
        (
            "README.md",
            "## Root Cause\n\nHost 192.0.2.7 said so (RFC 5280 §4.2.2.1).",
            "## Root Cause\n",
            "section 'Root Cause' is empty",
        ),
        ("README.md", "## Root Cause", "```\n## Root Cause\n```", "not the seven in order"),
        ("README.md", "lab run small-case", "lab run other", "does not name `netdiag lab run small-case`"),
        ("README.md", "192.0.2.7", "192.0.3.7", "192.0.3.7 is not a documentation or private address"),
    ],
)
def test_each_gap_is_noticed(folder: Path, file: str, old: str, new: str, problem: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    assert any(problem in found for found in problems(load_case(folder))), problems(load_case(folder))


@pytest.mark.parametrize("file", ["README.md", "lab.py"])
def test_a_missing_file_is_noticed(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert problems(load_case(folder)) == [f"{file} is missing"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "A small case"', "title = 7", "title: must be a non-empty string"),
        ('title = "A small case"', "", "title: must be a non-empty string"),
        ('patterns = ["FW-SYN-DROP"]', 'patterns = "FW-SYN-DROP"', "patterns: must be a list of strings"),
        ('patterns = ["FW-SYN-DROP"]', "patterns = [1]", "patterns: must be a list of strings"),
        ("expect = []", "", "variants.fixed.expect: must be a list of strings"),
        ("expect = []", "expected = []", "variants.fixed.expected: unknown field"),
        ('[points]\nclient = "here"', "[points]", "points: must be a non-empty table"),
        ("slug =", "author = 'me'\nslug =", "author: unknown field"),
        ("slug =", "slug", "case.toml: "),
    ],
)
def test_a_wrong_case_file_is_refused_by_field(folder: Path, old: str, new: str, message: str) -> None:
    text = (folder / "case.toml").read_text()
    assert old in text
    (folder / "case.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(RegistryError) as caught:
        load_case(folder)
    assert message in str(caught.value)


def test_a_folder_without_case_file_is_refused(folder: Path) -> None:
    shutil.rmtree(folder)
    with pytest.raises(RegistryError, match=r"case\.toml"):
        load_case(folder)
