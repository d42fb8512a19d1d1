"""deploy/kserve: the picker started as KServe starts it, its labs merged as KServe merges them, and the checklist."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from epp.cli import main
from epp.config import Built, Overrides, load
from epp.options import Options, parse
from epp.plugins import Catalogue

from . import schemas
from .documents import Document, Json, at
from .kserve import Starts, merged
from .sources import ROOT, kustomized

KSERVE = ROOT / "deploy" / "kserve"
LABS = ("01-simple", "01-simple/cpu", "02-pd", "03-production", "04-multinode")
STARTS = {
    "tls off": Starts(),
    "tls on": Starts(tls=True),
    "tls on, no annotation": Starts(tls=True, annotated=False),
    "tls off, no annotation": Starts(annotated=False),
    "leader election": Starts(replicas=2),
    "tracing": Starts(tracing=True),
    "everything": Starts(tls=True, replicas=3, tracing=True),
}


@pytest.fixture(params=STARTS)
def starts(request: pytest.FixtureRequest) -> Starts:
    return STARTS[request.param]


def read(starts: Starts) -> Options:
    return parse(starts.argv, {}, memory_limit=lambda: None)


def built(options: Options) -> Built:
    overrides = Overrides(options.metrics_source_overrides, options.engine_overrides)
    return load(options.config_text, catalogue=Catalogue.installed(), overrides=overrides)


# -- the command line


def test_it_serves_the_pool_it_is_told_of(starts: Starts) -> None:
    options = read(starts)
    options.validate(file_mode=False)
    assert (options.pool_name, options.pool_namespace) == ("qwen-inference-pool", "llm")
    assert (options.grpc_port, options.grpc_health_port, options.metrics_port) == (9002, 9003, 9090)


def test_it_serves_tls_with_and_without_a_certificate_of_kserves(starts: Starts) -> None:
    options = read(starts)
    assert options.secure_serving
    assert options.cert_path == ("/var/run/kserve/tls" if starts.tls else "")
    assert options.enable_cert_reload == starts.tls


def test_it_votes_as_kserve_says(starts: Starts) -> None:
    (profile,) = built(read(starts)).resolved.value["schedulingProfiles"]
    votes = {vote["pluginRef"]: vote["weight"] for vote in profile["plugins"] if "weight" in vote}
    assert votes == {
        "queue-scorer": 2,
        "kv-cache-utilization-scorer": 2,
        "prefix-cache-scorer": 3,
        "no-hit-lru-scorer": 2,
    }


def test_it_reads_engines_over_tls_whichever_way_it_is_told(starts: Starts) -> None:
    metrics = built(read(starts)).metrics
    assert metrics is not None
    assert metrics.source.scheme == ("https" if starts.tls else "http")


def test_it_leads_only_among_several(starts: Starts) -> None:
    assert read(starts).ha_enable_leader_election == (starts.replicas > 1)


def test_it_says_nothing_but_that_a_flag_has_moved(starts: Starts) -> None:
    options = read(starts)
    moved = "--model-server-metrics-scheme is retired: taken as parameter scheme of metrics-data-source; write it there"
    assert options.warnings == ((moved,) if starts.tls and not starts.annotated else ())
    assert built(options).warnings == ()


def test_empty_words_are_really_there_with_tls_off() -> None:
    assert (Starts().argv.count(""), Starts(annotated=False).argv.count("")) == (3, 4)


def test_the_ready_configuration_for_kserve_is_the_one_kserve_writes() -> None:
    ours = load((ROOT / "config" / "kserve.yaml").read_text(), catalogue=Catalogue.installed())
    theirs = built(read(Starts(tls=True)))
    assert ours.resolved.value["schedulingProfiles"] == theirs.resolved.value["schedulingProfiles"]


# -- the labs


def of_kind(objects: list[Document], kind: str) -> list[Document]:
    return [document for document in objects if document.kind == kind]


def service(lab: str) -> Json:
    """The only LLMInferenceService of a lab, with its baseRefs merged in."""
    objects = kustomized(KSERVE / lab)
    configs = {config.name: config.value["spec"] for config in of_kind(objects, "LLMInferenceServiceConfig")}
    (found,) = of_kind(objects, "LLMInferenceService")
    spec = found.value["spec"]
    return merged([*(configs[base["name"]] for base in spec.get("baseRefs", [])), spec])


@pytest.mark.parametrize("lab", LABS)
def test_a_lab_swaps_the_image_and_keeps_the_version_that_drives_migrations(lab: str) -> None:
    scheduler = service(lab)["router"]["scheduler"]
    (container,) = scheduler["template"]["containers"]
    assert (container["name"], container["image"]) == ("main", "registry.example/endpoint-picker:0.1.0")
    assert scheduler["annotations"] == {"app.kubernetes.io/version": "0.10.0"}
    assert "command" not in container, "the preset's command would be replaced as a whole"


@pytest.mark.parametrize("lab", LABS)
def test_a_lab_uses_every_config_it_brings(lab: str) -> None:
    objects = kustomized(KSERVE / lab)
    (found,) = of_kind(objects, "LLMInferenceService")
    brought = {config.name for config in of_kind(objects, "LLMInferenceServiceConfig")}
    assert set(at(found.value, "spec.baseRefs[].name")) == brought


@pytest.mark.parametrize("lab", LABS)
def test_what_a_lab_merges_to_has_the_shape_of_a_service(lab: str) -> None:
    whole = {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": "merged"},
        "spec": service(lab),
    }
    assert schemas.problems(Document(lab, whole)) == []


def test_a_misspelt_field_of_a_service_is_found() -> None:
    wrong = {"router": {"scheduler": {"template": {"containers": [{"name": "main", "imgae": "x"}]}}}}
    whole = {"apiVersion": "serving.kserve.io/v1alpha2", "kind": "LLMInferenceService", "metadata": {}, "spec": wrong}
    assert any("imgae" in problem for problem in schemas.problems(Document("wrong", whole)))


def test_in_production_our_certificate_wins_over_kserves() -> None:
    (container,) = service("03-production")["router"]["scheduler"]["template"]["containers"]
    options = read(Starts(tls=True, replicas=2, args=tuple(container["args"])))
    assert (options.cert_path, options.metrics_cert_dir) == ("/var/run/picker-tls", "/var/run/picker-tls")
    mounts = at(container, "volumeMounts[].mountPath")
    assert mounts == ["/var/run/picker-tls"]


def test_in_production_the_pickers_disturb_no_budget() -> None:
    """With leader election one of two is ready; a budget over them would block draining the leader's node for ever."""
    assert service("03-production")["router"]["scheduler"]["replicas"] > 1
    budgets = of_kind(kustomized(KSERVE / "03-production"), "PodDisruptionBudget")
    assert [at(budget.value, "spec.selector.matchLabels")[0]["kserve.io/component"] for budget in budgets] == [
        "workload"
    ]


