"""Names that become files, and when two names are one: what a recipe may call a run, a stage, a folder of a run."""

import os
import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator

_OWN = ("config.json", "run.json", "ledger.jsonl", "metrics.jsonl", "samples.jsonl", "log.txt", "report.html")
_FILES = (*_OWN, "events.jsonl", "final.json", "best.json")
_FOLDERS = ("checkpoints", "evaluations", "samples", "tensorboard", "wandb", "final")
OF_A_RUN = frozenset({*_FILES, *_FOLDERS})
"""What a run itself keeps in its folder."""
_STEM = re.compile(r"(?P<stem>.+?)\.aside-[0-9]+(?P<suffix>\..*)?")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def composed(text: str) -> str:
    """A text in the Unicode form (NFC) in which texts are compared: macOS writes names of files in another."""
    return unicodedata.normalize("NFC", text)


def same(name: str) -> str:
    """What two names have in common that some file system cannot tell apart."""
    return composed(name).casefold()


def unique(asked: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Names of files made from what was asked for: cut at 80 bytes, and different in any file system."""
    found, known = [], {same(name) for name in taken}
    for text in asked:
        base = text.encode()[:80].decode(errors="ignore")
        name, n = base, 2
        while same(name) in known:
            name, n = f"{base}-{n}", n + 1
        found.append(name)
        known.add(same(name))
    return found


def of_model(weights: str) -> str:
    """What results on a model are called: the run whose `final/` it is, else its folder's own name."""
    head, last = os.path.split(os.path.abspath(os.path.expanduser(weights)))
    return os.path.basename(head) if last == "final" else last


def _clean(text: str, longest: int) -> str:
    """Refuse what no file system, terminal or line of text holds well."""
    for letter in text:
        if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp"):
            raise ValueError(f"holds the character U+{ord(letter):04X}, which no name has; leave it out")
    if len(text.encode()) > longest:
        raise ValueError(f"is longer than {longest} bytes; give a shorter one")
    return text


def _run(name: str) -> str:
    if not _PLAIN.fullmatch(name):
        raise ValueError(
            "a name is letters, digits and . _ -, and begins with none of . and -, as it becomes a folder of its own"
        )
    return _clean(name, 120)


def _label(label: str) -> str:
    if "/" in label or "\\" in label or label.startswith(".") or label != label.strip():
        raise ValueError(
            "a label has no / or \\, no dot at its beginning and no blanks around it, as files have its name"
        )
    return _clean(label, 80)


def _root(path: str) -> str:
    home = os.path.expanduser(path)
    if home.startswith("~"):
        raise ValueError(f"there is no home folder {home.partition('/')[0]!r}; write its path")
    for part in home.split("/"):
        _clean(part, 255)
    return _clean(home, 3000)


def _inside(path: str) -> str:
    for part in path.split("/"):
        if not part or part[0] in ".~" or "\\" in part or ":" in part:
            raise ValueError(
                "must lead into the run's own folder: names between single /, none empty, none with \\ or :, none that "
                "begins with . or ~"
            )
        _clean(part, 120)
    first = path.partition("/")[0]
    plain = _STEM.sub(r"\g<stem>\g<suffix>", first)
    if {same(first), same(plain)} & OF_A_RUN:
        raise ValueError(f"{first!r} is the run's own; choose another name")
    return _clean(path, 1000)


RunName = Annotated[str, AfterValidator(_run)]
"""One folder below `run.root`."""
Label = Annotated[str, AfterValidator(_label)]
"""A stage's name; letters of any script. Empty where there is none."""
Root = Annotated[str, AfterValidator(_root)]
"""A folder anywhere; `~` is the home folder."""
Inside = Annotated[str, AfterValidator(_inside)]
"""A folder inside the run's own that is none of those the run keeps for itself."""
