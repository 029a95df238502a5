"""API keys: where the settings hold some, a caller must send one of them."""

import secrets

from starlette.requests import Request


class UnauthorizedError(Exception):
    """No API key, or a wrong one."""


async def require_api_key(request: Request) -> None:
    """Passes callers with `Authorization: Bearer <key>` or `X-API-Key: <key>`, and everybody where no key is set.

    Raises: UnauthorizedError.
    """
    keys = [key.get_secret_value().encode() for key in request.app.state.service.settings.api_keys]
    if not keys:
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    sent = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not sent:
        raise UnauthorizedError("send an API key, as 'Authorization: Bearer <key>' or as 'X-API-Key: <key>'")
    if not any(secrets.compare_digest(sent.encode(), key) for key in keys):
        raise UnauthorizedError("the API key is wrong")
