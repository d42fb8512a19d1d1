"""Plug-ins that are files: a directory of name.py becomes modules, and what they offer stands beside entry points.

Nothing is written and nothing of the directory is on the import path. Each reading becomes a package with a name of its
own, so that two readings of one file can live side by side: the one in force, and the one that may replace it. A file
that did not change keeps its module, and with it the memory of its plug-ins.
"""

from __future__ import annotations

import ast
import importlib
import linecache
import os
import re
import sys
import traceback
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import ExecutionLoader
from importlib.machinery import ModuleSpec
from importlib.util import decode_source, spec_from_file_location
from types import ModuleType
from typing import Any

from epp.plugin_places import Offer, offers
from epp.plugins import Point, shown
from epp.settings import PluginError

MOST_BYTES = 1 << 20
"""Of one file, and of the configuration: a ConfigMap holds no more."""
MOST_BYTES_TOGETHER = 8 << 20
"""They are read every second."""
PACKAGE = "epp_plugin_files_"
NAME = re.compile(r"\w[\w-]*\.py", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """One file as it was read."""

    path: str
    content: bytes

    @property
    def stem(self) -> str:
        return os.path.basename(self.path).removesuffix(".py")

    @property
    def private(self) -> bool:
        """It offers nothing itself; others of the directory may import it."""
        return self.stem.startswith("_")


def content(path: str) -> bytes:
    """A file's bytes, at most MOST_BYTES; OSError says what is wrong."""
    with open(path, "rb", opener=_without_waiting) as file:
        found = file.read(MOST_BYTES + 1) or b""
    if len(found) > MOST_BYTES:
        raise OSError(0, f"it has more than {MOST_BYTES >> 20} MiB")
    return found


def _without_waiting(path: str, flags: int) -> int:
    """A pipe without a writer would keep its reader waiting for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def read(directory: str) -> tuple[Source, ...]:
    """Every name.py of the directory by name, hidden ones apart, through whatever symlinks; PluginError if one can't be
    read. A mounted ConfigMap keeps its own links and folders hidden."""
    found: list[Source] = []
    left, path = MOST_BYTES_TOGETHER, directory
    try:
        for name in sorted(os.listdir(directory)):
            if name.startswith(".") or not name.endswith(".py"):
                continue
            path = os.path.join(directory, name)
            if not NAME.fullmatch(name):
                raise PluginError(f"{path!r}: rename it; a name has letters, digits, _ and -, and ends in .py")
            found.append(Source(path, content(path)))
            left -= len(found[-1].content)
            if left < 0:
                raise PluginError(f"{directory}: over {MOST_BYTES_TOGETHER >> 20} MiB of Python files; keep fewer")
    except OSError as error:
        raise PluginError(f"{path} (--plugins-path): can't be read: {error.strerror}") from None
    return tuple(found)


@dataclass(frozen=True, slots=True)
class FilePoint:
    """What stands for an entry point where a plug-in is in a file."""

    name: str
    module: str
    """The file."""
    target: Any  # a function or a class, to be checked by whoever loads it
    dist: None = None

    @property
    def value(self) -> str:
        return self.module

    def load(self) -> Any:
        return self.target


class PluginFiles:
    """The modules made of one reading of a directory, and what they offer.

    Modules stay importable until `drop`; requests under way may use their functions after that.
    """

    def __init__(self, sources: Sequence[Source] = (), before: PluginFiles | None = None) -> None:
        """Runs the files that changed since `before`. PluginError names file and line of what is wrong."""
        self.sources = tuple(sources)
        self.modules: dict[str, ModuleType] = {}
        self.points: tuple[tuple[str, Point], ...] = ()
        self._package = PACKAGE + uuid.uuid4().hex[:8]
        self._finder = _Finder(self._package, {source.stem: source for source in sources})
        self._lines: dict[str, tuple[int, None, list[str], str]] = {}
        if not sources:
            return
        try:
            self._run(before)
            self.points = tuple(_points(self._offered()))
        except BaseException:
            self.drop(before)
            raise

    def show_lines(self) -> None:
        """From now on tracebacks show these files' lines as they were read, whatever the files hold by then."""
        for source in self.sources:
            text = source.content.decode(errors="replace")
            # Without a time, the entry counts as not being of a file, and is never compared with one.
            self._lines[source.path] = (len(text), None, text.splitlines(keepends=True), source.path)
        linecache.cache.update(self._lines)

    def drop(self, successor: PluginFiles | None = None) -> None:
        """Forget the modules, except those that `successor` goes on with."""
        mine = {name for name in list(sys.modules) if name == self._package or name.startswith(f"{self._package}.")}
        mine |= {module.__name__ for module in self.modules.values()}
        going_on = {module.__name__ for module in successor.modules.values()} if successor else set()
        for name in mine - going_on:
            sys.modules.pop(name, None)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        for path, lines in self._lines.items():
            if linecache.cache.get(path) is lines:
                del linecache.cache[path]

    def _run(self, before: PluginFiles | None) -> None:
        package = ModuleType(self._package, "Files of --plugins-path.")
        package.__path__ = []
        sys.modules[self._package] = package
        sys.meta_path.append(self._finder)
        self.modules = before.unchanged(self.sources) if before else {}
        for stem, module in self.modules.items():
            sys.modules[f"{self._package}.{stem}"] = module
            setattr(package, stem, module)
        for source in self.sources:
            if not source.private and source.stem not in self.modules:
                self.modules[source.stem] = self._imported(source)

    def unchanged(self, sources: Iterable[Source]) -> dict[str, ModuleType]:
        """The modules that are good for these sources too: same bytes, and nothing imported from other files."""
        same = set(self.sources) & set(sources)
        return {
            source.stem: self.modules[source.stem]
            for source in same
            if source.stem in self.modules and not _imports_others(source)
        }

    def _imported(self, source: Source) -> ModuleType:
        try:
            return importlib.import_module(f"{self._package}.{source.stem}")
        except KeyboardInterrupt:
            raise
        except SyntaxError as error:
            where = f"{error.filename or source.path}:{error.lineno or 1}"
            raise PluginError(f"{where}: not valid Python: {error.msg}; the file is not loaded") from error
        except BaseException as error:  # whatever a stranger's module raises, SystemExit too
            where = f"{source.path}:{_line(error, source.path)}"
            raise PluginError(f"{where}: its import raised {shown(error)}; {self._remedy(error)}") from error

    def _remedy(self, error: BaseException) -> str:
        if isinstance(error, ModuleNotFoundError):
            if error.name in {source.stem for source in self.sources}:
                return f"write `from . import {error.name}`: these files are no top-level modules"
            return "only what is installed beside the picker, and these files, can be imported"
        return "what a file does at import must work anywhere, without waiting"

    def _offered(self) -> dict[str, list[Offer]]:
        """File → what it offers."""
        own = [source for source in self.sources if not source.private]
        return {source.path: offers(self.modules[source.stem], source.path) for source in own}


def _points(offered: Mapping[str, Sequence[Offer]]) -> list[tuple[str, FilePoint]]:
    """As a catalogue takes them; PluginError if two files offer one type."""
    by: dict[str, str] = {}
    for path, found in offered.items():
        for offer in found:
            if by.setdefault(offer.type, path) != path:
                raise PluginError(f"{path}: {by[offer.type]} offers a plug-in type {offer.type!r} too; rename one")
    return [
        (offer.place, FilePoint(offer.type, path, offer.target)) for path, found in offered.items() for offer in found
    ]


class _Finder(ExecutionLoader):
    """Finds the files of one reading as modules of its package, for `from . import other`, and runs them."""

    def __init__(self, package: str, sources: Mapping[str, Source]) -> None:
        self._package = package
        self._sources = sources

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, _, stem = fullname.rpartition(".")
        if package != self._package or stem not in self._sources:
            return None
        return spec_from_file_location(fullname, self._sources[stem].path, loader=self)

    def get_filename(self, fullname: str) -> str:
        return self._source(fullname).path

    def get_source(self, fullname: str) -> str:
        source = self._source(fullname)
        try:
            return decode_source(source.content)
        except UnicodeDecodeError as error:
            line = 1 + source.content.count(b"\n", 0, error.start)
            problem = f"it is no text in {error.encoding}, nor says another encoding"
            raise SyntaxError(problem, (source.path, line, None, None)) from None

    def _source(self, fullname: str) -> Source:
        return self._sources[fullname.rpartition(".")[2]]


def _line(error: BaseException, path: str) -> int:
    """The last line of the file that led to the error."""
    frames = traceback.walk_tb(error.__traceback__)
    return ([1] + [line for frame, line in frames if frame.f_code.co_filename == path])[-1]


def _imports_others(source: Source) -> bool:
    return any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(ast.parse(source.content)))
