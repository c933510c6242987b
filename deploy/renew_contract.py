"""Write the contract's documents, with the names that hold by default (`make contract`)."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from consumer.app import DISTRIBUTION
from consumer.contract import asyncapi, status_event_schema, tenant_event_schema
from consumer.settings import Settings
from consumer.wiring import broker_names

FOLDER: Final = Path(__file__).parent / "contract"


def documents() -> Mapping[str, str]:
    """Return each document's text by its file name."""
    return {
        "tenant-event.json": json.dumps(tenant_event_schema(), indent=2) + "\n",
        "status-event.json": json.dumps(status_event_schema(), indent=2) + "\n",
        "asyncapi.yaml": asyncapi(broker_names(Settings()), version=version(DISTRIBUTION)),
    }


def main() -> None:
    """Write them all."""
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"deploy/contract/{name}")


if __name__ == "__main__":
    main()
