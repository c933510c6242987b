"""Reading a page: what is below a heading, what is to be typed, where links can lead."""

import re
from pathlib import Path


def anchors(page: Path) -> set[str]:
    """Return the anchor of each heading of a Markdown page."""
    prose = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    headings = re.findall(r"(?m)^#+ (.+)$", prose)
    return {re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in headings}


def section(text: str, title: str) -> str:
    """Return the text below the heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"no section {title}"
    return found[1]


def snippets(text: str) -> list[str]:
    """Return what is set as something to type: console blocks and code spans."""
    found = re.findall(r"^```console\n(.*?)^```|`([^`\n]+)`", text, re.DOTALL | re.MULTILINE)
    return [block or span for block, span in found]


def script(block: str) -> str:
    """Return a console block as a shell reads it: without the prompts."""
    return re.sub(r"(?m)^\$ ", "", block)
