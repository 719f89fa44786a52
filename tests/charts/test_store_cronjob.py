from __future__ import annotations

import typer
from click.testing import CliRunner
from espalier_pipeline.command import app


def job(objects):
    return objects.one("CronJob", "espalier-gc")["spec"]


def test_it_sweeps_one_at_a_time(chart):
    spec = job(chart())
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("17 3 * * *", "Forbid")
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_its_command_is_one_that_espalier_takes(chart, tmp_path):
    (container,) = job(chart({"gc": {"olderThanMinutes": 30}}))["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["espalier", "store", "gc", "--older-than", "30"]
    words = [*container["command"][1:], "--home", str(tmp_path)]
    done = CliRunner().invoke(typer.main.get_command(app), words)
    assert done.exit_code == 0, done.output
    assert "0 attempts" in done.output


def test_it_can_be_left_out(chart):
    assert not chart({"gc": {"enabled": False}}).of("CronJob")
