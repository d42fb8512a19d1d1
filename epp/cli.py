"""The command `epp`: serve, check, plugins, explain. Errors are one message on stderr and exit code 2."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from epp import __version__, cli_explain, cli_plugins
from epp.compiled import compiled
from epp.config import Built, ConfigError, Live, Origin, Overrides, catalogue, load, start
from epp.feeds import FeedError
from epp.feeds.entries import Loaded, read_endpoints
from epp.feeds.manifests import read_manifests
from epp.headers import Headers
from epp.options import Options, parse
from epp.options_argv import OptionsError
from epp.options_help import help_text
from epp.plugin_files import PluginFiles, read
from epp.plugins import Catalogue
from epp.settings import PluginError
from epp.workers.child import PARENT

GOOD, REFUSED, WRONG = 0, 1, 2
"""Exit codes: done; the request was refused; the configuration, a file or the command line can't be used."""
COMMANDS = """\
epp check FILE           validates a configuration (- = standard input) and prints it with all defaults
epp plugins [TYPE]       lists the plug-ins there are with their settings
epp explain …            prints one decision with every vote; epp explain --help
epp --version

"""


class UsageError(Exception):
    """A command that can't be done as it was given; the text names the word and the remedy."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (without the program's name); returns the exit code."""
    _keep_standard_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _command(words)(words)
    except (UsageError, OptionsError, ConfigError, PluginError, FeedError) as error:
        print(f"epp: {error}", file=sys.stderr)
        return WRONG
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else WRONG
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever reads us (head, less) has seen enough. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD


def _keep_standard_streams() -> None:
    """Closed ones lead to /dev/null: else the next socket gets their number, and the log is written to it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _command(words: list[str]) -> Callable[[list[str]], int]:
    """What the first word asks for. Only there a word is a command: manifests leave stray words elsewhere."""
    first = words[0] if words else ""
    found = {"check": _check, "plugins": _plugins, "explain": _explain, "serve": _serve}.get(first)
    if found is not None:
        del words[0]
        return found
    if first in {"-h", "--help", "help"}:
        return _help
    if first in {"--version", "version"}:
        return _version
    if first and not first.startswith("-"):
        close = get_close_matches(first, ("check", "plugins", "explain", "serve"), n=1)
        raise UsageError(f"no command {first!r}; {f'did you mean {close[0]}?' if close else 'see epp --help'}")
    return _serve


def _help(words: list[str]) -> int:
    print(COMMANDS + help_text(), end="")
    return GOOD


def _version(words: list[str]) -> int:
    print(f"epp {__version__} ({'compiled' if compiled() else 'not compiled'})")
    return GOOD


def _serve(words: list[str]) -> int:
    options = parse(words, os.environ)
    if options.help:
        return _help(words)
    if options.workers > 1 and PARENT not in os.environ:
        from epp.workers.parent import supervise

        return supervise(options, words)
    live = _live(options)
    options.validate(file_mode=live.built.discovery is not None)
    os.environ.update(options.grpc_environment)
    # Its core would write a line for each failed handshake, past our log and blocking on a full pipe.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # gRPC reads its environment when it is first imported.
    from epp.app import serve

    # What is loaded stays. A full garbage collection that walks it stops the loop for 15 to 25 ms; without it, for 1.
    gc.collect()
    gc.freeze()
    return serve(options, live)


def _live(options: Options) -> Live:
    """The configuration to begin with, and where it comes from."""
    # A pipe can be read once; only a file can be followed.
    followed = os.path.isfile(options.config_file)
    text = _text(options.config_file) if options.config_file else options.config_text
    return start(
        Origin(
            config_file=options.config_file if followed else "",
            config_text=text,
            plugins_path=options.plugins_path,
            experimental=options.allow_experimental_plugins,
            overrides=Overrides(options.metrics_source_overrides, options.engine_overrides),
        )
    )


def _catalogue(plugins_path: str) -> Catalogue:
    """The plug-ins installed, and those in a directory if one is given."""
    return catalogue(PluginFiles(read(plugins_path) if plugins_path else ()))


class _Parser(argparse.ArgumentParser):
    """argparse, with one line for an error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _parser(name: str, about: str) -> _Parser:
    return _Parser(prog=f"epp {name}", description=about, allow_abbrev=False)


def _experimental(parser: _Parser) -> None:
    parser.add_argument("--allow-experimental-plugins", action="store_true", help="allow plug-ins marked alpha")


def _plugins_path(parser: _Parser) -> None:
    about = "directory of plug-ins, one name.py each; they are run"
    parser.add_argument("--plugins-path", metavar="DIR", default="", help=about)


