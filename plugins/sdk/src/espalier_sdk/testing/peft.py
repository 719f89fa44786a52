"""The kit for PEFT methods: on tiny CPU models, what is declared is what is trained, saved, loaded and merged."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from espalier_sdk.errors import EspalierError, NotMergeable
from espalier_sdk.model import Head, HeadKind, ParameterInfo, PeftTraits, Placement
from espalier_sdk.planning import clean_name
from espalier_sdk.testing.plugin import check_plugin
from espalier_sdk.testing.tiny import Family, Tiny, batch, check_folder, contents, one_thread, tiny

if TYPE_CHECKING:
    import torch

IDENTITY_TOLERANCE = 1e-6
_STEPS = 3
_OUTPUTS = 3
_SIDE_WIDTH = 4
_CASES: tuple[tuple[Family, HeadKind, int], ...] = (  # the last is the width of the side columns
    ("bert", "sequence-classification", 0),
    ("bert", "sequence-classification", _SIDE_WIDTH),
    ("bert", "token-classification", 0),
    ("bert", "question-answering", 0),
    ("bert", "masked-lm", 0),
    ("llama", "sequence-classification", 0),
    ("llama", "sequence-classification", _SIDE_WIDTH),
    ("llama", "causal-lm", 0),
    ("gpt2", "causal-lm", 0),  # keeps the weights of linear layers transposed
)


@one_thread()
def check_peft_method(
    name: str,
    *,
    config: Mapping[str, Any] | None = None,
    refused: Sequence[Mapping[str, Any]],
    refused_families: Sequence[Family] = (),
    tolerance: float = 1e-5,
) -> None:
    """Checks a PEFT method on a tiny encoder and tiny decoders, for each head that its traits name.

    Sequence heads come without and with side columns. Importing it is light; the output is unchanged at step 0 where
    the method promises it; only declared parameters have gradients, and their shapes and count are those of
    `parameters`, and those gradients do not change where activations are computed again, if the traits say that it
    trains so; optimizer steps move them and nothing else; the state survives save and load, and a resume, bit for
    bit; PEFT alone opens what was saved where the traits say so; merged equals adapted within `tolerance`, or the
    method raises NotMergeable; token-level outputs and labels align with `input_ids`; where shapes are `placed` by
    calibration they have no more weights than `parameters`, and a second model gets the same; each config of `refused`
    is refused, by `Config` or, where it depends on the model, by `parameters`; so is each model of `refused_families`,
    of which the method needs something that they lack.
    """
    plugin = check_plugin("espalier.peft_methods", name)
    method = plugin(plugin.Config.model_validate(dict(config or {})))
    traits = method.traits()
    assert isinstance(traits, PeftTraits), f"{name}: traits() must be PeftTraits"
    assert 0 < (traits.learning_rate or 1e-3) < 1, f"{name}: learning_rate is {traits.learning_rate}"
    assert isinstance(method.place(Placement()), Placement), f"{name}: place() must return a Placement"
    cases = [case for case in _CASES if case[1] in traits.heads]
    assert cases, f"{name}: no head of {', '.join(sorted(traits.heads))} is known to the kit"
    assert {family for family, _, _ in cases} > set(refused_families), f"{name}: no family is left to check it on"
    for family, kind, side_width in cases:
        made = _tiny(family, kind, side_width)
        if family in refused_families:
            with pytest.raises(EspalierError):
                method.parameters(made.blueprint)
            continue
        label = f"{name} on a tiny {family} for {kind}{' with side columns' if side_width else ''}"
        _Case(label, method, traits, family, made).check(tolerance)
    _check_refused(name, plugin, refused)


class _Case:
    """One method on one tiny model."""

    def __init__(self, label: str, method: Any, traits: PeftTraits, family: Family, made: Tiny) -> None:
        self.label, self.method, self.traits, self.made = label, method, traits, made
        head = made.blueprint.head
        self.base = copy.deepcopy(self.made.model)  # as the strategy builds it, before the method touches it
        left = traits.hides_padding and family == "llama"
        self.inputs = batch([7, 5, 7], left=left, side_width=head.side_width)
        self.labels = _labels(head.kind, self.inputs)
        self.declared: tuple[ParameterInfo, ...] = method.parameters(self.made.blueprint)

    def check(self, tolerance: float) -> None:
        import torch

        torch.manual_seed(1)
        before = _answer(self.base, self.inputs)
        model = self._inject(self.made.model)
        self._check_declared(model)
        if self.traits.identity_at_start:
            _check_near(
                self.label, "at step 0, against the base", _answer(model, self.inputs), before, IDENTITY_TOLERANCE
            )
        self._check_alignment(model)
        self._check_steps(model)
        if self.traits.gradient_checkpointing:
            self._check_checkpointing(model)
        self._check_resume(model)
        self._check_saved(model)
        self._check_merge(model, tolerance)

    def _inject(self, model: torch.nn.Module) -> torch.nn.Module:
        calibration = [self.inputs | self.labels for _ in range(self.traits.calibration_batches)]
        injected: torch.nn.Module = self.method.inject(
            model, blueprint=self.made.blueprint, placement=self.method.place(Placement()), calibration=calibration
        )
        if hasattr(self.method, "placed"):
            self.declared = self.method.placed(injected, blueprint=self.made.blueprint)
            asked, budget = (
                sum(one.count for one in infos)
                for infos in (self.declared, self.method.parameters(self.made.blueprint))
            )
            assert asked <= budget, f"{self.label}: placed() has {asked} weights, parameters() allows {budget}"
        for name, parameter in injected.named_parameters():  # as the training service does it, from the plan
            parameter.requires_grad_(_own_name(name) in self._trained())
        return injected

    def _trained(self) -> dict[str, ParameterInfo]:
        new = tuple(f"{module}." for module in self.made.blueprint.new_modules)
        heads = [one for one in self.made.blueprint.parameters if new and one.name.startswith(new)]
        return {one.name: one for one in (*self.declared, *heads)}

    def _check_declared(self, model: torch.nn.Module) -> None:
        names = [one.name for one in self.declared]
        assert names and len(set(names)) == len(names), f"{self.label}: parameters() repeats a name, or has none"
        known = {one.name for one in self.made.blueprint.parameters}
        found = {_own_name(name): tuple(value.shape) for name, value in model.named_parameters()}
        added = {name: shape for name, shape in found.items() if name and name not in known}
        declared = {one.name: one.shape for one in self.declared}
        assert added == declared, f"{self.label}: parameters() and inject() differ: {_difference(declared, added)}"
        wrong = [
            one.name for one in self.declared if one.role != "adapter" or one.depth > self.made.blueprint.blocks + 1
        ]
        assert not wrong, f"{self.label}: role or depth of {wrong[0] if wrong else ''} is wrong"
        count = sum(value.numel() for value in model.parameters() if value.requires_grad)
        expected = sum(one.count for one in self._trained().values())
        assert count == expected, f"{self.label}: {count} weights are trained, declared are {expected}"

    def _check_alignment(self, model: torch.nn.Module) -> None:
        model.eval()
        kind = self.made.blueprint.head.kind
        output = model(**self.inputs, **self.labels)
        for logits in _logits(output) if kind != "sequence-classification" else ():
            shape = tuple(self.inputs["input_ids"].shape)
            assert tuple(logits.shape[:2]) == shape, (
                f"{self.label}: outputs {tuple(logits.shape)} do not align with {shape}"
            )
        by_hand = _loss(kind, _logits(output), self.labels)
        assert abs(float(output.loss.detach()) - float(by_hand.detach())) < 1e-4, (
            f"{self.label}: labels do not align with the outputs"
        )

    def _check_steps(self, model: torch.nn.Module) -> None:
        import torch

        start = {name: value.detach().clone() for name, value in model.state_dict().items()}
        optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-2)
        model.train()
        for step in range(_STEPS):
            optimizer.zero_grad()
            model(**self.inputs, **self.labels).loss.backward()
            self._check_gradients(model)
            optimizer.step()
            self.method.after_step(model, step=step, steps=_STEPS)
        model.eval()
        trained, moved = self._trained(), set()
        for name, value in model.state_dict().items():
            if not torch.equal(value, start[name]):
                assert _own_name(name) in trained, f"{self.label}: {name} moved and is not declared"
                moved.add(_own_name(name))
        still = sorted(set(trained) - moved)
        assert not still, f"{self.label}: after {_STEPS} steps {still[0] if still else ''} has not moved"

    def _check_gradients(self, model: torch.nn.Module) -> None:
        trained = self._trained()
        for name, value in model.named_parameters():
            if _own_name(name) in trained:
                assert value.grad is not None, f"{self.label}: {name} is declared and gets no gradient"
            else:
                assert value.grad is None, f"{self.label}: {name} gets a gradient and is not declared"

    def _check_checkpointing(self, model: Any) -> None:
        plain = self._gradients(model)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        again = self._gradients(model)
        model.gradient_checkpointing_disable()
        model.eval()
        for name, wanted in plain.items():
            found = again.get(name)
            assert found is not None, f"{self.label}: with gradient checkpointing {name} gets no gradient"
            distance = float((found - wanted).abs().max())
            assert distance <= IDENTITY_TOLERANCE, (
                f"{self.label}: with gradient checkpointing the gradient of {name} differs by {distance:.2g}"
            )

    def _gradients(self, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        import torch

        torch.manual_seed(2)  # the same places fall out
        model.train()
        model.zero_grad()
        model(**self.inputs, **self.labels).loss.backward()
        found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        model.zero_grad()
        return found

    def _check_resume(self, model: torch.nn.Module) -> None:
        resumed = self._inject(copy.deepcopy(self.base))
        resumed.load_state_dict(model.state_dict())
        self.method.restore(resumed, {name: value.clone() for name, value in self.method.extra_state(model).items()})
        _check_equal(self.label, "resumed", resumed, model, self.inputs)
        _check_same(
            f"{self.label}: extra_state after restore", self.method.extra_state(resumed), self.method.extra_state(model)
        )

    def _check_saved(self, model: torch.nn.Module) -> None:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            first, second = Path(one), Path(other)
            self.method.save(model, first)
            self.method.save(model, second)
            check_folder(self.label, first, first, second, Path.cwd())
            assert contents(first) == contents(second), f"{self.label}: saving twice gives other bytes"
            loaded = self.method.load(copy.deepcopy(self.base), first).eval()
            _check_equal(self.label, "loaded", loaded, model, self.inputs)
            if self.traits.opens_with_peft:
                self._check_opened_by_peft(model, first)
            trained = self._trained()
            _check_same(
                f"{self.label}: what was loaded",
                *(
                    {_own_name(name): value for name, value in one.state_dict().items() if _own_name(name) in trained}
                    for one in (loaded, model)
                ),
            )

    def _check_opened_by_peft(self, model: torch.nn.Module, folder: Path) -> None:
        from peft import PeftModel

        opened = PeftModel.from_pretrained(copy.deepcopy(self.base), str(folder)).eval()
        adapted = _answer(model, self.inputs)
        _check_near(self.label, "opened by PEFT alone", _answer(opened, self.inputs), adapted, IDENTITY_TOLERANCE)

    def _check_merge(self, model: torch.nn.Module, tolerance: float) -> None:
        if not self.traits.mergeable:
            with pytest.raises(NotMergeable):
                self.method.merge(model)
            return
        adapted = _answer(model, self.inputs)
        merged = self.method.merge(model).eval()
        _check_near(self.label, "merged, against adapted", _answer(merged, self.inputs), adapted, tolerance)
        names = {name for name, _ in merged.named_parameters()}
        base = {name for name, _ in self.base.named_parameters()}
        assert names == base, f"{self.label}: the merged model is not plain: {sorted(names ^ base)[:3]}"


def _tiny(family: Family, kind: HeadKind, side_width: int) -> Tiny:
    outputs = 0 if kind in ("causal-lm", "masked-lm", "question-answering") else _OUTPUTS
    return tiny(family, Head(kind, outputs=outputs, side_width=side_width))


def _own_name(name: str) -> str:
    """Returns a parameter's name as plans spell it; empty for the untouched copies that PEFT keeps."""
    clean = clean_name(name)
    return "" if ".original_module." in f".{clean}." else clean


