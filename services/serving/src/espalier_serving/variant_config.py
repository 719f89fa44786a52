"""How a variant is run: its engine and its share of the machine."""

from __future__ import annotations

from typing import Any, Self

from espalier_sdk.choice import Choice
from espalier_sdk.errors import SpecError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

ECHO = "echo"  # the engine that answers without a model; see echo.py


class VariantConfig(BaseModel):
    """How much of the cluster a variant takes, and how it batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_replicas: int = Field(default=1, ge=1, le=1_000, description="Processes that answer.")
    num_cpus: float = Field(default=0.5, ge=0, description="CPUs that each reserves.")
    num_gpus: float = Field(default=0, ge=0, description="GPUs that each reserves.")
    threads: int | None = Field(
        default=None, ge=1, description="Threads of the arithmetic; default: one per whole CPU."
    )
    max_batch_requests: int = Field(default=16, ge=1, le=1_024, description="Requests that are answered together.")
    max_ongoing: int = Field(default=256, ge=1, description="Requests that a replica holds at once.")

    @classmethod
    def read(cls, given: dict[str, Any]) -> Self:
        """Reads a config; raises SpecError that names the first wrong field."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(("config", *map(str, first["loc"])))
            raise SpecError(
                first["msg"], field=field, given=first["input"], accepted=", ".join(cls.model_fields)
            ) from None


def engine_of(given: dict[str, Any] | str) -> Choice:
    """Reads the choice of an engine; raises SpecError where it is none."""
    try:
        return Choice.model_validate(given)
    except ValidationError as error:
        raise SpecError(
            error.errors()[0]["msg"], field="engine", given=str(given), accepted="a name, or {name, config}"
        ) from None
