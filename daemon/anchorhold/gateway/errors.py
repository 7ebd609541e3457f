"""Errors as HTTP answers, in OpenAI's shape (OpenAI API reference, "Errors").

Constraint: no text of a request is repeated in one, but names of keys and short values that were checked.
"""

from __future__ import annotations

from typing import Any

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "request_too_large",
}


class ApiError(Exception):
    """An answer that is an error. retry_after: whole seconds for the header, or None."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        close: bool = False,
    ) -> None:
        """close: the connection is of no more use, because the rest of the request was not read."""
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after, self.close = retry_after, close
        self.headers = headers

    @property
    def type(self) -> str:
        return TYPES.get(self.status, "server_error")

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def all_headers(self) -> list[tuple[str, str]]:
        found = list(self.headers)
        if self.retry_after is not None:
            found.append(("retry-after", str(self.retry_after)))
        if self.close:
            found.append(("connection", "close"))
        return found


class Gone(Exception):
    """The client has left: there is nobody to answer."""


def unsupported(param: str, why: str) -> ApiError:
    """For what is part of the API elsewhere and would change the answer: refused, never ignored."""
    return ApiError(400, f"{param}: {why}", code="unsupported_parameter", param=param)


def invalid(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param}: {why}", code="invalid_value", param=param)
