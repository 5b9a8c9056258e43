"""The settings of who may connect, and as whom."""

from __future__ import annotations

from pathlib import Path

import click

from checkpointd_server.cli.option_types import Seconds, setting, stacked
from checkpointd_server.domain.access import AccessOptions, JwtOptions, TlsFiles

_DEFAULTS = AccessOptions()
_JWT = JwtOptions()
_FILE = click.Path(path_type=Path)

access_settings = stacked(
    setting("--tls-cert", type=_FILE, help="The server's certificate chain, PEM. Read again when it changes."),
    setting("--tls-key", type=_FILE, help="The certificate's private key, PEM. Read again when it changes."),
    setting(
        "--tls-client-ca",
        type=_FILE,
        help="Authorities of clients' certificates, PEM: nobody connects without one. Read again when it changes.",
    ),
    setting(
        "--keys-file",
        type=_FILE,
        help="API keys, hashed, and certificates that are identities; `checkpointd keys new` makes its entries. Read "
        "again when it changes.",
    ),
    setting(
        "--jwt-keys",
        type=_FILE,
        help="Public keys that JSON Web Tokens are checked with: a JWKS, or PEM. Read again when it changes.",
    ),
    setting("--jwt-jwks-url", metavar="URL", help="Where the tokens' issuer publishes its keys, https://..."),
    setting("--jwt-issuer", metavar="TEXT", help="What a token's `iss` must be."),
    setting(
        "--jwt-audience",
        multiple=True,
        metavar="TEXT",
        help="What a token's `aud` must name. May be given several times; in the environment, parted by spaces.",
    ),
    setting(
        "--jwt-tenant-claim",
        default=_JWT.tenant_claim,
        show_default=True,
        help="The claim that holds the tenant.",
    ),
    setting(
        "--jwt-scope-claim",
        default=_JWT.scope_claim,
        show_default=True,
        help="The claim that holds the scopes: words in a text, or a list.",
    ),
    setting(
        "--jwt-leeway",
        type=Seconds(zero=True),
        default=_JWT.leeway,
        show_default=True,
        help="By how much the issuer's clock may differ, in seconds.",
    ),
    setting(
        "--open-health/--no-open-health",
        default=_DEFAULTS.open_health,
        show_default=True,
        help="Whether health needs no token.",
    ),
    setting(
        "--open-reflection/--no-open-reflection",
        default=_DEFAULTS.open_reflection,
        show_default=True,
        help="Whether reflection needs no token.",
    ),
    setting(
        "--insecure-without-tls/--no-insecure-without-tls",
        default=_DEFAULTS.insecure_without_tls,
        show_default=True,
        help="Allow --listen on addresses that other machines reach although nothing is encrypted, tokens neither.",
    ),
    setting(
        "--insecure-without-tokens/--no-insecure-without-tokens",
        default=_DEFAULTS.insecure_without_tokens,
        show_default=True,
        help="Allow --listen on addresses that other machines reach although nobody is asked who calls.",
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
    """Puts the settings together. Raises click.UsageError where one lacks another."""
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
