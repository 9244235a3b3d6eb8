"""Fields of a result that are computed or copied from a GPU when they are first read."""

from typing import Any, Generic, TypeVar

__all__ = ["Lazy"]


T = TypeVar("T")


class Lazy(Generic[T]):
    """A field of a dataclass that also accepts an object with a method ``numpy``, called on first access.

    Args:
        default: The field's default; without one, the field is required.
    """

    def __init__(self, *default: T) -> None:
        self._default = default

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, result: object | None, _: type | None = None) -> T:
        if result is None:
            if not self._default:
                raise AttributeError(self._name)  # Tells dataclasses that the field has no default.
            return self._default[0]
        value: Any = result.__dict__[self._name]
        if hasattr(value, "numpy"):
            value = result.__dict__[self._name] = value.numpy()
        found: T = value
        return found

    def __set__(self, result: object, value: T) -> None:
        result.__dict__[self._name] = value
