# SPDX-License-Identifier: Apache-2.0
"""AdamW over float32 master weights, with its state as named tensors.

Parameters in float32 are their own masters. For others (bfloat16 on a GPU) the step is taken on a float32
copy, so small steps are not rounded away. Settings: betas (0.9, 0.999), eps 1e-8, decoupled decay on every
trained tensor, fused.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

_MOMENTS = ("exp_avg", "exp_avg_sq")
_KEPT = "kept/"


class Optimiser:
    """The trained tensors of one model and how they move."""

    def __init__(self, model: torch.nn.Module, weight_decay: float, max_grad_norm: float) -> None:
        self._params = {name: param for name, param in model.named_parameters() if param.requires_grad}
        self._masters = {
            name: param if param.dtype is torch.float32 else param.detach().float().requires_grad_()
            for name, param in self._params.items()
        }
        self._kept: dict[str, torch.Tensor] = {}
        self._max_grad_norm = max_grad_norm
        self._adamw = torch.optim.AdamW(
            list(self._masters.values()),
            lr=0.0,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=weight_decay,
            fused=True,
        )

    @property
    def adamw(self) -> torch.optim.Optimizer:
        """For a loop of another library, which takes steps by itself; all trained tensors must be float32."""
        return self._adamw

    def clip(self) -> torch.Tensor:
        """Hand the gradients to the masters, clip them to max_grad_norm, and return their norm before
        that.
        """
        for name, param in self._params.items():
            if param.grad is not None and self._masters[name] is not param:
                self._masters[name].grad, param.grad = param.grad.float(), None
        limit = self._max_grad_norm or float("inf")
        return torch.nn.utils.clip_grad_norm_(list(self._masters.values()), limit)

    def step(self, rate: float) -> None:
        """Move by the gradients with this learning rate, and forget them."""
        self._adamw.param_groups[0]["lr"] = rate
        self._adamw.step()
        self._adamw.zero_grad()
        self._publish()

    def keep(self) -> None:
        """Remember the weights as they are now, in place of any remembered before."""
        self._kept = {name: master.detach().clone() for name, master in self._masters.items()}

    def restore(self) -> None:
        """Put back the weights that were remembered; moments stay."""
        with torch.no_grad():
            for name, kept in self._kept.items():
                self._masters[name].copy_(kept)
        self._publish()

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that `load` needs: masters, moments and remembered weights, by name."""
        tensors = {f"weight/{name}": master.detach() for name, master in self._masters.items()}
        for name, master in self._masters.items():
            held = self._adamw.state.get(master, {})
            tensors |= {f"{kind}/{name}": held[kind] for kind in _MOMENTS if kind in held}
            tensors |= {f"count/{name}": held["step"]} if "step" in held else {}
        return tensors | {f"{_KEPT}{name}": kept for name, kept in self._kept.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave. Raises KeyError or ValueError where names or shapes differ."""
        expected = set(self._masters)
        kept = {key.removeprefix(_KEPT): tensors[key] for key in tensors if key.startswith(_KEPT)}
        if kept and set(kept) != expected:
            raise ValueError("the checkpoint's remembered weights are not those of this model")
        self._kept = {name: tensor.to(self._masters[name].device).clone() for name, tensor in kept.items()}
        if {key.partition("/")[2] for key in tensors} != expected:
            raise ValueError("the checkpoint's tensors are not those of this model")
        for name, master in self._masters.items():
            weight = tensors[f"weight/{name}"]
            if weight.shape != master.shape:
                raise ValueError("a tensor of the checkpoint has another shape than the model's")
            with torch.no_grad():
                master.copy_(weight)
            if f"count/{name}" not in tensors:
                continue
            device = master.device
            held = {kind: tensors[f"{kind}/{name}"].to(device).clone() for kind in _MOMENTS}
            self._adamw.state[master] = {"step": tensors[f"count/{name}"].to(device).clone(), **held}
        self._publish()

    def _publish(self) -> None:
        with torch.no_grad():
            for name, param in self._params.items():
                if self._masters[name] is not param:
                    param.copy_(self._masters[name])
