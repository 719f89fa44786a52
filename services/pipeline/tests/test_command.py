"""The command line: exit codes, one error per problem, `--json`, and what it must not import."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from espalier_peft_lora import Lora
from espalier_pipeline import children, reading
from espalier_pipeline.command import run

SPEC = """\
name: small
objective: {task: {name: classification, config: {text: text, target: label}}, metric: macro_f1}
data:
  mails:
    sources: [{name: files, config: {paths: [mails.csv]}}]
candidates:
  full: {strategy: full-finetune, base: minilm}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "mails.csv").write_text("text,label\nhello there,a\ngood bye,b\n", encoding="utf-8")
    path = tmp_path / "small.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return path


def test_check_says_ok_and_the_next_command(spec: Path, capsys) -> None:
    assert run(["check", str(spec)]) == 0
    printed = capsys.readouterr()
    assert printed.out == "ok\n"
    assert printed.err.splitlines()[-1].startswith("next")


def test_every_error_of_a_spec_comes_at_once_with_its_place(spec: Path, capsys) -> None:
    spec.write_text(SPEC.replace("base: minilm", "bse: minilm").replace("metric: macro_f1", "metrc: macro_f1"))
    assert run(["check", str(spec), "--json"]) == 2
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert {error["field"] for error in errors} >= {"objective.metrc", "candidates.full.bse"}
    assert {error["line"] for error in errors} >= {2, 7}
    assert any(error["remedy"] == "did you mean 'base'?" for error in errors)


def test_an_unknown_plugin_is_a_plugin_error_with_a_suggestion(spec: Path, capsys) -> None:
    spec.write_text(SPEC.replace("base: minilm", "base: minilmm"))
    assert run(["check", str(spec), "--json"]) == 3
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert (error["line"], error["field"]) == (7, "candidates.full.base")
    assert error["remedy"] == "did you mean 'minilm'?"


def test_a_column_that_the_data_lack_is_found_before_any_work(spec: Path, capsys) -> None:
    spec.write_text(SPEC.replace("target: label", "target: labell"))
    assert run(["check", str(spec), "--json"]) == 2
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert error["remedy"] == "did you mean 'label'?"
    assert error["line"] == 2


def test_a_missing_data_file_is_a_data_error(spec: Path, capsys) -> None:
    (spec.parent / "mails.csv").unlink()
    assert run(["check", str(spec)]) == 4
    assert "mails.csv" in capsys.readouterr().err


