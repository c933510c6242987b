"""The compose files and `.env.example` say the same, and hold no password that others know."""

import re
import stat
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FILES: Final = ("docker-compose.yml", "deploy/docker-compose.dind.yml")
OWN: Final = {"COMPOSE_PROJECT_NAME"}
"""What Compose reads by itself."""
SECRETS: Final = {"BROKER_PASSWORD", "HTTP_TOKEN", "GRAFANA_PASSWORD"}
"""Without a default: nothing starts before they are chosen."""
UNSET: Final = ":?make env"
"""How the compose files ask for them, with the command that answers."""


def choices(file: str) -> set[tuple[str, str]]:
    """Return every variable of the compose file with its default."""
    found = re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / file).read_text(encoding="utf-8"))
    inside = file.startswith("deploy/")
    return {(name, value.replace("./", "./deploy/") if inside else value) for name, value in found}


def example() -> list[tuple[str, str]]:
    """Return the lines of .env.example that set something, also those commented out."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return re.findall(r"(?m)^#?([A-Z_]+)=(.*)$", text)


def make_env(folder: Path) -> str:
    """Have `make env` write in a copy of the project; return the file."""
    for name in ("deploy/fresh-env", ".env.example"):
        (copy := folder / name).parent.mkdir(exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    script = folder / "deploy" / "fresh-env"
    subprocess.run(["/bin/sh", script], check=True, capture_output=True, timeout=30)
    return (folder / ".env").read_text(encoding="utf-8")


def test_every_choice_is_told_with_its_default() -> None:
    """In .env.example, commented out; paths are told from the project's folder."""
    told = {choice for choice in example() if choice[0] not in OWN | SECRETS}

    assert told == {choice for file in FILES for choice in choices(file)}


def test_a_variable_without_a_default_is_a_secret_that_has_to_be_chosen() -> None:
    """Nothing starts with a password that stands in this project."""
    texts = [(ROOT / file).read_text(encoding="utf-8") for file in FILES]
    bare = {found for text in texts for found in re.findall(r"\$\{?(\w+)(?!\w|:-)", text)}
    asked = {
        found for text in texts for found in re.findall(rf"\$\{{(\w+){re.escape(UNSET)}", text)
    }

    assert bare == asked == SECRETS
    assert {value for name, value in example() if name in SECRETS} == {""}


def test_no_page_or_file_shows_a_password_to_be_kept() -> None:
    """Examples leave it out, or say where it comes from."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("*.yml"), ROOT / ".env.example"]
    pages += [path for path in (ROOT / "deploy").rglob("*") if path.suffix in {".md", ".yml"}]

    assert [str(page) for page in pages if "change-me" in page.read_text(encoding="utf-8")] == []


def test_make_env_writes_fresh_secrets_for_this_user_alone(tmp_path: Path) -> None:
    """Each is another one, long enough, fit for a URL; everything else is as in the example."""
    (one := tmp_path / "one").mkdir()
    (other := tmp_path / "other").mkdir()

    texts = make_env(one), make_env(other)

    found = [re.findall(r"(?m)^([A-Z_]+)=([A-Za-z0-9]{32})$", text) for text in texts]
    values = [value for pairs in found for _, value in pairs]
    assert [{name for name, _ in pairs} for pairs in found] == [SECRETS, SECRETS]
    assert len(set(values)) == 2 * len(SECRETS)
    assert stat.S_IMODE((one / ".env").stat().st_mode) == 0o600
    assert "\n#HTTP_PORT=8080\n" in texts[0]


def test_make_env_keeps_what_was_chosen(tmp_path: Path) -> None:
    """A second time it changes nothing: the broker's data knows the first password only."""
    before = make_env(tmp_path)

    assert make_env(tmp_path) == before
