import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from epp.obs.series import LONGEST_VALUE, Cap, Cells, Families, Histograms, Spec, Twin

REQUESTS = Spec("n_total", "counter", ("model", "priority"), "Requests.", twin=Twin("old_n_total", ("m=model",)))
TIMES = Spec("t_seconds", "histogram", ("model", "priority"), "Times.", (0.1, 1.0), Twin("old_t_seconds", ("model",)))


def page(*families: Cells | Histograms) -> str:
    class All:
        def collect(self):  # type: ignore[no-untyped-def]
            for family in families:
                yield from family.collect()

    registry = CollectorRegistry()
    registry.register(All())  # type: ignore[arg-type]
    return generate_latest(registry).decode()


def test_a_counter_is_told_under_both_names_with_the_older_one_summed() -> None:
    cells = Cells(REQUESTS)
    cells.add(("a", "0"))
    cells.add(("a", "1"), 2.0)
    cells.add(("b", "0"))
    assert page(cells).splitlines() == [
        "# HELP llm_d_epp_n_total [ALPHA] Requests.",
        "# TYPE llm_d_epp_n_total counter",
        'llm_d_epp_n_total{model="a",priority="0"} 1.0',
        'llm_d_epp_n_total{model="a",priority="1"} 2.0',
        'llm_d_epp_n_total{model="b",priority="0"} 1.0',
        "# HELP old_n_total [ALPHA] [Deprecated: Use llm_d_epp_n_total] Requests.",
        "# TYPE old_n_total counter",
        'old_n_total{m="a"} 3.0',
        'old_n_total{m="b"} 1.0',
    ]


def test_a_histogram_is_told_under_both_names_with_the_older_one_summed() -> None:
    times = Histograms(TIMES)
    for priority, seconds in (("0", 0.05), ("0", 0.1), ("1", 0.5), ("1", 7.0)):
        times.observe(("a", priority), seconds)
    lines = page(times).splitlines()
    assert lines[2:7] == [
        'llm_d_epp_t_seconds_bucket{le="0.1",model="a",priority="0"} 2.0',
        'llm_d_epp_t_seconds_bucket{le="1.0",model="a",priority="0"} 2.0',
        'llm_d_epp_t_seconds_bucket{le="+Inf",model="a",priority="0"} 2.0',
        'llm_d_epp_t_seconds_count{model="a",priority="0"} 2.0',
        'llm_d_epp_t_seconds_sum{model="a",priority="0"} 0.15000000000000002',
    ]
    assert lines[-5:] == [
        'old_t_seconds_bucket{le="0.1",model="a"} 2.0',
        'old_t_seconds_bucket{le="1.0",model="a"} 3.0',
        'old_t_seconds_bucket{le="+Inf",model="a"} 4.0',
        'old_t_seconds_count{model="a"} 4.0',
        'old_t_seconds_sum{model="a"} 7.65',
    ]


def test_a_metric_without_series_is_not_told() -> None:
    assert page(Cells(REQUESTS), Histograms(TIMES)) == ""


def test_a_metric_without_labels_is_told_from_the_start() -> None:
    assert page(Cells(Spec("held_bytes", "gauge", (), "Held."))).splitlines()[-1] == "llm_d_epp_held_bytes 0.0"


def test_label_values_are_escaped() -> None:
    cells = Cells(REQUESTS)
    cells.add(('say "hi"\n\\', "0"))
    (metric, _) = text_string_to_metric_families(page(cells))
    assert metric.samples[0].labels["model"] == 'say "hi"\n\\'


def test_it_is_readable_as_openmetrics_too() -> None:
    families = Families([REQUESTS, TIMES])
    families.cells("n_total").add(("a", "0"))
    families.histograms("t_seconds").observe(("a", "0"), 0.5)
    registry = CollectorRegistry()
    registry.register(families)
    text = generate_openmetrics(registry).decode()
    assert "# TYPE llm_d_epp_n counter" in text
    assert text.endswith("# EOF\n")
    assert "_created" not in text


@given(st.lists(st.floats(0, 3, allow_nan=False)))
def test_every_observation_lies_in_the_first_bucket_that_is_not_below_it(seconds: list[float]) -> None:
    times = Histograms(TIMES)
    for second in seconds:
        times.observe(("a", "0"), second)
    samples = {
        sample.labels["le"]: sample.value
        for metric in times.collect()
        for sample in metric.samples
        if metric.name == "llm_d_epp_t_seconds" and sample.name.endswith("_bucket")
    }
    expected = {"0.1": 0.1, "1.0": 1.0, "+Inf": float("inf")} if seconds else {}
    assert samples == {le: sum(second <= bound for second in seconds) for le, bound in expected.items()}


def test_dropped_series_are_gone() -> None:
    cells = Cells(REQUESTS)
    cells.add(("a", "0"))
    cells.add(("b", "0"), 0.0)
    assert cells.drop(lambda labels, value: not value)
    assert {labels: cell.value for labels, cell in cells.values.items()} == {("a", "0"): 1.0}
    assert not cells.drop(lambda labels, value: not value)


def test_values_beyond_the_cap_become_other_and_stay_so() -> None:
    cap = Cap(2)
    assert [cap(value) for value in ("a", "b", "c", "a", "", "d")] == ["a", "b", "other", "a", "", "other"]


def test_a_value_that_would_swell_every_scrape_is_other() -> None:
    assert [len(Cap(2)("a" * n)) for n in (LONGEST_VALUE, LONGEST_VALUE + 1)] == [LONGEST_VALUE, len("other")]


def test_kept_values_pass_and_do_not_count() -> None:
    cap = Cap(1)
    cap.keep(["mine"])
    assert [cap(value) for value in ("mine", "a", "b", "mine")] == ["mine", "a", "other", "mine"]


@pytest.mark.parametrize(("name", "method"), [("n_total", "histograms"), ("t_seconds", "cells")])
def test_a_metric_is_asked_for_as_what_it_is(name: str, method: str) -> None:
    with pytest.raises(AssertionError):
        getattr(Families([REQUESTS, TIMES]), method)(name)
