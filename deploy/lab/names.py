"""Names of a run's own on broker and engine, so that it meets nobody and leaves nothing behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aio_pika

_CALL_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Names:
    """What one consumer calls its things; all begin with the prefix."""

    prefix: str

    @property
    def tenant_exchange(self) -> str:
        return f"{self.prefix}.tenants"

    @property
    def queue(self) -> str:
        return f"{self.prefix}.consumer"

    @property
    def status_exchange(self) -> str:
        return f"{self.prefix}.status"

    @property
    def dead_letter(self) -> str:
        return f"{self.prefix}.dead-letter"

    @property
    def label(self) -> str:
        """The label, and its value, of everything the consumer makes on the engine."""
        return f"{self.prefix}.owner={self.prefix}"

    def container(self, tenant_id: str) -> str:
        """Return the container name of the tenant."""
        return f"{self.prefix}-tenant-{tenant_id}"

    def environment(
        self, *, broker_url: str, docker_host: str, folder: Path, http_port: int
    ) -> Mapping[str, str]:
        """Return the settings of a consumer with these names, as environment variables."""
        settings = {
            "BROKER__URL": broker_url,
            "BROKER__TENANT_EXCHANGE": self.tenant_exchange,
            "BROKER__QUEUE": self.queue,
            "BROKER__STATUS_EXCHANGE": self.status_exchange,
            "BROKER__DEAD_LETTER": self.dead_letter,
            "COMPUTE__DOCKER__HOST": docker_host,
            "COMPUTE__DOCKER__LABEL_PREFIX": self.prefix,
            # The lab's registries are on the loopback, where none is asked that is not named.
            "COMPUTE__POLICY__IMAGES": "*, 127.0.0.1:*/*",
            "INSTANCE": self.prefix,
            "LEDGER__URL": f"sqlite:///{folder / 'landlord.db'}",
            "HTTP__HOST": "127.0.0.1",
            "HTTP__PORT": str(http_port),
            "LOG__FORMAT": "json",
        }
        return {f"LANDLORD_{key}": value for key, value in settings.items()}


async def remove_names(broker_url: str, names: Names) -> None:
    """Take away everything with these names from the broker; what is not there is no error."""
    connection = await aio_pika.connect(broker_url, timeout=_CALL_SECONDS)
    async with connection:
        channel = await connection.channel()
        for queue in (names.queue, names.dead_letter):
            await channel.queue_delete(queue, timeout=_CALL_SECONDS)
        for exchange in (names.tenant_exchange, names.status_exchange, names.dead_letter):
            await channel.exchange_delete(exchange, timeout=_CALL_SECONDS)