def test_method_and_zero_stage_that_do_not_go_together_are_refused(
    spec: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Lora.traits
    monkeypatch.setattr(Lora, "traits", lambda self: replace(plain(self), zero_stages=frozenset({0, 1, 2})))
    text = SPEC.replace("full-finetune, base: minilm", "peft, base: minilm, peft: lora, where: {zero_stage: 3}")
    spec.write_text(text)
    assert run(["check", str(spec), "--json"]) == 2
    errors = json.loads(capsys.readouterr().out)["errors"]
    found = next(error for error in errors if "PEFT" in error["message"])
    assert found["message"] == "the PEFT method runs at ZeRO stage 0 or 1 or 2, where.zero_stage is 3"
    assert found["line"] == 7


def test_a_strategy_and_a_method_that_do_not_go_together_are_refused(spec: Path, capsys) -> None:
    spec.write_text(SPEC.replace("base: minilm}", "base: minilm, peft: lora}"))
    assert run(["check", str(spec), "--json"]) == 2
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert error["message"] == "the strategy takes no peft: remove `peft:`"


def test_an_unknown_option_is_a_usage_error(capsys) -> None:
    assert run(["check", "--nonsense"]) == 2
    assert "--nonsense" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_named(tmp_path: Path, capsys) -> None:
    assert run(["show", "model/none@12345678", "--home", str(tmp_path), "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["errors"][0]["code"] == "absent"
    assert run(["runs", "abcd", "--home", str(tmp_path)]) == 2


def test_an_unknown_stage_after_only_is_refused(spec: Path, capsys) -> None:
    assert run(["run", str(spec), "--only", "trian"]) == 2
    assert "accepted: ingest, preprocess" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["check", "SPEC"], ["plugins", "list"], ["runs"]])
def test_light_commands_load_neither_torch_nor_ray(arguments: list[str], spec: Path) -> None:
    filled = [str(spec) if word == "SPEC" else word for word in arguments]
    code = (
        "import sys; from espalier_pipeline.command import run; code = run(sys.argv[1:]); "
        "print([name for name in ('torch', 'ray', 'transformers', 'mlflow') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *filled], capture_output=True, text=True, check=True, cwd=spec.parent
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_new_copies_an_example_that_check_accepts(tmp_path: Path, capsys) -> None:
    assert run(["new", str(tmp_path / "mine"), "--task", "classification"]) == 0
    written = capsys.readouterr().out.strip()
    assert run(["check", written]) == 0
    assert run(["new", str(tmp_path / "mine")]) == 2


def test_doctor_finds_this_machine_whole(tmp_path: Path, capsys) -> None:
    run(["doctor", "--home", str(tmp_path), "--json"])
    findings = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert findings["python"]["ok"]
    assert findings["services"]["ok"]
    assert findings["plugins"]["ok"]


def test_the_schema_offers_the_options_of_each_plugin(capsys) -> None:
    assert run(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    branches = schema["$defs"]["PeftMethodsChoice"]["anyOf"]
    lora = next(one for one in branches if one.get("properties", {}).get("name", {}).get("const") == "lora")
    assert "rank" in lora["properties"]["config"]["properties"]


def test_a_defect_is_one_line_and_its_traceback_a_file(spec: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(reading, "check_with_data", fail)
    assert run(["check", str(spec), "--json"]) == 1
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert (error["code"], error["message"]) == ("internal", "ZeroDivisionError: no such luck")
    log = Path(error["file"])
    assert "Traceback" in log.read_text()
    log.unlink()
    assert run(["check", str(spec)]) == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    Path(printed.split("error: ")[1].split(":")[0]).unlink()


@pytest.mark.parametrize(
    "line",
    [
        ["init", "mails.csv", "--out", "nowhere/x.yaml"],
        ["new", "mails.csv/inside"],
        ["plugins", "new", "loud", "--out", "mails.csv/inside"],
        ["runs", "--home", "mails.csv"],
    ],
)
def test_a_place_that_cannot_be_written_is_no_traceback(
    spec: Path, line: list[str], capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(spec.parent)
    rows = "".join(f"message number {n} about a rather long matter,{'ab'[n % 2]}\n" for n in range(40))
    (spec.parent / "mails.csv").write_text(f"text,label\n{rows}")
    code = run([*line, "--json"])
    printed = capsys.readouterr()
    if line[0] == "runs":
        assert (code, json.loads(printed.out)) == (0, [])
        return
    assert code == 4
    assert json.loads(printed.out)["errors"][0]["remedy"]


@pytest.mark.parametrize("line", [["check", "SPEC"], ["plan", "SPEC", "--home", "HOME", "--store", "HOME/my store"]])
def test_the_next_command_looks_where_this_one_looked(
    spec: Path, line: list[str], capsys, tmp_path: Path, services
) -> None:
    filled = [word.replace("SPEC", str(spec)).replace("HOME", str(tmp_path)) for word in line]
    assert run([*filled, "--set", "objective.at_least=0.5"]) == 0
    following = shlex.split(capsys.readouterr().err.splitlines()[-1])
    assert following[:3] == ["next", "espalier", "run"]
    assert following[3:] == [*filled[1:], "--set", "objective.at_least=0.5"]


def test_every_command_that_writes_says_where_as_one_document(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["new", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"spec": "mine/support-triage.yaml"}
    assert run(["init", "mine/tickets.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"] == "espalier.yaml"
    assert run(["plugins", "new", "loud", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"made": "espalier-loud"}
    install, test = printed.err.removeprefix("next").strip().split(" && ")
    program, *words = shlex.split(install)
    assert shutil.which(program)
    assert sys.executable in (program, *words)
    assert f"{tmp_path / 'espalier-loud'}[test]" in words
    assert shlex.split(test)[0] == sys.executable


@pytest.mark.parametrize(
    ("adapter", "opens", "said", "following"),
    [
        (None, "transformers.pipeline('fill-mask', 'plain')", "plain", "transformers.pipeline('fill-mask', 'plain')"),
        (
            {"base": "model/b@1", "mergeable": True},
            None,
            "Espalier alone opens",
            "espalier export model/a@2 DIR --merge",
        ),
        ({"base": "model/b@1", "mergeable": False}, None, "Espalier alone opens", "espalier predict model/a@2 FILE"),
        ({"base": "model/b@1", "mergeable": True}, "peft.PeftModel", "an adapter on model/b@1\n", "peft.PeftModel"),
    ],
)
def test_an_export_ends_with_what_opens_it(
    adapter: dict[str, Any] | None,
    opens: str | None,
    said: str,
    following: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(children, "run_child", lambda *_, **__: {"adapter": adapter, "opens": opens, "scale": None})
    assert run(["export", "model/a@2", str(tmp_path / "plain"), "--store", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert said in told.out
    assert told.err.startswith(f"next             {following}")


def test_an_export_of_what_answers_in_deviations_says_how_to_get_the_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = {"adapter": None, "opens": "transformers.pipeline", "scale": {"mean": 65.0, "deviation": 18.5}}
    monkeypatch.setattr(children, "run_child", lambda *_, **__: done)
    assert run(["export", "model/a@2", str(tmp_path / "plain"), "--store", str(tmp_path)]) == 0
    assert "times 18.5 plus 65.0 is the value" in capsys.readouterr().out
