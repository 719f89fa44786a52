"""Looking: runs, show, compare, logs, stop."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from espalier_sdk.errors import SpecError

from espalier_pipeline.commands.printing import (
    Context,
    Home,
    Json,
    Namespace,
    StoreUri,
    command_line,
    print_json,
    print_next,
    shown,
)

# The first is what Ctrl-C sends; a run that was started in the background of a script ignores it.
_PATIENCE = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0))
RunId = Annotated[str, typer.Argument(help="A run's id, or how it begins.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (runs, show, compare, logs, stop):
        app.command()(command)


def _runs_folder(home: Path | None) -> Path:
    from espalier_pipeline.places import Places

    return Places.of(home=home).runs


def runs(
    run_id: Annotated[str | None, typer.Argument(help="One run; default: all.")] = None,
    home: Home = None,
    namespace: Namespace = None,
    context: Context = None,
    as_json: Json = False,
) -> None:
    """List runs, or tell what one did; with -n those that were submitted there."""
    if namespace is not None:
        _submissions(namespace, context, run_id, as_json=as_json)
        return
    from espalier_pipeline.records import RunRecord
    from espalier_pipeline.tables import render_run, render_runs

    if run_id is None:
        records = list(RunRecord.all(_runs_folder(home)))
        print_json([_summary(record) for record in records]) if as_json else print(render_runs(records))
        if records:
            print_next(command_line("runs", records[0].id, home=home))
        return
    record = RunRecord.load(_runs_folder(home), run_id)
    print_json({**record.data, "state": record.state()}) if as_json else print(render_run(record))
    print_next(_after(record, home))


def _submissions(namespace: str, context: str | None, begins: str | None, *, as_json: bool) -> None:
    from espalier_pipeline.cluster import looking
    from espalier_pipeline.cluster.access import Cluster

    cluster = Cluster.of_user(namespace, context=context)
    found = looking.submissions(cluster)
    if begins is not None:
        name = looking.find(cluster, begins).name
        found = [one for one in found if one["job"] == name]
    print_json(found) if as_json else print(looking.render(found))
    if found:
        print_next(command_line("logs", found[0]["job"], "-n", namespace))


def _after(record: Any, home: Path | None) -> str:
    """Returns what to do next about a run: watch it, go on with it, or look at what it chose."""
    if record.state() == "running":
        return command_line("logs", record.id, "-f", home=home)
    result = record.data.get("result") or {}
    chosen = next((one["model"] for one in result.get("candidates", ()) if one["name"] == result["chosen"]), None)
    return command_line("show", chosen, home=home) if chosen else command_line("run", record.data["spec"], home=home)


def _summary(record: Any) -> dict[str, Any]:
    keys = ("id", "name", "spec", "started_at", "finished_at")
    result = record.data.get("result") or {}
    chosen, objective = result.get("chosen"), result.get("objective")
    return {key: record.data.get(key) for key in keys} | {
        "state": record.state(),
        "chosen": chosen,
        "objective": objective,
    }


def show(
    ref: Annotated[str, typer.Argument(help="kind/name@<8 or more hex>.")],
    home: Home = None,
    store: StoreUri = None,
    as_json: Json = False,
) -> None:
    """Tell what an artifact is, what it was made of, and what was measured."""
    from espalier_runtime.store import Store

    from espalier_pipeline.places import Places
    from espalier_pipeline.showing import render_manifest

    opened = Store.open(Places.of(home=home, store=store).store)
    manifest = opened.manifest(opened.resolve(ref))
    if as_json:
        print_json({"ref": str(manifest.ref()), **manifest.model_dump(mode="json")})
    else:
        print(render_manifest(manifest))
    if manifest.kind == "model":
        print_next(command_line("predict", manifest.ref().short(), "FILE", home=home, store=store))
    else:
        print_next(command_line("runs", home=home))


def compare(
    run_ids: Annotated[list[str], typer.Argument(help="Two or more runs.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Set the candidates of several runs side by side."""
    from espalier_pipeline.records import RunRecord
    from espalier_pipeline.tables import render_comparison

    folder = _runs_folder(home)
    records = [RunRecord.load(folder, run_id) for run_id in run_ids]
    unfinished = [record.id for record in records if "result" not in record.data]
    if unfinished:
        raise SpecError(f"run {', '.join(unfinished)} has no result", remedy="run its spec again to the end")
    if as_json:
        print_json({record.id: record.data["result"] for record in records})
    else:
        print(render_comparison(records))
    print_next(command_line("runs", records[0].id, home=home))


