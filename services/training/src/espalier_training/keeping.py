"""When training measures itself on validation, keeps a checkpoint, and ends early; and what it kept at its best."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from espalier_sdk import Phase
from espalier_sdk.artifacts import FileEntry

from espalier_training.checkpoints import Checkpoint, commit, newest, remove_old
from espalier_training.engine import Setting, load_weights, save_weights, write_weights
from espalier_training.remote import RemoteCheckpoints, first_of_machine
from espalier_training.zero import gathered

VALIDATION_LOSS = "eval_loss"
_BEST = "best-"
OnValidation = Callable[[int, float], None]  # which validation it is, from 1, and its loss


class Clock:
    """Counts the seconds of optimizer steps, over all processes that had a part; validating does not count."""

    def __init__(self, before: float = 0.0) -> None:
        self._before, self._begun, self._paused = before, time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Returns the seconds until now."""
        return self._before + time.perf_counter() - self._begun - self._paused

    def pause(self, seconds: float) -> None:
        """Leaves out seconds that were no training."""
        self._paused += seconds


def keeper(setting: Setting, phase: Phase, clock: Clock, *, remote: RemoteCheckpoints | None) -> Any:
    """Returns the callback that asks for checkpoints and commits them: every `checkpoint_steps`, and after a phase.

    The last step of all needs none: the model itself is published then.
    """
    from transformers import TrainerCallback

    job = setting.job
    every = job.checkpoint_steps

    class Keeper(TrainerCallback):
        """Commits what the trainer has written, once every worker has."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            step = state.global_step
            control.should_save = step < setting.steps and (step == phase.stop or step % every == 0)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            _barrier()
            first = state.is_world_process_zero
            if first:
                if state.global_step == phase.stop:  # the next phase has another optimizer
                    for name in ("optimizer.pt", "scheduler.pt"):
                        (folder / name).unlink(missing_ok=True)
                _keep_best(folder, state.log_history)
            if _writes(remote, first=first):
                _remove_older(folder.parent, state.log_history)
            files = _of_all(remote.push(folder) if first_of_machine() else []) if remote else None
            if first:
                commit(folder, seconds=clock.seconds, request=job.request, world=job.world, files=files)
                if remote:
                    remote.commit(folder)
            _barrier()
            if remote and not first and first_of_machine():
                remove_old(folder.parent)

    return Keeper()


def validator(setting: Setting, clock: Clock, *, remote: RemoteCheckpoints | None) -> Any:
    """Returns the callback that measures the validation loss evenly over training, and ends it when that is asked.

    The best weights lie on every machine, since each worker takes them back from its own disk.
    """
    from transformers import TrainerCallback

    job = setting.job
    count, patience = job.training["validations"], job.training["early_stopping"]
    at = {round(setting.steps * (number + 1) / count) for number in range(count)} if len(setting.validation) else set()

    class Validator(TrainerCallback):
        """Measures, remembers the best weights, and counts validations without a better one."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_evaluate = state.global_step in at

        def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            clock.pause(state.log_history[-1].get("eval_runtime", 0.0))
            if patience is None:
                return
            losses = validations(state.log_history)
            best = min(losses, key=lambda one: one[1])
            if best[0] == state.global_step:
                writes = _writes(remote, first=state.is_world_process_zero)
                self._keep(model, Path(args.output_dir) / f"{_BEST}{best[0]}", writes=writes)
            if sum(step > best[0] for step, _ in losses) >= patience:
                control.should_training_stop = True

        def _keep(self, model: Any, folder: Path, *, writes: bool) -> None:
            if job.zero_stage:
                weights = gathered(model, setting.kept)  # from every worker's shards
                if writes:
                    write_weights(weights, folder)
            elif writes:
                save_weights(model, folder, kept=setting.kept, peft=setting.peft)

    return Validator()


def listener(on_validation: OnValidation) -> Any:
    """Returns the callback that passes on each validation loss once, also those that a checkpoint brought along."""
    from transformers import TrainerCallback

    class Listener(TrainerCallback):
        """Tells number, from 1, and loss of what it has not told yet."""

        def __init__(self) -> None:
            self._told = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._tell(state)

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._tell(state)

        def _tell(self, state: Any) -> None:
            losses = validations(state.log_history)
            for number, (_, loss) in enumerate(losses[self._told :], self._told + 1):
                self._told = number
                on_validation(number, loss)

    return Listener()


def validations(history: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """Returns step and loss of every measurement on validation."""
    return [(int(entry["step"]), float(entry[VALIDATION_LOSS])) for entry in history if VALIDATION_LOSS in entry]


def take_best(setting: Setting, model: Any, history: Sequence[dict[str, Any]], *, folder: Path) -> int | None:
    """Puts the best validation's weights back where training may end early; returns its step."""
    losses = validations(history)
    if setting.job.training["early_stopping"] is None or not losses:
        return None
    step = min(losses, key=lambda one: one[1])[0]
    _barrier()
    load_weights(model, folder / f"{_BEST}{step}", kept=setting.kept, peft=setting.peft)
    _barrier()  # before a worker removes them
    return step


def agreed(folder: Path, *, rank: int, remote: RemoteCheckpoints | None = None) -> Checkpoint | None:
    """Returns the checkpoint that all workers go on from: the first worker looks, the others are told.

    With `remote` each machine gets a copy of it below `folder`.
    """
    import torch.distributed as dist

    found = [(remote.newest(folder) if remote else newest(folder)) if rank == 0 else None]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast_object_list(found, src=0)
    checkpoint = found[0] and replace(found[0], folder=folder / found[0].folder.name)
    if checkpoint and remote and rank and first_of_machine() and not remote.pull(checkpoint.folder):
        raise ConnectionError(f"{checkpoint.folder.name} could not be copied from the store whole")
    if checkpoint and _writes(remote, first=rank == 0):
        for best in checkpoint.folder.glob(f"{_BEST}*"):
            shutil.copytree(best, folder / best.name, dirs_exist_ok=True)
    _barrier()
    return checkpoint


def _writes(remote: RemoteCheckpoints | None, *, first: bool) -> bool:
    """Tells whether this worker is the one that writes on its disk, which only with a store is a machine's own."""
    return first_of_machine() if remote else first


def _keep_best(folder: Path, history: Sequence[dict[str, Any]]) -> None:
    """Copies the best weights until now into a checkpoint, where training may end early."""
    name = _best_name(history)
    if (folder.parent / name).is_dir():
        shutil.copytree(folder.parent / name, folder / name, dirs_exist_ok=True)


def _remove_older(folder: Path, history: Sequence[dict[str, Any]]) -> None:
    """Removes weights that were the best, and are no longer."""
    for path in folder.glob(f"{_BEST}*"):
        if path.name != _best_name(history):
            shutil.rmtree(path)


def _best_name(history: Sequence[dict[str, Any]]) -> str:
    """Returns the folder of the best weights until now."""
    step, _ = min(validations(history), key=lambda one: one[1], default=(0, 0.0))
    return f"{_BEST}{step}"


def _of_all(files: list[FileEntry]) -> list[FileEntry]:
    """Returns the files of all machines' workers, each once; every worker must call it (a collective)."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return files
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, files)
    return sorted({entry.path: entry for some in found for entry in some}.values(), key=lambda entry: entry.path)


def _barrier() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()
