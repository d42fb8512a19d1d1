from __future__ import annotations

import gzip

import pytest
from prometheus_client import CollectorRegistry, Counter

from epp.obs.exposition import OPENMETRICS, TEXT, negotiated, page

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
WITH_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        (WITH_PROTOBUF, OPENMETRICS),
        ("application/openmetrics-text;version=1.0.0", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', OPENMETRICS),
        ("Application/OpenMetrics-Text", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1", TEXT),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;version=x;q=1,text/plain", TEXT),
        ("application/openmetrics-text;q=0,text/plain", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("text/plain;q=0.9,application/openmetrics-text;q=0.1", TEXT),
        ("text/plain;q=0.1,application/openmetrics-text;q=0.9", OPENMETRICS),
        ("text/plain,application/openmetrics-text", TEXT),
        ("application/openmetrics-text;q=nan,text/plain;q=much", OPENMETRICS),
        ("text/html,*/*;q=0.8", TEXT),
        ("*/*", TEXT),
        ("", TEXT),
        (",;,=;q", TEXT),
    ],
)
def test_the_first_format_we_write_in_order_of_preference(accept: str, kind: str) -> None:
    assert negotiated(accept) == kind


def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    Counter("asked", "Times asked.", registry=found).inc(3)
    return found


def test_each_format_is_what_its_content_type_says() -> None:
    text, headers = page(registry(), "", "")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"# TYPE asked_total counter\nasked_total 3.0\n" in text
    text, headers = page(registry(), PROMETHEUS_3, "")
    assert headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert b"# TYPE asked counter\nasked_total 3.0\n" in text
    assert text.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("encodings", "zipped"), [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("br", False), ("", False)]
)
def test_it_is_compressed_for_who_takes_that(encodings: str, zipped: bool) -> None:
    text, headers = page(registry(), "", encodings)
    assert headers.get("Content-Encoding", "") == ("gzip" if zipped else "")
    assert b"asked_total 3.0" in (gzip.decompress(text) if zipped else text)
