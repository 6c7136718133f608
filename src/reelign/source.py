"""What a part's file says of itself, read without running it: what the part is, and what can be set on it.

The file is the only truth: its docstrings, the annotations of its `Config`, their defaults and bounds. Reading it takes
milliseconds, where importing it may take torch; and a stranger's part can be read before it may run.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import get_args

from reelign.errors import BadConfig, shown
from reelign.parts import PACKAGES, Kind, is_outside, one, refuse_unknown

ROOT = Path(__file__).parents[1]
FACTORIES = {"dict": "{}", "list": "[]", "tuple": "[]"}
WORDS = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false", "Path": "path"}
BOUNDS = {"ge": ">= ", "gt": "> ", "le": "<= ", "lt": "< ", "min_length": "length >= ", "max_length": "length <= "}


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a group of settings."""

    name: str
    type: str
    """In words, with bounds."""
    default: str | None
    """As a recipe would say it; None: it must be given."""
    meaning: str
    kind: Kind | None = None
    """It names a part of this kind; `inner` are then keys that stand beside the part's own."""
    inner: tuple["Setting", ...] = ()
    many: bool = False
    """A list of those."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part."""

    kind: Kind
    name: str
    about: str
    """Its file's docstring."""
    purpose: str
    """Its settings' docstring."""
    settings: tuple[Setting, ...]

    @property
    def line(self) -> str:
        """What it is, in one line."""
        return self.about.partition("\n")[0]


def page(kind: Kind, name: str) -> Page:
    """What a part's file says; a dotted name is looked for on Python's path, and not imported.

    Raises:
        UnknownPart: there is none of that name.
        BadConfig: its file is not found or is no Python, or has no Config.
    """
    refuse_unknown(kind, name)
    module = name.partition(":")[0] if is_outside(name) else f"{PACKAGES[kind]}.{name}"
    file = _read(module)
    config = file.own.get("Config")
    if not isinstance(config, ast.ClassDef):
        raise BadConfig(f"no {kind} at {shown(name)}: {str(file.path)!r} has no Config; a part has one.")
    settings = tuple(setting for setting in file.settings(config) if setting.name != "name")
    return Page(kind, name, ast.get_docstring(file.tree) or "", ast.get_docstring(config) or "", settings)


def settings(module: str, group: str) -> tuple[Setting, ...]:
    """What can be set on a group of settings of ours, such as `Recipe` in `reelign.driver.recipe`."""
    file = _read(module)
    found = file.own.get(group)
    assert isinstance(found, ast.ClassDef), f"{module} has no class {group}"
    return tuple(file.settings(found))


def flat(settings: tuple[Setting, ...], prefix: str = "") -> Iterator[Setting]:
    """Every setting by its dotted name, groups opened."""
    for each in settings:
        name = f"{prefix}{each.name}"
        if each.kind or not each.inner:
            yield replace(each, name=name)
        else:
            if each.default == "null" or each.many or each.default is None:
                yield replace(each, name=name, inner=())
            yield from flat(each.inner, f"{name}.{'N.' if each.many else ''}")


@cache
def _read(module: str) -> "_File":
    steps = module.split(".")
    roots = [ROOT] if steps[0] == "reelign" else [Path(entry or ".") for entry in sys.path]
    for root in roots:
        for path in (root.joinpath(*steps).with_suffix(".py"), root.joinpath(*steps, "__init__.py")):
            if path.is_file():
                try:
                    return _File(module, path, ast.parse(path.read_text(encoding="utf-8")))
                except (SyntaxError, ValueError, OSError) as error:
                    raise BadConfig(f"{str(path)!r} cannot be read as Python: {shown(str(error))}.") from error
    raise BadConfig(f"there is no file of the module {shown(module)}; is its folder on PYTHONPATH?")


