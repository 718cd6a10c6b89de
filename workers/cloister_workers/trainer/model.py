# SPDX-License-Identifier: Apache-2.0
"""The base model and its tokenizer, from a local directory: safetensors alone, no code from the directory, no
network.

Weights are float32 on a CPU and bfloat16 on a GPU. A tensor that the directory lacks and transformers would
fill with random numbers is refused, save the classification head (and a pooler before it), which then are
trained whole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from cloister_workers.errors import ModelKindError, TrainerError
from cloister_workers.messages import FailureCode, ModelNeed
from cloister_workers.trainer.attention import NAME, register
from cloister_workers.trainer.prompts import FALLBACK_TEMPLATE

_ROBERTA = ("roberta", "camembert", "longformer", "mpnet", "data2vec")
"""Parts of model types whose position tables start behind the padding token's number, so that the first `_UNUSED` of
their positions are never used.
"""
_UNUSED = 2
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class Base:
    """A loaded model; `fresh` names its modules that hold random numbers, `task` is what peft calls its kind (None:
    peft has no name for it, as for a masked language model or a bare encoder).
    """

    model: torch.nn.Module
    fresh: tuple[str, ...]
    task: str | None = None


def pick_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_cores() -> None:
    """As many torch threads as the host's settings say (OMP_NUM_THREADS), or as this process may use cores."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))


def load_config(model_dir: str) -> Any:  # noqa: ANN401 - transformers' own type is dynamic
    """The configuration of the directory's model. Raises TrainerError MODEL_INVALID."""
    try:
        return transformers.AutoConfig.from_pretrained(model_dir, **_LOCAL)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _invalid("its config.json does not load") from error


def like_roberta(config: Any) -> bool:  # noqa: ANN401 - transformers' own type is dynamic
    """Whether the model counts positions as RoBERTa does."""
    return any(part in str(config.model_type) for part in _ROBERTA)


def positions(config: Any, *, decoder: bool = False) -> int | None:  # noqa: ANN401
    """Tokens that the position table of the encoder, or of the decoder, takes; None where the configuration states
    none.
    """
    own = f"max_{'decoder' if decoder else 'encoder'}_position_embeddings"
    found = getattr(config, own, None) or getattr(config, "max_position_embeddings", None)
    return None if found is None else int(found) - (_UNUSED if like_roberta(config) else 0)


def longest_sequence(config: Any, tokenizer: Any, wanted: int) -> int:  # noqa: ANN401
    """Tokens of a sequence at most: what is wanted, and what tokenizer and position table take."""
    return int(min(wanted, tokenizer.model_max_length, positions(config) or wanted))


def load_tokenizer(model_dir: str, *, padded: bool = False, chat: bool = False) -> Any:  # noqa: ANN401 - dynamic
    """The fast tokenizer of the directory; `padded`: with a token to pad with, `chat`: with a chat template.

    Raises TrainerError MODEL_INVALID.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir, use_fast=True, **_LOCAL)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _invalid("its tokenizer does not load") from error
    if not tokenizer.is_fast:
        raise _invalid("it has no tokenizer.json, which a fast tokenizer needs")
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if padded and tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise _invalid("its tokenizer has neither a padding nor an end-of-text token")
        tokenizer.pad_token = tokenizer.eos_token
    if chat and tokenizer.chat_template is None:
        tokenizer.chat_template = FALLBACK_TEMPLATE
    return tokenizer


def load_classifier(
    model_dir: str,
    labels: Sequence[str],
    pad_token_id: int,
    device: torch.device,
    problem_type: str = "",
) -> Base:
    """A sequence classifier of these labels; one label alone is a number, such as a score.

    Raises TrainerError MODEL_INVALID.
    """
    kind = transformers.AutoModelForSequenceClassification
    names = _names(labels)
    wanted = problem_type or ("regression" if len(labels) == 1 else "single_label_classification")
    base = load_headed(kind, "SEQ_CLS", model_dir, device, **names, problem_type=wanted)
    config: Any = base.model.config
    config.pad_token_id = pad_token_id
    return base


def load_tagger(model_dir: str, labels: Sequence[str], device: torch.device) -> Base:
    """A classifier of tokens, by an encoder. Raises TrainerError MODEL_INVALID."""
    return load_headed(transformers.AutoModelForTokenClassification, "TOKEN_CLS", model_dir, device, **_names(labels))


def load_span_finder(model_dir: str, device: torch.device) -> Base:
    """A model of where an answer begins and ends, by an encoder. Raises TrainerError MODEL_INVALID."""
    return load_headed(transformers.AutoModelForQuestionAnswering, "QUESTION_ANS", model_dir, device)


def load_encoder(model_dir: str, device: torch.device) -> Base:
    """A transformer without a head. Raises TrainerError MODEL_INVALID."""
    base = load_headed(transformers.AutoModel, "FEATURE_EXTRACTION", model_dir, device)
    with torch.no_grad():
        for name, parameter in base.model.named_parameters():
            if name.split(".")[0] in base.fresh:
                parameter.zero_()  # a pooler that nothing reads; random numbers in it would make two loads differ
    return Base(base.model, (), base.task)


def load_headed(kind: Any, task: str, model_dir: str, device: torch.device, **settings: object) -> Base:  # noqa: ANN401
    """A model with a head of its own on the backbone; what of the head is not there is fresh.

    Raises TrainerError MODEL_INVALID.
    """
    model, report = _load(kind, model_dir, device, ignore_mismatched_sizes=True, attn_implementation="sdpa", **settings)
    lacking = sorted({*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])})
    backbone = f"{model.base_model_prefix}." if model.base_model is not model else ""
    if any(key.startswith(backbone) and "pooler" not in key for key in lacking):
        raise _invalid("its weights lack tensors of the architecture in config.json")
    fresh = {"pooler" if key.startswith(backbone) else key.split(".")[0] for key in lacking}
    return Base(model, tuple(sorted(fresh)), task)


def need_encoder(config: Any) -> None:  # noqa: ANN401 - transformers' own type is dynamic
    """Raises ModelKindError unless each token of the configuration's model sees all others."""
    if config.is_encoder_decoder or type(config) not in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        why = f"it is a {config.model_type}, and the method needs an encoder such as bert or xlm-roberta"
        raise _other_kind(ModelNeed.ENCODER, why)


