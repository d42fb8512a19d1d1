from pathlib import Path

import pytest

from epp.options_memory import cgroup_limit


def limit(root: Path, groups: str, files: dict[str, str]) -> int | None:
    for name, text in files.items():
        file = root / "mount" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (root / "cgroup").write_text(groups)
    return cgroup_limit(root / "cgroup", root / "mount")


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "536870912\n"}, 536870912),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/a/b\n", {"memory.max": "900", "a/memory.max": "300", "a/b/memory.max": "max"}, 300),
        ("0::/not/visible\n", {"memory.max": "700"}, 700),
        ("4:memory:/x\n3:cpu:/x\n", {"memory/memory.limit_in_bytes": "800"}, 800),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("0::/\n", {}, None),
    ],
    ids=["v2", "v2 unlimited", "the least above", "seen from inside", "v1", "v1 unlimited", "no files"],
)
def test_the_memory_limit(tmp_path: Path, groups: str, files: dict[str, str], expected: int | None) -> None:
    assert limit(tmp_path, groups, files) == expected


def test_without_a_list_of_groups_the_root_is_read(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("42")
    assert cgroup_limit(tmp_path / "none", tmp_path) == 42