def test_prefill_and_decode_are_refused_with_what_to_do_instead(capsys: pytest.CaptureFixture[str]) -> None:
    """Fails once the picker disaggregates: then the exception in expected.yaml and the warning in README.md go."""
    file = KSERVE / "02-pd" / "picker.yaml"
    assert main(["check", str(file)]) == 2
    said = capsys.readouterr().err
    assert "'disagg-headers-handler' is known upstream but not offered here (prefill/decode disaggregation)" in said
    assert " ".join(said.removeprefix(f"epp: {file}: ").split()) in _prose(KSERVE / "02-pd" / "README.md")


def _prose(path: Path) -> str:
    return " ".join(path.read_text().replace("\n> ", "\n").split())


def test_of_a_group_made_by_hand_only_the_leader_is_an_endpoint() -> None:
    (pool,) = of_kind(kustomized(KSERVE / "04-multinode" / "lws"), "InferencePool")
    assert pool.value["spec"]["selector"]["matchLabels"]["leaderworkerset.sigs.k8s.io/worker-index"] == "0"


@pytest.mark.parametrize("folder", ["01-simple", "02-pd", "03-production", "04-multinode"])
def test_a_readme_names_every_file_of_its_lab(folder: str) -> None:
    text = (KSERVE / folder / "README.md").read_text()
    inside = [path.relative_to(KSERVE / folder) for path in (KSERVE / folder).rglob("*") if path.is_file()]
    names = {str(path) for path in inside if path.name not in {"README.md", "kustomization.yaml"}}
    assert [name for name in sorted(names) if name not in text and str(Path(name).parent) not in text] == []
    for heading in ("## What is in it", "## Steps", "## Check", "## Clean up"):
        assert heading in text


