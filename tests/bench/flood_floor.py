"""The floor of a flood: a consumer that parses what comes and acks it, one by one, and no more.

Says "ready" once it consumes, and after every so many acks when that was (`time.monotonic`, the
same clock for every process of the machine).
"""

import asyncio
import json
import os
import time

import aio_pika
from aio_pika.abc import AbstractIncomingMessage


async def main() -> None:
    """Consume until the process is ended."""
    count = int(os.environ["FLOOR_COUNT"])
    acked = 0
    connection = await aio_pika.connect(os.environ["FLOOR_BROKER_URL"])
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=int(os.environ["FLOOR_PREFETCH"]))
    queue = await channel.get_queue(os.environ["FLOOR_QUEUE"])

    async def take(message: AbstractIncomingMessage) -> None:
        nonlocal acked
        json.loads(message.body)
        await message.ack()
        acked += 1
        if acked % count == 0:
            print(time.monotonic(), flush=True)

    await queue.consume(take)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
