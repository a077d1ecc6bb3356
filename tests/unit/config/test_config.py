"""`jq_actors.config.loading`: where it comes from, and that every mistake is told, all at once, with its path."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jq_actors.chain.loading import find_problems
from jq_actors.config.loading import BrokerConfig, Config, MiddlewareSpec, QueueConfig, WorkerConfig, load_config
from jq_actors.errors import ConfigError


def problems_of(source: Any) -> dict[str, str]:
    """The problems that `source` has, by path; every path once."""
    with pytest.raises(ConfigError) as error:
        load_config(source, find_problems)
    found = {problem.path: problem.message for problem in error.value.problems}
    assert len(found) == len(error.value.problems), error.value
    for problem in error.value.problems:
        assert str(problem) in str(error.value)
    return found


# -- where it comes from ----------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(path: Path, namespace: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"broker: {{namespace: {namespace}}}\n")


def test_each_place_is_overruled_by_the_one_before(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_config().broker.namespace == "jq"
    _write(here / "jq_actors.yaml", "beside")
    assert load_config().broker.namespace == "beside"
    _write(here / "config" / "jq_actors.yaml", "in-config")
    assert load_config().broker.namespace == "in-config"
    _write(here / "other.yaml", "by-variable")
    monkeypatch.setenv("JQ_CONFIG", "other.yaml")
    assert load_config().broker.namespace == "by-variable"
    _write(here / "given.yaml", "given")
    assert load_config(here / "given.yaml").broker.namespace == "given"
    assert load_config(str(here / "given.yaml")).broker.namespace == "given"


def test_without_a_file_it_is_embedded_and_sqlite(here: Path) -> None:
    config = load_config()
    assert config.broker.url == "embedded://"
    assert [spec.name for spec in config.middleware] == ["persistence", "group_fifo", "retry", "time_limit"]
    assert config.middleware[0].options == {"url": "sqlite+aiosqlite:///jq_actors.db"}
    assert config == Config()


def test_without_a_file_two_variables_choose_the_servers(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JQ_BROKER_URL", "amqp://host/")
    monkeypatch.setenv("JQ_DATABASE_URL", "postgresql+asyncpg://host/db")
    config = load_config()
    assert config.broker.url == "amqp://host/"
    assert config.middleware[0].options["url"] == "postgresql+asyncpg://host/db"


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_named_file_that_is_missing_is_an_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    _write(here / "jq_actors.yaml", "beside")
    monkeypatch.setenv("JQ_CONFIG", "missing.yaml")
    told = problems_of(None if by_variable else "missing.yaml")
    assert told == {"": "the file 'missing.yaml' cannot be read: No such file or directory"}


def test_a_ready_config_is_returned_as_it_is() -> None:
    config = Config(broker=BrokerConfig(namespace="mine"))
    assert load_config(config) is config


@pytest.mark.parametrize("text", ["", "# nothing\n", "broker:\nworker:\nqueues:\n  mail:\n"])
def test_empty_files_and_sections_are_defaults(here: Path, text: str) -> None:
    (here / "jq_actors.yaml").write_text(text)
    config = load_config()
    assert config.broker == BrokerConfig()
    assert config.worker == WorkerConfig()
    assert config.queue("mail") == QueueConfig(concurrency=100)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("broker: [", "the file is not valid YAML"),
        ("- broker", "must be a mapping of settings, not list"),
        ("just text", "must be a mapping of settings, not str"),
        ("broker: !!python/object:os.system {}", "the file is not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_told(here: Path, text: str, told: str) -> None:
    (here / "jq_actors.yaml").write_text(text)
    [(path, message)] = problems_of(None).items()
    assert path == ""
    assert message.startswith(told)


def test_a_file_that_is_not_utf8_is_told(here: Path) -> None:
    (here / "jq_actors.yaml").write_bytes(b"broker: {namespace: \xff}")
    assert problems_of(None) == {"": "the file 'jq_actors.yaml' cannot be read: it is not UTF-8"}


def test_a_key_written_twice_is_told_with_its_lines(here: Path) -> None:
    (here / "jq_actors.yaml").write_text("worker: {lease: 5s}\nbroker:\n  namespace: a\n  namespace: b\nworker: {}\n")
    assert problems_of(None) == {
        "broker.namespace": "is written twice, in lines 3 and 4",
        "worker": "is written twice, in lines 1 and 5",
    }


def test_the_source_is_named(here: Path) -> None:
    (here / "jq_actors.yaml").write_text("brokre: {}\n")
    with pytest.raises(ConfigError, match=r"^jq_actors\.yaml has 1 problem"):
        load_config()


# -- variables --------------------------------------------------------------------------------------------


def test_variables_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "rabbit")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOPE", raising=False)
    config = load_config(
        {
            "broker": {"url": "amqp://u:${NOPE:-pw}@${HOST}:5672/${EMPTY:-vhost}"},
            "middleware": [],
            "actors": {"a": {"literal": "$${HOST} $HOME $$", "many": ["${HOST}", {"deep": "${HOST}"}]}},
        }
    )
    assert config.broker.url == "amqp://u:pw@rabbit:5672/vhost"
    assert config.actors["a"] == {"literal": "${HOST} $HOME $$", "many": ["rabbit", {"deep": "rabbit"}]}


@pytest.mark.parametrize(
    ("written", "value", "expected"),
    [
        ("${X}", "12", 12),
        ("${X}", "true", True),
        ("${X}", "no", False),
        ("${X}", "text", "text"),
        ("${X}", "1.5", "1.5"),
        ("${X}", "null", "null"),
        ("${X}", "[1]", "[1]"),
        ("${X}", "", ""),
        ("${Y:-7}", "", 7),
        ("x${X}", "12", "x12"),
        ("${X} ", "12", "12 "),
    ],
)
def test_only_a_whole_variable_becomes_a_number_or_bool(
    monkeypatch: pytest.MonkeyPatch, written: str, value: str, expected: object
) -> None:
    monkeypatch.setenv("X", value)
    monkeypatch.delenv("Y", raising=False)
    found = load_config({"middleware": [], "actors": {"a": {"option": written}}}).actors["a"]["option"]
    assert (found, type(found)) == (expected, type(expected))


def test_a_variable_gives_a_number_where_one_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N", "7")
    config = load_config({"queues": {"mail": {"concurrency": "${N}"}}, "broker": {"publish_window": "${M:-5}"}})
    assert (config.queue("mail").concurrency, config.broker.publish_window) == (7, 5)


def test_missing_and_malformed_variables_are_told_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOPE", raising=False)
    assert problems_of(
        {
            "broker": {"url": "${NOPE}", "namespace": "${NOPE"},
            "worker": {"lease": "${NOPE}"},
            "middleware": [{"persistence": {"url": "${NOPE}"}}, {"retry": {"max_retries": "${}"}}],
        }
    ) == {
        "broker.url": "the environment variable NOPE is not set, and there is no ${NOPE:-default}",
        "broker.namespace": "has a ${ that is not ${VAR} or ${VAR:-default}; write $${ for a literal one",
        "worker.lease": "the environment variable NOPE is not set, and there is no ${NOPE:-default}",
        "middleware[0].persistence.url": ("the environment variable NOPE is not set, and there is no ${NOPE:-default}"),
        "middleware[1].retry.max_retries": (
            "has a ${ that is not ${VAR} or ${VAR:-default}; write $${ for a literal one"
        ),
    }


# -- values -----------------------------------------------------------------------------------------------


def test_a_full_configuration_is_read() -> None:
    config = load_config(
        {
            "broker": {
                "url": "amqps://u:p@h:5671/v",
                "namespace": "app.1",
                "queue_type": "quorum",
                "confirm_timeout": "250ms",
                "heartbeat": "5s",
                "publish_window": 10,
                "max_command_size": "2MiB",
                "delivery_timeout": "1h",
                "reconcile_interval": 5000,
                "delivery_limit": 3,
            },
            "imports": ["a", "a.b_2"],
            "queues": {"default": {}, "heavy": {"concurrency": 4}},
            "middleware": ["retry", {"time_limit": None}, {"a.b:C": {"x": 1}}],
            "actors": {"send_mail": {"max_retries": 10}},
            "worker": {"lease": "10s", "shutdown_timeout": 0, "block_warning": "100ms"},
        }
    )
    assert config.broker == BrokerConfig(
        url="amqps://u:p@h:5671/v",
        namespace="app.1",
        queue_type="quorum",
        confirm_timeout=timedelta(milliseconds=250),
        heartbeat=timedelta(seconds=5),
        publish_window=10,
        max_command_size=2 << 20,
        delivery_timeout=timedelta(hours=1),
        reconcile_interval=timedelta(seconds=5),
        delivery_limit=3,
    )
    assert config.imports == ("a", "a.b_2")
    assert config.queue("heavy").concurrency == 4
    assert config.middleware == (
        MiddlewareSpec(name="retry"),
        MiddlewareSpec(name="time_limit"),
        MiddlewareSpec(name="a.b:C", options={"x": 1}),
    )
    assert config.actors == {"send_mail": {"max_retries": 10}}
    assert config.worker.shutdown_timeout == timedelta()


def test_it_is_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.broker.namespace = "other"


EVERYTHING_WRONG: Mapping[str, Any] = {
    "brokers": {},
    "broker": {
        "url": "http://user:hidden@host",
        "namespce": "x",
        "namespace": "a b",
        "queue_type": "quorm",
        "confirm_timeout": "10",
        "heartbeat": "500ms",
        "publish_window": "12",
        "max_command_size": "1Q",
        "delivery_timeout": "0s",
        "reconcile_interval": True,
        "delivery_limit": 0,
    },
    "imports": "examples",
    "queues": {"heavy": {"concurrency": 70_000}, "light": {"concurency": 1}, "a b": {}, "list": []},
    "middleware": [
        {"retry": 3},
        3,
        "no name",
        {"retry": {}, "time_limit": {}},
        "nosuch",
        {"dramatiq.middleware:Retries": {"max_retrys": 3}},
    ],
    "actors": {"send mail": {}, "send_mail": 3},
    "worker": {"lease": "2h", "shutdown_timeout": -1, "block_warning": "1ms", "zzz": 1},
}


def test_all_problems_are_told_at_once_with_their_paths() -> None:
    duration = "write a number with ms, s, m, h or d such as 30s, or whole milliseconds as a number"
    found = problems_of(EVERYTHING_WRONG)
    unknown = found.pop("middleware[4]")
    assert unknown.startswith("unknown middleware 'nosuch'; known are ")
    assert found == {
        "brokers": "unknown key; did you mean broker?",
        "broker.url": "'http://user:***@host' must begin with one of embedded://, amqp://, amqps://",
        "broker.namespce": "unknown key; did you mean namespace?",
        "broker.namespace": "'a b' must be 1 to 64 of the characters A-Z a-z 0-9 _ . : -",
        "broker.queue_type": "must be 'classic' or 'quorum', not 'quorm'",
        "broker.confirm_timeout": f"'10' is not a duration; {duration}",
        "broker.heartbeat": "must be at least 1s, not 500ms",
        "broker.publish_window": "must be a whole number, not '12'",
        "broker.max_command_size": (
            "'1Q' is not a size; write bytes as a number, or a number with K, M, G or T such as 512M"
        ),
        "broker.delivery_timeout": "must be at least 1s, not 0ms",
        "broker.reconcile_interval": f"True is not a duration; {duration}",
        "broker.delivery_limit": "must be at least 1, not 0",
        "imports": "must be a list, not 'examples'",
        "queues.heavy.concurrency": "must be at most 65535, not 70000",
        "queues.light.concurency": "unknown key; did you mean concurrency?",
        "queues.a b": "the name 'a b' must be 1 to 128 of the characters A-Z a-z 0-9 _ . : -",
        "queues.list": "must be a mapping, not a list",
        "middleware[0]": "the options of retry must be a mapping, not int",
        "middleware[1]": "must be a name, or one name with its options such as `- retry: {max_retries: 3}`",
        "middleware[2]": "'no name' is neither a short name nor package.module:Class",
        "middleware[3]": "must be a name, or one name with its options such as `- retry: {max_retries: 3}`",
        "middleware[5].dramatiq.middleware:Retries.max_retrys": "unknown option; did you mean max_retries?",
        "actors.send mail": "the name 'send mail' must be 1 to 128 of the characters A-Z a-z 0-9 _ . : -",
        "actors.send_mail": "must be a mapping, not 3",
        "worker.lease": "must be at most 1h, not 2h",
        "worker.shutdown_timeout": "the duration -1 is negative",
        "worker.block_warning": "must be at least 10ms, not 1ms",
        "worker.zzz": "unknown key; allowed are block_warning, lease, shutdown_timeout",
    }


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("amqp:///vhost", "names no host"),
        ("amqp://host:0/", "names no host"),
        ("amqp://host:port/", "is not a URL"),
        ("amqp://u:hidden@host:99999/", "is not a URL"),
        ("amqp://[::1/", "is not a URL"),
        ("embedded://host", "write embedded://"),
        ("redis://:hidden@host", "must begin with one of"),
        ("host:5672", "must begin with one of"),
        ("", "must begin with one of"),
    ],
)
def test_a_broker_url_that_cannot_be_meant_is_told_without_its_secrets(url: str, told: str) -> None:
    [(path, message)] = problems_of({"broker": {"url": url}}).items()
    assert path == "broker.url"
    assert told in message
    assert "hidden" not in message


@pytest.mark.parametrize(
    ("broker", "told"),
    [
        ({"queue_type": "quorum"}, "queue_type: quorum needs RabbitMQ"),
        ({"url": "amqp://h/", "delivery_limit": 5}, "delivery_limit works with queue_type: quorum only"),
        ({"heartbeat": "1500ms"}, "must be whole seconds"),
    ],
)
def test_combinations_that_cannot_work_are_told(broker: Mapping[str, object], told: str) -> None:
    [message] = problems_of({"broker": broker}).values()
    assert told in message


def test_values_are_shown_short_and_masked() -> None:
    message = problems_of({"queues": {"q": {"concurrency": "amqp://u:hidden@h/" + "x" * 200}}})["queues.q.concurrency"]
    assert "hidden" not in message
    assert len(message) < 120


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_SECTION = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys((*BrokerConfig.model_fields, *WorkerConfig.model_fields, "concurrency"), _JSON),
)
_ANYTHING = st.fixed_dictionaries(
    {},
    optional={
        "broker": _SECTION | _JSON,
        "worker": _SECTION | _JSON,
        "queues": st.dictionaries(st.text(max_size=4), _SECTION | _JSON, max_size=2) | _JSON,
        "middleware": st.lists(st.dictionaries(st.text(max_size=4), _JSON, max_size=2) | _JSON, max_size=3) | _JSON,
        "imports": _JSON,
        "actors": _JSON,
    },
)


@given(_ANYTHING | st.dictionaries(st.text(max_size=8), _JSON, max_size=3))
def test_whatever_is_written_becomes_a_config_or_one_config_error(raw: dict[str, Any]) -> None:
    with suppress(ConfigError):
        assert isinstance(load_config(raw), Config)
