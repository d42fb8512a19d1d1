"""Policies are tried out on made-up requests when a configuration is loaded."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from epp import Band, Flow, Item
from epp.config import load
from epp.config.errors import ConfigError
from epp.flow.rehearsal import rehearse
from epp.plugins import Catalogue, Plugin, PluginType
from epp.settings import PluginError


def made(place: str, instance: Any) -> Plugin:
    target = instance if hasattr(instance, "__name__") else type(instance)
    return Plugin("mine", PluginType("mine", (place,), target, (), "tests"), instance, {})


@pytest.mark.parametrize(
    "name",
    [one.type for place in ("fairness", "ordering", "usage_limit") for one in Catalogue.installed().in_place(place)],
)
def test_every_built_in_policy_passes(name: str) -> None:
    parameters = {"minCeiling": 0.5} if name == "priority-holdback-policy" else {}
    rehearse(Catalogue.installed().build(name, name, parameters, "here"))


def shuffled(item: Item) -> Any:
    """An order that is none."""
    return item.fairness_id


class Wrong:
    """Fails, in one of its methods."""

    def __init__(self, where: str) -> None:
        self._where = where

    def turn(self, band: Band, now: float) -> Any:
        return "anybody" if self._where == "turn" else band.best()

    def queued(self, flow: Flow, item: Item) -> None:
        if self._where == "queued":
            raise KeyError(item.fairness_id)

    def dispatched(self, flow: Flow) -> None:
        """Takes too little, unless it is someone else who fails."""

    def dropped(self, flow: Flow, item: Item) -> None:
        if self._where == "dropped":
            raise KeyError(item.fairness_id)


@pytest.mark.parametrize("where", ["turn", "queued", "dispatched", "dropped"])
def test_a_fairness_policy_that_fails_is_refused_with_the_rule(where: str) -> None:
    with pytest.raises(PluginError, match=r"mine: turn\(band, now\) must return one of band.flows, or None; it failed"):
        rehearse(made("fairness", Wrong(where)))


def test_a_fairness_policy_without_turns_is_refused() -> None:
    with pytest.raises(PluginError, match=r"mine: its class needs a method turn\(band, now\)"):
        rehearse(made("fairness", object()))


def test_an_order_that_is_none_is_refused() -> None:
    with pytest.raises(PluginError, match="mine: called with an item, it must return a number or a tuple"):
        rehearse(made("ordering", shuffled))


def test_ceilings_for_others_than_the_bands_are_refused() -> None:
    def one(saturation: float, priorities: tuple[int, ...]) -> Any:
        return (1.0,)

    with pytest.raises(PluginError, match=r"mine: called with \(saturation, priorities\), it must return one number"):
        rehearse(made("usage_limit", one))


def test_a_configuration_with_such_a_policy_is_refused_by_its_path() -> None:
    text = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins: [{type: shuffled}]
flowControl: {defaultPriorityBand: {orderingPolicyRef: shuffled}}
"""
    point = EntryPoint("shuffled", f"{__name__}:shuffled", "epp.ordering_policies")
    with pytest.raises(ConfigError, match=r"plugins\[0\].*shuffled: called with an item"):
        load(text, catalogue=Catalogue.installed().joined([("ordering", point)]))