class _File:
    """A module as text, and what its names stand for."""

    def __init__(self, module: str, path: Path, tree: ast.Module) -> None:
        self.module, self.path, self.tree = module, path, tree
        self.own: dict[str, ast.stmt | ast.expr] = {}
        self._imported: dict[str, tuple[str, str]] = {}
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                self.own[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.own[node.targets[0].id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                self.own[node.target.id] = node.value
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("reelign"):
                for alias in node.names:
                    self._imported[alias.asname or alias.name] = node.module, alias.name

    def follow(self, node: ast.expr) -> "tuple[_File, ast.stmt | ast.expr] | None":
        """What `Name` or `module.Name` stands for, and in which file."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self._imported:
            return _read(".".join(self._imported[node.value.id])).follow(ast.Name(node.attr))
        if not isinstance(node, ast.Name):
            return None
        if node.id in self.own:
            return self, self.own[node.id]
        if node.id in self._imported:
            module, name = self._imported[node.id]
            return _read(module).follow(ast.Name(name))
        return None

    def settings(self, group: ast.ClassDef) -> list[Setting]:
        """Of a class of settings, those it inherits first, as pydantic orders them."""
        found: dict[str, Setting] = {}
        for base in group.bases:
            owner = self.follow(base)
            if owner and isinstance(owner[1], ast.ClassDef):
                found |= {setting.name: setting for setting in owner[0].settings(owner[1])}
        for node, after in zip(group.body, [*group.body[1:], None], strict=True):
            of_the_class = isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).startswith("ClassVar")
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not of_the_class:
                name, text = node.target.id, after.value if isinstance(after, ast.Expr) else None
                says = str(text.value) if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
                before = found[name].meaning if name in found else ""
                meaning = " ".join(says.split()) or before
                found[name] = self._setting(name, node.annotation, node.value, meaning)
        return list(found.values())

    def _setting(self, name: str, annotation: ast.expr, value: ast.expr | None, meaning: str) -> Setting:
        form = self._form(annotation)
        default, bounds, inner = None, "", form.inner
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "Field":
            given = {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg}
            bounds = ", ".join(f"{sign}{self._text(given[key])}" for key, sign in BOUNDS.items() if key in given)
            value = given.get("default", given.get("default_factory"))
        if value is not None:
            default = self._text(value)
        if inner and isinstance(value, ast.Call):  # a group that changes some defaults: SamplerConfig(guidance=3)
            own = {keyword.arg: self._text(keyword.value) for keyword in value.keywords}
            inner = tuple(replace(each, default=own.get(each.name, each.default)) for each in inner)
        allowed = f"{form.type}, {bounds}" if bounds else form.type
        return replace(form, name=name, type=allowed, default=default, meaning=meaning or form.meaning, inner=inner)

    def _form(self, annotation: ast.expr) -> Setting:
        """A nameless setting that says what an annotation allows."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        text = ast.unparse(annotation)
        if text in WORDS:
            return Setting("", WORDS[text], None, "")
        if isinstance(annotation, ast.BinOp):
            left, right = self._form(annotation.left), self._form(annotation.right)
            return replace(left, type=f"{left.type} or {right.type}")
        if isinstance(annotation, ast.Subscript):
            return self._subscript(ast.unparse(annotation.value), annotation.slice)
        found = self.follow(annotation)
        if found is None:
            return Setting("", "null" if text == "None" else text, None, "")
        file, node = found
        if isinstance(node, ast.ClassDef):
            inner = tuple(file.settings(node))
            purpose = (ast.get_docstring(node) or "").partition("\n")[0]
            return Setting("", "settings" if inner else node.name, None, purpose, inner=inner)
        return file._form(node) if isinstance(node, ast.expr) else Setting("", text, None, "")

    def _subscript(self, outer: str, inside: ast.expr) -> Setting:
        items = inside.elts if isinstance(inside, ast.Tuple) else [inside]
        if outer == "Literal":
            values = [self._text(each) for each in items]
            return Setting("", f"{', '.join(values[:-1])} or {values[-1]}" if values[1:] else values[0], None, "")
        form = self._form(items[0])
        if outer == "tuple" and ast.unparse(items[-1]) == "...":
            return replace(form, type=f"list of {_plural(form)}", many=True)
        if outer == "tuple":
            return Setting("", f"{len(items)} {_plural(form)}", None, "")
        if outer in ("dict", "Mapping"):
            return Setting("", "mapping", None, "")
        if outer == "Annotated":
            return _annotated(form, items[1:])
        return form  # SerializeAsAny[...] and the like

    def _text(self, value: ast.expr) -> str:
        """A default as a recipe would say it."""
        if isinstance(value, ast.Constant):
            named = {None: "null", True: "true", False: "false", "": '""'}
            same = value.value is None or isinstance(value.value, bool | str)
            return named.get(value.value, str(value.value)) if same else f"{value.value}"
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Pow):
            return str(int(self._text(value.left)) ** int(self._text(value.right)))  # 10**6
        if isinstance(value, ast.Tuple | ast.List):
            return f"[{', '.join(self._text(each) for each in value.elts)}]"
        if isinstance(value, ast.Lambda):
            return self._text(value.body)
        if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("configure"):
            return self._text(value.args[-1])
        if isinstance(value, ast.Call) and isinstance((self.follow(value.func) or ("", ""))[1], ast.ClassDef):
            return f"{{{', '.join(f'{each.arg}: {self._text(each.value)}' for each in value.keywords)}}}"
        found = self.follow(value)
        if found and isinstance(found[1], ast.expr):
            return found[0]._text(found[1])
        return FACTORIES.get(ast.unparse(value), ast.unparse(value))


def _plural(form: Setting) -> str:
    if form.kind:
        return form.type.replace(one(form.kind), f"{form.kind}s", 1)
    return f"{form.type}s" if form.type in ("whole number", "number", "text", "path") else form.type


def _annotated(form: Setting, extras: list[ast.expr]) -> Setting:
    """`Annotated[..., BeforeValidator(...)]`: names a part, alone or with keys of ours beside the part's own."""
    words = {node.value for extra in extras for node in ast.walk(extra) if isinstance(node, ast.Constant)}
    kinds: tuple[Kind, ...] = get_args(Kind)
    for kind in kinds:
        if kind in words and "configure" in " ".join(map(ast.unparse, extras)):
            return Setting("", one(kind), None, "", kind=kind)
    part = next((each for each in form.inner if each.kind), None)
    if part and any("Validator" in ast.unparse(extra) for extra in extras):
        beside = tuple(each for each in form.inner if each is not part)
        return Setting(
            "", f"{part.type}, with {' and '.join(each.name for each in beside)}", None, "", part.kind, beside
        )
    return form
