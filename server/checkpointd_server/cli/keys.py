"""The commands about API keys."""

from __future__ import annotations

import click

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
def new(tenant: str, scopes: tuple[Scope, ...], name: str | None) -> None:
    """Make a key. It is shown once, on standard error; what goes into the keys file is on standard output.

    \b
    Example:
        checkpointd keys new --tenant acme --scope read --scope write >> keys.toml
    """
    from checkpointd_server.rpc.auth.key_file import new_key  # grpc takes its time: --help doesn't need it

    try:
        key, entry = new_key(tenant, scopes, name or tenant)
    except ValueError as error:
        raise click.UsageError(str(error).removeprefix("key 1: ")) from None
    click.echo(f"The key, which is stored nowhere: {key}", err=True)
    click.echo(entry)
