"""Asks a running consumer's HTTP API, for the command line."""

import asyncio
import json

import aiohttp

from consumer.errors import ConsumerError

_SECONDS = 10.0
_MOST_BYTES = 32 * 1024 * 1024
"""More than any answer of ours has."""


async def ask(base_url: str, path: str, *, token: str | None) -> tuple[int, dict[str, object]]:
    """Return status code and JSON of a GET. Raises ConsumerError when nobody answers in JSON."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            # The token is for this address alone, and not for where it may point.
            session.get(base_url + path, headers=headers, allow_redirects=False) as response,
        ):
            document = json.loads(await _read(response))
            status = response.status
    except TimeoutError as error:
        raise ConsumerError(f"{base_url} gave no answer within {_SECONDS:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ConsumerError(
            f"{base_url} cannot be asked; does the consumer run? ({error})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConsumerError(f"{base_url}{path} did not answer in JSON") from error
    if not isinstance(document, dict):
        raise ConsumerError(f"{base_url}{path} did not answer with an object")
    return status, document


async def _read(response: aiohttp.ClientResponse) -> bytes:
    try:
        await response.content.readexactly(_MOST_BYTES)
    except asyncio.IncompleteReadError as whole:
        return whole.partial
    raise ConsumerError(f"{response.url} answers with more than {_MOST_BYTES} bytes")
