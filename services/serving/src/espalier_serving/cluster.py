"""The static application as KubeRay starts it: `import_path: espalier_serving.cluster:application`.

Database and store come from the environment, as a pod gets them; Control starts the variants from the rows.
"""

from __future__ import annotations

import os
from typing import Any

from espalier_sdk.errors import SpecError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from espalier_serving.applications import static_application
from espalier_serving.database import DATABASE_VARIABLE, absolute_url, is_sqlite

STORE_VARIABLE = "ESPALIER_STORE"


class Arguments(BaseModel):
    """What the Serve config says about the application (`args`)."""

    model_config = ConfigDict(extra="forbid")

    gateways: int = Field(default=1, ge=1, le=1_000, description="Gateway replicas; more than one needs Postgres.")


def application(args: dict[str, Any]) -> Any:
    """Returns gateways and Control, bound; SpecError where the environment does not say what they serve.

    Takes the fields of `Arguments`. Ray reads annotations as they stand, so a model in their place would not be made.
    """
    try:
        options = Arguments.model_validate(args)
    except ValidationError as error:
        raise SpecError(error.errors()[0]["msg"], field="args", given=str(args)) from None
    database, store = _required(DATABASE_VARIABLE), _required(STORE_VARIABLE)
    if is_sqlite(database) and options.gateways > 1:
        raise SpecError(
            "SQLite allows one gateway", field="args.gateways", given=options.gateways, remedy="use Postgres"
        )
    return static_application(database=absolute_url(database), store=store, gateways=options.gateways)


def _required(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise SpecError(f"the variable {variable} is not set", field=variable, remedy="set it in the pods of Ray")
    return value
