"""The settings of authentication and TLS."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from checkpointd_server.cli.option_types import Seconds, setting, stacked
from checkpointd_server.domain.access import AccessOptions, JwtOptions, TlsFiles

_access = partial(setting, defaults=AccessOptions())
_JWT = JwtOptions()
_FILE = click.Path(path_type=Path)

access_settings = stacked(
    setting("--tls-cert", type=_FILE, help="Certificate chain of the server, PEM. Reloaded when the file changes."),
    setting("--tls-key", type=_FILE, help="Private key of the certificate, PEM. Reloaded when the file changes."),
    setting(
        "--tls-client-ca",
        type=_FILE,
        help="Certificate authorities for client certificates, PEM. Clients without a valid certificate can't "
        "connect. Reloaded when the file changes.",
    ),
    setting(
        "--keys-file",
        type=_FILE,
        help="File of hashed API keys, and of client certificates that are identities; `checkpointd keys new` makes "
        "its entries. Reloaded when the file changes.",
    ),
    setting(
        "--jwt-keys",
        type=_FILE,
        help="Public keys that verify JSON Web Tokens: a JWKS, or PEM. Reloaded when the file changes.",
    ),
    setting("--jwt-jwks-url", metavar="URL", help="URL of the token issuer's JWKS, https://..."),
    setting("--jwt-issuer", metavar="TEXT", help="Required value of a token's `iss`."),
    setting(
        "--jwt-audience",
        multiple=True,
        metavar="TEXT",
        help="Audience that a token's `aud` must contain. May be given several times; in the environment, separated "
        "by spaces.",
    ),
    setting(
        "--jwt-tenant-claim",
        default=_JWT.tenant_claim,
        show_default=True,
        help="Claim that holds the tenant.",
    ),
    setting(
        "--jwt-scope-claim",
        default=_JWT.scope_claim,
        show_default=True,
        help="Claim that holds the scopes: a list, or a text of words.",
    ),
    setting(
        "--jwt-leeway",
        type=Seconds(zero=True),
        default=_JWT.leeway,
        show_default=True,
        help="Accepted difference from the issuer's clock, in seconds.",
    ),
    _access(
        "--open-health/--no-open-health",
        help="Serve health checks without a token.",
    ),
    _access(
        "--open-reflection/--no-open-reflection",
        help="Serve reflection without a token.",
    ),
    _access(
        "--insecure-without-tls/--no-insecure-without-tls",
        help="Allow --listen on addresses that other machines can reach, without TLS. Tokens are then sent "
        "unencrypted.",
    ),
    _access(
        "--insecure-without-tokens/--no-insecure-without-tokens",
        help="Allow --listen on addresses that other machines can reach, without authentication.",
    ),
)


def read_access(
    *,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    keys_file: Path | None,
    jwt_keys: Path | None,
    jwt_jwks_url: str | None,
    jwt_issuer: str | None,
    jwt_audience: tuple[str, ...],
    jwt_tenant_claim: str,
    jwt_scope_claim: str,
    jwt_leeway: float,
    open_health: bool,
    open_reflection: bool,
    insecure_without_tls: bool,
    insecure_without_tokens: bool,
) -> AccessOptions:
    """Combines the settings. Raises click.UsageError if one lacks another."""
    tls = None
    if tls_cert is not None and tls_key is not None:
        tls = TlsFiles(cert=tls_cert, key=tls_key, client_ca=tls_client_ca)
    elif tls_cert is not None or tls_key is not None or tls_client_ca is not None:
        raise click.UsageError("TLS needs both --tls-cert and --tls-key")
    jwt = None
    if jwt_keys is not None or jwt_jwks_url or jwt_issuer or jwt_audience:
        if not ((jwt_keys is not None or jwt_jwks_url) and jwt_issuer and jwt_audience):
            raise click.UsageError(
                "JSON Web Tokens need --jwt-issuer, --jwt-audience, and keys from --jwt-keys or --jwt-jwks-url"
            )
        jwt = JwtOptions(
            keys_file=jwt_keys,
            jwks_url=jwt_jwks_url,
            issuer=jwt_issuer,
            audiences=jwt_audience,
            tenant_claim=jwt_tenant_claim,
            scope_claim=jwt_scope_claim,
            leeway=jwt_leeway,
        )
    return AccessOptions(
        tls=tls,
        keys_file=keys_file,
        jwt=jwt,
        open_health=open_health,
        open_reflection=open_reflection,
        insecure_without_tls=insecure_without_tls,
        insecure_without_tokens=insecure_without_tokens,
    )
