"""A small hub on loopback that speaks the Hub's HTTP API, with faults that a test asks for."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hub.xet import XetStore

BLOCK = 1 << 14


@dataclass(frozen=True)
class File:
    """One file of a revision."""

    content: bytes
    lfs: bool
    xet: str | None = None
    """Its xet hash, where it came so."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def git_oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_oid

    def entry(self, path: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(self.content), "oid": self.git_oid}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        return entry if self.xet is None else entry | {"xetHash": self.xet}


Tree = dict[str, File]


@dataclass
class Repo:
    """A repository: commits by sha, newest last, and its tags."""

    private: bool
    commits: dict[str, Tree] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return next(reversed(self.commits))

    def add(self, tree: Tree) -> str:
        names = {path: file.etag for path, file in tree.items()}
        sha = hashlib.sha1(json.dumps([len(self.commits), sorted(names.items())]).encode()).hexdigest()
        self.commits[sha] = tree
        return sha

    def resolve(self, revision: str) -> str | None:
        if revision in ("main", "refs/heads/main"):
            return self.head
        sha = self.tags.get(revision, revision)
        return sha if sha in self.commits else None


@dataclass
class Fault:
    """Answers `status` to the next `times` requests whose `METHOD path` matches."""

    pattern: str
    status: int
    times: int
    headers: dict[str, str]
    after: bool = False
    """Do what was asked first, and lose the answer."""


