"""Which class builds and opens a model with a head: transformers' own, or with side columns the one made here.

Strategies save such models and engines open them, so both must agree. Imports torch and transformers late.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_sdk.errors import DataError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from espalier_sdk.model import Head, HeadKind

# The layers that join text and side columns; absent from every base. Layers of the model itself, not of a module that
# holds them: PEFT 0.21 can give back a layer that it saves whole, and no module of several.
SIDE_COLUMNS, SIDE_TEXT, SIDE_OUT = "side_columns", "side_text", "side_out"
SIDE_LAYERS = (SIDE_COLUMNS, SIDE_OUT, SIDE_TEXT)

_AUTO_CLASSES: dict[HeadKind, str] = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}
_PIPELINES: dict[HeadKind, str] = {  # transformers 5 has none for answers that stand in a text
    "causal-lm": "text-generation",
    "masked-lm": "fill-mask",
    "sequence-classification": "text-classification",
    "token-classification": "token-classification",
}
_PROBLEMS = {
    "single-label": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}


def with_head(config: PretrainedConfig, head: Head) -> PretrainedConfig:
    """Writes the head into a configuration and returns it; DataError where no model has such a head."""
    if head.side_width and head.kind != "sequence-classification":
        raise DataError(
            f"a head for {head.kind} takes no side columns", field="strategy", accepted="sequence-classification"
        )
    if head.outputs:
        config.num_labels = head.outputs
    if head.problem:
        config.problem_type = _PROBLEMS[head.problem]
    if head.side_width:
        config.side_width = head.side_width
    return config


def auto_class(kind: HeadKind) -> str:
    """Returns the name of the auto class by which transformers opens a model with a head, without side columns."""
    return _AUTO_CLASSES[kind]


def pipeline_of(kind: HeadKind) -> str | None:
    """Returns the name of transformers' pipeline that answers with a head; None where it has none."""
    return _PIPELINES.get(kind)


def scale_of(head: Head, state: Mapping[str, Any]) -> dict[str, float] | None:
    """Returns mean and deviation of the target in whose deviations a model answers; None where its task has no scale.

    `state` is the task's, as a card holds it. A reward model answers a number too, and has none.
    """
    if head.problem != "regression" or not {"mean", "deviation"} <= set(state):
        return None
    return {name: state[name] for name in ("mean", "deviation")}


def build_model(config: PretrainedConfig, head: Head) -> torch.nn.Module:
    """Returns a model with random weights of a configuration that `with_head` has written; the caller seeds torch."""
    kind = _class(config, head)
    made: torch.nn.Module = kind._from_config(config) if head.side_width else kind.from_config(config)
    return made


def blank_batch(head: Head, *, rows: int, tokens: int) -> dict[str, torch.Tensor]:
    """Returns zeros in the shapes that a model with this head is trained on: tokens, labels, side columns."""
    import torch

    shape = (rows, tokens)
    batch = {"input_ids": torch.zeros(shape, dtype=torch.long), "attention_mask": torch.ones(shape, dtype=torch.long)}
    if head.kind == "question-answering":
        ends = torch.zeros(rows, dtype=torch.long)
        return {**batch, "start_positions": ends, "end_positions": ends}
    if head.side_width:
        batch["side"] = torch.zeros(rows, head.side_width)
    if head.problem == "multi-label":
        labels = torch.zeros(rows, head.outputs)
    elif head.problem == "regression":
        labels = torch.zeros(rows)
    else:
        labels = torch.zeros(shape[:1] if head.kind == "sequence-classification" else shape, dtype=torch.long)
    return {**batch, "labels": labels}


