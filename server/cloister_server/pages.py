# SPDX-License-Identifier: Apache-2.0
"""Pages of lists, newest first, and the times of messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Select, Table, and_, or_

from cloister.api.v1 import common_pb2
from cloister_server.errors import InvalidFieldError

DEFAULT_SIZE = 100
MAX_SIZE = 1000
_TOKEN = re.compile(r"([0-9]{1,16})/([a-z0-9._-]{1,64})")


class Listed(Protocol):
    """A row that has a place in a list."""

    @property
    def id(self) -> str: ...
    @property
    def created_at(self) -> int: ...


R = TypeVar("R", bound=Listed)


@dataclass(frozen=True)
class Page:
    """Where a list goes on."""

    size: int
    after: tuple[int, str] | None

    @classmethod
    def read(cls, message: common_pb2.PageRequest) -> Page:
        """Raises InvalidFieldError."""
        size = read_size(message)
        if not message.page_token:
            return cls(size, None)
        found = _TOKEN.fullmatch(message.page_token)
        if found is None:
            raise InvalidFieldError("page.page_token", "not a token that this server gave out")
        return cls(size, (int(found[1]), found[2]))

    # Rows of any table: SQLAlchemy's Select carries their types, which a page does not look at.
    def apply(self, query: Select[Any], table: Table) -> Select[Any]:
        """Order by age and take one row more than the page has, to know whether there is a next one."""
        created, identifier = table.c.created_at, table.c.id
        if self.after is not None:
            when, last = self.after
            query = query.where(or_(created < when, and_(created == when, identifier < last)))
        return query.order_by(created.desc(), identifier.desc()).limit(self.size + 1)

    def split(self, rows: Sequence[R]) -> tuple[list[R], str]:
        """The rows of this page and the token of the next one, empty on the last."""
        page = list(rows[: self.size])
        if len(rows) <= self.size:
            return page, ""
        return page, f"{page[-1].created_at}/{page[-1].id}"


def read_size(message: common_pb2.PageRequest) -> int:
    """Raises InvalidFieldError."""
    if not 0 <= message.page_size <= MAX_SIZE:
        raise InvalidFieldError("page.page_size", f"{message.page_size} is not between 0 and {MAX_SIZE}")
    return message.page_size or DEFAULT_SIZE


def timestamp(milliseconds: int) -> Timestamp | None:
    """None (an absent field) for 0."""
    if milliseconds == 0:
        return None
    return Timestamp(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)
