"""A whole run over services that answer at once: order, what is kept when something is refused, and what is asked."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import pytest
from espalier_pipeline.command import run as command
from espalier_pipeline.driver import run
from espalier_pipeline.forecast import plan
from espalier_pipeline.records import RunRecord
from espalier_pipeline.tables import render, render_run
from espalier_pipeline.view import QuietView
from espalier_sdk.errors import DataError, EspalierError, Refused, SpecError


class Notes(QuietView):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def test_a_run_chooses_opens_test_once_and_proposes_the_pair(spec: Path, services) -> None:
    result = run(spec, view=QuietView())
    assert result.verdict is not None
    assert (result.verdict.chosen, result.verdict.runner_up) == ("tiny", "wide")
    assert [one["test"] is not None for one in result.candidates] == [True, True]
    assert services.proposals[0]["bootstrap"] == "tiny"
    assert services.proposals[0]["experiment"]["treatment"] == "wide"
    again = run(spec, view=QuietView())
    assert all(stage["cached"] for stage in again.stages if stage["stage"] != "propose")
    assert again.openings == result.openings == 1


def test_the_opening_of_test_shows_the_baselines_too_in_document_table_and_report(spec: Path, services) -> None:
    result = run(spec, view=QuietView())
    document = result.document()
    assert [one["test"]["macro_f1"]["value"] for one in document["baselines"]] == [0.3]
    line = next(line for line in render(result).splitlines() if "majority" in line)
    assert line.count("0.30  0.25-0.35") == 2
    page = Path(document["report"]).read_text(encoding="utf-8")
    row = next(row for row in page.split("<tr") if "majority (baseline)" in row)
    assert row.count("0.30  0.25-0.35") == 2
    opened = (spec.parent / ".espalier" / "test-openings.jsonl").read_text().splitlines()
    assert len(opened) == document["test_openings"] == 1
    on_test = [arguments for module, arguments in services.calls if "test" in arguments]
    assert len(on_test) == 1  # one process, which warms up once


def test_a_baseline_that_does_as_well_is_told_in_table_document_and_report(spec: Path, services) -> None:
    assert run(spec, view=QuietView()).document()["against_baseline"] is None
    services.values["baselines"] = 0.86
    result = run(spec, overrides=["evaluate.seed=1"], view=QuietView())
    told = "majority is within the interval of tiny on validation: < 1 s against 32 s of training"
    assert result.document()["against_baseline"] == told
    assert told in render(result)
    assert escape(told) in Path(str(result.report)).read_text(encoding="utf-8")


def test_baselines_open_no_test_split_that_the_pair_does_not(spec: Path, services) -> None:
    other = "  other:\n    sources: [{name: files, config: {paths: [mails.csv]}}]\n    split: {by: hash, test: 0.5}\n"
    worst = "  last: {strategy: {name: from-scratch, config: {layers: 2, hidden_size: 32}}, data: other}\n"
    spec.write_text(spec.read_text().replace("candidates:\n", f"{other}candidates:\n{worst}"))
    for name in ("tiny", "wide"):
        spec.write_text(spec.read_text().replace(f"{name}: {{", f"{name}: {{data: mails, "))
    result = run(spec, view=QuietView())
    assert "last" not in (result.verdict.chosen, result.verdict.runner_up)
    assert [one["test"] for one in result.baselines] == [None]
    assert "baselines-test" not in [stage["name"] for stage in result.stages]
    assert "baselines-test" not in [step.name for step in plan(spec)]


def test_the_report_counts_rows_by_stage_and_tells_the_seconds_of_what_was_done_before(spec: Path, services) -> None:
    services.dropped = {"deduplicate": 15, "no text": 1}
    run(spec, view=QuietView())
    again = run(spec, view=QuietView())
    page = Path(str(again.report)).read_text(encoding="utf-8")
    assert "<td>ingest</td><td>rows in the sources</td><td>10</td>" in page
    assert "<td>preprocess</td><td>dropped by deduplicate</td><td>15</td>" in page
    assert "<td>preprocess</td><td>without text</td><td>1</td>" in page
    assert "rows_read" not in page
    assert {stage["made_seconds"] for stage in again.stages if stage["cached"]} == {1.0}
    assert "<td>done before, in 1.0</td>" in page
    assert "done before, in 1.0" in render_run(again.record)


def test_the_next_command_names_no_home_where_it_would_look_there_anyway(
    spec: Path, services, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ESPALIER_HOME", raising=False)
    line = ["run", str(spec), "--only", "preprocess"]
    for folder, named in ((spec.parent, False), (spec.parent.parent, True)):
        monkeypatch.chdir(folder)
        assert command(line) == 0
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("next             espalier runs ")
        assert ("--home" in said) == named
    monkeypatch.setenv("ESPALIER_DRIVEN", "1")  # by a program that says itself what is next
    assert command(line) == 0
    assert "next " not in capsys.readouterr().err


def test_the_table_says_where_the_unreadable_rows_lie_and_what_its_seconds_are(spec: Path, services) -> None:
    services.unreadable = 2
    result = run(spec, view=QuietView())
    first, second, *table = render(result).splitlines()
    assert first.endswith("10 rows, 10 kept (2 unreadable)")
    assert second == f"unreadable       {result.data[0]['quarantine']}"
    assert Path(result.data[0]["quarantine"]).is_file()
    assert any("seconds of optimizer steps" in line for line in table)
    assert result.stages[-1]["stage"] == "propose"


def test_where_every_row_could_be_read_no_file_of_unreadable_ones_is_named(spec: Path, services) -> None:
    result = run(spec, view=QuietView())
    assert result.data[0]["quarantine"] is None
    assert "unreadable" not in render(result)


def test_rows_that_train_has_too_are_told_with_the_remedy(spec: Path, services) -> None:
    services.repeated = {"validation": 1}
    result = run(spec, view=QuietView())
    said = render(result).splitlines()[1]
    assert "1 of 2 validation rows read as a row of train" in said and "`deduplicate`" in said
    assert result.report is not None
    assert "validation rows that read as one of train" in result.report.read_text(encoding="utf-8")


def test_what_is_left_of_a_base_is_told_for_every_candidate_that_has_one(spec: Path, services) -> None:
    third = "  more: {strategy: full-finetune, base: {from: tiny}, competes: false}\nserve:"
    spec.write_text(spec.read_text().replace("serve:", third))
    document = run(spec, view=QuietView()).document()
    assert document["forgetting"].keys() == {"more"}
    assert document["forgetting"]["more"]["rank_correlation"] == 0.873
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "What is left of the base" in page
    assert "rank correlation of 0.87" in page
    only = run(spec, candidate="tiny", only="evaluate", view=QuietView()).document()
    assert only["forgetting"] == {}
    assert "What is left of the base" not in Path(only["report"]).read_text(encoding="utf-8")


def test_a_refused_proposal_keeps_the_result_and_ends_with_its_code(spec: Path, services, capsys) -> None:
    services.refusal = Refused("experiment e1 is running", remedy="stop it first")
    assert command(["run", str(spec), "--json"]) == 7
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["chosen"] == "tiny"
    assert document["errors"][0]["code"] == "refused"
    assert Path(document["report"]).is_file()
    assert "experiment e1 is running" in printed.err
    record = RunRecord.load(spec.parent / ".espalier" / "runs", document["run"])
    assert (record.state(), record.data["exit_code"]) == ("failed", 7)
    assert record.data["result"]["chosen"] == "tiny"


def test_a_server_of_metrics_hears_of_a_run_before_the_endpoint_does(spec: Path, services) -> None:
    run(spec, view=QuietView())
    modules = [module for module, _ in services.calls]
    assert modules.index("espalier_runtime.tracking") < modules.index("espalier_serving.propose")


def test_serving_a_candidate_that_is_not_built_is_refused_before_any_work(spec: Path, services) -> None:
    spec.write_text(spec.read_text().replace("challenger: runner-up", "challenger: wide"))
    with pytest.raises(SpecError, match="'wide' is not built") as refused:
        run(spec, candidate="tiny", view=QuietView())
    problem = refused.value.problems[0]
    assert (problem.field, problem.line) == ("serve.challenger", 10)
    assert problem.remedy
    assert not services.calls
    assert run(spec, candidate="tiny", only="evaluate", view=QuietView()).verdict is not None


def test_one_candidate_that_does_not_compete_cannot_be_compared(spec: Path, services) -> None:
    only_wide = ["candidates.tiny.competes=false"]
    with pytest.raises(SpecError, match="does not compete"):
        run(spec, candidate="tiny", overrides=only_wide, view=QuietView())
    made = run(spec, candidate="tiny", only="train", overrides=only_wide, view=QuietView())
    assert made.stages[-1]["stage"] == "train"


def test_without_a_test_split_the_objective_stands_on_validation_and_the_user_is_told(spec: Path, services) -> None:
    services.rows = {"rows_train": 6, "rows_validation": 2, "rows_test": 0}
    spec.write_text(spec.read_text().replace("test: 0.2", "test: 0"))
    view = Notes()
    result = run(spec, view=view)
    assert result.objective()["split"] == "validation"
    assert result.openings == 0
    assert any("no test split" in text for text in view.said)


def test_without_a_validation_row_nothing_is_trained(spec: Path, services) -> None:
    services.rows = {"rows_train": 6, "rows_validation": 0, "rows_test": 2}
    spec.write_text(spec.read_text().replace("by: hash, test: 0.2, validation: 0.2", "by: column, column: label"))
    with pytest.raises(DataError, match="no validation row"):
        run(spec, view=QuietView())
    assert "espalier_training" not in [module for module, _ in services.calls]


def test_stages_read_the_runs_own_copy_of_the_spec(spec: Path, services) -> None:
    def spoil(stage: str) -> None:
        spec.write_text("name: [")

    services.before = spoil
    result = run(spec, overrides=["candidates.tiny.training.epochs=2"], view=QuietView())
    assert result.verdict is not None
    given = {arguments[arguments.index("--spec") + 1] for _, arguments in services.calls if "--spec" in arguments}
    assert given == {str(result.record.folder / "spec.yaml")}
    assert "--set" not in [word for _, arguments in services.calls for word in arguments]


def test_a_defect_leaves_its_traceback_in_the_runs_log(spec: Path, services) -> None:
    def fail(stage: str) -> None:
        raise ZeroDivisionError("no such luck")

    services.before = fail
    with pytest.raises(EspalierError, match="ZeroDivisionError: no such luck") as raised:
        run(spec, view=QuietView())
    problem = raised.value.problems[0]
    assert problem.code == "internal"
    assert "no such luck" in Path(problem.file or "").read_text()
    record = RunRecord.load(spec.parent / ".espalier" / "runs", "")
    assert record.state() == "failed"


def test_a_line_of_openings_that_was_cut_spoils_no_run(spec: Path, services) -> None:
    home = spec.parent / ".espalier"
    home.mkdir()
    (home / "test-openings.jsonl").write_text('{"dataset": "dataset/ma')
    assert run(spec, view=QuietView()).openings == 1
    spec.write_text(spec.read_text().replace("hidden_size: 64", "hidden_size: 128"))
    assert run(spec, view=QuietView()).openings == 2


def test_a_file_that_is_missing_is_told_with_its_place_and_leaves_no_home_behind(spec: Path, services) -> None:
    (spec.parent / "mails.csv").unlink()
    with pytest.raises(DataError, match=r"mails\.csv: there is no such file") as raised:
        run(spec, view=QuietView())
    (problem,) = raised.value.problems
    assert (problem.file, problem.line, problem.field) == (str(spec), 5, "data.mails.sources.0.config.paths.0")
    assert not (spec.parent / ".espalier").exists()
