"""A proxy in front of an S3 server that does to its answers what networks do.

    python faulty.py UPSTREAM PORT RULES LOG

``RULES`` is a JSON file that is read at every request: a list of
``{"kind", "method", "path", "times", "skip", "chance"}``. A rule applies to requests of its method whose path and
query contain its text, after the first ``skip`` of them, ``times`` times at most, each with a chance. Kinds:

    503       answer SlowDown without asking the server
    cut       close the connection without asking the server
    delay     wait before asking the server
    truncate  send the headers and half of the body, then close
    lost      ask the server, then close instead of answering: the write was done
    hang      ask nobody and answer nothing

Every fault is written to ``LOG`` as a JSON line.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

from aiohttp import ClientSession, TCPConnector, web
from yarl import URL

SLOW_DOWN = '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
HOP = {"transfer-encoding", "connection", "keep-alive", "content-encoding"}
DELAY_SECONDS = 0.5


class Proxy:
    """Forwards requests, and breaks those that a rule names."""

    def __init__(self, upstream: str, rules: Path, log: Path) -> None:
        self.upstream, self.rules, self.log = upstream, rules, log
        self.seen: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.dice = random.Random(7)

    def fault(self, request: web.Request) -> str | None:
        """Kind of the first rule that applies now."""
        for rule in json.loads(self.rules.read_text()):
            key = json.dumps(rule, sort_keys=True)
            if (
                rule.get("method", request.method) != request.method
                or rule.get("path", "") not in request.raw_path
            ):
                continue
            self.seen[key] += 1
            if self.seen[key] <= rule.get("skip", 0) or self.done[key] >= rule.get("times", 1):
                continue
            if self.dice.random() >= rule.get("chance", 1):
                continue
            self.done[key] += 1
            line = {
                "time": time.time(),
                "kind": rule["kind"],
                "method": request.method,
                "path": request.raw_path,
            }
            with self.log.open("a") as log:
                log.write(json.dumps(line) + "\n")
            return rule["kind"]
        return None

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        kind = self.fault(request)
        if kind == "503":
            await request.read()
            return web.Response(status=503, text=SLOW_DOWN, content_type="application/xml")
        if kind == "cut":
            return self._close(request)
        if kind == "hang":
            await asyncio.sleep(3600)
        if kind == "delay":
            await asyncio.sleep(DELAY_SECONDS)
        body = await request.read()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP}
        async with self.session.request(
            request.method,
            URL(self.upstream + request.raw_path, encoded=True),
            headers=headers,
            data=body,
            allow_redirects=False,
        ) as answer:
            data = await answer.read()
            back = {k: v for k, v in answer.headers.items() if k.lower() not in HOP}
            status = answer.status
        if kind == "lost":
            return self._close(request)
        if request.method == "HEAD":
            head = web.StreamResponse(status=status, headers=back)
            await head.prepare(request)
            return head
        if kind == "truncate" and len(data) > 1:
            response = web.StreamResponse(status=status, headers=back | {"Content-Length": str(len(data))})
            await response.prepare(request)
            await response.write(data[: len(data) // 2])
            return self._close(request, response)
        back.pop("Content-Length", None)
        return web.Response(status=status, headers=back, body=data)

    @staticmethod
    def _close(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return response or web.Response(status=500)

    async def run(self, port: int) -> None:
        """Serve until killed."""
        async with ClientSession(connector=TCPConnector(limit=200), auto_decompress=False) as self.session:
            app = web.Application(client_max_size=2**31)
            app.router.add_route("*", "/{path:.*}", self)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            await asyncio.Event().wait()


if __name__ == "__main__":
    upstream, port, rules, log = sys.argv[1:]
    asyncio.run(Proxy(upstream, Path(rules), Path(log)).run(int(port)))
