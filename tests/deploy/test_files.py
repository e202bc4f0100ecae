"""The files that a deploy is made of say what the code and the platforms understand."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from gateway.settings import Settings, parse_duration
from gateway.telemetry.metrics import Metrics
from tests.kit.gateway import ROOT, eventually, running_gateway
from tests.kit.modes import backend_env

CONFIG = ROOT / "config"
GRAFANA = CONFIG / "grafana"
UNIT = CONFIG / "systemd" / "otlp-gateway.service"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian's package prometheus has it)"
)

KILL_AFTER_S = 30
"""From SIGTERM to SIGKILL on Scalingo and Heroku, and in what we hand out for others."""

ON_EVENTS_ONLY = {
    "tempo_discarded_spans_total",
    "tempodb_blocklist_length",
    "tempodb_compaction_blocks_total",
    "tempo_ingester_live_traces",
    "tempo_ingester_traces_created_total",
    "tempo_live_store_live_traces",
    "tempo_live_store_traces_created_total",
}
"""Metrics of Tempo that a fresh one does not show yet, or that one of 2.x and 3.x alone has."""


# -- platforms with buildpacks -------------------------------------------------------------------


def test_runtime_txt_names_python_without_a_patch_level():
    """So each build has the newest. A .python-version would bind everybody's pyenv as well."""
    assert re.fullmatch(r"python-3\.\d+\n", (ROOT / "runtime.txt").read_text())


def test_each_process_of_the_procfile_is_a_command():
    for line in (ROOT / "Procfile").read_text().splitlines():
        process, _, command = line.partition(": ")
        assert process in ("web", "tcp"), "the platform routes to these alone"
        python, m, package, *rest = shlex.split(command)
        assert (python, m, package) == ("python", "-m", "gateway")
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *rest, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


def test_scalingo_json_keeps_to_the_schema_of_the_platform():
    """As https://developers.scalingo.com/scalingo-json-schema has it."""
    manifest = json.loads((ROOT / "scalingo.json").read_text())
    assert set(manifest) <= {
        "name", "description", "logo", "repository", "website", "ref", "stack", "env", "addons",
        "scripts", "formation", "copy_parent_database_urls",
    }  # fmt: skip
    for variable in manifest["env"].values():
        assert set(variable) <= {"description", "value", "generator", "template", "required"}
        assert ("value" in variable) != ("generator" in variable)
        assert variable.get("value") != "", "an empty value takes a variable away"
        assert variable.get("generator", "secret") in ("secret", "url", "template")
        assert variable["description"]
    processes = {line.partition(":")[0] for line in (ROOT / "Procfile").read_text().splitlines()}
    assert set(manifest["formation"]) <= processes
    for shape in manifest["formation"].values():
        assert isinstance(shape["amount"], int)
        assert shape["size"] in ("S", "M", "L", "XL", "2XL")


def test_scalingo_json_sets_what_the_gateway_takes():
    env = json.loads((ROOT / "scalingo.json").read_text())["env"]
    assert set(env) <= {spec.name for spec, _, _ in Settings().describe()}
    values = {name: spec.get("value", "90ffea2d3071e8d86cafb89f") for name, spec in env.items()}
    assert Settings.load(values).tempo_version == Settings().tempo_version


# -- env.example and systemd ---------------------------------------------------------------------


def example_lines() -> list[str]:
    return re.findall(r"^#([A-Z0-9_]+=.*)$", (CONFIG / "env.example").read_text(), re.MULTILINE)


def test_env_example_has_each_setting_that_people_set():
    names = [line.partition("=")[0] for line in example_lines()]
    ours = {
        spec.name
        for spec, _, _ in Settings().describe()
        if not spec.meaning.startswith("set by the platform")
    }
    assert set(names) == ours
    assert len(names) == len(ours)


def test_env_example_changes_nothing_when_all_of_it_is_taken():
    """Each line is the default, in a form that is read."""
    environ = dict(line.split("=", 1) for line in example_lines())
    assert Settings.load(environ) == Settings()


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(UNIT.read_text())
    return parser["Service"]


def test_systemd_waits_longer_than_a_stop_takes():
    assert parse_duration(unit()["TimeoutStopSec"]) == KILL_AFTER_S
    assert Settings().drain_timeout_s < KILL_AFTER_S


def test_systemd_stops_the_gateway_and_not_tempo_under_its_hands():
    assert unit()["KillMode"] == "mixed"
    assert unit()["OOMPolicy"] == "continue"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path):
    """With an interpreter that is there in place of the installed one."""
    text = UNIT.read_text()
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True
    )
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert not ours
    assert done.returncode == 0, done.stderr


# -- Docker --------------------------------------------------------------------------------------


