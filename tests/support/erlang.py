"""Evaluate expressions in a running Erlang node, with Erlang's own client: in milliseconds."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

TIMEOUT = 60


def said_by(expression: str, env: Mapping[str, str]) -> str | None:
    """What ``expression`` prints in the node of ``env``, and in the last line ``{ok, Result}`` or ``{error, …}``.

    ``None``: there is no ``erl_call`` here.

    Raises:
      RuntimeError: the node does not answer.
    """
    program = program_of_erlang("erl_call")
    if program is None:
        return None
    cookie = (Path(env["HOME"]) / ".erlang.cookie").read_text().strip()
    node = ["-sname", env["RABBITMQ_NODENAME"], "-c", cookie, "-r", "-timeout", str(TIMEOUT)]
    done = subprocess.run(
        [program, *node, "-fetch_stdout", "-e"],
        input=f"{expression}.\n",
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"erl_call failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def program_of_erlang(name: str) -> str | None:
    """The path of an Erlang program, which may not be on PATH; ``None`` if it is not installed."""
    found = shutil.which(name)
    if found is None:
        bundled = [path for place in _PLACES for path in Path("/").glob(f"{place}/bin/{name}")]
        found = str(max(bundled)) if bundled else None
    return found


_PLACES = ("usr/lib/erlang/erts-*", "usr/lib/erlang/lib/erl_interface-*")
