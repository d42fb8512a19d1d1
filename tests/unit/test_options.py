import pytest

from epp.options import GI, MI, Options, flags, parse
from epp.options_argv import OptionsError
from epp.options_help import docs, help_text


def read(*argv: str, environ: dict[str, str] | None = None, limit: int | None = None) -> Options:
    return parse(argv, environ or {}, memory_limit=lambda: limit)


UPSTREAM_DEFAULTS = {
    "grpc_port": 9002,
    "grpc_health_port": 9003,
    "metrics_port": 9090,
    "ha_enable_leader_election": False,
    "drain_timeout": 30.0,
    "grpc_max_recv_msg_size": 0,
    "grpc_max_send_msg_size": 0,
    "pool_name": "",
    "pool_namespace": "default",
    "pool_group": "inference.networking.k8s.io",
    "endpoint_selector": "",
    "endpoint_target_ports": (),
    "disable_endpoint_subset_filter": False,
    "emit_endpoint_scores": False,
    "refresh_metrics_interval": 0.05,
    "refresh_prometheus_metrics_interval": 5.0,
    "metrics_staleness_threshold": 2.0,
    "v": 2,
    "zap_devel": True,
    "zap_encoder": "",
    "zap_log_level": None,
    "zap_stacktrace_level": "",
    "zap_time_encoding": "",
    "tracing": True,
    "health_checking": False,
    "enable_pprof": True,
    "secure_serving": True,
    "cert_path": "",
    "enable_cert_reload": False,
    "tls_min_version": "",
    "tls_cipher_suites": (),
    "metrics_endpoint_auth": True,
    "metrics_cert_dir": "",
    "metrics_client_ca_file": "",
    "enable_grpc_stream_metrics": False,
    "config_file": "",
    "config_text": "",
    "allow_experimental_plugins": False,
}
OUR_DEFAULTS = {
    "decision_timeout": 30.0,
    "max_body_bytes": 32 * MI,
    "max_held_bytes": GI,
    "load_report": False,
    "emit_decision_id": False,
    "max_cooling_share": 0.5,
    "transport": "h2",
    "response_phase": "full",
    "workers": 1,
    "scrape_budget": 0.1,
    "plugins_path": "",
    "ha_lease_duration": 15.0,
    "ha_renew_deadline": 10.0,
    "ha_retry_period": 2.0,
    "help": False,
}


def test_without_flags_every_default_holds() -> None:
    options = read()
    expected = UPSTREAM_DEFAULTS | OUR_DEFAULTS
    assert {name: getattr(options, name) for name in expected} == expected
    assert (options.given, options.warnings) == (frozenset(), ())


def test_there_are_no_other_flags() -> None:
    assert {flag.name.replace("-", "_") for flag in flags()} == {*UPSTREAM_DEFAULTS, *OUR_DEFAULTS}


@pytest.mark.parametrize(
    "argv",
    [
        ["--pool-name=a", "--secure-serving=false", "--grpc-port=1"],
        ["--pool-name", "a", "--secure-serving=F", "--grpc-port", "1"],
        ["-pool-name", "a", "-secure-serving=FALSE", "-grpc-port=1"],
        ["--poolName=a", "--secureServing=0", "--grpcPort=1"],
        ["--pool_name=a", "--secure_serving=f", "--grpc_port", "1"],
        ["", "--pool-name=a", "", "", "--secure-serving=False", "--grpc-port=1", ""],
        ["--pool-name=z", "--grpc-port=9", "--pool-name=a", "--secure-serving", "--secure-serving=0", "--grpc-port=1"],
    ],
    ids=["equals", "two words", "one dash", "camel case", "underscores", "empty words", "repeated"],
)
def test_every_spelling_means_the_same(argv: list[str]) -> None:
    options = read(*argv)
    assert (options.pool_name, options.secure_serving, options.grpc_port) == ("a", False, 1)
    assert (options.given, options.warnings) == (frozenset({"pool-name", "secure-serving", "grpc-port"}), ())


