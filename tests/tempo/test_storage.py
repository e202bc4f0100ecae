"""What Tempo is told of its storage. That it uses it so is in tests/e2e/test_bucket.py."""

from __future__ import annotations

import re

import pytest
import yaml

from gateway.settings import Settings, parse_duration
from gateway.tempo.config import CONFIG
from gateway.tempo.storage import storage_variables

BUCKET = {"TEMPO_STORAGE": "s3", "TEMPO_S3_BUCKET": "traces"}


def variables(**environ: str) -> dict[str, str]:
    return storage_variables(Settings.load(environ))


@pytest.mark.parametrize(
    ("told", "endpoint", "insecure"),
    [
        ({}, "s3.amazonaws.com", "false"),
        ({"TEMPO_S3_REGION": "eu-west-3"}, "s3.eu-west-3.amazonaws.com", "false"),
        ({"TEMPO_S3_ENDPOINT": "minio:9000"}, "minio:9000", "false"),
        ({"TEMPO_S3_ENDPOINT": "minio:9000", "TEMPO_S3_INSECURE": "on"}, "minio:9000", "true"),
        ({"TEMPO_S3_ENDPOINT": "http://minio:9000/"}, "minio:9000", "true"),
        ({"TEMPO_S3_ENDPOINT": "https://s3.example.com"}, "s3.example.com", "false"),
    ],
)
def test_the_endpoint_is_taken_with_and_without_a_scheme(told, endpoint, insecure):
    found = variables(**BUCKET, **told)
    assert (found["S3_ENDPOINT"], found["S3_INSECURE"]) == (endpoint, insecure)


def settings_of(version: str, **told: str) -> dict[str, str]:
    """What Tempo reads, with the variables of a large container put in."""
    path = CONFIG / f"tempo-{version}.yaml"
    found = variables(**told)
    return yaml.safe_load(
        re.sub(
            r"\$\{(\w+)(?::-([^}]*))?\}", lambda m: found.get(m[1]) or m[2] or "", path.read_text()
        )
    )


@pytest.mark.parametrize("version", ["2.4", "2.10"])
def test_2_finishes_its_blocks_at_the_end_where_the_disk_may_be_thrown_away(version):
    assert settings_of(version)["ingester"]["flush_all_on_shutdown"] is False
    assert settings_of(version, **BUCKET)["ingester"]["flush_all_on_shutdown"] is True


@pytest.mark.parametrize("told", [{}, BUCKET])
@pytest.mark.parametrize("version", ["2.4", "2.10"])
def test_2_keeps_a_block_until_it_asks_the_storage_for_it(version, told):
    found = settings_of(version, **told)
    asked_s = parse_duration(found["query_frontend"]["search"]["query_backend_after"])
    assert 0 < asked_s < parse_duration(found["ingester"]["complete_block_timeout"])


@pytest.mark.parametrize("told", [{}, BUCKET])
def test_3_keeps_a_block_until_it_asks_the_storage_for_it(told):
    found = settings_of("3", **told)
    store, frontend = found["live_store"], found["query_frontend"]
    seen_s = parse_duration(store["max_block_duration"]) + 1 + 30  # sweep, blocklist_poll
    for part in ("search", "metrics"):
        asked_s = parse_duration(frontend[part]["query_backend_after"])
        assert seen_s < asked_s < parse_duration(store["complete_block_timeout"])


@pytest.mark.parametrize("version", ["2.4", "2.10", "3"])
def test_values_of_any_characters_stand_whole_in_the_file(version):
    wild = "a\"b\\c'd: #{}€"
    keys = {"TEMPO_S3_ACCESS_KEY": wild, "TEMPO_S3_SECRET_KEY": wild}
    storage = settings_of(version, **BUCKET, **keys, TEMPO_S3_PREFIX="/a/b/")["storage"]["trace"]
    assert storage["backend"] == "s3"
    assert (storage["s3"]["access_key"], storage["s3"]["secret_key"]) == (wild, wild)
    assert (storage["s3"]["bucket"], storage["s3"]["prefix"]) == ("traces", "a/b")


def test_keys_are_masked_where_settings_are_shown():
    settings = Settings.load(
        BUCKET | {"TEMPO_S3_ACCESS_KEY": "whisper", "TEMPO_S3_SECRET_KEY": "whisper"}
    )
    assert "whisper" not in str(list(settings.describe()))
