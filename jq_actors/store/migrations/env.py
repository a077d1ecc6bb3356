"""What Alembic runs. Our tables live in somebody's database: names and version table carry ``jobs_table``."""

from alembic import context

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    version_table=f"{attributes['jobs_table']}_version",
    jobs_table=attributes["jobs_table"],  # for the scripts: op.get_context().opts
)
with context.begin_transaction():
    context.run_migrations()
