"""Configs of parts, by allow list: what the stock class takes, and what is known to be mere bookkeeping.

Whatever else a config says belongs to another model, or could make a loader fetch or run code, and is refused.
"""

import inspect
import json
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from reelign.errors import BadCheckpoint, cut
from reelign.pretrained.paths import read_json, reading

LARGEST = 2**31
"""Integers beyond it are no size of anything."""
DIFFUSERS = {"_class_name", "_diffusers_version", "_name_or_path"}
TRANSFORMERS = {
    *(
        "_name_or_path",
        "model_type",
        "torch_dtype",
        "transformers_version",
        "tokenizer_class",
        "use_cache",
        "num_labels",
    ),
    # Of the T5 family's first code.
    *("n_positions", "output_past", "scalable_attention", "task_specific_params"),
    # What older versions wrote into every config: how to generate text, export and prune.
    *("bad_words_ids", "begin_suppress_tokens", "bos_token_id", "diversity_penalty", "do_sample", "early_stopping"),
    *("encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id"),
    *("forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups"),
    *("num_beams", "num_return_sequences", "output_scores", "prefix", "pruned_heads", "remove_invalid_values"),
    *("repetition_penalty", "return_dict_in_generate", "sep_token_id", "suppress_tokens", "temperature"),
    *("tf_legacy_loss", "tie_encoder_decoder", "top_k", "top_p", "torchscript", "typical_p", "use_bfloat16"),
    *("add_cross_attention", "cross_attention_hidden_size"),
}
"""Keys of a transformers config that are passed over."""
TOKENIZER = {
    *("add_bos_token", "add_eos_token", "add_prefix_space", "added_tokens_decoder", "additional_special_tokens"),
    *("backend", "chat_template", "clean_up_tokenization_spaces", "do_lower_case", "extra_ids", "extra_special_tokens"),
    *("is_local", "legacy", "local_files_only", "max_length", "model_input_names", "model_max_length", "name_or_path"),
    *("pad_to_multiple_of", "pad_token_type_id", "padding_side", "processor_class", "sp_model_kwargs"),
    *("spaces_between_special_tokens", "special_tokens_map_file", "split_special_tokens", "stride", "tokenizer_class"),
    *("truncation_side", "truncation_strategy", "use_fast"),
    *(f"{name}_token" for name in ("bos", "cls", "eos", "mask", "pad", "sep", "unk")),
}


def diffusers(kind: Any, path: Path) -> dict[str, Any]:
    """Every setting of a diffusers class, from its config.json and the class's own defaults.

    Raises:
        BadCheckpoint: no readable config, one of another class, or one with keys that the class does not have.
    """
    found = read_json(path)
    name = found.get("_class_name")
    if name != kind.__name__:
        raise BadCheckpoint(f"{str(path.parent)!r} holds {cut(name)}, but {kind.__name__} is needed.")
    defaults = {n: p.default for n, p in inspect.signature(kind.__init__).parameters.items() if n != "self"}
    _refuse(path, found, defaults.keys() | DIFFUSERS, kind.__name__)
    _refuse_huge(path, found)
    own, hints = {key: value for key, value in found.items() if key in defaults}, get_type_hints(kind.__init__)
    for key, value in own.items():
        try:
            TypeAdapter(hints[key]).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            raise BadCheckpoint(
                f"{str(path)!r} gives {key} as {cut(json.dumps(value), 60)}, but it is "
                f"{getattr(hints[key], '__name__', hints[key])} in a {kind.__name__}."
            ) from error
    return defaults | own


def transformers(kind: Any, path: Path) -> Any:
    """The config object of a transformers class; only settings that the class has reach it.

    Raises:
        BadCheckpoint: no readable config, one of another model type, or one with keys that the class does not have.
    """
    found, schema = read_json(path), kind.config_class
    if found.get("model_type") != schema.model_type:
        raise BadCheckpoint(
            f"{str(path)!r} is of model type {cut(found.get('model_type'))!r}; "
            f"a {kind.__name__} is {schema.model_type!r}."
        )
    own = schema().to_dict().keys() - TRANSFORMERS - {"dtype"}
    _refuse(path, found, own | TRANSFORMERS | {"dtype"}, kind.__name__)
    _refuse_huge(path, found)
    with reading(path.parent, kind.__name__):
        return schema.from_dict({key: value for key, value in found.items() if key in own})


def tokenizer(path: Path) -> None:
    """Refuse a tokenizer_config.json that could run code or names files elsewhere.

    Raises:
        BadCheckpoint: see above.
    """
    _refuse(path, read_json(path), TOKENIZER, "tokenizer")


def _refuse(path: Path, found: dict[str, Any], known: set[str], kind: str) -> None:
    quantized = found.get("quantization_config")
    if quantized is not None:
        how = quantized.get("quant_method", "by an unnamed method") if isinstance(quantized, dict) else quantized
        raise BadCheckpoint(f"{str(path.parent)!r} is quantized ({cut(how, 40)}); give the weights in full precision.")
    unknown = sorted(found.keys() - known - {"quantization_config"})
    if unknown:
        raise BadCheckpoint(
            f"{str(path)!r} has the keys {cut(', '.join(unknown))}, which a {kind} does not have; "
            "Reelign loads configs that cannot run code only, so give a folder as its stock class writes it."
        )


def _refuse_huge(path: Path, found: dict[str, Any]) -> None:
    for key, value in found.items():
        if any(isinstance(n, int) and abs(n) > LARGEST for n in (value if isinstance(value, list) else [value])):
            raise BadCheckpoint(f"{str(path)!r} gives {key} a number beyond {LARGEST}; it is damaged.")