def _need_decoder(config: Any) -> None:  # noqa: ANN401
    """Raises ModelKindError for an encoder-decoder, whose encoder would be lost, and for an encoder."""
    encoder = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if config.is_encoder_decoder or encoder:
        kind = "encoder-decoder" if config.is_encoder_decoder else "encoder"
        why = f"it is a {config.model_type}, an {kind}, and the method needs a causal model such as llama"
        raise _other_kind(ModelNeed.CAUSAL, why)


def _names(labels: Sequence[str]) -> dict[str, object]:
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def load_causal(model_dir: str, device: torch.device) -> Base:
    """A causal language model with packed attention. Raises TrainerError MODEL_INVALID."""
    register()
    _need_decoder(load_config(model_dir))
    model, report = _load(transformers.AutoModelForCausalLM, model_dir, device, attn_implementation=NAME)
    if report["missing_keys"] or report["mismatched_keys"]:
        raise _invalid("its weights lack tensors of the architecture in config.json")
    return Base(model, (), "CAUSAL_LM")


def load_sequence_to_sequence(model_dir: str, device: torch.device) -> Base:
    """An encoder-decoder language model. Raises TrainerError MODEL_INVALID."""
    model, report = _load(transformers.AutoModelForSeq2SeqLM, model_dir, device)
    if report["missing_keys"] or report["mismatched_keys"]:
        raise _invalid("its weights lack tensors of the architecture in config.json")
    if model.config.decoder_start_token_id is None:
        raise _invalid("its config.json states no decoder_start_token_id, which answers begin with")
    return Base(model, (), "SEQ_2_SEQ_LM")


def load_masked(model_dir: str, device: torch.device) -> Base:
    """A masked language model; where the folder holds a bare encoder, its head is fresh. Raises TrainerError
    MODEL_INVALID.
    """
    model, report = _load(transformers.AutoModelForMaskedLM, model_dir, device)
    lacking = sorted(report["missing_keys"])
    if report["mismatched_keys"] or any(key.startswith(f"{model.base_model_prefix}.") for key in lacking):
        raise _invalid("its weights lack tensors of the architecture in config.json")
    fresh = [name for name, module in model.named_modules() if _all_of(name, module) <= set(lacking)]
    return Base(model, tuple(sorted(fresh)))


def _all_of(name: str, module: torch.nn.Module) -> set[str]:
    """The tensors of a module without parts, by their names in the model; of others {""}, which nothing holds."""
    names = {f"{name}.{key}" for key, _ in module.named_parameters()}
    return names if names and not any(module.children()) else {""}


def draw_causal(config: Any, device: torch.device) -> Base:  # noqa: ANN401
    """A causal language model of random weights with packed attention. Raises TrainerError MODEL_INVALID."""
    register()
    model = _draw(transformers.AutoModelForCausalLM, config, device, attn_implementation=NAME)
    return Base(model, (), "CAUSAL_LM")


def draw_masked(config: Any, device: torch.device) -> Base:  # noqa: ANN401
    """A masked language model of random weights. Raises TrainerError MODEL_INVALID."""
    return Base(_draw(transformers.AutoModelForMaskedLM, config, device), ())


def _draw(kind: Any, config: Any, device: torch.device, **settings: object) -> Any:  # noqa: ANN401
    """Weights from torch's global generator, as the architecture initialises them."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        model = kind.from_config(config, dtype=dtype, **settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise _invalid("its config.json does not describe a model as this method needs it") from error
    return model.to(device)


def _load(kind: Any, model_dir: str, device: torch.device, **settings: object) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        model, report = kind.from_pretrained(
            model_dir, use_safetensors=True, dtype=dtype, output_loading_info=True, **_LOCAL, **settings
        )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise _invalid("its weights or configuration do not load as this method needs them") from error
    except Exception as error:
        # safetensors raises a class of its own, which derives from Exception alone
        if type(error).__module__.partition(".")[0] != "safetensors":
            raise
        raise _invalid("its weights are cut short or damaged") from error
    return model.to(device), report


def _other_kind(need: ModelNeed, why: str) -> ModelKindError:
    return ModelKindError(FailureCode.MODEL_INVALID, need, f"the base model cannot be used: {why}; name another")


def _invalid(why: str) -> TrainerError:
    return TrainerError(FailureCode.MODEL_INVALID, f"the base model cannot be used: {why}; import it again")
