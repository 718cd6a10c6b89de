# SPDX-License-Identifier: Apache-2.0
"""The layers of a model version: a base and at most one layer of each class, in a fixed order.

A host writes the kind of what it exported into the signed manifest (details, "layer"), so whoever puts a stack together
need not believe the control plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from cloister.evidence.errors import BindingError
from cloister.evidence.manifest import Manifest

ADAPTER, MERGED_WEIGHTS = "adapter", "merged_weights"
RETRIEVAL_INDEX, DEMONSTRATIONS = "retrieval_index", "demonstrations"
_CLASSES = {ADAPTER: 0, MERGED_WEIGHTS: 0, RETRIEVAL_INDEX: 1, DEMONSTRATIONS: 2}
"""Kind to class; classes apply in this order."""
LAYER_KINDS = tuple(_CLASSES)
MAX_LAYERS = len(set(_CLASSES.values()))

T = TypeVar("T")


def layer_kind(manifest: Manifest) -> str:
    """What a host says that this export is.  Raises BindingError where it does not say."""
    kind = manifest.details.get("layer", "")
    if kind not in _CLASSES:
        raise BindingError(f"export {manifest.id} does not say which kind of layer it is; make it again")
    return kind


def is_weights(kind: str) -> bool:
    """Whether a layer of this kind changes or replaces the base's weights."""
    return _CLASSES[kind] == 0


def stacked(layers: Sequence[tuple[str, T]], new: tuple[str, T]) -> tuple[tuple[str, T], ...]:
    """A stack of (kind, layer) with a new layer in place of the one of its class, or added where it belongs."""
    kept = [item for item in layers if _CLASSES[item[0]] != _CLASSES[new[0]]]
    return tuple(sorted([*kept, new], key=lambda item: _CLASSES[item[0]]))


def check_stack(manifests: Sequence[Manifest]) -> None:
    """Raise BindingError unless these are layers of different classes in the order in which they apply."""
    classes = [_CLASSES[layer_kind(manifest)] for manifest in manifests]
    if classes != sorted(set(classes)):
        raise BindingError("the layers are not one of each class, in the order in which they apply")
