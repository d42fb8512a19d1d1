"""Tests that need a Debian package say so; without it they are skipped and the summary tells what to install."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import settings

from tests.debian import COMMANDS, missing

REQUIRE = "EPP_REQUIRE_DEBIAN"
"""Set to 1, a missing package fails its tests: nothing is skipped unseen where it matters."""

# No test asserts how long something takes.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

missing_key = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_debian(*packages): runs only where these Debian packages are installed")
    config.stash[missing_key] = Counter()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    wanted = [package for marker in item.iter_markers("needs_debian") for package in marker.args]
    absent = [package for package in wanted if missing(_known(package))]
    if not absent:
        return
    item.config.stash[missing_key].update(absent)
    reason = f"needs Debian package {', '.join(absent)}"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _known(package: str) -> str:
    if package not in COMMANDS:
        raise pytest.UsageError(f"needs_debian: no package {package!r}; tests/debian.py has: {', '.join(COMMANDS)}")
    return package


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    absent = config.stash[missing_key]
    if absent:
        counted = ", ".join(f"{package} ({count} tests)" for package, count in sorted(absent.items()))
        terminalreporter.section("Debian packages missing")
        terminalreporter.line(f"{counted}; apt-get install {' '.join(sorted(absent))}")
