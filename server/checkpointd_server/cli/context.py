"""`checkpointd context`: servers by name."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from checkpointd_server.cli.contexts import Context, Contexts
from checkpointd_server.cli.destruction import confirm
from checkpointd_server.cli.option_types import json_option
from checkpointd_server.cli.remote import list_targets
from checkpointd_server.cli.rendering.json import print_json
from checkpointd_server.cli.rendering.tables import table

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True)


@click.group()
def context() -> None:
    """Name servers, with the token and TLS that they want.

    What commands talk to is, in this order: --context or --target, CHECKPOINTD_CONTEXT, CHECKPOINTD_TARGET, this
    machine's server where CHECKPOINTD_LISTEN says, the context in use.

    \b
    Examples:
        checkpointd context add production --target agents.internal:50051 --tls --token-file ~/production.token
        checkpointd context use production
        checkpointd info --context production
    """


@context.command()
@click.argument("name")
@click.option("--target", required=True, help="The server: HOST:PORT or unix:PATH, or several separated by commas.")
@click.option("--token", help="An API key or a JSON Web Token, kept in the file; '-' reads it from standard input.")
@click.option("--token-file", type=_FILE, help="A file that holds it, read by each command.")
@click.option("--insecure-token", is_flag=True, help="Allow to send it in plain text to another machine.")
@click.option("--tls", is_flag=True, help="Speak TLS, trusting the authorities that grpc trusts.")
@click.option("--tls-ca", type=_FILE, help="Speak TLS, trusting these authorities, PEM.")
@click.option("--tls-client-cert", type=_FILE, help="A certificate to show to the server, PEM.")
@click.option("--tls-client-key", type=_FILE, help="Its private key, PEM.")
@click.option("--use", is_flag=True, help="Use it from now on where no server is named. The first is used anyway.")
@click.option("--replace", is_flag=True, help="Replace a context of that name.")
def add(
    name: str,
    target: str,
    token: str | None,
    token_file: Path | None,
    insecure_token: bool,
    tls: bool,
    tls_ca: Path | None,
    tls_client_cert: Path | None,
    tls_client_key: Path | None,
    use: bool,
    replace: bool,
) -> None:
    """Name a server. The file of contexts is its owner's alone to read.

    \b
    Examples:
        checkpointd context add laptop --target 127.0.0.1:50051
        checkpointd context add production --target agents.internal:50051 --tls --token-file ~/production.token
    """
    list_targets(target)
    if token is not None and token_file is not None:
        raise click.UsageError("give either --token or --token-file")
    if (tls_client_cert is None) != (tls_client_key is None):
        raise click.UsageError("a certificate needs both --tls-client-cert and --tls-client-key")
    contexts = Contexts.load()
    if name in contexts.by_name and not replace:
        raise click.UsageError(f"there is a context {name!r} already: --replace it, or choose another name")
    if token == "-":  # noqa: S105
        token = click.prompt("Token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read().strip()
    made = Context(
        name=name,
        target=target,
        token=token or None,
        token_file=token_file,
        insecure_token=insecure_token,
        tls=tls,
        tls_ca=tls_ca,
        tls_client_cert=tls_client_cert,
        tls_client_key=tls_client_key,
    )
    contexts.add(made, use=use or not contexts.by_name)
    click.echo(f"context {name} is in {contexts.path}")


@context.command()
@click.argument("name", required=False)
@click.option("--none", "forget", is_flag=True, help="Use none.")
def use(name: str | None, forget: bool) -> None:
    """Use a context where no server is named.

    \b
    Examples:
        checkpointd context use production
        checkpointd context use --none
    """
    if (name is None) != forget:
        raise click.UsageError("name a context, or give --none")
    Contexts.load().use(name)
    click.echo("no context is in use" if name is None else f"context {name} is in use")


@context.command("list")
@json_option
def list_contexts(as_json: bool) -> None:
    """List the contexts; a star marks the one in use.

    \b
    Example:
        checkpointd context list
    """
    contexts = Contexts.load()
    if as_json:
        found = {name: context.as_json(with_token=False) for name, context in contexts.by_name.items()}
        print_json({"current": contexts.current, "contexts": found})
        return
    rows = [
        (
            "*" if name == contexts.current else "",
            name,
            one.target,
            "yes" if one.tls or one.tls_ca is not None else "no",
            "file" if one.token_file is not None else "yes" if one.token else "no",
        )
        for name, one in sorted(contexts.by_name.items())
    ]
    for line in table(("", "NAME", "TARGET", "TLS", "TOKEN"), rows):
        click.echo(line)


@context.command()
@click.argument("name", required=False)
@json_option
def show(name: str | None, as_json: bool) -> None:
    """Print a context (by default the one in use), without its token.

    \b
    Example:
        checkpointd context show production
    """
    contexts = Contexts.load()
    chosen = contexts.current_context() if name is None else contexts.get(name)
    if chosen is None:
        raise click.ClickException("no context is in use: `checkpointd context use NAME`")
    found = {"name": chosen.name, **chosen.as_json(with_token=False)}
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        click.echo(f"{key.replace('_', '-'):<16}{value}")


@context.command()
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
def remove(name: str, yes: bool) -> None:
    """Forget a context, and the token that is kept with it.

    \b
    Example:
        checkpointd context remove production --yes
    """
    contexts = Contexts.load()
    confirm(f"Forget context {name}, {contexts.get(name).target}?", yes=yes)
    contexts.remove(name)
    click.echo(f"context {name} is forgotten")
