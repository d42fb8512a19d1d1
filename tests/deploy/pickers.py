"""The picker as manifests start it: every command line of our image, and every configuration in any manifest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from epp.config import Built, load
from epp.options import Options, parse
from epp.plugin_files import PluginFiles, Source
from epp.plugins import Catalogue

from .documents import Document, Json, walk

IMAGE = re.compile(r"(^|/)endpoint-picker(:|@|$)")
COMMAND = "/app/epp"
KIND = "EndpointPickerConfig"
SAMPLES = {"metadata.name": "qwen-epp-7d4b9c6f8-x2x9p", "metadata.namespace": "llm"}
"""What the downward API would tell."""


@dataclass(frozen=True)
class Picker:
    """A container of our image and the pod it stands in."""

    where: str
    container: Json
    pod: Json
    """The PodSpec around it."""

    @property
    def argv(self) -> list[str]:
        """Its words without the program's name, with `$(NAME)` filled in as the kubelet does."""
        command = [str(word) for word in self.container.get("command", [COMMAND])]
        if command[:1] != [COMMAND]:
            raise AssertionError(f"{self.where}: starts {command[:1]}, the image has only {COMMAND}")
        words = [*command[1:], *map(str, self.container.get("args", []))]
        return [re.sub(r"\$\((\w+)\)", lambda found: self.environ[found[1]], word) for word in words]

    @property
    def environ(self) -> Mapping[str, str]:
        return {variable["name"]: _value(variable) for variable in self.container.get("env", [])}

    @property
    def options(self) -> Options:
        """Raises OptionsError."""
        return parse(self.argv, self.environ, memory_limit=lambda: None)


def _value(variable: Json) -> str:
    field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
    return str(variable.get("value", SAMPLES.get(field, "")))


def pickers(found: list[Document]) -> list[Picker]:
    """Every container of our image, with a command line of its own or without."""
    return [
        Picker(f"{document} {path}", container, pod)
        for document in found
        for path, pod in walk(document.value)
        if isinstance(pod, dict) and isinstance(pod.get("containers"), list)
        for container in pod["containers"]
        if IMAGE.search(str(container.get("image", "")))
    ]


def configurations(found: list[Document]) -> Iterator[tuple[str, str]]:
    """Where and text of each EndpointPickerConfig: a file, a value of a ConfigMap, an argument, an inline object."""
    for document in found:
        for path, value in walk(document.value):
            if isinstance(value, dict) and value.get("kind") == KIND:
                yield f"{document} {path}", _text(value)
            elif isinstance(value, str) and re.search(rf"kind\W+{KIND}\b", value):
                yield f"{document} {path}", value


def _text(value: Json) -> str:
    # JSON is YAML, and keeps what PyYAML would write in a way of its own.
    return json.dumps(value)


Files = tuple[tuple[str, str], ...]
"""Name and text of each plug-in file."""


@cache
def built(text: str, files: Files = ()) -> Built:
    """With the plug-ins installed, and those in files. Raises epp.config.ConfigError and PluginError."""
    plugins = PluginFiles([Source(name, content.encode()) for name, content in files])
    try:
        return load(text, catalogue=Catalogue.installed().joined(plugins.points))
    finally:
        plugins.drop()


def plugin_files(found: list[Document]) -> Files:
    """Those of every directory that a picker is given by --plugins-path."""
    folders = [(picker, picker.options.plugins_path) for picker in pickers(found)]
    return tuple(file for picker, path in folders if path for file in mounted(picker, path, found).items())


def configuration_of(picker: Picker, found: list[Document]) -> str | None:
    """The configuration a picker would read: from its words, or from the ConfigMap mounted where they point."""
    options = picker.options
    if not options.config_file:
        return options.config_text or None
    folder, _, file = options.config_file.rpartition("/")
    return mounted(picker, folder, found)[file]


def mounted(picker: Picker, folder: str, found: list[Document]) -> Mapping[str, str]:
    """The files of the ConfigMap mounted at `folder`."""
    names = [mount["name"] for mount in picker.container.get("volumeMounts", []) if mount["mountPath"] == folder]
    if not names:
        raise AssertionError(f"{picker.where}: nothing is mounted at {folder}")
    volume = next(volume for volume in picker.pod["volumes"] if volume["name"] == names[0])
    maps = {document.name: document for document in found if document.is_object and document.kind == "ConfigMap"}
    wanted = volume.get("configMap", {}).get("name", "")
    if wanted not in maps:
        raise AssertionError(f"{picker.where}: no ConfigMap {wanted!r} for {folder}")
    return dict(maps[wanted].value.get("data", {}))
