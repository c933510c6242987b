"""Asks a running consumer's HTTP API, for the command line."""

import json

import aiohttp

from consumer.errors import ConsumerError

_SECONDS = 10.0


async def ask(base_url: str, path: str, *, token: str | None) -> tuple[int, dict[str, object]]:
    """Return status code and JSON of a GET. Raises ConsumerError when nobody answers in JSON."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(base_url + path, headers=headers) as response,
        ):
            document = json.loads(await response.text())
            status = response.status
    except TimeoutError as error:
        raise ConsumerError(f"{base_url} gave no answer within {_SECONDS:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ConsumerError(
            f"{base_url} cannot be asked; does the consumer run? ({error})"
        ) from error
    except ValueError as error:
        raise ConsumerError(f"{base_url}{path} did not answer in JSON") from error
    if not isinstance(document, dict):
        raise ConsumerError(f"{base_url}{path} did not answer with an object")
    return status, document
