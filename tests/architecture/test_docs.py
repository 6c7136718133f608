"""What the documents say is true: their numbers, links, commands, recipes and examples."""

import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
import yaml

from reelign import config as configs
from reelign import driver, parts
from reelign.cli import app
from reelign.playground.demo import recipe as demo_recipe
from reelign.playground.make.pretrain import PretrainConfig
from reelign.playground.world import corpora, tables
from reelign.runtime.local import Local
from reelign.stage import Context
from reelign.stages import online

Make = Callable[..., Any]
ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", RECIPES, ids=[path.name for path in RECIPES])
def test_a_recipe_validates_without_its_data(path: Path) -> None:
    recipe = configs.validate(driver.Recipe, configs.read(path))
    assert len(set(driver.labels(recipe))) == len(recipe.stages)


@pytest.mark.parametrize("path", RECIPES, ids=[path.name for path in RECIPES])
def test_a_recipe_says_only_what_differs_from_the_defaults(path: Path) -> None:
    tree = configs.read(path)
    resolved = configs.validate(driver.Recipe, tree)
    idle = [where for where, fewer in _leaves_removed(tree) if _same(fewer, resolved)]
    assert not idle, f"{path.name} repeats defaults: {idle}"


def _same(tree: configs.Tree, resolved: driver.Recipe) -> bool:
    try:
        return configs.validate(driver.Recipe, tree) == resolved
    except configs.BadConfig:
        return False


def _leaves_removed(tree: configs.Tree) -> Iterator[tuple[str, configs.Tree]]:
    """The tree without one of its plain values, for each of them.

    Names stay, for they say which part it is; so does a mapping's only value, which says what the mapping is for.
    """

    def walk(node: object, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
        items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            if isinstance(value, Mapping | list):
                yield from walk(value, (*path, key))
            elif isinstance(node, Mapping) and key != "name" and len(node) > 1:
                yield (*path, key)

    for path in walk(tree, ()):
        fewer = json.loads(json.dumps(tree))
        node = fewer
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]
        yield ".".join(map(str, path)), fewer