def load_model(folder: Path, head: Head, **options: Any) -> torch.nn.Module:
    """Opens a Hugging Face folder with this head, from safetensors; what the folder lacks is random.

    Where the folder names no padding token, its end token pads: a decoder's classifier reads the last token that is
    none, and transformers refuses several rows without.
    """
    from transformers import AutoConfig

    config = with_head(AutoConfig.from_pretrained(folder, local_files_only=True), head)
    model: torch.nn.Module = _class(config, head).from_pretrained(
        folder, config=config, use_safetensors=True, local_files_only=True, **options
    )
    told: Any = model
    names = told.config.get_text_config()  # not before: an embedding that is made with it would never learn that token
    if names.pad_token_id is None:
        end = names.eos_token_id
        names.pad_token_id = end[0] if isinstance(end, list) else end
    return model


def freeze_in_bfloat16(model: torch.nn.Module, new_modules: Iterable[str]) -> torch.nn.Module:
    """Puts a frozen base into bfloat16, in place, all but the modules that it lacked: those are trained."""
    import torch

    model.to(torch.bfloat16)
    for name in new_modules:
        model.get_submodule(name).float()
    return model


def _class(config: PretrainedConfig, head: Head) -> Any:
    import transformers

    family: Any = type(config)
    return _with_side(family) if head.side_width else getattr(transformers, auto_class(head.kind))


@cache
def _with_side(config_class: Any) -> Any:
    """Returns the class of a model of this family that reads `side`, (batch, side_width), beside the tokens.

    The text is pooled as the mean over its tokens. One hidden layer then reads text and side together, so that what
    a side column means may depend on the text: out(tanh(A text + B side + c)).
    """
    import torch
    from transformers import MODEL_MAPPING, PreTrainedModel, initialization
    from transformers.loss.loss_utils import ForSequenceClassificationLoss
    from transformers.modeling_outputs import SequenceClassifierOutput

    mapped: Any = MODEL_MAPPING[config_class]
    backbone: Any = mapped[0] if isinstance(mapped, tuple) else mapped
    family: Any = next(one for one in backbone.__mro__[1:] if issubclass(one, PreTrainedModel))
    # A pooler of the family's own would get no gradient.
    options = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(backbone).parameters else {}

    class WithSide(family):  # type: ignore[misc]
        """A pooled encoder or decoder with side columns."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            setattr(self, self.base_model_prefix, backbone(config, **options))
            width = config.hidden_size
            setattr(self, SIDE_TEXT, torch.nn.Linear(width, width))
            setattr(self, SIDE_COLUMNS, torch.nn.Linear(config.side_width, width, bias=False))
            setattr(self, SIDE_OUT, torch.nn.Linear(width, config.num_labels))
            self.post_init()

        def _init_weights(self, module: torch.nn.Module) -> None:
            super()._init_weights(module)
            if module is self.side_columns:
                # Not the family's 0.02: side columns are few, and would start too quiet beside the text to be learned
                # at the rates at which a base is fine-tuned.
                initialization.normal_(module.weight, std=module.in_features**-0.5)

        def forward(
            self,
            input_ids: torch.Tensor | None = None,
            attention_mask: torch.Tensor | None = None,
            side: torch.Tensor | None = None,
            labels: torch.Tensor | None = None,
            **more: Any,
        ) -> Any:
            if side is None:
                raise ValueError(f"the model reads `side`, (batch, {self.config.side_width}), beside the tokens")
            read = self.base_model(input_ids, attention_mask=attention_mask, **{**more, "return_dict": True})
            text = _mean(read.last_hidden_state, attention_mask)
            logits = self.side_out(torch.tanh(self.side_text(text) + self.side_columns(side.to(text.dtype))))
            loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
            return SequenceClassifierOutput(loss=loss, logits=logits)

    WithSide.__name__ = WithSide.__qualname__ = f"{backbone.__name__}WithSide"
    return WithSide


def _mean(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Returns the mean over the tokens that are no padding, (batch, width)."""
    if mask is None:
        return states.mean(dim=1)
    # A prefix has places in the mask, in front, and no states.
    weights = mask[:, -states.shape[1] :, None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
