"""The source `files` through its kit, in every format and compression, and what it says about broken files."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from espalier_sdk.columns import ERROR, LINE, ORIGIN, RAW
from espalier_sdk.errors import DataError
from espalier_sdk.testing import check_source
from espalier_sources import Files, FilesConfig
from pydantic import ValidationError

ROWS = [{"message": "hello, größe", "queue": "a"}, {"message": "two\nlines", "queue": "b"}]


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def as_zst(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def read(**config: Any) -> list[dict[str, Any]]:
    source = Files(FilesConfig.model_validate(config))
    return [row for part in source.parts() for batch in source.read(part) for row in batch.to_pylist()]


def data_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.startswith("espalier_")} for row in rows]


CONTENTS = {
    "csv": b'message,queue\n"hello, gr\xc3\xb6\xc3\x9fe",a\n"two\nlines",b\n',
    "tsv": b'message\tqueue\nhello, gr\xc3\xb6\xc3\x9fe\ta\n"two\nlines"\tb\n',
    "jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in ROWS),
    "json": json.dumps({"data": ROWS}).encode(),
    "parquet": as_parquet(ROWS),
}
PACKINGS = {"": lambda content: content, ".gz": gzip.compress, ".zst": as_zst}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("format", CONTENTS)
def test_every_format_plain_and_compressed_passes_the_kit_with_the_same_rows(
    tmp_path: Path, format: str, packing: str
) -> None:
    path = write(tmp_path / f"rows.{format}{packing}", PACKINGS[packing](CONTENTS[format]))
    assert data_of(check_source("files", {"paths": path}, rows=2)) == ROWS


def test_a_text_file_has_a_row_for_each_line_that_is_not_blank_or_one_for_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "poem.txt", "one\n\n  \r\ntwo\r\n")
    rows = check_source("files", {"paths": path, "text_column": "verse"}, rows=2)
    assert [(row["verse"], row[LINE]) for row in rows] == [("one", 1), ("two", 4)]
    assert data_of(read(paths=path, rows="file")) == [{"text": "one\n\n  \r\ntwo\r\n"}]


def test_bad_rows_of_a_csv_are_yielded_with_line_reason_and_text(tmp_path: Path) -> None:
    content = b'message,queue\nfine,a\ntoo,many,fields\n"a",b\nbroken \xff byte,a\n'
    content += b'"quoted" then not,b\n\n"two\nlines",a\nfew\n'
    path = write(tmp_path / "rows.csv", content.replace(b"fine", "grün".encode()))
    rows = check_source("files", {"paths": path}, rows=3, bad=4)
    bad = {row[LINE]: (row[ERROR], row[RAW]) for row in rows if row[ERROR]}
    assert bad[3] == ("3 fields, the file has 2", "too,many,fields")
    assert bad[5][0].startswith("byte 51 is no utf-8") and bad[5][1] == "broken \ufffd byte,a"
    assert "broken quotes" in bad[6][0]
    assert bad[10] == ("1 fields, the file has 2", "few")
    assert [row["message"] for row in rows if row[ERROR] is None] == ["grün", "a", "two\nlines"]


def test_a_quote_that_is_never_closed_costs_one_row_not_the_rest_of_the_file(tmp_path: Path) -> None:
    lines = [f'"text {place}, quoted","a"' for place in range(50)]
    lines[10] = '"never closed,a'
    path = write(tmp_path / "rows.csv", "message,queue\n" + "\n".join(lines) + "\n")
    rows = check_source("files", {"paths": path}, rows=49, bad=1)
    assert [row[LINE] for row in rows if row[ERROR]] == [12]


def test_quotes_that_are_words_of_the_text_stay_in_it(tmp_path: Path) -> None:
    lines = ['ham\t"Gimme a few" was 5 minutes ago', "spam\tWIN now", 'ham\t"so what', "ham\tok", 'ham\t"all quoted"']
    lines += [f"ham\tplain {place}" for place in range(10)]
    path = write(tmp_path / "SMS", "\n".join(lines) + "\n")
    rows = check_source("files", {"paths": path, "format": "tsv", "columns": ["label", "text"]}, rows=15)
    assert [row["text"] for row in rows] == [line.split("\t")[1] for line in lines]


@pytest.mark.parametrize(
    ("delimiter", "name"), [(";", "rows.csv"), ("\t", "rows.csv"), ("|", "rows.csv"), (",", "rows.csv")]
)
def test_the_delimiter_is_detected(tmp_path: Path, delimiter: str, name: str) -> None:
    text = "\n".join(
        delimiter.join((f"text {place}, with a comma" if delimiter != "," else f"t {place}", "a")) for place in range(9)
    )
    path = write(tmp_path / name, f"message{delimiter}queue\n{text}\n")
    assert {row["queue"] for row in check_source("files", {"paths": path}, rows=9)} == {"a"}


def test_one_column_without_a_delimiter_is_one_column(tmp_path: Path) -> None:
    assert data_of(read(paths=write(tmp_path / "a.csv", "text\none\ntwo words\n"))) == [
        {"text": "one"},
        {"text": "two words"},
    ]


def test_values_of_a_csv_stay_text_and_an_empty_field_is_null(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'number,text\n007,""\n1.50,x\n')
    assert data_of(read(paths=path)) == [{"number": "007", "text": None}, {"number": "1.50", "text": "x"}]


def test_columns_name_what_has_no_header_and_an_unnamed_header_gets_a_number(tmp_path: Path) -> None:
    bare = write(tmp_path / "a.csv", "one,1\ntwo,2\n")
    assert data_of(read(paths=bare, columns=["text", "n"]))[0] == {"text": "one", "n": "1"}
    index = write(tmp_path / "b.csv", ",text\n0,one\n")
    assert data_of(read(paths=index)) == [{"column_1": "0", "text": "one"}]
    rows = read(paths=bare, columns=["text", "n", "more"])
    assert [row[ERROR] for row in rows] == ["2 fields, `columns` names 3"] * 2


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b"\xef\xbb\xbf"),
        ("utf-16-le", b"\xff\xfe"),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-8", b""),
        ("utf-32-le", b"\xff\xfe\0\0"),
    ],
)
def test_an_encoding_is_detected_by_its_mark_or_its_bytes(tmp_path: Path, encoding: str, mark: bytes) -> None:
    path = write(tmp_path / "a.csv", mark + "text,n\nGröße 大,1\nzwei,2\n".encode(encoding))
    assert data_of(check_source("files", {"paths": path}, rows=2))[0] == {"text": "Größe 大", "n": "1"}


def test_an_eight_bit_encoding_is_detected_and_can_be_said(tmp_path: Path) -> None:
    text = "text\n" + "Die Größe der Änderung überrascht viele Käufer in München.\n" * 30
    path = write(tmp_path / "a.csv", text.encode("cp1252"))
    assert {row["text"] for row in read(paths=path)} == {text.splitlines()[1]}
    assert {row["text"] for row in read(paths=path, encoding="cp1252")} == {text.splitlines()[1]}


def test_a_whole_document_that_cannot_be_decoded_is_refused_with_the_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", b'[{"text": "\xff"}]')
    with pytest.raises(DataError, match="byte 11 is no utf-8") as refused:
        read(paths=path, encoding="utf-8")
    assert refused.value.problems[0].file == path and "encoding" in (refused.value.problems[0].remedy or "")
    wide = write(tmp_path / "b.csv", b"\xff\xfe" + "text\nab\n".encode("utf-16-le") + b"\x00\xd8\x41\x00")
    with pytest.raises(DataError, match="is no utf-16-le"):
        read(paths=wide)


def test_bad_lines_of_jsonl_are_yielded_with_line_reason_and_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": \n\n17\n"bare"\n["x"]\n{"text": "\\ud800"}\n{}\n')
    rows = check_source("files", {"paths": path, "columns": ["text"]}, rows=3, bad=4)
    assert [(row[LINE], row["text"]) for row in rows if not row[ERROR]] == [(1, "a"), (5, "bare"), (6, "x")]
    bad = {row[LINE]: row[ERROR] for row in rows if row[ERROR]}
    assert bad[2].startswith("broken JSON at column") and bad[4] == "is a bare int, must be an object with keys"
    assert "surrogate" in bad[7] and "empty object" in bad[8]


def test_mixed_types_of_one_key_become_text_and_missing_keys_null(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"n": 1, "t": {"x": 2}}\n{"n": "one"}\n{"t": [3]}\n')
    assert data_of(read(paths=path)) == [
        {"n": "1", "t": '{"x": 2}'},
        {"n": "one", "t": None},
        {"n": None, "t": "[3]"},
    ]


def test_every_list_of_a_json_document_is_read_and_named(tmp_path: Path) -> None:
    document = {"about": "x", "train": [["hi", "greet"]], "val": [["bye", "leave"]]}
    path = write(tmp_path / "a.json", json.dumps(document))
    assert data_of(check_source("files", {"paths": path, "columns": ["text", "intent"]}, rows=2)) == [
        {"text": "hi", "intent": "greet", "key": "train"},
        {"text": "bye", "intent": "leave", "key": "val"},
    ]
    assert data_of(read(paths=path, records="val")) == [{"column_1": "bye", "column_2": "leave"}]
    with pytest.raises(DataError, match="no list under 'vall'"):
        read(paths=path, records="vall")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", "cut short"),
        ('[{"a": 1}', "cut short"),
        ("[1 2]", "broken JSON"),
        ('{"a": 1}', "no list of rows"),
        ("3", "no list of rows"),
    ],
)
def test_a_broken_json_document_is_refused_with_its_place(tmp_path: Path, content: str, what: str) -> None:
    path = write(tmp_path / "a.json", content)
    with pytest.raises(DataError, match=what) as refused:
        read(paths=path)
    assert refused.value.problems[0].file == path


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_a_stream_that_is_cut_short_or_none_at_all_is_refused(tmp_path: Path, packing: str) -> None:
    whole = PACKINGS[packing](os.urandom(200_000).hex().encode() + b"\n" * 10)
    path = write(tmp_path / f"a.csv{packing}", whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut short") as refused:
        read(paths=path)
    assert refused.value.problems[0].code == "truncated_file"
    with pytest.raises(DataError, match="no whole"):
        read(paths=write(tmp_path / f"b.csv{packing}", b"text\nplain\n"))


@pytest.mark.parametrize("cut", [8, -20])
def test_a_parquet_file_that_is_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.parquet", CONTENTS["parquet"][:cut])
    with pytest.raises(DataError, match="no whole parquet file") as refused:
        read(paths=path)
    assert refused.value.problems[0].file == path


def test_parquet_without_rows_has_columns_and_no_rows(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array([], pa.string())})
    pq.write_table(table, tmp_path / "a.parquet")
    source = Files(FilesConfig(paths=(str(tmp_path / "a.parquet"),)))
    batches = [batch for part in source.parts() for batch in source.read(part)]
    assert [batch.num_rows for batch in batches] == [0] and "text" in batches[0].schema.names


def test_files_come_in_the_order_of_paths_and_sorted_within_a_folder(tmp_path: Path) -> None:
    for name in ("z/b.txt", "z/a.csv", "z/deep/c.jsonl", "z/.hidden.txt", "z/readme.md", "x.txt"):
        write(tmp_path / name, '{"text": "t"}\n' if name.endswith("jsonl") else "text\nt\n")
    source = Files(FilesConfig(paths=(str(tmp_path / "x.txt"), str(tmp_path / "z"), str(tmp_path / "z" / "*.txt"))))
    assert [part["name"] for part in source.parts()] == ["x.txt", "a.csv", "b.txt", "c.jsonl"]  # type: ignore[index, call-overload]


def test_equal_names_get_as_much_of_their_folders_as_tells_them_apart(tmp_path: Path) -> None:
    paths = [write(tmp_path / folder / "rows.txt", "t\n") for folder in ("one", "two")]
    assert [row[ORIGIN] for row in read(paths=paths)] == ["one/rows.txt", "two/rows.txt"]


def test_the_fingerprint_follows_content_and_name_not_the_folder(tmp_path: Path) -> None:
    def print_of(folder: str, name: str, content: str) -> str:
        return Files(FilesConfig(paths=(write(tmp_path / folder / name, content),))).fingerprint()

    first = print_of("one", "a.csv", "text\nx\n")
    assert print_of("two", "a.csv", "text\nx\n") == first
    assert print_of("three", "b.csv", "text\nx\n") != first
    assert print_of("four", "a.csv", "text\ny\n") != first


def test_what_cannot_be_read_is_refused_with_file_and_remedy(tmp_path: Path) -> None:
    write(tmp_path / "tickets.csv", "text\nx\n")
    for path, what, remedy in (
        (str(tmp_path / "tickts.csv"), "there is no such file", "did you mean 'tickets.csv'"),
        (str(tmp_path / "*.parquet"), "no file matches", "tickets.csv"),
        (write(tmp_path / "empty.csv", ""), "is empty", "fill it"),
        (write(tmp_path / "notes.docx", "x"), "unknown ending '.docx'", "set `format`"),
        (write(tmp_path / "noending", "x"), "no ending", "set `format`"),
    ):
        with pytest.raises(DataError, match=what) as refused:
            Files(FilesConfig(paths=(path,))).parts()
        assert refused.value.problems[0].file == path and remedy in (refused.value.problems[0].remedy or ""), path
        assert refused.value.exit_code == 4
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no file with a known ending"):
        Files(FilesConfig(paths=(str(tmp_path / "nothing"),))).parts()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_without_the_right_to_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text\nx\n")
    Path(path).chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        Files(FilesConfig(paths=(path,))).parts()


def test_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="no such file"):
        Files(FilesConfig(paths=(str(tmp_path / "a.csv"),))).parts()


@pytest.mark.parametrize(("header", "what"), [("a,a", "two columns"), ("espalier_row,b", "Espalier's own")])
def test_names_that_cannot_be_columns_are_refused(tmp_path: Path, header: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        read(paths=write(tmp_path / "a.csv", f"{header}\n1,2\n"))


def test_many_rows_come_in_several_batches_with_rising_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "n,text\n" + "".join(f"{place},x\n" for place in range(25_000)))
    source = Files(FilesConfig(paths=(path,)))
    batches = list(source.read(source.parts()[0]))
    assert [batch.num_rows for batch in batches] == [10_000, 10_000, 5_000]
    assert batches[2].column(batches[2].schema.names.index(LINE)).to_pylist()[-1] == 25_001


def test_a_line_longer_than_a_block_is_one_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "x" * 9_000_000 + "\nshort\n")
    assert [len(row["text"]) for row in read(paths=path)] == [9_000_000, 5]


@pytest.mark.parametrize(
    "config", [{"paths": []}, {"paths": "a", "encoding": "utf-9"}, {"paths": "a", "columns": ["x", "x"]}]
)
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FilesConfig.model_validate(config)


SHARED = Path(os.environ.get("ESPALIER_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the development data in {SHARED}")
@pytest.mark.parametrize(
    ("config", "rows"),
    [
        ({"paths": "ag_news/train.csv", "columns": ["text", "label"]}, 5000),
        ({"paths": "sms_spam/SMSSpamCollection", "format": "tsv", "columns": ["label", "text"]}, 4456),
        ({"paths": "clinc150/data_full.json", "columns": ["text", "intent"]}, 18200),
        ({"paths": "emobank/emobank.csv"}, 9062),
        ({"paths": "netflix_titles"}, 2500),
        ({"paths": "gsm8k/train.jsonl"}, 3200),
        ({"paths": "tinyshakespeare/input.txt"}, 32777),
    ],
)
def test_real_files_are_read_without_a_bad_row(config: dict[str, Any], rows: int) -> None:
    """The counts are those of the files' own descriptions; of tinyshakespeare's lines 7,223 are blank."""
    check_source("files", config | {"paths": str(SHARED / config["paths"])}, rows=rows)


@pytest.mark.parametrize("paths", [[""], ["a.csv", " "], ""])
def test_an_empty_path_is_refused(paths: Any) -> None:
    with pytest.raises(ValidationError, match="a path is empty"):
        FilesConfig(paths=paths)
