"""Requests: what one stage is asked for, and the digest over all that would make its answer differ.

Knows the shape of specs, not what any stage does with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from espalier_sdk.artifacts import ArtifactKind, ArtifactRef, PluginUse, digest_of
from espalier_sdk.choice import Choice
from espalier_sdk.errors import EspalierError, SpecError
from espalier_sdk.model import SPLITS, Split
from espalier_sdk.planning import quantisation

from espalier_runtime.arithmetic import dtype_of
from espalier_runtime.plugins import Plugins, distribution_use
from espalier_runtime.specs.checking import objective_metric
from espalier_runtime.specs.models import Candidate, From, Spec
from espalier_runtime.specs.space import ends, with_values

GroupChoice = tuple[str, Choice]
_TRAINING_LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "peft", "trl", "numpy")


@dataclass(frozen=True)
class StageRequest:
    """What one stage is asked for. `digest()` names it; the same request finds the finished artifact."""

    stage: str
    service: str
    kind: ArtifactKind
    name: str
    what: dict[str, Any]
    inputs: Mapping[str, ArtifactRef] = field(default_factory=dict)
    plugins: tuple[PluginUse, ...] = ()
    resolved: Mapping[str, str | None] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    data: str | None = None
    candidate: str | None = None
    split: str | None = None

    @property
    def read_again(self) -> bool:
        """Tells that a source cannot say whether it changed, and no `as_of` pins it: no earlier answer counts."""
        return any(value is None for value in self.resolved.values())

    def components(self) -> dict[str, Any]:
        """Returns all that enters the digest, by component, so that `plan` can say which one changed."""
        return {
            "stage": self.stage,
            "what": self.what,
            "inputs": {role: str(ref) for role, ref in sorted(self.inputs.items())},
            "service": distribution_use(self.service),
            "runtime": [distribution_use("espalier-runtime"), distribution_use("espalier-sdk")],
            "plugins": [use.model_dump() for use in self.plugins],
            "resolved": dict(self.resolved),
            "libraries": dict(self.libraries),
        }

    def digest(self) -> str:
        """Returns the request digest, 64 hexadecimal digits."""
        return digest_of(self.components())


def ingest_request(spec: Spec, data: str, plugins: Plugins) -> StageRequest:
    """Returns the request for a corpus. Files enter by content, through `Source.fingerprint`, never by path.

    What a source says is wrong has its place in the spec as field.
    """
    part = spec.data[data]
    resolved: dict[str, str | None] = {}
    for index, choice in enumerate(part.sources):
        try:
            print_of = plugins.ask("espalier.sources", choice, "fingerprint")
        except EspalierError as error:
            at = f"data.{data}.sources.{index}.config"
            fields = [".".join(filter(None, (at, (one.field or "").removeprefix("config.")))) for one in error.problems]
            problems = tuple(replace(one, field=name) for one, name in zip(error.problems, fields, strict=True))
            raise type(error)(problems=problems, retryable=error.retryable) from error
        resolved[f"sources[{index}]"] = print_of or part.as_of
    what = {"sources": [_without_paths(choice) for choice in part.sources], "bad_rows": part.bad_rows}
    return StageRequest(
        stage="ingest",
        service="espalier-ingestion",
        kind="corpus",
        name=data,
        what=what,
        plugins=_uses(plugins, [("espalier.sources", choice) for choice in part.sources]),
        resolved=resolved,
        libraries=_versions("pyarrow"),
        data=data,
    )


def preprocess_request(spec: Spec, data: str, task: Choice, corpus: ArtifactRef, plugins: Plugins) -> StageRequest:
    """Returns the request for the dataset that a task is fitted on."""
    part = spec.data[data]
    what = {
        "transforms": [_dump(choice) for choice in part.transforms],
        "split": part.split.model_dump(mode="json"),
        "task": _dump(task),
    }
    if optional := _optional(spec, data, task, plugins):
        what["optional"] = optional
    choices: list[GroupChoice] = [("espalier.transforms", choice) for choice in part.transforms]
    return StageRequest(
        stage="preprocess",
        service="espalier-preprocessing",
        kind="dataset",
        name=data,
        what=what,
        inputs={"corpus": corpus},
        plugins=_uses(plugins, [*choices, ("espalier.tasks", task)]),
        libraries=_versions("pyarrow", "numpy"),
        data=data,
    )


def _optional(spec: Spec, data: str, task: Choice, plugins: Plugins) -> dict[str, list[Split]]:
    """Returns the task's columns that no learner of this dataset needs, with the splits whose rows may lack them.

    Where a candidate competes it is measured by the task: held-out rows need all that the task reads.
    """
    users = [one for one in spec.candidates.values() if (spec.data_name(one), spec.task_of(one)) == (data, task)]
    if not users:
        return {}
    plugin = plugins.load("espalier.tasks", task)
    needed = {name for one in users for name in plugins.load("espalier.learners", one.learner).columns(plugin).required}
    splits: list[Split] = ["train"] if any(one.competes for one in users) else list(SPLITS)
    return {name: splits for name in sorted(plugin.columns().required) if name not in needed}


def base_request(base: Choice, plugins: Plugins) -> StageRequest:
    """Returns the request for a base model, fetched once."""
    revision = plugins.ask("espalier.base_models", base, "revision")
    return StageRequest(
        stage="base",
        service="espalier-training",
        kind="model",
        name=f"base-{base.name}",
        what={"base": _without_paths(base)},
        plugins=_uses(plugins, [("espalier.base_models", base)]),
        resolved={"base": revision},
    )


def prepare_request(
    spec: Spec, candidate: str, dataset: ArtifactRef, base: ArtifactRef | None, plugins: Plugins
) -> StageRequest:
    """Returns the request for a tokenised dataset, which candidates with equal choices share."""
    one = spec.candidates[candidate]
    task = spec.task_of(one)
    virtual_tokens = _virtual_tokens(candidate, one, plugins)
    what: dict[str, Any] = {
        "task": _dump(task),
        "learner": _dump(one.learner),
        "max_tokens": one.training.max_tokens - virtual_tokens,
    }
    choices: list[GroupChoice] = [("espalier.tasks", task), ("espalier.learners", one.learner)]
    if base is None:  # the tokenizer is the strategy's own
        what["strategy"] = _dump(one.strategy)
        what["seed"] = one.training.seed
        choices.append(("espalier.model_strategies", one.strategy))
    inputs = {"dataset": dataset} | ({"base": base} if base else {})
    return StageRequest(
        stage="prepare",
        service="espalier-training",
        kind="prepared",
        name=spec.data_name(one),
        what=what,
        inputs=inputs,
        plugins=_uses(plugins, choices),
        libraries=_versions("pyarrow", "tokenizers", "transformers"),
        data=spec.data_name(one),
        candidate=candidate,
    )


def train_request(
    spec: Spec,
    candidate: str,
    inputs: Mapping[str, ArtifactRef],
    plugins: Plugins,
) -> StageRequest:
    """Returns the request for a candidate's model; `inputs` by role: dataset, base, auxiliaries by name."""
    one = spec.candidates[candidate]
    return StageRequest(
        stage="train",
        service="espalier-training",
        kind="model",
        name=candidate,
        what=_trained(spec, one),
        inputs=inputs,
        plugins=_uses(plugins, _training_choices(spec, one)),
        libraries=_versions(*_training_libraries(one, plugins)),
        data=spec.data_name(one),
        candidate=candidate,
    )


