# SPDX-License-Identifier: Apache-2.0
"""What a sentence encoder consists of, read from and written to the folder layout of sentence-transformers.

`modules.json` lists a Transformer, one Pooling, and any number of Dense and Normalize, each with a folder of its own;
the Transformer's files may lie at the top. A folder without `modules.json` is a bare encoder: it gets the mean of its
tokens and unit length, which is what sentence-transformers' own users do with one, and is written with `modules.json`.
Other modules, and weights that are not safetensors, are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch.nn import functional

from cloister_workers.trainer.debias.subjects.pretrained import invalid, pretrained, read_json, settle
from cloister_workers.trainer.export import export_files
from cloister_workers.trainer.model import load_tokenizer

_MODULES, _SETTINGS, _TOP = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
_TYPE = "sentence_transformers.models."
_LEGACY_MODES: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: Mapping[str, type[torch.nn.Module]] = {
    name: getattr(torch.nn, name) for name in ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")
}


class Pooling(torch.nn.Module):
    """Token embeddings [n, t, h] and mask [n, t] to [n, h * modes], tokens padded at the right."""

    def __init__(self, modes: tuple[str, ...]) -> None:
        super().__init__()
        self.modes = modes

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Concatenate what each mode gives."""
        return torch.cat([self._pooled(mode, tokens, mask) for mode in self.modes], dim=-1)

    def _pooled(self, mode: str, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weights = mask.to(tokens.dtype)[..., None]
        if mode == "cls":
            return tokens[:, 0]
        if mode == "max":
            return tokens.masked_fill(weights == 0, float("-inf")).amax(1)
        if mode == "lasttoken":
            return tokens[torch.arange(len(tokens), device=tokens.device), mask.sum(1) - 1]
        if mode == "weightedmean":
            weights = weights * torch.arange(1, tokens.shape[1] + 1, device=tokens.device, dtype=tokens.dtype)[:, None]
        total = weights.sum(1).clamp(min=1e-9)
        return (tokens * weights).sum(1) / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)


class Dense(torch.nn.Module):
    """A linear layer with an activation: [n, d] to [n, e]."""

    def __init__(self, linear: torch.nn.Linear, activation: str = "Identity") -> None:
        super().__init__()
        self.linear, self.activation = linear, _ACTIVATIONS[activation]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated: torch.Tensor = self.activation(self.linear(x))
        return activated


class Normalize(torch.nn.Module):
    """[n, d] to vectors of length 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.normalize(x, p=2, dim=-1)


@dataclass(frozen=True)
class Head:
    """What follows the transformer of a sentence encoder, with the settings that its folder holds."""

    pooling: Pooling
    steps: tuple[torch.nn.Module, ...]
    settings: Mapping[str, Any]
    top: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        """What is put before every text, or nothing."""
        return str((self.top.get("prompts") or {}).get(self.top.get("default_prompt_name"), ""))

    def __call__(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Sentence embeddings [n, d] of token embeddings [n, t, h]."""
        x: torch.Tensor = self.pooling(tokens, mask)
        for step in self.steps:
            x = step(x)
        return x


