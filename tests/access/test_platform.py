"""What the platform's variables say of where the app is."""

from __future__ import annotations

import pytest

from gateway.access.platform import private_web_host, public_url
from gateway.settings import Settings

PUBLIC = {"APP": "shop", "REGION_NAME": "osc-fr1"}
PRIVATE = {"SCALINGO_APPLICATION_ID": "ap-1", "SCALINGO_PRIVATE_NETWORK_ID": "pn-2"}


def test_the_public_url_is_that_of_the_app_in_its_region():
    assert public_url(Settings.load(PUBLIC)) == "https://shop.osc-fr1.scalingo.io"


def test_the_web_containers_have_a_name_in_the_private_network():
    found = private_web_host(Settings.load(PRIVATE))
    assert found == "web.ap-1.pn-2.private-network.internal"


@pytest.mark.parametrize("missing", [*PUBLIC, *PRIVATE])
def test_a_variable_that_is_missing_or_means_something_else_derives_nothing(missing):
    find = public_url if missing in PUBLIC else private_web_host
    environ = PUBLIC | PRIVATE
    assert find(Settings.load(environ)) is not None
    assert find(Settings.load(environ | {missing: ""})) is None
    assert find(Settings.load(environ | {missing: "evil.example.com/"})) is None
