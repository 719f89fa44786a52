"""Plugins: found without an import, chosen by name, checked, hashed. The distributions are real folders."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from espalier_runtime import plugins as plugins_module
from espalier_runtime.plugins import ALLOW_VARIABLE, Plugins, package_sha256
from espalier_sdk.choice import Choice
from espalier_sdk.errors import PluginError, SpecError
from espalier_sdk.testing.fakes import FakeDistribution

METRICS = "espalier.metrics"
GOOD = """
    from espalier_sdk.choice import PluginConfig
    from pydantic import Field

    class Config(PluginConfig):
        beta: float = Field(default=1.0, gt=0, description="Weight.")

    class Hits:
        contract = 1
        Config = Config
        greater_is_better = True
        reports = ("hits",)
        def __init__(self, config): self.config = config
        def rows(self, predictions): return None
        def values(self, predictions): return {}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    folder.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv(ALLOW_VARIABLE, raising=False)
    monkeypatch.setattr(plugins_module, "package_sha256", package_sha256.__wrapped__)
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("acme"):
            del sys.modules[name]


def _install(site: Path, name: str = "acme-hits", point: str = "zz-hits", source: str = GOOD, attribute: str = "Hits",
             version: str = "1.0") -> Path:  # fmt: skip
    package = name.replace("-", "_").replace(".", "_").lower()
    value = f"{package}:{attribute}" if attribute else package
    return FakeDistribution(name, source, {METRICS: {point: value}}, version).install(site)


def _code(error: pytest.ExceptionInfo[PluginError]) -> str:
    return error.value.problems[0].code


def test_a_plugin_is_found_without_its_import_and_loaded_when_asked_for(site: Path) -> None:
    _install(site)
    plugins = Plugins()
    found = plugins.find(METRICS, "zz-hits")
    assert (found.distribution, found.version, found.module, found.attribute) == (
        "acme-hits",
        "1.0",
        "acme_hits",
        "Hits",
    )
    assert found in plugins.inventory(METRICS)
    assert "acme_hits" not in sys.modules
    assert plugins.load(METRICS, Choice(name="zz-hits", config={"beta": 2})).config.beta == 2


def test_an_unknown_name_comes_with_suggestion_and_inventory(site: Path) -> None:
    _install(site)
    with pytest.raises(PluginError, match="there is no metric 'zz-hit'") as error:
        Plugins().find(METRICS, "zz-hit")
    problem = error.value.problems[0]
    assert _code(error) == "unknown_plugin"
    assert problem.remedy == "did you mean 'zz-hits'?"
    assert "zz-hits" in (problem.accepted or "").split(", ")


def test_two_distributions_with_one_name_are_refused_and_both_named(site: Path) -> None:
    _install(site)
    _install(site, name="acme-other", version="2.0")
    with pytest.raises(
        PluginError, match=r"acme-hits 1\.0 and acme-other 2\.0|acme-other 2\.0 and acme-hits 1\.0"
    ) as error:
        Plugins().load_class(METRICS, "zz-hits")
    assert _code(error) == "plugin_claimed_twice"


