"""A registry that has one image and hands out its layer a byte at a time, for ever if need be."""

import asyncio
import gzip
import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from deploy.lab.servers import DockerHost

_LAYER: Final = gzip.compress(os.urandom(20_000))
_CONFIG: Final = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
).encode()
_MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _part(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "size": len(content), "digest": _digest(content)}


_MANIFEST: Final = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPE,
        "config": _part("application/vnd.docker.container.image.v1+json", _CONFIG),
        "layers": [_part("application/vnd.docker.image.rootfs.diff.tar.gzip", _LAYER)],
    }
).encode()


@asynccontextmanager
async def trickling_registry(host: DockerHost, *, pause_seconds: float) -> AsyncIterator[str]:
    """Give the image's name; its layer comes with a pause after each byte."""
    writers: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await _answer(await reader.readuntil(b"\r\n\r\n"), writer, pause_seconds)
        writer.transport.abort()

    listening = host.listen()
    server = await asyncio.start_server(take, sock=listening)
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}/trickle:1"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.05)


async def _answer(request: bytes, writer: asyncio.StreamWriter, pause_seconds: float) -> None:
    method, path, *_ = request.split()
    content, content_type = _MANIFEST, _MANIFEST_TYPE
    if path == b"/v2/":
        content, content_type = b"{}", "application/json"
    elif b"/blobs/" in path:
        content_type = "application/octet-stream"
        content = _CONFIG if path.endswith(_digest(_CONFIG).encode()) else _LAYER
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\n"
        f"Docker-Content-Digest: {_digest(content)}\r\n\r\n"
    )
    writer.write(head.encode())
    if method == b"HEAD":
        return
    if content is not _LAYER:
        writer.write(content)
        return
    for byte in content:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(pause_seconds)
