"""The compose files and `.env.example` say the same."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FILES: Final = ("docker-compose.yml", "deploy/docker-compose.dind.yml")
OWN: Final = {"COMPOSE_PROJECT_NAME"}
"""What Compose reads by itself."""


def choices(file: str) -> set[tuple[str, str]]:
    """Return every variable of the compose file with its default."""
    found = re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / file).read_text(encoding="utf-8"))
    inside = file.startswith("deploy/")
    return {(name, value.replace("./", "./deploy/") if inside else value) for name, value in found}


def test_every_choice_is_told_with_its_default() -> None:
    """In .env.example, commented out; paths are told from the project's folder."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    told = set(re.findall(r"(?m)^#?([A-Z_]+)=(.*)$", text))

    assert {choice for choice in told if choice[0] not in OWN} == {
        choice for file in FILES for choice in choices(file)
    }


def test_no_variable_lacks_a_default() -> None:
    """Without .env everything starts."""
    texts = [(ROOT / file).read_text(encoding="utf-8") for file in FILES]

    assert [found for text in texts for found in re.findall(r"\$(?!\{\w+:-)", text)] == []
