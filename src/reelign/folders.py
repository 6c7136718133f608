"""Reading model folders with stock loaders; what is incomplete, damaged or could run code is refused."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from reelign import soundness
from reelign.errors import BadCheckpoint

PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the folder.

    Raises:
        BadCheckpoint: it is missing, or no JSON object.
    """
    if not path.is_file():
        raise BadCheckpoint(
            f"{str(path.parent.parent)!r} has no {path.parent.name}/{path.name}; its download may be incomplete."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadCheckpoint(f"{str(path)!r} is not valid JSON ({error}); its download may be incomplete.") from error
    if not isinstance(found, dict):
        raise BadCheckpoint(f"{str(path)!r} holds a JSON {type(found).__name__}, but a config is an object.")
    return found


def load(kind: Any, folder: Path, **options: Any) -> Any:
    """One part of a pipeline by its stock class, from safetensors only and with every weight there.

    Raises:
        BadCheckpoint: no weights, pickled ones, damaged ones, ones that are not finite, or some of the part's weights
            are missing.
    """
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for p in folder.glob("*") if p.suffix in PICKLES)
        found = (
            f"only pickled weights ({', '.join(pickles)}), which can run code when loaded" if pickles else "no weights"
        )
        raise BadCheckpoint(f"{str(folder)!r} has {found}; Reelign loads *.safetensors only, so convert them first.")
    try:
        part, info = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BadCheckpoint(f"{str(folder)!r} cannot be read as a {kind.__name__}: {reason.rstrip('.')}.") from error
    missing = sorted(info["missing_keys"])
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadCheckpoint(f"{str(folder)!r} lacks the weight {missing[0]!r}{more}; its download may be incomplete.")
    broken = soundness.broken_weight(part)
    if broken:
        # Not every use of such weights shows it: attention over NaN may give finite numbers.
        raise BadCheckpoint(f"{str(folder)!r} is broken: the model's weights hold {broken}; get them anew.")
    return part
