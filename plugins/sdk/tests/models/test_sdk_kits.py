"""The kits catch what they promise to catch: each is given a plugin with one defect."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from espalier_sdk.testing import check_control, check_peft_method, check_plugin
from espalier_sdk.testing.fakes import FakeDistribution
from espalier_sdk.testing.tiny import no_network

CONTROL = '''
    """A control."""
    from espalier_sdk import PluginConfig, Rule
    from pydantic import Field

    class Config(PluginConfig):
        """Options."""
        decay: float = Field(default=0.5, gt=0, le=1, description="Factor per block.")

    class Control:
        contract = 1
        Config = Config
        zero_stages = frozenset({0, 1})
        seen = 0

        def __init__(self, config): self.config = config
        def boundaries(self, parameters, *, steps): return [steps // 2] if steps > 1 else []
        def rule(self, parameter, *, blocks, step, steps):
            open_ = step >= steps // 2 or parameter.depth > blocks
            return Rule(open_, self.config.decay ** (blocks + 1 - parameter.depth))
'''

PEFT = '''
    """A method that trains the biases of a copy: scale and shift of the head's input."""
    import pathlib
    from espalier_sdk import NotMergeable, ParameterInfo, PeftTraits, PluginConfig
    from pydantic import Field

    class Config(PluginConfig):
        """Options."""
        width: int = Field(default=32, ge=1, description="Width.")

    class Method:
        contract = 1
        Config = Config

        def __init__(self, config): self.config = config
        def traits(self):
            return PeftTraits(frozenset({0}), frozenset({"sequence-classification"}), identity_at_start=True,
                              mergeable=False, mixes_in_batch=False)
        def parameters(self, blueprint):
            return (ParameterInfo("shift.weight", (self.config.width,), blueprint.blocks + 1, "adapter"),)
        def place(self, placement): return placement
        def inject(self, model, *, blueprint, placement, calibration):
            import torch
            model.shift = torch.nn.Module()
            model.shift.weight = torch.nn.Parameter(torch.zeros(self.config.width))
            head = next(getattr(model, one) for one in ("classifier", "score", "side_text") if hasattr(model, one))
            head.register_forward_pre_hook(lambda module, inputs: (inputs[0] + model.shift.weight,))
            return model
        def after_step(self, model, *, step, steps): ...
        def extra_state(self, model): return {}
        def restore(self, model, state): ...
        def save(self, model, folder):
            from safetensors.torch import save_file
            kept = {key: value for key, value in model.state_dict().items()
                    if key.startswith(("shift.", "classifier.", "score.", "side_"))}
            save_file(kept, pathlib.Path(folder) / "adapter.safetensors")
        def load(self, model, folder):
            from safetensors.torch import load_file
            model = self.inject(model, blueprint=None, placement=None, calibration=())
            model.load_state_dict(load_file(pathlib.Path(folder) / "adapter.safetensors"), strict=False)
            return model
        def merge(self, model): raise NotMergeable("a shift cannot be folded in")
