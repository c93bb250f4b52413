"""How coordinators, registries and breakers come by their connection."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from .connection import Connection
from .errors import CoorddError

E = TypeVar("E", bound=CoorddError)


class Attached:
    """Who speaks to coordd over a connection that it was given, or over one of its own to the servers it was given.

    `key_prefix` is the namespace: what has different prefixes does not see each other. A `:` at its end does not count.
    """

    def __init__(
        self, connection: Connection | str | Sequence[str], key_prefix: str, idle_timeout: float = 10.0
    ) -> None:
        self._owned: Connection | None = None
        if not isinstance(connection, Connection):
            if not isinstance(connection, (str, list, tuple)):
                raise TypeError(f"connection: a {type(connection).__name__} is neither a coordd URL nor a Connection")
            connection = self._owned = Connection(
                connection, name=type(self).__name__, idle_timeout=idle_timeout
            )
        self._connection = connection.in_namespace(key_prefix.rstrip(":"))

    async def _ask(self, kind: type[E], method: str, params: dict[str, Any]) -> Any:
        """A request whose errors are of this kind."""
        try:
            return await self._connection.call(method, **params)
        except CoorddError as error:
            raise kind(error.message, code=error.code, retryable=error.retryable, applied=error.applied) from error

    async def _detach(self) -> None:
        """Close what is ours."""
        if self._owned is not None:
            await self._owned.close()
