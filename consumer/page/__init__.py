"""The operator's page: plain files beside this one, joined into the one document a browser gets.

There is nothing to fetch beside it: with a token set no other path answers a browser, which sends
no header by itself. The document holds no data and no secret; its script reads everything by the
API. The policy lets the browser run and apply what stands here, by its digest, and nothing else.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

_STYLE: Final = re.compile(r'<link rel="stylesheet" href="([a-z.]+)">')
_SCRIPT: Final = re.compile(r'<script src="([a-z.]+)"></script>')
_POLICY: Final = (
    "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'; "
)


@dataclass(frozen=True, slots=True)
class Page:
    """The document, its entity tag, and the Content-Security-Policy it is served with."""

    body: bytes
    etag: str
    policy: str


@cache
def load() -> Page:
    """Return the page."""
    digests: dict[str, list[str]] = {"style": [], "script": []}

    def inlined(tag: str, found: re.Match[str]) -> str:
        content = _read(found[1])
        if f"</{tag}" in content:
            raise ValueError(f"{found[1]} holds the end of its own element")
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        digests[tag].append(f"'sha256-{digest}'")
        return f"<{tag}>{content}</{tag}>"

    text = _STYLE.sub(lambda found: inlined("style", found), _read("index.html"))
    text = _SCRIPT.sub(lambda found: inlined("script", found), text)
    sources = "; ".join(f"{tag}-src {' '.join(found)}" for tag, found in digests.items())
    body = text.encode()
    return Page(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', _POLICY + sources)


def _read(name: str) -> str:
    return (resources.files(__name__) / name).read_text(encoding="utf-8")