@dataclass
class Hub:
    """The state of the hub, and what tests change and look at."""

    token: str
    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    role: str = "write"
    """Of `somebody`, whose token it is, in the organization `org`."""
    objects: dict[str, bytes] = field(default_factory=dict)
    xet: XetStore | None = None
    """Where clients with hf_xet send chunks to and get them from."""
    faults: list[Fault] = field(default_factory=list)
    drop_after: list[int] = field(default_factory=list)
    """The next uploads break off after so many bytes."""
    seconds_per_block: float = 0.0
    """A slow link for uploads."""
    uploaded: int = 0
    """Bytes of uploads that arrived whole."""
    requests: list[str] = field(default_factory=list)
    before_commit: list[Callable[[], object]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def fail(self, pattern: str, status: int, times: int = 1, after: bool = False, **headers: str) -> None:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(pattern, status, times, names, after))

    def fault_for(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.headers = status, {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}


@contextmanager
def running_hub(token: str) -> Iterator[Hub]:
    """A hub in threads of this process."""
    hub = Hub(token)
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.requests.append(f"{self.command} {path}")
        body = self._body(path)
        if body is None:
            return
        fault = self.hub.fault_for(f"{self.command} {path}")
        try:
            if fault is not None and not fault.after:
                raise Refused(fault.status, f"injected; authorization was {self.headers.get('Authorization')}")
            status, headers, content = self._route(path, parse_qs(url.query), body)
            if fault is not None:
                status, headers, content = fault.status, {}, b"{}"
        except Refused as refused:
            status, headers, content = refused.status, refused.headers, json.dumps({"error": str(refused)}).encode()
        self._send(status, {**headers, **(fault.headers if fault is not None else {})}, content)

    def _body(self, path: str) -> bytes | None:
        """The request's body; None where the connection was broken off."""
        is_upload = path.startswith("/lfs/") and self.command == "PUT"
        drop = self.hub.drop_after.pop(0) if is_upload and self.hub.drop_after else None
        body = bytearray()
        for block in self._blocks():
            body += block
            if is_upload and self.hub.seconds_per_block:
                time.sleep(self.hub.seconds_per_block)
            if drop is not None and len(body) >= drop:
                self.close_connection = True
                self.connection.close()
                return None
        return bytes(body)

    def _blocks(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left and (block := self.rfile.read(min(left, BLOCK))):
            left -= len(block)
            yield block

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except OSError:
            self.close_connection = True

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, dict[str, str], bytes]:
        for command, pattern, answer in ROUTES:
            if self.command in command and (match := re.fullmatch(pattern, path)):
                with self.hub.lock:
                    result = answer(self, body, query, **match.groupdict())
                return result if isinstance(result, tuple) else (200, {}, json.dumps(result).encode())
        raise Refused(404, f"no such address: {path}")

    def require_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            raise Refused(401, "Invalid credentials in Authorization header")

    def repo(self, repo: str) -> Repo:
        found = self.hub.repos.get(repo)
        if found is None:
            raise Refused(404, "Repository not found", "RepoNotFound")
        if found.private:
            self.require_token()
        return found

    def tree(self, repo: str, revision: str) -> tuple[str, Tree]:
        found = self.repo(repo)
        sha = found.resolve(revision)
        if sha is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, found.commits[sha]


def create_repo(on: Handler, body: bytes, query: Any) -> Any:
    on.require_token()
    asked = json.loads(body)
    repo = f"{asked['organization']}/{asked['name']}"
    kind = "datasets/" if asked.get("type") == "dataset" else ""
    url = {"url": f"{on.hub.url}/{kind}{repo}"}
    if repo in on.hub.repos:
        return 409, {}, json.dumps(url | {"error": "You already created this dataset repo"}).encode()
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    on.hub.repos[repo] = Repo(private)
    on.hub.repos[repo].add({".gitattributes": File(b"*.parquet filter=lfs\n", False)})
    return url


def whoami(on: Handler, body: bytes, query: Any) -> Any:
    on.require_token()
    return {"type": "user", "name": "somebody", "orgs": [{"name": "org", "roleInOrg": on.hub.role}], "auth": {}}


def may_write(on: Handler, body: bytes, query: Any, repo: str) -> Any:
    on.repo(repo)
    on.require_token()
    if on.hub.role == "read":
        raise Refused(403, "You don't have the rights to write here")
    return {}


def validate_yaml(on: Handler, body: bytes, query: Any) -> Any:
    try:
        yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
    except (yaml.YAMLError, IndexError) as error:
        return 400, {}, json.dumps({"errors": [{"message": str(error)}], "warnings": []}).encode()
    return {"errors": [], "warnings": []}


def repo_info(on: Handler, body: bytes, query: Any, repo: str, revision: str | None = None) -> Any:
    sha, tree = on.tree(repo, revision or "main")
    siblings = [{"rfilename": path} for path in tree]
    return {"_id": "0", "id": repo, "sha": sha, "private": on.repo(repo).private, "siblings": siblings, "tags": []}


def refs(on: Handler, body: bytes, query: Any, repo: str) -> Any:
    found = on.repo(repo)
    tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": sha} for tag, sha in found.tags.items()]
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": found.head}
    return {"branches": [main], "converts": [], "tags": tags}


def tag(on: Handler, body: bytes, query: Any, repo: str, revision: str) -> Any:
    on.require_token()
    sha, _ = on.tree(repo, revision)
    name = json.loads(body)["tag"]
    if name in on.repo(repo).tags:
        raise Refused(409, f"Tag {name} already exists")
    on.repo(repo).tags[name] = sha
    return {}


def tree_of(on: Handler, body: bytes, query: dict[str, list[str]], repo: str, revision: str, folder: str = "") -> Any:
    _, tree = on.tree(repo, revision)
    prefix = f"{folder.strip('/')}/" if folder and folder.strip("/") else ""
    inside = {path: file for path, file in tree.items() if path.startswith(prefix)}
    if prefix and not inside:
        raise Refused(404, f"{folder} does not exist", "EntryNotFound")
    deep = query.get("recursive", ["false"])[0].lower() in ("true", "1")
    shown = [file.entry(path) for path, file in inside.items() if deep or "/" not in path.removeprefix(prefix)]
    return [*_folders(inside, prefix, deep), *shown]


def _folders(tree: Tree, prefix: str, deep: bool) -> list[dict[str, Any]]:
    parents = {path.rsplit("/", 1)[0] for path in tree if "/" in path.removeprefix(prefix)}
    names = sorted(parents if deep else {prefix + parent.removeprefix(prefix).split("/")[0] for parent in parents})
    return [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in names]


def paths_info(on: Handler, body: bytes, query: Any, repo: str, revision: str) -> Any:
    _, tree = on.tree(repo, revision)
    is_json = "json" in on.headers.get("Content-Type", "")
    paths = json.loads(body)["paths"] if is_json else parse_qs(body.decode())["paths"]
    files = [tree[path].entry(path) for path in paths if path in tree]
    folders = [path for path in paths if any(other.startswith(f"{path}/") for other in tree)]
    return files + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]


def preupload(on: Handler, body: bytes, query: Any, repo: str, revision: str) -> Any:
    on.require_token()
    _, tree = on.tree(repo, revision)
    modes = []
    for file in json.loads(body)["files"]:
        path, there = file["path"], tree.get(file["path"])
        mode = "lfs" if path.endswith((".parquet", ".safetensors")) else "regular"
        modes.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": there and there.etag})
    return {"files": modes}


def lfs_batch(on: Handler, body: bytes, query: Any, repo: str) -> Any:
    on.require_token()
    objects = []
    for asked in json.loads(body)["objects"]:
        upload = {"href": f"{on.hub.url}/lfs/{asked['oid']}?X-Amz-Signature=planted-signature"}
        verify = {"href": f"{on.hub.url}/verify"}
        there = {} if asked["oid"] in on.hub.objects else {"actions": {"upload": upload, "verify": verify}}
        objects.append({"oid": asked["oid"], "size": asked["size"]} | there)
    return {"transfer": "basic", "objects": objects}


def lfs_put(on: Handler, body: bytes, query: Any, oid: str) -> Any:
    if hashlib.sha256(body).hexdigest() != oid:
        raise Refused(400, "the bytes do not have this oid")
    on.hub.objects[oid] = body
    on.hub.uploaded += len(body)
    return {}


