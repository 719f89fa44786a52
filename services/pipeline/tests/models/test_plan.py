"""What `plan` tells of a real model: its stages, and the parameters that a child process counts."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_plan_tells_what_was_never_made(tmp_path: Path, capsys) -> None:
    (tmp_path / "mails.csv").write_text("text,label\nhello there,a\ngood bye,b\n", encoding="utf-8")
    spec = tmp_path / "small.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    assert run(["plan", str(spec), "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["stage"] for stage in stages] == [
        "ingest",
        "preprocess",
        "base",
        "train",
        "evaluate",
        "evaluate",
        "evaluate",
    ]
    assert stages[0]["why"] == "never made"
    train = next(stage for stage in stages if stage["stage"] == "train")
    assert train["trainable_parameters"] > 20e6  # all of MiniLM
