"""The settings of the process: every flag with its unit, default and reason, read from a command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, get_type_hints

from epp import options_values as of
from epp.options_argv import OptionsError, read
from epp.options_memory import cgroup_limit
from epp.options_retired import RETIRED, replacements
from epp.options_rules import POD_OF_DEPLOYMENT, check, endpoints_told

MI = 1 << 20
GI = 1 << 30
SHORTEST_REFRESH_S = 0.05
LARGEST_MESSAGE = 2**31 - 1
"""gRPC counts message sizes in 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Every flag as a field (`--grpc-port` is `grpc_port`), and what reading them found.

    Names and defaults are those of the llm-d router; those that are ours stand in a section of their own.
    """

    grpc_port: Annotated[of.Port, of.Section("Ports")] = 9002
    """Listener of ext_proc; 0 takes a free port."""
    grpc_health_port: of.Port = 9003
    """Listener of gRPC health checks, always plaintext."""
    metrics_port: of.Port = 9090
    """Listener of /metrics and /debug."""

    pool_name: Annotated[of.Text, of.Section("Pool")] = ""
    """InferencePool to serve; optional with file discovery, where it is only a label (`epp`)."""
    pool_namespace: of.Text = ""
    """Namespace of the pool; empty = the variable NAMESPACE, else `default`."""
    pool_group: of.Text = "inference.networking.k8s.io"
    """API group that objectives and rewrites must name in their poolRef."""
    endpoint_selector: of.Text = ""
    """Label selector that stands in for an InferencePool."""
    endpoint_target_ports: of.Ports = ()
    """With the selector: the 1 to 8 ports of each pod. Repeated flags add up."""
    disable_endpoint_subset_filter: of.Switch = False
    """Ignore the subset of endpoints that the gateway asks for."""
    ha_enable_leader_election: of.Switch = False
    """One replica leads and is ready, the others wait."""
    ha_lease_duration: of.SomeSeconds = 15.0
    """Ours: a leader that has not renewed its lease for so long is taken to be dead. Whole seconds."""
    ha_renew_deadline: of.SomeSeconds = 10.0
    """Ours: a leader that could not renew for so long stops leading by itself, before others may."""
    ha_retry_period: of.SomeSeconds = 2.0
    """Ours: between two attempts to renew or to take the lease."""

    config_file: Annotated[of.Text, of.Section("Configuration")] = ""
    """Path of the EndpointPickerConfig."""
    config_text: of.Text = ""
    """The EndpointPickerConfig itself."""
    allow_experimental_plugins: of.Switch = False
    """Allow plug-ins marked alpha."""
    plugins_path: of.Text = ""
    """Ours: directory of plug-ins, one name.py each, loaded and reloaded with the configuration. Whoever writes there
    runs code in the picker. Empty = none."""

    decision_timeout: Annotated[of.SomeSeconds, of.Section("Requests (ours)")] = 30.0
    """From a request's last byte to its answer, queueing excluded; then 503. Envoy has no timer of its own here."""
    max_body_bytes: of.Bytes = 32 * MI
    """Largest request body, else 413. Room for images in a prompt."""
    max_held_bytes: of.Bytes = GI
    """All bodies held at once, else 503: a flood must not end in OOM. Unless given, a quarter of the memory limit
    if that is less."""
    emit_decision_id: of.Switch = False
    """Set x-epp-decision-id on responses, the key to /debug/decisions."""
    max_cooling_share: of.Share = 0.5
    """Never more than this share of the pool is left out for failing: more is likely a fault elsewhere."""
    load_report: of.Switch = False
    """Ask engines for a load report in response headers. Off: it costs vLLM 4-5 ms of CPU each."""
    response_phase: of.ResponsePhase = "full"
    """none = end the stream once the request is on its way: responses cost nothing, and usage, TTFT, failures of
    requests and exact in-flight counts are lost."""
    scrape_budget: of.Cores = 0.1
    """Cores that reading engine metrics may take; beyond it readings get rarer."""
    transport: of.Transport = "h2"
    """Which server speaks HTTP/2 to the gateway: gRPC's own library, or the picker's lean one."""
    workers: of.Count = 1
    """Processes that speak to the gateway and read bodies. 1 = one process does all; with more, another one decides."""

    secure_serving: Annotated[of.Switch, of.Section("ext_proc listener")] = True
    """TLS, as every known gateway dials it unless told otherwise."""
    cert_path: of.Text = ""
    """Directory with tls.crt and tls.key; empty = a self-signed certificate made at start."""
    enable_cert_reload: of.Switch = False
    """Accepted without effect: changed files of --cert-path are always taken up without a restart."""
    tls_min_version: of.TlsVersion = ""
    """Lowest TLS version; empty = 1.2."""
    tls_cipher_suites: of.Ciphers = ()
    """Cipher suites up to TLS 1.2, by their Go names; empty = the library's choice."""
    grpc_max_recv_msg_size: of.MessageSize = 0
    """Largest message taken; 0 = --max-body-bytes and 1 MiB, since a buffered body is one message."""
    grpc_max_send_msg_size: of.MessageSize = 0
    """Largest message sent; 0 = no limit."""
    health_checking: of.Switch = False
    """Health checks on the ext_proc port too. They are always served there; accepted for the sake of manifests."""
    drain_timeout: of.Seconds = 30.0
    """How long ext_proc keeps serving after SIGTERM; 0 = stop at once."""
    emit_endpoint_scores: of.Switch = False
    """Add every candidate's score to the dynamic metadata."""

    refresh_metrics_interval: Annotated[of.Seconds, of.Section("Engine metrics")] = SHORTEST_REFRESH_S
    """How often engines are read at most; --scrape-budget decides how often they are."""
    refresh_prometheus_metrics_interval: of.SomeSeconds = 5.0
    """How often the pool gauges are computed."""
    metrics_staleness_threshold: of.Seconds = 2.0
    """Older readings do not count in the pool gauges."""

    metrics_endpoint_auth: Annotated[of.Switch, of.Section("Metrics port")] = True
    """Ask Kubernetes who may read the metrics port, /debug included (TokenReview). Only where the pool is there."""
    metrics_cert_dir: of.Text = ""
    """Directory with tls.crt and tls.key; turns on TLS."""
    metrics_client_ca_file: of.Text = ""
    """CA in PEM; clients must show a certificate it signed. Needs --metrics-cert-dir."""
    enable_pprof: of.Switch = True
    """Profiles under /debug/pprof/, for those who may read /debug."""
    enable_grpc_stream_metrics: of.Switch = False
    """Three metrics of the ext_proc streams."""

    v: Annotated[of.Number, of.Section("Logs and traces")] = 2
    """Verbosity: 2 = what an operator needs, 4 debug, 5 everything."""
    zap_log_level: of.ZapLevel = None
    """Overrides -v: error, info, debug, trace or a number."""
    zap_encoder: of.Encoder = ""
    """Accepted without effect: logs are always JSON."""
    zap_devel: of.Switch = True
    """Accepted without effect."""
    zap_stacktrace_level: of.Text = ""
    """Accepted without effect."""
    zap_time_encoding: of.Text = ""
    """Accepted without effect: times are seconds since 1970."""
    tracing: of.Switch = True
    """Allow traces; they are exported only when an OTEL_* variable names an exporter."""
    help: of.Switch = False
    """Print this and exit."""

    pod_name: str = ""
    """The variable POD_NAME."""
    metrics_source_overrides: Mapping[str, str | int | bool] = field(default_factory=dict)
    """Parameters of metrics-data-source that retired flags stand for."""
    engine_overrides: Mapping[str, str] = field(default_factory=dict)
    """Metric specs of the default engine (queuedRequestsSpec …) that retired flags stand for."""
    given: frozenset[str] = frozenset()
    """Names of the flags that were given."""
    warnings: tuple[str, ...] = ()
    """What the operator should hear at start."""

    @property
    def verbosity(self) -> int:
        """What the log shows: -1 = errors only, 2 = the default, 5 and above = everything."""
        if self.zap_log_level is not None:
            return self.zap_log_level
        return self.v if self.v >= 0 else 2

    @property
    def served_pool(self) -> str:
        """The pool's name: as given, else that of the Deployment whose pod this is, else `epp`."""
        of_deployment = POD_OF_DEPLOYMENT.fullmatch(self.pod_name) if self.endpoint_selector else None
        return self.pool_name or (of_deployment[1] if of_deployment else "epp")

    @property
    def max_recv_bytes(self) -> int:
        """Largest gRPC message to take."""
        return min(self.grpc_max_recv_msg_size or self.max_body_bytes + MI, LARGEST_MESSAGE)

    @property
    def max_send_bytes(self) -> int:
        """Largest gRPC message to send."""
        return min(self.grpc_max_send_msg_size or LARGEST_MESSAGE, LARGEST_MESSAGE)

    @property
    def openssl_ciphers(self) -> str:
        """The cipher suites by their OpenSSL names, in order, joined by colons; "" = the library's choice."""
        return ":".join(dict.fromkeys(of.CIPHERS[name] for name in self.tls_cipher_suites if name in of.CIPHERS))

    @property
    def needs_rsa(self) -> bool:
        """Every cipher suite allowed wants a certificate with an RSA key."""
        names = self.openssl_ciphers.split(":") if self.openssl_ciphers else []
        return bool(names) and not any("ECDSA" in name for name in names)

    @property
    def grpc_environment(self) -> dict[str, str]:
        """Variables that gRPC's core reads once, when `grpc` is first imported: set them before."""
        return {"GRPC_SSL_CIPHER_SUITES": self.openssl_ciphers} if self.openssl_ciphers else {}

    def unsupported_by(self, transport: str) -> list[str]:
        """Remarks on given flags that `transport` can't honour."""
        honoured = {"", "VersionTLS12"} if transport == "grpcio" else {"", "VersionTLS12", "VersionTLS13"}
        if self.tls_min_version in honoured:
            return []
        offers = "it always offers TLS 1.2 and 1.3, nothing older and not 1.3 alone"
        if transport != "grpcio":
            offers = "HTTP/2 allows nothing older than TLS 1.2"
        return [f"--tls-min-version={self.tls_min_version} has no effect on the transport {transport}: {offers}"]

    def validate(self, *, file_mode: bool) -> None:
        """Is it told which endpoints to serve? `file_mode`: a file tells. Raises OptionsError."""
        endpoints_told(self, file_mode=file_mode)


