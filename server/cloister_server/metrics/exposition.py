# SPDX-License-Identifier: Apache-2.0
"""Where Prometheus reads: HTTP/1.1 on an address of its own, GET /metrics and nothing else.

In plain text on loopback; with `[metrics] client_ca`, TLS with the site's certificate for clients of that authority.
A connection asks once.  What it may send and how long it may take are bounded: this door has no roster behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from cloister_server.config import Config
from cloister_server.errors import StartError
from cloister_server.journal import Journal
from cloister_server.metrics.gauges import SiteGauges
from cloister_server.site import Site

_REQUEST_SECONDS = 10.0
_REQUEST_BYTES = 8 * 1024


@contextlib.asynccontextmanager
async def exposed(site: Site) -> AsyncIterator[int | None]:
    """Answer scrapes inside this context; the value is the port, None where nothing is configured.

    Raises StartError.
    """
    address = site.config.metrics_address
    if address is None:
        yield None
        return
    host, _, port = address.rpartition(":")

    registry = site.metrics.registry
    registry.register(SiteGauges(site))

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _converse(reader, writer, lambda: site.blocking.run(generate_latest, registry))

    context = _context(site.config, site.journal)
    try:
        server = await asyncio.start_server(converse, host.strip("[]"), int(port), ssl=context, limit=_REQUEST_BYTES)
    except OSError as error:
        raise StartError(f"[metrics] address: {address} cannot be listened on: {error.strerror}") from error
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, page: Callable[[], Awaitable[bytes]]
) -> None:
    """One request and its answer; whoever is slow, long or gone gets none."""
    with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(_REQUEST_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await _answer(head.split(b"\r\n", 1)[0].split(b" "), page))
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _answer(request: list[bytes], page: Callable[[], Awaitable[bytes]]) -> bytes:
    if len(request) != 3 or request[0] != b"GET":
        return _response("405 Method Not Allowed", "text/plain", b"GET /metrics\n")
    if request[1].partition(b"?")[0] != b"/metrics":
        return _response("404 Not Found", "text/plain", b"GET /metrics\n")
    return _response("200 OK", CONTENT_TYPE_LATEST, await page())


def _response(status: str, content_type: str, body: bytes) -> bytes:
    lines = (
        f"HTTP/1.1 {status}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii") + body


def _context(config: Config, journal: Journal) -> ssl.SSLContext | None:
    """TLS that demands a client certificate, and shows the newest good certificate.  Raises StartError."""
    if config.metrics_client_ca is None:
        return None
    try:
        newest = _make(config)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"[metrics] TLS cannot be set up with [tls] and [metrics] client_ca: {error}") from error
    seen = config.tls_certificate.stat().st_mtime_ns

    def renewed(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        """For each handshake: follow a certificate file that was replaced."""
        nonlocal newest, seen
        with contextlib.suppress(FileNotFoundError):
            stamp = config.tls_certificate.stat().st_mtime_ns
            if stamp != seen:
                try:
                    newest, seen = _make(config), stamp
                except (OSError, ssl.SSLError) as error:
                    journal.failure("metrics_tls_reload_failed", error)
        connection.context = newest

    first = newest
    first.sni_callback = renewed
    return first


def _make(config: Config) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=config.metrics_client_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(config.tls_certificate, config.tls_key)
    return context
