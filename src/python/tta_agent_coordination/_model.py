"""What all models share: one base class for pydantic 1.10 and 2, and their way to the wire.

pydantic 2 still has the method names of 1.x. Where 1.x is installed the base class adds those of 2.x, so programs
may use either with either.
"""
from __future__ import annotations

import dataclasses
import datetime
import enum
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

import pydantic

_M = TypeVar("_M", bound="Model")
# A name, or a place and the step from there: spelled out only when somebody is to read it.
_Place = str | tuple[Any, str | int]


class Model(pydantic.BaseModel):
    """The base of all models here."""

    if pydantic.VERSION.startswith("1."):

        def model_dump(self, *, mode: str = "python", **options: Any) -> dict[str, Any]:
            """As a dict. `mode="json"`: with the values of enums in the place of the enums, and so on."""
            values = self.dict(**options)
            return {key: to_wire(value, key) for key, value in values.items()} if mode == "json" else values

        def model_dump_json(self, *, indent: int | None = None, **options: Any) -> str:
            """As JSON text."""
            return self.json(**options) if indent is None else self.json(indent=indent, **options)

        @classmethod
        def model_validate(cls: type[_M], obj: Any) -> _M:
            """From a dict or another object of this class; raises pydantic.ValidationError."""
            return cls.parse_obj(obj)

        @classmethod
        def model_validate_json(cls: type[_M], json_data: str | bytes) -> _M:
            """From JSON text; raises pydantic.ValidationError."""
            return cls.parse_raw(json_data)

        @classmethod
        def model_construct(cls: type[_M], **values: Any) -> _M:
            """Without looking at the values."""
            return cls.construct(**values)

        @classmethod
        def model_json_schema(cls) -> dict[str, Any]:
            """Its JSON schema."""
            return cls.schema()

        def model_copy(self: _M, *, update: dict[str, Any] | None = None, deep: bool = False) -> _M:
            """A copy, with some fields changed."""
            return self.copy(update=update, deep=deep)


def to_wire(value: object, where: _Place = "value") -> Any:
    """`value` in what MessagePack and JSON share, and bytes: enums become their values, models and dataclasses maps, times
    ISO 8601, keys text as in JSON. TypeError names the place of what has no such form: `payload.items[3]`."""
    if value is None or type(value) in (str, int, float, bool, bytes):
        return value
    if isinstance(value, enum.Enum):
        return to_wire(value.value, where)
    if isinstance(value, (bool, int, float, str, bytes)):
        return value
    if isinstance(value, pydantic.BaseModel):
        return {key: to_wire(inner, (where, key)) for key, inner in value}
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {(text := _key(key, where)): to_wire(inner, (where, text)) for key, inner in items}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_wire(inner, (where, i)) for i, inner in enumerate(cast("Iterable[object]", value))]
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: to_wire(getattr(value, each.name), (where, each.name)) for each in dataclasses.fields(value)}
    raise TypeError(f"{_spell(where)} is of the type {type(value).__name__}, which cannot be sent")


def _key(key: object, where: _Place) -> str:
    """A key of a map as the text that json.dumps() makes of it."""
    key = key.value if isinstance(key, enum.Enum) else key
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, (str, int, float, uuid.UUID)):
        return str(key)
    raise TypeError(f"{_spell(where)} has a key of the type {type(key).__name__}, which cannot be sent")


def _spell(where: _Place) -> str:
    if isinstance(where, str):
        return where
    parent, step = where
    return f"{_spell(parent)}[{step}]" if isinstance(step, int) else f"{_spell(parent)}.{step}"