@dataclass(frozen=True, slots=True)
class Flag:
    """A row of the flag table, as read from the fields of Options."""

    name: str
    kind: of.Kind
    default: Any  # of the field's own type
    section: str


def flags() -> tuple[Flag, ...]:
    """Every flag, in the order of `--help`."""
    hints = get_type_hints(Options, include_extras=True)
    rows, section = [], ""
    for setting in fields(Options):
        marks = getattr(hints[setting.name], "__metadata__", ())
        section = next((mark.title for mark in marks if isinstance(mark, of.Section)), section)
        rows += [
            Flag(setting.name.replace("_", "-"), mark, setting.default, section)
            for mark in marks
            if isinstance(mark, of.Kind)
        ]
    return tuple(rows)


def parse(
    argv: Sequence[str], environ: Mapping[str, str], *, memory_limit: Callable[[], int | None] = cgroup_limit
) -> Options:
    """The options a command line (without the program's name) stands for. Raises OptionsError."""
    kinds = {flag.name: flag.kind for flag in flags()} | {name: retired.kind for name, retired in RETIRED.items()}
    texts, warnings = _collect(argv, kinds)
    values = {name: _value(name, kinds[name], given) for name, given in texts.items()}
    replaced = replacements({name: values.pop(name) for name in RETIRED if name in values})
    options = Options(
        **{"max_held_bytes": _held(memory_limit())} | {name.replace("-", "_"): value for name, value in values.items()},
        pod_name=environ.get("POD_NAME", ""),
        metrics_source_overrides=replaced.source,
        engine_overrides=replaced.engine,
        given=frozenset(values),
        warnings=(*warnings, *replaced.warnings),
    )
    check(options)
    return _completed(options, environ)


