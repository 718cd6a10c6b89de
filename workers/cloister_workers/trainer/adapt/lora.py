# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) by peft."""

from __future__ import annotations

import warnings

import peft
import torch

from cloister_workers.errors import SpecError
from cloister_workers.messages import FailureCode, SpecField
from cloister_workers.trainer.model import Base
from cloister_workers.trainer.spec import Lora

_ALL_LINEAR = "all-linear"  # peft's name for every linear layer but the output


def attach_lora(base: Base, lora: Lora) -> torch.nn.Module:
    """`base` with adapters on the target modules; adapters have the base's dtype.

    Equal to `peft.get_peft_model(model, LoraConfig(task_type, r, lora_alpha, lora_dropout, use_rslora, use_dora,
    target_modules, modules_to_save))`, where modules_to_save are the fresh modules of a classifier, its head above
    all. The one target `all-linear` stands for every linear layer but the output. Raises SpecError ADAPTER_INVALID
    where no module has a target's name.
    """
    whole = lora.target_modules == (_ALL_LINEAR,)
    config = peft.LoraConfig(
        task_type=base.task,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        target_modules=_ALL_LINEAR if whole else list(lora.target_modules) or None,
        modules_to_save=list(base.fresh) or None,
    )
    try:
        with warnings.catch_warnings():
            # peft still asks transformers for an attribute under its old name
            warnings.simplefilter("ignore", FutureWarning)
            # GPT-2's layers hold their weights the other way round: peft sees to it, and says so
            warnings.filterwarnings("ignore", "fan_in_fan_out", UserWarning)
            model: torch.nn.Module = peft.get_peft_model(base.model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        raise SpecError(
            FailureCode.ADAPTER_INVALID,
            SpecField.TARGET_MODULES,
            f"adapter.lora.target_modules {list(lora.target_modules)} does not fit the model; "
            "name linear modules that it has",
        ) from error
    return model
