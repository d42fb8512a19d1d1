from random import Random

import pytest

from sim import admin
from sim.api import ApiError
from sim.faults import FAILURES, Fault, Faults
from sim.inference import load_report
from sim.settings import ServerSettings, parse, seconds
from sim.types import EngineSettings, Load, Speed


@pytest.mark.parametrize(
    ("text", "value"),
    [("50ms", 0.05), ("1.5s", 1.5), ("200us", 2e-4), ("1m30s", 90.0), ("0", 0.0), ("60ns", 6e-8), ("0s", 0.0)],
    ids=str,
)
def test_durations_have_units(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "50", "ms", "5 ms", "-5ms", "5msx", "1e3s"], ids=repr)
def test_what_is_no_duration_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a number and a unit"):
        seconds(text)


def test_flags_set_everything() -> None:
    line = """--model m --served-model-name x y --host 127.0.0.2 --port 1 --data-parallel-size 2 --mode echo --seed 9
        --lora-modules a=/a {"name":"b","path":"/b"} --max-num-seqs 2 --max-num-batched-tokens 99 --max-model-len 77
        --max-waiting-queue-length 3 --kv-cache-size 50 --block-size 8 --max-loras 4 --time-to-first-token 1s
        --inter-token-latency 2ms --prefill-overhead 3ms --prefill-time-per-token 4us --time-factor-under-load 5
        --failure-injection-rate 6 --failure-types rate_limit server_error"""
    assert parse(line.split()) == ServerSettings(
        model="m",
        served_names=("x", "y"),
        host="127.0.0.2",
        port=1,
        engines=2,
        echo=True,
        seed=9,
        lora_modules={"a": "/a", "b": "/b"},
        max_model_len=77,
        max_waiting=3,
        failure_rate=6.0,
        failure_types=("rate_limit", "server_error"),
        engine=EngineSettings(2, 99, 50, 8, 4, Speed(0.002, 5.0, 0.003, 0.000004, 1.0)),
    )


def test_flags_and_records_have_the_same_defaults() -> None:
    assert parse(["--model", "m"]) == ServerSettings(model="m")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--model"),
        (["--model", "m", "--inter-token-latency", "5"], "not a duration"),
        (["--model", "m", "--max-model-len", "99999"], "exceeds the KV cache of 16384 tokens"),
        (["--model", "m", "--failure-injection-rate", "101"], "not a percentage"),
        (["--model", "m", "--failure-types", "nope"], "rate_limit"),
        (["--model", "m", "--data-parallel-size", "0"], "must be at least 1"),
        (["--model", "m", "--max-num-seqs", "0"], "max_num_seqs 0 must be at least 1"),
        (["--model", "m", "--time-factor-under-load", "0.5"], "must be at least 1"),
        (["--model", "m", "--max-num-seqs", "4000"], "leaves no room for prompts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_flags_end_the_program_with_the_remedy(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argv)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def failure(faults: Faults, return_error: str | None = None) -> ApiError | None:
    try:
        faults.check(return_error, Random(1))
    except ApiError as error:
        return error
    return None


@pytest.mark.parametrize(("name", "status"), [(name, FAILURES[name][0]) for name in FAILURES])
def test_injected_failures_have_their_status(name: str, status: int) -> None:
    error = failure(Faults(100.0, [name]))
    assert error is not None
    assert error.status == error.body()["error"]["code"] == status


def test_failures_come_at_their_rate() -> None:
    rng, faults, failed = Random(1), Faults(30.0), 0
    for _ in range(2000):
        try:
            faults.check(None, rng)
        except ApiError:
            failed += 1
    assert failed == pytest.approx(600, rel=0.1)


@pytest.mark.parametrize(("header", "status"), [("503", 503), ("429", 429), ("200", 400), ("x", 400)])
def test_a_request_may_ask_for_its_error(header: str, status: int) -> None:
    error = failure(Faults(), header)
    assert error is not None
    assert error.status == status


def test_a_failed_engine_answers_500() -> None:
    error = failure(Faults(fault=Fault.ERROR))
    assert error is not None
    assert error.body()["error"]["type"] == "InternalServerError"


def test_a_change_leaves_alone_what_it_does_not_name() -> None:
    speed = Speed(0.01, 2.0, 0.005, 6e-8)
    change = admin.decode(b'{"inter-token-latency": "20ms"}')
    assert admin.new_speed(change, speed) == Speed(0.02, 2.0, 0.005, 6e-8)


def test_the_current_configuration_is_a_change_that_changes_nothing() -> None:
    speed, faults = Speed(1.25, 2.0, 0.005, 6e-8), Faults(5.0, ["rate_limit"], Fault.HANG)
    change = admin.current(speed, faults)
    other = Faults()
    admin.change_faults(change, other)
    assert admin.new_speed(change, Speed()) == speed
    assert other == faults


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "truncated"),
        (b'{"nope": 1}', "keys: time-to-first-token"),
        (b'{"fault": "sick"}', "sick"),
        (b'{"fault": "refuse"}', "needs fault-duration"),
        (b'{"failure-types": ["x"]}', "have: rate_limit"),
        (b'{"failure-types": []}', "length >= 1"),
        (b'{"failure-injection-rate": 101}', "<= 100"),
    ],
    ids=["json", "key", "fault", "refuse", "type", "no-type", "rate"],
)
def test_a_bad_change_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(ApiError, match=message):
        admin.decode(body)


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("JSON", 'JSON {"named_metrics": {"num_requests_waiting": 2.0, "kv_cache_usage_perc": 0.25}}'),
        ("text", "TEXT named_metrics.num_requests_waiting=2.0, named_metrics.kv_cache_usage_perc=0.25"),
    ],
)
def test_the_load_report_comes_in_both_forms(form: str, value: str) -> None:
    assert load_report(form, Load(2, 1, 0.25, frozenset(), frozenset())) == value
