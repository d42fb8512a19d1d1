"""Where a configuration comes from, what was read there, and what it came to: text and plug-in files as one thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from epp.config.build import NO_OVERRIDES, NOBODY, Built, load
from epp.config.errors import ConfigError
from epp.config.sources import Overrides
from epp.plugin_files import PluginFiles, Source, content, read
from epp.plugins import Catalogue, Plugin


@dataclass(frozen=True, slots=True)
class Reading:
    """What the files hold: compared as a whole, loaded as a whole."""

    config: bytes = b""
    files: tuple[Source, ...] = ()

    def text(self) -> str:
        try:
            return self.config.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ConfigError("", "is not UTF-8 text") from None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where to read, and what the command line adds to it. Without file and text: the default configuration."""

    config_file: str = ""
    """Followed; a text is not."""
    config_text: str = ""
    plugins_path: str = ""
    """Directory of plug-in files."""
    experimental: bool = False
    overrides: Overrides = NO_OVERRIDES

    def read(self) -> Reading:
        """All of it; ConfigError or PluginError if something can't be read."""
        return Reading(self._config(), read(self.plugins_path) if self.plugins_path else ())

    def build(self, reading: Reading, files: PluginFiles, inherit: Mapping[str, Plugin] = NOBODY) -> Built:
        """What it stands for; ConfigError or PluginError says why it can't be used."""
        return load(
            reading.text(),
            catalogue=catalogue(files),
            experimental=self.experimental,
            overrides=self.overrides,
            inherit=inherit,
        )

    def _config(self) -> bytes:
        if not self.config_file:
            return self.config_text.encode("utf-8", "surrogateescape")
        try:
            return content(self.config_file)
        except OSError as error:
            raise ConfigError("", f"can't be read: {error.strerror}") from None


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """A configuration in force and all it was made from."""

    origin: Origin
    reading: Reading
    files: PluginFiles
    built: Built


def catalogue(files: PluginFiles) -> Catalogue:
    """The installed plug-ins and those of the files; PluginError if one of the files can't be used."""
    return Catalogue.installed().joined(files.points)


def start(origin: Origin) -> Live:
    """The first configuration; ConfigError or PluginError."""
    reading = origin.read()
    files = PluginFiles(reading.files)
    return Live(origin, reading, files, origin.build(reading, files))
