"""The endpoints: access first, then the body, then the supervisor is asked and its answer told.

Constraint: every endpoint is a coroutine, and nothing here starts a thread, opens a file or waits for
anything but the connection and the channel: in the gateway's cell nothing else works.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from anchorhold.gateway import access, anthropic, chat, completions, embeddings, responses
from anchorhold.gateway.access import Caller, Listener
from anchorhold.gateway.answer import dump
from anchorhold.gateway.asking import Asking, Limits
from anchorhold.gateway.connection import Connection, connection_of
from anchorhold.gateway.errors import ApiError, Gone
from anchorhold.gateway.fields import Fields, parse
from anchorhold.gateway.link import Link, Message, Pending
from anchorhold.gateway.metrics import Metrics

Read = Callable[[Fields, str, Limits], Asking]

SERVING = ("serving", "idle")
MOST_DISCARDED = 16 << 20
"""Bytes over the limit that are still read, so that the client hears why instead of a broken connection."""

READERS: dict[str, Read] = {
    "/v1/chat/completions": chat.read,
    "/v1/completions": completions.read,
    "/v1/embeddings": lambda fields, policy, _limits: embeddings.read(fields, policy),
    "/v1/responses": responses.read,
    "/v1/messages": anthropic.read,
}
OPEN = ("/health", "/ready")
"""They say no more than that somebody is there, so no token is asked for."""


class App:
    """The ASGI application. One for all listeners; the connection says which one a request came in by."""

    def __init__(self, link: Link, metrics: Metrics) -> None:
        self.link, self.metrics = link, metrics
        routes = [
            Route("/v1/models", self._models),
            Route("/v1/models/{name}", self._model),
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/metrics", self._metrics),
        ]
        routes += [Route(path, self._ask, methods=["POST"]) for path in READERS]
        self._paths = {route.path for route in routes}
        self._router = Router(routes, redirect_slashes=False, default=_nothing_there)
        self._gaps: dict[str, tuple[float, float]] = {}
        """Policy → when its last answer ended, and the usual seconds from one end to the next."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = connection_of(scope)
        listener = connection.listener
        path = scope["path"]
        origin: str | None = None
        endpoint = path if path in self._paths else "other"
        sent = _Sent(send, self.metrics, endpoint)
        try:
            headers: access.Headers = scope["headers"]
            access.check_head(headers)
            access.check_host(listener, headers)
            origin = access.check_origin(listener, headers)
            sent.headers = access.cors(origin)
            if scope["method"] == "OPTIONS" and origin is not None:
                await _plain(204, b"", access.preflight(origin, headers))(scope, receive, send)
                return
            if self.link.draining and path not in OPEN:
                raise ApiError(503, self.link.draining, code="stopping", close=True)
            caller = Caller(connection.peer, listener.policies)
            if path not in OPEN:
                caller = access.identify(listener, connection.peer, headers)
            scope["app"] = self  # so that Starlette raises what it refuses
            scope["caller"] = caller
            await self._router(scope, receive, sent)
        except Gone:
            self.metrics.left += 1
        except HTTPException as error:
            await _refuse(
                ApiError(error.status_code, f"{error.detail}.", code="not_here"), scope, receive, sent
            )
        except ApiError as error:
            if error.status in (401, 403, 413, 415, 429):
                self.metrics.refused[error.code or "other"] += 1
            await _refuse(error, scope, receive, sent)
        except Exception as error:
            _say(error)
            if sent.started:
                connection.transport.abort()
            else:
                await _refuse(ApiError(500, "The gateway failed.", code="internal"), scope, receive, sent)

    # ---- what is there ------------------------------------------------------------------------

    def _visible(self, request: Request) -> list[Message]:
        caller: Caller = request.scope["caller"]
        return [self.link.policies[name] for name in caller.policies if name in self.link.policies]

    async def _models(self, request: Request) -> Response:
        models = [_model_object(policy) for policy in self._visible(request)]
        return _json(200, {"object": "list", "data": models})

    async def _model(self, request: Request) -> Response:
        return _json(200, _model_object(self._policy(request, request.path_params["name"])))

    async def _health(self, request: Request) -> Response:
        return _json(200, {"status": "ok"})

    async def _ready(self, request: Request) -> Response:
        names = connection_of(request.scope).listener.policies
        ready = not self.link.draining and all(
            self.link.policies.get(name, {}).get("state") in SERVING for name in names
        )
        return _json(200 if ready else 503, {"status": "ready" if ready else "not ready"})

    async def _metrics(self, request: Request) -> Response:
        page = self.metrics.text(self._visible(request), self.link.in_flight)
        return _plain(200, page.encode(), [("content-type", "text/plain; version=0.0.4; charset=utf-8")])

    def _policy(self, request: Request, name: str) -> Message:
        for policy in self._visible(request):
            if policy["name"] == name:
                return policy
        raise ApiError(
            404, "There is no such model here; /v1/models lists those there are.", code="model_not_found",
            param="model",
        )  # fmt: skip

    # ---- asking -------------------------------------------------------------------------------

    async def _ask(self, request: Request) -> Response:
        connection = connection_of(request.scope)
        listener = connection.listener
        try:
            access.check_json(request.scope["headers"])
            body = await _body(request, listener)
            began = time.monotonic()
            fields = parse(body)
            policy = self._policy(request, fields.text("model", required=True))
            limits = Limits(listener.max_tokens, policy["context"])
            asking = READERS[request.url.path](fields, policy["name"], limits)
            if asking.kind == "embed" and not policy["embeddings"]:
                raise ApiError(400, "This model makes no embeddings.", code="unsupported", param="model")
            self._check_queue(policy["name"], listener)
        except ApiError as error:
            if request.url.path == "/v1/messages" and error.status == 400:
                return _error(error, anthropic.refusal(error))
            raise
        caller: Caller = request.scope["caller"]
        pending = self.link.ask(asking.kind, asking.policy, caller.principal, asking.fields)
        connection.on_gone = pending.abandon
        if connection.transport.is_closing():
            pending.abandon()
        return _Telling(self, connection, pending, asking, began)

    def _check_queue(self, policy: str, listener: Listener) -> None:
        """Raises ApiError 429 where as many as may are waiting. When to come again is a guess."""
        waiting = self.link.in_flight[policy]
        if waiting > listener.queue:
            _last, gap = self._gaps.get(policy, (0.0, 1.0))
            raise ApiError(
                429,
                f"{waiting} requests are waiting; try again later.",
                code="queue_full",
                retry_after=max(1, min(60, math.ceil(gap * waiting / 4))),
            )

    def ended(self, policy: str) -> None:
        """An answer has ended: so the time between two of them is known."""
        now = time.monotonic()
        last, gap = self._gaps.get(policy, (now, 1.0))
        self._gaps[policy] = (now, 0.8 * gap + 0.2 * min(60.0, now - last))


