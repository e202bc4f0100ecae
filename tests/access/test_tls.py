from __future__ import annotations

import base64
import datetime
import ssl

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from gateway.access.tls import TlsFault, load_tls, read_pem, rehearse
from gateway.settings import Settings, SettingsError

CA = trustme.CA()
CERT = CA.issue_cert("gateway.test")
OTHER = CA.issue_cert("other.test")
CHAIN = b"".join(blob.bytes() for blob in CERT.cert_chain_pems).decode()
KEY = CERT.private_key_pem.bytes().decode()
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def load(**environ: str):
    return load_tls(Settings.load({f"GATEWAY_TLS_{name}": text for name, text in environ.items()}))


def faults_of(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    return caught.value.faults


def test_without_a_certificate_there_is_no_tls():
    assert load() is None


def flat(pem: str) -> str:
    return pem.strip().replace("\n", "\\n")


@pytest.mark.parametrize("write", [str, flat, lambda pem: base64.b64encode(pem.encode()).decode()])
def test_takes_pem_however_it_comes_through_the_environment(write):
    tls = load(CERT=write(CHAIN), KEY=write(KEY), CLIENT_CA=write(CA.cert_pem.bytes().decode()))
    assert tls.server_context().verify_mode is ssl.CERT_REQUIRED
    assert load(CERT=write(CHAIN), KEY=write(KEY)).server_context().verify_mode is ssl.CERT_NONE


def test_takes_files(tmp_path):
    (tmp_path / "cert.pem").write_text(CHAIN)
    (tmp_path / "key.pem").write_text(KEY)
    tls = load(CERT=str(tmp_path / "cert.pem"), KEY=str(tmp_path / "key.pem"))
    assert tls.certificate.decode() == CHAIN


def test_the_key_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    load(CERT=CHAIN, KEY=KEY)
    assert not list(tmp_path.iterdir())


ENCRYPTED = (
    serialization.load_pem_private_key(KEY.encode(), None)
    .private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    .decode()
)
DER = base64.b64encode(ssl.PEM_cert_to_DER_cert(CERT.cert_chain_pems[0].bytes().decode())).decode()


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"CERT": CHAIN}, ["GATEWAY_TLS_CERT is set and GATEWAY_TLS_KEY is not"]),
        ({"KEY": KEY}, ["GATEWAY_TLS_KEY is set and GATEWAY_TLS_CERT is not"]),
        ({"CLIENT_CA": CHAIN}, ["GATEWAY_TLS_CLIENT_CA is set and GATEWAY_TLS_CERT is not"]),
        (
            {"CERT": "/no/such.pem", "KEY": "/nor/this.pem"},
            ["GATEWAY_TLS_CERT: is no file", "GATEWAY_TLS_KEY: is no file"],
        ),
        ({"CERT": "/", "KEY": KEY}, ["GATEWAY_TLS_CERT: cannot be read as a file: Is a directory"]),
        (
            {"CERT": DER, "KEY": KEY},
            ["GATEWAY_TLS_CERT: is no file"],
        ),
        (
            {"CERT": KEY, "KEY": CHAIN},
            ["CERT: has no block BEGIN CERT", "KEY: has no block BEGIN P"],
        ),
        ({"CERT": CHAIN, "KEY": ENCRYPTED}, ["GATEWAY_TLS_KEY: is encrypted"]),
        (
            {"CERT": CHAIN, "KEY": OTHER.private_key_pem.bytes().decode()},
            ["GATEWAY_TLS_KEY is not the key of the first certificate"],
        ),
        (
            {"CERT": CHAIN[:100] + CHAIN[200:], "KEY": KEY},
            ["GATEWAY_TLS_CERT and GATEWAY_TLS_KEY cannot be used"],
        ),
        (
            {"CERT": CHAIN, "KEY": KEY, "CLIENT_CA": CHAIN[:100] + CHAIN[200:]},
            ["GATEWAY_TLS_CLIENT_CA cannot be read"],
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_fault_says_what_to_change_and_shows_nothing_of_the_key(environ, said):
    faults = faults_of(**environ)
    assert len(faults) == len(said)
    for fault, words in zip(faults, said, strict=True):
        assert words in fault
        assert KEY[40:80] not in fault


def test_a_file_that_holds_no_pem_is_a_fault(tmp_path):
    path = tmp_path / "cert.der"
    path.write_bytes(base64.b64decode(DER))
    with pytest.raises(TlsFault, match="is no PEM"):
        read_pem(str(path), "CERTIFICATE")


@pytest.mark.parametrize("text", ["a\x00b", "ä" * 5000, "=", "-----BEGIN"])
def test_nonsense_is_a_fault(text):
    with pytest.raises(TlsFault):
        read_pem(text, "CERTIFICATE")


def test_settings_mask_the_key_and_do_not_print_a_certificate_at_length():
    shown = {
        spec.name: value
        for spec, value, _ in Settings.load(
            {"GATEWAY_TLS_CERT": CHAIN, "GATEWAY_TLS_KEY": KEY}
        ).describe()
    }
    assert (shown["GATEWAY_TLS_CERT"], shown["GATEWAY_TLS_KEY"]) == ("(PEM)", "***")


def rehearsal(not_before: datetime.datetime, not_after: datetime.datetime):
    cert = CA.issue_cert("gateway.test", not_before=not_before, not_after=not_after)
    chain = b"".join(blob.bytes() for blob in cert.cert_chain_pems).decode()
    return rehearse(load(CERT=chain, KEY=cert.private_key_pem.bytes().decode()))


def test_a_good_certificate_says_until_when():
    seen = rehearsal(NOW - DAY, NOW + 10 * DAY)
    assert seen.complaint is None
    assert abs(seen.expires - (NOW + 10 * DAY)) < datetime.timedelta(seconds=2)


@pytest.mark.parametrize(
    ("days", "complaint"),
    [((-2, -1), "certificate has expired"), ((1, 2), "certificate is not yet valid")],
)
def test_a_certificate_whose_time_it_is_not_is_told_of(days, complaint):
    assert rehearsal(*(NOW + day * DAY for day in days)).complaint == complaint
