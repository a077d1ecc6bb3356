"""Values by their annotations: there and back through real JSON, and what is refused as it would change."""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
import typing
import uuid
from collections import deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional
from zoneinfo import ZoneInfo

import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, computed_field

from jq_actors.actors.annotations import Unresolved
from jq_actors.actors.conversion import JsonConverter, TypedConverter, converter_for
from jq_actors.actors.plain_json import ConversionError

UserId = NewType("UserId", int)


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(enum.Enum):
    LOW = 1
    HIGH = "high"


@dataclasses.dataclass
class Line:
    when: datetime
    data: bytes
    price: Decimal
    total: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.total = len(self.data)


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    id: uuid.UUID
    lines: tuple[Line, ...]


@dataclasses.dataclass(frozen=True)
class UrgentOrder(Order):
    deadline: date = date(2026, 12, 1)


class Point(NamedTuple):
    x: int
    day: date


class Person(BaseModel):
    name: str = Field(alias="personName")
    born: date
    colours: set[Colour] = set()

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation has it
    @property
    def initial(self) -> str:
        return self.name[0]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    when: datetime
    id: uuid.UUID


class TwoNames(BaseModel):
    value: int = Field(validation_alias=AliasChoices("in", "value"), serialization_alias="out")


class Address(typing_extensions.TypedDict):
    street: str
    since: typing_extensions.NotRequired[date]


class OldAddress(typing.TypedDict):
    street: str
    since: typing.NotRequired[date]


class OldHouse(OldAddress, total=False):
    built: date


class Vault(BaseModel):
    password: SecretStr


class Unknown:
    """No type that pydantic knows."""


def _there_and_back(annotation: Any, value: Any) -> Any:
    converter = converter_for(annotation)
    on_the_wire = json.dumps(converter.to_json(value), allow_nan=False)
    return converter.from_json(json.loads(on_the_wire))


LINE = Line(datetime(2026, 11, 24, 3, 28, 1, 123456, tzinfo=UTC), b"\x00\xff\xfe~", Decimal("1.10"))
ROUND_TRIPS: list[tuple[Any, Any]] = [
    (str, "ünïcode \N{SNOWMAN} 😀"),
    (int, -(10**40)),
    (float, 0.1),
    (bool, True),
    (None, None),
    (datetime, datetime(2026, 11, 24, 3, 28, 1, 123456, tzinfo=UTC)),
    (datetime, datetime(2026, 11, 24, 3, 28, tzinfo=timezone(timedelta(hours=-3, minutes=-30)))),
    (datetime, datetime(2026, 11, 24, 3, 28)),  # noqa: DTZ001 - naive stays naive
    (date, date(2026, 11, 24)),
    (time, time(3, 28, 1, 5)),
    (timedelta, timedelta(days=-1, microseconds=3)),
    (uuid.UUID, uuid.UUID(int=7)),
    (Decimal, Decimal("1.10")),
    (bytes, bytes(range(256))),
    (Path, Path("/var/tmp/x")),
    (Colour, Colour.BLUE),
    (Level, Level.LOW),
    (Level, Level.HIGH),
    (UserId, UserId(7)),
    (Line, LINE),
    (Order, Order(uuid.UUID(int=1), (LINE, LINE))),
    (Point, Point(1, date(2026, 1, 1))),
    (Person, Person(personName="Ada", born=date(1815, 12, 10), colours={Colour.RED})),
    (Strict, Strict(when=datetime(2026, 1, 1, tzinfo=UTC), id=uuid.UUID(int=3))),
    (TwoNames, TwoNames(value=3)),
    (Address, {"street": "Main", "since": date(2020, 1, 1)}),
    (Address, {"street": "Main"}),
    (OldAddress, {"street": "Main", "since": date(2020, 1, 1)}),
    (OldAddress, {"street": "Main"}),
    (OldHouse, {"street": "Main", "built": date(1900, 1, 1)}),
    (OldHouse, {"street": "Main"}),
    (datetime | str, datetime(2026, 1, 1, tzinfo=UTC)),
    (dict[str, list[OldAddress]], {"a": [{"street": "Main", "since": date(2020, 1, 1)}]}),
    (OldAddress | None, {"street": "Main", "since": date(2020, 1, 1)}),
    (Annotated[OldAddress, "note"], {"street": "Main", "since": date(2020, 1, 1)}),
    (set[int], {1, 2, 3}),
    (frozenset[Colour], frozenset({Colour.RED})),
    (tuple[int, datetime], (1, datetime(2026, 1, 1, tzinfo=UTC))),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[()], ()),
    (deque[int], deque([1, 2])),
    (list[uuid.UUID], [uuid.UUID(int=1)]),
    (dict[uuid.UUID, Decimal], {uuid.UUID(int=1): Decimal("0.0")}),
    (dict[int, date], {1: date(2026, 1, 1)}),
    (Optional[datetime], None),  # noqa: UP045 - the old spelling
    (Optional[datetime], datetime(2026, 1, 1, tzinfo=UTC)),  # noqa: UP045 - as above
    (int | date, date(2026, 1, 1)),
    (int | str, "7"),
    (list[int | str | None], [1, "1", None]),
    (Order | Line, LINE),
    (Literal["a", 1], 1),
    (Literal[Colour.RED], Colour.RED),
    (Annotated[int, Field(gt=0)], 1),
    (list, [1, {"a": None}]),
    (dict, {"a": [1.5]}),
    (dict[str, Any], {"a": [1.5, None, {"b": True}]}),
    (list[dict[str, float]], [{"a": 1.0}]),
    (Any, {"a": [1]}),
    (object, ["x"]),
]