def tune_request(spec: Spec, candidate: str, inputs: Mapping[str, ArtifactRef], plugins: Plugins) -> StageRequest:
    """Returns the request for the study that finds a candidate's best values; `inputs` as in training.

    A trial is scored by the objective's metric where the candidate competes, else by its validation loss.
    """
    one = spec.candidates[candidate]
    assert one.tune is not None, "a candidate that is tuned"
    tried = [one, *(with_values(one, {path: value}) for path, value in ends(one))]
    choices = [choice for each in tried for choice in _training_choices(spec, each)]
    what = _trained(spec, one) | {"tune": one.tune.model_dump(mode="json"), "scored": None}
    if one.competes:
        metric = objective_metric(spec, plugins)
        what["scored"] = {
            "value": spec.objective.metric,
            "metric": _dump(metric),
            "engine": _dump(spec.evaluate.engine),
        }
        choices += [("espalier.metrics", metric), ("espalier.engines", spec.evaluate.engine)]
    return StageRequest(
        stage="tune",
        service="espalier-training",
        kind="study",
        name=candidate,
        what=what,
        inputs=inputs,
        plugins=_uses(plugins, choices),
        libraries=_versions("optuna", "ray", *_training_libraries(one, plugins)),
        data=spec.data_name(one),
        candidate=candidate,
    )


