"""Wheels made again from what is installed here, so that pip can install the same without asking anybody."""

from __future__ import annotations

import re
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

LEFT_BY_PIP = {"INSTALLER", "REQUESTED", "direct_url.json"}


class NotInstalledError(Exception):
    """A package that a wheel is to be made of is not here."""


def wheelhouse(folder: Path, wanted: Iterable[str]) -> Path:
    """A wheel in `folder` of every requirement in `wanted` and of what it needs in turn."""
    folder.mkdir()
    for found in closure(wanted):
        _repack(found, folder)
    return folder


def closure(wanted: Iterable[str]) -> list[Distribution]:
    """The distributions that fulfil the requirements, and theirs."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(text) for text in wanted]
    while waiting:
        requirement = waiting.pop()
        key = _key(requirement)
        if key not in found:
            found[key] = _installed(requirement)
            waiting += _needed(found[key], requirement.extras)
    return list({one.metadata["Name"]: one for one in found.values()}.values())


def _key(requirement: Requirement) -> str:
    return f"{re.sub(r'[-_.]+', '-', requirement.name).lower()} {sorted(requirement.extras)}"


def _installed(requirement: Requirement) -> Distribution:
    try:
        found = distribution(requirement.name)
    except PackageNotFoundError:
        raise NotInstalledError(f"{requirement.name} is not installed; `make .venv/installed` does that") from None
    if not requirement.specifier.contains(found.version, prereleases=True):
        raise NotInstalledError(f"{requirement} is asked for, {found.version} is installed")
    return found


def _needed(found: Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    """What it requires here, without extras or with these."""
    for text in found.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def _repack(found: Distribution, folder: Path) -> None:
    tags = re.findall(r"^Tag: ([^-]+)-([^-]+)-(\S+)$", found.read_text("WHEEL") or "", re.MULTILINE)
    tag = "-".join(".".join(dict.fromkeys(part)) for part in zip(*tags, strict=True))
    name = re.sub(r"[-_.]+", "_", found.metadata["Name"])
    with zipfile.ZipFile(folder / f"{name}-{found.version}-{tag}.whl", "w", zipfile.ZIP_STORED) as wheel:
        for file in found.files or ():
            inside = ".." not in file.parts and file.suffix != ".pyc" and file.name not in LEFT_BY_PIP
            if inside and (path := Path(str(found.locate_file(file)))).is_file():
                wheel.write(path, str(file))


def of_project(folder: Path) -> list[str]:
    """What a project needs to be built and to run, its extras left out."""
    told = tomllib.loads((folder / "pyproject.toml").read_text())
    return [*told["build-system"]["requires"], *told["project"]["dependencies"]]
