"""What troubleshooting tells readers to look for is really said by the picker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = " ".join((ROOT / "docs" / "troubleshooting.md").read_text().split())
EPP = "\n".join(path.read_text() for path in (ROOT / "epp").rglob("*.py"))
SAID = re.findall(r"(?:the log has|the same, and it says|same, and the second line says) `([^`]+)`", TEXT)


@pytest.mark.parametrize("line", SAID)
def test_a_log_line_is_written_somewhere(line: str) -> None:
    assert line in EPP


def test_log_lines_are_found_in_the_text() -> None:
    assert len(SAID) >= 12


@pytest.mark.parametrize(
    "reason",
    ["endpoints are not known yet", "another replica leads", "the pool's appProtocol", "plug-ins are not ready"],
)
def test_a_reason_for_not_being_ready_is_one_the_picker_gives_and_the_text_explains(reason: str) -> None:
    assert reason in EPP
    assert reason in TEXT.replace("`", "")
