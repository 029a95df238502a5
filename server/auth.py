"""Who calls: API keys where the settings hold some, admin keys for what changes the server, and each caller's quota."""

import secrets
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_network

from pydantic import SecretStr
from starlette.requests import HTTPConnection

from server.quota import current_caller


class UnauthorizedError(Exception):
    """No API key, or a wrong one."""


class ForbiddenError(Exception):
    """This caller may tag, but not change what is served."""


async def require_api_key(connection: HTTPConnection) -> None:
    """Passes callers with `Authorization: Bearer <key>` or `X-API-Key: <key>`, and everybody where no key is set.

    What is more than a look (GET) is counted against the caller's quota.

    Raises: UnauthorizedError, RateLimitedError.
    """
    service = connection.app.state.service
    keys = [*service.settings.api_keys, *service.settings.admin_keys]
    if service.settings.api_keys:
        caller = f"key {_position(_sent_key(connection), keys)}"  # never the key itself: callers may reach a log
    else:
        caller = f"address {_network(connection.client.host) if connection.client else ''}"
    current_caller.set(caller)
    if connection.scope.get("method") != "GET":
        service.quota.enter(caller)


async def require_admin_key(connection: HTTPConnection) -> None:
    """Passes callers who send one of the admin keys, as API keys are sent; nobody where none is set.

    Raises: ForbiddenError, UnauthorizedError.
    """
    settings = connection.app.state.service.settings
    if not settings.admin_keys:
        raise ForbiddenError("models cannot be changed on this server; to allow it, set HARK_ADMIN_KEYS")
    keys = [*settings.admin_keys, *settings.api_keys]
    if _position(_sent_key(connection), keys) >= len(settings.admin_keys):
        raise ForbiddenError("this API key may not change models or classes; send an admin key")


def _sent_key(connection: HTTPConnection) -> str:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    sent = token.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key", "")
    if not sent:
        raise UnauthorizedError("send an API key, as 'Authorization: Bearer <key>' or as 'X-API-Key: <key>'")
    return sent


def _network(host: str) -> str:
    """The address; of IPv6 the /64 around it, for whoever has one of its addresses has them all."""
    try:
        address = IPv6Address(host)
    except ValueError:  # IPv4, a Unix socket, or a test's name
        return host
    return str(address.ipv4_mapped or ip_network((int(address), 64), strict=False))


def _position(sent: str, keys: Sequence[SecretStr]) -> int:
    """Where the key stands among these; every one is compared, so that the time tells nothing.

    Raises: UnauthorizedError where it is none of them.
    """
    sent_bytes = sent.encode("latin-1")  # as they came: headers are read as Latin-1, whatever the caller meant
    matches = [secrets.compare_digest(sent_bytes, key.get_secret_value().encode()) for key in keys]
    if True not in matches:
        raise UnauthorizedError("the API key is wrong")
    return matches.index(True)