def test_the_image_has_all_that_the_gateway_reads(tmp_path):
    """What the Dockerfile copies, and nothing else of the checkout, runs."""
    for source in copied_to_the_image():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source)
        else:
            shutil.copy(ROOT / source, tmp_path)
    program = "import gateway.app; from gateway.tempo import config; print(config.CONFIG)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    templates = {path.name for path in CONFIG.glob("tempo-*.yaml")}
    assert templates <= {path.name for path in Path(done.stdout.strip()).iterdir()}
    assert Path(done.stdout.strip()).parent == tmp_path


def copied_to_the_image() -> list[str]:
    text = (CONFIG / "docker" / "Dockerfile").read_text()
    lines = re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
    return [source for line in lines for source in shlex.split(line)[:-1]]


def test_the_build_of_the_image_may_see_what_it_copies():
    ignore = (CONFIG / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignore if line.startswith("!")} == set(copied_to_the_image())


def test_compose_gives_the_gateway_time_to_stop():
    services = compose()["services"]
    assert parse_duration(services["gateway"]["stop_grace_period"]) == KILL_AFTER_S


def test_compose_mounts_what_there_is_and_sets_what_the_gateway_takes():
    services = compose()["services"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (CONFIG / "docker" / source).exists(), source
    Settings.load({k: str(v) for k, v in services["gateway"].get("environment", {}).items()})


def compose() -> dict:
    return yaml.safe_load((CONFIG / "docker" / "compose.yaml").read_text())


# -- Grafana and Prometheus ----------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GRAFANA.glob("datasources/*.yaml")), ids=lambda p: p.stem)
def test_a_datasource_is_in_the_form_of_grafana(path):
    document = yaml.safe_load(path.read_text())
    assert document["apiVersion"] == 1
    (source,) = document["datasources"]
    assert source["access"] == "proxy"
    assert source["type"] in ("tempo", "prometheus")
    assert source.get("basicAuth", False) == (
        "basicAuthPassword" in source.get("secureJsonData", {})
    )


def test_streaming_is_on_wherever_grpc_can_pass():
    streaming = {}
    for path in GRAFANA.glob("datasources/tempo*.yaml"):
        (source,) = yaml.safe_load(path.read_text())["datasources"]
        streaming[path.stem] = source["jsonData"]["streamingEnabled"]["search"]
    assert streaming == {"tempo": True, "tempo-tokens": True, "tempo-router": False}


def dashboard() -> dict:
    return json.loads((GRAFANA / "dashboards" / "otlp-gateway.json").read_text())


def expressions() -> list[str]:
    return [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]


def names(prefix: str) -> set[str]:
    return {
        name for expression in expressions() for name in re.findall(rf"\b{prefix}\w+", expression)
    }


def test_the_dashboard_has_no_panel_twice_or_over_another():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
    assert len(set(places)) == len(places)
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in panels)


def test_the_dashboard_asks_for_metrics_that_the_gateway_has():
    ours = set()
    for family in Metrics().families():
        base = f"gateway_{family.row.name}"
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        ours |= {base + suffix for suffix in suffixes.get(family.row.kind, [""])}
    process = {name for name in names("gateway_") if name.startswith("gateway_process_")}
    assert names("gateway_") - process <= ours


@pytest.mark.tempo
def test_the_dashboard_asks_for_metrics_that_a_real_tempo_has(tmp_path):
    with running_gateway(tmp_path, backend_env("managed")) as gateway:
        gateway.wait_until_ready()
        send_one_span(gateway.url)
        eventually(lambda: "shop" in gateway.get("/api/search?tags=service.name=shop")[1])
        exposition = gateway.get("/metrics")[1]
        assert gateway.stop() == 0
    shown = set(re.findall(r"^# TYPE (\S+)", exposition, re.MULTILINE))
    shown |= set(re.findall(r"^(\w+)", exposition, re.MULTILINE))
    assert names("tempo") | names("process_") <= shown | ON_EVENTS_ONLY


def send_one_span(url: str) -> None:
    now = time.time_ns()
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "pay",
        "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 1),
    }  # fmt: skip
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    request = urllib.request.Request(
        f"{url}/v1/traces", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200


@needs_promtool
@pytest.mark.parametrize("name", ["prometheus.yml", "docker/prometheus.yml"])
def test_promtool_takes_the_configuration_of_prometheus(name):
    done = subprocess.run(
        [PROMTOOL, "check", "config", CONFIG / name], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_takes_each_expression_of_the_dashboard(tmp_path):
    rules = [
        {"record": f"panel:{n}", "expr": expression.replace("$__rate_interval", "1m")}
        for n, expression in enumerate(expressions())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([PROMTOOL, "check", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
