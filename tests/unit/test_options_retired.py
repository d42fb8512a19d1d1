import pytest

from epp.options import parse
from epp.options_retired import RETIRED


def test_source_flags_become_parameters_of_the_metrics_source() -> None:
    options = parse(
        [
            *["--model-server-metrics-scheme=https", "--modelServerMetricsPath=/m", "--model-server-metrics-port", "9"],
            "--model-server-metrics-https-insecure-skip-verify=false",
        ],
        {},
    )
    assert options.metrics_source_overrides == {"scheme": "https", "path": "/m", "port": 9, "insecureSkipVerify": False}
    assert len(options.warnings) == 4
    assert options.warnings[0] == (
        "--model-server-metrics-scheme is retired: taken as parameter scheme of metrics-data-source; write it there"
    )


def test_metric_name_flags_become_specs_of_the_default_engine() -> None:
    options = parse(
        [
            *["--total-queued-requests-metric=a", "--total-running-requests-metric=b", "--lora-info-metric="],
            *["--kv-cache-usage-percentage-metric=c", "--cache-info-metric=d{x=y}"],
        ],
        {},
    )
    assert options.engine_overrides == {
        "queuedRequestsSpec": "a",
        "runningRequestsSpec": "b",
        "kvUsageSpec": "c",
        "loraSpec": "",
        "cacheInfoSpec": "d{x=y}",
    }
    assert len(options.warnings) == 5


@pytest.mark.parametrize("word", ["--model-server-metrics-port=0", "--model-server-metrics-path="])
def test_a_retired_flag_at_its_old_default_changes_nothing(word: str) -> None:
    options = parse([word], {})
    assert (options.metrics_source_overrides, len(options.warnings)) == ({}, 1)


def test_retired_flags_do_not_count_as_given() -> None:
    assert parse(["--model-server-metrics-scheme=http"], {}).given == frozenset()


def test_each_retired_flag_has_a_place_of_its_own() -> None:
    assert len({(retired.plugin, retired.key) for retired in RETIRED.values()}) == len(RETIRED) == 9
