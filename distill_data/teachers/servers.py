"""Servers that run one model: which of them gets the next request, and what happens to those that fail.

A request goes to the server with the fewest of ours, and again to another one if that server breaks. A server that is
down, or was not up yet, is asked every few seconds, and has to prove itself before it gets requests.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson

from distill_data.errors import DistillDataError, ModelError, TeacherError
from distill_data.servers_config import Servers
from distill_data.teachers.base import Completion, Request
from distill_data.teachers.completions_api import StreamedRows

ATTEMPTS = 5  # of a request at servers that break while they have it
PAUSE_SECONDS = 1.0  # after a busy server's answer that does not say how long, doubled each time
MAX_PAUSE_SECONDS = 60.0
LOOK_SECONDS = 2.0  # between looks at a server that is down
_BUSY = (429, 503)
_MINE = (400, 404, 413, 422)  # the request's fault


class Refused(Exception):
    """No server will answer this request."""


class _Broken(Exception):
    """A server broke while it answered."""


class _Busy(_Broken):
    """A server wants to be left alone for a while."""


@dataclass
class Server:
    """One server; times are those of the monotonic clock."""

    url: str
    client: httpx2.AsyncClient
    up: bool = False
    in_flight: int = 0
    paused_until: float = 0.0
    busy_answers: int = 0  # in a row
    why: str = "not asked yet"  # it is down


class ServerFleet:
    """All servers of a teacher; used within one event loop.

    `prove` asks a server a few questions; it raises a ModelError that says what is wrong with it.
    """

    def __init__(self, settings: Servers, hang_seconds: float, prove: Callable[[Server], Awaitable[None]]) -> None:
        key = settings.api_key()
        headers = {"Content-Type": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        timeout = httpx2.Timeout(hang_seconds, connect=10.0, pool=None)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        self._servers = [
            Server(url, httpx2.AsyncClient(base_url=url, headers=headers, timeout=timeout, limits=limits))
            for url in settings.urls
        ]
        self._hang_seconds = hang_seconds
        self._prove = prove
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Look at every server; one has to be there.

        Raises:
            ModelError: one of them does not run this teacher as it has to be run.
            TeacherError: none answers.
        """
        await asyncio.gather(*(self._look_at(server) for server in self._servers))
        if not self.up:
            raise self._none()
        self._watching = asyncio.create_task(self._watch())

    @property
    def up(self) -> int:
        """How many servers are there now."""
        return sum(server.up for server in self._servers)

    async def ask(self, body: dict[str, Any], read: Callable[[httpx2.Response], Awaitable[Any]]) -> Any:
        """What `read` makes of a server's answer.

        Raises:
            Refused: the request is one that servers do not take, or ATTEMPTS of them broke with it.
            TeacherError: no server is left, or none lets us in.
        """
        broken: list[str] = []
        while len(broken) < ATTEMPTS:
            async with self._free_server() as server:
                try:
                    return await ask_server(server, body, read)
                except _Busy:
                    continue
                except (httpx2.TransportError, _Broken) as error:
                    broken.append(self._lost(server, error))
        raise Refused(f"{ATTEMPTS} servers broke with it, at last {broken[-1]}")

    @asynccontextmanager
    async def _free_server(self) -> AsyncIterator[Server]:
        """The server that has the fewest of our requests, when one is up and not busy."""
        waits_since = time.monotonic()
        while not (free := [one for one in self._servers if one.up and one.paused_until <= time.monotonic()]):
            if self.up:
                waits_since = time.monotonic()
            elif time.monotonic() - waits_since > self._hang_seconds:
                raise self._none()
            await asyncio.sleep(0.1)
        server = min(free, key=lambda one: one.in_flight)
        server.in_flight += 1
        try:
            yield server
        finally:
            server.in_flight -= 1

    def _lost(self, server: Server, error: Exception) -> str:
        server.up = False
        server.why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        _note(f"server {server.url} is left out for now: {server.why}")
        return f"{server.url} ({server.why})"

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for server in [one for one in self._servers if not one.up]:
                with suppress(DistillDataError):
                    await self._look_at(server)

    async def _look_at(self, server: Server) -> None:
        before = server.why
        try:
            await self._prove(server)
            server.up = True
            _note(f"server {server.url} is there")
        except (httpx2.TransportError, _Broken, Refused) as error:
            server.why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        except DistillDataError as error:
            server.why = str(error)
            if server.why != before:
                _note(f"server {server.url} is left out: {error}")
            raise

    def _none(self) -> TeacherError:
        reasons = "; ".join(f"{server.url}: {server.why}" for server in self._servers)
        return TeacherError(
            f"no server of teacher.engine.servers answers ({reasons}): start one, such as with `vllm serve`, and run "
            "the same command again; everything finished is kept"
        )


