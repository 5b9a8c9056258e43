"""`checkpointd context`: named servers."""

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
    """Give names to servers, with their tokens and TLS files.

    Commands talk to the first of these that is set: --context or --target, CHECKPOINTD_CONTEXT, CHECKPOINTD_TARGET, the
    server on this machine at CHECKPOINTD_LISTEN, the context in use.

    \b
    Examples:
        checkpointd context add production --target agents.internal:50051 --tls --token-file ~/production.token
        checkpointd context use production
        checkpointd info --context production
    """


@context.command()
@click.argument("name")
@click.option("--target", required=True, help="The server: HOST:PORT or unix:PATH, or several separated by commas.")
@click.option(
    "--token", help="An API key or a JSON Web Token, stored in the file of contexts; '-' reads it from standard input."
)
@click.option("--token-file", type=_FILE, help="A file that holds the token, read by each command.")
@click.option("--insecure-token", is_flag=True, help="Allow sending the token in plain text to another machine.")
@click.option("--tls", is_flag=True, help="Use TLS, trusting gRPC's default certificate authorities.")
@click.option("--tls-ca", type=_FILE, help="Use TLS, trusting the certificate authorities in this file, PEM.")
@click.option("--tls-client-cert", type=_FILE, help="Client certificate, PEM.")
@click.option("--tls-client-key", type=_FILE, help="Private key of the client certificate, PEM.")
@click.option(
    "--use", is_flag=True, help="Make it the default for commands that name no server. The first context always is."
)
@click.option("--replace", is_flag=True, help="Replace the existing context with this name.")
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
    """Add a context. The file of contexts is readable only by its owner.

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
        raise click.UsageError(f"context {name!r} already exists: give --replace, or choose another name")
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
    click.echo(f"context {name} was saved in {contexts.path}")


@context.command()
@click.argument("name", required=False)
@click.option("--none", "forget", is_flag=True, help="Use no context.")
def use(name: str | None, forget: bool) -> None:
    """Make a context the default for commands that name no server.

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