def test_a_bare_switch_leaves_the_next_word_alone() -> None:
    options = read("--ha-enable-leader-election", "--pool-name", "a")
    assert (options.ha_enable_leader_election, options.pool_name) == (True, "a")


def test_a_word_after_a_bare_switch_is_ignored_with_a_hint() -> None:
    options = read("--secure-serving", "false")
    assert options.secure_serving is True
    assert options.warnings == (
        "ignored 'false', which is no flag; write --secure-serving=false if it belongs to --secure-serving",
    )


def test_words_that_are_no_flags_are_ignored() -> None:
    assert read("serve", "-", "--grpc-port=1", "x").warnings == tuple(
        f"ignored {word!r}, which is no flag" for word in ("serve", "-", "x")
    )


def test_nothing_is_read_after_two_dashes() -> None:
    assert read("--grpc-port=1", "--", "--grpc-port=2", "--nonsense").grpc_port == 1


def test_a_value_may_be_yaml_that_begins_with_dashes() -> None:
    assert read("--config-text", "---\nkind: EndpointPickerConfig\n").config_text == "---\nkind: EndpointPickerConfig\n"


def test_a_value_may_hold_an_equals_sign() -> None:
    assert read("--endpoint-selector=app=vllm,tier=a").endpoint_selector == "app=vllm,tier=a"


def test_a_text_may_be_given_empty() -> None:
    assert read("--cert-path", "", "--grpc-port=1").cert_path == ""


@pytest.mark.parametrize("argv", [["-v", "4"], ["-v4"], ["-v=4"], ["--v=4"], ["-v", "1", "-v", "4"]])
def test_verbosity_can_be_given_as(argv: list[str]) -> None:
    assert read(*argv).verbosity == 4


@pytest.mark.parametrize(
    ("argv", "verbosity"),
    [
        (["-v=-3"], 2),
        (["-v=5", "--zap-log-level=info"], 2),
        (["--zap-log-level=debug"], 4),
        (["--zap-log-level", "ERROR"], -1),
        (["--zap-log-level=7"], 7),
    ],
)
def test_the_zap_level_overrides_the_verbosity(argv: list[str], verbosity: int) -> None:
    assert read(*argv).verbosity == verbosity


