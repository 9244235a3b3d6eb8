"""What a client is told when its request fails: an HTTP status, a code for programs, a text for people."""

from pixelclip_sdk.errors import ImageError, ModelNotFoundError, PixelClipError, VocabularyError

__all__ = ["ServeError", "from_exception"]

STATUS_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    422: "unusable",
    429: "too_many_requests",
    431: "too_large",
    500: "internal",
    503: "overloaded",
}
"""HTTP status → the code in the body of the answer."""


class ServeError(Exception):
    """An answer that is not a result.

    Args:
        status: HTTP status, a key of `STATUS_CODES`.
        message: What came, what was expected and what to do. It holds nothing of the server's machine.
        retry_after_s: When it makes sense to ask again, in seconds.
    """

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = STATUS_CODES[status]
        self.message = message
        self.retry_after_s = retry_after_s

    def body(self, request_id: str) -> dict[str, object]:
        """The answer's JSON."""
        return {"error": {"code": self.code, "message": self.message, "request_id": request_id}}


def from_exception(error: Exception) -> ServeError:
    """Return what a client is told about an exception.

    Messages of errors that a client causes are shown. Others may hold paths, and only go to the log.
    """
    if isinstance(error, ServeError):
        return error
    if isinstance(error, ImageError | VocabularyError):
        return ServeError(422, str(error))
    if isinstance(error, ModelNotFoundError):
        return ServeError(404, "there is no such model; GET /v1/models lists them")
    if type(error) is PixelClipError:  # A setting of the request, such as a threshold.
        return ServeError(422, str(error))
    return ServeError(500, "the server failed; its log has the request id")
