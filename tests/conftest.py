"""Tests that need a Debian package say so; without it they are skipped and the summary tells what to install."""

from __future__ import annotations

import os
import shutil
from collections import Counter

import pytest

COMMANDS = {
    "curl": "curl",
    "kubernetes-client": "kubectl",
    "nghttp2-client": "h2load",
    "prometheus": "promtool",
    "shellcheck": "shellcheck",
}
"""Debian package → the command that shows it is there."""
REQUIRE = "EPP_REQUIRE_DEBIAN"
"""Set to 1, a missing package fails its tests: nothing is skipped unseen where it matters."""

missing_key = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_debian(*packages): runs only where these Debian packages are installed")
    config.stash[missing_key] = Counter()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    wanted = [package for marker in item.iter_markers("needs_debian") for package in marker.args]
    missing = [package for package in wanted if not shutil.which(_command(package))]
    if not missing:
        return
    item.config.stash[missing_key].update(missing)
    reason = f"needs Debian package {', '.join(missing)}"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _command(package: str) -> str:
    if package not in COMMANDS:
        raise pytest.UsageError(f"needs_debian: no package {package!r}; tests/conftest.py has: {', '.join(COMMANDS)}")
    return COMMANDS[package]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    missing = config.stash[missing_key]
    if missing:
        counted = ", ".join(f"{package} ({count} tests)" for package, count in sorted(missing.items()))
        terminalreporter.section("Debian packages missing")
        terminalreporter.line(f"{counted}; apt-get install {' '.join(sorted(missing))}")
