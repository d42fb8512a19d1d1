"""Plug-ins that break their contract in service: the request goes on or is refused, and nothing else notices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Picker, endpoints_file, picker, settles

from . import gateway as made
from . import rogue_plugins as rogue
from .conftest import QUIET
from .gateway import CHAT, Gateway, head, kinds, piece, refusal

ANSWERED = ["request_headers", "request_body", "response_headers", "response_body"]
CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: file-discovery, parameters: {path: ENDPOINTS}}
- {type: queue-scorer}
- {type: rogue-scorer}
- {type: rogue-reader}
- {type: rogue-picker}
- {type: rogue-handler}
- {type: rogue-hook}
- {type: rogue-signal}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: rogue-scorer, weight: 2}
  - {pluginRef: rogue-reader, weight: 1}
  - {pluginRef: rogue-picker}
dataLayer:
  discovery: {pluginRef: file-discovery}
"""


def installed(folder: Path) -> Path:
    """A folder for PYTHONPATH in which the rogue plug-ins are a package of their own."""
    source = Path(rogue.__file__)
    (folder / source.name).write_bytes(source.read_bytes())
    about = folder / "rogue-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: rogue\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(rogue.POINTS)
    return folder


@pytest.fixture(scope="module")
def den(tmp_path_factory: pytest.TempPathFactory, addresses: list[str]) -> Iterator[Picker]:
    folder = tmp_path_factory.mktemp("den")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.fspath(installed(folder)))
        endpoints = endpoints_file(folder / "endpoints.yaml", addresses)
        with picker(folder, endpoints, *QUIET, "--decision-timeout=500ms", config=CONFIG) as running:
            yield running


@pytest.fixture(scope="module")
def opened(den: Picker) -> Iterator[Gateway]:
    made_of = Gateway(den.grpc_port)
    yield made_of
    made_of.close()


def asked(gateway: Gateway, way: str) -> list[made.ProcessingResponse]:
    """A whole request and its response."""
    return gateway.say(
        head({"x-rogue": way}), piece(CHAT, end=True), made.response(), made.response_piece(b"{}", end=True)
    )


@pytest.fixture(autouse=True)
def unharmed(opened: Gateway, den: Picker) -> Iterator[None]:
    read = len(den.child.log.read_text())
    yield
    assert kinds(asked(opened, "")) == ANSWERED
    for name in ("llm_d_epp_extproc_streams_inflight", "llm_d_epp_request_running"):
        assert settles(0, lambda name=name: den.metric(name)) == 0, name
    assert "Traceback" not in den.child.log.read_text()[read:]


FORGIVEN = [
    *[f"scorer {way}" for way in rogue.SCORER],
    *[f"picker {way}" for way in rogue.PICKER],
    *[f"signal {way}" for way in rogue.SIGNAL],
    *[
        f"{place} {way}"
        for place in ("arrived", "response_headers", "finished")
        for way in rogue.HOOK
        if way != "refuse"
    ],
    "finished refuse",
]


@pytest.mark.parametrize("way", FORGIVEN)
def test_a_plug_in_that_breaks_its_contract_costs_only_its_word(opened: Gateway, way: str) -> None:
    assert kinds(asked(opened, way)) == ANSWERED


@pytest.mark.parametrize("way", ["raise", "exit", "text", "number", "object", "flat"])
def test_a_hook_on_which_the_engine_may_depend_fails_its_request(opened: Gateway, way: str) -> None:
    status, text, _ = refusal(asked(opened, f"picked {way}"))
    assert (status, text.partition("failed")[0]) == (
        500,
        'inference error: Internal - PreRequest "rogue-hook/rogue-hook" ',
    )


@pytest.mark.parametrize("place", ["arrived", "picked", "response_headers"])
def test_a_hook_may_refuse_while_there_is_something_to_refuse(opened: Gateway, place: str) -> None:
    assert refusal(asked(opened, f"{place} refuse"))[:2] == (403, "inference error: Forbidden - no")


@pytest.mark.parametrize("way", rogue.HANDLER)
def test_a_handler_that_names_no_profile_is_429(opened: Gateway, way: str) -> None:
    assert refusal(asked(opened, f"handler {way}"))[0] == 429
