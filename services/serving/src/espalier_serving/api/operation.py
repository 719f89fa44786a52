"""Routes for those who operate: endpoints, variants, experiments and assignments. Writes carry `If-Match`."""

from __future__ import annotations

from typing import Any

from espalier_sdk.artifacts import ArtifactRef
from fastapi import APIRouter, Request
from pydantic import Field, StrictFloat, StrictInt, StrictStr
from sqlalchemy.orm import Session
from starlette.responses import Response

from espalier_serving import endpoints as rows
from espalier_serving import experiments as trials
from espalier_serving.api.bodies import RequestBody, authorize, body_of, core_of
from espalier_serving.api.failures import ApiError, json_response
from espalier_serving.api.inference import endpoint_routing
from espalier_serving.assignment import UnitKind
from espalier_serving.deciding import decide
from espalier_serving.results import results_of
from espalier_serving.tables import Experiment

router = APIRouter()


class EndpointBody(RequestBody):
    """An endpoint as it shall be."""

    task: StrictStr = Field(min_length=1, max_length=64)
    limits: dict[str, Any] = Field(default_factory=dict)


class VariantBody(RequestBody):
    """A model that is proposed as a variant."""

    name: StrictStr
    model: StrictStr
    engine: StrictStr | dict[str, Any] = "transformers"
    config: dict[str, Any] = Field(default_factory=dict)
    bootstrap: bool = False


class ExperimentBody(RequestBody):
    """An experiment of the champion against one of the other variants."""

    endpoint: StrictStr
    treatment: StrictStr
    weights: tuple[StrictInt, ...] = (50, 50)
    coverage: StrictFloat | StrictInt = 1.0
    unit: StrictStr = "user"
    rule: dict[str, Any] = Field(default_factory=dict)


@router.get("/v1/endpoints")
async def list_endpoints(request: Request) -> Response:
    """Lists all endpoints with their variants."""
    await authorize(request, "operate")

    def work(session: Session) -> list[dict[str, Any]]:
        return [rows.describe_endpoint(session, row) for row in rows.list_endpoints(session)]

    return json_response({"data": await core_of(request).read(work)})


@router.get("/v1/endpoints/{name}")
async def get_endpoint(request: Request, name: str) -> Response:
    """Returns an endpoint with its variants; `etag` is its revision."""
    await authorize(request, "operate")
    found = await core_of(request).read(
        lambda session: rows.describe_endpoint(session, rows.get_endpoint(session, name))
    )
    return _tagged(found, found["revision"])


@router.put("/v1/endpoints/{name}")
async def put_endpoint(request: Request, name: str) -> Response:
    """Creates an endpoint or changes its limits."""
    key = await authorize(request, "operate")
    body = await body_of(request, EndpointBody)

    def work(session: Session) -> dict[str, Any]:
        row = rows.put_endpoint(
            session, name, task=body.task, limits=body.limits, if_match=_if_match(request), actor=key.id
        )
        return rows.describe_endpoint(session, row)

    found = await core_of(request).write(work)
    return _tagged(found, found["revision"])


@router.post("/v1/endpoints/{name}/variants")
async def propose_variant(request: Request, name: str) -> Response:
    """Proposes a model as a variant; it is ready some seconds later."""
    key = await authorize(request, "operate")
    body = await body_of(request, VariantBody)
    try:
        model = ArtifactRef.parse(body.model)
    except ValueError as error:
        raise ApiError(400, str(error), code="invalid_field", param="model") from None

    def work(session: Session) -> dict[str, Any]:
        endpoint = rows.lock_endpoint(session, name)
        rows.check_revision(endpoint, _if_match(request), required=False)
        variant, changed = rows.add_variant(
            session, endpoint, name=body.name, model=model, engine=body.engine, config=body.config, actor=key.id
        )
        if body.bootstrap:
            changed = rows.make_first_champion(session, endpoint, variant, actor=key.id) or changed
        return {**rows.describe_variant(variant), "changed": changed, "revision": endpoint.revision}

    found = await core_of(request).write(work)
    return _tagged(found, found["revision"], status=202)


@router.delete("/v1/endpoints/{name}/variants/{variant}")
async def retire_variant(request: Request, name: str, variant: str) -> Response:
    """Retires a variant that is neither champion nor in an experiment."""
    key = await authorize(request, "operate")

    def work(session: Session) -> dict[str, Any]:
        endpoint = rows.lock_endpoint(session, name)
        row = rows.retire_variant(session, endpoint, variant, if_match=_if_match(request), actor=key.id)
        return {**rows.describe_variant(row), "revision": endpoint.revision}

    found = await core_of(request).write(work)
    return _tagged(found, found["revision"])


