"""What `init` finds out about files that it has never seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from espalier_pipeline.inference import guess
from espalier_pipeline.reading import check
from espalier_pipeline.starting import infer_spec
from espalier_sdk.errors import DataError, SpecError


def table(tmp_path: Path, name: str, rows: list[str], header: str | None = "text,label") -> Path:
    path = tmp_path / name
    path.write_text("\n".join(([header] if header else []) + rows) + "\n", encoding="utf-8")
    return path


def messages(count: int = 40) -> list[str]:
    return [f"message number {n} about a rather long matter,{'spam' if n % 3 else 'ham'}" for n in range(count)]


def test_text_and_target_are_found_by_what_the_columns_hold(tmp_path: Path) -> None:
    found = guess([table(tmp_path, "mail.csv", messages(), header="what,kind")])
    assert (found.text, found.target) == ("what", "kind")


def test_a_file_without_a_header_and_without_an_ending_is_understood(tmp_path: Path) -> None:
    rows = [f"{'spam' if n % 3 else 'ham'}\tmessage number {n} about a rather long matter" for n in range(40)]
    found = guess([table(tmp_path, "Collection", rows, header=None)])
    assert found.options == {"format": "tsv", "columns": ["label", "text"]}
    assert found.rows == 40


def test_a_customer_column_groups_the_split(tmp_path: Path) -> None:
    rows = [f"c{n % 7},{row}" for n, row in enumerate(messages())]
    assert guess([table(tmp_path, "mail.csv", rows, header="customer,text,label")]).group == "customer"


def test_json_lines_are_read(tmp_path: Path) -> None:
    lines = [json.dumps({"body": f"message number {n} about a matter", "topic": "ab"[n % 2]}) for n in range(30)]
    found = guess([table(tmp_path, "x.jsonl", lines, header=None)])
    assert (found.text, found.target) == ("body", "topic")


def test_a_column_that_is_not_there_is_answered_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--target labl.*did you mean 'label'"):
        guess([table(tmp_path, "mail.csv", messages())], target="labl")


def test_a_file_without_labels_is_refused_with_the_remedy(tmp_path: Path) -> None:
    rows = [f"message number {n} about a rather long matter,id-{n}" for n in range(40)]
    with pytest.raises(DataError, match=r"no column looks like labels.*--target"):
        guess([table(tmp_path, "mail.csv", rows)])


def test_too_few_rows_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few"):
        guess([table(tmp_path, "mail.csv", messages(3))])
    with pytest.raises(DataError, match="is not there"):
        guess([tmp_path / "absent.csv"])


def test_the_spec_that_is_written_is_one_that_check_accepts(tmp_path: Path) -> None:
    out = tmp_path / "espalier.yaml"
    told = infer_spec([table(tmp_path, "Support Mail.csv", messages(), header="body text,kind")], out)
    spec = check(out)
    assert spec.name == "support-mail"
    assert set(spec.candidates) == {"scratch", "full", "lora"}
    assert any("kind, 2 classes" in line for line in told)


@pytest.mark.parametrize(("classes", "rows", "epochs"), [(2, 60, 4), (150, 3000, 6), (150, 600, 6), (400, 3200, 10)])
def test_many_classes_are_seen_more_often(tmp_path: Path, classes: int, rows: int, epochs: int) -> None:
    out = tmp_path / "espalier.yaml"
    some = [f"message number {n} about a rather long matter,kind {n % classes}" for n in range(rows)]
    infer_spec([table(tmp_path, "mail.csv", some)], out)
    spec = check(out)
    assert {name: one.training.epochs for name, one in spec.candidates.items()} == {
        "scratch": 2 * epochs,
        "full": epochs,
        "lora": epochs,
    }
    head_rate = {name: [one.name for one in spec.candidates[name].controls] for name in ("full", "lora")}
    assert head_rate == dict.fromkeys(("full", "lora"), ["head-rate"] if classes > 20 else [])


def test_a_spec_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "espalier.yaml"
    out.write_text("mine")
    with pytest.raises(SpecError, match="is there already"):
        infer_spec([table(tmp_path, "mail.csv", messages())], out)
    assert out.read_text() == "mine"


def test_the_column_that_is_answered_is_never_the_one_that_is_read(tmp_path: Path) -> None:
    rows = [f"matter {n % 7} of a rather long kind of message,{n % 3}" for n in range(40)]
    path = table(tmp_path, "mail.csv", rows, header="message,kind")
    with pytest.raises(DataError, match="no column looks like text"):
        guess([path], target="message")
    with pytest.raises(SpecError, match="both text and target"):
        guess([path], text="message", target="message")


@pytest.mark.parametrize("label", ["two\nlines", "a [b] c", "tab\tbell\x07", "# hash: {x}", "'quote\"", "a\u2028b"])
def test_labels_of_any_letters_make_a_spec_that_can_be_read(tmp_path: Path, label: str) -> None:
    lines = [
        json.dumps({"text": f"message number {n} about a rather long matter", "label": label if n % 2 else "plain"})
        for n in range(40)
    ]
    out = tmp_path / "espalier.yaml"
    infer_spec([table(tmp_path, "mail.jsonl", lines, header=None)], out)
    assert set(check(out).candidates) == {"scratch", "full", "lora"}
    assert not list(tmp_path.glob("*.part"))


def test_files_that_are_not_read_to_their_end_are_said_not_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sorted.csv"
    rows = [f"a sentence of number {number} or so,intent{number // 100}" for number in range(1500)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    assert guess([path]).classes == "15 classes"
    monkeypatch.setattr("espalier_pipeline.inference.SAMPLE_ROWS", 500)
    assert guess([path]).classes == "at least 5 classes in the first 500 rows"


def sentences(count: int) -> list[str]:
    return [f"message number {n} about a rather long matter" for n in range(count)]


def test_the_key_of_a_documents_lists_is_no_label_and_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "full.json"
    rows = [[text, f"intent {n % 4}"] for n, text in enumerate(sentences(60))]
    path.write_text(json.dumps({"train": rows, "val": rows[:20], "oos_train": rows[:10], "oos_test": rows[:10]}))
    found = guess([path])
    assert (found.text, found.target) == ("column_1", "column_2")
    assert "key is the key of the document's list in which a row stands: train, val, oos_train, oos_test" in found.notes


def test_the_key_is_the_label_where_a_document_has_a_list_for_each(tmp_path: Path) -> None:
    path = tmp_path / "mails.json"
    path.write_text(json.dumps({"spam": sentences(20), "ham": [f"{text}, kindly" for text in sentences(20)]}))
    assert guess([path]).target == "key"


def test_a_column_of_splits_is_no_label_and_its_use_is_told(tmp_path: Path) -> None:
    rows = [f"{row},{('train', 'validation', 'test')[n % 3]}" for n, row in enumerate(messages())]
    found = guess([table(tmp_path, "mail.csv", rows, header="text,kind,type")])
    assert found.target == "kind"
    assert any("split: {by: column, column: type}" in note for note in found.notes)
    with pytest.raises(DataError, match="no column looks like labels"):
        guess([table(tmp_path, "bare.csv", rows, header="text,text2,type")], text="text2", target=None)


def test_a_target_of_one_class_is_refused_where_all_rows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(tmp_path, "one.csv", [f"{text},only" for text in sentences(60)])
    with pytest.raises(DataError, match="one class, 'only', in all 60 rows"):
        guess([path], target="label")
    monkeypatch.setattr("espalier_pipeline.inference.SAMPLE_ROWS", 50)
    found = guess([path], target="label")
    assert found.classes == "at least 1 class in the first 50 rows"
    assert any("two are needed" in note for note in found.notes)


def test_a_header_alone_is_no_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 readable rows: too few, the file has a header at most"):
        guess([table(tmp_path, "mail.csv", [])])
