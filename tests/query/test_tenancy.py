from __future__ import annotations

import pytest

from gateway.errors import Cause, Refused
from gateway.query.tenancy import tenant_asked


@pytest.mark.parametrize(
    ("granted", "named", "default", "tenant"),
    [
        ("", [], "", ""),
        ("", [], "single-tenant", "single-tenant"),
        ("", [""], "single-tenant", "single-tenant"),
        ("", ["b"], "single-tenant", "b"),
        ("", ["a|b"], "", "a|b"),
        ("a", [], "single-tenant", "a"),
        ("a", ["b"], "single-tenant", "a"),
        ("a", ["b", "c"], "", "a"),
    ],
)
def test_the_token_decides_then_the_request_then_the_backend(granted, named, default, tenant):
    assert tenant_asked(granted, named, default) == tenant


def test_two_are_refused_where_the_request_decides():
    with pytest.raises(Refused) as caught:
        tenant_asked("", ["a", "b"], "")
    assert caught.value.cause is Cause.MALFORMED
