"""What `store gc --unused` takes: what nobody names, is not young, and is whole."""

from __future__ import annotations

import os
import time
from pathlib import Path

from espalier_pipeline.driver import run
from espalier_pipeline.keeping import collect
from espalier_pipeline.view import QuietView
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef

KIND = "dataset"


def publish(store: Store, name: str, *, inputs: tuple[ArtifactRef, ...] = (), age_hours: float = 0) -> ArtifactRef:
    attempt = store.begin(name.encode().hex().ljust(64, "0"))
    (attempt.folder / "x").write_text(name)
    ref = attempt.publish(kind=KIND, name=name, inputs=inputs).ref()
    then = time.time() - 3600 * age_hours
    os.utime(Path(store.uri) / "artifacts" / KIND / name / f"{ref.digest}.json", (then, then))
    return ref


def test_young_leased_and_damaged_artifacts_stay(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    young, old = publish(store, "young"), publish(store, "old", age_hours=3)
    below = publish(store, "below", age_hours=3)
    read = publish(store, "read", inputs=(below,), age_hours=3)
    damaged = publish(store, "damaged", age_hours=3)
    path = Path(store.uri) / "artifacts" / KIND / "damaged" / f"{damaged.digest}.json"
    path.write_text(path.read_text().replace("damaged", "domaged"))
    os.utime(path, (1, 1))
    attempt = store.begin("ab" * 32, reads=[read])
    swept = collect(home=tmp_path, older_than_minutes=60, unused=True)
    assert swept["artifacts"] == [str(old)]
    assert swept["bytes"] == len("old")
    assert {young, read, below} <= set(store.refs())
    attempt.close()


def test_what_a_run_record_names_stays_with_all_it_was_made_of(spec: Path, services) -> None:
    result = run(spec, only="train", view=QuietView())
    home = spec.parent / ".espalier"
    assert collect(home=home, older_than_minutes=-1, unused=True)["artifacts"] == []
    store = Store.open(str(home / "store"))
    assert all(store.has(ArtifactRef.parse(stage["ref"])) for stage in result.stages)
