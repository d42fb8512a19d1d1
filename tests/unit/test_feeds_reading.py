"""What the pages of the engines come to."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.feeds.engineconfig import CoreMetricsExtractor
from epp.feeds.engines import engines
from epp.feeds.reading import Look, read
from epp.types import MOST_COUNTED, Reading

PAGES = Path(__file__).parent.parent / "fixtures" / "metrics"
LORAS = Reading(
    waiting=7,
    running=8,
    kv_usage=0.75,
    block_tokens=32,
    num_blocks=4000,
    max_loras=4,
    running_loras=frozenset({"sql", "chat"}),
    waiting_loras=frozenset({"poet"}),
)


def look(page: str, engine: str = "vllm") -> Look:
    return read(page.encode(), engines().by_name[engine])


def custom(page: str, spec: str) -> Look:
    entry = {"name": "vllm", "customMetrics": [{"attributeKey": "power", "metricSpec": spec}]}
    return read(page.encode(), engines(msgspec.convert({"engineConfigs": [entry]}, CoreMetricsExtractor)).default)


@pytest.mark.parametrize(
    ("page", "engine", "expected"),
    [
        ("vllm-0.32.0-idle", "vllm", Reading(0, 0, 0, 32, 16384)),
        ("vllm-0.32.0-busy", "vllm", Reading(0, 24, 0.016114264786669108, 32, 16384)),
        ("vllm-two-engines", "vllm", LORAS),
        ("vllm-before-2025-06", "vllm", Reading(1, 2, 0.4, 16, None)),
        ("sglang", "sglang", Reading(2, 6, 0.28, 64, 11147)),
        ("sglang-0.5.12-priorities", "sglang", Reading(3, 6, 0.5, 16, 62500)),
        ("trtllm-serve", "trtllm-serve", Reading(1, 3, 0.62, 32, 4096)),
        ("triton-tensorrt-llm", "triton-tensorrt-llm", Reading(2, 5, 0.125, 64, 6239)),
        ("triton-tensorrt-llm", "triton", Reading(waiting=4)),
    ],
)
def test_a_page_is_read_with_its_engines_map(page: str, engine: str, expected: Reading) -> None:
    assert look((PAGES / f"{page}.txt").read_text(), engine).reading == expected


def test_several_models_on_a_page_count_together() -> None:
    page = "".join(f'vllm:{m}{{model_name="{model}"}} {value}\n' for m, model, value in MODELS)
    assert look(page).reading == Reading(waiting=5, running=1, kv_usage=0.9)


MODELS = [
    ("num_requests_waiting", "a", 2),
    ("num_requests_waiting", "b", 3),
    ("num_requests_running", "a", 1),
    ("kv_cache_usage_perc", "a", 0.9),
    ("kv_cache_usage_perc", "b", 0.1),
]


def test_what_is_not_on_the_page_stays_untold_and_is_named() -> None:
    found = look("vllm:num_requests_running 1\n")
    assert found.reading == Reading(running=1)
    assert found.missing == ("waiting", "kv_usage", "block_tokens", "num_blocks")


@pytest.mark.parametrize("page", ["", "<html>no</html>", '{"a": 1}', "\x00\xff", "sglang:num_running_reqs 1\n"])
def test_a_page_without_the_engines_metrics_is_an_empty_look(page: str) -> None:
    assert look(page).empty


@pytest.mark.parametrize(
    ("value", "usage"), [("NaN", None), ("+Inf", None), ("-0.5", 0.0), ("1.5", 1.0), ("1e309", None), ("0.5", 0.5)]
)
def test_a_number_that_is_none_is_untold_and_others_stay_in_range(value: str, usage: float | None) -> None:
    assert look(f"vllm:kv_cache_usage_perc {value}\n").reading.kv_usage == usage


def test_a_series_that_is_no_number_does_not_spoil_the_others() -> None:
    page = 'vllm:num_requests_waiting{engine="0"} NaN\nvllm:num_requests_waiting{engine="1"} 3\n'
    assert look(page).reading.waiting == 3


def test_a_number_beyond_what_engines_count_is_untold() -> None:
    """Twice the number is taken, or its product with another: the size of a block and how many there are."""
    page = "vllm:num_requests_waiting 1e308\nvllm:num_requests_running 1e308\nvllm:kv_cache_usage_perc 1e308\n"
    page += 'vllm:cache_config_info{block_size="1e308",num_gpu_blocks="1e308"} 1\n'
    page += 'vllm:lora_requests_info{max_lora="1e308"} 1\n'
    loras = Reading(running_loras=frozenset(), waiting_loras=frozenset())
    assert look(page).reading == loras
    assert look(page.replace("1e308", f"{MOST_COUNTED}")).reading == Reading(
        MOST_COUNTED, MOST_COUNTED, 1.0, MOST_COUNTED, MOST_COUNTED, MOST_COUNTED, frozenset(), frozenset()
    )


def test_loras_that_ended_leave_empty_sets() -> None:
    page = 'vllm:lora_requests_info{max_lora="",running_lora_adapters="",waiting_lora_adapters=""} 1\n'
    reading = look(page).reading
    assert (reading.running_loras, reading.waiting_loras, reading.max_loras) == (frozenset(), frozenset(), None)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        pytest.param('watts{gpu="0"} 300\nwatts{gpu="1"} 200\n', {"power": 300}, id="first"),
        pytest.param('watts{gpu="0"} 3 10\nwatts{gpu="1"} 2 20\n', {"power": 2}, id="newest"),
        pytest.param("watts -5\n", {"power": -5}, id="below zero"),
        pytest.param("watts NaN\n", {}, id="no number"),
        pytest.param("other 1\n", {}, id="absent"),
    ],
)
def test_a_custom_metric_becomes_an_attribute(page: str, expected: dict[str, float]) -> None:
    assert custom(page, "watts").reading.attributes == expected


def test_an_absent_custom_metric_is_named_as_missing() -> None:
    assert custom("other 1\n", "watts").missing == ("power",)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=5))
def test_queues_add_up_and_usage_is_the_largest(numbers: list[float]) -> None:
    page = "".join(
        f'vllm:num_requests_waiting{{engine="{n}"}} {number!r}\n'
        f'vllm:kv_cache_usage_perc{{engine="{n}"}} {number / 1e6!r}\n'
        for n, number in enumerate(numbers)
    )
    reading = look(page).reading
    assert reading.waiting == sum(numbers)
    assert reading.kv_usage == max(numbers) / 1e6
