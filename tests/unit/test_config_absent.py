"""Types of the llm-d router that are not here: refused by name with what to use instead, or accepted idle."""

from __future__ import annotations

import re

import pytest

from epp.config import ConfigError
from epp.config.absent import ABSENT, GONE, IDLE
from epp.config.roster import FEEDS
from epp.plugins import Catalogue
from tests.config_kit import made

UPSTREAM = """
single-profile-handler disagg-profile-handler data-parallel-profile-handler header-profile-handler pd-profile-handler
always-disagg-pd-decider prefix-based-pd-decider always-disagg-multimodal-decider
label-selector-filter by-label-selector by-label decode-filter prefill-filter encode-filter prefix-cache-affinity-filter
slo-headroom-tier-filter session-affinity-filter endpoint-attribute-filter topology-affinity-filter utilization-filter
multicluster-session-affinity-filter
queue-scorer kv-cache-utilization-scorer prefix-cache-scorer running-requests-size-scorer lora-affinity-scorer
token-load-scorer load-aware-scorer context-length-aware no-hit-lru-scorer active-request-scorer
precise-prefix-cache-scorer mm-embeddings-cache-scorer latency-scorer session-affinity-scorer
header-label-affinity-scorer endpoint-attribute-scorer topology-affinity-scorer multicluster-queue-scorer
multicluster-kv-cache-utilization-scorer multicluster-prefix-cache-scorer
max-score-picker random-picker weighted-random-picker
approx-prefix-cache-producer precise-prefix-cache-producer inflight-load-producer predicted-latency-producer
token-producer mm-embeddings-cache-producer session-id-producer tokenizer burst-prefix-cache-producer
p2p-source-producer multicluster-approx-prefix-cache-producer
disagg-headers-handler prefill-header-handler agent-identity request-attribute-reporter
latency-slo-admitter probabilistic-admitter disaggregatedset-rollout-screener
global-strict-fairness-policy round-robin-fairness-policy program-aware-fairness fcfs-ordering-policy
edf-ordering-policy slo-deadline-ordering-policy static-usage-limit-policy priority-holdback-policy
soft-reflective-ceiling-policy sheddable-eviction-filter priority-then-time-eviction-order-policy
utilization-detector concurrency-detector
metrics-data-source core-metrics-extractor models-data-source models-data-extractor k8s-notification-source
endpoint-notification-source file-discovery topology-extractor dcgm-data-source dcgm-extractor
multicluster-metrics-data-source multicluster-metrics-extractor multicluster-file-discovery
openai-parser anthropic-parser vllmhttp-parser sglanghttp-parser vllmgrpc-parser vertexai-parser passthrough-parser
header-based-testing-filter destination-endpoint-served-verifier
"""
"""Every type that the llm-d router registers, in words."""


def test_every_type_of_the_router_is_offered_idle_or_refused_by_name() -> None:
    known = [*Catalogue.installed().names, *FEEDS, *IDLE, *ABSENT]
    assert set(UPSTREAM.split()) - set(known) == set()


def test_no_type_is_both_offered_and_refused() -> None:
    offered = {*Catalogue.installed().names, *FEEDS}
    assert offered & {*IDLE, *ABSENT, *GONE} == set()


def test_what_to_use_instead_is_offered() -> None:
    offered = {*Catalogue.installed().names, *FEEDS}
    told = [instead for _, instead in ABSENT.values()] + [*GONE.values()]
    types = {word for text in told for word in re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)+", text)}
    kinds = ("scorer", "filter", "producer", "parser", "handler", "source", "extractor", "discovery")
    assert {word for word in types if word.endswith(kinds)} - offered == set()


@pytest.mark.parametrize("name", [*ABSENT, *GONE])
def test_a_type_that_is_not_here_is_refused_by_name_with_the_remedy(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"plugins\[0\].type \(line 3\): '{name}' is .*; (use|remove) "):
        made(f"plugins: [{{type: {name}}}]")


@pytest.mark.parametrize("name", IDLE)
def test_an_idle_type_is_accepted_with_one_warning(name: str) -> None:
    built = made(f"plugins: [{{type: {name}, parameters: {{any: thing}}}}]", experimental=True)
    assert [warning for warning in built.warnings if name in warning] == list(built.warnings)
    assert len(built.warnings) == 1


def test_idle_types_that_are_experimental_need_the_flag_too() -> None:
    with pytest.raises(ConfigError, match="'sheddable-eviction-filter' is experimental; start with --allow-exp"):
        made("plugins: [{type: sheddable-eviction-filter}]")


def test_all_types_that_cannot_be_used_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        made("plugins: [{type: dcgm-extractor}, {type: even}, {type: nope}, {type: dcgm-data-source}]")
    first, second = str(raised.value).split("\n")
    assert first.startswith("plugins[0].type (line 3): 'dcgm-extractor' is known upstream but not offered here")
    assert first.endswith("; likewise 'dcgm-data-source' (plugins[3])")
    assert second.startswith("plugins[2].type: 'nope' is no plug-in type; have:")