def _check(words: list[str]) -> int:
    parser = _parser("check", "Validates a configuration and prints it with all defaults, additions marked.")
    parser.add_argument("file", help="EndpointPickerConfig, YAML or JSON; - = standard input")
    about = "objectives and rewrites to check too; default: those the configuration names, if they are here"
    parser.add_argument("--manifests", metavar="FILE", default="", help=about)
    _experimental(parser)
    _plugins_path(parser)
    given = parser.parse_args(words)
    known = _catalogue(given.plugins_path)
    try:
        built = load(_text(given.file), catalogue=known, experimental=given.allow_experimental_plugins)
    except ConfigError as error:
        raise UsageError(f"{given.file}: {error}") from error
    _warn(built.warnings)
    _check_manifests(given.manifests, built.discovery.manifests_path if built.discovery else "")
    print(built.resolved.yaml(), end="")
    return GOOD


def _check_manifests(given: str, named: str) -> None:
    path = given or named
    if not given and path and not os.path.exists(path):
        _warn([f"{path}: is not here, so what it says is not checked; give it with --manifests FILE"])
    elif path:
        try:
            found = read_manifests(_bytes(path))
        except FeedError as error:
            raise UsageError(f"{path}: {error}") from None
        _warn([f"{path}: {warning}" for warning in found.warnings])
        if found.errors:
            raise UsageError("\n".join(f"{path}: {problem}" for problem in found.errors))


def _plugins(words: list[str]) -> int:
    parser = _parser("plugins", "Lists the plug-ins there are: kinds, settings with their defaults, what they do.")
    parser.add_argument("type", nargs="?", help="only this one, with its whole description")
    _plugins_path(parser)
    given = parser.parse_args(words)
    known = _catalogue(given.plugins_path)
    shown = cli_plugins.one(known, given.type) if given.type else cli_plugins.listing(known)
    if not shown:
        raise UsageError(cli_plugins.unknown(known, given.type))
    print(shown, end="")
    return GOOD


def _explain(words: list[str]) -> int:
    given = _explain_parser().parse_args(words)
    config = _text(given.config) if given.config else None
    known = _catalogue(given.plugins_path)
    built = load(config, catalogue=known, experimental=given.allow_experimental_plugins)
    _warn(built.warnings)
    question = cli_explain.Question(_bytes(given.body), _headers(given.path, given.header), given.seed)
    loaded = _endpoints(given.endpoints or (built.discovery.path if built.discovery else ""))
    answer = asyncio.run(_answer(built, loaded, question, scrape=given.scrape))
    print(answer.json() if given.json else answer.table(), end="")
    return GOOD if answer.refused is None else REFUSED


def _explain_parser() -> _Parser:
    parser = _parser(
        "explain",
        "Prints where a request would go and how everybody voted, without sending it. "
        "Exit code 0 = an endpoint is picked, 1 = the request is refused, 2 = bad input.",
    )
    parser.add_argument("--config", metavar="FILE", help="EndpointPickerConfig; default: the built-in one")
    parser.add_argument("--endpoints", metavar="FILE", help="endpoints file; default: the one the configuration names")
    parser.add_argument("--body", metavar="FILE", required=True, help="the request's body; - = standard input")
    parser.add_argument("--path", default="/v1/chat/completions", help="its path (default: %(default)s)")
    parser.add_argument("--header", metavar="'K: V'", action="append", default=[], help="a header of it; repeatable")
    parser.add_argument(
        "--scrape", action="store_true", help="read the engines' load now, instead of the file's `load`"
    )
    parser.add_argument("--seed", type=int, default=0, help="another one breaks ties otherwise (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON, as /debug/decisions does")
    _experimental(parser)
    _plugins_path(parser)
    return parser


async def _answer(built: Built, loaded: Loaded, question: cli_explain.Question, *, scrape: bool) -> cli_explain.Answer:
    pool = cli_explain.pool_of(Loaded(loaded.endpoints) if scrape else loaded, time.monotonic())
    failing = cli_explain.failing(loaded)
    if scrape:
        failing = await cli_explain.scrape(built, pool, loaded.endpoints)
    endpoints = pool.snapshot(time.monotonic())
    unknown = [name for name, known in zip(endpoints.names, endpoints.known.tolist(), strict=True) if not known]
    if unknown:
        _warn([f"nothing is known of the load of {', '.join(unknown)}: taken as the mean of the others"])
    return await cli_explain.decide(built, pool, question, failing)


def _endpoints(path: str) -> Loaded:
    if not path:
        raise UsageError("no endpoints: give --endpoints FILE, or a configuration with file-discovery")
    try:
        loaded = read_endpoints(_bytes(path))
    except FeedError as error:
        raise UsageError(f"{path}: {error}") from None
    problems = [*loaded.errors, *loaded.load_errors]
    if problems:
        raise UsageError("\n".join(f"{path}: {problem}" for problem in problems))
    _warn([f"{path}: {warning}" for warning in loaded.warnings])
    return loaded


def _headers(path: str, given: Sequence[str]) -> Headers:
    """Header → values; `k: v` as HTTP writes it."""
    found: dict[str, tuple[str, ...]] = {":path": (path,), "x-request-id": ("explain",)}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"--header {text!r}: write it as 'name: value'")
        key = name.strip().lower()
        found[key] = (*([] if key == "x-request-id" else found.get(key, ())), value.strip())
    return found


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _bytes(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}") from None


def _text(path: str) -> str:
    try:
        return _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text") from None