'''

Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a plugin, with one change to its source, and returns its name."""

    def run(group: str, source: str, attribute: str, change: tuple[str, str] = ("", "")) -> str:
        assert change[0] in source
        package = f"acme_kit_{abs(hash((group, change)))}"
        text = textwrap.dedent(source).replace(textwrap.dedent(change[0]), textwrap.dedent(change[1]))
        FakeDistribution(package, text, {group: {"zz-kit": f"{package}:{attribute}"}}).install(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        if change[0] and "import pyarrow" not in change[1]:  # a process of its own, for the one defect that it finds
            monkeypatch.setattr("espalier_sdk.testing.plugin._check_light_import", lambda module, heavy: None)
        return "zz-kit"

    return run


CONTROLS = "espalier.training_controls"
METHODS = "espalier.peft_methods"


def test_the_kits_accept_what_is_right(install: Install) -> None:
    check_control(install(CONTROLS, CONTROL, "Control"), refused=[{"decay": 0}, {"decay": 2}])
    check_peft_method(install(METHODS, PEFT, "Method"), refused=[{"width": 0}])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('"""A control."""', "import pyarrow"), "loads pyarrow"),
        (("contract = 1", "contract = 9"), "contract is 9"),
        ((', description="Factor per block."', ""), "without a description: decay"),
        (("Config(PluginConfig)", 'Config(PluginConfig, frozen=False)'), "must be frozen"),
        (("def boundaries(self, parameters, *, steps)", "def boundaries(self, parameters, steps)"), "boundaries"),
        (("[steps // 2] if steps > 1 else []", "[]"), "rules change at"),
        (("[steps // 2]", "[steps // 2, 1]"), "boundaries"),
        (("open_ = step", "self.seen += 1; open_ = self.seen % 7 and step"), "rule"),
        (("Rule(open_,", "Rule(False,"), "nothing is trained"),
        (("Rule(open_, self", "Rule(open_, -self"), "lr_scale=-"),
        (("frozenset({0, 1})", "frozenset({0, 4})"), "zero_stages"),
        (("gt=0, ", ""), "DID NOT RAISE"),
    ],
)  # fmt: skip
def test_the_control_kit_catches(install: Install, change: tuple[str, str], words: str) -> None:
    name = install(CONTROLS, CONTROL, "Control", change)
    with pytest.raises((AssertionError, pytest.fail.Exception), match=words):
        check_control(name, refused=[{"decay": 0}])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("(self.config.width,), blueprint", "(self.config.width, 2), blueprint"), r"declared \(32, 2\), made \(32,\)"),
        (('"adapter")', '"norm")'), "role or depth"),
        (("torch.zeros", "torch.ones"), "at step 0, against the base"),
        (("(inputs[0] + model.shift.weight,)", "(inputs[0],)"), "gets no gradient"),
        (("model.shift.weight,)", "model.shift.weight * (not model.is_gradient_checkpointing),)"),
         "with gradient checkpointing the gradient of classifier.weight differs"),
        (('"classifier.", "score."', '"none."'), "loaded, against what was trained"),
        (('"shift.", "classifier."', '"classifier."'), "loaded, against what was trained"),
        (('raise NotMergeable("a shift cannot be folded in")', "return model"), "DID NOT RAISE"),
        (("mergeable=False", "mergeable=True"), "a shift cannot be folded in"),
        (("def after_step(self, model, *, step, steps): ...",
          "def after_step(self, model, *, step, steps): next(model.parameters()).data.add_(1)"),
         "moved and is not declared"),
        (('save_file(kept, pathlib.Path(folder) / "adapter.safetensors")',
          'save_file(kept, pathlib.Path(folder) / "adapter.safetensors");'
          ' (pathlib.Path(folder) / "where.txt").write_text(str(folder))'), "holds the absolute path"),
        (("def extra_state(self, model): return {}",
          "def extra_state(self, model): import torch; return {'average': torch.rand(3)}"),
         "extra_state after restore"),
    ],
)  # fmt: skip
def test_the_peft_kit_catches(install: Install, change: tuple[str, str], words: str) -> None:
    name = install(METHODS, PEFT, "Method", change)
    with pytest.raises((Exception, pytest.fail.Exception), match=words):
        check_peft_method(name, refused=[{"width": 0}])


def test_a_method_that_accepts_a_family_it_should_refuse_is_caught(install: Install) -> None:
    name = install(METHODS, PEFT, "Method")
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_peft_method(name, refused=[{"width": 0}], refused_families=["llama"])
    with pytest.raises(AssertionError, match="no family is left"):
        check_peft_method(name, refused=[{"width": 0}], refused_families=["llama", "bert"])


def test_a_plugin_that_is_not_declared_is_told(install: Install) -> None:
    with pytest.raises(AssertionError, match="is declared 0 times"):
        check_plugin(CONTROLS, "zz-never-installed")


def test_no_network_refuses_connections() -> None:
    import socket

    with no_network(), socket.socket() as connection, pytest.raises(AssertionError, match="opens a connection"):
        connection.connect(("127.0.0.1", 9))
