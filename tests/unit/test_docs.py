"""What the documents say of the repository is there: files, flags, plug-in types, metrics, targets, log lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from epp.config.absent import ABSENT, GONE, IDLE
from epp.config.roster import FEEDS
from epp.config.spelling import RENAMED
from epp.obs.metrics_table import STREAMS, TABLE
from epp.obs.metrics_workers import WORKERS
from epp.obs.series import PREFIX
from epp.options import Options, flags
from epp.options_retired import RETIRED
from epp.plugins import Catalogue

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "deploy", "examples", "news")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md"))])
SOURCES = "\n".join(
    path.read_text() for name in ("epp", "sim", "examples", "tests") for path in (ROOT / name).rglob("*.py")
)
EPP = "\n".join(path.read_text() for path in (ROOT / "epp").rglob("*.py"))

FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]+)")
PLACES = "scorer|filter|picker|producer|handler|parser|extractor|source|discovery|reporter|verifier|detector|policy"
PLUGIN = re.compile(rf"(?<![\w/.-])([a-z0-9]+(?:-[a-z0-9]+)*-(?:{PLACES}))(?![\w/-])")
METRIC = re.compile(rf"{PREFIX}([a-z0-9_]+)")
PATH = re.compile(
    r"(?<![\w/.<-])((?:epp|scorers|sim|tests|docs|config|deploy|examples|benchmarks|proto|news|\.ci)/[\w./*-]*[\w*/])"
)
TARGET = re.compile(r"`(?:\$ )?make ([a-z][a-z-]+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")

OTHERS = frozenset(
    {
        *("python", "without-pip", "no-cache-dir", "no-compile", "invalidation-mode"),  # pip, venv, compileall
        *("mount", "bind", "reuid", "regid", "clear-groups"),  # unshare, mount, setpriv
        "strict",  # mypy
    }
)
"""Flags of other programs that documents name."""
PACKAGES = frozenset({"endpoint-picker", "hello-scorer", "my-scorer"})
"""Names that look like those of plug-in types."""


def document(path: Path) -> str:
    return str(path.relative_to(ROOT))


def named(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """(document, what it names) for every match."""
    return [(document(path), found) for path in DOCUMENTS for found in pattern.findall(path.read_text())]


def unknown(pattern: re.Pattern[str], known: Callable[[str], bool]) -> list[tuple[str, str]]:
    found = named(pattern)
    assert len(found) > 2
    return sorted({one for one in found if not known(one[1])})


def test_every_flag_that_is_named_exists() -> None:
    ours = {flag.name for flag in flags()} | set(RETIRED) | OTHERS
    assert unknown(FLAG, lambda name: name in ours or f'"--{name}"' in SOURCES) == []


def test_every_plug_in_type_that_is_named_is_installed_or_refused_by_name() -> None:
    known = {*Catalogue.installed().names, *FEEDS, *IDLE, *ABSENT, *GONE, *RENAMED, *PACKAGES}
    assert unknown(PLUGIN, known.__contains__) == []


def test_every_metric_that_is_named_is_told() -> None:
    assert unknown(METRIC, {spec.name for spec in (*TABLE, *STREAMS, *WORKERS)}.__contains__) == []


def test_every_file_and_folder_that_is_named_is_there() -> None:
    assert unknown(PATH, lambda path: any(ROOT.glob(path.rstrip("/")))) == []


def test_every_target_that_is_named_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert unknown(TARGET, targets.__contains__) == []


def broken_links() -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        for link in LINK.findall(path.read_text()):
            file, _, heading = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            if "://" not in link and not (target.exists() and (not heading or heading in headings(target))):
                yield document(path), link


def headings(path: Path) -> set[str]:
    """The headings of a document as GitHub writes them into links."""
    found = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_link_leads_somewhere() -> None:
    assert list(broken_links()) == []


def test_the_readme_shows_the_scorer_of_the_example() -> None:
    (shown,) = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    _, _, code = (ROOT / "examples/hello-scorer/hello_scorer.py").read_text().partition('"""\n\n')
    assert shown == code


def test_every_log_line_operators_are_told_of_is_written_somewhere() -> None:
    _, _, table = (ROOT / "docs/operations.md").read_text().partition("| line | means |\n")
    first = [row.split("|")[1] for row in table.partition("\n\n")[0].splitlines()[1:]]
    lines = [line for cell in first for line in re.findall(r"`([^`]+)`", cell)]
    assert len(lines) > 10
    assert [line for line in lines if line not in EPP] == []


@pytest.mark.parametrize("path", sorted((ROOT / "docs/adr").glob("[0-9]*.md")), ids=lambda path: path.stem)
def test_a_decision_tells_context_choice_and_cost_and_is_listed(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.stem[:4]} ")
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Choice", "Cost"]
    assert f"]({path.name})" in (ROOT / "docs/adr/README.md").read_text()


def test_news_fragments_are_named_by_their_kind() -> None:
    fragments = [path for path in (ROOT / "news").iterdir() if path.name != "README.md"]
    rule = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\.(added|changed|fixed|removed)\.md")
    assert [path.name for path in fragments if not rule.fullmatch(path.name) or not path.read_text().strip()] == []


def test_the_image_is_built_from_files_that_are_there() -> None:
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert {"epp", "scorers", "proto", "pyproject.toml", "setup.py"} <= set(kept)
    assert [name for name in kept if not (ROOT / name).exists()] == []


def test_the_image_keeps_what_manifests_expect() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    ports = (Options().grpc_port, Options().grpc_health_port, Options().metrics_port, 5557)
    for line in ("USER 65532:65532", f"EXPOSE {' '.join(map(str, ports))}", 'ENTRYPOINT ["/app/epp"]'):
        assert line in lines
