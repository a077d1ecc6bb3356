"""``jq-actors db``: migrate the tables, or print their version."""

from __future__ import annotations

import inspect

import typer

from jq_actors.chain.loading import build_middleware, find_problems
from jq_actors.chain.middleware import JobMiddleware
from jq_actors.config.loading import load_config, mask_url
from jq_actors.errors import RequiresPersistenceError

from .command_setup import ConfigOption, use_config
from .output import PROBLEM

EPILOG = (
    "Exit codes: 0 success; 1 no persistence is configured, or (`current`) the tables are of another"
    " version; 2 wrong command line or configuration; 3 the database cannot be reached."
)

app = typer.Typer(help="The tables of the jobs.", no_args_is_help=True, epilog=EPILOG)


@app.command(epilog=EPILOG)
def upgrade(config_path: ConfigOption = None) -> None:
    """Create the tables, or migrate them to this version. Several at once are safe."""
    use_config(config_path)
    url, jobs_table = _persistence()
    from jq_actors.store.schema import migrate  # imported here: Alembic loads slowly, and no other command needs it

    migrate.upgrade(url, jobs_table)
    typer.echo(f"{jobs_table} in {mask_url(url)} is at {migrate.current(url, jobs_table)}")


@app.command(epilog=EPILOG)
def current(config_path: ConfigOption = None) -> None:
    """Print the version that the tables have, and the one that this program needs."""
    use_config(config_path)
    url, jobs_table = _persistence()
    from jq_actors.store.schema import migrate  # imported here: Alembic loads slowly, and no other command needs it

    found, wanted = migrate.current(url, jobs_table), migrate.head()
    typer.echo(f"{jobs_table} in {mask_url(url)} is at {found or 'nothing'}; this version wants {wanted}")
    if found != wanted:
        raise typer.Exit(PROBLEM)


def _persistence() -> tuple[str, str]:
    """The database URL and the jobs table of the middleware that provides the store."""
    config = load_config(find_problems=find_problems)
    for spec, layer in zip(config.middleware, build_middleware(config), strict=True):
        if isinstance(layer, JobMiddleware) and layer.brings_store:
            default = inspect.signature(type(layer)).parameters["jobs_table"].default
            return str(spec.options["url"]), str(spec.options.get("jobs_table", default))
    raise RequiresPersistenceError("`jq-actors db`")
