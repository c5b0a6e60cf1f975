"""Buckets: how an address names one, how long one is waited for, and what their errors mean.

Measured with pyarrow 26 and a server that fails on purpose, 2026-11-25; docs/storage.md has the figures.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from search.answers import answer_of
from search.errors import ConfigurationError

REQUEST_SECONDS = 10.0  # of silence; pyarrow says that Linux ignores it, but it does not. Each request is tried 3 times
CONNECT_SECONDS = 5.0
PART = 10 << 20  # bytes; pyarrow's part of an upload
_GCS_SECONDS = 30  # else a quarter of an hour
_REGION_SECONDS = 20.0
_OPTIONS = ("endpoint_override", "force_virtual_addressing", "region", "scheme", "tls_ca_file_path")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # environment, as the aws command has them


@dataclass(frozen=True)
class Bucket:
    """A folder in a bucket.

    Attributes:
        filesystem: Opens a file without a request, so that a small one is a single PUT.
        in_parts: The same for files of many parts. It asks first: an upload that could not begin must not be taken for
            one of an empty file, as `filesystem` takes it.
        folder: The bucket's name and the path in it.
        name: As a person calls it; without options.
        endpoint: Who is asked.
    """

    filesystem: Any
    in_parts: Any
    folder: str
    name: str
    endpoint: str


def open_s3(address: str, environment: Mapping[str, str] = os.environ) -> Bucket:
    """The bucket that an address `s3://bucket/folder?option=value` names; asks nobody but, at AWS, for its region.

    Raises:
        ConfigurationError: when it names none.
    """
    from pyarrow.fs import S3FileSystem

    parts = urlsplit(address)
    options: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    problems = [
        f"storage_copy: the options of s3:// are {', '.join(_OPTIONS)}, but got {name!r}"
        for name in sorted(set(options) - set(_OPTIONS))
    ]
    if not parts.netloc:
        problems.append(f"storage_copy: must name a bucket, s3://bucket/folder, but got {address!r}")
    if problems:
        raise ConfigurationError(problems)
    endpoint = options.get("endpoint_override") or next(
        (environment[name] for name in _ENDPOINTS if environment.get(name)), ""
    )
    if "://" in endpoint:
        options["scheme"], _, endpoint = endpoint.partition("://")
    options["endpoint_override"] = endpoint = endpoint.rstrip("/")
    options["force_virtual_addressing"] = options.get("force_virtual_addressing", "").lower() in ("1", "true", "yes")
    if not options.get("region"):
        options["region"] = None if endpoint else _region_of(parts.netloc)
    options |= {"request_timeout": REQUEST_SECONDS, "connect_timeout": CONNECT_SECONDS}
    return Bucket(
        S3FileSystem(**options, allow_delayed_open=True),
        S3FileSystem(**options),
        f"{parts.netloc}{unquote(parts.path)}".rstrip("/"),
        f"s3://{parts.netloc}{parts.path}".rstrip("/"),
        endpoint or "AWS",
    )


def _region_of(bucket: str) -> str | None:
    """Of a bucket at AWS; None when it can't be known now, and the environment may say it."""
    from pyarrow.fs import resolve_s3_region

    try:
        return str(answer_of(lambda: resolve_s3_region(bucket), _REGION_SECONDS))
    except OSError:
        return None


def patient_uri(address: str) -> str:
    """The address of any other store, with an end to its client's patience where it has an option for that."""
    if urlsplit(address).scheme.lower() in ("gs", "gcs") and "retry_limit_seconds" not in address:
        return f"{address}{'&' if '?' in address else '?'}retry_limit_seconds={_GCS_SECONDS}"
    return address


def sentence(error: Exception, bucket: Bucket) -> str:
    """What a client's error means, and what to do about it."""
    text = str(error)
    where, name = _where(bucket), bucket.folder.partition("/")[0]
    hit = re.search(r"AWS Error (?P<code>\w+)(?: \(HTTP status (?P<status>\d+)\))? during (?P<operation>\w+)", text)
    code, operation = (hit["code"], hit["operation"]) if hit else ("", "")
    match code:
        case "NO_SUCH_BUCKET":
            return no_such_bucket(bucket)
        case "NETWORK_CONNECTION" | "REQUEST_TIMEOUT":
            cause = re.sub(r"^.*?curlCode: \d+, ", "", text).partition("; Details")[0]
            return f"{bucket.endpoint} does not answer ({cause})"
        case (
            "ACCESS_DENIED"
            | "SIGNATURE_DOES_NOT_MATCH"
            | "INVALID_ACCESS_KEY_ID"
            | "EXPIRED_TOKEN"
            | ("INVALID_SIGNATURE" | "UNRECOGNIZED_CLIENT" | "MISSING_AUTHENTICATION_TOKEN" | "INVALID_CLIENT_TOKEN_ID")
        ):
            return (
                f"the credentials were refused for {name!r}{where} ({code} in {operation}); AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or the profile in ~/.aws, must be allowed to list, read, write and delete there"
            )
        case "":
            return text
    if hit and (hit["status"] == "301" or "region" in text.lower()):
        return f"the bucket {name!r} is of another region; add ?region=NAME to storage_copy"
    what = f"{code} {hit['status'] or ''}".strip() if hit else code
    return f"{bucket.endpoint} answered {what} to {operation}: {text.rpartition(' operation: ')[2][:200]}"


def no_such_bucket(bucket: Bucket) -> str:
    """What to say where the endpoint knows no bucket of this name."""
    return f"there is no bucket {bucket.folder.partition('/')[0]!r}{_where(bucket)}; make it, or correct storage_copy"


def _where(bucket: Bucket) -> str:
    return "" if bucket.endpoint == "AWS" else f" at {bucket.endpoint}"
