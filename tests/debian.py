"""Commands of Debian packages that tests use, and where they are."""

from __future__ import annotations

import shutil
from pathlib import Path

ASIDE = Path(__file__).parents[1] / ".venv" / "debian" / "usr" / "bin"
"""Where `.ci/run` unpacks a package whose place in /usr/bin another vendor's has taken."""
COMMANDS = {
    "curl": "curl",
    "kubernetes-client": "kubectl",
    "nghttp2-client": "h2load",
    "prometheus": "promtool",
    "shellcheck": "shellcheck",
}
"""Debian package → the command that shows it is there."""


def command(package: str) -> str:
    """Path of a package's command, whether or not it is there. KeyError if no test needs the package."""
    name = COMMANDS[package]
    # Not from PATH: pip's kubectl may be there, which is another one.
    places = [ASIDE / name, Path("/usr/bin") / name]
    return str(next((place for place in places if place.exists()), shutil.which(name) or places[1]))


def missing(package: str) -> bool:
    return not Path(command(package)).exists()
