"""What each version of Tempo is run with. That it runs is shown in test_managed."""

from __future__ import annotations

import re

import pytest

from gateway.settings import Settings, parse_duration
from gateway.tempo.clock import CUT_S, HOLD_S
from gateway.tempo.config import (
    CONFIG,
    DEFAULT_LIVE_S,
    LEAST_GO_BYTES,
    MIB,
    VARIABLES,
    ConfigError,
    check_own,
    command,
    environment,
    port_variables,
    profile_for,
    wal_of,
)
from gateway.tempo.ports import Ports
from gateway.tempo.storage import storage_variables
from gateway.tempo.version import Version

GIB = 2**30
PORTS = Ports(otlp=1, http=2, internal=3)
FILES = sorted(CONFIG.glob("tempo-*.yaml"))


def profile(text: str, container_bytes: int = GIB):
    return profile_for(Version(*map(int, text.split("."))), container_bytes=container_bytes)


def variables(container_bytes: int = GIB, inherited=(), **more):
    more = {"data_dir": CONFIG, "retention_s": 90.0, "has_tenants": False} | more
    own = environment(
        dict(inherited),
        profile("2.10.8", container_bytes),
        container_bytes=container_bytes,
        **more,
    )
    return own | port_variables(PORTS)


@pytest.mark.parametrize(
    ("version", "file", "tested"),
    [
        ("2.3.1", "tempo-2.4.yaml", False),
        ("2.4.0", "tempo-2.4.yaml", True),
        ("2.4.2", "tempo-2.4.yaml", True),
        ("2.7.2", "tempo-2.4.yaml", False),
        ("2.10.8", "tempo-2.10.yaml", True),
        ("2.11.0", "tempo-2.10.yaml", False),
        ("3.0.3", "tempo-3.yaml", True),
        ("3.1.0", "tempo-3.yaml", False),
        ("4.0.0", "tempo-3.yaml", False),
    ],
)
def test_the_nearest_known_file_is_taken(version, file, tested):
    found = profile(version)
    assert (found.template.name, found.tested) == (file, tested)
    assert found.template.is_file()


def test_the_hold_time_knows_what_the_file_cannot_set():
    assert [profile(v).hold_s for v in ("2.4.0", "2.10.8", "3.0.3")] == [HOLD_S] * 3
    assert profile("2.7.0").hold_s == HOLD_S + DEFAULT_LIVE_S


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_files_cut_traces_when_the_clock_thinks_they_do(path):
    text = path.read_text()
    cuts = re.findall(
        r"^  (?:trace|max_trace)_(?:idle|live)(?:_period)?: (\w+)", text, re.MULTILINE
    )
    sweep = re.search(r"^  flush_check_period: (\w+)", text, re.MULTILINE)
    assert sweep is not None
    assert [parse_duration(text) for text in cuts] == [CUT_S] * (1 if "2.4" in path.name else 2)
    assert parse_duration(sweep[1]) == 1.0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_all_that_a_file_names_is_set_or_has_a_default(path):
    named = {
        name
        for name, default in re.findall(r"\$\{(\w+)(:-[^}]*)?\}", path.read_text())
        if not default and name != "NAME"
    }
    assert named <= variables().keys() | storage_variables(Settings.load({})).keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_everything_listens_on_loopback_only(path):
    text = path.read_text()
    assert text.count("_listen_address: 127.0.0.1") == 2
    assert re.findall(r"endpoint: ([\d.]+):", text) == ["127.0.0.1"]
    assert "0.0.0.0" not in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_path_is_below_the_data_directory(path):
    paths = re.findall(r"(?:path|dir): (.+)", path.read_text())
    assert paths
    assert all(path.startswith(('"${DATA_DIR}/', '"${METRICS_DIR:-}"')) for path in paths)
    assert variables()["METRICS_DIR"].startswith(f"{CONFIG}/")
    assert f'path: "${{DATA_DIR}}/{wal_of(CONFIG).folder.name}"' in path.read_text()


def test_ports_paths_and_times_are_handed_over():
    found = variables(retention_s=48 * 3600)
    assert (found["OTLP_PORT"], found["HTTP_PORT"], found["GRPC_PORT"]) == ("1", "2", "3")
    assert found["DATA_DIR"] == str(CONFIG)
    assert found["RETENTION"] == "172800s"


def test_what_was_inherited_stays_but_for_what_the_file_names():
    found = variables(inherited={"TZ": "UTC", "GOMEMLIMIT": "1GiB", "HTTP_PORT": "80"})
    assert (found["TZ"], found["GOMEMLIMIT"], found["HTTP_PORT"]) == ("UTC", "1GiB", "2")