class _Telling(Response):
    """An answer on its way: whole, or as events while it comes."""

    def __init__(
        self, app: App, connection: Connection, pending: Pending, asking: Asking, began: float
    ) -> None:
        self.app, self.connection, self.pending, self.asking = app, connection, pending, asking
        self.began = began
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self.asking.stream:
                await self._stream(send)
            else:
                await self._whole(scope, receive, send)
        finally:
            self.connection.on_gone = None
            if not self.pending.ended:
                self.pending.abandon()
            else:
                self.app.ended(self.pending.policy)

    def _take(self, message: Message) -> None:
        """Raises ApiError for an answer that failed."""
        answer = self.asking.answer
        if message["type"] == "started":
            answer.name = message["name"]
        elif message["type"] == "failed":
            raise _failure(message)
        else:
            if message["type"] in ("token", "call", "embedding") and self.began:
                self.app.metrics.first_token(self.pending.policy, time.monotonic() - self.began)
                self.began = 0.0
            if message["type"] == "done":
                self.app.metrics.used(self.pending.policy, message["prompt_tokens"], message["output_tokens"])
                if message["reason"] == "cancelled":
                    raise ApiError(503, "The answer was stopped before its end.", code="cancelled")
            answer.take(message)

    def _named(self) -> list[tuple[str, str]]:
        name = self.asking.answer.name
        return [("x-request-id", name)] if name else []

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        asking = self.asking
        try:
            while not asking.answer.done:
                for message in await self.pending.some():
                    self._take(message)
        except ApiError as error:
            response = _error(error, asking.shape.refusal(error), self._named())
        else:
            response = _json(200, asking.shape.whole(asking.answer), self._named())
        await response(scope, receive, send)

    async def _stream(self, send: Send) -> None:
        asking, answer = self.asking, self.asking.answer
        opened = False
        try:
            while not answer.done:
                out = bytearray()
                for message in await self.pending.some():
                    self._take(message)
                    if message["type"] == "started":
                        await self._begin(send)
                        opened = True
                        out += asking.shape.opening(answer)
                    elif message["type"] != "done":
                        out += asking.shape.piece(answer, message)
                if answer.done:
                    out += asking.shape.closing(answer)
                if out:
                    await self._send(send, bytes(out), more=not answer.done)
                elif answer.done:
                    await self._send(send, b"", more=False)
        except ApiError as error:
            if opened:
                await self._send(send, asking.shape.broken(error), more=False)
                return
            response = _error(error, asking.shape.refusal(error))
            await response({"type": "http"}, _no_receive, send)

    async def _begin(self, send: Send) -> None:
        headers = [
            ("content-type", "text/event-stream; charset=utf-8"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
            *self._named(),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": _raw(headers)})

    async def _send(self, send: Send, body: bytes, *, more: bool) -> None:
        if self.connection.transport.is_closing():
            raise Gone
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _no_receive() -> Any:
    raise AssertionError


class _Sent:
    """The way out: adds headers for the page that asks, counts, and knows whether an answer has begun."""

    def __init__(self, send: Send, metrics: Metrics, endpoint: str) -> None:
        self._send, self._metrics, self._endpoint = send, metrics, endpoint
        self.headers: list[tuple[str, str]] = []
        self.started = False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._metrics.answered(self._endpoint, message["status"])
            message["headers"] = [*message.get("headers", ()), *_raw(self.headers)]
        await self._send(message)


def _raw(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(key.encode("latin-1"), value.encode("latin-1", "replace")) for key, value in headers]


def _plain(status: int, body: bytes, headers: list[tuple[str, str]]) -> Response:
    found = Response(body, status)
    if status != 204:
        headers = [*headers, ("content-length", str(len(body)))]
    found.raw_headers = _raw([*headers, ("cache-control", "no-store"), ("x-content-type-options", "nosniff")])
    return found


def _json(status: int, value: Any, headers: list[tuple[str, str]] | None = None) -> Response:
    return _plain(status, dump(value), [("content-type", "application/json"), *(headers or [])])


def _error(error: ApiError, body: Any, headers: list[tuple[str, str]] | None = None) -> Response:
    return _json(error.status, body, [*error.all_headers(), *(headers or [])])


async def _refuse(error: ApiError, scope: Scope, receive: Receive, sent: _Sent) -> None:
    if sent.started:
        return
    body = anthropic.refusal(error) if scope["path"] == "/v1/messages" else error.body()
    await _error(error, body)(scope, receive, sent)


async def _nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    raise ApiError(404, "There is nothing under this address.", code="unknown_url")


async def _body(request: Request, listener: Listener) -> bytes:
    """The whole body. Raises ApiError 413 over the limit, Gone when the client left."""
    limit = listener.max_body
    size = 0
    parts: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise Gone
        piece = message.get("body", b"")
        size += len(piece)
        if size <= limit:
            parts.append(piece)
        elif parts:
            parts.clear()
        if size > limit + MOST_DISCARDED or not message.get("more_body", False):
            break
    if size > limit:
        raise ApiError(
            413, f"The body is over {limit} bytes (api.max_body).", code="body_too_large", close=True
        )
    return b"".join(parts)


CODES = {"context_exceeded": "context_length_exceeded", "not_supported": "unsupported"}


def _failure(message: Message) -> ApiError:
    after = message["retry_after"]
    return ApiError(
        message["status"],
        message["message"],
        code=CODES.get(message["code"], message["code"]) or None,
        retry_after=None if after is None else max(1, math.ceil(after)),
    )


def _model_object(policy: Message) -> Message:
    return {
        "id": policy["name"],
        "object": "model",
        "created": policy["created"],
        "owned_by": "anchorhold",
        "anchorhold": {
            "state": policy["state"],
            "model_sha256": policy["model_sha256"],
            "context": policy["context"],
            "embeddings": policy["embeddings"],
        },
    }


def _say(error: BaseException) -> None:
    """Where and what kind, never its text: that may hold a prompt."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = "" if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}: "
    os.write(2, f"{where}{type(error).__name__}\n".encode("utf-8", "replace"))


def quietly(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The event loop's handler of what nobody caught."""
    error = context.get("exception")
    if isinstance(error, BaseException) and not isinstance(error, (OSError, Gone)):
        _say(error)