def _labels(kind: HeadKind, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    import torch

    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    if kind == "sequence-classification":
        return {"labels": torch.arange(len(ids)) % _OUTPUTS}
    if kind == "question-answering":  # known spans
        return {"start_positions": torch.tensor([1, 2, 3]), "end_positions": torch.tensor([4, 3, 5])}
    labels = ids % _OUTPUTS if kind == "token-classification" else ids
    return {"labels": labels.masked_fill(mask == 0, -100)}


def _loss(kind: HeadKind, logits: Sequence[torch.Tensor], labels: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns the loss as the label's definition says, from outputs that align with the tokens."""
    from torch.nn.functional import cross_entropy

    if kind == "question-answering":
        start, end = (
            cross_entropy(one, labels[f"{word}_positions"]) for one, word in zip(logits, ("start", "end"), strict=True)
        )
        return (start + end) / 2
    found, wanted = logits[0], labels["labels"]
    if kind == "causal-lm":
        found, wanted = found[:, :-1], wanted[:, 1:]
    return cross_entropy(found.reshape(-1, found.shape[-1]), wanted.reshape(-1))


def _logits(output: Any) -> tuple[torch.Tensor, ...]:
    return (output.logits,) if "logits" in output else (output.start_logits, output.end_logits)


def _answer(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    import torch

    model.eval()
    with torch.no_grad():
        return _logits(model(**inputs))


def _check_near(
    label: str, what: str, found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], tolerance: float
) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape, f"{label}: {what}, the outputs' shape is {tuple(one.shape)}"
        distance = float((one - other).abs().max())
        assert distance <= tolerance, f"{label}: {what}, outputs differ by {distance:.2g}, at most {tolerance:g}"


def _check_equal(
    label: str, what: str, model: torch.nn.Module, other: torch.nn.Module, inputs: Mapping[str, torch.Tensor]
) -> None:
    _check_near(label, f"{what}, against what was trained", _answer(model, inputs), _answer(other, inputs), 0.0)


def _check_same(what: str, found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    import torch

    assert set(found) == set(wanted), f"{what} has {sorted(set(found) ^ set(wanted))[:3]} too many or too few"
    other = [name for name in wanted if not torch.equal(found[name], wanted[name])]
    assert not other, f"{what}: {other[0] if other else ''} is not the same bit for bit"


def _difference(declared: Mapping[str, Any], added: Mapping[str, Any]) -> str:
    names = sorted(name for name in {*declared, *added} if declared.get(name) != added.get(name))
    return "; ".join(f"{name} declared {declared.get(name)}, made {added.get(name)}" for name in names[:3])


def _check_refused(name: str, plugin: Any, refused: Sequence[Mapping[str, Any]]) -> None:
    assert refused, f"{name}: the kit needs configs that must be refused"
    blueprint = tiny("bert", Head("sequence-classification", outputs=_OUTPUTS)).blueprint
    for wrong in refused:
        with pytest.raises((ValidationError, EspalierError)):
            plugin(plugin.Config.model_validate(dict(wrong))).parameters(blueprint)
