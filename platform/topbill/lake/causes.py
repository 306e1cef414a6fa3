"""What errors of the libraries of tables and object stores come from, in words that help."""

from __future__ import annotations

import re

_CAUSES = (
    (
        r"Out of Memory Error",
        "the question takes more memory than it may; expected more in TOPBILL_ENGINE_MEMORY, or "
        "room for temporary files in TMPDIR",
    ),
    (
        r"StorageFull|InsufficientStorage|507 Insufficient|QuotaExceeded|QuotaReached",
        "the store is full; expected room: delete what is not needed, or have its quota raised",
    ),
    (
        r"NoSuchBucket|ContainerNotFound|bucket does not exist|\"notFound\"",
        "there is no such bucket; expected one that exists: make it, or say another URL",
    ),
    (
        r"ExpiredToken|TokenExpired|RequestExpired|token .*expired|InvalidToken",
        "the credentials have expired; expected new ones in the environment",
    ),
    (
        r"InvalidAccessKeyId|SignatureDoesNotMatch|AuthenticationFailed|invalid_grant|"
        r"401 Unauthorized|UnauthenticatedError",
        "the store does not know these credentials; expected those of its owner in the environment",
    ),
    (
        # Where the environment has none, they ask the machine's own cloud, which is not there.
        r"169\.254\.169\.254|169\.254\.170\.2|metadata\.google|metadata\.azure|"
        r"MissingCredentials|CredentialsNotLoaded|InstanceCredential|"
        r"Account must be specified|MissingAccount",
        "there are no credentials; expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "GOOGLE_APPLICATION_CREDENTIALS, or AZURE_STORAGE_ACCOUNT_NAME and its key in the "
        "environment, or a role of this machine",
    ),
    (
        r"AccessDenied|AllAccessDisabled|AuthorizationPermissionMismatch|403 Forbidden|"
        r"PermissionDeniedError",
        "the credentials do not give the right to; expected rights to list, read, write and delete",
    ),
    (
        r"BadScheme",
        "its address is http://, without TLS; set AWS_ALLOW_HTTP=true where that is meant",
    ),
    (
        r"tcp connect error|error sending request|dns error|Connection refused|timed? ?out",
        "cannot be reached; expected the store's address in AWS_ENDPOINT_URL, or a network that "
        "leads there",
    ),
)
"""What the libraries' messages, of many lines, come from, and what to do about it."""


_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?: .*\n)*[\w.]+: ")


def without_traceback(text: str) -> str:
    """DuckDB's message, without Python's own lines of where a store's library raised it."""
    return _TRACEBACK.sub("", text)


def cause(error: BaseException) -> str:
    """What an error of a library comes from, in one sentence."""
    text = without_traceback(str(error))
    for pattern, sentence in _CAUSES:
        if re.search(pattern, text):
            return sentence
    # DeltaErrors draw trees in colours.
    plain = re.sub(r"\x1b\[\d+m", "", text).split("Debug source:")[0]
    return " ".join(plain.replace("↳", " ").split())
