"""The commands about API keys."""

from __future__ import annotations

from datetime import datetime

import click

from checkpointd_server.cli.option_types import EXPIRY
from checkpointd_server.domain.access import Scope


@click.group()
def keys() -> None:
    """Make API keys.

    \b
    Example:
        checkpointd keys new --tenant acme --scope read --scope write >> keys.toml
    """


@keys.command()
@click.option("--tenant", required=True, help="Whose threads the key opens.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(Scope, case_sensitive=False),
    multiple=True,
    default=[Scope.READ.value, Scope.WRITE.value],
    show_default=True,
    help="What it may do. May be given several times.",
)
@click.option("--name", help="What the log calls its bearer.  [default: the tenant]")
@click.option(
    "--expires",
    type=EXPIRY,
    help="When it ends: after 90d, 12h, 30m or 2w from now, or at a time with its zone, 2030-01-31T12:00:00Z, or at the"
    " beginning of a day in UTC, 2030-01-31.  [default: never]",
)
def new(tenant: str, scopes: tuple[Scope, ...], name: str | None, expires: datetime | None) -> None:
    """Make a key. It is shown once, on standard error; what goes into the keys file is on standard output.

    \b
    Examples:
        checkpointd keys new --tenant acme --scope read --scope write >> keys.toml
        checkpointd keys new --tenant acme --scope read --name dashboard --expires 90d >> keys.toml
    """
    from checkpointd_server.rpc.auth.api_keys import new_key  # grpc takes its time: --help doesn't need it

    try:
        key, entry = new_key(tenant, scopes, name or tenant, expires=expires)
    except ValueError as error:
        raise click.UsageError(str(error).removeprefix("key 1: ")) from None
    click.echo(f"The key, which is stored nowhere: {key}", err=True)
    click.echo(entry)
