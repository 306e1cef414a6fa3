"""What Google's XML API is to a client, on loopback: the S3 server of `object_store`, behind a
process that puts the one's words into the other's. It is no server of Google's: it shows that URLs,
credentials and conditions go the way that they do there, and that of two who make a file one is
refused.

The emulators that there are do not speak that API as far as a lake needs it: fake-gcs-server and
gcp-storage-emulator refuse the first PUT, and Google's own testbench knows conditions, but no
lists, no deleting and no parts there. Lists, parts, tags and errors are the same in both APIs:
https://docs.cloud.google.com/storage/docs/interoperability
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import object_store
from tests.object_store_gate import PASSING_ON

_WORDS = """
from urllib.parse import quote, unquote

# Who has none may not read; nobody looks at what is signed.
SIGNED = ("AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, "
          "SignedHeaders=host, Signature=0")

class Words(PassingOn):
    def pass_on(self):
        body, headers = self.body(), {"authorization": SIGNED}
        for name, value in self.headers.items():
            name = name.lower()
            if name == "x-goog-if-generation-match":
                # There is none yet; other conditions nobody here has.
                if value != "0":
                    return self.answer(501, {}, b"")
                headers["if-none-match"] = "*"
            elif name == "x-goog-copy-source":
                headers["x-amz-copy-source"] = value
            elif name not in ("host", "transfer-encoding", "authorization"):
                headers[name] = value
        # The client writes all signs of a path as numbers, those of a bucket's name too.
        path, mark, asked = self.path.partition("?")
        self.ask(sys.argv[1] + quote(unquote(path)) + mark + asked, headers, body)

serve(Words)
"""


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """What a process is given to reach it, while it runs; its key is a file in a folder."""
    line = [sys.executable, "-c", PASSING_ON + _WORDS, object_store.address()]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        key = folder / "key.json"
        account = {
            "gcs_base_url": f"http://127.0.0.1:{port}",
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        key.write_text(json.dumps(account))
        try:
            yield {"GOOGLE_SERVICE_ACCOUNT": str(key), "ALLOW_HTTP": "true"}
        finally:
            process.kill()
