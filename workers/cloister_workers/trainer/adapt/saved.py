# SPDX-License-Identifier: Apache-2.0
"""An adapter that an earlier job made, trained on or merged into its base."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode
from cloister_workers.trainer.model import Base


def attach_saved(base: Base, folder: Path, dropout: float) -> torch.nn.Module:
    """`base` with the adapter of `folder`, trainable; every tensor that its configuration asks for must be there.

    Raises TrainerError MODEL_INVALID where it does not fit or is damaged.
    """
    try:
        config = peft.LoraConfig.from_pretrained(str(folder), local_files_only=True)
        config.lora_dropout = dropout
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model: Any = peft.PeftModel.from_pretrained(
                base.model,
                str(folder),
                is_trainable=True,
                config=config,
                autocast_adapter_dtype=False,
                local_files_only=True,
            )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _invalid("its adapter does not fit the base model") from error
    except Exception as error:
        # safetensors raises a class of its own, which derives from Exception alone
        if type(error).__module__.partition(".")[0] != "safetensors":
            raise
        raise _invalid("its adapter is cut short or damaged") from error
    if any("missing adapter keys" in str(entry.message) for entry in told):
        raise _invalid("its adapter lacks tensors that its configuration names")
    if not set(base.fresh) <= set(config.modules_to_save or ()):
        raise _invalid("its adapter brings no trained head")
    trained: torch.nn.Module = model
    return trained


def merge_adapter(model: Any) -> torch.nn.Module:  # noqa: ANN401 - a PeftModel; its type is dynamic
    """The base model with the adapter's update in its weights, and no adapter any more."""
    merged: torch.nn.Module = model.merge_and_unload()
    return merged


def _invalid(why: str) -> TrainerError:
    return TrainerError(FailureCode.MODEL_INVALID, f"the version cannot be used: {why}; make it again")
