"""What a type checker sees of actors. Checked by mypy, strict, in `test_actors`; never run.

Each ``type: ignore`` is an error that a user must get: when it does not come, mypy calls the comment unused.
"""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import dramatiq

from jq_actors import JobActor, JobCommand, JobId, actor
from jq_actors.actors.actor import AsyncJobActor


@actor
def add(x: int, y: int = 0) -> int:
    return x + y


@actor(queue_name="mail", max_retries=5, priority=3)
async def send_mail(account_id: int, *, template: str) -> str:
    return template


@actor
async def ping() -> None: ...


def by_account(account_id: int, *, template: str) -> str | None:
    return f"account-{account_id}"


def account(account_id: int, *, template: str) -> int:
    return account_id


common: dict[str, Any] = {"max_retries": 5}


@actor(group=by_account, **common)
async def grouped(account_id: int, *, template: str) -> str:
    return template


# An actor is typed by its function; of a coroutine function by what it returns when it is awaited.
assert_type(add(1), int)
assert_type(add.send(1, y=2), JobCommand[int])
assert_type(add.message(1), JobCommand[int])
assert_type(add.message_with_options(args=(1,)), JobCommand[int])
assert_type(add.send_with_options(args=(1,)), JobCommand[int])
assert_type(add.send_many([((1,), {})]), list[JobCommand[int]])
assert_type(send_mail.send(1, template="x"), JobCommand[str])
assert_type(ping.send(), JobCommand[None])
assert_type(add.send(1).job_id, JobId)
assert_type(add.send(1).get_result(), int)

assert_type(grouped.send(1, template="x"), JobCommand[str])

coroutine: Coroutine[Any, Any, str] = send_mail(1, template="x")
some_actor: JobActor[..., Any] = send_mail
asynchronous: AsyncJobActor[[], None] = ping
of_dramatiq: dramatiq.Actor[..., int] = add
message: dramatiq.Message[str] = send_mail.send(1, template="x")


async def in_a_coroutine() -> None:
    assert_type(await send_mail(1, template="x"), str)
    assert_type(await send_mail.send_async(1, template="x"), JobCommand[str])
    assert_type(await add.send_async(1), JobCommand[int])
    assert_type(await add.send_with_options_async(args=(1,), delay=5), JobCommand[int])
    assert_type(await add.send_many_async([((1,), {})]), list[JobCommand[int]])
    await send_mail.send_async("1", template="x")  # type: ignore[arg-type]
    await send_mail.send_async(1)  # type: ignore[call-arg]
    await add.send_with_options_async(args=(1,), group="account-7", position=3)
    await add.send_with_options_async(group=7)  # type: ignore[arg-type]
    await add.send_with_options_async(delay="5s")  # type: ignore[arg-type]


# A wrong argument is an error where it is given.
add("1")  # type: ignore[arg-type]
add.send("1")  # type: ignore[arg-type]
add.send()  # type: ignore[call-arg]
add.send(1, 2, 3)  # type: ignore[call-arg]
add.send(1, z=3)  # type: ignore[call-arg]
add.message("1")  # type: ignore[arg-type]
send_mail.send(1, "x")  # type: ignore[call-arg]
send_mail.send(1, template=2)  # type: ignore[arg-type]
not_sent = send_mail("1", template="x")  # type: ignore[arg-type]
send_mail(1, template="x")  # type: ignore[unused-coroutine]

# So is a wrong option, as far as its type tells.
add.send_with_options(args=(1,), delay=timedelta(minutes=5), priority=9, tags=["a"], max_retries=3)
add.send_with_options(args=(1,), eta=datetime(2026, 1, 1, tzinfo=UTC))
add.send_with_options(args=(1,), group="account-7", position=3)
add.send_with_options(args=(1,), group=None)
add.send_with_options(args=(1,), group=7)  # type: ignore[arg-type]
add.send_with_options(args=(1,), group="account-7", position="3")  # type: ignore[arg-type]
add.send_with_options(args=(1,), delay="5s")  # type: ignore[arg-type]
add.send_with_options(args=(1,), eta="tomorrow")  # type: ignore[arg-type]
add.send_with_options(args=(1,), priority="high")  # type: ignore[arg-type]
add.send_with_options(args=(1,), tags=[1])  # type: ignore[list-item]
add.send_with_options(1)  # type: ignore[call-arg, arg-type]
add.send_many([1])  # type: ignore[list-item]
grouped.send(1, template=2)  # type: ignore[arg-type]
actor(group="account-{x}")
actor(group=7)  # type: ignore[call-overload]
actor(group=account)  # type: ignore[arg-type]
actor(queue_name=1)  # type: ignore[call-overload]
actor(1)  # type: ignore[call-overload]
