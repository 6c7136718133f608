"""What every group of settings has in common, whoever declares it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    WrapValidator,
    field_validator,
    model_validator,
)

from reelign.errors import shown

RUN = "{run}"
"""The run folder, in paths of a recipe."""


class Settings(BaseModel):
    """What every group of settings starts from: frozen, no unknown keys, and a number is one, finite, and no text."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _beside_the_default(cls, given: Any) -> Any:
        """A group that says some of its settings has for the others what its own default says, not its class's."""
        if not isinstance(given, Mapping):
            return given
        defaults = {name: field.default for name, field in cls.model_fields.items() if name in given}
        groups = {name: default for name, default in defaults.items() if isinstance(default, Settings)}
        return {
            **given,
            **{
                name: {**{key: getattr(default, key) for key in default.model_fields_set}, **given[name]}
                for name, default in groups.items()
                if isinstance(given[name], Mapping) and not isinstance(default, PartConfig)
            },
        }

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, given: Any, info: Any) -> Any:  # a ValidationInfo
        """Python takes true for 1, and pydantic "5" for 5; whoever wrote that meant something else."""
        field = cls.model_fields[str(info.field_name)]
        posing = _posing(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation, given)
        if posing is not None:
            due = (
                "must be a number, not true or false" if isinstance(posing, bool) else "must be a number without quotes"
            )
            raise ValueError(due if posing is given else f"holds {shown(posing)}, which {due}")
        return given


class PartConfig(Settings):
    """What every part's `Config` starts from: its settings have the part's name."""

    name: str

    @model_validator(mode="before")
    @classmethod
    def _called_by_its_place(cls, given: Any) -> Any:
        """A part in one class, which builds itself, needs no name of its own."""
        builds = hasattr(cls, "build") or hasattr(cls, "fill")
        if isinstance(given, Mapping) and builds and cls.model_fields["name"].is_required():
            return {"name": f"{cls.__module__}:{cls.__qualname__}", **given}
        return given


def within(value: Any, folder: Path, place: str = RUN) -> Any:
    """A value of settings, however deep, whose texts and paths that begin with a place lie in a folder.

    Example:
        >>> within({"path": "{run}/pairs/pairs.jsonl", "seed": 0}, Path("runs/mine"))
        {'path': 'runs/mine/pairs/pairs.jsonl', 'seed': 0}
    """
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        moved = {name: within(inner, folder, place) for name, inner in fields.items()}
        return value.model_copy(update={name: inner for name, inner in moved.items() if inner != fields[name]})
    if isinstance(value, Mapping):
        return {key: within(inner, folder, place) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(within(inner, folder, place) for inner in value)
    if isinstance(value, str | Path) and Path(value).parts[:1] == (place,):
        return type(value)(folder / Path(value).relative_to(place))
    return value


def in_run(value: Any) -> bool:
    """Whether a value of settings leads into the run folder, as {run}/pairs/pairs.jsonl does."""
    return within(value, Path()) != value


def _posing(form: Any, given: object) -> bool | str | None:
    """What would be taken for a number where one is due, and is none: true, false or quoted digits, however deep."""
    forms = tuple(_alternatives(form))
    if isinstance(given, bool | str):
        due = any(each in (int, float) for each in forms) and not any(each in (type(given), Any) for each in forms)
        return given if due and (isinstance(given, bool) or _is_number(given)) else None
    within = (_posing(*pair) for each in forms for pair in _pairs(get_args(each), given))
    return next((found for found in within if found is not None), None)


def _pairs(inner: tuple[Any, ...], given: object) -> Iterator[tuple[Any, object]]:
    """What is due at each place of a mapping or a list, and what was given there."""
    if isinstance(given, Mapping) and len(inner) == 2:
        yield from ((inner[1], value) for value in given.values())
    elif isinstance(given, list | tuple) and inner:
        yield from zip(inner[:1] * len(given) if inner[1:] in ((), (...,)) else inner, given, strict=False)


def _alternatives(form: Any) -> Iterator[Any]:
    """The types of a union; anything at all where a validator of its own reads the value first."""
    if get_origin(form) is Annotated:
        own, *more = get_args(form)
        read = any(isinstance(each, BeforeValidator | PlainValidator | WrapValidator) for each in more)
        yield from (Any,) if read else _alternatives(own)
    elif get_origin(form) in (Union, UnionType):
        for each in get_args(form):
            yield from _alternatives(each)
    else:
        yield form


def _is_number(text: str) -> bool:
    """Whether it would be one without quotes; 15_000 is a text to YAML either way, and meant as a number."""
    try:
        float(text.replace("_", "x"))
    except ValueError:
        return False
    return True
