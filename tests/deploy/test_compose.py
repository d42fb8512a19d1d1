"""deploy/compose: a compose file by the schema of its specification, whose parts are there and fit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from importlib.resources import files

import jsonschema
import pytest

from epp.feeds.entries import read_endpoints
from epp.feeds.manifests import read_manifests
from epp.options import parse
from sim import settings as sim_settings

from .documents import Json, documents
from .pickers import built
from .sources import DEPLOY

COMPOSE = DEPLOY / "compose"
SCHEMA = json.loads(
    (files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text(encoding="utf-8")
)


def compose() -> Json:
    [found] = documents((COMPOSE / "compose.yaml").read_text(), "compose.yaml")
    return found.value


def service(name: str) -> Json:
    return compose()["services"][name]


def complaints(value: Json) -> list[str]:
    return [error.message for error in jsonschema.validators.validator_for(SCHEMA)(SCHEMA).iter_errors(value)]


def test_it_is_a_compose_file() -> None:
    assert complaints(compose()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda services: services["picker"].update(comand=[]),
        lambda services: services["picker"].update(ports=[{"port": 9090}]),
        lambda services: services["envoy"].update(cap_drop="ALL"),
    ],
    ids=["a misspelt key", "a port that is not one", "a list that is text"],
)
def test_what_is_no_compose_file_is_found(spoil: Callable[[Json], None]) -> None:
    value = deepcopy(compose())
    spoil(value["services"])
    assert complaints(value) != []


def test_the_picker_understands_its_command_line() -> None:
    options = parse(service("picker")["command"], {}, memory_limit=lambda: None)
    assert options.warnings == ()
    discovery = built((COMPOSE / "picker" / "epp.yaml").read_text()).discovery
    assert discovery is not None
    options.validate(file_mode=True)
    assert (options.config_file, discovery.path) == ("/config/epp.yaml", "/config/endpoints.yaml")
    assert discovery.manifests_path == "/config/manifests.yaml"


def test_the_manifests_are_those_of_the_standalone_example() -> None:
    text = (COMPOSE / "picker" / "manifests.yaml").read_bytes()
    assert text == (DEPLOY / "standalone" / "manifests.yaml").read_bytes()
    found = read_manifests(text)
    assert (len(found.objects), found.errors, found.warnings) == (3, (), ())


def test_the_engines_understand_theirs() -> None:
    told = sim_settings.parse(service("engine-0")["command"])
    assert (told.host, told.port) == ("0.0.0.0", 8000)
    assert service("engine-0")["entrypoint"][1:] == ["-m", "sim.server"]


def test_the_endpoints_are_the_engines_by_name() -> None:
    listed = read_endpoints((COMPOSE / "picker" / "endpoints.yaml").read_text())
    assert listed.errors == ()
    engines = [name for name, one in compose()["services"].items() if one.get("profiles") == ["engines"]]
    assert sorted((one.address, one.port) for one in listed.endpoints) == sorted((name, 8000) for name in engines)


def test_every_file_that_is_mounted_is_there() -> None:
    for name in ("envoy", "picker"):
        for volume in service(name)["volumes"]:
            assert (COMPOSE / volume.split(":")[0]).exists(), volume


@pytest.mark.parametrize("name", ["envoy", "picker", "engine-0", "engine-1"])
def test_a_container_writes_nothing_and_may_do_nothing(name: str) -> None:
    found = service(name)
    assert (found["read_only"], found["cap_drop"]) == (True, ["ALL"])
    assert found["security_opt"] == ["no-new-privileges:true"]


def test_metrics_without_a_token_are_for_this_machine_only() -> None:
    assert all(port.startswith("127.0.0.1:") for port in service("picker")["ports"])


def test_envoy_opens_the_ports_that_are_published() -> None:
    opened = {int(port) for port in re.findall(r"port_value: (\d+)", (COMPOSE / "envoy.yaml").read_text())}
    published = {int(port.rpartition(":")[2]) for port in service("envoy")["ports"]}
    assert published <= opened