def logs(
    run_id: RunId,
    stage: Annotated[str | None, typer.Argument(help="One stage, such as train or train-lora.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on while the run works.")] = False,
    home: Home = None,
    namespace: Namespace = None,
    context: Context = None,
    as_json: Json = False,
) -> int:
    """Print the logs of a run's stages; with -n the log of a submission."""
    import json

    if namespace is not None:
        from espalier_pipeline.cluster import looking
        from espalier_pipeline.cluster.access import Cluster
        from espalier_pipeline.places import Places

        job = looking.find(Cluster.of_user(namespace, context=context), run_id)
        return looking.print_logs(job, following=follow, home=Places.of(home=home).home)

    from espalier_pipeline.records import RunRecord

    record = RunRecord.load(_runs_folder(home), run_id)
    seen: dict[Path, int] = {}
    while True:
        for path in _logs_of(record.logs, stage):
            with path.open("r", encoding="utf-8", errors="replace") as file:
                file.seek(seen.get(path, 0))
                for line in file:
                    text = line.rstrip("\n")
                    print(json.dumps({"stage": path.stem, "line": text}) if as_json else f"{path.stem}: {text}")
                seen[path] = file.tell()
        if not follow or RunRecord.load(record.folder.parent, record.id).state() != "running":
            break
        time.sleep(0.5)
    if not seen:
        known = (
            ", ".join(sorted(path.stem for path in record.logs.glob("*.log"))) or "none: every stage was done before"
        )
        raise SpecError(f"run {record.id} has no log of {stage or 'any stage'}", given=stage, accepted=known)
    return 0


def _logs_of(folder: Path, stage: str | None) -> list[Path]:
    """Returns the logs of a stage, the latest last; its name is compared, and never read as a pattern."""
    found = [path for path in folder.glob("*.log") if path.name.startswith(stage or "")]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def stop(
    run_id: RunId, home: Home = None, namespace: Namespace = None, context: Context = None, as_json: Json = False
) -> None:
    """End a run, or with -n a submission; what was complete is kept and not repeated."""
    if namespace is not None:
        from espalier_pipeline.cluster import looking
        from espalier_pipeline.cluster.access import Cluster

        job = looking.find(Cluster.of_user(namespace, context=context), run_id)
        looking.stop(job)
        print_json({"job": job.name, "state": "stopped"}) if as_json else None
        return
    from espalier_sdk.errors import ClusterError

    from espalier_pipeline.records import RunRecord

    record = RunRecord.load(_runs_folder(home), run_id)
    if record.state() != "running":
        raise SpecError(f"run {record.id} is not running: {record.state()}", code="not_running", given=run_id)
    for number, seconds in _PATIENCE:
        ended = _signal(record, number, seconds)
        if ended.state() != "running":
            break
    else:
        raise ClusterError(
            f"run {record.id} still works: process {record.data['pid']} ignores SIGINT and SIGTERM",
            code="still_running",
            remedy=f"kill -9 {record.data['pid']}; what is complete stays",
        )
    if as_json:
        print_json({"run": ended.id, "state": ended.state(), "spec": ended.data["spec"]})
    else:
        print(f"{ended.id} {ended.state()}; spec {shown(Path(ended.data['spec']))}")
        print_next(command_line("run", shown(Path(ended.data["spec"])), home=home))


def _signal(record: Any, number: int, seconds: float) -> Any:
    """Signals the process of a run, waits until that ends, and returns the record as it is then."""
    if (pid := record.process()) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    deadline = time.monotonic() + seconds
    while True:
        now = type(record).load(record.folder.parent, record.id)
        if now.state() != "running" or time.monotonic() > deadline:
            return now
        time.sleep(0.1)
