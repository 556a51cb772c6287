"""A small server of the Hugging Face Hub's protocol on loopback, for the real client: repositories in memory."""

import base64
import hashlib
import http.server
import json
import re
import socket
import threading
import urllib.parse

TOKEN = "hf_test_token"
_TRUNCATED, _CUT, _UNANSWERED = "truncated", "cut", "unanswered"


class HubServer:
    """Serves until `close`.

    `faults` makes requests fail: (method, part of the path, kind), each once. Kinds: an HTTP status; `"truncated"`, half of
    the answer is sent; `"cut"`, the connection is lost in the middle of the request; `"unanswered"`, it is lost after the
    request was carried out.
    """

    def __init__(self):
        # repo_id -> {"private", "refs": {name: commit}, "commits": {commit: {name: bytes}}}, and "answers" (status, code)
        # where it answers so in the place of all files
        self.repos = {}
        self.large = {}  # sha256 -> bytes
        self.faults = []
        self.card_problems = []  # what the check of a card's metadata says
        self.log = []  # (method, path, Range header)
        self._httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self._httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"
        threading.Thread(target=self._httpd.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._httpd.shutdown()
        self._httpd.server_close()

    def create(self, repo_id, private=False):
        self.repos.setdefault(repo_id, {"private": private, "refs": {"main": None}, "commits": {}})

    def commit(self, repo_id, files, revision="main", deleted=()):
        """Adds a commit on top of the branch and returns its id."""
        repo = self.repos[repo_id]
        merged = {**repo["commits"].get(repo["refs"].get(revision), {}), **files}
        merged = {name: content for name, content in merged.items() if name not in deleted}
        text = f"{len(repo['commits'])} {sorted((name, _sha256(content)) for name, content in merged.items())}"
        oid = hashlib.sha1(text.encode()).hexdigest()
        repo["commits"][oid] = merged
        repo["refs"][revision] = oid
        return oid

    def files(self, repo_id, revision="main"):
        repo = self.repos[repo_id]
        return repo["commits"].get(repo["refs"].get(revision, revision))

    def requests(self, method, part):
        return [entry for entry in self.log if entry[0] == method and part in entry[1]]


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None

    def log_message(self, *args):
        pass

    def _serve(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.log.append((self.command, path, self.headers.get("Range")))
        self.fault = self._take_fault(path)
        length = int(self.headers.get("Content-Length") or 0)
        if self.fault == _CUT:
            self.rfile.read(length // 2)
            return self._hang_up()
        self.body = self.rfile.read(length)
        if isinstance(self.fault, int):
            return self._json({"error": "fault"}, self.fault)
        for method, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                return getattr(self, action)(**match.groupdict())
        return self._json({"error": f"no route {self.command} {path}"}, 404)

    def _take_fault(self, path):
        for fault in self.hub.faults:
            method, part, kind = fault
            if method == self.command and part in path:
                self.hub.faults.remove(fault)
                return kind
        return None

    def _hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _send(self, content, status=200, headers=None):
        if self.fault == _UNANSWERED:
            self._hang_up()
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault == _TRUNCATED:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(content)

    def _json(self, value, status=200, code=None, headers=None):
        headers = {"Content-Type": "application/json", **(headers or {})}
        if code:
            headers["X-Error-Code"] = code
        self._send(json.dumps(value).encode(), status, headers)

    @property
    def _is_authorized(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, repo_id):
        """The repository, or None after an answer like the Hub's: what one may not see does not exist."""
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo["private"] and not self._is_authorized):
            self._json({"error": "Repository not found"}, 404 if self._is_authorized else 401, "RepoNotFound")
            return None
        return repo

    def _commit_id(self, repo, revision):
        commit = repo["refs"].get(revision) or (revision if revision in repo["commits"] else None)
        if commit is None:
            self._json({"error": "Invalid rev id"}, 404, "RevisionNotFound")
        return commit

    def resolve(self, repo_id, revision, name):
        if answers := self.hub.repos.get(repo_id, {}).get("answers"):
            self._json({"error": "no file"}, *answers)
            return
        if (repo := self._repo(repo_id)) is None or (commit := self._commit_id(repo, revision)) is None:
            return
        content = repo["commits"][commit].get(name)
        if content is None:
            self._json({"error": "Entry not found"}, 404, "EntryNotFound", {"X-Repo-Commit": commit})
            return
        is_large = name.endswith(".h5")
        etag = _sha256(content) if is_large else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if is_large:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
            content = self.hub.large.get("served instead", content)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted:
            start = int(wanted.group(1))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(content[start:], 206, headers)
        else:
            self._send(content, 200, headers)

    def info(self, repo_id, revision="main"):
        if (repo := self._repo(repo_id)) is None:
            return
        is_new = revision == "main" and repo["refs"]["main"] is None  # the Hub's own have a first commit
        commit = None if is_new else self._commit_id(repo, revision)
        if commit is None and not is_new:
            return
        files = [{"rfilename": name} for name in repo["commits"].get(commit, ())]
        answer = {"_id": "1", "id": repo_id, "modelId": repo_id, "sha": commit, "siblings": files, "tags": []}
        self._json({**answer, "private": repo["private"], "downloads": 0, "likes": 0})

    def tree(self, repo_id, revision):
        if (repo := self._repo(repo_id)) is None or (commit := self._commit_id(repo, revision)) is None:
            return
        entries = []
        for name, content in repo["commits"][commit].items():
            entry = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            if name.endswith(".h5"):
                entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        self._json(entries)

    def create(self):
        if not self._is_authorized:
            self._json({"error": "Invalid credentials in Authorization header"}, 401)
            return
        wanted = json.loads(self.body)
        repo_id = f"{wanted['organization']}/{wanted['name']}"
        if repo_id in self.hub.repos:
            self._json({"error": "You already created this model repo", "url": f"{self.hub.url}/{repo_id}"}, 409)
            return
        self.hub.create(repo_id, private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
        self._json({"url": f"{self.hub.url}/{repo_id}", "id": repo_id})

    def validate_card(self):
        card = json.loads(self.body)["content"]
        problems = [] if card.startswith("---\nlibrary_name: keras\n") else ["no metadata"]
        problems += [f"{field} must not be empty" for field in re.findall(r"^[ -]*(\w+): ''$", card, re.MULTILINE)]
        problems += self.hub.card_problems
        errors = [{"message": problem} for problem in problems]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def branch(self, repo_id, revision):
        """Makes a branch; one that exists is refused, as by the Hub."""
        if not self._is_authorized:
            self._json({"error": "Invalid credentials in Authorization header"}, 401)
            return
        if (repo := self._repo(repo_id)) is None:
            return
        if revision in repo["refs"]:
            self._json({"error": "Reference already exists"}, 409)
            return
        repo["refs"][revision] = repo["refs"]["main"]
        self._json({})

    def _has_branch(self, repo, revision):
        """Whether one can commit to it; if not, after an answer like the Hub's. A new repository has an empty `main`."""
        if revision in repo["refs"]:
            return True
        self._json({"error": f"Invalid rev id: {revision}"}, 404, "RevisionNotFound")
        return False

    def preupload(self, repo_id, revision):
        if (repo := self._repo(repo_id)) is None or not self._has_branch(repo, revision):
            return
        files = json.loads(self.body)["files"]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".h5") else "regular",
                "shouldIgnore": False,
            }
            for file in files
        ]
        self._json({"files": modes})

    def batch(self, repo_id):
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.hub.url}/large/{wanted['oid']}"}}}
            for wanted in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def put_large(self, oid):
        if _sha256(self.body) != oid:
            self._json({"error": "wrong content"}, 400)
            return
        self.hub.large[oid] = self.body
        self._json({})

    def post_commit(self, repo_id, revision):
        if not self._is_authorized:
            self._json({"error": "Invalid credentials in Authorization header"}, 401)
            return
        if (repo := self._repo(repo_id)) is None or not self._has_branch(repo, revision):
            return
        files = {}
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        oid = self.hub.commit(repo_id, files, revision)
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{oid}"})


_ID = r"(?P<repo_id>[^/]+/[^/]+)"
_ROUTES = (
    (("POST",), "/api/repos/create", "create"),
    (("POST",), "/api/validate-yaml", "validate_card"),
    (("GET",), rf"/api/models/{_ID}", "info"),
    (("GET",), rf"/api/models/{_ID}/revision/(?P<revision>[^/]+)", "info"),
    (("GET",), rf"/api/models/{_ID}/tree/(?P<revision>[^/]+)", "tree"),
    (("POST",), rf"/api/models/{_ID}/branch/(?P<revision>[^/]+)", "branch"),
    (("POST",), rf"/api/models/{_ID}/preupload/(?P<revision>[^/]+)", "preupload"),
    (("POST",), rf"/api/models/{_ID}/commit/(?P<revision>[^/]+)", "post_commit"),
    (("POST",), rf"/{_ID}\.git/info/lfs/objects/batch", "batch"),
    (("PUT",), r"/large/(?P<oid>[0-9a-f]{64})", "put_large"),
    (("GET", "HEAD"), rf"/{_ID}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", "resolve"),
)
