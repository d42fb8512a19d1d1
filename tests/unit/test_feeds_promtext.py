"""Single families out of a metrics page; prometheus_client's full parser is the oracle."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from epp.feeds.promtext import MAX_LINE_BYTES, Places, samples
from epp.feeds.spec import Spec, SpecError, parse_spec

PAGES = Path(__file__).parent.parent / "fixtures" / "metrics"
RECORDED = ["vllm-0.32.0-busy.txt", "vllm-0.32.0-idle.txt"]


def values(page: str, spec: str = "m") -> list[float]:
    found = parse_spec(spec)
    assert found is not None
    return [sample.value for sample in samples(page.encode(), found)]


def by_oracle(page: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Every series of a page by the name its line begins with."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def same(ours: float, theirs: float) -> bool:
    return ours == theirs or (math.isnan(ours) and math.isnan(theirs))


@pytest.mark.parametrize("name", RECORDED)
def test_every_series_of_a_recorded_page_is_read_as_the_full_parser_reads_it(name: str) -> None:
    page = (PAGES / name).read_text()
    oracle = by_oracle(page)
    assert len(oracle) > 100
    for family, series in oracle.items():
        ours = samples(page.encode(), Spec(family))
        assert len(ours) == len(series)
        for sample, (labels, value) in zip(ours, series, strict=True):
            assert same(sample.value, value)
            assert {label: sample.label(label) for label in labels} == labels


NAMES = st.sampled_from(["m", "m_total", "m_by_reason", "engine:m", "mm", "z"])
LABELS = st.dictionaries(
    st.sampled_from(["a", "le", "reason", "model_name"]), st.text(st.sampled_from('m 1,={}"\\\n#é_:'), max_size=12)
)
NUMBERS = st.one_of(st.floats(), st.integers(-(10**6), 10**6).map(float))
SERIES = st.tuples(NAMES, LABELS, NUMBERS)


def written(name: str, labels: dict[str, str], value: float, style: tuple[str, str, str]) -> str:
    blank, stamp, end = style
    escaped = {k: v.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for k, v in labels.items()}
    block = "{" + ",".join(f'{key}="{text}"' for key, text in escaped.items()) + "}" if labels else ""
    return f"# HELP {name} tells m 5{end}{name}{block}{blank}{value!r}{stamp}{end}"


@settings(deadline=None)
@given(
    st.lists(SERIES, max_size=8, unique_by=lambda series: (series[0], tuple(sorted(series[1].items())))),
    st.tuples(
        st.sampled_from([" ", "  ", "\t"]), st.sampled_from(["", " 1700000000000"]), st.sampled_from(["\n", "\r\n"])
    ),
    st.booleans(),
)
def test_any_page_is_read_as_the_full_parser_reads_it(
    series: list[tuple[str, dict[str, str], float]], style: tuple[str, str, str], ended: bool
) -> None:
    page = "".join(written(name, labels, value, style) for name, labels, value in series)
    page = page if ended else page.rstrip("\r\n")
    for family, expected in by_oracle(page).items():
        ours = samples(page.encode(), Spec(family))
        assert len(ours) == len(expected)
        for sample, (labels, value) in zip(ours, expected, strict=True):
            assert same(sample.value, value)
            assert {label: sample.label(label) for label in labels} == labels


@given(st.binary(max_size=300), st.lists(st.sampled_from([b"m", b"{", b'"', b"\\", b"}", b" 1", b"\n", b"="])))
def test_no_bytes_make_it_raise(noise: bytes, pieces: list[bytes]) -> None:
    page = b"m{" + noise + b"".join(pieces) + b'\nm{last="yes"} 7\n'
    assert [sample.value for sample in samples(page, Spec("m", (("last", "yes"),)))] == [7]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        pytest.param("m 1\n", [1], id="plain"),
        pytest.param("m 1", [1], id="no newline at the end"),
        pytest.param("m 1\r\nm_by_reason 2\r\n", [1], id="carriage returns"),
        pytest.param("  m\t1 \n", [1], id="blanks around"),
        pytest.param('m{a="x"}1\n', [1], id="no blank after the labels"),
        pytest.param('m {a="x"} 1\n', [1], id="blank before the labels"),
        pytest.param('m{ a = "x" , } 1\n', [1], id="blanks and a last comma in the labels"),
        pytest.param("m 1.5e+3 1700000000000\n", [1500], id="exponent and timestamp"),
        pytest.param('m +Inf\nm{a="b"} -Inf\n', [math.inf, -math.inf], id="infinities"),
        pytest.param('m{a="}"} 1\n', [1], id="brace in a value"),
        pytest.param(r'm{a="\"} 9",b="\\"} 1', [1], id="escaped quote and backslash"),
        pytest.param('m{a="é"} 1', [1], id="not ASCII"),
        pytest.param("m_x 1\nxm 2\nm:n 3\n", [], id="other names that contain it"),
        pytest.param('# HELP m 3\n# TYPE m gauge\nother{l="m 4"} 5\n', [], id="in help, type and a label value"),
        pytest.param('other{l="\\nm 4"} 5\n', [], id="after an escaped newline"),
        pytest.param("# TYPE m counter\nm_total 4\n# EOF\n", [4], id="counter of OpenMetrics"),
        pytest.param('m_total 4 # {trace_id="m"} 1 1.5\n', [4], id="exemplar"),
        pytest.param("m_total 4\nm 3\n", [3], id="the name itself goes before its total"),
        pytest.param('m\nm{} x\nm 1_0\nm{a="b 1\nm 0x1\nm 1 2 3\nm - 1\n', [], id="lines that are none"),
        pytest.param("", [], id="empty page"),
        pytest.param('m{a="1"} 1 20\nm{a="1"} 2 30\nm{a="1"} 3 10\n', [2], id="a series thrice: the newest"),
        pytest.param('m{a="1"} 1\nm{a="1"} 2\n', [1], id="a series twice without times: the first"),
    ],
)
def test_a_sample_line_in_any_form_is_read(page: str, expected: list[float]) -> None:
    assert values(page) == expected


def test_a_line_of_absurd_length_is_skipped() -> None:
    assert values('m{a="' + "x" * MAX_LINE_BYTES + '"} 1\nm 2\n') == [2]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param("m", [1, 2, 4], id="all"),
        pytest.param("m{a=1}", [1, 2], id="one label"),
        pytest.param('m{a="1",b="2"}', [2], id="two labels"),
        pytest.param('m{a=""}', [4], id="empty matches absent"),
        pytest.param("m{a=3}", [], id="no match"),
    ],
)
def test_a_spec_admits_the_series_whose_labels_all_match(spec: str, expected: list[float]) -> None:
    assert values('m{a="1"} 1\nm{b="2",a="1"} 2\nm{b="2"} 4\n', spec) == expected


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        pytest.param("", None, id="empty"),
        pytest.param("  ", None, id="blank"),
        pytest.param("vllm:num_requests_waiting", Spec("vllm:num_requests_waiting"), id="name"),
        pytest.param("  m  {  a  =  1  ,  b  =  2  }  ", Spec("m", (("a", "1"), ("b", "2"))), id="blanks"),
        pytest.param('m{a="1", b=2}', Spec("m", (("a", "1"), ("b", "2"))), id="quotes are optional"),
        pytest.param(r'm{a="x,}=\"\\"}', Spec("m", (("a", 'x,}="\\'),)), id="anything within quotes"),
        pytest.param('m{a=""}', Spec("m", (("a", ""),)), id="empty value"),
        pytest.param("m{}", Spec("m"), id="no labels"),
    ],
)
def test_a_spec_is_a_name_with_labels(text: str, spec: Spec | None) -> None:
    assert parse_spec(text) == spec


@pytest.mark.parametrize(
    "text", ["m{a=1", "ma=1}", "m{a}", "m{=1}", "m{a=1 b=2}", "1m", "m n", 'm{a="1}', "m{a=1}x", "{a=1}"]
)
def test_a_bad_spec_is_refused_with_its_text_and_the_form(text: str) -> None:
    with pytest.raises(SpecError, match="write name or name") as refused:
        parse_spec(text)
    assert repr(text) in str(refused.value)


GROUP = "# TYPE m gauge\n" + 'm{a="1"} 1\nm{a="2"} 2\n' + "# TYPE m_by gauge\nm_by 9\n"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(GROUP, id="the same page"),
        pytest.param("x 1\n" * 20 + GROUP, id="a little further down"),
        pytest.param("x 1\n" * 1000 + GROUP, id="far away"),
        pytest.param(
            "# TYPE m_by gauge\nm_by 9\n" + "y 2\n" * 90 + GROUP.partition("# TYPE m_by")[0], id="order changed"
        ),
        pytest.param('# TYPE m gauge\nm{a="1"} 1\nm{a="2"} 2', id="at the very end"),
        pytest.param("x 1\n" * 100 + "".join(f'm{{a="{n}"}} {n}\n' for n in range(1, 200)), id="more series"),
        pytest.param("z 1\n", id="gone"),
        pytest.param("x 1\n" * 30 + GROUP.replace("} 1", "} 1e-7").replace("} 2", "} +Inf"), id="other numbers"),
        pytest.param("x 1\n" * 30 + GROUP.replace("} 2", "} 2 1700000000000"), id="a timestamp"),
        pytest.param("x 1\n" * 30 + GROUP.replace("} 2", "} 2_0"), id="no number"),
        pytest.param("x 1\n" * 30 + GROUP.replace("} 2", "} nonsense"), id="letters"),
        pytest.param("x 1\n" * 30 + GROUP.replace("\n", "\r\n"), id="carriage returns"),
        pytest.param("x 1\n" * 30 + GROUP.replace("# TYPE m_by gauge", 'm{a="3"} 3'), id="one more series"),
        pytest.param("x 1\n" * 30 + GROUP.replace("# TYPE m_by gauge", '# so\nm{a="3"} 3'), id="one after a remark"),
        pytest.param("x 1\n" * 30 + GROUP.replace("# TYPE m_by gauge", ' m{a="3"} 3'), id="one after a blank"),
        pytest.param("x 1\n" * 30 + GROUP.replace('m{a="1"} 1\n', ""), id="a series gone"),
        pytest.param("x 1\n" * 30 + GROUP.replace('m{a="2"} 2', "m_total 2"), id="a total"),
        pytest.param("x 1\n" * 30 + GROUP.replace("# TYPE m gauge", 'm{a="0"} 0'), id="no type"),
        pytest.param("y # TYPE m gauge\n" + 'm{a="1"} 1\nm{a="2"} 2\n' + GROUP[:-9], id="its type within a line"),
    ],
)
def test_a_page_is_read_alike_with_the_places_of_the_last_one(page: str) -> None:
    places: Places = {}
    samples(("x 1\n" * 30 + GROUP).encode(), Spec("m"), places)
    assert places.keys() == {"m"}
    known = places["m"]
    assert known.read(("x 1\n" * 33 + GROUP).replace("} 1", "} 4.25").encode()) is not None
    for name in ("m", "m_by"):
        samples(GROUP.encode(), Spec(name), places)
        assert samples(page.encode(), Spec(name), places) == samples(page.encode(), Spec(name))


def told(one: tuple[str, dict[str, str], float], before: tuple[str, dict[str, str], float] | None) -> str:
    """The line of a series, after that of its type where its family begins."""
    line = written(*one, (" ", "", "\n")).partition("\n")[2]
    return line if before is not None and before[0] == one[0] else f"# TYPE {one[0]} gauge\n{line}"


@given(st.lists(st.lists(SERIES, max_size=12, unique_by=lambda one: (one[0], tuple(sorted(one[1])))), max_size=4))
def test_pages_one_after_another_are_read_as_each_alone(pages: list[list[tuple[str, dict[str, str], float]]]) -> None:
    places: Places = {}
    for series in pages:
        grouped = sorted(series, key=lambda one: one[0])
        page = "".join(told(*one) for one in zip(grouped, [None, *grouped], strict=False)).encode()
        for name in ("m", "m_total", "mm", "z"):
            assert repr(samples(page, Spec(name), places)) == repr(samples(page, Spec(name)))


@given(st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=4))
def test_pages_on_which_only_numbers_change_are_read_as_each_alone(pages: list[list[float]]) -> None:
    places: Places = {}
    specs = [parse_spec(text) for text in ("m", "m{a=1}", 'm{a=""}', "m{a=7}")]
    for first, second, third in pages:
        lines = f'm{{a="1"}} {first!r}\nm{{a="2",b="}}"}} {second!r}\nm {third!r}\n# EOF\n'
        page = f"x {first!r}\n# HELP m tells m\n# TYPE m gauge\n{lines}".encode()
        for spec in specs:
            assert spec is not None
            assert repr(samples(page, spec, places)) == repr(samples(page, spec))
    assert len(places) == len(specs)


def test_of_a_family_without_a_type_or_of_huge_ones_nothing_is_remembered() -> None:
    places: Places = {}
    for page in ("x 1\nm 2\n", "# TYPE m gauge\n" + "".join(f'm{{a="{n}"}} 1\n' for n in range(2000))):
        assert samples(page.encode(), Spec("m"), places)
        assert places == {}
