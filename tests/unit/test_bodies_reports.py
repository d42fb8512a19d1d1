"""The engine's load report in a response header."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.bodies.reports import reading
from epp.headers import LOAD_REPORT
from epp.types import Reading

RECORDED = Path(__file__).parents[1] / "fixtures" / "bodies"


@pytest.mark.parametrize("file", ["completion-load-report.headers", "completion-load-report-text.headers"])
def test_recorded_reports_are_read(file: str) -> None:
    lines = (RECORDED / file).read_text().splitlines()
    (report,) = [line.partition(": ")[2] for line in lines if line.startswith(LOAD_REPORT)]
    assert reading(report) == Reading(waiting=0.0, kv_usage=0.0)


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (
            'JSON {"cpu_utilization": 1, "named_metrics": {"num_requests_waiting": 3, "kv_cache_usage_perc": 0.5}}',
            Reading(waiting=3.0, kv_usage=0.5),
        ),
        ('JSON {"named_metrics": {"num_requests_waiting": 3}}', Reading(waiting=3.0)),
        ('JSON {"named_metrics": {"num_requests_waiting": 3, "kv_cache_usage_perc": 7}}', Reading(waiting=3.0)),
        ("TEXT named_metrics.kv_cache_usage_perc=0.25,cpu_utilization=1", Reading(kv_usage=0.25)),
        ("TEXT named_metrics.num_requests_waiting=-1, named_metrics.kv_cache_usage_perc=1", Reading(kv_usage=1.0)),
        ("TEXT named_metrics.num_requests_waiting=nan", None),
        ("TEXT named_metrics.num_requests_waiting=inf", None),
        ("TEXT named_metrics.num_requests_waiting=1e308", None),
        ("TEXT named_metrics.num_requests_waiting", None),
        ("TEXT", None),
        ('JSON {"named_metrics": {"num_requests_waiting": "3"}}', None),
        ('JSON {"named_metrics": {}}', None),
        ("JSON [" * 3, None),
        ("BIN CAEQAQ==", None),
        ("", None),
    ],
    ids=str,
)
def test_a_report_is_read_or_left_alone(report: str, told: Reading | None) -> None:
    assert reading(report) == told


@given(st.text() | st.text().map("TEXT {}".format) | st.text().map("JSON {}".format))
def test_no_report_is_an_error(report: str) -> None:
    assert reading(report) is None
