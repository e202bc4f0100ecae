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


def test_a_disk_that_may_be_thrown_away_is_given_less():
    """And what is in the bucket is asked for at once, since after a start nobody else has it."""
    local, bucket = variables(), variables(**BUCKET)
    assert (local["STORAGE"], local["FLUSH_ON_STOP"]) == ("local", "false")
    assert (bucket["STORAGE"], bucket["FLUSH_ON_STOP"]) == ("s3", "true")
    for name in ("LIVE_BLOCK_DURATION", "LIVE_BACKEND_AFTER", "BACKEND_AFTER"):
        assert parse_duration(bucket[name]) < parse_duration(local[name])
    assert parse_duration(bucket["BACKEND_AFTER"]) == 0


@pytest.mark.parametrize("told", [{}, BUCKET])
def test_a_block_stays_on_the_disk_until_the_storage_is_asked_for_it(told):
    found = {name: value for name, value in variables(**told).items() if "BUCKET" not in name}
    seen_s = parse_duration(found["LIVE_BLOCK_DURATION"]) + 1 + 30  # sweep, blocklist_poll
    assert parse_duration(found["LIVE_BACKEND_AFTER"]) > seen_s
    for name in ("LIVE_BACKEND_AFTER", "BACKEND_AFTER"):
        assert parse_duration(found["KEEP_BLOCKS"]) > parse_duration(found[name])


@pytest.mark.parametrize("path", sorted(CONFIG.glob("tempo-*.yaml")), ids=lambda path: path.stem)
def test_values_of_any_characters_stand_whole_in_the_file(path):
    wild = "a\"b\\c'd: #{}€"
    found = variables(
        **BUCKET, TEMPO_S3_ACCESS_KEY=wild, TEMPO_S3_SECRET_KEY=wild, TEMPO_S3_PREFIX="/a/b/"
    )
    text = re.sub(
        r"\$\{(\w+)(?::-([^}]*))?\}", lambda m: found.get(m[1]) or m[2] or "", path.read_text()
    )
    storage = yaml.safe_load(text)["storage"]["trace"]
    assert storage["backend"] == "s3"
    assert (storage["s3"]["access_key"], storage["s3"]["secret_key"]) == (wild, wild)
    assert (storage["s3"]["bucket"], storage["s3"]["prefix"]) == ("traces", "a/b")


def test_keys_are_masked_where_settings_are_shown():
    settings = Settings.load(
        BUCKET | {"TEMPO_S3_ACCESS_KEY": "whisper", "TEMPO_S3_SECRET_KEY": "whisper"}
    )
    assert "whisper" not in str(list(settings.describe()))
