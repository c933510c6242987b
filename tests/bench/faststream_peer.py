"""The peer in FastStream: makes the container that a message asks for, and says so."""

import asyncio
import os

from aiodocker import Docker
from faststream import FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue


async def serve(docker: Docker) -> None:
    """Serve until SIGTERM."""
    prefix = os.environ["PEER_PREFIX"]
    broker = RabbitBroker(
        os.environ["PEER_BROKER_URL"],
        default_channel=Channel(prefetch_count=int(os.environ["PEER_PREFETCH"])),
        logger=None,
    )

    @broker.subscriber(RabbitQueue(f"{prefix}-work", durable=True))
    async def handle(message: dict[str, object]) -> None:
        name = str(message["name"])
        made = await docker.containers.create(message["document"], name=name)  # type: ignore[arg-type]  # JSON
        await made.start()
        await broker.publish(name, f"{prefix}-answers")

    await FastStream(broker, logger=None).run()


async def main() -> None:
    """Connect to the engine, and serve."""
    async with Docker(url=os.environ["PEER_DOCKER_HOST"]) as docker:
        await serve(docker)


if __name__ == "__main__":
    asyncio.run(main())
