"""Where a link into a page can lead."""

import re
from pathlib import Path


def anchors(page: Path) -> set[str]:
    """Return the anchor of each heading of a Markdown page."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in headings}