@pytest.mark.parametrize(("annotation", "value"), ROUND_TRIPS, ids=lambda part: str(part)[:40])
def test_a_value_arrives_as_it_was_sent(annotation: Any, value: Any) -> None:
    arrived = _there_and_back(annotation, value)
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize("fold", [0, 1])
def test_a_time_in_the_hour_that_comes_twice_arrives(fold: int) -> None:
    """Python calls it equal to no time of another zone (PEP 495), and what arrives has an offset, not a zone."""
    when = datetime(2010, 11, 7, 1, tzinfo=ZoneInfo("America/Halifax"), fold=fold)
    arrived = _there_and_back(datetime, when)
    assert _clock_and_offset(arrived) == (datetime(2010, 11, 7, 1), timedelta(hours=-3 - fold))  # noqa: DTZ001 - its clock alone


def _clock_and_offset(when: datetime) -> tuple[datetime, timedelta | None]:
    return when.replace(tzinfo=None), when.utcoffset()


@given(
    # Until 1972 there were zones with seconds in their offset, which ISO 8601 has not: refused, see below.
    st.datetimes(min_value=datetime(1973, 1, 1), timezones=st.one_of(st.none(), st.timezones())),  # noqa: DTZ001 - asked so
    st.timedeltas(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.binary(),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_value_of_these_types_does(
    when: datetime, length: timedelta, amount: Decimal, data: bytes, number: float
) -> None:
    assert _clock_and_offset(_there_and_back(datetime, when)) == _clock_and_offset(when)
    assert _there_and_back(timedelta, length) == length
    assert _there_and_back(Decimal, amount).as_tuple() == amount.as_tuple()
    assert _there_and_back(bytes, data) == data
    assert _there_and_back(list[float], [number]) == [number]


@pytest.mark.parametrize(
    ("annotation", "value", "sent"),
    [
        (int, "7", 7),
        (int, 7.0, 7),
        (int, True, 1),
        (float, 7, 7.0),
        (str, Colour.RED, "red"),
        (datetime, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        (list[int], ("1", 2), [1, 2]),
        (Colour, "red", "red"),
        (
            Person,
            {"personName": "Ada", "born": "1815-12-10"},
            {"name": "Ada", "born": "1815-12-10", "colours": []},
        ),
    ],
    ids=str,
)
def test_sending_is_lenient(annotation: Any, value: Any, sent: Any) -> None:
    converted = converter_for(annotation).to_json(value)
    assert converted == sent
    assert type(converted) is type(sent)


@pytest.mark.parametrize(
    ("annotation", "value", "told"),
    [
        (int, "seven", ": expected int, got a str (Input should be a valid integer, unable to parse string"),
        (str, 7, ": expected str, got an int (Input should be a valid string)"),
        (uuid.UUID, "x", ": expected UUID, got a str (Input should be a valid UUID"),
        (Colour, "green", "(Input should be 'red' or 'blue')"),
        (list[int], [1, "x"], ": expected list[int], got a list (1: Input should be a valid integer"),
        (list[int], "123", ": expected list[int], got a str (Input should be a valid list)"),
        (Literal["a"], "b", ": expected Literal['a'], got a str (Input should be 'a')"),
        (Annotated[int, Field(gt=0)], 0, "(Input should be greater than 0)"),
        (
            Order,
            {"id": 1},
            "(id: UUID input should be a string, bytes or UUID object; lines: Field required)",
        ),
        (list[int], ["a", "b", "c", "d", "e"], "; and 2 more)"),
        (float, float("nan"), ": nan is not a JSON number"),
        (list[float], [float("inf")], ", at [0]: inf is not a JSON number"),
        (str, "\ud800", ": the lone surrogate U+D800 at index 0 is not a character"),
        (list[str], ["\ud800"], ", at [0]: the lone surrogate U+D800 at index 0 is not a character"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told_with_type_and_reason(annotation: Any, value: Any, told: str) -> None:
    with pytest.raises(ConversionError) as refused:
        converter_for(annotation).to_json(value)
    assert told in refused.value.description


@pytest.mark.parametrize(
    ("annotation", "value", "told"),
    [
        (str | datetime, datetime(2026, 1, 1, tzinfo=UTC), ": a datetime would arrive as a str"),
        (
            datetime,
            datetime(1911, 1, 1, tzinfo=ZoneInfo("Africa/Abidjan")),
            ": a datetime would arrive with another",
        ),
        (Colour | str, Colour.RED, ": a Colour would arrive as a str"),
        (uuid.UUID | str, str(uuid.UUID(int=1)), ": a str would arrive as a UUID"),
        (
            dict[str, Any],
            {"a": [datetime(2026, 1, 1, tzinfo=UTC)]},
            ", at ['a'][0]: a datetime would arrive as a str",
        ),
        (list, [(1, 2)], ", at [0]: a tuple would arrive as a list"),
        (Order, UrgentOrder(uuid.UUID(int=1), ()), ": an UrgentOrder would arrive as an Order"),
        (
            Vault,
            Vault(password=SecretStr("x")),
            ", at ['password']: a SecretStr would arrive with another value",
        ),
    ],
    ids=str,
)
def test_what_would_arrive_changed_is_refused(annotation: Any, value: Any, told: str) -> None:
    with pytest.raises(ConversionError) as refused:
        converter_for(annotation).to_json(value)
    assert refused.value.description.startswith(told)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (datetime, "yesterday"),
        (int, "x"),
        (bytes, "not base64!"),
        (Order, {}),
        (str, None),
        (uuid.UUID, "\ud800"),
    ],
    ids=str,
)
def test_json_that_does_not_fit_today_is_told(annotation: Any, value: Any) -> None:
    with pytest.raises(ConversionError, match="expected"):
        converter_for(annotation).from_json(value)


def test_errors_do_not_show_the_value() -> None:
    secret = "hunter2"
    with pytest.raises(ConversionError) as refused:
        converter_for(int).to_json(secret)
    assert secret not in f"{refused.value} {refused.value.__cause__}"


@pytest.mark.parametrize(
    "annotation",
    [
        str,
        int,
        float,
        bool,
        None,
        list,
        dict,
        UserId,
        str | None,
        list[int],
        dict[str, list[float]],
        Literal["a", 1],
    ],
    ids=str,
)
def test_plain_types_need_no_pydantic_for_plain_values(annotation: Any) -> None:
    converter = converter_for(annotation)
    assert isinstance(converter, TypedConverter)
    assert converter.is_exact
    assert "adapter" not in vars(converter)


@pytest.mark.parametrize(
    ("annotation", "hint"),
    [
        (Any, "annotate it with its type to have it converted"),
        (Unknown, "its annotation Unknown has no JSON form (Unable to generate pydantic-core schema"),
        (list[Unknown], "has no JSON form"),
        (
            Unresolved("Order", "NameError: name 'Order' is not defined"),
            "its annotation 'Order' cannot be evaluated",
        ),
    ],
    ids=str,
)
def test_without_a_usable_annotation_json_passes_and_the_rest_is_told_why_not(annotation: Any, hint: str) -> None:
    converter = converter_for(annotation)
    assert isinstance(converter, JsonConverter)
    assert converter.to_json({"a": [1]}) == {"a": [1]}
    assert converter.from_json({"a": [1]}) == {"a": [1]}
    with pytest.raises(ConversionError) as refused:
        converter.to_json(date(2026, 1, 1))
    assert "a date is not a JSON value; " in refused.value.description
    assert hint in refused.value.description


def test_an_error_that_is_not_of_the_type_gets_no_hint_about_it() -> None:
    with pytest.raises(ConversionError) as refused:
        converter_for(Any).to_json(float("nan"))
    assert refused.value.description == ": nan is not a JSON number"


def test_whatever_a_validator_raises_is_a_misfit() -> None:
    @dataclasses.dataclass
    class Picky:
        value: int

        def __post_init__(self) -> None:
            raise RuntimeError("never satisfied")

    with pytest.raises(ConversionError, match=r"RuntimeError: never satisfied"):
        converter_for(Picky).from_json({"value": 1})


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax of PEP 695 is not there yet")
def test_a_type_alias_of_new_syntax_is_followed() -> None:
    names: dict[str, Any] = {}
    exec("type Ids = list[int]", names)
    assert _there_and_back(names["Ids"], [1]) == [1]
