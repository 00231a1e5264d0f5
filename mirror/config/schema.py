"""The keys that exist, read from the models: for the environment's names, for errors, and for the reference."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from mirror.config.models import Settings
from mirror.config.section import Section
from mirror.config.values import Kind

ANY: Final = "*"
"""In a path of keys: the name of an upstream, or a place in a list."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key: its path, its field, what the reference calls its value, and whether that is a mapping or a list."""

    path: tuple[str, ...]
    field: FieldInfo
    kind: str
    is_structure: bool


def all_keys(model: type[Section] = Settings, path: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every key of ``model``, depth first, in the order in which they stand there."""
    for name, field in model.model_fields.items():
        value = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        item = _item(value)
        yield Key((*path, name), field, _kind(value), item is not None or _section(value) is not None)
        section = _section(value) or _section(item)
        if section is not None:
            yield from all_keys(section, (*path, name) if item is None else (*path, name, ANY))


def names_at(location: tuple[str | int, ...]) -> list[str]:
    """The keys that may stand in the mapping at ``location``."""
    return [key.path[-1] for key in all_keys() if _matches(key.path[:-1], location)]


def _matches(path: tuple[str, ...], location: tuple[str | int, ...]) -> bool:
    return len(path) == len(location) and all(step in (ANY, part) for step, part in zip(path, location, strict=True))


def _kind(value: Any) -> str:
    """What the reference calls a value of this type."""
    bare, marks = _bare(value)
    item = _item(value)
    if marks:
        return marks[0].name
    if _section(value) is not None:
        return "mapping"
    if item is not None:
        return f"list: {_kind(item)}"
    if get_origin(bare) is Literal:
        return " or ".join(f"`{word}`" for word in get_args(bare))
    return "text"


def _section(value: Any) -> type[Section] | None:
    bare, _ = _bare(value)
    return bare if isinstance(bare, type) and not get_args(bare) and issubclass(bare, Section) else None


def _item(value: Any) -> Any:
    """The type of an item of a list or of a value of a mapping; None for what is neither."""
    bare, _ = _bare(value)
    origin = get_origin(bare)
    if origin is tuple:
        return get_args(bare)[0]
    return get_args(bare)[1] if isinstance(origin, type) and issubclass(origin, Mapping) else None


def _bare(value: Any) -> tuple[Any, list[Kind]]:
    """The type without ``| None`` and annotations, and the kinds among these."""
    marks: list[Kind] = []
    while True:
        if get_origin(value) is Annotated:
            value, *notes = get_args(value)
            marks += [note for note in notes if isinstance(note, Kind)]
        elif get_origin(value) in (Union, UnionType):
            value = next(part for part in get_args(value) if part is not type(None))
        else:
            return value, marks
