"""Proxies, and targets on this machine, which must not be reached through one.

gRPC reads proxies from the environment, and uses them for loopback targets too. A proxy resolves a loopback address to
itself, and can read what is sent in plain text.
"""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

DIRECT: tuple[tuple[str, int | str], ...] = (
    ("grpc.enable_http_proxy", 0),
    # The option above doesn't turn off the proxy of GRPC_ADDRESS_HTTP_PROXY.
    ("grpc.address_http_proxy_enabled_addresses", ""),
)
"""The options of a channel that uses no proxy, whatever the environment says."""

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Where gRPC looks for a proxy: the first variable that is set counts, even if it is empty."""
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def is_local(target: str) -> bool:
    """Returns whether a direct connection to the target stays on this machine.

    Only addresses that this machine resolves by itself count: names with another authority or scheme may be anywhere.
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    if target.startswith(("ipv4:", "ipv6:")):
        return all(is_local(address) for address in target.partition(":")[2].split(","))
    if target.startswith("dns:"):
        target = target.removeprefix("dns:").removeprefix("///")
    try:
        host = urlsplit(f"//{target}").hostname or ""
    except ValueError:
        return False
    if "/" in target:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_variable(target: str) -> str | None:
    """Returns the environment variable whose proxy gRPC would use for a target that isn't local, or None.

    The rules are gRPC's own (its http_proxy_mapper.cc). A value that gRPC would reject counts as a proxy here.
    """
    if os.environ.get("GRPC_ADDRESS_HTTP_PROXY") and os.environ.get("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES"):
        return "GRPC_ADDRESS_HTTP_PROXY"  # applies to addresses, which aren't known before names are resolved
    variable = next((name for name in _PROXIES if name in os.environ), None)
    if variable is None or not os.environ[variable] or target.startswith(("unix:", "vsock:")):
        return None
    exceptions = next((os.environ[name] for name in _EXCEPTIONS if name in os.environ), "")
    return None if _is_excepted(_host(target), exceptions) else variable


def _host(target: str) -> str:
    """Returns the host of a target as gRPC reads it: for a list of addresses, the whole list."""
    scheme = re.match(r"(dns|ipv4|ipv6|xds|google-c2p):", target)
    path = target[scheme.end() :] if scheme else target
    if path.startswith("//"):
        path = path[2:].partition("/")[2]
    if path.startswith("["):
        return path[1:].partition("]")[0]
    return path.partition(":")[0] if path.count(":") == 1 else path


def _is_excepted(host: str, exceptions: str) -> bool:
    """Returns whether the exceptions contain a host, its domain or its network. Old versions of gRPC match more."""
    for exception in (entry.strip().lower() for entry in exceptions.split(",")):
        domain = exception.removeprefix(".")
        if domain and f".{host.lower()}".endswith(f".{domain}"):
            return True
        if "/" in exception:
            try:
                if ipaddress.ip_address(host) in ipaddress.ip_network(exception, strict=False):
                    return True
            except ValueError:
                continue
    return False
