# SPDX-License-Identifier: Apache-2.0
"""From an exception to what may be said of it: a closed code, numbers, and the kind of exception."""

from __future__ import annotations

import errno

import torch

from cloister_workers.errors import ModelKindError, ProtocolError, SpecError, TrainerError
from cloister_workers.messages import ExceptionKind, Failed, FailureCode
from cloister_workers.trainer.debias.mitigation import Refused

_KINDS: tuple[tuple[type[BaseException], ExceptionKind], ...] = (
    (ImportError, ExceptionKind.IMPORT_ERROR),
    (OSError, ExceptionKind.OS_ERROR),
    (ValueError, ExceptionKind.VALUE_ERROR),
    (TypeError, ExceptionKind.TYPE_ERROR),
    (LookupError, ExceptionKind.LOOKUP_ERROR),
    (AttributeError, ExceptionKind.ATTRIBUTE_ERROR),
    (RuntimeError, ExceptionKind.RUNTIME_ERROR),
)
# How torch words a failed allocation on a CPU, where it has no class of its own.
_CPU_MEMORY = ("can't allocate memory", "not enough memory")


def failure_of(error: BaseException) -> Failed:
    """The message about `error`; its text stays here."""
    if isinstance(error, SpecError):
        return Failed(code=error.code, numbers=error.numbers, spec_field=error.field)
    if isinstance(error, ModelKindError):
        return Failed(code=error.code, numbers=error.numbers, model_need=error.need)
    if isinstance(error, Refused):
        return Failed(code=error.code, numbers=error.numbers, refusal=error.reason)
    if isinstance(error, TrainerError):
        return Failed(code=error.code, numbers=error.numbers)
    if is_memory_error(error):
        return Failed(code=FailureCode.OUT_OF_MEMORY)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failed(code=FailureCode.SCRATCH_FULL)
    if isinstance(error, ProtocolError):
        return Failed(code=FailureCode.PROTOCOL)
    kind = next((kind for cls, kind in _KINDS if isinstance(error, cls)), ExceptionKind.OTHER)
    return Failed(code=FailureCode.INTERNAL, kind=kind)


def is_memory_error(error: BaseException) -> bool:
    """Whether memory ran out, on whichever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_MEMORY)