def test_lists_add_up_without_doubles() -> None:
    options = read("--endpoint-target-ports=8000,8001,8000", "--endpoint-target-ports", "8002,8001")
    assert options.endpoint_target_ports == (8000, 8001, 8002)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--poolnamex=a"], "unknown flag --poolnamex; did you mean --pool-name or --pool-namespace?"),
        (["--qqq"], "unknown flag --qqq; see epp --help"),
        (["--grpc-port"], "--grpc-port needs a value: --grpc-port=VALUE"),
        (["--pool-name", "--grpcPort=1"], "--pool-name needs a value, but the next word is the flag --grpcPort"),
        (
            ["--grpc-port=x"],
            "--grpc-port: 'x' is not a whole number from 0 to 65535; example: --grpc-port=9002",
        ),
        (
            ["--decision-timeout=5"],
            "--decision-timeout: '5' is not a duration above 0, each number with a unit (ns, us, ms, s, m, h); "
            "example: --decision-timeout=30s or 1m30s",
        ),
        (["--tracing="], "--tracing: '' is not true, false, t, f, 1 or 0; example: --tracing=true"),
        (["--workers=0"], "--workers: '0' is not a whole number from 1 to 64; example: --workers=2"),
        (
            ["--workers=2", "--transport=grpcio"],
            "--workers=2 needs --transport=h2: only its connections can be handed to other processes",
        ),
        (
            ["--workers=2", "--config-file=/dev/stdin"],
            "--workers=2 needs a file that can be read more than once, which --config-file=/dev/stdin is not",
        ),
        (["--transport=h3"], "--transport: 'h3' is not one of grpcio, h2; example: --transport=grpcio"),
        (
            ["--endpoint-target-ports=80,x"],
            "--endpoint-target-ports: 'x' is not a whole number from 0 to 65535; "
            "example: --endpoint-target-ports=8000,8001",
        ),
    ],
)
def test_a_wrong_command_line_is_refused_with(argv: list[str], message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        read(*argv)
    assert str(caught.value) == message


def test_a_flag_is_never_taken_for_its_abbreviation() -> None:
    with pytest.raises(OptionsError, match="unknown flag --pool-n;"):
        read("--pool-n=a")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--config-file=a", "--config-text=b"], "exclude each other"),
        (["--grpc-port=9090"], "--grpc-port and --metrics-port are both 9090; give each listener a port of its own"),
        (["--metrics-client-ca-file=a"], "needs --metrics-cert-dir"),
        (["--metrics-cert-dir=a", "--metrics-endpoint-auth=false"], "needs --metrics-client-ca-file"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(argv: list[str], words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        read(*argv)


SELECTED = ["--endpoint-selector=a=b", "--endpoint-target-ports=8000"]
IN_DEPLOYMENT = {"POD_NAME": "my-epp-7d4b9c-x2x9p"}


@pytest.mark.parametrize(
    ("argv", "environ", "file_mode"),
    [
        (["--pool-name=a"], {}, False),
        (["--pool-name=a"], {}, True),
        ([], {}, True),
        (SELECTED, IN_DEPLOYMENT, False),
    ],
)
def test_one_source_of_endpoints_is_enough(argv: list[str], environ: dict[str, str], file_mode: bool) -> None:
    read(*argv, environ=environ).validate(file_mode=file_mode)


@pytest.mark.parametrize(
    ("argv", "environ", "words"),
    [
        ([], {}, "either --pool-name or --endpoint-selector must be set"),
        (["--pool-name=a", *SELECTED], IN_DEPLOYMENT, "exclude each other"),
        (SELECTED[:1], IN_DEPLOYMENT, "1 to 8 --endpoint-target-ports, not 0"),
        ([SELECTED[0], "--endpoint-target-ports=1,2,3,4,5,6,7,8,9"], IN_DEPLOYMENT, "not 9"),
        (SELECTED, {}, "POD_NAME, which is ''"),
        (SELECTED, {"POD_NAME": "bare"}, "POD_NAME, which is 'bare'"),
    ],
)
def test_no_source_or_two_are_refused(argv: list[str], environ: dict[str, str], words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        read(*argv, environ=environ).validate(file_mode=False)


@pytest.mark.parametrize(
    ("argv", "environ", "namespace"),
    [
        ([], {}, "default"),
        ([], {"NAMESPACE": "n"}, "n"),
        ([], {"NAMESPACE": ""}, "default"),
        (["--pool-namespace=f"], {"NAMESPACE": "n"}, "f"),
    ],
)
def test_the_namespace_comes_from_flag_then_variable(argv: list[str], environ: dict[str, str], namespace: str) -> None:
    assert read(*argv, environ=environ).pool_namespace == namespace


@pytest.mark.parametrize(
    ("argv", "limit", "held"),
    [
        ([], None, GI),
        ([], 64 * GI, GI),
        ([], 2 * GI, GI // 2),
        (["--max-held-bytes=3Gi"], 2 * GI, 3 * GI),
    ],
)
def test_held_bytes_follow_the_memory_limit_unless_given(argv: list[str], limit: int | None, held: int) -> None:
    assert read(*argv, limit=limit).max_held_bytes == held


@pytest.mark.parametrize(
    ("argv", "receive", "send"),
    [
        ([], 33 * MI, 2**31 - 1),
        (["--max-body-bytes=4Mi"], 5 * MI, 2**31 - 1),
        (["--grpc-max-recv-msg-size=", "--grpc-max-send-msg-size=0"], 33 * MI, 2**31 - 1),
        (["--grpc-max-recv-msg-size=10MiB", "--grpc-max-send-msg-size=25MB"], 10 * MI, 25_000_000),
        (["--grpc-max-recv-msg-size=8Gi"], 2**31 - 1, 2**31 - 1),
    ],
)
def test_message_sizes(argv: list[str], receive: int, send: int) -> None:
    options = read(*argv)
    assert (options.max_recv_bytes, options.max_send_bytes) == (receive, send)


def test_a_refresh_below_the_shortest_is_raised_with_a_warning() -> None:
    options = read("--refresh-metrics-interval=10ms")
    assert (options.refresh_metrics_interval, options.warnings) == (
        0.05,
        ("--refresh-metrics-interval below 50ms: raised to 50ms",),
    )


@pytest.mark.parametrize(
    ("argv", "remarks"),
    [
        ([], 0),
        (["--tls-min-version=VersionTLS12"], 0),
        (["--tls-min-version=VersionTLS13"], 1),
        (["--tls-min-version=VersionTLS10"], 1),
    ],
)
def test_grpcio_says_which_tls_versions_it_cannot_honour(argv: list[str], remarks: int) -> None:
    assert len(read(*argv).unsupported_by("grpcio")) == remarks


@pytest.mark.parametrize(("version", "remarks"), [("TLS10", 1), ("TLS11", 1), ("TLS12", 0), ("TLS13", 0)])
def test_h2_can_honour_all_that_http2_allows(version: str, remarks: int) -> None:
    assert len(read(f"--tls-min-version=Version{version}").unsupported_by("h2")) == remarks


def test_cipher_suites_reach_grpc_by_their_openssl_names() -> None:
    options = read(
        "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_AES_128_GCM_SHA256",
        "--tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    )
    assert options.grpc_environment == {
        "GRPC_SSL_CIPHER_SUITES": "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305"
    }


def test_cipher_suites_of_tls_1_3_need_no_setting() -> None:
    assert read("--tls-cipher-suites=TLS_AES_128_GCM_SHA256").grpc_environment == {}


@pytest.mark.parametrize(
    ("suites", "needed"),
    [
        ("", False),
        ("TLS_AES_128_GCM_SHA256", False),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", True),
        ("TLS_RSA_WITH_AES_128_CBC_SHA,TLS_AES_128_GCM_SHA256", True),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", False),
    ],
)
def test_cipher_suites_that_all_want_rsa(suites: str, needed: bool) -> None:
    assert read(f"--tls-cipher-suites={suites}").needs_rsa is needed


def test_an_unknown_cipher_suite_is_refused_by_name() -> None:
    with pytest.raises(OptionsError, match="--tls-cipher-suites: 'TLS_RSA_WITH_RC4_128_SHA' is not"):
        read("--tls-cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA,TLS_RSA_WITH_RC4_128_SHA")


def test_what_kserve_passes_with_tls_off_is_understood() -> None:
    options = read(
        *["--pool-name", "llm-inference-pool", "--pool-namespace", "llm", "--zap-encoder", "json"],
        *["--grpc-port", "9002", "--grpc-health-port", "9003", "", "", "", ""],
        *["--ha-enable-leader-election", "--config-text", "plugins: []", "--tracing=true"],
    )
    assert (options.pool_name, options.config_text, options.warnings) == ("llm-inference-pool", "plugins: []", ())


def test_help_names_every_flag_once_with_its_text() -> None:
    lines = help_text().splitlines()
    for flag in flags():
        assert sum(line.strip().split(" ")[0].strip(",") in {f"--{flag.name}", f"-{flag.name}"} for line in lines) == 1
    assert set(docs()) >= {flag.name.replace("-", "_") for flag in flags()}
    assert "  --max-held-bytes quantity (1Gi)" in lines
    assert "  --refresh-metrics-interval duration (50ms)" in lines


def test_help_has_a_short_form() -> None:
    assert read("-h").help
