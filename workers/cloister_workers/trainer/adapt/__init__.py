# SPDX-License-Identifier: Apache-2.0
"""What of a model is trained."""

from __future__ import annotations

from cloister_workers.trainer.adapt.full import attach_full
from cloister_workers.trainer.adapt.lora import attach_lora
from cloister_workers.trainer.adapt.saved import attach_saved, merge_adapter

__all__ = ["attach_full", "attach_lora", "attach_saved", "merge_adapter"]