def _collect(argv: Sequence[str], kinds: Mapping[str, of.Kind]) -> tuple[dict[str, list[str]], list[str]]:
    """Flag → its texts in order; and warnings about words that are no flags."""
    texts: dict[str, list[str]] = {}
    warnings = []
    bare = ""
    for word in read(argv, {name: not kind.word for name, kind in kinds.items()}):
        if word.flag:
            texts.setdefault(word.flag, []).append("true" if word.text is None else word.text)
        else:
            hint = f"; write --{bare}={word.text} if it belongs to --{bare}" if bare else ""
            warnings.append(f"ignored {word.text!r}, which is no flag{hint}")
        bare = word.flag if word.text is None else ""
    return texts, warnings


def _value(name: str, kind: of.Kind, texts: list[str]) -> Any:
    text = ",".join(texts) if kind.joins else texts[-1]
    try:
        return kind.parse(text)
    except ValueError as error:
        wrong = error.args[0] if kind.joins else text
        raise OptionsError(f"--{name}: {wrong!r} is not {kind.rule}; example: --{name}={kind.example}") from None


def _held(limit: int | None) -> int:
    return GI if limit is None else min(GI, limit // 4)


def _completed(options: Options, environ: Mapping[str, str]) -> Options:
    """With what is derived from other places: the namespace, the shortest interval allowed."""
    namespace = options.pool_namespace or environ.get("NAMESPACE") or "default"
    options = replace(options, pool_namespace=namespace)
    if options.refresh_metrics_interval >= SHORTEST_REFRESH_S:
        return options
    warning = "--refresh-metrics-interval below 50ms: raised to 50ms"
    return replace(options, refresh_metrics_interval=SHORTEST_REFRESH_S, warnings=(*options.warnings, warning))
