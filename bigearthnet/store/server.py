"""Get objects from an S3 or HTTP server that may fail, stall or break off, with patience that has an end.

Every request is a plain HTTP GET: for S3, botocore finds the credentials and signs its URL. So one loop serves both,
with Retry-After, and with servers that give no ETag or no length.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import IO, Any, Final

from bigearthnet.errors import MissingPackageError, OptionError, RemoteError, StoreError
from bigearthnet.machine import advise_install
from bigearthnet.store.shard import DamagedError

_CONNECT_S: Final = 10

_PIECE_BYTES: Final = 2**18

_MAX_BYTES: Final = 2**28
"""Of an object whose size is not known beforehand: the manifest, 1 MB for all of BigEarthNet."""

_RETRIED: Final = {408, 416, 429, 500, 502, 503, 504}
"""Answers of a server that may soon give a better one; 416 is that to a range of an object that was replaced."""

_REFUSED: Final = {400, 401, 403}

_BACKOFF: Final[dict[str, Any]] = {
    "backoff_factor": 0.1,
    "backoff_max": 15,
    "backoff_jitter": 0.5,
    "retry_after_max": 60,
}
"""Seconds between attempts: 0, then doubled up to 15, or what the server asks for."""

_HTTP_OPTIONS: Final = ("auth", "cert", "headers", "proxies", "verify")


class MissingError(FileNotFoundError):
    """The server has no such object."""


class Server:
    """Objects below a URL. Safe to use from several threads.

    Args:
        url: Such as `s3://bucket/store` or `https://host/store`.
        options: For S3, arguments of botocore's client, also `profile` and `anonymous`; for HTTP, attributes of a
            session of requests.
        stall_s: A connection that brings no byte for so long is given up for another.

    Raises:
        MissingPackageError: An optional package is not installed.
        OptionError: An option is unknown.
        StoreError: No such kind of URL is known.
    """

    def __init__(self, url: str, options: Mapping[str, Any], stall_s: float) -> None:
        self._url, self._stall_s = url, stall_s
        try:
            import requests  # noqa: PLC0415 - optional, as is botocore
            import urllib3  # noqa: PLC0415

            self._errors = (requests.RequestException, urllib3.exceptions.HTTPError)
            self._http_error, self._retry = requests.HTTPError, urllib3.Retry(None, **_BACKOFF)
            self._session = requests.Session()
            if url.startswith("s3://"):
                self._locate = _sign_urls(url, options)
            elif url.startswith(("http://", "https://")):
                self._locate = lambda key: f"{self._url}/{key}"
                self._set_options(options)
            else:
                raise StoreError(f"{url}: expected a folder, or a URL with s3://, http:// or https://")
        except ImportError as error:
            raise MissingPackageError(f"{url}: {error}; {advise_install('remote')}") from error

    def _set_options(self, options: Mapping[str, Any]) -> None:
        if unknown := options.keys() - set(_HTTP_OPTIONS):
            raise OptionError(
                f"storage_options of HTTP are {', '.join(_HTTP_OPTIONS)}, not {', '.join(sorted(unknown))}"
            )
        for name, value in options.items():
            if name == "headers":
                self._session.headers.update(value)
            else:
                setattr(self._session, name, value)

    def fetch(self, key: str, file: IO[bytes], n_bytes: int | None, patience_s: float) -> None:
        """Write an object to an empty file, and go on where a connection broke off.

        Args:
            key: The object's path below the URL.
            file: Where it goes.
            n_bytes: What it must have; None if that is not known.
            patience_s: When to give up, whatever the server does.

        Raises:
            DamagedError: The server sends more than that.
            MissingError: There is no such object.
            RemoteError: The server refuses, or does not answer in time.
        """
        end, retry = time.monotonic() + patience_s, self._retry
        while True:
            try:
                self._receive(key, file, n_bytes, end)
            except self._errors as error:
                response = getattr(error, "response", None)
                if isinstance(error, ValueError) or (response is not None and response.status_code not in _RETRIED):
                    raise self._refuse(key, error) from error
                retry = retry.increment("GET", key)
                pause = retry.get_backoff_time()
                with suppress(*self._errors):  # a Retry-After that is none
                    pause = (response is not None and retry.get_retry_after(response)) or pause
                if time.monotonic() + pause > end:
                    raise RemoteError(
                        f"{self._url}/{key}: cannot be fetched: gave up after {len(retry.history):,} attempts in "
                        f"{patience_s:g} s ({_describe(error)}); see whether server and network work"
                    ) from error
                time.sleep(pause)
            else:
                return

    def _receive(self, key: str, file: IO[bytes], n_bytes: int | None, end: float) -> None:
        headers = {"Accept-Encoding": "identity"}
        if start := file.tell():
            headers["Range"] = f"bytes={start}-"
        with self._session.get(
            self._locate(key), headers=headers, stream=True, timeout=(_CONNECT_S, self._stall_s)
        ) as response:
            if response.status_code in (200, 416):  # there are servers without ranges
                file.seek(0)
                file.truncate()
            if response.status_code not in (200, 206):
                raise self._http_error(response.raw.read(4096), response=response)
            limit = _MAX_BYTES if n_bytes is None else n_bytes
            while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
                file.write(piece)
                if file.tell() > limit:
                    raise DamagedError(f"expected {'at most ' if n_bytes is None else ''}{limit:,} bytes, found more")
                if time.monotonic() > end:
                    raise self._http_error("too slow")

    def _refuse(self, key: str, error: Exception) -> Exception:
        response = getattr(error, "response", None)
        if response is not None and response.status_code in (404, 410):
            return MissingError(errno.ENOENT, "missing on the server", f"{self._url}/{key}")
        advice = "see whether the URL is right"
        if response is not None and response.status_code in _REFUSED:
            advice = "the credentials, or others of the storage_options, are wrong, expired or missing"
        return RemoteError(f"{self._url}/{key}: cannot be fetched ({_describe(error)}); {advice}")


def _sign_urls(url: str, options: Mapping[str, Any]) -> Callable[[str], str]:
    """Return what makes the URL of an object of S3."""
    import botocore  # noqa: PLC0415
    import botocore.session  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    bucket, _, root = url.removeprefix("s3://").partition("/")
    arguments = dict(options)
    session = botocore.session.Session(profile=arguments.pop("profile", None))
    version = botocore.UNSIGNED if arguments.pop("anonymous", False) else "s3v4"
    try:
        client = session.create_client("s3", **{"config": Config(signature_version=version), **arguments})
    except (TypeError, ValueError, botocore.exceptions.BotoCoreError) as error:
        raise OptionError(f"{url}: storage_options: {error}") from error

    def sign(key: str) -> str:
        try:
            signed: str = client.generate_presigned_url(
                "get_object", {"Bucket": bucket, "Key": f"{root}/{key}".lstrip("/")}
            )
        except botocore.exceptions.BotoCoreError as error:
            raise RemoteError(
                f"{url}: {error}; give credentials, a profile or anonymous=True in storage_options"
            ) from error
        return signed

    return sign


def _describe(error: Exception) -> str:
    """Say what went wrong in words of our own: the messages of requests have signed URLs in them."""
    response = getattr(error, "response", None)
    if response is not None:
        code = re.search(rb"<Code>(\w+)</Code>", error.args[0]) if isinstance(error.args[0], bytes) else None
        status = response.status_code
        with suppress(ValueError):
            status = f"{status} {HTTPStatus(status).phrase}"
        return f"{status}{f', {code[1].decode()}' if code else ''}"
    innermost: BaseException = error
    while innermost.__context__ is not None:
        innermost = innermost.__context__
    return repr(innermost)[:200]  # what a server sent must not reach a terminal as it is
