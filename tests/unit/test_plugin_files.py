"""Plug-ins that are files: what is read, what becomes of it, and what their author is told."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from epp.config import catalogue
from epp.plugin_files import MOST_BYTES, PACKAGE, PluginFiles, read
from epp.plugins import Catalogue
from epp.settings import PluginError
from epp.testing import endpoints
from tests.unit.reload_kit import ConfigMap, modules_forgotten

EVEN = """\
import numpy as np
from epp import Endpoints, Scores

def even(endpoints: Endpoints) -> Scores:
    return np.ones(len(endpoints))
"""


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with modules_forgotten():
        yield


def written(folder: Path, files: Mapping[str, str | bytes]) -> str:
    for name, text in files.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder)


def loaded(folder: Path, files: Mapping[str, str | bytes], before: PluginFiles | None = None) -> PluginFiles:
    return PluginFiles(read(written(folder, files)), before)


def target(files: PluginFiles, name: str) -> Any:  # a function or class of the files
    return catalogue(files).find(name).target


def ours() -> set[str]:
    return {name for name in sys.modules if name.startswith(PACKAGE)}


def test_a_function_of_a_file_is_a_plug_in_like_one_of_a_package(tmp_path: Path) -> None:
    found = catalogue(loaded(tmp_path, {"fair.py": EVEN})).find("even")
    assert (found.places, found.distribution) == (("scorer",), str(tmp_path / "fair.py"))
    assert list(found.target(endpoints(waiting=[1, 2]))) == [1.0, 1.0]


def test_the_built_in_plug_ins_stay_there(tmp_path: Path) -> None:
    both = catalogue(loaded(tmp_path, {"fair.py": EVEN}))
    assert set(both.names) == {*Catalogue.installed().names, "even"}


def test_files_are_read_by_name_without_the_hidden_ones_and_those_of_other_kinds(tmp_path: Path) -> None:
    folder = written(tmp_path, {"b.py": "", "a.py": "", "_c.py": "", ".d.py": "", "e.txt": "", "f.py~": ""})
    assert [source.stem for source in read(folder)] == ["_c", "a", "b"]


def test_a_mounted_config_map_is_read_through_its_links(tmp_path: Path) -> None:
    mounted = ConfigMap(tmp_path / "plugins")
    mounted.write({"fair.py": EVEN})
    assert [(s.path, s.content) for s in read(str(mounted.folder))] == [
        (str(tmp_path / "plugins" / "fair.py"), EVEN.encode())
    ]


def test_nothing_is_written(tmp_path: Path) -> None:
    loaded(tmp_path, {"fair.py": EVEN, "_other.py": ""})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_other.py", "fair.py"]


@pytest.mark.parametrize("statement", ["from ._shared import ONE", "from . import _shared\nONE = _shared.ONE"])
def test_files_may_import_each_other(statement: str, tmp_path: Path) -> None:
    files = {"_shared.py": "ONE = 1.0\n", "fair.py": f"{statement}\n{EVEN.replace('np.ones', 'ONE * np.ones')}"}
    assert list(target(loaded(tmp_path, files), "even")(endpoints(waiting=[1]))) == [1.0]


def test_files_that_offer_plug_ins_may_be_imported_too_and_are_run_once(tmp_path: Path) -> None:
    odd = "from .fair import even\nfrom epp import Endpoints, Scores\ndef odd(endpoints: Endpoints) -> Scores: ...\n"
    files = loaded(tmp_path, {"a_odd.py": odd, "fair.py": EVEN})
    assert files.modules["a_odd"].even is files.modules["fair"].even
    assert [point.name for _, point in files.points] == ["odd", "even"]


WRONG = {
    "syntax": ({"a.py": "x = 1\ndef f(:\n"}, "a.py:2: not valid Python: invalid syntax"),
    "syntax of what is imported": ({"_b.py": "\n\nx =", "a.py": "from . import _b"}, "_b.py:3: not valid Python:"),
    "an encoding": ({"a.py": b"# coding: klingon\n"}, "a.py:1: not valid Python: unknown encoding"),
    "bytes": ({"a.py": b"\xff"}, "a.py:1: not valid Python:"),
    "bytes further down": ({"a.py": b"import os\n# \xe9\n"}, "a.py:2: not valid Python: it is no text in utf-8"),
    "an error": ({"a.py": "\n1 / 0\n"}, "a.py:2: its import raised ZeroDivisionError"),
    "an error in what is called": ({"a.py": "def _f():\n    1 / 0\n\n_f()\n"}, "a.py:2: its import raised"),
    "an exit": ({"a.py": "raise SystemExit(0)"}, "a.py:1: its import raised SystemExit(0)"),
    "a package that is not there": ({"a.py": "import no_such"}, "only what is installed beside the picker"),
    "a file as a module": ({"a.py": "import _b", "_b.py": ""}, "write `from . import _b`"),
    "no plug-in": ({"a.py": "x = 1"}, "a.py: offers no plug-in; annotate what a public function returns"),
    "one type twice": ({"a.py": EVEN, "b.py": EVEN}, "a.py offers a plug-in type 'even' too; rename one"),
    "a name": ({"a b.py": EVEN}, "a b.py': rename it; a name has letters, digits, _ and -"),
    "a dot": ({"a.b.py": EVEN}, "a.b.py': rename it"),
    "size": ({"a.py": b"#" * (MOST_BYTES + 1)}, "a.py (--plugins-path): can't be read: it has more than 1 MiB"),
    "size together": ({f"_{n}.py": b"#" * MOST_BYTES for n in range(9)}, "over 8 MiB of Python files"),
}


@pytest.mark.parametrize(("files", "told"), WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_is_told_with_file_and_rule_and_leaves_nothing_behind(
    files: dict[str, str | bytes], told: str, tmp_path: Path
) -> None:
    finders = list(sys.meta_path)
    with pytest.raises(PluginError) as raised:
        loaded(tmp_path, files)
    assert told in str(raised.value)
    assert str(tmp_path) in str(raised.value)
    assert (ours(), sys.meta_path) == (set(), finders)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"gone \(--plugins-path\): can't be read: No such file or directory"):
        read(str(tmp_path / "gone"))


def test_a_pipe_among_the_files_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.py")
    assert [source.content for source in read(str(tmp_path))] == [b""]


def test_a_type_that_is_installed_is_not_replaced(tmp_path: Path) -> None:
    files = loaded(tmp_path, {"a.py": EVEN.replace("even", "queue_scorer")})
    with pytest.raises(PluginError, match=r"a\.py: endpoint-picker has a plug-in type 'queue-scorer' already; rename"):
        catalogue(files)


def test_a_signature_that_breaks_the_rules_is_told_though_nobody_configured_it(tmp_path: Path) -> None:
    bad = (
        "from epp import Scores\nclass Bad:\n    def __init__(self, size): ...\n    def __call__(self) -> Scores: ...\n"
    )
    with pytest.raises(PluginError, match=r"a\.py: plug-in 'bad': settings must be keyword-only"):
        catalogue(loaded(tmp_path, {"a.py": bad}))


def test_two_readings_of_a_file_live_side_by_side(tmp_path: Path) -> None:
    old = loaded(tmp_path, {"a.py": EVEN})
    new = loaded(tmp_path, {"a.py": EVEN.replace("np.ones", "np.zeros")}, old)
    assert [list(target(files, "even")(endpoints(waiting=[1]))) for files in (old, new)] == [[1.0], [0.0]]
    assert target(old, "even").__module__ != target(new, "even").__module__


def test_a_file_that_did_not_change_keeps_its_module(tmp_path: Path) -> None:
    odd = EVEN.replace("even", "odd")
    old = loaded(tmp_path, {"a.py": EVEN, "b.py": odd})
    new = loaded(tmp_path, {"a.py": EVEN, "b.py": odd + "\n"}, old)
    assert target(new, "even") is target(old, "even")
    assert target(new, "odd") is not target(old, "odd")


def test_a_file_that_imports_another_one_changes_with_it(tmp_path: Path) -> None:
    fair = "from ._shared import ONE\n" + EVEN.replace("np.ones", "ONE * np.ones")
    old = loaded(tmp_path, {"_shared.py": "ONE = 1.0", "fair.py": fair})
    new = loaded(tmp_path, {"_shared.py": "ONE = 0.5"}, old)
    assert list(target(new, "even")(endpoints(waiting=[1]))) == [0.5]


def test_a_changed_file_imports_the_unchanged_one_that_is_in_force(tmp_path: Path) -> None:
    odd = "from .fair import even\nfrom epp import Endpoints, Scores\ndef odd(endpoints: Endpoints) -> Scores: ...\n"
    old = loaded(tmp_path, {"fair.py": EVEN, "odd.py": odd})
    new = loaded(tmp_path, {"odd.py": odd + "\n"}, old)
    assert new.modules["odd"].even is old.modules["fair"].even


def test_what_is_dropped_is_forgotten_and_still_works(tmp_path: Path) -> None:
    old = loaded(tmp_path, {"a.py": EVEN, "b.py": EVEN.replace("even", "odd")})
    function = target(old, "even")
    new = loaded(tmp_path, {"a.py": EVEN + "\n"}, old)
    old.drop(new)
    assert list(function(endpoints(waiting=[1]))) == [1.0]
    assert function.__module__ not in sys.modules
    kept = target(new, "odd").__module__
    assert importlib.import_module(kept) is new.modules["b"]
    new.drop()
    assert ours() == set()


def test_a_reading_that_is_refused_leaves_the_one_before_as_it_was(tmp_path: Path) -> None:
    old = loaded(tmp_path, {"a.py": EVEN, "b.py": EVEN.replace("even", "odd")})
    there = ours()
    with pytest.raises(PluginError):
        loaded(tmp_path, {"a.py": "1 / 0"}, old)
    assert ours() == there


def test_a_traceback_shows_the_line_that_ran_whatever_the_file_holds_by_then(tmp_path: Path) -> None:
    files = loaded(tmp_path, {"a.py": EVEN.replace("np.ones(len(endpoints))", "np.ones(len(endpoints)) / None")})
    files.show_lines()
    (tmp_path / "a.py").write_text("# something else\n" * 9)
    with pytest.raises(TypeError) as raised:
        target(files, "even")(endpoints(waiting=[1]))
    shown = "".join(traceback.format_exception(raised.value))
    assert f'File "{tmp_path}/a.py", line 5, in even\n    return np.ones(len(endpoints)) / None\n' in shown
    files.drop()
    assert "/ None" not in "".join(traceback.format_exception(raised.value))