def lfs_verify(on: Handler, body: bytes, query: Any) -> Any:
    asked = json.loads(body)
    if len(on.hub.objects.get(asked["oid"], b"")) != asked["size"]:
        raise Refused(404, "no such object")
    return {}


def commit(on: Handler, body: bytes, query: Any, repo: str, revision: str) -> Any:
    on.require_token()
    lines = [json.loads(line) for line in body.splitlines() if line.strip()]
    while on.hub.before_commit:
        on.hub.before_commit.pop(0)()
    found = on.repo(repo)
    parent = lines[0]["value"].get("parentCommit")
    if parent is not None and parent != found.head:
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    tree = dict(found.commits[found.head])
    for line in lines[1:]:
        _apply(on.hub, tree, line["key"], line["value"])
    sha = found.add(tree)
    page = f"datasets/{repo}" if on.path.startswith("/api/datasets/") else repo
    return {"success": True, "commitOid": sha, "commitUrl": f"{on.hub.url}/{page}/commit/{sha}"}


def _apply(hub: Hub, tree: Tree, key: str, value: dict[str, Any]) -> None:
    if key == "file":
        tree[value["path"]] = File(base64.b64decode(value["content"]), lfs=False)
    elif key == "lfsFile":
        tree[value["path"]] = _large_file(hub, value["oid"], value["size"])
    elif key == "deletedFile":
        del tree[value["path"]]
    else:
        raise Refused(400, f"{key} is not known here")


def _large_file(hub: Hub, sha256: str, size: int) -> File:
    """A file that was sent before its commit, by LFS or by xet."""
    if sha256 in hub.objects:
        return File(hub.objects[sha256], lfs=True)
    if hub.xet is None or (name := hub.xet.hash_of(sha256)) is None:
        raise Refused(400, f"there is no file {sha256}: send it first")
    return File(hub.xet.read(sha256, size), lfs=True, xet=name)


def xet_token(on: Handler, body: bytes, query: Any, repo: str, kind: str, revision: str) -> Any:
    on.repo(repo)
    if kind == "write":
        on.require_token()
    if on.hub.xet is None:
        raise Refused(404, "no xet here")
    headers, content = on.hub.xet.token()
    return 200, headers, json.dumps(content).encode()


def resolve(on: Handler, body: bytes, query: Any, repo: str, revision: str, path: str) -> Any:
    sha, tree = on.tree(repo, revision)
    if path not in tree:
        raise Refused(404, f"{path} does not exist", "EntryNotFound")
    file = tree[path]
    size = len(file.content)
    headers = {
        "X-Repo-Commit": sha,
        "ETag": f'"{file.etag}"',
        "X-Linked-ETag": f'"{file.etag}"',
        "X-Linked-Size": str(size),
        "Accept-Ranges": "bytes",
    }
    if file.xet is not None:
        headers |= {
            "X-Xet-Hash": file.xet,
            "Link": f'<{on.hub.url}/api/datasets/{repo}/xet-read-token/{sha}>; rel="xet-auth"',
        }
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", on.headers.get("Range", ""))
    if wanted is None:
        return 200, headers, file.content
    first, last = int(wanted[1]), min(int(wanted[2] or size), size - 1)
    return 206, {**headers, "Content-Range": f"bytes {first}-{last}/{size}"}, file.content[first : last + 1]


_API = r"/api/(?:datasets|models)/(?P<repo>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
ROUTES: list[tuple[tuple[str, ...], str, Callable[..., Any]]] = [
    (("POST",), "/api/repos/create", create_repo),
    (("GET",), "/api/whoami-v2", whoami),
    (("POST",), "/api/validate-yaml", validate_yaml),
    (("GET",), _API, repo_info),
    (("GET",), f"{_API}/revision/{_REVISION}", repo_info),
    (("GET",), f"{_API}/auth-check/write", may_write),
    (("GET",), f"{_API}/refs", refs),
    (("POST",), f"{_API}/tag/{_REVISION}", tag),
    (("GET",), f"{_API}/tree/{_REVISION}(?P<folder>/.*)?", tree_of),
    (("POST",), f"{_API}/paths-info/{_REVISION}", paths_info),
    (("POST",), f"{_API}/preupload/{_REVISION}", preupload),
    (("GET",), f"{_API}/xet-(?P<kind>read|write)-token/{_REVISION}", xet_token),
    (("POST",), f"{_API}/commit/{_REVISION}", commit),
    (("POST",), r"/(?:datasets/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", lfs_batch),
    (("PUT",), "/lfs/(?P<oid>[0-9a-f]{64})", lfs_put),
    (("POST",), "/verify", lfs_verify),
    (("GET", "HEAD"), f"(?:/datasets)?/(?P<repo>[^/]+/[^/]+)/resolve/{_REVISION}/(?P<path>.+)", resolve),
]
