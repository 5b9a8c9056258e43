"""Connections of commands to a running server, by address, TLS and token from options or a context."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from checkpointd_server.cli.contexts import Context, Contexts
from checkpointd_server.cli.option_types import Seconds, setting, stacked
from checkpointd_server.cli.proxies import DIRECT, is_local, proxy_variable
from checkpointd_server.cli.remote_tls import read_credentials, why_it_fails
from checkpointd_server.config import DEFAULT_TARGET

Answer = TypeVar("Answer")

MAX_WAIT = 60.0
"""How long a command waits in all for an overloaded server or a quota, in seconds."""

_SCHEMES = re.compile(r"(unix|unix-abstract|vsock|dns|ipv4|ipv6|xds|google-c2p):.")
"""Targets with a scheme that gRPC resolves."""
_HOST_PORT = re.compile(r"(?:\[[^\[\]]+\]|[^:/\[\]\s]+):([0-9]{1,5})")

_FILE = click.Path(path_type=Path)

access_options = (
    setting("--token", help="An API key or a JSON Web Token. Prefer the environment variable."),
    setting(
        "--insecure-token/--no-insecure-token",
        default=False,
        help="Allow sending the token in plain text to another machine, on a network that something else protects, "
        "such as a service mesh. It is never sent through a proxy.",
    ),
    setting("--tls/--no-tls", default=False, help="Use TLS, trusting gRPC's default certificate authorities."),
    setting("--tls-ca", type=_FILE, help="Use TLS, trusting the certificate authorities in this file, PEM."),
    setting("--tls-client-cert", type=_FILE, help="Client certificate, PEM."),
    setting("--tls-client-key", type=_FILE, help="Private key of the client certificate, PEM."),
)

_remote_options = stacked(
    setting(
        "--target",
        default=DEFAULT_TARGET,
        show_default=f"this machine at CHECKPOINTD_LISTEN, else the context in use, else {DEFAULT_TARGET}",
        help="The server: HOST:PORT or unix:PATH. Of several, separated by commas, `health` checks each; other "
        "commands use the first that answers.",
    ),
    setting(
        "--context",
        help="A server added by `checkpointd context add`, with its token and TLS files; those of the environment are "
        "ignored then.",
    ),
    *access_options,
    click.option(
        "--timeout",
        type=Seconds(zero=False),
        default=5.0,
        show_default=True,
        help="How long to wait for each answer of the server, in seconds.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The server that a command talks to, or several of which any will do."""

    target: str
    """HOST:PORT or unix:PATH, or several separated by commas."""
    context: str | None = None
    """The name of the context that this comes from."""
    token: str | None = field(default=None, repr=False)
    insecure_token: bool = False
    tls: bool = False
    tls_ca: Path | None = None
    tls_client_cert: Path | None = None
    tls_client_key: Path | None = None
    timeout: float
    """For each call, in seconds."""

    @property
    def targets(self) -> list[str]:
        """The list of servers. Raises UsageError."""
        return list_targets(self.target)

    @property
    def where(self) -> str:
        """The server as confirmation prompts name it."""
        return self.target if self.context is None else f"{self.target} (context {self.context})"

    def ask(self, question: Callable[[Any], Answer], *, is_long: bool = False) -> Answer:
        """Calls `question` with a channel to the first server that answers, and returns the result.

        Args:
            question: Makes the calls.
            is_long: Whether there are many, so each must survive a restart of the server and long waits for quotas.

        Raises:
            ClickException: The server answered with an error, or none answered.
        """
        silent: list[NoAnswer] = []
        for target in self.targets:
            try:
                with self.open_channel(target, is_long=is_long) as channel:
                    return question(channel)
            except NoAnswer as error:
                silent.append(error)
        if len(silent) == 1:
            raise silent[0]
        raise click.ClickException(
            f"no answer from checkpointd at any of {len(silent)} servers: {'; '.join(error.where for error in silent)}"
        )

    @contextmanager
    def open_channel(self, target: str, *, is_long: bool = False) -> Iterator[Any]:
        """Opens a channel to one server. Errors of calls on it become messages that name the target."""
        import grpc

        from checkpointd_server.cli.refusals import name_option, why_no_answer
        from checkpointd_server.remote.refusals import Refusal
        from checkpointd_server.remote.retries import Retries, RetryInterceptor

        token = _usable(self.token)
        encrypted = self.tls or self.tls_ca is not None
        has_certificate = self.tls_client_cert is not None
        exposed = token is not None and not encrypted and not is_local(target)
        if exposed:
            _check_exposed(target, allowed=self.insecure_token)
        if has_certificate != (self.tls_client_key is not None) or (has_certificate and not encrypted):
            raise click.UsageError("a certificate needs --tls-client-cert, --tls-client-key, and --tls or --tls-ca")
        options: list[tuple[str, int | str]] = [("grpc.max_receive_message_length", -1)]
        if exposed or is_local(target):
            options += DIRECT
        if encrypted:
            credentials = read_credentials(self.tls_ca, self.tls_client_cert, self.tls_client_key)
            channel = grpc.secure_channel(target, credentials, options=options)
        else:
            channel = grpc.insecure_channel(target, options=options)
        # Shared by all calls of a command, so it limits their total wait.
        of_command = Retries(tries=1, max_wait=MAX_WAIT)
        make_retries = Retries if is_long else lambda: of_command

        def tell(why: str) -> None:
            click.echo(f"waiting for {target}: {why}", err=True)

        with channel:
            try:
                retrying = grpc.intercept_channel(channel, RetryInterceptor(make_retries, tell))
                yield _with_token(retrying, token) if token else retrying
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    details = error.details() or ""
                    if Refusal.of_call(error).reason:
                        # Only checkpointd attaches details to UNAVAILABLE.
                        raise NoAnswer(target, details, is_there=True) from error
                    explained = why_it_fails(details, tls=encrypted, certificate=has_certificate)
                    why = explained or why_no_answer(error, self.timeout)
                    raise NoAnswer(target, why, is_explained=explained is not None) from error
                if (misused := name_option(error)) is not None:
                    raise misused from error
                problem = f"checkpointd at {target} answered {error.code().name}: {error.details()}"
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    problem += " (--token, or CHECKPOINTD_TOKEN)" if self.context is None else f" ({self.where})"
                raise click.ClickException(problem) from error


