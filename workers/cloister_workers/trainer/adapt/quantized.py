# SPDX-License-Identifier: Apache-2.0
"""The frozen base in 4 bits while adapters are trained on it: NF4 (Dettmers et al. 2023, arXiv:2305.14314).

Only what is held in memory changes: the adapter that comes of it goes onto the base as it was imported. Every linear
layer but the output is quantised, in place, from weights that were loaded whole; one whose outputs are no multiple of
`BLOCK` stays as it is, as the library's kernels want whole blocks.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode
from cloister_workers.trainer.model import Base

NF4 = "nf4"
BLOCK = 32


def quantize(base: Base) -> Base:
    """`base` with its linear layers in NF4. Raises TrainerError LIBRARY_MISSING where bitsandbytes is not installed."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise TrainerError(
            FailureCode.LIBRARY_MISSING,
            "adapter.lora.quantization is nf4, and bitsandbytes is not installed on this host; install the extra "
            "'quantization', or leave quantization out",
        ) from error
    model = cast("Any", base.model)
    kept = {id(model.get_output_embeddings())} | {id(dict(model.named_children()).get(name)) for name in base.fresh}
    for name, module in list(model.named_modules()):
        linear = type(module) is torch.nn.Linear and module.out_features % BLOCK == 0
        if not linear or id(module) in kept or name.split(".")[0] in base.fresh:
            continue
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], _quantized(bitsandbytes.nn, module))
    model.is_loaded_in_4bit = True  # how peft knows which of its layers goes around these
    return base


def _quantized(library: Any, linear: torch.nn.Linear) -> torch.nn.Module:  # noqa: ANN401 - an untyped library
    weight = linear.weight
    made = library.Linear4bit(
        linear.in_features, linear.out_features, linear.bias is not None, compute_dtype=weight.dtype, quant_type=NF4
    )
    made.weight = library.Params4bit(weight.detach(), requires_grad=False, quant_type=NF4)
    made.bias = linear.bias
    # On some CPUs the first evaluation would pack the weights for inference, and no gradient passes through that form.
    made.support_avx512bf16_for_cpu = False
    placed: torch.nn.Module = made.to(weight.device)  # the move is what quantises
    return placed
