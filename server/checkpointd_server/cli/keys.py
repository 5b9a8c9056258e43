"""`checkpointd keys`."""

from __future__ import annotations

from datetime import datetime

import click

from checkpointd_server.cli.option_types import EXPIRY
from checkpointd_server.domain.access import Scope


@click.group()
def keys() -> None:
    """Create API keys.

    \b
    Example:
        checkpointd keys new --tenant acme --scope read --scope write >> keys.toml
    """


@keys.command()
@click.option("--tenant", required=True, help="Tenant whose threads the key gives access to.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(Scope, case_sensitive=False),
    multiple=True,
    default=[Scope.READ.value, Scope.WRITE.value],
    show_default=True,
    help="What the key allows. May be given several times.",
)
@click.option("--name", help="Name of the key's owner in the log.  [default: the tenant]")
@click.option(
    "--expires",
    type=EXPIRY,
    help="When the key expires: a time from now, such as 90d, 12h, 30m or 2w; a time with its zone, such as "
    "2030-01-31T12:00:00Z; or a date, such as 2030-01-31, when it begins in UTC.  [default: never]",
)
def new(tenant: str, scopes: tuple[Scope, ...], name: str | None, expires: datetime | None) -> None:
    """Create a key. It is shown once, on standard error; its entry for the keys file goes to standard output.

    \b
    Examples:
        checkpointd keys new --tenant acme --scope read --scope write >> keys.toml
        checkpointd keys new --tenant acme --scope read --name dashboard --expires 90d >> keys.toml
    """
    from checkpointd_server.rpc.auth.api_keys import new_key  # grpc is slow to import, and --help doesn't need it

    try:
        key, entry = new_key(tenant, scopes, name or tenant, expires=expires)
    except ValueError as error:
        raise click.UsageError(str(error).removeprefix("key 1: ")) from None
    click.echo(f"The key (it is not stored, so copy it now): {key}", err=True)
    click.echo(entry)