@pytest.mark.parametrize(
    ("container", "message_mib", "go_bytes"),
    [(128 * MIB, 4, LEAST_GO_BYTES), (512 * MIB, 10, int(512 * MIB * 0.4)), (64 * GIB, 16, None)],
)
def test_sizes_follow_the_memory(container, message_mib, go_bytes):
    found = variables(container)
    assert found["MAX_MESSAGE_MIB"] == str(message_mib)
    assert int(found["MAX_TRACE_BYTES"]) > message_mib * MIB
    assert go_bytes is None or found["GOMEMLIMIT"] == f"{go_bytes}B"
    assert int(found["MAX_LIVE_BYTES"]) <= 250_000_000


def test_a_small_container_has_small_blocks_and_no_metrics_generator():
    small, roomy = variables(512 * MIB), variables(GIB)
    for name in ("BLOCK_DURATION", "LIVE_BLOCK_DURATION"):
        assert parse_duration(small[name]) < parse_duration(roomy[name])
    assert int(small["ROW_GROUP_BYTES"]) < int(roomy["ROW_GROUP_BYTES"])
    assert (small["METRICS_PROCESSORS"], roomy["METRICS_PROCESSORS"]) == ("", "local-blocks")
    assert variables(512 * MIB, metrics="on")["METRICS_PROCESSORS"] == "local-blocks"
    assert variables(GIB, metrics="off")["METRICS_PROCESSORS"] == ""


@pytest.mark.parametrize("name", ['a"b', "a\\b", "${HOME}", "a\nb"])
def test_a_path_that_the_file_cannot_hold_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="GATEWAY_DATA_DIR"):
        variables(data_dir=tmp_path / name)


def test_flags_are_in_the_form_that_every_version_takes(tmp_path):
    assert command(tmp_path / "tempo", CONFIG / "x.yaml") == [
        str(tmp_path / "tempo"),
        f"-config.file={CONFIG / 'x.yaml'}",
        "-config.expand-env=true",
    ]


def test_tempo_is_told_whether_there_are_tenants():
    assert variables()["MULTITENANCY"] == "false"
    assert variables(has_tenants=True)["MULTITENANCY"] == "true"


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("2.10.8", 'level=info ts=1 caller=x msg="module stopped" module=ingester'),
        ("3.0.3", 'level=info ts=1 caller=x msg="module stopped" module=live-store'),
    ],
)
def test_the_end_of_the_flush_is_recognised(version, line):
    found = profile(version)
    assert found.flushed.search(line)
    assert not found.flushed.search(line + "-ring")
    assert found.broken.search('level=error org_id=a msg="failed to cut traces" err=x')
    assert found.broken.search('level=error msg="failed to cut idle traces" tenant=a err=x')


class TestOwnFile:
    def test_one_that_leaves_the_ports_to_the_gateway_is_fine(self):
        for path in FILES:
            check_own(path, has_tenants=False)

    @pytest.mark.parametrize("name", VARIABLES)
    def test_one_that_does_not_is_refused_with_what_to_write(self, tmp_path, name):
        own = tmp_path / "tempo.yaml"
        own.write_text(FILES[0].read_text().replace("${" + name, "3200 #"))
        with pytest.raises(ConfigError, match=re.escape("${" + name + "}")):
            check_own(own, has_tenants=False)

    @pytest.mark.parametrize("line", ["", "multitenancy_enabled: false", "# auth_enabled: true"])
    def test_one_that_does_not_keep_tenants_apart_is_refused_where_there_are_some(
        self, tmp_path, line
    ):
        own = tmp_path / "tempo.yaml"
        text = re.sub("^multitenancy_enabled.*$", line, FILES[0].read_text(), flags=re.MULTILINE)
        own.write_text(text)
        check_own(own, has_tenants=False)
        with pytest.raises(ConfigError, match="multitenancy_enabled: true"):
            check_own(own, has_tenants=True)
        own.write_text(text + "\nmultitenancy_enabled: true\n")
        check_own(own, has_tenants=True)
        for path in FILES:
            check_own(path, has_tenants=True)

    def test_one_that_is_not_there_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            check_own(tmp_path / "absent.yaml", has_tenants=False)


def test_the_window_follows_the_memory_too():
    windows = [profile("2.10.8", size).window_bytes for size in (64 * MIB, 512 * MIB, 64 * GIB)]
    assert windows == [8 * MIB, 16 * MIB, 256 * MIB]