@router.get("/v1/assignments")
async def assignment(request: Request, model: str = "", unit: str = "") -> Response:
    """Tells which variant a unit would get; records nothing."""
    await authorize(request, "operate")
    if not model or not unit.strip():
        raise ApiError(400, "model and unit are required", code="invalid_field", param="unit" if model else "model")
    core = core_of(request)
    routing, champion = endpoint_routing(core, model)

    def unit_of(kind: UnitKind) -> str | None:
        return unit.strip()

    decision = decide(routing, champion, unit_of=unit_of, unit_key=core.database.unit_key, stale=core.snapshot.stale())
    return json_response(
        {
            "unit": unit,
            "experiment": decision.experiment,
            "variant": routing.name_of(decision.assigned),
            "assignment": decision.reason,
            "revision": routing.revision,
        }
    )


@router.post("/v1/experiments")
async def create_experiment(request: Request) -> Response:
    """Makes a draft of an experiment."""
    key = await authorize(request, "operate")
    body = await body_of(request, ExperimentBody)

    def work(session: Session) -> tuple[dict[str, Any], int]:
        endpoint = rows.lock_endpoint(session, body.endpoint)
        rows.check_revision(endpoint, _if_match(request), required=False)
        row = trials.create_experiment(
            session,
            endpoint,
            treatment=rows.get_variant(session, endpoint.name, body.treatment),
            weights=body.weights,
            coverage=body.coverage,
            unit=body.unit,
            rule=body.rule,
            actor=key.id,
        )
        return trials.describe_experiment(session, row), endpoint.revision

    found, revision = await core_of(request).write(work)
    return _tagged(found, revision, status=201)


@router.get("/v1/experiments")
async def list_experiments(request: Request, endpoint: str | None = None) -> Response:
    """Lists experiments, of one endpoint or of all."""
    await authorize(request, "operate")

    def work(session: Session) -> list[dict[str, Any]]:
        return [trials.describe_experiment(session, row) for row in trials.list_experiments(session, endpoint)]

    return json_response({"data": await core_of(request).read(work)})


@router.get("/v1/experiments/{experiment}")
async def get_experiment(request: Request, experiment: str) -> Response:
    """Returns an experiment; `etag` is the revision of its endpoint."""
    await authorize(request, "operate")

    def work(session: Session) -> tuple[dict[str, Any], int]:
        return _with_revision(session, trials.get_experiment(session, experiment))

    found, revision = await core_of(request).read(work)
    return _tagged(found, revision)


@router.get("/v1/experiments/{experiment}/results")
async def get_results(request: Request, experiment: str) -> Response:
    """Returns counts and means per arm."""
    await authorize(request, "operate")
    found = await core_of(request).read(lambda session: results_of(session, trials.get_experiment(session, experiment)))
    return json_response(found)


@router.post("/v1/experiments/{experiment}/start")
async def start_experiment(request: Request, experiment: str) -> Response:
    """Starts a draft."""
    key = await authorize(request, "operate")

    def work(session: Session) -> tuple[dict[str, Any], int]:
        row = trials.start_experiment(session, experiment, if_match=_if_match(request), actor=key.id)
        return _with_revision(session, row)

    found, revision = await core_of(request).write(work)
    return _tagged(found, revision)


@router.post("/v1/experiments/{experiment}/stop")
async def stop_experiment(request: Request, experiment: str) -> Response:
    """Stops an experiment; the champion stays."""
    key = await authorize(request, "operate")

    def work(session: Session) -> tuple[dict[str, Any], int]:
        row = trials.stop_experiment(session, experiment, if_match=_if_match(request), actor=key.id)
        return _with_revision(session, row)

    found, revision = await core_of(request).write(work)
    return _tagged(found, revision)


def _with_revision(session: Session, row: Experiment) -> tuple[dict[str, Any], int]:
    return trials.describe_experiment(session, row), rows.get_endpoint(session, row.endpoint).revision


def _if_match(request: Request) -> str | None:
    return request.headers.get("if-match")


def _tagged(value: dict[str, Any], revision: int, *, status: int = 200) -> Response:
    return json_response(value, status=status, headers={"etag": f'"{revision}"'})
