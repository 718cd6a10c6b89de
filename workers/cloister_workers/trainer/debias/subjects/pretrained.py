# SPDX-License-Identifier: Apache-2.0
"""What all subjects' loaders share: local safetensors without code, and one error for all that does not load."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode

LOCAL: Mapping[str, bool] = {"local_files_only": True, "trust_remote_code": False}
DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
    SafetensorError,
)
"""What libraries raise for files that are damaged or of another architecture."""


def invalid(why: str) -> TrainerError:
    """The error for a folder that cannot be used."""
    return TrainerError(FailureCode.MODEL_INVALID, f"the model cannot be used: {why}; import it, or train it, again")


@contextmanager
def refusing(why: str) -> Iterator[None]:
    """Turns what the libraries raise for a bad folder into MODEL_INVALID; a lack of memory stays what it is."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except DAMAGED as error:
        if getattr(error, "errno", None) == errno.ENOMEM or "memory" in str(error):
            raise
        raise invalid(why) from error


def pretrained(auto: Any, folder: Path, dtype: torch.dtype, **settings: object) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
    """`auto.from_pretrained` with its loading report. Raises TrainerError MODEL_INVALID."""
    with refusing("its weights or configuration do not load as this task needs them"):
        model, report = auto.from_pretrained(
            str(folder), use_safetensors=True, dtype=dtype, output_loading_info=True, **LOCAL, **settings
        )
    return model, report


def settle(model: torch.nn.Module, names: Iterable[str]) -> None:
    """Set these parameters, which nothing reads, to 0: transformers has drawn them, and a random number in them would
    make two loads of one version differ.
    """
    wanted = set(names)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in wanted:
                parameter.zero_()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file. Raises TrainerError MODEL_INVALID."""
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise invalid(f"its {path.name} is missing or no JSON") from error
    if not isinstance(table, dict):
        raise invalid(f"its {path.name} is no JSON object")
    return table
