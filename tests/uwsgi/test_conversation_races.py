"""Functions, their clients, others and reloads end connections at once, hundreds of times: nothing of them is left."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage

from processes import wait_until

APPLICATION = Path(__file__).parent / "racing.py"
# How a connection ends, and the close code that the client sees then; 1001 while uWSGI reloads.
WAYS = {
    "return": 1000,
    "raise": 1011,
    "close": 4000,
    "terminate": 1006,
    "another closes": 4001,
    "another terminates": 1006,
    "another receives": 1000,
    "client closes": 4321,
    "client aborts": 1006,
}
CONNECTIONS = 450  # altogether
AT_ONCE = 100
PATIENCE = 60  # seconds


async def one_client(url, way):
    """Ends in a way; checks that nothing was lost or doubled before, and returns the close code."""
    sent = random.randrange(1, 30)
    received = []
    async with connect(url, compression=None, open_timeout=PATIENCE, close_timeout=PATIENCE) as client:
        try:
            for number in range(sent):
                await client.send(f"on {number}")
            if way == "client closes":
                received += [await client.recv() for _ in range(sent)]
                await client.close(4321)
            elif way == "client aborts":
                client.transport.abort()
            else:
                await client.send(f"{way} {sent}")
                for number in range(sent + 1, sent + 20):
                    await client.send(f"on {number}")
            while True:
                received.append(await client.recv())
        except ConnectionClosed:
            pass
    assert received == [str(number) for number in range(len(received))]
    return client.close_code


async def all_clients(uwsgi, reload):
    """How often a way ended with a close code."""
    at_once = asyncio.Semaphore(AT_ONCE)
    ends = Counter()

    async def start(number, way):
        async with at_once:
            if reload and number == CONNECTIONS // 2:
                uwsgi.popen.send_signal(signal.SIGHUP)
            try:
                code = await one_client(f"{uwsgi.url}/racing", way)
            except InvalidMessage:  # a handshake that uWSGI has dropped, whose worker was about to end
                if not reload:
                    raise
                code = await one_client(f"{uwsgi.url}/racing", way)
            ends[way, code] += 1

    ways = list(WAYS) * (CONNECTIONS // len(WAYS))
    await asyncio.wait_for(asyncio.gather(*(start(number, way) for number, way in enumerate(ways))), PATIENCE)
    return ends


@pytest.mark.parametrize("reload", [False, True], ids=["", "reload"])
def test_nothing_is_left_of_conversations_however_they_end(serve, reload):
    uwsgi = serve("--listen", "100", application=APPLICATION)
    ends = asyncio.run(all_clients(uwsgi, reload))
    assert sum(ends.values()) == CONNECTIONS
    unexpected = {end for end in ends if end[1] != WAYS[end[0]] and not (reload and end[1] == 1001)}
    assert not unexpected
    latest = {}

    def nothing_is_left():
        latest.update(json.loads(urllib.request.urlopen(f"http://{uwsgi.address}/", timeout=10).read()))
        return not any(latest.values())

    try:
        wait_until(nothing_is_left, "nothing to be left", 10)
    except TimeoutError:
        raise AssertionError(latest) from None
    assert uwsgi.output.count("RuntimeError: on purpose") == uwsgi.output.count("Traceback")
    assert "still running" not in uwsgi.output
    assert "still open" not in uwsgi.output
