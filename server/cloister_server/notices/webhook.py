# SPDX-License-Identifier: Apache-2.0
"""Delivery to a URL inside the site: one POST, any status of 200 to 299 for "taken".

The request is HTTP/1.1 on a connection of its own.  Redirects are not followed and no proxy is asked, because either
would send the notice where nobody has configured it to go; of the answer only the status line is read.

The headers are those of Standard Webhooks (https://www.standardwebhooks.com, version 1): `webhook-id`,
`webhook-timestamp` and, with a secret, `webhook-signature: v1,BASE64`, an HMAC-SHA256 over `ID.TIMESTAMP.BODY`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import re
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from cloister_server.notices.outbox import NoticeRow
from cloister_server.notices.target import TIME_LIMIT, URL, Fault

SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with
_SECRET_BYTES = range(24, 65)
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?\r?\n")
_LINE_BYTES = 8 * 1024
_CLOSE_SECONDS = 1.0


class WebhookTarget:
    """Posts to one URL."""

    name = URL

    def __init__(
        self,
        url: str,
        context: ssl.SSLContext | None,
        secret: bytes | None,
        limit_seconds: float,
        clock: Callable[[], int],
    ) -> None:
        """`context` verifies the receiver of an https URL; `clock` gives Unix seconds."""
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._context = context if parts.scheme == "https" else None
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._authority = parts.netloc
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._secret = secret
        self._limit_seconds = limit_seconds
        self._clock = clock

    async def deliver(self, notice: NoticeRow) -> Fault | None:
        try:
            async with asyncio.timeout(self._limit_seconds):
                line = await self._converse(self._request(notice))
        except TimeoutError:
            return TIME_LIMIT
        except ssl.SSLCertVerificationError as error:
            return Fault("certificate", error.verify_code)
        except ssl.SSLError:
            return Fault("tls")
        except OSError as error:
            return Fault("connection", error.errno or 0)
        except ValueError:  # a line without an end
            return Fault("no_http")
        found = _STATUS.fullmatch(line)
        if found is None:
            return Fault("no_http")
        status = int(found[1])
        return None if status // 100 == 2 else Fault("http_status", status)

    async def _converse(self, request: bytes) -> bytes:
        """Send, and return the first line of the answer."""
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._context, limit=_LINE_BYTES)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.readline()
        finally:
            writer.close()
            # A receiver that does not let go keeps nothing open here.
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await writer.wait_closed()
            writer.transport.abort()

    def _request(self, notice: NoticeRow) -> bytes:
        timestamp, body = self._clock(), notice.body.encode("utf-8")
        headers = {
            "Host": self._authority,
            "User-Agent": "cloister-server",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "webhook-id": notice.id,
            "webhook-timestamp": str(timestamp),
        }
        if self._secret is not None:
            headers["webhook-signature"] = signature(self._secret, notice.id, timestamp, body)
        lines = [f"POST {self._path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode("ascii") + body


def signature(secret: bytes, notice_id: str, timestamp: int, body: bytes) -> str:
    """The header's value.  The time is signed too, so that a receiver can refuse what is replayed later."""
    signed = f"{notice_id}.{timestamp}.".encode("ascii") + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode("ascii")


def parse_secret(text: str) -> bytes:
    """The key out of its file.  Raises ValueError, without the text."""
    encoded = text.strip()
    try:
        key = base64.b64decode(encoded.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not encoded.startswith(SECRET_PREFIX) or len(key) not in _SECRET_BYTES:
        raise ValueError(
            f"it is not {SECRET_PREFIX!r} followed by 24 to 64 bytes in base64; make one with: "
            'printf "whsec_%s\\n" "$(openssl rand -base64 32)"'
        )
    return key
