"""How the commands that ask a running server reach it: its address, TLS, and the token."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from checkpointd_server.config import DEFAULT_TARGET
from checkpointd_server.options import setting, stacked

Answer = TypeVar("Answer")

_FILE = click.Path(path_type=Path)

channel_settings = stacked(
    setting(
        "--target",
        default=DEFAULT_TARGET,
        show_default=True,
        help="The server: HOST:PORT or unix:PATH. Several, separated by commas: any of them that answers.",
    ),
    setting("--token", help="An API key or a JSON Web Token. Better given in the environment."),
    setting("--tls/--no-tls", default=False, help="Speak TLS, trusting the authorities that grpc trusts."),
    setting("--tls-ca", type=_FILE, help="Speak TLS, trusting these authorities, PEM."),
    setting("--tls-client-cert", type=_FILE, help="A certificate to show to the server, PEM."),
    setting("--tls-client-key", type=_FILE, help="Its private key, PEM."),
)


class NoAnswer(click.ClickException):
    """A server could not be asked."""

    def __init__(self, target: str, details: str) -> None:
        super().__init__(
            f"no answer from checkpointd at {target}: {details} (`checkpointd serve` starts a server, --target names "
            "another one)"
        )
        self.where = f"{target}: {details}"


def list_targets(target: str) -> list[str]:
    """Returns the servers of a --target, each by itself. Raises UsageError."""
    if target.startswith(("ipv4:", "ipv6:")):
        # A list of addresses that grpc takes as it is.
        return [target]
    targets = [one.strip() for one in target.split(",")]
    if not all(targets):
        raise click.UsageError(
            f"the target {target!r} names no server: it is HOST:PORT, or several with commas between"
        )
    return targets


def ask(target: str, question: Callable[[Any], Answer], **how: Any) -> Answer:
    """Returns what the first server that answers says; the question is put to it on a channel.

    Raises:
        ClickException: It answered with an error, or none of them answered.
    """
    targets = list_targets(target)
    silent: list[NoAnswer] = []
    for one in targets:
        try:
            with open_channel(one, **how) as channel:
                return question(channel)
        except NoAnswer as error:
            silent.append(error)
    if len(silent) == 1:
        raise silent[0]
    raise click.ClickException(
        f"no answer from checkpointd at any of {len(silent)} servers: {'; '.join(error.where for error in silent)}"
    )


@contextmanager
def open_channel(
    target: str,
    *,
    token: str | None,
    tls: bool,
    tls_ca: Path | None,
    tls_client_cert: Path | None,
    tls_client_key: Path | None,
) -> Iterator[Any]:
    """A channel to one server. What a call on it fails with becomes a line that names the target."""
    import grpc

    encrypted = tls or tls_ca is not None
    if token and not encrypted and not _on_this_machine(target):
        raise click.UsageError(f"the token would be sent in plain text to {target}: give --tls or --tls-ca")
    if (tls_client_cert is None) != (tls_client_key is None) or (tls_client_cert is not None and not encrypted):
        raise click.UsageError("a certificate needs --tls-client-cert, --tls-client-key, and --tls or --tls-ca")
    options: list[tuple[str, int]] = [("grpc.max_receive_message_length", -1)]
    if _on_this_machine(target):
        options.append(("grpc.enable_http_proxy", 0))  # a proxy's loopback isn't ours
    if encrypted:
        parts = [_read(path) for path in (tls_ca, tls_client_key, tls_client_cert)]
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(*parts), options=options)
    else:
        channel = grpc.insecure_channel(target, options=options)
    with channel:
        try:
            yield _with_token(channel, token) if token else channel
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise NoAnswer(target, error.details()) from error
            problem = f"checkpointd at {target} answered {error.code().name}: {error.details()}"
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                problem += " (--token, or CHECKPOINTD_TOKEN)"
            raise click.ClickException(problem) from error


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{path} can't be read: {error.strerror}") from None


def _with_token(channel: Any, token: str) -> Any:
    import grpc

    class Bearer(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # grpc has no types
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            metadata = [*(details.metadata or ()), ("authorization", f"Bearer {token}")]
            return continuation(details._replace(metadata=metadata), request)

    return grpc.intercept_channel(channel, Bearer())


def _on_this_machine(target: str) -> bool:
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
