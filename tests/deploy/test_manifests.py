"""Everything under deploy/: it has the shape that Kubernetes wants, its parts fit, and the picker understands it."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
import yaml

from epp.config import ConfigError
from epp.settings import PluginError

from . import envoys, references, rights, schemas, sources
from .documents import Document
from .pickers import Files, built, configuration_of, configurations, pickers, plugin_files
from .sources import ROOT, Source

EXPECTED = yaml.safe_load((ROOT / "tests" / "deploy" / "expected.yaml").read_text())
OTHERS = {
    "Envoy bootstrap": lambda value: "static_resources" in value,
    "EndpointPickerConfig": lambda value: value.get("kind") == "EndpointPickerConfig",
    "endpoints file": lambda value: isinstance(value.get("endpoints"), list),
    "compose file": lambda value: isinstance(value.get("services"), dict),
    "Prometheus rules": lambda value: isinstance(value.get("groups"), list),
    "panels of a dashboard": lambda value: isinstance(value.get("rows"), dict),
}
"""What YAML under deploy/ may be besides Kubernetes objects and Helm values; each has a test of its own somewhere."""


@pytest.fixture(params=sources.sources(), ids=lambda source: source.name)
def source(request: pytest.FixtureRequest) -> Source:
    found: Source = request.param
    return found


def _expected(section: str, source: Source) -> dict[str, str]:
    """Of the source itself, and of patterns such as `tests/deploy/values/*` that fit it."""
    entries = [found for pattern, found in EXPECTED[section].items() if fnmatch(source.name, pattern)]
    return {what: why for found in entries for what, why in found.items()}


def test_every_object_has_the_shape_of_its_kind(source: Source) -> None:
    assert [problem for found in source.objects for problem in schemas.problems(found)] == []


def test_every_other_file_is_of_a_known_sort(source: Source) -> None:
    assert [str(document) for document in source.documents if not (document.is_object or _known(document))] == []


def _known(document: Document) -> bool:
    if document.where.rpartition("/")[2].endswith("values.yaml"):
        return True
    return any(fits(document.value) for fits in OTHERS.values())


def test_no_reference_leads_nowhere(source: Source) -> None:
    missing = dict(references.loose_ends(source.objects))
    elsewhere = _expected("elsewhere", source)
    assert {what: who for what, who in missing.items() if what not in elsewhere} == {}
    idle = [what for what in EXPECTED["elsewhere"].get(source.name, {}) if what not in missing]
    assert idle == [], "expected from elsewhere, but nobody asks for it"


def test_ports_labels_and_mounts_fit(source: Source) -> None:
    assert list(references.misfits(source.objects)) == []


def test_every_picker_understands_its_command_line(source: Source) -> None:
    files = plugin_files(source.documents)
    for picker in pickers(source.documents):
        options = picker.options
        assert options.warnings == (), picker.where
        text = configuration_of(picker, source.documents)
        if options.given:
            options.validate(file_mode=text is not None and built(text, files).discovery is not None)


def test_every_picker_may_do_exactly_what_it_needs(source: Source) -> None:
    assert list(rights.mismatches(source.objects)) == []


def test_every_configuration_is_one_the_picker_loads(source: Source) -> None:
    files = plugin_files(source.documents)
    refused = {where: told for where, text in configurations(source.documents) if (told := _refusal(text, files))}
    assert refused == _expected("refused", source)


def _refusal(text: str, files: Files) -> str:
    try:
        warnings = built(text, files).warnings
    except (ConfigError, PluginError) as error:
        return str(error)
    return "\n".join(warnings)


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_every_bootstrap_is_one_envoy_takes(source: Source, which: str) -> None:
    said = {where: envoys.complaint(text, which) for where, text in envoys.bootstraps(source.documents)}
    assert {where: complaint for where, complaint in said.items() if complaint} == {}


def test_no_component_is_left_out_of_all_kustomizations() -> None:
    assert sources.unused_components() == []


@pytest.mark.parametrize("section", sorted(EXPECTED))
def test_what_is_expected_belongs_to_a_source(section: str) -> None:
    known = [source.name for source in sources.sources()]
    assert [pattern for pattern in EXPECTED[section] if not any(fnmatch(name, pattern) for name in known)] == []
