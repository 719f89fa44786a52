"""Where things lie on this machine: home, store, databases, runs. All below the spec's folder unless told otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HOME_VARIABLE = "ESPALIER_HOME"
DATABASE_VARIABLE = "ESPALIER_DATABASE_URL"  # also how a child is told: all users may read a command line


@dataclass(frozen=True, slots=True)
class Places:
    """The folders and addresses of one home."""

    home: Path
    store: str

    @classmethod
    def of(cls, spec: Path | None = None, *, home: Path | None = None, store: str | None = None) -> Places:
        """Returns the places of a spec: --home, else ESPALIER_HOME, else `.espalier` beside the spec or here."""
        given = home or (Path(os.environ[HOME_VARIABLE]) if os.environ.get(HOME_VARIABLE) else None)
        folder = (given or (spec.resolve().parent if spec else Path.cwd()) / ".espalier").expanduser().resolve()
        return cls(home=folder, store=store or os.environ.get("ESPALIER_STORE") or str(folder / "store"))

    @property
    def database(self) -> str:
        """Returns the endpoint database's SQLAlchemy URL."""
        return os.environ.get(DATABASE_VARIABLE) or f"sqlite:///{self.home / 'espalier.db'}"

    @property
    def tracking(self) -> str:
        """Returns MLflow's tracking URI."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def runs(self) -> Path:
        """Returns the folder of run records."""
        return self.home / "runs"

    @property
    def endpoint_file(self) -> Path:
        """Returns the file in which `serve` leaves url and key."""
        return self.home / "endpoint.json"
