from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import (
    MIB,
    Settings,
    SettingsError,
    child_environment,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


def faults_of(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    return caught.value.faults


def test_defaults_are_those_of_the_published_interface():
    settings = Settings.load({})
    assert (settings.port, settings.grpc_port, settings.host) == (3200, 4317, "0.0.0.0")
    assert settings.max_request_bytes == 64 * MIB
    assert (settings.batch_spans, settings.batch_bytes) == (8192, 3 * MIB)
    assert settings.batch_timeout_s == 0.2
    assert settings.drain_timeout_s == 20
    assert settings.tempo_mode == "auto"


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 * MIB), ("3MB", 3_000_000), ("1048576", MIB), ("2 kib", 2048), ("0", 0)],
)
def test_sizes_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("200ms", 0.2), ("5s", 5), ("1h", 3600), ("1h30m", 5400), ("0", 0)]
)
def test_durations_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 parsecs", "-1s", "s", "1s2"])
def test_a_duration_without_a_known_unit_is_no_duration(text):
    with pytest.raises(ValueError):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=2**45))
def test_a_shown_size_reads_back_as_the_same(size):
    assert parse_size(format_size(size)) == size


@given(st.integers(min_value=0, max_value=10**6))
def test_a_shown_duration_reads_back_as_the_same(milliseconds):
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


def test_every_fault_is_reported_at_once_with_name_value_and_remedy():
    faults = faults_of(PORT="http", GATEWAY_BATCH_BYTES="3 lots", TEMPO_MODE="magic")
    assert len(faults) == 3
    assert "PORT='http': expected a whole number from 0 to 65535" in faults
    assert any(f.startswith("GATEWAY_BATCH_BYTES='3 lots': expected a size") for f in faults)
    assert any("one of auto, managed, external, embedded" in f for f in faults)


def test_an_unknown_name_is_a_fault_with_the_nearest_known_one():
    assert faults_of(GATEWAY_BATCH_SPAN="9") == [
        "GATEWAY_BATCH_SPAN='9': no such setting; did you mean GATEWAY_BATCH_SPANS?"
    ]


def test_names_of_others_are_none_of_our_business():
    assert Settings.load({"PATH": "/bin", "PORTAL": "x"}) == Settings.load({})


def test_an_empty_variable_counts_as_not_set():
    assert Settings.load({"PORT": "  ", "TEMPO_BIN": ""}) == Settings.load({})


def test_external_mode_without_an_endpoint_is_a_contradiction():
    assert "TEMPO_OTLP_ENDPOINT" in faults_of(TEMPO_MODE="external")[0]


def test_a_secret_is_neither_shown_nor_echoed_in_a_fault():
    described = Settings.load({"TEMPO_OTLP_HEADERS": "authorization=hunter2"}).describe()
    assert all("hunter2" not in value for _, value, _ in described)
    assert all("hunter2" not in fault for fault in faults_of(TEMPO_OTLP_HEADERS="hunter2"))


def test_tokens_are_read_and_neither_shown_nor_echoed():
    settings = Settings.load({"GATEWAY_QUERY_TOKENS": "secret-0123,shop=secret-4567"})
    assert [token.tenant for token in settings.query_tokens] == ["", "shop"]
    assert "secret-" not in repr(settings) + str(list(settings.describe()))
    faults = faults_of(
        GATEWAY_INGEST_TOKENS="secret-0123,secret-0123", GATEWAY_QUERY_TOKENS="secret-0123,short"
    )
    assert [fault.partition(":")[0] for fault in faults] == [
        "GATEWAY_INGEST_TOKENS",
        "GATEWAY_QUERY_TOKENS",
    ]
    assert all("secret-" not in fault for fault in faults)


def test_one_token_with_a_tenant_makes_tenants():
    assert not Settings.load({}).has_tenants
    assert not Settings.load({"GATEWAY_INGEST_TOKENS": "secret-0123"}).has_tenants
    assert Settings.load({"GATEWAY_INGEST_TOKENS": "shop=secret-0123"}).has_tenants
    assert Settings.load({"GATEWAY_QUERY_TOKENS": "x-01234567,shop=secret-0123"}).has_tenants


def test_a_misspelt_secret_is_not_echoed():
    assert faults_of(GATEWAY_INGEST_TOKEN="hunter22") == [
        "GATEWAY_INGEST_TOKEN=(secret): no such setting; did you mean GATEWAY_INGEST_TOKENS?"
    ]


def test_every_setting_is_described_with_what_it_takes():
    for spec, value, default in Settings.load({}).describe():
        assert spec.meaning, spec.name
        assert spec.kind.accepts, spec.name
        assert value == default


def test_a_child_gets_the_way_out_and_no_secrets():
    handed_on = {"PATH": "/bin", "TZ": "UTC", "https_proxy": "http://p:1", "AWS_REGION": "x"}
    kept = {"GATEWAY_INGEST_TOKENS": "t", "TEMPO_OTLP_HEADERS": "k=v", "DATABASE_URL": "u"}
    assert child_environment(handed_on | kept | {"XPATH": "", "PATHX": ""}) == handed_on


@pytest.mark.parametrize(
    ("environ", "workers"),
    [
        ({}, 1),
        ({"WEB_CONCURRENCY": "3"}, 3),
        ({"WEB_CONCURRENCY": "3", "WEB_CONCURRENCY_SET_BY": "heroku/python"}, 1),
    ],
    ids=["not set", "wished", "guessed by a buildpack"],
)
def test_workers_are_as_many_as_somebody_wishes(environ, workers):
    assert Settings.load(environ).workers == workers


def test_no_worker_at_all_is_a_fault():
    assert "WEB_CONCURRENCY='0': expected a whole number from 1 to 64" in faults_of(
        WEB_CONCURRENCY="0"
    )


BUCKET = {"TEMPO_STORAGE": "s3", "TEMPO_S3_BUCKET": "b"}


class TestStorage:
    def test_a_bucket_alone_is_enough(self):
        settings = Settings.load(BUCKET)
        assert (settings.tempo_storage, settings.tempo_s3_bucket) == ("s3", "b")

    @pytest.mark.parametrize(
        ("environ", "fault"),
        [
            ({"TEMPO_STORAGE": "s3"}, "needs TEMPO_S3_BUCKET"),
            ({"TEMPO_S3_BUCKET": "b"}, "is not used with TEMPO_STORAGE='local'"),
            (BUCKET | {"TEMPO_S3_ACCESS_KEY": "a"}, "set both or neither"),
            (BUCKET | {"TEMPO_S3_SECRET_KEY": "s"}, "set both or neither"),
            (BUCKET | {"TEMPO_MODE": "embedded"}, "this one is embedded"),
            (BUCKET | {"TEMPO_OTLP_ENDPOINT": "http://t:4317"}, "this one is external"),
            (
                BUCKET | {"TEMPO_S3_ENDPOINT": "https://m", "TEMPO_S3_INSECURE": "on"},
                "contradicts TEMPO_S3_ENDPOINT",
            ),
            (BUCKET | {"TEMPO_S3_ENDPOINT": "http://m/path"}, "without a path"),
            (BUCKET | {"TEMPO_STORAGE": "gcs"}, "one of local, s3"),
        ],
    )
    def test_what_would_keep_traces_elsewhere_than_thought_is_a_fault(self, environ, fault):
        (found,) = faults_of(**environ)
        assert fault in found
        assert "'a'" not in found
        assert "'s'" not in found
