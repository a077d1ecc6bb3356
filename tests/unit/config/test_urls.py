"""`jq_actors.config.urls`: no secret of an address is ever shown (A77)."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jq_actors.config.urls import mask_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("embedded://", "embedded://"),
        ("amqp://host:5672/vhost", "amqp://host:5672/vhost"),
        ("amqp://user:pw@host:5672/vhost", "amqp://user:***@host:5672/vhost"),
        ("amqps://user:p/w?d#@host/", "amqps://user:***@host/"),
        ("amqp://user:p@ss@host/", "amqp://user:***@host/"),
        ("amqp://:pw@host/", "amqp://:***@host/"),
        ("https://ghp_token@host/", "https://***@host/"),
        ("postgresql+asyncpg://u:pw@h/db", "postgresql+asyncpg://u:***@h/db"),
        ("sqlite+aiosqlite:///jobs.db", "sqlite+aiosqlite:///jobs.db"),
        ("postgresql://h/db?user=u&password=pw&x=1", "postgresql://h/db?user=u&password=***&x=1"),
        ("amqps://h/?certfile=c.pem&keyfile=k.pem", "amqps://h/?certfile=c.pem&keyfile=***"),
        ("https://h/?X-Amz-Signature=abc#top", "https://h/?X-Amz-Signature=***#top"),
        ("cannot reach amqp://u:pw@h/ now", "cannot reach amqp://u:***@h/ now"),
        ("no url at all: mail me@home", "no url at all: mail me@home"),
        ("", ""),
    ],
)
def test_secrets_are_masked_and_the_rest_stays(url: str, shown: str) -> None:
    assert mask_url(url) == shown


_SECRET = st.text(min_size=1).map(lambda text: f"s3cret{text}").filter(lambda text: not any(map(str.isspace, text)))


@given(_SECRET)
def test_no_password_is_shown_encoded_or_not(password: str) -> None:
    for written in (password, quote(password, safe="")):
        assert "s3cret" not in mask_url(f"amqp://user:{written}@host:5672/vhost")


@given(st.sampled_from(["password", "sslpassword", "token", "api_key", "client_secret"]), _SECRET)
def test_no_secret_query_value_is_shown(name: str, value: str) -> None:
    assert "s3cret" not in mask_url(f"postgresql://host/db?x=1&{name}={quote(value, safe='')}")


@given(st.text())
def test_masking_twice_is_masking_once(text: str) -> None:
    assert mask_url(mask_url(text)) == mask_url(text)
