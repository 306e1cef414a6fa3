"""A small OpenID Connect provider on loopback: discovery, a code with PKCE, token, keys, end of
session.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwk, jwt

CLIENT, SECRET = "topbill", "between-the-two"

_BASIC = f"Basic {base64.b64encode(f'{CLIENT}:{SECRET}'.encode()).decode()}"


class Provider:
    """Signs in whoever `who` says (the claims of the ID token), without asking. `ended` counts
    ended sessions.
    """

    def __init__(self) -> None:
        self.who: dict[str, Any] = {}
        self.ended = 0
        self._key = jwk.RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
        self._asked: dict[str, dict[str, str]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, query = (
                    urlsplit(self.path).path,
                    {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()},
                )
                target = provider.redirect(path, query)
                if target:
                    self.send_response(302)
                    self.send_header("Location", target)
                    self.end_headers()
                else:
                    self._answer(provider.document(path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                given = {k: v[0] for k, v in parse_qs(body).items()}
                self._answer(provider.token(given, self.headers.get("Authorization", "")))

            def log_message(self, *_: object) -> None:
                pass

            def _answer(self, document: dict[str, Any] | None) -> None:
                body = json.dumps(document or {"error": "invalid_request"}).encode()
                self.send_response(200 if document else 400)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def document(self, path: str) -> dict[str, Any] | None:
        """What discovery and the key set say; None for any other path."""
        if path == "/keys":
            return {"keys": [self._key.as_dict(private=False)]}
        if path != "/.well-known/openid-configuration":
            return None
        return {
            "issuer": self.address,
            "authorization_endpoint": f"{self.address}/authorize",
            "token_endpoint": f"{self.address}/token",
            "jwks_uri": f"{self.address}/keys",
            "end_session_endpoint": f"{self.address}/end",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }

    def redirect(self, path: str, query: dict[str, str]) -> str | None:
        """Where the browser goes next: back with a code, or back after the end of the session."""
        if path == "/end":
            self.ended += 1
            return query["post_logout_redirect_uri"]
        if path != "/authorize" or query["client_id"] != CLIENT or query["response_type"] != "code":
            return None
        code = secrets.token_urlsafe(16)
        self._asked[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, given: dict[str, str], authorization: str) -> dict[str, Any] | None:
        """The signed ID token, for a code that was asked for, with the client's secret and the
        challenge's answer.
        """
        asked = self._asked.pop(given.get("code", ""), None)
        known = given.get("client_secret") == SECRET or authorization == _BASIC
        digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if asked is None or not known or challenge != asked["code_challenge"]:
            return None
        now = int(time.time())
        claims = {
            "iss": self.address,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.who,
        }
        token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self._key)
        return {
            "access_token": secrets.token_urlsafe(8),
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": token,
        }
