"""What the design promises about the code itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from reelign import parts

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "reelign").rglob("*.py"))


def test_imports_point_down() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _imported(statement: str, names: tuple[str, ...]) -> list[str]:
    program = f"import sys\n{statement}\nprint(*(n for n in {names!r} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_reelign_is_light() -> None:
    assert _imported("import reelign", ("torch", "diffusers", "transformers", "ray", "pydantic")) == []


def test_the_maths_needs_torch_only() -> None:
    statement = (
        "import reelign.core.transition, reelign.core.gaussian, reelign.core.advantage, reelign.core.preference_loss"
    )
    assert _imported(statement, ("diffusers", "transformers", "peft", "pydantic", "av")) == []


def test_a_run_of_a_formula_needs_no_diffusers() -> None:
    assert (
        _imported("import reelign.driver, reelign.models.gaussian", ("diffusers", "transformers", "peft", "ray")) == []
    )


@pytest.mark.parametrize("name", parts.available("method"))
def test_every_method_is_documented(name: str) -> None:
    page = ROOT / "docs" / "methods" / f"{name}.md"
    assert page.is_file(), f"docs/methods/{name}.md is missing"
    assert f"methods/{name}.py" in page.read_text(encoding="utf-8")


def _functions(tree: ast.Module) -> list[ast.FunctionDef]:
    """Functions of the module and methods of its classes; local helpers are their owner's business."""
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    return [node for body in bodies for node in body if isinstance(node, ast.FunctionDef)]


def _swallows(handler: ast.ExceptHandler) -> bool:
    """Whether a handler takes any exception and neither raises it on nor names it as the cause of another."""
    broad = handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")
    last = handler.body[-1]
    return broad and not (isinstance(last, ast.Raise) and (last.exc is None or last.cause is not None))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_source_habits(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "every module says in a sentence what it is"
    for function in _functions(tree):
        assert not all(isinstance(statement, ast.Pass) for statement in function.body), f"{function.name} is empty"
        # The two exceptions pass a stock function's own signature on.
        assert function.args.kwarg is None or function.name in ("call", "load"), f"{function.name} takes **kwargs"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), "star import"
        if isinstance(node, ast.ExceptHandler):
            assert not _swallows(node), f"line {node.lineno} swallows everything"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            assert called not in ("pickle.load", "pickle.loads", "torch.load"), f"line {node.lineno} unpickles"
            assert called != "torch.manual_seed" or "fork_rng" in text, f"line {node.lineno} seeds globally"
    assert "TODO" not in text
    assert "FIXME" not in text
