# SPDX-License-Identifier: BSD-3-Clause
"""A TCP link that takes its time: what comes in goes out so many milliseconds later, either way.

    delay_proxy.py HOST:PORT MILLISECONDS

Prints the port of 127.0.0.1 that it listens at. It carries as much as fits; only the time is long.
"""
import asyncio
import sys

PIECE = 256 << 10


async def carry(reader, writer, delay):
    loop = asyncio.get_running_loop()
    on_the_way = asyncio.Queue()

    async def deliver():
        while True:
            due, piece = await on_the_way.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if not piece:
                return
            writer.write(piece)
            await writer.drain()

    delivery = asyncio.ensure_future(deliver())
    try:
        while True:
            piece = await reader.read(PIECE)
            on_the_way.put_nowait((loop.time() + delay, piece))
            if not piece:
                break
        await delivery
    except OSError:
        delivery.cancel()
    writer.close()


async def main(address, milliseconds):
    host, port = address.rsplit(':', 1)

    async def serve(reader, writer):
        there_reader, there_writer = await asyncio.open_connection(host, int(port), limit=PIECE)
        delay = float(milliseconds) / 1000
        await asyncio.gather(carry(reader, there_writer, delay),
                             carry(there_reader, writer, delay))

    server = await asyncio.start_server(serve, '127.0.0.1', 0, limit=PIECE)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


try:
    asyncio.run(main(*sys.argv[1:]))
except KeyboardInterrupt:
    pass
