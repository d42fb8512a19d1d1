"""How much memory this process may use, as its control group says."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

GROUPS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")
UNLIMITED = 2**60
"""cgroup v1 writes a number near 2^63 where there is no limit."""


def cgroup_limit(groups: Path = GROUPS, mount: Path = MOUNT) -> int | None:
    """Bytes: the least limit of the process's control group and those above it, v2 or v1; None = no limit known."""
    found = [limit for file in _files(groups, mount) if (limit := _bytes(file)) is not None]
    return min(found, default=None)


def _files(groups: Path, mount: Path) -> list[Path]:
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    files = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            files += _upwards(mount, path, "memory.max")
        elif "memory" in controllers.split(","):
            files += _upwards(mount / "memory", path, "memory.limit_in_bytes")
    return files


def _upwards(mount: Path, path: str, name: str) -> list[Path]:
    """The file in the group and in every group above; inside a container most of them can't be seen."""
    group = PurePosixPath(path.lstrip("/"))
    return [mount / step / name for step in (group, *group.parents)]


def _bytes(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < UNLIMITED else None
