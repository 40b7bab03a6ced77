"""KEDA's external scaler: whether a function is wanted, pushed at once, and by how much.

KEDA passes over pushes that say "not wanted": it learns that by asking, and waits for its cooldownPeriod. A push may be
lost while a ScaledObject is new, so it is repeated until there is a pod. From then on it is repeated now and then only,
as KEDA writes the ScaledObject's status for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from fleetfn.errors import FleetError, UsageError
from fleetfn_plumbing.tls import AUTHORITY, CERTIFICATE, KEY, TlsFolder
from fleetfn_spec.cluster import SCALER, SCALER_CONCURRENCY, SCALER_FUNCTION

from fleetfn_gateway.cluster import scaler_messages as messages
from fleetfn_gateway.cluster.demand import Demand
from fleetfn_gateway.cluster.scaler_messages import Asked, Figure, ScaledObject

if TYPE_CHECKING:
    from grpc import aio

log = logging.getLogger("fleetfn.gateway")

AGAIN = 0.2
"""Seconds between pushes while a wanted function has no pod."""

AWAKE = 2.0
"""Seconds between pushes while it has: each is a write for KEDA."""

LOOK = 1.0
"""Seconds between looks whether a function that nothing was told of is wanted even so."""

METRIC = "work"

SERVICE = "externalscaler.ExternalScaler"

_GRACE = 0.5
"""Seconds that calls have at the end."""

_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.keepalive_time_ms", 20_000),  # a KEDA whose machine is gone would keep its streams
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
]

T = TypeVar("T")


class Scaler:
    """Use on one loop, from `open` to `close`. Callers other than SCALER are refused."""

    def __init__(self, demand: Demand, certificates: TlsFolder) -> None:
        self.port = 0
        self._demand = demand
        self._certificates = certificates
        self._server: aio.Server | None = None
        self._ending = False

    async def open(self, host: str, port: int) -> None:
        """Port 0 takes a free one and keeps it in `port`. Raises FleetError."""
        import grpc  # noqa: PLC0415 - 20 MiB that nothing else here needs
        from grpc import aio  # noqa: PLC0415 - likewise

        server = aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((self._handlers(grpc),))
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = server.add_secure_port(where, self._credentials(grpc))
        except RuntimeError as error:
            raise FleetError(f"the scaler cannot serve at {where}: {error}") from error
        await server.start()
        self._server = server

    async def close(self) -> None:
        self._ending = True
        self._demand.tell_all()  # streams never end by themselves
        if self._server is not None:
            await self._server.stop(_GRACE)

    def _handlers(self, grpc: Any) -> Any:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        who, metrics = messages.scaled_object, messages.asked
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "IsActive": unary(self._checked(self._is_active), who, messages.active),
                "StreamIsActive": stream(self._stream, who, messages.active),
                "GetMetricSpec": unary(self._checked(self._spec), who, messages.figures),
                "GetMetrics": unary(self._checked(self._metrics), metrics, messages.figures),
            },
        )

    def _credentials(self, grpc: Any) -> Any:
        """Asked for at each handshake, so that renewed certificates hold. Raises UsageError."""
        folder = self._certificates.folder

        def read() -> tuple[bytes, ...]:
            return tuple((folder / name).read_bytes() for name in (KEY, CERTIFICATE, AUTHORITY))

        def configuration(key: bytes, certificate: bytes, authority: bytes) -> Any:
            return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

        try:
            known = read()
        except OSError as error:
            raise UsageError(f"the certificates in {str(folder)!r} cannot be read: {error}") from error

        def newer() -> Any:
            nonlocal known
            try:
                now = read()
            except OSError:  # a renewal is half done
                return None
            if now == known:
                return None
            known = now
            return configuration(*now)

        return grpc.dynamic_ssl_server_credentials(configuration(*known), newer, require_client_authentication=True)

    # The calls

    def _checked(
        self, answer: Callable[[T], Awaitable[Any]]
    ) -> Callable[[T, aio.ServicerContext[Any, Any]], Awaitable[Any]]:
        async def call(asked: T, context: aio.ServicerContext[Any, Any]) -> Any:
            await _check(context)
            try:
                return await answer(asked)
            except FleetError as error:
                await _abort(context, "UNAVAILABLE", error.message)

        return call

    async def _is_active(self, who: ScaledObject) -> bool:
        return self._demand.wanted(_function(who))

    async def _spec(self, who: ScaledObject) -> list[Figure]:
        """By the ScaledObject's own metadata: KEDA asks once for each of its versions."""
        try:
            target = float(who.metadata.get(SCALER_CONCURRENCY, "1"))
        except ValueError:
            target = 1.0
        return [Figure(METRIC, max(target, 1.0))]

    async def _metrics(self, asked: Asked) -> list[Figure]:
        return [Figure(asked.metric or METRIC, self._demand.amount(_function(asked.who)))]

    async def _stream(self, who: ScaledObject, context: aio.ServicerContext[Any, Any]) -> AsyncIterator[bool]:
        await _check(context)
        function = _function(who)
        log.info("%s: KEDA listens", function)
        with self._demand.listening(function) as news:
            while not self._ending:
                news.clear()
                rest = LOOK
                with contextlib.suppress(FleetError):  # rows cannot be counted now
                    if self._demand.wanted(function):
                        yield True
                        rest = AGAIN if self._demand.starting(function) else AWAKE
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest):
                        await news.wait()


def _function(who: ScaledObject) -> str:
    return who.metadata.get(SCALER_FUNCTION) or who.name


async def _check(context: aio.ServicerContext[Any, Any]) -> None:
    names = context.auth_context().get("x509_common_name", [])
    if list(names) != [SCALER.encode()]:
        shown = b", ".join(names).decode(errors="replace")
        await _abort(context, "PERMISSION_DENIED", f"{shown!r} is not {SCALER!r}: KEDA alone may ask")


async def _abort(context: aio.ServicerContext[Any, Any], code: str, why: str) -> NoReturn:
    import grpc  # noqa: PLC0415 - as above

    await context.abort(grpc.StatusCode[code], why)
    raise AssertionError