class SentenceEncoder(torch.nn.Module):
    """Transformer, pooling and what follows."""

    def __init__(
        self,
        transformer: Any,  # noqa: ANN401 - a transformers or peft model
        pooling: Pooling,
        steps: list[torch.nn.Module],
        settings: Mapping[str, Any],
        top: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.transformer, self.pooling, self.steps = transformer, pooling, torch.nn.ModuleList(steps)
        self.settings, self.top = dict(settings), dict(top)

    @property
    def prompt(self) -> str:
        """What is put before every text, or nothing."""
        return str((self.top.get("prompts") or {}).get(self.top.get("default_prompt_name"), ""))

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sentence embeddings [n, d] of what the tokenizer made."""
        x = self.unscaled(batch)
        for step in self._scaling():
            x = step(x)
        return x

    def unscaled(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Embeddings [n, d] before they are brought to unit length: where a linear map can be put in."""
        tokens = self.transformer(**batch).last_hidden_state
        x: torch.Tensor = self.pooling(tokens, batch["attention_mask"])
        for step in list(self.steps)[: len(self.steps) - len(self._scaling())]:
            x = step(x)
        return x

    def append_linear(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Put x -> weight x + bias where `unscaled` ends; both are brought to the encoder's dtype."""
        parameter = next(self.transformer.parameters())
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=parameter.dtype, device=parameter.device)
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        self.steps.insert(len(self.steps) - len(self._scaling()), Dense(linear))

    def _scaling(self) -> list[torch.nn.Module]:
        """The Normalize steps at the end."""
        count = 0
        for step in reversed(self.steps):
            if not isinstance(step, Normalize):
                break
            count += 1
        return list(self.steps)[len(self.steps) - count :]


# ---------------------------------------------------------------- from a folder
def read_pipeline(folder: Path) -> tuple[SentenceEncoder, Any]:
    """The encoder of a folder on the CPU in float32, with its tokenizer. Raises TrainerError MODEL_INVALID."""
    place, head = read_head(folder)
    transformer, tokenizer = _transformer(place)
    return SentenceEncoder(transformer, head.pooling, list(head.steps), head.settings, head.top), tokenizer


def read_head(folder: Path) -> tuple[Path, Head]:
    """Where the transformer of an encoder's folder is, and what follows it. Raises TrainerError MODEL_INVALID."""
    if not is_pipeline(folder):
        return folder, Head(Pooling(("mean",)), (Normalize(),), {}, {})
    entries = [(str(entry["type"]).split(".")[-1], folder / str(entry["path"])) for entry in _listed(folder)]
    kinds = [kind for kind, _ in entries]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= {"Dense", "Normalize"}:
        raise invalid(f"it consists of {', '.join(kinds)}; an encoder is Transformer, Pooling, Dense and Normalize")
    steps = [Normalize() if kind == "Normalize" else _dense(path) for kind, path in entries[2:]]
    settings = _optional(entries[0][1] / _SETTINGS)
    return entries[0][1], Head(_pooling(entries[1][1]), tuple(steps), settings, _optional(folder / _TOP))


def is_pipeline(folder: Path) -> bool:
    """Whether the folder says itself that it is a sentence encoder."""
    return (folder / _MODULES).is_file()


def _listed(folder: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads((folder / _MODULES).read_bytes())
        paths = [Path(entry["path"]) for entry in entries if entry["type"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise invalid("its modules.json is no list of modules with type and path") from error
    if any(path.is_absolute() or ".." in path.parts for path in paths):
        raise invalid("its modules.json leads out of the folder")
    return list(entries)


def _transformer(folder: Path) -> tuple[Any, Any]:
    model, report = pretrained(transformers.AutoModel, folder, torch.float32, attn_implementation="sdpa")
    lacking = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    if any("pooler" not in key for key in lacking):
        raise invalid("its weights lack tensors of the architecture in config.json")
    settle(model, lacking)  # a pooler that no step reads
    return model, load_tokenizer(str(folder), padded=True)


def _pooling(folder: Path) -> Pooling:
    table = read_json(folder / "config.json")
    given = table.get("pooling_mode") or [mode for key, mode in _LEGACY_MODES.items() if table.get(key)] or "mean"
    modes = (given,) if isinstance(given, str) else tuple(given)
    if not set(modes) <= set(_LEGACY_MODES.values()) or not table.get("include_prompt", True):
        raise invalid(f"its pooling is none of {', '.join(_LEGACY_MODES.values())} over all tokens")
    return Pooling(modes)


def _dense(folder: Path) -> Dense:
    table = read_json(folder / "config.json")
    activation = str(table.get("activation_function", "torch.nn.modules.activation.Tanh")).split(".")[-1]
    keys = {str(table.get(key) or "sentence_embedding") for key in ("module_input_name", "module_output_name")}
    if activation not in _ACTIVATIONS or table.get("use_residual") or keys != {"sentence_embedding"}:
        raise invalid("its dense layer has an activation, a residual or an input that is not supported")
    try:
        tensors = load_tensors((folder / "model.safetensors").read_bytes())
        linear = torch.nn.Linear(int(table["in_features"]), int(table["out_features"]), bias=bool(table["bias"]))
        linear.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in tensors.items()})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise invalid("its dense layer has no model.safetensors that fits its config.json") from error
    return Dense(linear, activation)


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


# ---------------------------------------------------------------- to a folder
def pipeline_files(model: SentenceEncoder, tokenizer: Any, model_name: str, scratch: str) -> dict[str, bytes]:  # noqa: ANN401
    """The files of an encoder as sentence-transformers loads them; adapters on it are merged into it for good.

    Files are made under `scratch`; `model_name` stands where a library would write a path.
    """
    if hasattr(model.transformer, "merge_and_unload"):
        model.transformer = model.transformer.merge_and_unload()
    files = export_files(model.transformer, tokenizer, model_name, scratch)
    head = Head(model.pooling, tuple(model.steps), model.settings, model.top)
    return files | head_files(head, int(model.transformer.config.hidden_size))


def head_files(head: Head, hidden: int) -> dict[str, bytes]:
    """The files beside those of a transformer with this hidden size that make the folder a sentence encoder's."""
    files: dict[str, bytes] = {}
    modules = [("Transformer", "")]
    for number, step in enumerate((head.pooling, *head.steps), start=1):
        kind = type(step).__name__
        path = f"{number}_{kind}"
        modules.append((kind, path))
        files |= {f"{path}/{name}": content for name, content in _step_files(step, hidden).items()}
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": _TYPE + kind}
        for number, (kind, path) in enumerate(modules)
    ]
    files[_MODULES] = (json.dumps(listed, indent=2) + "\n").encode()
    files[_SETTINGS] = _json_bytes({"max_seq_length": None, "do_lower_case": False, **head.settings})
    if head.top:
        files[_TOP] = _json_bytes(head.top)
    return files


def _step_files(step: torch.nn.Module, width: int) -> dict[str, bytes]:
    if isinstance(step, Pooling):
        chosen = {key: mode in step.modes for key, mode in _LEGACY_MODES.items()}
        return {"config.json": _json_bytes({"word_embedding_dimension": width, **chosen})}
    if isinstance(step, Dense):
        linear, activation = step.linear, type(step.activation)
        table = {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": linear.bias is not None,
            "activation_function": f"{activation.__module__}.{activation.__name__}",
        }
        tensors = {f"linear.{name}": tensor.detach().cpu().contiguous() for name, tensor in linear.state_dict().items()}
        return {"config.json": _json_bytes(table), "model.safetensors": save_tensors(tensors, {"format": "pt"})}
    return {}


def _json_bytes(table: Mapping[str, Any]) -> bytes:
    return (json.dumps(table, indent=2, sort_keys=True) + "\n").encode()
