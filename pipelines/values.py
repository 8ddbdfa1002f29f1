"""Dataclasses as plain JSON values and back, checked: what one process writes and another reads."""

from collections.abc import Mapping
from typing import Any, TypeVar

from cattrs import Converter
from cattrs.errors import CattrsError
from cattrs.gen import make_dict_unstructure_fn

Value = TypeVar("Value")
_converter = Converter(detailed_validation=False)


class BadValueError(ValueError):
    """Stored values that do not make the dataclass that they are read as."""


def omit_defaults(kind: type[Value]) -> type[Value]:
    """Class decorator: `to_values` leaves out fields that have their default."""
    _converter.register_unstructure_hook(kind, make_dict_unstructure_fn(kind, _converter, _cattrs_omit_if_default=True))
    return kind


def to_values(value: Any) -> dict[str, Any]:
    """A dataclass as a dict of what JSON knows, its fields in their order."""
    return _converter.unstructure(value)


def from_values(values: Mapping[str, Any], kind: type[Value]) -> Value:
    """The dataclass that `to_values` took apart. Missing fields get their defaults, unknown ones are ignored.

    Raises:
        BadValueError: a field without a default is missing, or a value does not fit its field.
    """
    try:
        return _converter.structure(values, kind)
    except (CattrsError, TypeError, KeyError, ValueError) as error:
        raise BadValueError(f"not a {kind.__name__} ({type(error).__name__}: {error})") from error
