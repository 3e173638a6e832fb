"""A Hub on the loopback interface, in memory: enough of its protocol to push and load models."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_CanaryTokenForTheLoopbackHub0000"
_API = re.compile(r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)(?P<rest>/.*)?")
_LFS = re.compile(r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
_RESOLVE = re.compile(r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/[^/]+/(?P<path>.+)")


@dataclass
class Commit:
    """One commit: its hash, message and the whole tree after it."""

    oid: str
    title: str
    files: dict[str, bytes]


@dataclass
class Repo:
    """A repository; its first commit is empty, as on the Hub."""

    private: bool
    commits: list[Commit] = field(default_factory=list)

    def commit(self, title: str, files: dict[str, bytes]) -> Commit:
        number = f"{title}{len(self.commits)}{sorted(files)}"
        found = Commit(hashlib.sha1(number.encode()).hexdigest(), title, files)
        self.commits.append(found)
        return found

    @property
    def head(self) -> Commit:
        return self.commits[-1]


class HubError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class FakeHub:
    """Serve repositories while the context is open.

    Attributes:
        repos: Repositories by kind and id.
        requests: Method and path of every request.
        failures: Status to answer with, by a part of `METHOD path`; `drop` hangs up instead.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.failures: dict[str, int | str] = {}
        hub = self

        class Handler(_Handler):
            def __init__(self, *args: Any) -> None:
                self.hub = hub
                super().__init__(*args)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.server.shutdown()
        self.server.server_close()

    def repo(self, kind: str, name: str) -> Repo:
        """Return a repository or answer 404."""
        if f"{kind}/{name}" not in self.repos:
            raise HubError(404, "Repository not found", "RepoNotFound")
        return self.repos[f"{kind}/{name}"]

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = f"{body.get('organization') or 'user'}/{body['name']}"
        if name.startswith("stranger/"):
            raise HubError(403, "You don't have the rights to create a model under this namespace")
        key = f"{body.get('type', 'model')}s/{name}"
        if key in self.repos:
            raise HubError(409, "You already created this repo")
        private = body.get("visibility") == "private" or bool(body.get("private"))
        self.repos[key] = Repo(private)
        self.repos[key].commit("initial commit", {".gitattributes": b""})
        return {"url": f"{self.url}/{name}", "name": name}

    def preupload(self, repo: Repo, body: dict[str, Any]) -> dict[str, Any]:
        answers = []
        for file in body["files"]:
            stored = repo.head.files.get(file["path"])
            lfs = file["path"].endswith((".safetensors", ".parquet"))
            answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular"}
            if stored is not None:
                answer["oid"] = hashlib.sha256(stored).hexdigest() if lfs else _blob_oid(stored)
            answers.append({**answer, "shouldIgnore": False})
        return {"files": answers}

    def lfs_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        objects = []
        for found in body["objects"]:
            href = f"{self.url}/lfs/{found['oid']}"
            known = found["oid"] in self.blobs
            objects.append(found if known else {**found, "actions": {"upload": {"href": href}}})
        return {"transfer": "basic", "objects": objects}

    def commit(self, repo: Repo, name: str, body: bytes) -> dict[str, Any]:
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        parent = header.get("parentCommit")
        if parent is not None and parent != repo.head.oid:
            raise HubError(412, "The repository has changed")
        files = dict(repo.head.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            else:
                raise HubError(400, f"unknown operation {line['key']}")
        made = repo.commit(header["summary"], files)
        url = f"{self.url}/{name}/commit/{made.oid}"
        return {"success": True, "commitOid": made.oid, "commitUrl": url, "pullRequestUrl": None}


def _blob_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _info(kind: str, name: str, repo: Repo) -> dict[str, Any]:
    siblings = [{"rfilename": path} for path in repo.head.files]
    tags = ["safetensors"]
    return {
        **{"id": name, "modelId": name, "sha": repo.head.oid, "private": repo.private},
        **{"siblings": siblings, "tags": tags, "gated": False, "disabled": False, "downloads": 0},
    }


def _tree(repo: Repo, under: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{under}/" if under else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, content in repo.head.files.items():
        if not path.startswith(prefix):
            continue
        folder = "/" in path.removeprefix(prefix)
        if folder:
            name = prefix + path.removeprefix(prefix).split("/")[0]
            entries[name] = {"type": "directory", "path": name, "size": 0, "oid": _blob_oid(b"")}
        if not folder or recursive:
            size, oid = len(content), _blob_oid(content)
            entries[path] = {"type": "file", "path": path, "size": size, "oid": oid}
    if under and not entries:
        raise HubError(404, "Entry not found", "EntryNotFound")
    return list(entries.values())


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {path}")
        try:
            for part, status in self.hub.failures.items():
                if part in f"{self.command} {path}" and status == "drop":
                    self.close_connection = True
                    return
                if part in f"{self.command} {path}":
                    # A server that echoes what it was sent: the token must not reach the user.
                    raise HubError(int(status), f"injected: {self.headers['Authorization']}")
            self.reply(200, *self.route(path, body))
        except HubError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            content = json.dumps({"error": error.message}).encode()
            self.reply(error.status, content, headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def signed_in(self) -> bool:
        given = self.headers.get("Authorization")
        if given is not None and given != f"Bearer {TOKEN}":
            raise HubError(401, "Invalid username or password.")
        return given is not None

    def route(self, path: str, body: bytes) -> tuple[bytes, dict[str, str]]:
        if path.startswith("/lfs/") and self.command == "PUT":
            oid = path.removeprefix("/lfs/")
            if hashlib.sha256(body).hexdigest() != oid:
                raise HubError(400, "content does not match its hash")
            self.hub.blobs[oid] = body
            return b"", {}
        signed_in = self.signed_in()
        if found := _RESOLVE.fullmatch(path):
            return self.resolve(found, signed_in)
        return json.dumps(self.api(path, body, signed_in)).encode(), {}

    def api(self, path: str, body: bytes, signed_in: bool) -> Any:
        if path == "/api/validate-yaml":
            return self.validate(json.loads(body)["content"])
        if found := _API.fullmatch(path):
            repo = self.hub.repo(found["kind"], found["repo"])
            if repo.private and not signed_in:
                raise HubError(401, "Repository not found", "RepoNotFound")
            rest = (found["rest"] or "").strip("/").split("/")
            if self.command == "GET" and rest[0] in ("", "revision"):
                return _info(found["kind"], found["repo"], repo)
            if rest[0] == "tree":
                return _tree(repo, "/".join(rest[2:]), "recursive=true" in self.path.lower())
        if not signed_in:
            raise HubError(401, "Invalid username or password.")
        if path == "/api/whoami-v2":
            return {"type": "user", "name": "user", "orgs": [], "auth": {"type": "access_token"}}
        if path == "/api/repos/create":
            return self.hub.create(json.loads(body))
        if _LFS.fullmatch(path):
            return self.hub.lfs_batch(json.loads(body))
        if found and rest[0] == "preupload":
            return self.hub.preupload(repo, json.loads(body))
        if found and rest[0] == "commit" and self.command == "POST":
            return self.hub.commit(repo, found["repo"], body)
        raise HubError(404, f"no such endpoint {self.command} {path}", "EntryNotFound")

    def validate(self, content: str) -> dict[str, Any]:
        block = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        try:
            valid = block is None or isinstance(yaml.safe_load(block[1]), dict)
        except yaml.YAMLError:
            valid = False
        if not valid:
            raise HubError(400, "invalid metadata")
        return {"errors": [], "warnings": []}

    def resolve(self, found: re.Match[str], signed_in: bool) -> tuple[bytes, dict[str, str]]:
        repo = self.hub.repo((found["kind"] or "models/").strip("/"), found["repo"])
        if repo.private and not signed_in:
            raise HubError(401, "Repository not found", "RepoNotFound")
        commit = {"X-Repo-Commit": repo.head.oid}
        if found["path"] not in repo.head.files:
            raise HubError(404, "Entry not found", "EntryNotFound")
        content = repo.head.files[found["path"]]
        etag = {"ETag": f'"{_blob_oid(content)}"', "Content-Type": "application/octet-stream"}
        return content, {**commit, **etag}