def test_the_demos_recipe_validates() -> None:
    configs.validate(driver.Recipe, demo_recipe(Path("data")))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_recipes_in_a_page_validate(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _write_examples(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for block in blocks(page.read_text(encoding="utf-8"), "yaml"):
        tree = yaml.safe_load(block)
        if "stages" in tree:
            configs.validate(driver.Recipe, tree)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    # The report's picture comes from a real run and may be remade at any time.
    missing = [t for t in targets if t and not t.startswith("docs/images/") and not (page.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_named_in_a_page_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:src|docs|tests|recipes|benchmarks)/[\w./-]+\.(?:py|md|yaml))`", page.read_text(encoding="utf-8")
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_in_a_page_exist(page: Path) -> None:
    for line in "\n".join(blocks(page.read_text(encoding="utf-8"), "(?:sh|console)")).splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and "=" in words[0]:
            words.pop(0)
        if words and words[0].endswith("reelign"):
            _understand(line, words[1:])


def _understand(line: str, words: list[str]) -> None:
    command: click.Command = typer.main.get_command(app)
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        flags = [w for w in words if not w.startswith("-")]
        if not flags:
            return
        name = flags[0]
        assert name in command.commands, f"{line!r}: no command {name!r}"
        words = words[words.index(name) + 1 :]
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }
    for word in words:
        if word.startswith("-") and not word.lstrip("-").isdigit():
            assert word.partition("=")[0] in known, f"{line!r}: no option {word!r}"


def _write_examples(folder: Path) -> None:
    """The files of docs/architecture.md, where their first lines say."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for block in [*blocks(text, "python"), *blocks(text, "yaml")]:
        name = block.splitlines()[0].removeprefix("# ")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block, encoding="utf-8")


def test_the_examples_for_new_parts_run_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _write_examples(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    small = [
        "evaluate.samplers=[{steps: 2}]",
        "evaluate.members=2",
        "stages.1.sampler.steps=2",
        "stages.0.sampler.steps=8",
    ]
    tree = configs.override(
        configs.read(Path("my_lab.yaml")), [*small, "stages.1.members=2", "stages.0.learner.lr=0.001"]
    )
    folder = driver.run(configs.validate(driver.Recipe, tree))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"grpo", "collect", "my_lab.ipo"}
    assert rows[-1]["offline/updated"] == 1
    assert "still" in json.loads((folder / "evaluations" / "my_lab.ipo.json").read_text())["measures"]
    assert len(Path("verdicts.txt").read_text().splitlines()) == 3


def test_the_tree_names_every_file_of_the_package() -> None:
    section = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Files\n")[2]
    tree = blocks(section, "")[0]
    named = Counter(re.findall(r"[\w.]+\.py", tree))
    # Folders that one line covers, because each file in them is named after what it holds.
    covered = {"cli", "verify", "methods", "modules", "backbones", "sinks"}
    files = [path for path in (ROOT / "src" / "reelign").rglob("*.py") if path.name != "__init__.py"]
    files += (ROOT / "benchmarks").glob("*.py")
    assert named == Counter(path.name for path in files if path.parent.name not in covered)


def test_one_grpo_step_runs_through_the_files_that_the_page_names(gaussian: Make, tmp_path: Path) -> None:
    section = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("### One GRPO step")[2]
    rows = re.findall(r"^\d+\. `([\w/]+\.py)`, ([^:]+):", section.partition("\n## ")[0], flags=re.MULTILINE)
    assert 10 <= len(rows) <= 12
    reached: set[tuple[str, str]] = set()
    stage = parts.build("stage", online.Config.model_validate(ONE_STEP), Context(0, tmp_path, "grpo"))
    with Local(gaussian()).stage(stage.spec) as work:
        steps = stage.run(work, 0)
        sys.setprofile(lambda frame, *_: reached.add((frame.f_code.co_filename, frame.f_code.co_qualname)))
        try:
            next(steps)
        finally:
            sys.setprofile(None)
    for file, names in rows:
        path = ROOT / "src" / "reelign" / file
        called = " ".join(inner for outer, inner in reached if outer == str(path))
        for name in re.findall(r"`([\w.]+)`", names):
            assert re.search(rf"\b{name}\b", called), (file, name)


ONE_STEP = {
    "name": "online",
    "steps": 1,
    "prompts": 2,
    "group": 3,
    "dataset": "tests.parts.gaussian_data",
    "sampler": {"steps": 4, "shift": 3.0},
    "method": {"name": "grpo", "among": 2},
    "rewards": ["tests.parts.linear_reward:build"],
    "show": {"every": 0},
}

PLAYGROUND = ROOT / "docs" / "playground.md"


def test_stock_diffusers_makes_a_video_as_the_playgrounds_page_shows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (example,) = blocks(PLAYGROUND.read_text(encoding="utf-8"), "python")
    assert "reelign" not in example.replace("src/reelign/playground/pipeline", "")
    shorter = example.replace("num_inference_steps=16", "num_inference_steps=2").replace("src/", f"{ROOT}/src/")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(shorter, PLAYGROUND.name, "exec"), names)
    assert [frame.size for frame in names["frames"]] == [(tables.WIDTH, tables.HEIGHT)] * tables.FRAMES
    assert (tmp_path / "red.gif").stat().st_size > 0


NUMBER = re.compile(r'^\| `([A-Z_]+(?:\["\w+"\])?|(?:corpora|pretrain)\.[\w.]+)` \| ([^|]*) \|', flags=re.MULTILINE)
"""A row of the page that gives a number: `NAME`, `NAME["key"]`, `corpora.NAME` or `pretrain.name`, and its value.

A config inside another adds its name: `pretrain.autoencoder.steps`.
"""


def _shown(value: object) -> str:
    """A constant as the page writes it."""
    if isinstance(value, frozenset):
        return ", ".join(" ".join(pair) for pair in sorted(value))
    if isinstance(value, tuple):
        return ", ".join(_shown(each) for each in value)
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _constants(module: object) -> dict[str, str]:
    values = {name: getattr(module, name) for name in vars(module) if name.isupper()}
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f'{name}["{key}"]': _shown(each) for key, each in value.items()}
        else:
            flat[name] = _shown(value)
    return flat


def _true_numbers() -> dict[str, str]:
    shares = {f"corpora.{name}": value for name, value in _constants(corpora).items() if name != "DEFECTS"}
    return {**_constants(tables), **shares, **_settings("pretrain", PretrainConfig().model_dump())}


def _settings(prefix: str, tree: Mapping[str, object]) -> dict[str, str]:
    """Plain values of a config by their dotted names."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        flat |= (
            _settings(f"{prefix}.{name}", value) if isinstance(value, Mapping) else {f"{prefix}.{name}": _shown(value)}
        )
    return flat


def test_the_playgrounds_page_has_every_number_of_the_world_and_its_recipe_and_no_other() -> None:
    found = dict(NUMBER.findall(PLAYGROUND.read_text(encoding="utf-8")))
    assert found == _true_numbers(), "python tests/architecture/test_docs.py writes the values again"


def test_every_shipped_method_reward_metric_and_dataset_is_documented() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [f"{kind} {name}" for kind in parts.PACKAGES for name in parts.available(kind) if f"`{name}`" not in text]
    assert not missing
    for method in parts.available("method"):
        assert (ROOT / "docs" / "methods" / f"{method}.md").is_file()


def _write_numbers() -> None:
    """Bring the values of the playground's page up to date; rows come and go by hand."""
    true = _true_numbers()
    text = PLAYGROUND.read_text(encoding="utf-8")
    text = NUMBER.sub(lambda row: f"| `{row[1]}` | {true.get(row[1], row[2])} |", text)
    PLAYGROUND.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _write_numbers()


def test_the_method_of_ones_own_in_the_methods_page_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gaussian: Any
) -> None:
    (block,) = blocks((ROOT / "docs" / "methods" / "README.md").read_text(encoding="utf-8"), "python")
    path = tmp_path / block.splitlines()[0].removeprefix("# ")
    path.parent.mkdir()
    path.write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    rewards = [{"name": "tests.parts.linear_reward:build", "limit": 0.5}]
    stage = {
        "name": "online",
        "steps": 2,
        "prompts": 2,
        "group": 4,
        "dataset": "tests.parts.gaussian_data",
        "sampler": {"steps": 6},
        "method": {"name": "my_lab.reinforce", "among": 4, "modules": [{"name": "kl", "form": "velocity"}]},
        "rewards": rewards,
        "learner": {"lr": 1e-2},
    }
    config = parts.configure("stage", stage)
    own = parts.build("stage", config, Context(0, tmp_path, "mine"))
    with Local(gaussian(side=2, var=0.01)).stage(own.spec) as work:
        reports = list(own.run(work, 0))
    assert [r.metrics["online/max_abs_log_ratio"] for r in reports] == [0, 0]
    assert all(r.metrics["online/updated"] == 1 for r in reports)