# -- the checklist

CHECKLIST = KSERVE / "03-production" / "checklist.sh"
SERVICE, SCHEDULER = "get llminferenceservice qwen", "get deployment qwen-kserve-router-scheduler"
MAY, ACCOUNT = "auth can-i", "--as=system:serviceaccount:llm:qwen-epp-sa"
ENDPOINTS = (
    "get pods -l app.kubernetes.io/name=qwen,kserve.io/component=workload"
    ' -o jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'
)
GOOD = {
    f'{SERVICE} -o jsonpath={{.status.conditions[?(@.type=="Ready")].status}}': "True",
    f"{SERVICE} -o jsonpath={{.status.url}}": "http://gateway/llm/qwen",
    f'{SCHEDULER} -o jsonpath={{.spec.template.spec.containers[?(@.name=="main")].image}}': "endpoint-picker:0.1.0",
    f"{SCHEDULER} -o jsonpath={{.spec.replicas}}": "2",
    f"{SCHEDULER} -o jsonpath={{.status.availableReplicas}}": "1",
    "get inferencepool qwen-inference-pool -o jsonpath={.spec.endpointPickerRef.failureMode}": "FailOpen",
    "get lease epp-llm-qwen-inference-pool.llm-d.ai -o jsonpath={.spec.holderIdentity}": "scheduler-a",
    ENDPOINTS: "True False True",
    "get secret picker-tls -o name": "secret/picker-tls",
    "get networkpolicy qwen-picker -o name": "networkpolicy/qwen-picker",
    "get poddisruptionbudget qwen-endpoints -o name": "poddisruptionbudget/qwen-endpoints",
    "get servicemonitor qwen-picker -o name": "servicemonitor/qwen-picker",
    f"{MAY} list pods {ACCOUNT}": "yes",
    f"{MAY} update leases.coordination.k8s.io {ACCOUNT}": "yes",
    f"{MAY} create tokenreviews.authentication.k8s.io {ACCOUNT}": "yes",
    f"{MAY} get secrets {ACCOUNT}": "no",
}
"""What kubectl is asked, after its namespace, and answers where all is well."""
KUBECTL = """#!/bin/sh
[ "$1 $2" = "--namespace llm" ] || exit 9
shift 2
while IFS='	' read -r asked answer; do
  if [ "$asked" = "$*" ]; then printf '%s' "$answer"; exit 0; fi
done < "$ANSWERS"
echo "Error from server (NotFound): $*" >&2
exit 1
"""


def checked(folder: Path, answers: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The script with a kubectl that knows these answers and finds nothing else."""
    kubectl, file = folder / "kubectl", folder / "answers"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    file.write_text("".join(f"{asked}\t{answer}\n" for asked, answer in answers.items()))
    environ = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "ANSWERS": str(file)}
    command = ["/bin/sh", str(CHECKLIST), "llm", "qwen"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


def test_the_checklist_passes_where_all_is_well(tmp_path: Path) -> None:
    done = checked(tmp_path, GOOD)
    assert done.returncode == 0, done.stdout
    assert len(re.findall(r"^ok   ", done.stdout, re.MULTILINE)) == done.stdout.count("\n") - 1


@pytest.mark.parametrize("missing", GOOD)
def test_the_checklist_fails_for_each_thing_that_is_not_there(missing: str, tmp_path: Path) -> None:
    done = checked(tmp_path, {asked: answer for asked, answer in GOOD.items() if asked != missing})
    assert done.returncode == 1
    assert re.search(r"^FAIL .+: .+", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (f"{MAY} get secrets {ACCOUNT}", "yes"),
        (f"{SCHEDULER} -o jsonpath={{.status.availableReplicas}}", "0"),
        (ENDPOINTS, "True False"),
    ],
    ids=["it may read secrets", "no picker is ready", "one endpoint is ready"],
)
def test_the_checklist_fails_for_a_wrong_answer(asked: str, answer: str, tmp_path: Path) -> None:
    assert asked in GOOD
    assert checked(tmp_path, GOOD | {asked: answer}).returncode == 1


@pytest.mark.needs_debian("shellcheck")
def test_the_checklist_is_plain_shell() -> None:
    done = subprocess.run(["shellcheck", str(CHECKLIST)], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
