"""What is installed is what is locked, by version and hash, whichever way it is installed."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
FILES: Final = (
    "requirements.txt",
    "deploy/requirements/opentelemetry.txt",
    "deploy/requirements/build.txt",
    "deploy/requirements/uv.txt",
)
UV: Final = ROOT / ".lab" / "uv" / "bin" / "uv"
INSTALLERS: Final = ("deploy/bootstrap", "deploy/Dockerfile", "README.md")
SECONDS: Final = 60


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the files that pip takes, made anew from uv.lock."""
    folder = tmp_path_factory.mktemp("locks")
    script = ROOT / "deploy" / "export-locks"
    subprocess.run([script, folder], check=True, capture_output=True, timeout=SECONDS)
    return folder


def locked(name: str) -> dict[str, Any]:
    """Return what uv.lock has of the package."""
    (package,) = [line for line in LOCK["package"] if line["name"] == name]
    return dict(package)


def hashes(package: dict[str, Any]) -> set[str]:
    """Return the hashes of all the package's files."""
    files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    return {file["hash"] for file in files}


def pinned(file: str) -> Iterator[tuple[str, str, set[str]]]:
    """Give name, version and hashes of everything that a file for pip names."""
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"(?m)^[a-z].*$", text):
        name, version = re.match(r"([\w.-]+)==(\S+)", line).groups()  # type: ignore[union-attr]
        yield name, version, set(re.findall(r"--hash=(\S+)", line))


@pytest.mark.parametrize("file", FILES)
def test_the_files_for_pip_are_what_the_lock_exports(exported: Path, file: str) -> None:
    """`make lock` writes them anew."""
    expected = (exported / file).read_text(encoding="utf-8")

    assert (ROOT / file).read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("file", FILES)
def test_everything_has_the_hashes_of_the_lock(file: str) -> None:
    """No package comes without, and none with another's."""
    found = list(pinned(file))

    assert found
    for name, version, hashed in found:
        assert version == locked(name)["version"]
        assert hashed
        assert hashed == hashes(locked(name))


@pytest.mark.parametrize("file", INSTALLERS)
def test_nothing_is_installed_without_hashes(file: str) -> None:
    """Each `pip install` has them, or takes nothing but this project, built by what is locked."""
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    installs = re.findall(r"(?m)^[^#\n]*\bpip\b[^\n&]*? install [^\n&]*", text)

    assert installs
    assert [
        line
        for line in installs
        if "--require-hashes" not in line
        and not ("--no-deps" in line and ("--no-build-isolation" in line or "--no-index" in line))
    ] == []


def test_the_project_is_built_by_what_is_locked() -> None:
    """Not by whatever is the newest back end on that day."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (back_end,) = project["build-system"]["requires"]

    assert project["tool"]["uv"]["no-build-isolation-package"] == ["landlord-consumer"]
    assert back_end in project["dependency-groups"]["build"]


def test_the_bill_of_materials_has_everything_that_is_installed() -> None:
    """Each package with version and hashes, and nothing else."""
    words = ("--frozen", "--no-dev", "--no-emit-project", "--format", "cyclonedx1.5")
    outcome = subprocess.run(
        [UV, "export", "--quiet", *words, "--preview-features", "sbom-export"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=SECONDS,
    )
    bill = json.loads(outcome.stdout)

    assert bill["bomFormat"] == "CycloneDX"
    assert {
        (part["name"], part["version"], part["purl"], frozenset(told_hashes(part)))
        for part in bill["components"]
    } == {
        (name, version, f"pkg:pypi/{name}@{version}", frozenset(hashed))
        for name, version, hashed in pinned("requirements.txt")
    }


def test_an_audit_that_cannot_ask_fails() -> None:
    """It says so, and is never taken for a clean one."""
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:1", "UV_HTTP_RETRIES": "0"}
    outcome = subprocess.run(
        ["make", "audit"],
        cwd=ROOT,
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )

    assert outcome.returncode != 0
    assert "or OSV could not be asked" in outcome.stderr


def told_hashes(part: dict[str, Any]) -> Iterator[str]:
    """Give the hashes that the bill tells of a package."""
    for reference in part["externalReferences"]:
        for told in reference["hashes"]:
            yield f"{told['alg'].replace('-', '').lower()}:{told['content']}"
