"""Which rights the S3 requests of this process need, read from the requests themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from aiobotocore.httpsession import AIOHTTPSession


@dataclass(frozen=True)
class Need:
    """One right: an action on a key (empty: the bucket), with the condition keys of the request."""

    action: str
    key: str
    context: dict[str, str] = field(default_factory=dict, hash=False)


@contextmanager
def recorded(monkeypatch) -> Iterator[list[Need]]:
    """Collect the rights that all S3 requests need while this is open."""
    needs: list[Need] = []
    send = AIOHTTPSession.send

    async def recording(self, request):
        body = request.body if isinstance(request.body, bytes) else b""
        mine = needs_of(request.method, request.url, request.headers, body)
        response = await send(self, request)
        if response.status_code == 404:
            # S3 tells a missing key from a forbidden one only to those who may list it: 404, else 403.
            mine += [Need("s3:ListBucket", "", {"prefix": need.key}) for need in mine if need.key]
        needs.extend(mine)
        return response

    with monkeypatch.context() as patch:
        patch.setattr(AIOHTTPSession, "send", recording)
        yield needs


def needs_of(method: str, url: str, headers: dict, body: bytes) -> list[Need]:
    """Rights one request with path-style addressing needs.

    Raises
    ------
    NotImplementedError
        For a request the policy was not written for.
    """
    parts = urlsplit(url)
    key = unquote(parts.path).lstrip("/").partition("/")[2]
    query = parse_qs(parts.query, keep_blank_values=True)
    fields = {name.lower(): _text(value) for name, value in headers.items()}
    if not key and method == "GET" and "list-type" in query:
        return [Need("s3:ListBucket", "", {"prefix": query.get("prefix", [""])[0]})]
    if not key and method == "GET" and "uploads" in query:
        return [Need("s3:ListBucketMultipartUploads", "")]
    if not key and method == "POST" and "delete" in query:
        return [
            Need("s3:DeleteObject", _text(k.text)) for k in ElementTree.fromstring(body).iter(f"{_S3}Key")
        ]
    if key and method in ("GET", "HEAD") and not query.keys() - {"versionId", "partNumber"}:
        return [Need("s3:GetObject", key)]
    if key and method == "DELETE":
        return [Need("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", key)]
    if key and method in ("PUT", "POST") and not query.keys() - {"uploads", "uploadId", "partNumber"}:
        makes_object = not ("uploads" in query or "partNumber" in query)
        context = {"ObjectCreationOperation": str(makes_object).lower()}
        context |= {"if_none_match": fields["if-none-match"]} if "if-none-match" in fields else {}
        source = re.sub(r"^/?[^/]+/", "", unquote(fields.get("x-amz-copy-source", "")))
        return [Need("s3:PutObject", key, context), *([Need("s3:GetObject", source)] if source else [])]
    raise NotImplementedError(f"{method} {url}")


_S3 = "{http://s3.amazonaws.com/doc/2006-03-01/}"


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