def test_a_distribution_that_is_seen_twice_makes_no_second_claim(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(site)
    again = tmp_path / "again"
    again.mkdir()
    _install(again, name="Acme.Hits", version="1.0")  # the same name in another spelling
    monkeypatch.setattr(sys, "path", [*sys.path, str(site), str(again)])
    assert Plugins().find(METRICS, "zz-hits").distribution == "acme-hits"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("1 / 0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        ("Other = 1", "AttributeError"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_with_its_distribution(site: Path, source: str, words: str) -> None:
    _install(site, source=source)
    with pytest.raises(PluginError, match=words) as error:
        Plugins().load_class(METRICS, "zz-hits")
    assert _code(error) == "broken_plugin"
    for word in ("acme-hits", "1.0", METRICS, "zz-hits", "acme_hits:Hits"):
        assert word in str(error.value)


@pytest.mark.parametrize("backport", [False, True], ids=["", "with the backport"])
def test_a_broken_plugin_that_nobody_asks_for_breaks_nothing(site: Path, backport: bool) -> None:
    if backport:
        pytest.importorskip("importlib_metadata")  # takes over the finding for the rest of the process
    _install(site)
    _install(site, name="acme-broken", point="zz-broken", source="raise RuntimeError('no')")
    _install(site, name="acme-malformed", point="zz-malformed", attribute="")
    (site / "acme_nameless-1.0.dist-info").mkdir()
    (site / "acme_nameless-1.0.dist-info" / "entry_points.txt").write_text(f"[{METRICS}]\nzz-nameless = x y z\n")
    (site / "acme_bytes-1.0.dist-info").mkdir()
    (site / "acme_bytes-1.0.dist-info" / "entry_points.txt").write_bytes(b"[\xff\xfe]\n")
    plugins = Plugins()
    assert plugins.load_class(METRICS, "zz-hits").__name__ == "Hits"
    for name in ("zz-malformed", "zz-nameless"):
        with pytest.raises(PluginError):
            plugins.load_class(METRICS, name)


def test_a_plugin_that_is_no_class_or_does_not_fit_is_refused(site: Path) -> None:
    _install(site, source="Hits = 3")
    _install(
        site, name="acme-lame", point="zz-lame", source=GOOD.replace("def rows(self, predictions)", "def rows(self)")
    )
    with pytest.raises(PluginError, match="is int, must be a class"):
        Plugins().load_class(METRICS, "zz-hits")
    with pytest.raises(PluginError, match=r"rows\(self\) must be rows\(self, predictions\)") as error:
        Plugins().load_class(METRICS, "zz-lame")
    assert _code(error) == "plugin_contract"


def test_another_contract_number_is_refused_with_both_numbers(site: Path) -> None:
    _install(site, source=GOOD.replace("contract = 1", "contract = 2"))
    with pytest.raises(PluginError, match="contract is 2, this version of espalier-sdk speaks contract 1") as error:
        Plugins().load_class(METRICS, "zz-hits")
    assert "made for contract 1" in (error.value.problems[0].remedy or "")


def test_a_distribution_that_is_not_allowed_is_refused_without_its_import(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(site)
    monkeypatch.setenv(ALLOW_VARIABLE, "espalier-metrics, acme-other")
    with pytest.raises(PluginError, match="is not allowed here") as error:
        Plugins().load_class(METRICS, "zz-hits")
    assert _code(error) == "plugin_not_allowed"
    assert "acme_hits" not in sys.modules
    monkeypatch.setenv(ALLOW_VARIABLE, "espalier-metrics, Acme_Hits")
    assert Plugins().load_class(METRICS, "zz-hits")


def test_a_wrong_config_is_told_by_field(site: Path) -> None:
    _install(site)
    with pytest.raises(SpecError) as error:
        Plugins().load(METRICS, Choice(name="zz-hits", config={"beta": -1, "gamma": 2}))
    assert {problem.field for problem in error.value.problems} == {"config.beta", "config.gamma"}


# The hash of a package


def test_the_hash_is_equal_for_two_copies_and_blind_for_what_running_leaves(site: Path, tmp_path: Path) -> None:
    package = _install(site)
    first = Plugins().use(METRICS, "zz-hits").sha256
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"1")
    (package / ".swp").write_bytes(b"2")
    assert Plugins().use(METRICS, "zz-hits").sha256 == first
    copy = tmp_path / "elsewhere"
    (copy / "acme_hits").mkdir(parents=True)
    (copy / "acme_hits" / "__init__.py").write_bytes((package / "__init__.py").read_bytes())
    sys.path.insert(0, str(copy))
    assert package_sha256.__wrapped__("acme_hits") == first


@pytest.mark.parametrize("change", ["byte", "name", "new file"])
def test_the_hash_is_another_for_a_changed_byte_a_changed_name_and_a_new_file(site: Path, change: str) -> None:
    package = _install(site)
    (package / "data.txt").write_bytes(b"abc")
    before = package_sha256.__wrapped__("acme_hits")
    if change == "byte":
        (package / "data.txt").write_bytes(b"abd")
    elif change == "name":
        (package / "data.txt").rename(package / "date.txt")
    else:
        (package / "more.txt").touch()
    assert package_sha256.__wrapped__("acme_hits") != before


def test_a_plugin_below_a_namespace_is_hashed_by_its_own_package(site: Path) -> None:
    space = site / "acmespace" / "hits"
    space.mkdir(parents=True)
    (space / "__init__.py").write_text("")
    FakeDistribution("acme-space", "", {METRICS: {"zz-space": "acmespace.hits:Hits"}}).install(site)
    assert Plugins().use(METRICS, "zz-space").sha256 == package_sha256.__wrapped__("acmespace.hits")


def test_a_package_that_is_not_there_has_no_hash() -> None:
    with pytest.raises(PluginError, match="cannot be found"):
        package_sha256("acme_never_installed")


STUMBLING = GOOD.replace(
    "def __init__(self, config): self.config = config", "def __init__(self, config): raise OSError('no')"
)


def test_a_constructor_that_fails_names_distribution_version_group_and_entry_point(site: Path) -> None:
    _install(site, source=STUMBLING)
    with pytest.raises(
        PluginError, match=r"zz-hits \(acme-hits 1\.0, espalier\.metrics: acme_hits:Hits\) is broken.*OSError: no"
    ):
        Plugins().load(METRICS, Choice(name="zz-hits"))


def test_an_answer_that_fails_is_the_plugins_fault(site: Path) -> None:
    _install(site, source=GOOD + "        def fingerprint(self): return 1 / 0\n")
    with pytest.raises(PluginError, match=r"acme-hits 1\.0.*fingerprint raises ZeroDivisionError"):
        Plugins().ask(METRICS, Choice(name="zz-hits"), "fingerprint")


def test_a_config_that_is_no_model_breaks_the_plugin_and_not_the_check(site: Path) -> None:
    _install(site, source=GOOD.replace("Config = Config", "Config = dict"))
    with pytest.raises(PluginError, match="must be a pydantic model class") as error:
        Plugins().load_class(METRICS, "zz-hits")
    assert _code(error) == "plugin_contract"


def test_a_secret_is_read_when_the_plugin_is_made_and_an_error_does_not_show_it(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(
        site, source=GOOD.replace("beta: float = Field(default=1.0, gt=0", "beta: str = Field(default='', max_length=9")
    )
    choice = Choice(name="zz-hits", config={"beta": {"secret": "ACME_TOKEN"}})
    monkeypatch.delenv("ACME_TOKEN", raising=False)
    with pytest.raises(SpecError, match="no variable ACME_TOKEN"):
        Plugins().load(METRICS, choice)
    monkeypatch.setenv("ACME_TOKEN", "hush")
    assert Plugins().load(METRICS, choice).config.beta == "hush"
    assert "hush" not in choice.model_dump_json()
    monkeypatch.setenv("ACME_TOKEN", "hush-hush-hush")
    with pytest.raises(SpecError) as error:
        Plugins().load(METRICS, choice)
    assert "hush" not in str(error.value) + str(error.value.problems)
