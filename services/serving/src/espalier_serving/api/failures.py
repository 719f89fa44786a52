"""Errors as clients read them: `{"error": {message, type, param, code, request_id}}` with the right status."""

from __future__ import annotations

import json
import logging
from typing import Any

from espalier_sdk.errors import DataError, EspalierError, Refused, SpecError
from fastapi import FastAPI, Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from espalier_serving.refusals import NOT_FOUND, STALE_REVISION

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    412: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
_CODES = {404: "route_not_found", 405: "method_not_allowed"}

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """An error with the status that it is answered with."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or {}


def install(app: FastAPI) -> None:
    """Lets an application answer all errors in the one shape."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(EspalierError, _on_espalier_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(SQLAlchemyError, _on_database_error)
    app.add_exception_handler(Exception, _on_other_error)


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns a JSON answer; raises ValueError for a number that JSON has not."""
    content = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(errors="replace")
    return Response(content, status, headers, "application/json")


def error_response(request: Request, error: ApiError) -> Response:
    """Returns an error as clients read it."""
    body = {
        "message": error.message,
        "type": _TYPES.get(error.status, "server_error"),
        "param": error.param,
        "code": error.code,
        "request_id": request.scope.get("espalier_request_id"),
    }
    return json_response({"error": body}, status=error.status, headers=error.headers)


def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(request, error)


def _on_espalier_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EspalierError)
    problem = error.problems[0]
    parts = (problem.message, f"accepted: {problem.accepted}" if problem.accepted else None, problem.remedy)
    message = "; ".join(part for part in parts if part)
    return error_response(request, ApiError(_status(error), message, code=problem.code, param=problem.field))


def _status(error: EspalierError) -> int:
    if isinstance(error, Refused):
        return {NOT_FOUND: 404, STALE_REVISION: 412}.get(error.problems[0].code, 409)
    return 400 if isinstance(error, SpecError | DataError) else 500


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "http_error")
    headers = dict(error.headers or {})
    return error_response(request, ApiError(error.status_code, str(error.detail), code=code, headers=headers))


def _on_database_error(request: Request, error: Exception) -> Response:
    logger.warning("the database did not answer: %s", error)
    away = ApiError(503, "the database does not answer", code="database_unavailable", headers={"retry-after": "1"})
    return error_response(request, away)


def _on_other_error(request: Request, error: Exception) -> Response:
    return error_response(request, ApiError(500, "an error of the server; its log has more", code="internal"))