def remote_options(*listen: str) -> Callable[[Callable[..., None]], Any]:
    """Adds the options that name a server. The command gets `remote`, a `Remote`.

    Args:
        listen: The variables that may hold the addresses of a server on this machine. Default: CHECKPOINTD_LISTEN.
    """

    def decorate(command: Callable[..., None]) -> Any:
        @functools.wraps(command)
        def resolved(
            *,
            target: str,
            context: str | None,
            token: str | None,
            insecure_token: bool,
            tls: bool,
            tls_ca: Path | None,
            tls_client_cert: Path | None,
            tls_client_key: Path | None,
            timeout: float,
            **others: Any,
        ) -> None:
            given = Remote(
                target=target,
                token=token,
                insecure_token=insecure_token,
                tls=tls,
                tls_ca=tls_ca,
                tls_client_cert=tls_client_cert,
                tls_client_key=tls_client_key,
                timeout=timeout,
            )
            command(remote=_resolve(given, context, listen or ("CHECKPOINTD_LISTEN",)), **others)

        return _remote_options(resolved)

    return decorate


def _resolve(given: Remote, context: str | None, listen: tuple[str, ...]) -> Remote:
    """Returns the server that the command line names, else the environment, else the context in use.

    A context is used as a whole: a token in the environment belongs to another server.
    """
    by_option = click.core.ParameterSource.COMMANDLINE
    if _source("context") is by_option and _source("target") is by_option:
        raise click.UsageError("give either --context or --target: both name the server")
    if context is not None and (_source("context") is by_option or _source("target") is not by_option):
        return _merge(Contexts.load().get(context), given)
    if _source("target") is not click.core.ParameterSource.DEFAULT:
        return given
    if (local := _local_target(*listen)) is not None:
        return dataclasses.replace(given, target=local)
    current = Contexts.load().current_context()
    return given if current is None else _merge(current, given)


