import pytest
from prometheus_client import CollectorRegistry

from epp.obs.metrics import MOST_VALUES, Metrics, new_registry
from epp.testing import endpoints
from epp.types import Decision, Flaw, Outcome, Refused, Request, Run, Spent, Usage

PODS = endpoints(waiting=[0, 0, 0]).records
REQUEST = Request(
    id="r", model="base", incoming_model="chat", fairness_id="team", priority=-1, body_bytes=100, prompts=()
)
FLOW = {"model_name": "chat", "target_model_name": "base", "fairness_id": "team", "priority": "-1"}
MODELS = {"model_name": "chat", "target_model_name": "base"}


class Board:
    """A Metrics and what a scrape of it reads."""

    def __init__(self, *, streams: bool = False) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, streams=streams)
        self.metrics.configured({"mine": "queue-scorer"})

    def read(self, name: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def names(self) -> set[str]:
        return {sample.name for metric in self.registry.collect() for sample in metric.samples}

    def scheduled(self, request: Request = REQUEST) -> None:
        self.metrics.scheduled(decision(), request, since_headers_s=0.002)


def decision(*, picked: bool = True) -> Decision:
    made = Decision("r", "base", 1.0, 3, primary="default", took_s=0.0003)
    made.runs["default"] = Run("default", PODS, picked=PODS[1:2] if picked else ())
    made.spent += [Spent("mine", "scorer", 0.0004), Spent("prefix", "signal", 0.02)]
    made.flaws.append(Flaw("mine", "nan"))
    return made


def outcome(**changes: object) -> Outcome:
    usage = Usage(prompt_tokens=100, completion_tokens=11, total_tokens=111, cached_tokens=0)
    values = {"usage": usage, "status": 200, "cause": "natural", "ttft_s": 0.5, "duration_s": 2.5, "streamed": True}
    return Outcome(**(values | {"response_bytes": 900} | changes))  # type: ignore[arg-type]


def test_a_pick_is_counted_under_both_names() -> None:
    board = Board()
    board.scheduled()
    assert board.read("llm_d_epp_request_total", **FLOW) == 1
    assert board.read("inference_objective_request_total", **MODELS, priority="-1") == 1
    assert board.read("llm_d_epp_request_size_bytes_bucket", **FLOW, le="128.0") == 1
    assert board.read("inference_objective_request_sizes_sum", **MODELS) == 100
    assert board.read("llm_d_epp_request_processing_duration_seconds_sum") == 0.002
    assert board.read("inference_extension_scheduler_e2e_duration_seconds_sum") == 0.0003


def test_a_pick_names_its_endpoint() -> None:
    board = Board()
    board.scheduled()
    where = {"status": "success", "target_model_name": "base", "namespace": "default", "port": "8000"}
    assert board.read("llm_d_epp_scheduler_attempts_total", **where, endpoint_name="e1") == 1
    assert board.read("inference_extension_scheduler_attempts_total", **where, pod_name="e1") == 1


def test_plugins_are_told_by_place_type_and_name() -> None:
    board = Board()
    board.scheduled()
    mine = {"extension_point": "Scorer", "plugin_type": "queue-scorer", "plugin_name": "mine"}
    assert board.read("llm_d_epp_plugin_duration_seconds_sum", **mine) == 0.0004
    other = {"extension_point": "DataProducer", "plugin_type": "prefix", "plugin_name": "prefix"}
    assert board.read("inference_extension_plugin_duration_seconds_sum", **other) == 0.02
    assert board.read("llm_d_epp_plugin_flaws_total", plugin_name="mine", rule="nan") == 1


def test_another_configuration_gives_other_plugin_types() -> None:
    board = Board()
    board.scheduled()
    board.metrics.configured({"mine": "load-aware-scorer"})
    board.scheduled()
    mine = {"extension_point": "Scorer", "plugin_type": "load-aware-scorer", "plugin_name": "mine"}
    assert board.read("llm_d_epp_plugin_duration_seconds_count", **mine) == 1


def test_a_finished_request_tells_times_sizes_and_tokens() -> None:
    board = Board()
    board.scheduled()
    board.metrics.ended(REQUEST, outcome(work_s=0.004))
    read = board.read
    assert read("llm_d_epp_response_processing_duration_seconds_sum") == 0.004
    assert read("llm_d_epp_request_duration_seconds_sum", **FLOW) == 2.5
    assert read("inference_objective_response_sizes_sum", **MODELS) == 900
    assert read("llm_d_epp_request_input_tokens_sum", **FLOW) == 100
    assert read("inference_objective_output_tokens_sum", **MODELS) == 11
    assert read("inference_objective_prompt_cached_tokens_count", **MODELS) == 1
    assert read("llm_d_epp_request_ntpot_seconds_sum", **FLOW) == pytest.approx(2.5 / 11)
    assert read("llm_d_epp_request_ttft_seconds_sum", **FLOW, streaming="true") == 0.5
    assert read("llm_d_epp_request_streaming_tpot_seconds_sum", **FLOW) == pytest.approx(0.2)


def test_a_plain_response_has_no_time_per_token() -> None:
    board = Board()
    board.scheduled()
    board.metrics.ended(REQUEST, outcome(streamed=False, usage=None))
    assert board.read("llm_d_epp_request_ttft_seconds_sum", **FLOW, streaming="false") == 0.5
    assert "llm_d_epp_request_streaming_tpot_seconds_sum" not in board.names()
    assert "llm_d_epp_request_input_tokens_sum" not in board.names()


@pytest.mark.parametrize("cause", ["natural", "client-disconnect", "error", "evicted"])
def test_however_a_request_ends_it_no_longer_runs(cause: str) -> None:
    board = Board()
    board.scheduled()
    assert board.read("inference_objective_running_requests", model_name="chat") == 1
    board.metrics.ended(REQUEST, outcome(cause=cause))
    assert board.read("llm_d_epp_request_running", **FLOW) == 0


def test_only_a_natural_end_has_a_duration() -> None:
    board = Board()
    board.scheduled()
    board.metrics.ended(REQUEST, outcome(cause="client-disconnect"))
    assert board.read("llm_d_epp_request_duration_seconds_count", **FLOW) is None


def test_a_request_without_a_model_is_never_shown_running() -> None:
    board = Board()
    board.scheduled(Request())
    board.metrics.ended(Request(), outcome())
    assert "llm_d_epp_request_running" not in board.names()


@pytest.mark.parametrize(
    ("changes", "errors"),
    [({"status": 500}, 1), ({"status": 404}, 1), ({"status": 0, "failure": "missing"}, 1), ({"status": 302}, None)],
)
def test_a_failed_response_is_the_model_servers_error(changes: dict[str, object], errors: int | None) -> None:
    board = Board()
    board.scheduled()
    board.metrics.ended(REQUEST, outcome(**changes))
    assert board.read("llm_d_epp_request_error_total", **FLOW, error_code="ModelServerError") == errors


def test_a_refusal_is_counted_by_its_code() -> None:
    board = Board()
    board.metrics.refused(REQUEST, Refused(429, "full", "rejected-saturated"), since_headers_s=0.1)
    assert board.read("llm_d_epp_request_error_total", **FLOW, error_code="ResourceExhausted") == 1
    assert board.read("inference_objective_request_error_total", **MODELS, error_code="ResourceExhausted") == 1
    assert board.read("llm_d_epp_request_processing_duration_seconds_sum") == 0.1
    assert board.read("llm_d_epp_request_total", **FLOW) is None


def test_a_body_that_could_not_be_read_has_no_model() -> None:
    board = Board()
    board.metrics.refused(Request(), Refused(400, "no JSON"), since_headers_s=0.1)
    nothing = dict.fromkeys(MODELS, "") | {"fairness_id": "", "priority": "0"}
    assert board.read("llm_d_epp_request_error_total", **nothing, error_code="BadRequest") == 1


def test_a_refusal_in_a_profile_is_a_failed_attempt_with_its_plugin_times() -> None:
    board = Board()
    refused = Refused(429, "nobody left")
    refused.decision = decision(picked=False)
    board.metrics.refused(REQUEST, refused, since_headers_s=0.1)
    nobody = {"endpoint_name": "", "namespace": "", "port": ""}
    attempts = "llm_d_epp_scheduler_attempts_total"
    assert board.read(attempts, **nobody, status="failure", target_model_name="base") == 1
    assert board.read("llm_d_epp_plugin_flaws_total", plugin_name="mine", rule="nan") == 1


def test_gaps_between_pieces() -> None:
    board = Board()
    board.metrics.gaps(REQUEST)(0.03)
    assert board.read("llm_d_epp_request_streaming_itl_seconds_bucket", **FLOW, le="0.04") == 1


def test_models_beyond_the_cap_become_other() -> None:
    board = Board()
    for i in range(MOST_VALUES + 3):
        board.scheduled(Request(model=f"m{i}", incoming_model=f"m{i}"))
    other = {"model_name": "other", "target_model_name": "other", "fairness_id": "", "priority": "0"}
    assert board.read("llm_d_epp_request_total", **other) == 3
    assert board.read("llm_d_epp_request_total", **other | {"model_name": "m0", "target_model_name": "m0"}) == 1


def test_models_the_operator_named_are_always_told_apart() -> None:
    board = Board()
    board.metrics.keep_models(["mine"])
    for i in range(MOST_VALUES):
        board.scheduled(Request(model=f"m{i}", incoming_model=f"m{i}"))
    board.scheduled(Request(model="mine", incoming_model="mine"))
    mine = {"model_name": "mine", "target_model_name": "mine", "fairness_id": "", "priority": "0"}
    assert board.read("llm_d_epp_request_total", **mine) == 1


def test_combinations_are_bounded_too() -> None:
    board = Board()
    for model in range(50):
        for user in range(50):
            board.scheduled(Request(model=f"m{model}", incoming_model=f"m{model}", fairness_id=f"u{user}"))
    (metric,) = [m for m in board.registry.collect() if m.name == "llm_d_epp_request"]
    assert len(metric.samples) == 2001
    assert sum(sample.value for sample in metric.samples) == 2500


def test_suspended_plugins_are_marked_until_they_are_not() -> None:
    board = Board()
    board.metrics.suspended({"a", "b"})
    board.metrics.suspended({"b"})
    assert [board.read("llm_d_epp_plugin_suspended", plugin_name=name) for name in "ab"] == [0, 1]


def test_the_rest_is_counted_by_name() -> None:
    board = Board()
    board.metrics.built("abc", "v1")
    board.metrics.rewritten("rule", "a", "b")
    board.metrics.poll_failed("metrics-data-source")
    board.metrics.extract_failed("metrics-data-source", "core-metrics-extractor")
    board.metrics.endpoint_failed("e1", "connect")
    board.metrics.prefix_index("prefix", 7)
    board.metrics.prefix_hit("prefix", 0.5, 64)
    board.metrics.held(9)
    board.metrics.body_refused("too-large")
    board.metrics.lagged(0.2)
    read = board.read
    assert read("inference_extension_info", commit="abc", build_ref="v1") == 1
    rewrite = {"model_rewrite_name": "rule", "model_name": "a", "target_model": "b"}
    assert read("inference_extension_model_rewrite_decisions_total", **rewrite) == 1
    poll = "llm_d_inference_scheduler_datalayer_poll_errors_total"
    assert read(poll, source_type="metrics-data-source") == 1
    extract = {"source_type": "metrics-data-source", "extractor_type": "core-metrics-extractor"}
    assert read("llm_d_epp_datalayer_extract_errors_total", **extract) == 1
    assert read("llm_d_epp_endpoint_failures_total", endpoint_name="e1", kind="connect") == 1
    assert read("llm_d_epp_prefix_indexer_size", plugin_name="prefix", plugin_type="prefix") == 7
    assert read("inference_extension_prefix_indexer_hit_ratio_bucket", le="0.5") == 1
    assert read("inference_extension_prefix_indexer_hit_bytes_sum") == 64
    assert read("llm_d_epp_held_bytes") == 9
    assert read("llm_d_epp_body_refused_total", reason="too-large") == 1
    assert read("llm_d_epp_loop_lag_seconds_bucket", le="0.25") == 1


def test_stream_metrics_are_told_only_if_asked_for() -> None:
    asked, silent = Board(streams=True), Board()
    for board in (asked, silent):
        board.metrics.stream_opened()
        board.metrics.stream_opened()
        board.metrics.stream_closed(3.0, "Canceled")
    assert (asked.metrics.streams_open, silent.metrics.streams_open) == (1, 1)
    assert asked.read("llm_d_epp_extproc_streams_inflight") == 1
    assert asked.read("llm_d_epp_extproc_stream_duration_seconds_bucket", le="5.0") == 1
    assert asked.read("llm_d_epp_extproc_streams_total", code="Canceled") == 1
    assert not any("extproc" in name for name in silent.names())


def test_no_series_tells_when_it_was_created() -> None:
    board = Board(streams=True)
    board.scheduled()
    board.metrics.ended(REQUEST, outcome())
    assert not any(name.endswith("_created") for name in board.names())


def test_the_process_tells_about_itself() -> None:
    assert new_registry().get_sample_value("process_cpu_seconds_total") is not None


def test_pieces_of_responses_are_told_by_the_way_they_went() -> None:
    board = Board()
    board.metrics.passed(5, 1)
    board.metrics.passed(2, 0)
    told = {way: board.read("llm_d_epp_response_pieces_total", way=way) for way in ("wrapped", "read")}
    assert told == {"wrapped": 7.0, "read": 1.0}
