"""A venue on a loopback port, in a thread with its own event loop."""

import asyncio
import importlib
import json
import threading
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong at some requests: an answer in place of the venue's, a reset, or a body that is cut.

    ``at`` holds request numbers counted from 1; ``every`` spoils each n-th one (and not two in a row by itself).
    """

    at: tuple = ()
    every: int = 0
    status: int = 0
    body: object = "down for a moment"
    headers: tuple = ()
    reset: bool = False
    cut: bool = False

    def hits(self, number):
        return number in self.at or (self.every > 0 and number % self.every == 0)


class FakeVenue:
    """``with FakeVenue("binance", model) as venue: ... venue.url``; ``log`` keeps (number, method, path, parameters).

    ``quirks`` go to the venue's module; ``on_request`` is called with the number of each request before its answer.
    """

    def __init__(self, name, model, *, faults=(), quirks=(), on_request=None):
        self.name, self.model, self.faults = name, model, list(faults)
        self.quirks = frozenset(quirks)
        self.on_request = on_request
        self.log = []
        self._answer = importlib.import_module(f"fake_venues.{name}").answer
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        self._runner = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = "http://{}:{}".format(*runner.addresses[0][:2])
        return runner

    async def _stop(self):
        await self._runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for _ in range(5):  # closed transports let go of their sockets in the turns that follow
            await asyncio.sleep(0)

    async def _handle(self, request):
        params = dict(request.query)
        if request.can_read_body:
            params |= json.loads(await request.text())
        number = len(self.log) + 1
        self.log.append((number, request.method, request.path, params))
        if self.on_request:
            self.on_request(number)
        fault = next((one for one in self.faults if one.hits(number)), None)
        if fault and fault.reset:
            request.transport.abort()
            return web.Response()
        if fault and fault.status:
            text = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
            kind = "text/plain" if isinstance(fault.body, str) else "application/json"
            return web.Response(status=fault.status, text=text, content_type=kind, headers=dict(fault.headers))
        status, answer = self._answer(self.model, request.method, request.path, params, self.quirks)
        data = json.dumps(answer).encode()
        if fault and fault.cut:
            response = web.StreamResponse(status=status, headers={"content-type": "application/json"})
            response.content_length = len(data)
            await response.prepare(request)
            await response.write(data[: len(data) // 2])
            request.transport.close()
            return response
        return web.Response(status=status, body=data, content_type="application/json")