def _trained(spec: Spec, one: Candidate) -> dict[str, Any]:
    """Returns what of a candidate changes its weights."""
    return {
        "strategy": _dump(one.strategy),
        "peft": _dump(one.peft) if one.peft else None,
        "learner": _dump(one.learner),
        "controls": [_dump(choice) for choice in one.controls],
        "task": _dump(spec.task_of(one)),
        "training": one.training.model_dump(mode="json") | {"dtype": dtype_of(one)},
        # Data parallelism changes the order of sums and compiling leaves roundings out: the last digits of the answer.
        "world": {"workers": one.where.workers, "zero_stage": one.where.zero_stage, "offload": one.where.offload}
        | ({"compile": True} if one.where.compile else {}),
    }


def _training_libraries(one: Candidate, plugins: Plugins) -> tuple[str, ...]:
    strategy = plugins.load("espalier.model_strategies", one.strategy)
    return _TRAINING_LIBRARIES if quantisation(strategy) == "none" else (*_TRAINING_LIBRARIES, "bitsandbytes")


def _training_choices(spec: Spec, one: Candidate) -> list[GroupChoice]:
    choices: list[GroupChoice] = [
        ("espalier.model_strategies", one.strategy),
        ("espalier.learners", one.learner),
        ("espalier.tasks", spec.task_of(one)),
        *(("espalier.training_controls", choice) for choice in one.controls),
    ]
    return [*choices, ("espalier.peft_methods", one.peft)] if one.peft else choices


def evaluate_request(
    spec: Spec, *, name: str, split: str, inputs: Mapping[str, ArtifactRef], plugins: Plugins
) -> StageRequest:
    """Returns the request for an evaluation of a model, or of the baselines where `inputs` has no model."""
    what = {"split": split, **spec.evaluate.model_dump(mode="json"), "baselines": "model" not in inputs}
    choices: list[GroupChoice] = [("espalier.metrics", choice) for choice in spec.evaluate.metrics]
    if "model" in inputs:
        choices.append(("espalier.engines", spec.evaluate.engine))
    return StageRequest(
        stage="evaluate",
        service="espalier-evaluation",
        kind="evaluation",
        name=f"{name}-{split}",
        what=what,
        inputs=inputs,
        plugins=_uses(plugins, choices),
        libraries=_versions("torch", "transformers", "tokenizers", "numpy", "pyarrow", "scikit-learn"),
        candidate=name if name in spec.candidates else None,
        split=split,
    )


def base_choice(candidate: Candidate) -> Choice | None:
    """Returns a candidate's base where it is a plugin, not another candidate."""
    if candidate.base is None or isinstance(candidate.base, From):
        return None
    return candidate.base


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Returns which components differ between two requests, in words for `plan`."""
    found: list[str] = []
    for key in sorted(set(before) | set(after)):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        old, new = _by_name(old), _by_name(new)
        if isinstance(old, dict) and isinstance(new, dict):
            found += [f"{key}.{name}" for name in sorted(set(old) | set(new)) if old.get(name) != new.get(name)]
        else:
            found.append(key)
    return found


def _by_name(value: Any) -> Any:
    """Returns a list of plugins or distributions as a mapping, so that a change can be named."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {str(item.get("name") or item.get("distribution") or place): item for place, item in enumerate(value)}
    return value


def _virtual_tokens(name: str, candidate: Candidate, plugins: Plugins) -> int:
    if candidate.peft is None:
        return 0
    tokens = plugins.ask("espalier.peft_methods", candidate.peft, "traits").virtual_tokens
    if tokens >= candidate.training.max_tokens:
        raise SpecError(
            f"{candidate.peft.name} takes {tokens} tokens of training.max_tokens {candidate.training.max_tokens}",
            field=f"candidates.{name}.training.max_tokens",
            remedy="raise max_tokens or use fewer virtual tokens",
        )
    return int(tokens)


def _uses(plugins: Plugins, choices: list[GroupChoice]) -> tuple[PluginUse, ...]:
    wanted = sorted({(group, choice.name) for group, choice in choices})
    return tuple(plugins.use(group, name) for group, name in wanted)


def _dump(choice: Choice) -> dict[str, Any]:
    return choice.model_dump(mode="json")


def _without_paths(choice: Choice) -> dict[str, Any]:
    return {"name": choice.name, "config": _path_free(choice.config)}


def _path_free(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _path_free(value) for key, value in node.items() if key not in ("path", "paths")}
    return [_path_free(value) for value in node] if isinstance(node, list) else node


def _versions(*names: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = ".".join(version(name).split(".")[:2])
        except PackageNotFoundError:
            found[name] = "absent"
    return found
