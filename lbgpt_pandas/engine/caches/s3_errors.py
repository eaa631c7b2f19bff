"""What an S3 store says when it refuses, and what to do about it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.errors import MissingExtraError
from lbgpt_pandas.engine.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL_LINE = "pip install 'lbgpt-pandas[s3]'"

EXISTS_STATUS = 412

_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_UNKNOWN = frozenset({"NotImplemented", "MethodNotAllowed", "MissingContentMD5", "501", "405"})
_KEY_REFUSED = "give the client another access key, or correct its secret"
_REMEDIES = {
    "AccessDenied": "let the user do s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket "
    "on this bucket",
    "AllAccessDisabled": "ask the owner of the bucket",
    "NoSuchBucket": "make the bucket, or give another one",
    "PermanentRedirect": "give the client the region of the bucket",
    "AuthorizationHeaderMalformed": "give the client the region of the bucket",
    "InvalidAccessKeyId": _KEY_REFUSED,
    "SignatureDoesNotMatch": _KEY_REFUSED,
    "ExpiredToken": "log in again, and give a client with the new token",
    "RequestTimeTooSkewed": "set the clock of this machine",
    "403": "see that the key is valid and may read and write this bucket",
}
_REFUSED = frozenset({401, 403})
_LONGEST_REASON = 200


@contextmanager
def explained(operation: str, bucket: str) -> Iterator[None]:
    """Raise what botocore raises in our words, as a kind of OSError.

    Raises
    ------
    FileNotFoundError, PermissionError, ConnectionError, OSError
        With bucket, operation, code and what to do; without the cause, which may quote headers.
    MissingExtraError
        If boto3 is not installed.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except ImportError as error:
        raise MissingExtraError(
            f"S3Cache needs boto3, which cannot be imported ({error}): {INSTALL_LINE}"
        ) from error
    except Exception as error:
        if not type(error).__module__.startswith(("botocore.", "boto3.")):
            raise
        raise _in_our_words(error, f"{operation} in the S3 bucket {bucket!r}") from None


def status_of(error: Exception) -> int | None:
    """Return the HTTP status of a refusal; None of other errors."""
    status = _answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def is_missing(error: Exception) -> bool:
    """Return whether the store says that there is no such object."""
    return _code(error) in _MISSING


def is_unknown_feature(error: Exception) -> bool:
    """Return whether the store, or an old boto3, does not know what it was asked."""
    is_old = type(error).__name__ == "ParamValidationError" and "Unknown parameter" in str(error)
    return is_old or _code(error) in _UNKNOWN or status_of(error) in {501, 405}


def _in_our_words(error: Exception, what: str) -> OSError:
    code = _code(error)
    if not code:
        name, reason = type(error).__name__, redact(str(error))[:_LONGEST_REASON]
        if "Credential" in name:
            return PermissionError(
                f"{what}: the client has no credentials ({reason}); set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or a profile"
            )
        if "Timeout" in name:
            return TimeoutError(f"{what}: the store did not answer in time: {reason}")
        return ConnectionError(f"{what}: the store cannot be reached: {reason}")
    message = _answer(error).get("Error", {}).get("Message", "")
    remedy = _REMEDIES.get(code, "")
    text = f"{what} was refused with {code}: {redact(str(message))[:_LONGEST_REASON]}"
    text = f"{text}; {remedy}" if remedy else text
    if code == "NoSuchBucket":
        return FileNotFoundError(text)
    return PermissionError(text) if status_of(error) in _REFUSED else OSError(text)


def _code(error: Exception) -> str:
    return str(_answer(error).get("Error", {}).get("Code", ""))


def _answer(error: Exception) -> dict[str, dict[str, object]]:
    answer = getattr(error, "response", None)
    return answer if isinstance(answer, dict) else {}
