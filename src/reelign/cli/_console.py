"""What the commands share: quiet libraries, sentences for what went wrong, JSON or text results, common options."""

import errno
import io
import json
import logging
import os
import sys
from typing import Any

import typer

from reelign.errors import RunStopped
from reelign.progress import Forgiving

DEBUG = False


def setup(debug: bool) -> None:
    """Logs to stderr; libraries speak only when something is wrong; nothing reaches for the network."""
    global DEBUG
    DEBUG = debug
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")


def open_streams() -> None:
    """Give descriptors 0 to 2 a home where the caller closed them, lest the next file that is opened becomes stderr."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # half a character, as in a file's name


def complain(sentence: str) -> None:
    """A line on stderr, where there is one."""
    stream = Forgiving(sys.stderr)
    stream.write(f"reelign: {sentence}\n")
    stream.flush()


def say(text: str) -> None:
    """A line on stdout that says where the work lies; the work is done whether it can be read or not."""
    stream = Forgiving(sys.stdout)
    stream.write(f"{text}\n")
    stream.flush()


def emit(value: Any, as_json: bool, text: str) -> None:
    """Print a result: JSON for programs, text for people. A reader that left, as `head` does, has seen enough.

    Raises:
        RunStopped: the results cannot be written, as on a full disk.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write((json.dumps(value, ensure_ascii=False, indent=1) if as_json else text) + "\n")
        sys.stdout.flush()
    except OSError as error:
        Forgiving(sys.stdout).lose()
        if error.errno != errno.EPIPE:
            raise RunStopped(f"the results cannot be written to stdout: {error.strerror}; write elsewhere.") from error


def _refuse_outside(wish: bool) -> bool:
    from reelign import parts

    parts.refuse_outside(wish)
    return wish


OVERRIDES = typer.Option(
    [],
    "--set",
    help="key=value, as in stages.1.method.clip=2e-4; repeatable. With --resume, give those of the start again.",
)
INSIDE_ONLY = typer.Option(
    False,
    "--no-outside-parts",
    callback=_refuse_outside,
    help="Refuse parts by dotted path, which are code that runs, before anything of them is imported.",
)
ACCEPT_CHANGES = typer.Option(
    False,
    "--accept-changes",
    help="With --resume: go on although data, base weights, rewards or metrics changed since; the ledger says so.",
)