async def ask_server(server: Server, body: dict[str, Any], read: Callable[[httpx2.Response], Awaitable[Any]]) -> Any:
    """Ask one server for a completion; one that is busy is then paused for as long as it says.

    Raises:
        Refused: it does not take this request.
        TeacherError: it does not let us in.
        httpx2.TransportError, _Broken: it is gone, or busy, or an error of its own came.
    """
    async with server.client.stream("POST", "/completions", content=orjson.dumps(body)) as response:
        if response.status_code == 200:
            server.busy_answers = 0
            return await read(response)
        await response.aread()
    if response.status_code not in _BUSY:
        raise _failure(server, response)
    server.paused_until = time.monotonic() + _pause(response, server.busy_answers)
    server.busy_answers += 1
    raise _Busy(f"{response.status_code}: busy")


async def get_json(server: Server, path: str) -> Any:
    """A document of a server.

    Raises:
        ModelError, TeacherError: there is none.
        httpx2.TransportError, _Broken: the server is gone, or an error of its own came.
    """
    response = await server.client.get(path)
    if response.status_code == 404:
        raise ModelError(f"{server.url}{path} is not there: give the address with its /v1")
    if response.status_code != 200:
        raise _failure(server, response)
    return orjson.loads(response.content)


def read_stream(request: Request, stream: StreamedRows) -> Callable[[httpx2.Response], Awaitable[Completion]]:
    """What reads a streamed answer into `stream`.

    It raises _Broken where the stream ends before its end, or says that the server failed, and Refused where it says
    that the request is at fault.
    """

    async def read(response: httpx2.Response) -> Completion:
        stream.begin()
        ended = False
        async for event in httpx2.EventSource(response):
            if event.data == "[DONE]":
                ended = True
                continue
            chunk = orjson.loads(event.data)
            if "error" in chunk:
                raise _said_failure(chunk["error"].get("code"), _message(chunk))
            for choice in chunk["choices"]:
                stream.take(choice)
        if not ended:
            raise _Broken("its answer ended in the middle")
        return stream.completion(request)

    return read


def _failure(server: Server, response: httpx2.Response) -> Exception:
    try:
        said = _message(orjson.loads(response.content))
    except ValueError:
        said = response.text[:300]
    if response.status_code in (401, 403):
        return TeacherError(
            f"{server.url} answers {response.status_code}: set teacher.engine.servers.api_key_env to the name of an "
            "environment variable with its API key"
        )
    return _said_failure(response.status_code, said)


def _said_failure(code: int | None, said: str) -> Exception:
    """Of an answer or of an event in it: whether the request is at fault, or the server."""
    return (Refused if code in _MINE else _Broken)(f"{code}: {said}")


def _message(document: Any) -> str:
    error = document.get("error", document) if isinstance(document, dict) else document
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(message).split())[:500]


def _pause(response: httpx2.Response, times: int) -> float:
    """Seconds: those of Retry-After where they are given, else longer every time."""
    given = response.headers.get("Retry-After", "")
    wanted = float(given) if given.isdigit() else PAUSE_SECONDS * 2**times
    return min(wanted, MAX_PAUSE_SECONDS)


def _note(text: str) -> None:
    """A line for the worker's log."""
    print(text, file=sys.stderr, flush=True)