def _merge(context: Context, given: Remote) -> Remote:
    """Returns a context's server, with settings overridden by the command line."""
    chosen = Remote(
        target=context.target,
        context=context.name,
        token=context.read_token(),
        insecure_token=context.insecure_token,
        tls=context.tls,
        tls_ca=context.tls_ca,
        tls_client_cert=context.tls_client_cert,
        tls_client_key=context.tls_client_key,
        timeout=given.timeout,
    )
    names = ("token", "insecure_token", "tls", "tls_ca", "tls_client_cert", "tls_client_key")
    stated = [name for name in names if _source(name) is click.core.ParameterSource.COMMANDLINE]
    return dataclasses.replace(chosen, **{name: getattr(given, name) for name in stated})


def _source(option: str) -> click.core.ParameterSource | None:
    return click.get_current_context().get_parameter_source(option)


def _local_target(*variables: str) -> str | None:
    """Returns the address of this machine's server from the first of these variables that is set."""
    addresses = next((found for variable in variables if (found := os.environ.get(variable, "").split())), None)
    if addresses is None:
        return None
    host, _, port = addresses[0].rpartition(":")
    loopback = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
    return f"{loopback.get(host, host)}:{port}"


class NoAnswer(click.ClickException):
    """A server could not be reached, or can't answer.

    Args:
        target: The server.
        why: What is wrong.
        is_explained: Whether `why` says what to do about it.
        is_there: Whether the server itself answered that it can't.
    """

    def __init__(self, target: str, why: str, *, is_explained: bool = False, is_there: bool = False) -> None:
        self.where = f"{target}: {why}"
        advice = ""
        if not is_explained and not is_there:
            advice = " (`checkpointd serve` starts a server; --target names another one)"
        what = "checkpointd can't answer" if is_there else "no answer from checkpointd"
        super().__init__(f"{what} at {self.where}{advice}")


def list_targets(target: str) -> list[str]:
    """Returns the servers that a --target lists. Raises UsageError."""
    if target.startswith(("ipv4:", "ipv6:")):
        # gRPC itself takes such a list of addresses.
        return [target]
    targets = [one.strip() for one in target.split(",")]
    if not all(targets):
        raise click.UsageError(f"the target {target!r} lacks a server: it is HOST:PORT, or several separated by commas")
    for one in targets:
        match = _HOST_PORT.fullmatch(one)
        if not _SCHEMES.match(one) and (match is None or int(match[1]) > 65535):
            # gRPC would use port 443 for a name without a port, and 1 for 65537.
            given = "that was given" if "@" in one else repr(one)  # a URL may hold a password
            raise click.UsageError(
                f"the target {given} is not an address: it is HOST:PORT, with a port up to 65535, or unix:PATH"
            )
    return targets


def _usable(token: str | None) -> str | None:
    """Returns a token without surrounding white space: files end in a newline. Raises UsageError."""
    token = (token or "").strip()
    if not re.fullmatch(r"[ -~]*", token):
        raise click.UsageError(
            "--token (CHECKPOINTD_TOKEN): holds a character that can't be sent, such as a line break; "
            "a token is one line of ASCII"
        )
    return token or None


def _with_token(channel: Any, token: str) -> Any:
    import grpc

    class Bearer(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):  # type: ignore[misc]  # no types
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            metadata = [*(details.metadata or ()), ("authorization", f"Bearer {token}")]
            return continuation(details._replace(metadata=metadata), request)

        intercept_stream_stream = intercept_unary_unary

    return grpc.intercept_channel(channel, Bearer())


def _check_exposed(target: str, *, allowed: bool) -> None:
    """Warns of a token that leaves the machine unencrypted. Raises UsageError if it must not."""
    if not allowed:
        raise click.UsageError(
            f"the token would be sent in plain text to {target}: give --tls or --tls-ca, or --insecure-token if "
            "something else protects the network"
        )
    if (variable := proxy_variable(target)) is not None:
        raise click.UsageError(
            f"the token would be sent in plain text through the proxy of the environment variable {variable}: "
            f"give --tls or --tls-ca, or add the host of {target} to no_proxy"
        )
    click.echo(f"warning: the token is sent in plain text to {target}, as --insecure-token allows", err=True)
