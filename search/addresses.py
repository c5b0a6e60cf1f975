"""Addresses stand in study files and messages, so they must be fit to be seen."""

import re
from urllib.parse import parse_qsl, urlsplit

from search.errors import ConfigurationError

_SECRET = re.compile(r"key|secret|token|passw|credential|\bsig", re.IGNORECASE)
_NAMES_A_USER = ("s3", "gs", "gcs", "http", "https")  # whose user is half of the credentials
_MLFLOW = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
_WHERE_SECRETS_GO = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials",
    "gs": "the file that GOOGLE_APPLICATION_CREDENTIALS names",
    "http": _MLFLOW,
    "https": _MLFLOW,
    "postgresql": "PGPASSWORD or ~/.pgpass",
}


def check_no_secrets(setting: str, address: str) -> None:
    """Refuse an address with credentials in it.

    Raises:
        ConfigurationError: which does not repeat it.
    """
    parts = urlsplit(address)
    scheme = parts.scheme.lower()
    named = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if _SECRET.search(name)}
    user = parts.username if scheme in _NAMES_A_USER and parts.username != "anonymous" else None
    if user is not None or parts.password is not None:
        named.add("what stands before the @")
    if named:
        place = _WHERE_SECRETS_GO.get(scheme.replace("gcs", "gs"), "where its own tools look for them")
        raise ConfigurationError(
            f"{setting}: must hold no credentials, because study.yaml and messages show it, but {scheme}:// "
            f"came with {', '.join(sorted(named))}; take that out, and put credentials into {place}"
        )


def without_users(sentence: str) -> str:
    """A sentence without what stands before the @ of an address, which may be a password."""
    return re.sub(r"//[^/@\s]*@", "//", sentence)
