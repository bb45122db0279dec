#!/usr/bin/env python3
"""The reference router: a small, stateful stand-in for the real one.

Tests talk to it over real sockets and order faults from it; people run it
to try a client without an account:

    python3 tests/router.py                     print two exports, then serve
    python3 tests/router.py -- COMMAND ...      serve while COMMAND runs

    with Router() as router:
        router.order("POST /chat/completions", status=503, retry_after=1)
        ...                                     # talk to router.base_url
        assert len(router.seen("POST", "/chat/completions")) == 2

It stores what it is given, pages its lists, works off the batches that are
made of its files, and refuses a missing key, a wrong scope and a wrong path.
What is large is kept on disk while it runs.  It answers the same request
with the same bytes, but for ids, which count up, and times, which come from
its clock.
Read from top to bottom: a name uses only names that stand above it.

   1. Constants      projects, models, templates, error texts
   2. Contents       bytes in memory or on disk, and the parts of a form
   3. Answers        what goes back to a client, errors included
   4. Collections    records by id, the two ways to page them, all of them
   5. Access         one routed call, its key and its project
   6. Verbs          what fields may be, and the handlers of plain verbs
   7. Completions    chat completions, whole, streamed and stored
   8. Responses      their items, and the events of their streams
   9. Files          uploads, and downloads of the whole or of a range
  10. Batches        their records, their files' checks, plans for them
  11. Models         their records and versions, and the uploads of weights
  12. Groups         embeddings, rerank, conversations, chats, usage
  13. Management     webhooks, keys, agents, objectives, the project
  14. Execution      tools, invocations, approvals, learnings
  15. Routes         the table, and the way from a path to its row
  16. Faults         what a test may order
  17. Connection     threads that are kept, HTTP/1.1 on one socket
  18. Work           the thread that works a batch off
  19. Router         all of it behind one lock
  20. Program        the command line
"""

import argparse
import base64
import collections
import copy
import datetime
import functools
import hashlib
import http.client
import ipaddress
import itertools
import json
import math
import os
import pickle
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import zlib


# ---------------------------------------------------------------------------
# 1. Constants
# ---------------------------------------------------------------------------

DEMO_PROJECT = "proj_demo"
DEMO_KEY = "xero_demo_8d1f6c0b72e94a35"
DEMO_SCOPES = ("inference", "management", "execution")

# The product's introduction shows this project, this slug and this key.
DOC_PROJECT = "proj_ABC123"
DOC_KEY = "xero_myproject_your_api_key"
DOC_SCOPES = DEMO_SCOPES + ("research",)

# Each project's endpoints, and the model that each of them serves.
PROJECTS = {
    DEMO_PROJECT: {
        "demo": "reference-parrot-1b",
        "my-endpoint": "deepseek-r1-distill-llama-70b",
        "endpoint-prod": "llama-3.3-70b-instruct",
        "endpoint-staging": "llama-3.1-8b-instruct",
        "endpoint-dev": "qwen2.5-7b-instruct",
    },
    DOC_PROJECT: {"my-endpoint": "deepseek-r1-distill-llama-70b"},
}
PROJECT_MODELS = tuple(PROJECTS[DEMO_PROJECT].values()) + (
    "bge-large-en-v1.5", "bge-reranker-v2-m3")
OPENAI_MODEL = "demo"       # the only one that is served under plain /v1
MODEL_CREATED = 1747772400

# The workspaces that are there from the start: their names.
WORKSPACES = {"ws_kube_prod": "Kubernetes production",
              "ws_0123456789abcdef": "Research"}
# Templates: id, name, scope, workspace, version.
TEMPLATES = (
    ("ctpl_01HDRAIN", "drain-kubernetes-node", "workspace", "ws_kube_prod",
     3),
    ("ctpl_01HRESTART", "restart-deployment", "workspace", "ws_kube_prod",
     1),
    ("ctpl_01HROTATE", "rotate-certificates", "workspace", "ws_kube_prod",
     7),
    ("ctpl_01HTWIN1", "duplicate-name", "workspace", "ws_kube_prod", 1),
    ("ctpl_01HTWIN2", "duplicate-name", "workspace", "ws_kube_prod", 2),
    ("ctpl_01HTRIAGE", "triage-incident", "platform", None, 2),
    ("ctpl_01HNOTES", "write-release-notes", "project", None, 1),
)
TOOLS = (
    {"name": "kubectl_get", "description": "Read cluster objects.",
     "risk": "read", "domain": "kubernetes", "timeout_seconds": 30},
    {"name": "kubectl_drain", "description": "Evict the pods of a node.",
     "risk": "destructive", "domain": "kubernetes", "timeout_seconds": 600},
)
# These are in no list, and are found by their names.
MORE_TOOLS = (
    {"name": "kubectl_restart", "description": "Restart a deployment.",
     "risk": "write", "domain": "kubernetes", "timeout_seconds": 120},
    {"name": "kubectl_delete_namespace",
     "description": "Delete a namespace, and all that is in it.",
     "risk": "irreversible", "domain": "kubernetes", "timeout_seconds": 600},
)
TOOL_PARAMETERS = {
    "type": "object", "additionalProperties": True,
    "properties": {"name": {"type": "string"},
                   "namespace": {"type": "string"}},
}

# What a file may be uploaded for; the router itself adds batch_output.
PURPOSES = ("batch", "assistants", "fine-tune", "vision", "user_data",
            "evals")
FILE_LIMIT = 500000000
BATCH_LIMIT = 104857600
METADATA_LIMIT = 16384
BATCH_ENDPOINTS = ("/v1/chat/completions", "/v1/embeddings", "/v1/responses")
BATCH_ENDS = ("completed", "failed", "expired", "cancelled")
BATCH_ERRORS_SHOWN = 20
CHUNK_SIZE = 104857600      # of an upload of weights
INPUT_LIMIT = 256           # texts in one request for embeddings or scores
DAY = 86400

ROLES = ("system", "developer", "user", "assistant", "tool")
NUMBER = (int, float)
COMPLETION_RANGES = (
    ("temperature", NUMBER, 0, 2),
    ("top_p", NUMBER, 0, 1),
    ("frequency_penalty", NUMBER, -2, 2),
    ("presence_penalty", NUMBER, -2, 2),
    ("max_tokens", int, 1, math.inf),
    ("max_completion_tokens", int, 1, math.inf),
)

# Status: the type, code and message of its error when nothing else is said.
ERRORS = {
    400: ("invalid_request_error", "invalid_request",
          "The request is not valid."),
    401: ("authentication_error", "authentication_error",
          "The API key is missing or not valid."),
    403: ("authentication_error", "scope_insufficient",
          "The API key may not do this."),
    404: ("invalid_request_error", "not_found", "There is no such thing."),
    405: ("invalid_request_error", "method_not_allowed",
          "The method is not allowed here."),
    409: ("invalid_request_error", "conflict", "The state forbids this."),
    413: ("invalid_request_error", "request_too_large",
          "The request is too large."),
    416: ("invalid_request_error", "range_not_satisfiable",
          "The range is not in the file."),
    429: ("rate_limit_error", "capacity_exceeded", "Slow down."),
    500: ("internal_error", "internal_error", "The router failed."),
    501: ("service_error", "not_implemented", "This is not enabled here."),
    502: ("service_error", "bad_gateway", "The backend gave no answer."),
    503: ("service_error", "endpoint_inactive",
          "The endpoint is not active."),
    504: ("service_error", "gateway_timeout", "The backend was too slow."),
}
BODILESS = (204, 304)
PROXY_PAGE = b"""<html>
<head><title>502 Bad Gateway</title></head>
<body>
<center><h1>502 Bad Gateway</h1></center>
<hr><center>a proxy on the way</center>
</body>
</html>
"""
# What servers, and what stands before them, say with 200 in place of an
# answer: (media type, body) by the name that an order has for it.
ODD = {
    "an error": ("application/json",
                 b'{"error":{"message":"no such luck","code":502}}'),
    "an error text": ("application/json", b'{"error":"no such luck"}'),
    "an error object": ("application/json",
                        b'{"object":"error","message":"no such luck"}'),
    "a login page": ("text/html", b"<!DOCTYPE html>\n<html><head><title>"
                                  b"Sign in</title></head></html>\n"),
    "null": ("application/json", b"null"),
}


# ---------------------------------------------------------------------------
# 2. Contents
# ---------------------------------------------------------------------------

BLOCK = 1 << 16
BIG = 1 << 20           # what is longer than this goes to disk


class Spool(tempfile.SpooledTemporaryFile):
    """A file without a name, in memory until it is big.

    It goes when nobody refers to it any more, and is read by many threads.
    """

    def __init__(self):
        super().__init__(max_size=BIG)
        self.size = 0
        self.lock = threading.Lock()

    def __del__(self):
        self.close()

    def append(self, data):
        """Write at the end; returns where that is from now on."""
        with self.lock:
            self.seek(0, os.SEEK_END)
            self.write(data)
            self.size += len(data)
        return self.size

    def write_at(self, start, data):
        with self.lock:
            self.seek(start)
            self.write(data)
            self.size = max(self.size, start + len(data))

    def read_at(self, start, count):
        with self.lock:
            self.seek(start)
            return self.read(count)


class Content:
    """Bytes at rest, all of a spool or a slice of it, read in blocks."""

    def __init__(self, spool):
        self.spool = spool
        self.start = 0
        self.size = spool.size

    @classmethod
    def of(cls, data):
        spool = Spool()
        spool.append(data)
        return cls(spool)

    def slice(self, start, size):
        part = copy.copy(self)
        part.start += start
        part.size = size
        return part

    def read(self, start=0, count=None):
        left = max(self.size - start, 0)
        return self.spool.read_at(self.start + start,
                                  left if count is None else min(count, left))

    def blocks(self, start=0):
        for position in range(start, self.size, BLOCK):
            yield self.read(position, BLOCK)

    __iter__ = blocks

    def lines(self):
        """The lines without their ends; one after the last end, if any."""
        held = []
        for block in self:
            first, *more = block.split(b"\n")
            held.append(first)
            if more:
                yield b"".join(held)
                held = [more.pop()]
                yield from more
        if any(held):
            yield b"".join(held)

    def sha256(self):
        digest = hashlib.sha256()
        for block in self:
            digest.update(block)
        return digest.hexdigest()

    def index(self, wanted, start=0):
        """Where some bytes, two at least, stand first; or ValueError."""
        tail = b""
        for block in self.blocks(start):
            found = (tail + block).find(wanted)
            if found >= 0:
                return start - len(tail) + found
            start += len(block)
            tail = (tail + block)[1 - len(wanted):]
        raise ValueError(f"{wanted!r} is missing")


# A part of a form; the file name is None for a plain field.
Part = collections.namedtuple("Part", "filename content")
PARAMETER = re.compile(r';\s*([^\s=;]+)=("(?:[^"\\]|\\.)*"|[^;\r\n]*)')
ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n", '\\"': '"', "\\\\": "\\"}


def parameters(head):
    """The parameters of a part's Content-Disposition, unescaped.

    Both ways to write a quote are known, that of browsers and that of mail.
    """
    text = head.decode("utf-8", "surrogateescape")
    line = re.search(r"(?i)\r\nContent-Disposition:(.*)\r\n", text)
    found = {}
    for name, value in PARAMETER.findall(line.group(1)) if line else ():
        if value[:1] == '"':
            value = re.sub(r'%22|%0D|%0A|\\"|\\\\',
                           lambda escape: ESCAPES[escape.group()],
                           value[1:-1])
        found[name.lower()] = value
    charset, _, name = found.pop("filename*", "").partition("'")
    if charset:
        found["filename"] = urllib.parse.unquote(
            name.partition("'")[2], charset, "replace")
    return found


def split_form(content, boundary):
    """The head and the content of each part of a multipart body."""
    mark = b"\r\n--" + boundary.encode("latin-1")
    position = len(mark) - 2
    if content.read(0, position) != mark[2:]:
        raise ValueError("the body does not begin with the boundary")
    while content.read(position, 2) == b"\r\n":
        start = content.index(b"\r\n\r\n", position) + 4
        end = content.index(mark, start)
        yield (content.read(position, start - position),
               content.slice(start, end - start))
        position = end + len(mark)
    if content.read(position, 2) != b"--":
        raise ValueError("the last boundary is not the last")


def read_form(content, boundary):
    """The parts of a form by name; what is small moves to memory."""
    if not boundary:
        raise ValueError("no boundary is given")
    parts = {}
    for head, part in split_form(content, boundary):
        given = parameters(head)
        if "name" not in given:
            raise ValueError("a part has no name")
        if part.size <= BIG:
            part = Content.of(part.read())
        parts[given["name"]] = Part(given.get("filename"), part)
    return parts


# ---------------------------------------------------------------------------
# 3. Answers
# ---------------------------------------------------------------------------

def as_json(value):
    """Encode compactly; a lone surrogate, which UTF-8 lacks, becomes `?`."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def as_frame(value, event=None):
    """One server-sent event, as bytes, with the blank line that ends it."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + as_json(value) + b"\n\n"


class Answer:
    """A status, headers, and a body in pieces that are flushed one by one.

    A stream has many pieces, the frames, and a content has its blocks; any
    other answer has one.
    """

    def __init__(self, status=200, body=b"", headers=(), frames=None,
                 content_type="application/json", pace=0):
        self.status = status
        self.is_stream = frames is not None
        self.pieces = frames if self.is_stream else (
            body if isinstance(body, Content) else [body])
        self.pace = pace
        self.headers = {"Content-Type": content_type}
        if self.is_stream:
            self.headers = {"Content-Type": "text/event-stream",
                            "Cache-Control": "no-cache"}
        self.headers.update(headers)

    @property
    def length(self):
        if isinstance(self.pieces, Content):
            return self.pieces.size
        return sum(map(len, self.pieces))


def error_answer(status, headers=(), **error):
    """The documented envelope; what is not given comes from `ERRORS`."""
    general = ERRORS[500 if status >= 500 else 400]
    kind, code, message = ERRORS.get(status, general)
    envelope = {"message": message, "type": kind, "code": code,
                "param": None}
    envelope.update(error)
    return Answer(status, as_json({"error": envelope}), headers)


def made(record):
    """The answer to a request that made something."""
    return Answer(201, as_json(record))


class Refusal(Exception):
    """An error answer, raised where the rule was found broken."""

    def __init__(self, status, message, headers=(), **error):
        super().__init__(message)
        self.answer = error_answer(status, headers, message=message, **error)


def bad(param, message):
    """The refusal of one parameter of a request."""
    return Refusal(400, f"{param}: {message}", param=param)


# ---------------------------------------------------------------------------
# 4. Collections
# ---------------------------------------------------------------------------

ISO = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
                 r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.[0-9]+)?)?"
                 r"(?:Z|([+-])([0-9]{2}):?([0-9]{2}))?)?\Z")


def as_iso(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def as_seconds(given):
    """The time in a text of ISO 8601, UTC unless it says other; a number.

    ValueError tells of a text that is no time.
    """
    if not isinstance(given, str):
        return given
    found = ISO.match(given)
    if not found:
        raise ValueError(f"{given} is no time")
    sign = -1 if found.group(7) == "-" else 1
    numbers = [int(each or 0) for each in found.group(1, 2, 3, 4, 5, 6, 8, 9)]
    at = datetime.datetime(*numbers[:6], tzinfo=datetime.timezone.utc)
    return int(at.timestamp()) - sign * (3600 * numbers[6] + 60 * numbers[7])


def as_count(query, name, fallback, least):
    """A whole number from a query; `least` is the smallest one allowed."""
    text = query.get(name, str(fallback))
    if not re.match(r"[0-9]{1,9}\Z", text) or int(text) < least:
        raise bad(name, f"must be a whole number of at least {least}")
    return int(text)


def cursor_page(records, query, fallback=20, ceiling=100):
    """The `limit` records that follow the one whose id is `after`."""
    limit = min(as_count(query, "limit", fallback, 1), ceiling)
    ids = [record["id"] for record in records]
    after = query.get("after")
    if after is not None and after not in ids:
        raise bad("after", "no such record in this list")
    start = 0 if after is None else ids.index(after) + 1
    shown = ids[start:start + limit]
    return {"object": "list", "data": records[start:start + limit],
            "first_id": shown[0] if shown else None,
            "last_id": shown[-1] if shown else None,
            "has_more": start + limit < len(ids)}


def offset_page(records, query, fallback=100, ceiling=100):
    """The `limit` records that follow the first `offset` ones."""
    limit = min(as_count(query, "limit", fallback, 1), ceiling)
    offset = as_count(query, "offset", 0, 0)
    end = offset + limit
    return {"object": "list", "data": records[offset:end],
            "limit": limit, "offset": offset, "total": len(records),
            "has_more": end < len(records)}


def course(polls, first, second, end):
    """The statuses at each GET of what has ended after so many of them."""
    return [first] * min(polls, 1) + [second] * (polls - 1) + [end]


class Collection:
    """Records of one kind by id, in the order in which they were made.

    `id_form` is a format of one number, such as "conv_{:08x}"; `missing`
    is the code of the 404 for an id that is not there, `deleted` what a
    deletion is called.  A record that has an owner, which is a project or
    another record, is there for that owner alone.
    """

    def __init__(self, kind, id_form, clock, missing="not_found",
                 deleted=None):
        self.kind = kind
        self.id_form = id_form
        self.clock = clock
        self.missing = missing
        self.deleted = deleted or f"{kind}.deleted"
        self.made = 0           # ids, whatever became of their records
        self.records = {}
        self.owners = {}
        self.courses = {}

    def next_id(self):
        self.made += 1
        return self.id_form.format(self.made)

    def keep(self, record, owner=None):
        self.records[record["id"]] = record
        if owner is not None:
            self.owners[record["id"]] = owner
        return record

    def create(self, owner=None, **fields):
        record = {"id": self.next_id(), "object": self.kind,
                  "created_at": int(self.clock())}
        return self.keep(dict(record, **fields), owner)

    def is_of(self, record_id, owner):
        return owner in (None, self.owners.get(record_id, owner))

    def has(self, record_id, owner=None):
        return record_id in self.records and self.is_of(record_id, owner)

    def get(self, record_id, owner=None):
        if not self.has(record_id, owner):
            raise Refusal(404, f"No {self.kind} with the id '{record_id}'.",
                          code=self.missing)
        return self.records[record_id]

    def update(self, record_id, owner=None, **fields):
        record = self.get(record_id, owner)
        record.update(fields)
        return record

    def delete(self, record_id, owner=None):
        del self.records[self.get(record_id, owner)["id"]]
        return {"id": record_id, "object": self.deleted, "deleted": True}

    def of(self, owner):
        """The records of an owner, oldest first."""
        return [record for record in self.records.values()
                if self.is_of(record["id"], owner)]

    def list(self, query, owner=None, wanted=None, order="desc",
             page=cursor_page):
        """A page, in the order given unless the query names one.

        `wanted` has fields, and a test for the value of each.
        """
        order = query.get("order", order)
        if order not in ("asc", "desc"):
            raise bad("order", "must be asc or desc")
        records = [record for record in self.of(owner)
                   if all(test(record[name])
                          for name, test in (wanted or {}).items())]
        return page(records[::1 if order == "asc" else -1], query)

    # What takes its time takes it by GETs, which a test can count.

    def start(self, record, statuses, enter=None):
        """Have a record take these statuses, one at each GET of it."""
        self.courses[record["id"]] = collections.deque(statuses), enter

    def stop(self, record, status):
        """Have it take this status, and no other one after that."""
        self.courses.pop(record["id"], None)
        record["status"] = status

    def step(self, record_id, owner=None):
        """A record after one step on its way; `enter` notes what is new."""
        record = self.get(record_id, owner)
        statuses, enter = self.courses.get(record_id, ((), None))
        if not statuses:
            return record
        status = statuses.popleft()
        is_new = status != record["status"]
        record["status"] = status
        if is_new and enter:
            enter(record)
        return record


def uuid_form(number):
    """A format for ids, which look like UUIDs, of one kind of records."""
    return "{0:08x}-0000-4000-80%02x-{0:012x}" % number


# Each collection: its name in the store, and what it is made with.
COLLECTIONS = (
    ("completions", "chat.completion", "chatcmpl-{}",
     "completion_not_found"),
    ("completion_messages", "chat.completion.message", "msg_{:024x}"),
    ("responses", "response", "resp_{:024x}", "response_not_found",
     "response"),
    ("response_items", "response.item", "msg_{:024x}"),
    ("conversations", "conversation", "conv_{:024x}"),
    ("conversation_items", "conversation.item", "msg_{:024x}"),
    ("files", "file", "file-{:024x}", "not_found", "file"),
    ("batches", "batch", "batch_{}"),
    ("models", "model", uuid_form(1), "model_not_found", "model"),
    ("versions", "model.version", uuid_form(2)),
    ("uploads", "upload", uuid_form(3)),
    ("parts", "upload.part", "part_{:024x}"),
    ("workspaces", "workspace", "ws_{:024x}"),
    ("templates", "chat_template", "ctpl_01H{:022d}"),
    ("template_versions", "chat_template.version", "{}"),
    ("chats", "chat", "chat_01H{:022d}"),
    ("webhooks", "webhook", uuid_form(4)),
    ("deliveries", "webhook.delivery", uuid_form(5)),
    ("keys", "api_key", "key_{}"),
    ("agents", "agent", uuid_form(6)),
    ("agent_events", "agent.event", "evt_{:024x}"),
    ("candidates", "agent_candidate", "cand_{:08x}"),
    ("join_keys", "join_key", "jk_{:016x}"),
    ("slos", "slo", uuid_form(7)),
    ("measurements", "slo.measurement", uuid_form(8)),
    ("endpoints", "endpoint", uuid_form(9)),
    ("maintenance", "maintenance", "mnt_{:08x}"),
    ("projects", "project", "proj_{}"),
    ("members", "project.member", "usr_{:08x}"),
    ("invitations", "project.invitation", "invite_{:08x}"),
    ("settings", "setting", "{}", "setting_not_found"),
    ("exports", "export", "exp_{:024x}"),
    ("invocations", "exec.invocation", "inv_{:024x}"),
    ("approvals", "exec.approval", uuid_form(10)),
    ("delegations", "exec.delegation", "dlg_{:08x}"),
    ("learnings", "exec.learning", "lrn_{:016x}"),
)


class Store:
    """All that the router remembers of its projects."""

    # How large a thing may be, and how long what takes its time takes; a
    # test sets them on the router.
    file_limit = FILE_LIMIT
    batch_limit = BATCH_LIMIT
    chunk_size = CHUNK_SIZE
    lists_names = True          # of models, unless `extended` is asked for
    response_polls = 2          # GETs before a background one has ended
    revalidation_lag = 0        # GETs that still show the status before
    revalidation_polls = 3      # GETs before a revalidation has ended
    revalidation_end = "validated"
    export_polls = 2            # GETs before an export has ended
    exec_polls = 2              # GETs before an invocation has ended
    exec_end = "completed"

    def __init__(self, clock, pace):
        self.clock = clock
        self.pace = pace
        self.values = {}        # of keys: the key's id, and until when
        self.uses = {}          # key id: the times of its latest requests
        self.bindings = {}      # workspace id: ids of its agents
        self.snapshots = {}     # (template id, version): what it was
        self.numbers = itertools.count(1)
        for name, kind, id_form, *more in COLLECTIONS:
            setattr(self, name, Collection(kind, id_form, clock, *more))
        self.contents = {}      # file id: its ETag and Content
        self.turns = {}         # response id: how many there are with it
        self.weights = {}       # upload id: the Spool of its parts
        self.plans = []         # for the batches that are not made yet
        self.start_batch = None     # the router's, since it has the threads

    def endpoint(self, project, slug):
        for endpoint in self.endpoints.of(project):
            if endpoint["slug"] == slug:
                return endpoint
        raise Refusal(404, f"Endpoint '{slug}' not found.",
                      code="endpoint_not_found")


# ---------------------------------------------------------------------------
# 5. Access
# ---------------------------------------------------------------------------

ROOT, PLAIN, PROJECT, ENDPOINT = "root", "plain", "project", "endpoint"


class Call:
    """One request with its path taken apart: all that a handler needs.

    `form` is how the path begins: /PROJECT/SLUG/v1 (ENDPOINT), /PROJECT/v1
    (PROJECT), /v1 (PLAIN, only where `openai` is served) or neither (ROOT).
    `segments` is what follows, each percent-decoded after the split.
    """

    def __init__(self, seen, store, openai):
        self.seen = seen
        self.store = store
        self.query = dict(seen.query)
        parts = [urllib.parse.unquote(part)
                 for part in seen.path.split("/")[1:]]
        depth = parts[:3].index("v1") if "v1" in parts[:3] else None
        if depth is None or (depth == 0 and not openai):
            self.form, self.segments = ROOT, parts
        else:
            self.form = (PLAIN, PROJECT, ENDPOINT)[depth]
            self.segments = parts[depth + 1:]
        self.project = parts[0] if depth else DEMO_PROJECT
        self.slug = parts[1] if self.form == ENDPOINT else None

    @property
    def path(self):
        return "/" + "/".join(self.segments)

    def key(self):
        """The record of the key that came along, which must be valid."""
        scheme, _, value = self.seen.headers.get(
            "Authorization", "").partition(" ")
        key_id, until = self.store.values.get(value, (None, None))
        key = self.store.keys.records.get(key_id)
        now = self.store.clock()
        if (scheme.lower() != "bearer" or key is None or not key["active"]
                or any(end is not None and now > end for end in (
                    until, as_seconds(key["expires_at"])))):
            raise Refusal(401, "Missing or invalid API key.")
        return key

    def fields(self, is_needed=True):
        """The members of the JSON object that is the request's body."""
        if not (self.seen.body or is_needed):
            return {}
        try:
            fields = json.loads(self.seen.body)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"The body is not JSON: {error}",
                          code="json_parse_error")
        if not isinstance(fields, dict):
            raise Refusal(400, "The body must be a JSON object.")
        return fields


CLIENT = ipaddress.ip_address("127.0.0.1")


def check_address(key):
    """Whoever asks is on the loopback, which the key may refuse."""
    def is_in(networks):
        return any(CLIENT in ipaddress.ip_network(network, strict=False)
                   for network in networks)
    rules = key["ip_filter"] or {"allow": [], "block": []}
    if is_in(rules["block"]) or (rules["allow"] and not is_in(
            rules["allow"])):
        raise Refusal(403, f"The API key may not be used from {CLIENT}.",
                      code="ip_not_allowed")


def check_quota(store, key):
    now = int(store.clock())
    key["last_used_at"] = now
    if not key["quota"]:
        return
    uses = store.uses.setdefault(key["id"], collections.deque())
    while uses and uses[0] <= now - key["quota"]["window_seconds"]:
        uses.popleft()
    if len(uses) >= key["quota"]["requests"]:
        wait = key["quota"]["window_seconds"] - now + (uses or [now])[0]
        raise Refusal(429, "The API key's quota is used up.",
                      {"Retry-After": str(wait)}, retry_after=wait,
                      code="quota_exceeded")
    uses.append(now)


def check_slug(call, key):
    endpoint = call.store.endpoint(call.project, call.slug)
    if key["endpoint_id"] not in (None, endpoint["id"]):
        raise Refusal(403, "The API key is for another endpoint.",
                      code="scope_insufficient")
    if endpoint["status"] != "active":
        raise Refusal(503, f"Endpoint '{call.slug}' is not active.")


def check_place(call):
    """The project is there, the key belongs to it, and the slug is its."""
    key = call.key()
    if call.project not in PROJECTS:
        raise Refusal(404, f"Project '{call.project}' not found.",
                      code="project_not_found")
    if key["project_id"] != call.project:
        raise Refusal(403, "The API key belongs to another project.",
                      code="cross_project_access")
    check_address(key)
    check_quota(call.store, key)
    if call.slug is not None:
        check_slug(call, key)


def check_scopes(call, needed):
    """The key has each of the needed scopes, which are words in a text."""
    scopes = call.key()["scopes"]
    for scope in needed.split():
        if scope not in scopes:
            raise Refusal(403, f"The API key lacks the scope '{scope}'.",
                          code="scope_insufficient")


def check_metadata(fields):
    """At most 16 pairs of texts, 64 and 512 characters long (OpenAI)."""
    metadata = fields.get("metadata") or {}
    if not isinstance(metadata, dict) or len(metadata) > 16:
        raise bad("metadata", "must be an object of at most 16 pairs")
    for name, value in metadata.items():
        if len(name) > 64 or not isinstance(value, str) or len(value) > 512:
            raise bad("metadata", f"the pair '{name}' is no text or too long")
    return metadata


# ---------------------------------------------------------------------------
# 6. Verbs
# ---------------------------------------------------------------------------

class Rule:
    """What a field may be: how that is said, and the test of a value."""

    def __init__(self, says, is_met):
        self.says = says
        self.is_met = is_met


def of_type(kind, says):
    """The rule for values of a type; a truth is no number."""
    return Rule(says, lambda value: isinstance(value, kind) and not (
        isinstance(value, bool) and kind is not bool))


def one_of(*words):
    return Rule(f"must be one of {', '.join(map(str, words))}",
                words.__contains__)


def is_text(value):
    return isinstance(value, str) and value != ""


def is_texts(value):
    return isinstance(value, list) and all(map(is_text, value))


def is_time(value):
    try:
        return is_text(value) and as_seconds(value) is not None
    except (ValueError, OverflowError):
        return False


ANY = Rule("", lambda value: True)
STRING = of_type(str, "must be a text")
TEXT = Rule("must be a text that is not empty", is_text)
WORDS = Rule("must be a list of texts", is_texts)
TEXTS = Rule("must be a list of texts that is not empty",
             lambda value: is_texts(value) and value != [])
TIME = Rule("must be a date or time of ISO 8601", is_time)
NUMBERS = of_type(NUMBER, "must be a number")
FLAG = of_type(bool, "must be true or false")
COUNT = Rule("must be a whole number of at least 0",
             lambda value: type(value) is int and value >= 0)
OBJECT = of_type(dict, "must be an object")


def check_fields(fields, rules, needed=""):
    """The fields but for null, each of them known and as its rule says."""
    for name in needed.split():
        if fields.get(name) is None:
            raise bad(name, "is missing")
    for name, value in fields.items():
        if name not in rules:
            raise bad(name, "is not known here")
        if value is not None and not rules[name].is_met(value):
            raise bad(name, rules[name].says)
    if "metadata" in rules:
        check_metadata(fields)
    return {name: value for name, value in fields.items()
            if value is not None}


# The handlers of a collection's plain verbs, for the table of routes; the
# collection is named, not given, since each router has a store of its own.
# `inside` names the collection of the record that the path goes through.

def find_owner(call, inside, ids):
    """Whom the records belong to: the project, or what they are inside."""
    if inside is None:
        return call.project
    return getattr(call.store, inside).get(ids[0], call.project)["id"]


def as_is(record):
    return record


def lists(name, *fields, inside=None, shown=as_is, **how):
    """A page of those whose `fields` are as the query says."""
    def handler(call, *ids):
        wanted = {field: call.query[field].__eq__
                  for field in fields if field in call.query}
        page = getattr(call.store, name).list(
            call.query, find_owner(call, inside, ids), wanted, **how)
        return dict(page, data=[shown(record) for record in page["data"]])
    return handler


def shows(name, inside=None, shown=as_is):
    return lambda call, *ids: shown(getattr(call.store, name).get(
        ids[-1], find_owner(call, inside, ids)))


def steps(name):
    """Show what takes its time, one step further."""
    return lambda call, record_id: getattr(call.store, name).step(
        record_id, call.project)


def deletes(name, inside=None):
    return lambda call, *ids: getattr(call.store, name).delete(
        ids[-1], find_owner(call, inside, ids))


def create_record(call, name, defaults, fields, updated_at=None):
    """Keep a new record, of the fields and of defaults for the others."""
    record = dict(copy.deepcopy(defaults), **fields)
    record["updated_at"] = updated_at or int(call.store.clock())
    return getattr(call.store, name).create(call.project, **record)


def creates(name, rules, needed, defaults):
    """Make a record of the fields that are given, and of the defaults."""
    return lambda call: made(create_record(
        call, name, defaults, check_fields(call.fields(), rules, needed)))


def updates(name, rules):
    """Change the fields that are given, and tell when that was."""
    def handler(call, record_id):
        collection = getattr(call.store, name)
        collection.get(record_id, call.project)
        return collection.update(
            record_id, **dict(check_fields(call.fields(), rules),
                              updated_at=int(call.store.clock())))
    return handler


# ---------------------------------------------------------------------------
# 7. Completions
# ---------------------------------------------------------------------------

def check_message(message, where):
    if not isinstance(message, dict):
        raise bad(where, "must be an object")
    if message.get("role") not in ROLES:
        raise bad(f"{where}.role", f"must be one of {', '.join(ROLES)}")
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        return
    parts = content if isinstance(content, list) else [content]
    if not all(isinstance(part, (str, dict)) for part in parts):
        raise bad(f"{where}.content", "must be a text or a list of parts")


def check_range(fields, name, kind, low, high):
    value = fields.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kind):
        raise bad(name, "must be a number")
    if not low <= value <= high:
        raise bad(name, f"must be at least {low}" if high == math.inf
                  else f"must be from {low} to {high}")


# == what is asked of the choices

CHOICES = Rule("must be a whole number from 1 to 128",
               lambda value: type(value) is int and 1 <= value <= 128)
STOPS = Rule("must be a text or a list of 1 to 4 texts, none of them empty",
             lambda value: is_text(value) or (
                 is_texts(value) and 1 <= len(value) <= 4))
TOOL = Rule("must be a function that has a name",
            lambda value: called_name(value) is not None)
MODES = "none", "auto", "required"
FORMATS = "text", "json_object", "json_schema"
SCHEMA = "response_format.json_schema.schema"
SCHEMA_WORDS = frozenset(
    "$defs $ref $schema additionalProperties anyOf const default definitions"
    " description enum items minItems properties required title type".split())


def called_name(value):
    """The name in {"type": "function", "function": {"name": …}}, or None."""
    if not isinstance(value, dict) or value.get("type") != "function":
        return None
    function = value.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if is_text(name) else None


def check_tools(fields):
    tools, choice = fields.get("tools"), fields.get("tool_choice")
    if tools is not None and not (isinstance(tools, list) and tools):
        raise bad("tools", "must be a list that is not empty")
    for number, tool in enumerate(tools or ()):
        if not TOOL.is_met(tool):
            raise bad(f"tools[{number}]", TOOL.says)
    if choice is None:
        return
    if not tools:
        raise bad("tool_choice", "is only allowed with tools")
    name = called_name(choice)
    if choice not in MODES and name is None:
        raise bad("tool_choice", f"must be {', '.join(MODES)} or a function")
    if name is not None and name not in map(called_name, tools):
        raise bad("tool_choice", f"no tool has the name '{name}'")


def check_format(call, fields, place="response_format",
                 inner="response_format.json_schema"):
    given = fields.get("response_format")
    kind = given.get("type") if isinstance(given, dict) else None
    if given is not None and kind not in FORMATS:
        raise bad(place, f"its type must be one of {', '.join(FORMATS)}")
    if kind == "json_object" and call.form == PLAIN and not any(
            "json" in text_of(each).lower() for each in fields["messages"]):
        raise Refusal(400, "'messages' must contain the word 'json' in some"
                      f" form, to use '{place}' of type"
                      " 'json_object'.", param="messages")
    if kind != "json_schema":
        return
    asked = given.get("json_schema")
    if not (isinstance(asked, dict) and is_text(asked.get("name"))):
        raise bad(f"{inner}.name", "is missing")
    if fields.get("tools") and call.form != PLAIN:
        raise bad(place, "a schema goes with no tools")
    sample_of(asked.get("schema", {}), asked.get("schema"), "")


def sample_of(schema, whole, text):
    """A value that a JSON schema allows, whose texts are this one."""
    if not isinstance(schema, dict):
        raise bad(SCHEMA, "must be an object, and each part of it, too")
    for name in schema:
        if name not in SCHEMA_WORDS:
            raise bad(SCHEMA, f"'{name}' is not permitted here")
    try:
        return allowed_by(schema, whole, text)
    except (AttributeError, LookupError, RecursionError, TypeError):
        raise bad(SCHEMA, "is none that a value can follow")


def allowed_by(schema, whole, text):
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema:
        steps = schema["$ref"].split("/")[1:]
        return sample_of(functools.reduce(dict.__getitem__, steps, whole),
                         whole, text)
    if "anyOf" in schema:
        return sample_of(schema["anyOf"][-1], whole, text)
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: sample_of(each, whole, text)
                for name, each in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample_of(schema["items"], whole, text)
                for _ in range(schema.get("minItems", 0))]
    return {"string": text, "integer": 0, "number": 0.5, "boolean": True,
            "null": None}[kind]


def check_choices(call, fields):
    """What says how many choices there are, and what they may be."""
    for name, rule in (("n", CHOICES), ("stop", STOPS)):
        if fields.get(name) is not None and not rule.is_met(fields[name]):
            raise bad(name, rule.says)
    check_tools(fields)
    check_format(call, fields)


def check_completion(call, fields):
    """What the real router refuses of a chat completion, it refuses too."""
    if not (isinstance(fields.get("model"), str) and fields["model"]):
        raise bad("model", "must be a text that is not empty")
    messages = fields.get("messages")
    if not (isinstance(messages, list) and messages):
        raise bad("messages", "must be a list that is not empty")
    for number, message in enumerate(messages):
        check_message(message, f"messages[{number}]")
    for limits in COMPLETION_RANGES:
        check_range(fields, *limits)
    if fields.get("stream_options") and not fields.get("stream"):
        raise bad("stream_options", "is only allowed with stream")
    check_choices(call, fields)
    check_metadata(fields)


def text_of(message):
    """A message's text, whether it came as one or as a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part if isinstance(part, str)
                    else str(part.get("text") or "") for part in content)


def reply_tokens(messages, name):
    """The reply to the last user message: words with the space before."""
    said = [text_of(message) for message in messages
            if message["role"] == "user"]
    echo = f'You said: "{said[-1]}".' if said else "You said nothing."
    return re.findall(r"\s*\S+", f"Hello! {echo} I am the {name} endpoint"
                      " of the reference router; I repeat what I am told.")


def usage_of(messages, token_count):
    """Words count as tokens; a system message makes a warm cache."""
    prompt_count = sum(len(text_of(message).split()) for message in messages)
    has_system = any(message["role"] == "system" for message in messages)
    return {"prompt_tokens": prompt_count,
            "completion_tokens": token_count,
            "total_tokens": prompt_count + token_count,
            "prompt_tokens_details": {"cached_tokens": 4 * has_system},
            "completion_tokens_details": {"reasoning_tokens": 0}}


# == what the choices are

def tokens_of(text):
    return re.findall(r"\s*\S+|\s+\Z", text)


def said_last(messages):
    return next((text_of(message) for message in messages[::-1]
                 if message["role"] == "user"), "")


def words_of(call, fields, number):
    """The tokens of a choice: an echo, or the JSON that is asked for."""
    given = fields.get("response_format") or {"type": "text"}
    text = said_last(fields["messages"])
    if given["type"] == "json_object":
        return tokens_of(json.dumps({"said": text}))
    if given["type"] == "json_schema":
        schema = given["json_schema"].get("schema", {})
        return tokens_of(json.dumps(sample_of(schema, schema, text)))
    words = reply_tokens(fields["messages"], call.slug or fields["model"])
    return words + [f" ({number + 1})"] * bool(number)


def cut(tokens, fields):
    """(the tokens up to a stop or the limit, why they end)."""
    limit = (fields.get("max_completion_tokens") or fields.get("max_tokens")
             or len(tokens))
    stops = fields.get("stop") or []
    text = "".join(tokens[:limit])
    ends = [text.index(stop) for stop in (
        [stops] if isinstance(stops, str) else stops) if stop in text]
    if ends:
        return tokens_of(text[:min(ends)]), "stop"
    return tokens[:limit], "length" if limit < len(tokens) else "stop"


def tool_to_call(fields):
    """The function that a request insists on, or None."""
    choice = fields.get("tool_choice")
    if choice in (None, "auto", "none"):
        return None
    return next(tool["function"] for tool in fields["tools"]
                if choice == "required"
                or called_name(choice) == called_name(tool))


def make_choice(call, fields, number):
    """(choice, its tokens); a function by name ends it, too, with "stop"."""
    message = {"role": "assistant", "content": None, "refusal": None}
    function = tool_to_call(fields)
    if function:
        schema = function.get("parameters") or {}
        arguments = json.dumps(sample_of(schema, schema,
                                         said_last(fields["messages"])))
        message["tool_calls"] = [{
            "id": f"call_{next(call.store.numbers):024x}", "type": "function",
            "function": {"name": function["name"], "arguments": arguments}}]
        tokens = tokens_of(arguments)
        reason = ("tool_calls" if fields["tool_choice"] == "required"
                  else "stop")
    else:
        tokens, reason = cut(words_of(call, fields, number), fields)
        message["content"] = "".join(tokens)
    return {"index": number, "message": message, "logprobs": None,
            "finish_reason": reason}, tokens


def make_completion(call, fields):
    """(completion, the tokens of each of its choices)."""
    made = [make_choice(call, fields, number)
            for number in range(fields.get("n") or 1)]
    choices, tokens = map(list, zip(*made))
    return {"id": call.store.completions.next_id(),
            "object": "chat.completion",
            "created": int(call.store.clock()), "model": fields["model"],
            "service_tier": None, "system_fingerprint": None,
            "choices": choices,
            "usage": usage_of(fields["messages"], sum(map(len, tokens)))
            }, tokens


def make_chunk(completion, choices, **more):
    names = ("id", "object", "created", "model", "service_tier",
             "system_fingerprint")
    chunk = {name: completion[name] for name in names}
    return dict(chunk, object="chat.completion.chunk", choices=choices,
                **more)


def delta_frame(completion, number, delta, finish_reason=None):
    choice = {"index": number, "delta": delta, "finish_reason": finish_reason}
    return as_frame(make_chunk(completion, [choice]))


def deltas_of(choice, tokens):
    """What a choice is streamed as: its role, and then token by token."""
    head = {"role": "assistant", "content": ""}
    if "tool_calls" not in choice["message"]:
        return [head] + [{"content": token} for token in tokens]
    called, = choice["message"]["tool_calls"]
    begun = dict(called, index=0, function=dict(called["function"],
                                                arguments=""))
    return [dict(head, content=None, tool_calls=[begun])] + [
        {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}
        for token in tokens]


def vendor_frame(kind, **fields):
    return as_frame(dict({"type": kind}, **fields), event=kind)


def completion_frames(completion, tokens, has_usage, has_events):
    """The frames of a streamed completion, from the roles to [DONE].

    Of several choices each has its turn, token by token.
    """
    choices = completion["choices"]
    deltas = list(map(deltas_of, choices, tokens))
    frames = [delta_frame(completion, number, delta)
              for turn in itertools.zip_longest(*deltas)
              for number, delta in enumerate(turn) if delta]
    yield from frames[:len(choices)]
    if has_events:
        yield vendor_frame("x_research.progress", step=1,
                           message="Reading the question")
    yield from frames[len(choices):]
    if has_events:
        yield vendor_frame("x_research.progress", step=2,
                           message="Writing it down")
        yield vendor_frame("x_artifact.created", artifact_id="cart_1",
                           title="What was said")
    for choice in choices:
        yield delta_frame(completion, choice["index"], {},
                          choice["finish_reason"])
    if has_usage:
        yield as_frame(make_chunk(completion, [], usage=completion["usage"]))
    yield b"data: [DONE]\n\n"


def store_completion(call, completion, fields):
    """Keep a completion with what its request had, and the messages."""
    record = dict(completion, metadata=fields.get("metadata") or {})
    for name, *_ in COMPLETION_RANGES:
        if name in fields:
            record[name] = fields[name]
    call.store.completions.keep(record, call.project)
    messages = call.store.completion_messages
    for message in fields["messages"] + [completion["choices"][0]["message"]]:
        is_list = isinstance(message.get("content"), list)
        parts = message["content"] if is_list else None
        content = text_of(message) if is_list else message.get("content")
        messages.keep(dict(message, id=messages.next_id(), content=content,
                           content_parts=parts), completion["id"])


def stream_completion(call, completion, tokens, fields):
    has_usage = (fields.get("stream_options") or {}).get("include_usage")
    has_events = call.seen.headers.get("X-Xerotier-Vendor-Events") == "1"
    frames = completion_frames(completion, tokens, has_usage, has_events)
    return Answer(frames=list(frames), pace=call.store.pace)


def create_completion(call):
    fields = call.fields()
    check_completion(call, fields)
    model = fields["model"]
    if call.form == PLAIN and model != OPENAI_MODEL:
        raise Refusal(404, f"The model '{model}' does not exist.",
                      code="model_not_found", param="model")
    completion, tokens = make_completion(call, fields)
    if fields.get("store"):
        store_completion(call, completion, fields)
    if not fields.get("stream"):
        return completion
    return stream_completion(call, completion, tokens, fields)


def list_completions(call):
    """A page of those with the model and metadata that the query names."""
    pairs = {match.group(1): value for match, value in (
        (re.match(r"metadata\[(.*)\]\Z", name, re.S), value)
        for name, value in call.query.items()) if match}
    wanted = {"metadata": lambda metadata: all(
        metadata.get(name) == value for name, value in pairs.items())}
    if "model" in call.query:
        wanted["model"] = call.query["model"].__eq__
    return call.store.completions.list(call.query, call.project, wanted)


def update_completion(call, completion_id):
    call.store.completions.get(completion_id, call.project)
    fields = call.fields()
    check_fields(fields, {"metadata": OBJECT}, "metadata")
    return call.store.completions.update(completion_id, **fields)


# ---------------------------------------------------------------------------
# 8. Responses
# ---------------------------------------------------------------------------

ITEM_TYPES = ("message", "function_call", "function_call_output",
              "reasoning", "item_reference")
RESPONSE_RANGES = (
    ("temperature", NUMBER, 0, 2),
    ("top_p", NUMBER, 0, 1),
    ("max_output_tokens", int, 1, math.inf),
)
RESPONSE_ENDS = ("completed", "failed", "cancelled", "incomplete")
THOUGHT = "I think before I speak. Then I say it."
REFUSED = "I'm sorry, but I must refuse this."


def as_part(part, role):
    """A part of a message's content; a text becomes one."""
    if not isinstance(part, str):
        return part
    if role == "assistant":
        return {"type": "output_text", "text": part, "annotations": []}
    return {"type": "input_text", "text": part}


def as_item(item, where):
    """The fields of an item as it is kept, once it is found to be one."""
    if not isinstance(item, dict):
        raise bad(where, "must be an object")
    kind = item.get("type") or "message"
    if kind not in ITEM_TYPES:
        raise bad(f"{where}.type", f"must be one of {', '.join(ITEM_TYPES)}")
    if kind != "message":
        return dict(item)
    check_message(item, where)
    role, content = item["role"], item.get("content")
    parts = content if isinstance(content, list) else [content]
    return {"type": kind, "role": role, "status": "completed",
            "content": [as_part(part, role) for part in parts]}


def keep_items(collection, items, owner):
    """Keep items with ids of their own, and return the records."""
    return [collection.keep(dict({"id": collection.next_id(),
                                  "object": collection.kind}, **item), owner)
            for item in items]


def read_input(given):
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not (isinstance(given, list) and given):
        raise bad("input", "must be a text or a list that is not empty")
    return [as_item(item, f"input[{number}]")
            for number, item in enumerate(given)]


def as_in_chat(fields, messages):
    """The tools, their choice and the text's format, as chat has them."""
    def nested(value):
        is_flat = isinstance(value, dict) and value.get("type") == "function"
        return {"type": "function", "function": value} if is_flat else value
    text, tools = fields.get("text"), fields.get("tools") or None
    given = text.get("format") if isinstance(text, dict) else None
    if isinstance(given, dict) and given.get("type") == "json_schema":
        given = {"type": "json_schema", "json_schema": given}
    return dict(fields, messages=messages, response_format=given,
                tool_choice=nested(fields.get("tool_choice")), tools=(
                    list(map(nested, tools)) if isinstance(tools, list)
                    else tools))


def check_response(call, fields):
    for name in ("model", "instructions", "previous_response_id"):
        if fields.get(name) is not None and not is_text(fields[name]):
            raise bad(name, "must be a text that is not empty")
    if call.form == PLAIN and fields.get("model") != OPENAI_MODEL:
        raise Refusal(404, f"The model '{fields.get('model')}' does not"
                      " exist.", code="model_not_found", param="model")
    for limits in RESPONSE_RANGES:
        check_range(fields, *limits)
    check_metadata(fields)
    if fields.get("background") and fields.get("store") is False:
        raise bad("background", "needs store")


def find_conversation(call, fields):
    """The id of the conversation that a response belongs to, or None."""
    given = fields.get("conversation")
    if given is None:
        return None
    if fields.get("previous_response_id"):
        raise bad("conversation", "not with previous_response_id")
    if isinstance(given, dict):
        given = given.get("id")
    if not is_text(given):
        raise bad("conversation", "must be an id, or an object with one")
    return call.store.conversations.get(given, call.project)["id"]


def count_turns(call, fields, conversation_id):
    """How many turns came before, by the chain or in the conversation."""
    previous = fields.get("previous_response_id")
    if previous:
        call.store.responses.get(previous, call.project)
        return call.store.turns[previous]
    if conversation_id:
        items = call.store.conversation_items.of(conversation_id)
        return sum(item.get("role") == "user" for item in items)
    return 0


def said_in(items):
    """The messages that the items are; a tool's output counts as one."""
    return [item if item["type"] == "message"
            else {"role": "user", "content": str(item.get("output"))}
            for item in items
            if item["type"] in ("message", "function_call_output")]


# == what a response says

def message_item(store, part):
    return {"id": store.response_items.next_id(), "type": "message",
            "role": "assistant", "status": "completed", "content": [part]}


def tool_call_item(store, name, arguments):
    number = next(store.numbers)
    return {"id": f"fc_{number:024x}", "type": "function_call",
            "call_id": f"call_{number:024x}", "name": name,
            "arguments": arguments, "status": "completed"}


def forced_call(call, asked):
    """The call of a tool that a request insists on, or None."""
    function = tool_to_call(asked)
    if not function:
        return None
    schema = function.get("parameters") or {}
    return tool_call_item(call.store, function["name"], json.dumps(
        sample_of(schema, schema, said_last(asked["messages"]))))


def compose(call, fields, messages, turns):
    """The items of an output; words of the last message shape them.

    As OpenAI it does what tool_choice and the text's format ask for.
    """
    said = text_of(messages[-1]).lower() if messages else ""
    if "fail now" in said:
        return []
    output = []
    if "think first" in said:
        output.append({"id": f"rs_{next(call.store.numbers):024x}",
                       "type": "reasoning", "summary": [
                           {"type": "summary_text", "text": THOUGHT}]})
    asked = as_in_chat(fields if call.form == PLAIN else {}, messages)
    forced = forced_call(call, asked)
    if forced:
        return output + [forced]
    if "call the tool" in said:
        first = (fields.get("tools") or [{}])[0]
        return output + [tool_call_item(
            call.store, first.get("name") or "get_weather",
            '{"city": "Paris", "unit": "celsius"}')]
    if "refuse this" in said:
        part = {"type": "refusal", "refusal": REFUSED}
    elif (asked["response_format"] or {}).get("type", "text") != "text":
        text = "".join(words_of(call, asked, 0))
        part = dict(as_part(text, "assistant"), logprobs=[])
    else:
        name = call.slug or fields.get("model") or OPENAI_MODEL
        text = "".join(reply_tokens(messages, name))
        if turns:
            text += f" I know {turns} turns before this."
        part = dict(as_part(text, "assistant"), logprobs=[])
    return output + [message_item(call.store, part)]


def texts_of(output):
    """Each text that is said in an output, the thoughts before it too."""
    for item in output:
        if item["type"] == "function_call":
            yield item["arguments"]
        for part in item.get("summary", []) + item.get("content", []):
            yield part.get("text") or part.get("refusal")


def cut_text(output, limit):
    """Cut the last message to so many tokens; False: it has no more."""
    if not output or output[-1]["type"] != "message":
        return False
    part = output[-1]["content"][0]
    tokens = tokens_of(part.get("text", ""))
    if len(tokens) <= limit:
        return False
    part["text"] = "".join(tokens[:limit])
    output[-1]["status"] = "incomplete"
    return True


def find_end(fields, messages, output):
    """(status, error, incomplete_details) that a response ends with."""
    said = text_of(messages[-1]).lower() if messages else ""
    if "fail now" in said or "fail later" in said:
        cut_text(output, 2)
        return "failed", {"code": "server_error",
                          "message": "The model failed, as was wished."}, None
    limit = 3 if "be cut" in said else fields.get("max_output_tokens")
    if limit and cut_text(output, limit):
        return "incomplete", None, {"reason": "max_output_tokens"}
    return "completed", None, None


def usage_of_response(fields, messages, output, turns):
    told = [text_of(message) for message in messages]
    told.append(fields.get("instructions") or "")
    input_count = sum(len(text.split()) for text in told)
    output_count = sum(len(tokens_of(text)) for text in texts_of(output))
    thought_count = sum(len(tokens_of(THOUGHT)) for item in output
                        if item["type"] == "reasoning")
    is_warm = bool(fields.get("instructions") or turns)
    return {"input_tokens": input_count,
            "input_tokens_details": {"cached_tokens": 4 * is_warm},
            "output_tokens": output_count,
            "output_tokens_details": {"reasoning_tokens": thought_count},
            "total_tokens": input_count + output_count}


# What a request says of a response, and what it is when it says nothing.
RESPONSE_FIELDS = {
    "instructions": None, "max_output_tokens": None,
    "parallel_tool_calls": True, "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default", "temperature": 1.0,
    "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
    "top_p": 1.0, "truncation": "disabled", "metadata": {},
}


def make_response(call, fields, messages, conversation_id, turns):
    """A response that has ended."""
    store = call.store
    output = compose(call, fields, messages, turns)
    status, error, details = find_end(fields, messages, output)
    now = int(store.clock())
    response = {
        "id": store.responses.next_id(), "object": "response",
        "created_at": now, "status": status,
        "background": bool(fields.get("background")),
        "completed_at": now if status == "completed" else None,
        "conversation": conversation_id and {"id": conversation_id},
        "error": error, "incomplete_details": details,
        "model": fields.get("model") or call.slug, "output": output,
        "store": fields.get("store") is not False,
        "usage": usage_of_response(fields, messages, output, turns)}
    for name, value in RESPONSE_FIELDS.items():
        given = fields.get(name)
        response[name] = copy.deepcopy(value) if given is None else given
    return response


def unfinished(response, status):
    """A response as it was before it ended."""
    return dict(response, status=status, output=[], usage=None, error=None,
                incomplete_details=None, completed_at=None)


def store_response(call, response, items, turns):
    call.store.responses.keep(response, call.project)
    call.store.turns[response["id"]] = turns
    keep_items(call.store.response_items, items, response["id"])


def begin(store, response):
    """Have a stored response end after some GETs, and not at once."""
    record = unfinished(response, "queued")

    def enter(_):
        if record["status"] in RESPONSE_ENDS:
            record.update(response)
            if record["completed_at"]:
                record["completed_at"] = int(store.clock())
    store.responses.keep(record)
    store.responses.start(record, course(
        store.response_polls, "queued", "in_progress", response["status"]),
        enter)
    return record


# == the events of a stream: (type, fields) of each

def text_events(kind, name, text, place):
    """A text bit by bit, then the whole of it."""
    for token in tokens_of(text):
        yield f"response.{kind}.delta", dict(place, delta=token)
    yield f"response.{kind}.done", dict(place, **{name: text})


def part_events(item, place):
    """The events of a message's only part, a text or a refusal."""
    part, = item["content"]
    place = dict(place, item_id=item["id"], content_index=0)
    name = "refusal" if part["type"] == "refusal" else "text"
    kind = "refusal" if name == "refusal" else "output_text"
    yield "response.content_part.added", dict(
        place, part=dict(part, **{name: ""}))
    yield from text_events(kind, name, part[name], place)
    yield "response.content_part.done", dict(place, part=part)


def summary_events(item, place):
    for number, part in enumerate(item["summary"]):
        place = dict(place, item_id=item["id"], summary_index=number)
        yield "response.reasoning_summary_part.added", dict(
            place, part=dict(part, text=""))
        yield from text_events("reasoning_summary_text", "text",
                               part["text"], place)
        yield "response.reasoning_summary_part.done", dict(place, part=part)


def argument_events(item, place):
    return text_events("function_call_arguments", "arguments",
                       item["arguments"], dict(place, item_id=item["id"]))


# An item's type: its events, and its fields before any of them.
ITEM_EVENTS = {
    "message": (part_events, {"status": "in_progress", "content": []}),
    "function_call": (argument_events, {"status": "in_progress",
                                        "arguments": ""}),
    "reasoning": (summary_events, {"summary": []}),
}


def item_events(item, number):
    events, before = ITEM_EVENTS[item["type"]]
    place = {"output_index": number}
    yield "response.output_item.added", dict(place, item=dict(item, **before))
    yield from events(item, place)
    yield "response.output_item.done", dict(place, item=item)


def response_events(response):
    first = ["queued", "in_progress"] if response["background"] else [
        "in_progress"]
    yield "response.created", {"response": unfinished(response, first[0])}
    for status in first:
        yield f"response.{status}", {"response": unfinished(response, status)}
    for number, item in enumerate(response["output"]):
        yield from item_events(item, number)
    yield f"response.{response['status']}", {"response": response}


def stream_response(call, response):
    frames = [as_frame(dict({"type": kind, "sequence_number": number},
                            **fields), kind)
              for number, (kind, fields) in enumerate(
                  response_events(response))]
    if call.seen.headers.get("X-Xerotier-Vendor-Events") == "1":
        frames.insert(2, vendor_frame("x_research.progress", step=1,
                                      message="Reading the question"))
    return Answer(frames=frames, pace=call.store.pace)


# == requests for them

def create_response(call):
    fields = call.fields()
    check_response(call, fields)
    items = read_input(fields.get("input"))
    conversation_id = find_conversation(call, fields)
    turns = count_turns(call, fields, conversation_id)
    messages = said_in(items)
    if call.form == PLAIN:
        asked = as_in_chat(fields, messages)
        check_tools(asked)
        check_format(call, asked, "text.format", "text.format")
    response = make_response(call, fields, messages, conversation_id, turns)
    if conversation_id:
        output = [{key: value for key, value in item.items() if key != "id"}
                  for item in response["output"]]
        for new in (items, output):
            keep_items(call.store.conversation_items, new, conversation_id)
    if response["store"]:
        store_response(call, response, items, turns + 1)
    if fields.get("stream"):
        return stream_response(call, response)
    if response["background"]:
        return begin(call.store, response)
    return response


def cancel_response(call, response_id):
    record = call.store.responses.get(response_id, call.project)
    if not record["background"]:
        raise Refusal(409, "Only a background response can be cancelled.")
    if record["status"] in RESPONSE_ENDS:
        raise Refusal(409, f"The response is {record['status']} already.")
    call.store.responses.stop(record, "cancelled")
    return record


# ---------------------------------------------------------------------------
# 9. Files
# ---------------------------------------------------------------------------

def new_etag(store):
    return f'"v{next(store.numbers)}"'


def put_content(store, record, content):
    """Give a file its content, and with it an ETag that none had yet."""
    record["bytes"] = content.size
    store.contents[record["id"]] = new_etag(store), content


def seconds_left(name, given):
    """How long a file lasts by {"anchor": …, "seconds": …}; None: for ever."""
    if given is None:
        return None
    if not isinstance(given, dict) or given.get("anchor") != "created_at":
        raise bad(f"{name}.anchor", "must be created_at")
    seconds = given.get("seconds")
    if type(seconds) is not int or not 3600 <= seconds <= 30 * DAY:
        raise bad(f"{name}.seconds", f"must be from 3600 to {30 * DAY}")
    return seconds


def forget_files(store):
    """Have those whose time is over be gone."""
    for record in list(store.files.records.values()):
        if record["expires_at"] and record["expires_at"] <= store.clock():
            store.files.delete(record["id"])


def store_file(store, project, name, content, purpose, relative_path=None,
               lasts=None):
    record = store.files.create(
        project, bytes=content.size, filename=name, purpose=purpose,
        status="processed", expires_at=None, x_relative_path=relative_path)
    if lasts is not None:
        record["expires_at"] = record["created_at"] + lasts
    put_content(store, record, content)
    return record


def text_part(parts, name):
    if name not in parts:
        return None
    return parts[name].content.read().decode("utf-8", "replace")


def asked_expiry(parts):
    """What expires_after[anchor] and expires_after[seconds] say, or None."""
    given = {name: text_part(parts, f"expires_after[{name}]")
             for name in ("anchor", "seconds")}
    if given == {"anchor": None, "seconds": None}:
        return None
    seconds = given["seconds"] or ""
    return dict(given, seconds=int(seconds) if seconds.isdecimal() else None)


def create_file(call):
    parts = call.seen.parts
    if parts is None:
        raise Refusal(400, "The body is not a form of multipart/form-data.")
    purpose = text_part(parts, "purpose")
    if purpose not in PURPOSES:
        raise bad("purpose", f"must be one of {', '.join(PURPOSES)}")
    if "file" not in parts or parts["file"].filename is None:
        raise bad("file", "must be a part that has a file name")
    name, content = parts["file"]
    if content.size > call.store.file_limit:
        raise Refusal(413, f"The file exceeds {call.store.file_limit} bytes.",
                      param="file")
    record = store_file(call.store, call.project, name, content, purpose,
                        text_part(parts, "relative_path"),
                        seconds_left("expires_after", asked_expiry(parts)))
    return Answer(200 if call.form == PLAIN else 201, as_json(record))


def list_files(call):
    wanted = {}
    if "purpose" in call.query:
        wanted["purpose"] = call.query["purpose"].__eq__
    if "prefix" in call.query:
        wanted["x_relative_path"] = lambda path: (path or "").startswith(
            call.query["prefix"])
    return call.store.files.list(call.query, call.project, wanted)


def delete_file(call, file_id):
    deleted = call.store.files.delete(file_id, call.project)
    del call.store.contents[file_id]
    return deleted


def disposition(name):
    """The header that names a download, whatever is in the name."""
    plain = "".join(sign if " " <= sign <= "~" else "_" for sign in name)
    quoted = re.sub(r'(["\\])', r"\\\1", plain)
    if plain == name:
        return f'attachment; filename="{quoted}"'
    exact = urllib.parse.quote(name, safe="", errors="surrogateescape")
    return f"attachment; filename=\"{quoted}\"; filename*=UTF-8''{exact}"


def asked_range(call, etag, size):
    """(start, size) of the range that is asked for; None: the whole.

    Of several ranges, and of what is no range, the whole may be sent.
    """
    headers = call.seen.headers
    asked = re.match(r"bytes=([0-9]*)-([0-9]*)\Z", headers.get("Range", ""))
    if (not asked or call.seen.method == "HEAD" or asked.group() == "bytes=-"
            or headers.get("If-Range", etag) != etag):
        return None
    first, last = asked.groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if first and last and int(last) < start:
        return None
    if start >= size:
        raise Refusal(416, "The range is not in the file.",
                      {"Content-Range": f"bytes */{size}"})
    return start, end - start


def send_content(call, name, etag, content,
                 content_type="application/octet-stream"):
    """A download, of the whole or of the range that is asked for."""
    headers = {"ETag": etag, "Accept-Ranges": "bytes",
               "Content-Disposition": disposition(name)}
    found = asked_range(call, etag, content.size)
    status = 206 if found else 200
    if found:
        start, size = found
        headers["Content-Range"] = (
            f"bytes {start}-{start + size - 1}/{content.size}")
        content = content.slice(start, size)
    return Answer(status, content, headers, content_type=content_type)


def get_content(call, file_id):
    record = call.store.files.get(file_id, call.project)
    return send_content(call, record["filename"],
                        *call.store.contents[file_id])


# ---------------------------------------------------------------------------
# 10. Batches
# ---------------------------------------------------------------------------

class Plan:
    """What becomes of one batch; the defaults let it run its course."""

    # Where it waits for `gate`, a threading.Event (None: for ever): at
    # "validating", "in_progress", "finalizing" or "cancelling".  A cancel
    # ends each of these waits but the last; so does the end of the router.
    hold = gate = None
    after = 0               # in_progress: hold after so many lines
    pace = 0                # seconds before each line

    # How it ends.
    fail = ()               # errors of the validation: dicts, see `flaw`
    expire_after = None     # expires after so many lines
    fail_lines = {}         # custom_id: status of the error it gets

    # What it tells, and what is in its two files.
    no_counts = False       # no request_counts
    no_files = False        # completed, and no file at all
    lose = ()               # these custom_ids are in neither file
    repeat = ()             # these are there twice
    unknown = ()            # these are in the output, which nobody sent
    output = errors = None  # exactly these bytes

    def __init__(self, **words):
        for word in words:
            if not hasattr(Plan, word) or word.startswith("_"):
                raise TypeError(f"no such word of a plan: {word}")
        vars(self).update(words)


def flaw(code, message, param=None, line=None):
    """One of the errors for which a batch fails."""
    return {"code": code, "message": message, "param": param, "line": line}


def line_flaws(line, endpoint, ids):
    """What is wrong with a line of an input file: (code, param, message)."""
    if not line.strip():
        return [("blank_line", None, "The line is blank.")]
    try:
        fields = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return [("invalid_json_line", None, "The line is no JSON object.")]
    flaws = []
    custom_id = fields.get("custom_id")
    if not (isinstance(custom_id, str) and custom_id):
        flaws.append(("missing_required_parameter", "custom_id",
                      "The custom_id must be a text that is not empty."))
    elif custom_id in ids:
        flaws.append(("duplicate_custom_id", "custom_id",
                      f"The custom_id '{custom_id}' is not unique."))
    else:
        ids.add(custom_id)
    if fields.get("method") != "POST":
        flaws.append(("invalid_method", "method", "The method must be POST."))
    if fields.get("url") != endpoint:
        flaws.append(("mismatched_url", "url",
                      f"The url must be {endpoint}, as the batch says."))
    if not isinstance(fields.get("body"), dict):
        flaws.append(("missing_required_parameter", "body",
                      "The body must be an object."))
    return flaws


def input_flaws(content, endpoint):
    """The errors of an input file, each with its line, one by one."""
    ids, number = set(), 0
    for number, line in enumerate(content.lines(), 1):
        for code, param, message in line_flaws(line, endpoint, ids):
            yield flaw(code, message, param, number)
    if not number:
        yield flaw("empty_file", "The input file is empty.")


def check_batch(call, fields):
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(fields.get(name), str):
            raise bad(name, "must be a text")
    if fields["endpoint"] not in BATCH_ENDPOINTS:
        raise bad("endpoint", f"must be one of {', '.join(BATCH_ENDPOINTS)}")
    if fields["completion_window"] != "24h":
        raise bad("completion_window", "must be 24h")
    # The pairs that OpenAI counts are any number here, in 16 KB.
    metadata = (check_metadata(fields) if call.form == PLAIN
                else fields.get("metadata") or {})
    if not isinstance(metadata, dict):
        raise bad("metadata", "must be an object")
    if len(as_json(metadata)) > METADATA_LIMIT:
        raise Refusal(400, "Metadata exceeds maximum size of 16KB",
                      code=None, param="metadata")


def check_input(call, file_id):
    files = call.store.files
    if not files.has(file_id, call.project):
        raise bad("input_file_id", f"no file has the id '{file_id}'")
    record = files.get(file_id)
    if record["purpose"] != "batch":
        raise bad("input_file_id", "the file's purpose must be batch")
    if record["bytes"] > call.store.batch_limit:
        raise Refusal(413, "Input file exceeds 100 MB", code=None,
                      param="input_file_id")


def lines_base(call):
    """What a line's url is put behind to come to an endpoint."""
    if call.form == PLAIN:
        return ""
    slug = call.slug or call.store.endpoints.of(call.project)[0]["slug"]
    return f"/{call.project}/{slug}"


def create_batch(call):
    fields = call.fields()
    check_batch(call, fields)
    check_input(call, fields["input_file_id"])
    lasts = seconds_left("output_expires_after",
                         fields.get("output_expires_after"))
    store = call.store
    plan = store.plans.pop(0) if store.plans else Plan()
    record = store.batches.create(
        call.project, endpoint=fields["endpoint"], model=None,
        errors=None, input_file_id=fields["input_file_id"],
        completion_window=fields["completion_window"], status="validating",
        output_file_id=None, error_file_id=None, in_progress_at=None,
        expires_at=int(store.clock()) + DAY, finalizing_at=None,
        completed_at=None, failed_at=None, expired_at=None,
        cancelling_at=None, cancelled_at=None,
        request_counts={"total": 0, "completed": 0, "failed": 0},
        usage=None, metadata=fields.get("metadata"))
    if plan.no_counts:
        del record["request_counts"]
    store.start_batch(record, plan, call.project, lines_base(call),
                      call.seen.headers["Authorization"], lasts)
    return record


def cancel_batch(call, batch_id):
    record = call.store.batches.get(batch_id, call.project)
    if record["status"] in BATCH_ENDS:
        raise Refusal(409, f"The batch is {record['status']} already.")
    if record["status"] != "cancelling":
        record.update(status="cancelling",
                      cancelling_at=int(call.store.clock()))
    return record


# ---------------------------------------------------------------------------
# 11. Models
# ---------------------------------------------------------------------------

# What is there from the start: id, name, format, bytes, status, version,
# whether it is shared, workload, architecture, quantization, context length,
# parameters.
MODELS = (
    ("8b1f4c2d-9e7a-4f3b-bc11-2d8e6a4c5f01", "qwen3-7b-instruct",
     "safetensors", 15231233024, "validated", "1.1.0", False, "inference",
     "transformer", "awq", 32768, 7000000000),
    ("2a3c5b6e-7d8f-4019-9c2a-1b4d3e5f6a7c", "llama-3.3-70b-instruct",
     "safetensors", 141107412992, "active", "1.0.0", True, "inference",
     "transformer", None, 131072, 70553706496),
    ("3f7e8d9a-1c2b-4d5e-8f60-7a8b9c0d1e2f", "bge-large-en-v1.5", "onnx",
     1340612608, "ready", "1.5.0", False, "embedding", "bert", None, 512,
     335141888),
    ("4a5b6c7d-8e9f-4012-9a3b-5c6d7e8f9012", "bge-reranker-v2-m3",
     "safetensors", 2271064064, "active", "2.0.0", False, "reranking",
     "xlm-roberta", None, 8192, 567754752),
    ("5b6c7d8e-9f01-4234-8a4b-6c7d8e9f0123", "mixtral-8x7b", "gguf",
     26441533376, "pending", "1.0.0", False, "inference", "transformer",
     "gptq", 32768, 46702792704),
    ("6c7d8e9f-0123-4456-8b5c-7d8e9f012345", "mamba-2.8b", "safetensors",
     5536481280, "failed", "0.9.0", False, "inference", "mamba", None, 2048,
     2768345088),
)
EXTENDED = ("architecture", "quantization", "context_length",
            "parameter_count", "license", "hidden_size", "num_layers",
            "vocab_size", "torch_dtype", "num_experts",
            "num_experts_per_tok", "pre_quantized",
            "pre_quantization_method", "pre_quantization_bits",
            "capabilities")
MODEL_RULES = {
    "description": STRING,
    "license": TEXT, "architecture": TEXT, "quantization": TEXT,
    "context_length": COUNT, "parameter_count": COUNT, "hidden_size": COUNT,
    "num_layers": COUNT, "vocab_size": COUNT, "workload_type": TEXT,
    "torch_dtype": one_of("float16", "bfloat16", "float32"),
    "num_experts": COUNT, "num_experts_per_tok": COUNT,
    "pre_quantized": FLAG,
    "pre_quantization_method": one_of("gptq", "awq", "compressed-tensors"),
    "pre_quantization_bits": one_of(4, 8),
}
NUMERAL = r"(?:0|[1-9][0-9]*)"
SEMVER = re.compile(r"%s\.%s\.%s(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?\Z"
                    % (NUMERAL, NUMERAL, NUMERAL))


def add_model(store, project, model_id, name, size, **fields):
    """Keep a new model; what is not given is not known of it."""
    model = {"id": model_id, "name": name, "object": "model",
             "created": int(store.clock()), "owned_by": project,
             "format": None, "size_bytes": size, "status": "validated",
             "version": "1.0.0", "is_latest": True, "description": None,
             "shared": False, "workload_type": "inference"}
    model.update(dict.fromkeys(EXTENDED), **fields)
    return store.models.keep(model)


def add_version(store, model, version, notes=None, is_latest=False):
    return store.versions.keep({
        "id": store.versions.next_id(), "object": "model.version",
        "model_id": model["id"], "version": version, "is_latest": is_latest,
        "created": int(store.clock()), "version_notes": notes,
        "status": model["status"]}, model["id"])


def seed_models(store):
    for (model_id, name, kind, size, status, version, is_shared, workload,
         architecture, quantization, length, count) in MODELS:
        model = add_model(
            store, DEMO_PROJECT, model_id, name, size, format=kind,
            created=MODEL_CREATED, status=status, version=version,
            description=f"{name}, as it comes with the reference router."
            " It is shown in lists, and is served by no endpoint; what is"
            " changed of it is kept as long as the router runs.",
            shared=is_shared, workload_type=workload,
            architecture=architecture, quantization=quantization,
            context_length=length, parameter_count=count)
        if version != "1.0.0":
            add_version(store, model, "1.0.0", "The first one")
        add_version(store, model, version, is_latest=True)


def served_models(call):
    """OpenAI's record of each model that is served where a call goes."""
    if call.form == ENDPOINT:
        names = [call.store.endpoint(call.project, call.slug)["model"]]
    else:
        names = [OPENAI_MODEL] if call.form == PLAIN else PROJECT_MODELS
    return [{"id": name, "object": "model", "created": MODEL_CREATED,
             "owned_by": call.project} for name in names]


def as_listed(model, is_extended):
    return {name: value for name, value in model.items()
            if is_extended or name not in EXTENDED}


def list_models(call):
    """What is served there, or a page of the project's model records.

    The names alone, as OpenAI has them, come with what was uploaded.
    """
    if call.form != PROJECT:
        return {"object": "list", "data": served_models(call)}
    is_extended = call.query.get("extended") == "true"
    models = [as_listed(model, is_extended)
              for model in call.store.models.of(call.project)]
    if call.store.lists_names and not is_extended:
        seeded = [row[0] for row in MODELS]
        models = served_models(call) + [model for model in models
                                        if model["id"] not in seeded]
    return offset_page(models, call.query)


def get_model(call, model_id):
    """A record, or what is told of a model by the name it is served by."""
    for model in served_models(call):
        if model["id"] == model_id:
            return model
    return call.store.models.step(model_id, call.project)


def update_model(call, model_id):
    call.store.models.get(model_id, call.project)
    return call.store.models.update(
        model_id, **check_fields(call.fields(), MODEL_RULES))


def shares(is_shared):
    """The handler that shares a model to the catalogue, or takes it out."""
    def handler(call, model_id):
        model = call.store.models.get(model_id, call.project)
        if model["shared"] == is_shared:
            state = "shared" if is_shared else "not shared"
            raise Refusal(409, f"The model is {state} already.")
        model["shared"] = is_shared
        return model
    return handler


def revalidate_model(call, model_id):
    store = call.store
    model = store.models.get(model_id, call.project)
    store.models.start(model, (
        [model["status"]] * store.revalidation_lag
        + ["validating"] * store.revalidation_polls
        + [store.revalidation_end]))
    return Answer(202, as_json({"id": model_id, "status": "queued",
                                "object": "model.revalidation"}))


def get_catalog(call, model_id):
    model = call.store.models.get(model_id, call.project)
    is_shared = model["shared"]
    return {"id": model_id, "object": "model.catalog", "model_id": model_id,
            "name": model["name"], "shared": is_shared,
            "role": "deployable" if is_shared else None,
            "license": model["license"], "tags": [model["workload_type"]],
            "downloads": 3 * is_shared,
            "published_at": MODEL_CREATED if is_shared else None}


def probe_model(call, model_id):
    model = call.store.models.get(model_id, call.project)
    does_chat = model["workload_type"] == "inference"
    capabilities = {"chat": does_chat, "streaming": does_chat,
                    "tool-use": does_chat, "vision": False,
                    "embeddings": model["workload_type"] == "embedding",
                    "rerank": model["workload_type"] == "reranking"}
    for name in model["capabilities"] or ():
        capabilities[name] = True
    return {"object": "model.probe", "model_id": model_id,
            "capabilities": capabilities}


def set_capabilities(call, model_id):
    call.store.models.get(model_id, call.project)
    fields = check_fields(call.fields(), {"capabilities": TEXTS},
                          "capabilities")
    return call.store.models.update(model_id, **fields)


def recommend_models(call, workspace_id):
    call.store.workspaces.get(workspace_id, call.project)
    models = [model for model in call.store.models.of(call.project)
              if model["status"] not in ("failed", "pending")]
    return {"object": "list", "has_more": False, "data": [
        {"model_id": model["id"], "name": model["name"],
         "score": round(0.97 - 0.125 * number, 3),
         "reason": f"Fits {model['workload_type']} in this workspace"}
        for number, model in enumerate(models)]}


# == versions

def create_version(call, model_id):
    model = call.store.models.get(model_id, call.project)
    fields = check_fields(call.fields(), {"version": TEXT,
                                          "version_notes": TEXT}, "version")
    if not SEMVER.match(fields["version"]):
        raise bad("version", "must be a semantic version such as 2.0.0")
    if any(each["version"] == fields["version"]
           for each in call.store.versions.of(model_id)):
        raise Refusal(409, f"There is a version {fields['version']}.")
    return made(add_version(call.store, model, fields["version"],
                            fields.get("version_notes")))


def choose_version(call, model_id, name):
    """Make a version the latest: the same for promote and rollback."""
    model = call.store.models.get(model_id, call.project)
    versions = call.store.versions.of(model_id)
    chosen = [each for each in versions if each["version"] == name]
    if not chosen:
        raise Refusal(404, f"The model has no version '{name}'.")
    if chosen[0]["is_latest"]:
        raise Refusal(409, f"The version {name} is the latest already.")
    for each in versions:
        each["is_latest"] = each is chosen[0]
    model["version"] = name
    return chosen[0]


# == uploads

UPLOAD_RULES = {
    "purpose": one_of("model"), "filename": TEXT, "bytes": COUNT,
    "mime_type": TEXT, "name": TEXT, "format": TEXT,
    "description": STRING,
}
UPLOAD_ENDS = ("completed", "failed", "cancelled", "expired")


def create_upload(call):
    fields = check_fields(call.fields(), UPLOAD_RULES,
                          "purpose filename bytes")
    if not fields["bytes"]:
        raise bad("bytes", "must be more than 0")
    store = call.store
    upload = store.uploads.create(
        call.project, filename=fields["filename"], bytes=fields["bytes"],
        purpose="model", name=fields.get("name") or fields["filename"],
        mime_type=fields.get("mime_type"), format=fields.get("format"),
        description=fields.get("description"), status="pending",
        chunk_size=store.chunk_size,
        total_chunks=-(-fields["bytes"] // store.chunk_size),
        uploaded_chunks=0, progress=0.0, sha256=None, model_id=None,
        expires_at=int(store.clock()) + DAY)
    store.weights[upload["id"]] = Spool()
    return made(upload)


def parts_of(store, upload):
    """The parts that are there, in the order of their numbers."""
    return sorted(store.parts.of(upload["id"]),
                  key=lambda part: part["part_number"])


def count_parts(store, upload):
    """Tell how far an upload is; returns the parts that are there."""
    parts = parts_of(store, upload)
    size = sum(part["size"] for part in parts)
    upload.update(uploaded_chunks=len(parts),
                  progress=round(100 * size / upload["bytes"], 1))
    return parts


def drop_parts(store, upload, status):
    upload["status"] = status
    store.weights.pop(upload["id"]).close()
    for part in store.parts.of(upload["id"]):
        store.parts.delete(part["id"])


def get_upload(call, upload_id):
    upload = call.store.uploads.get(upload_id, call.project)
    if (upload["status"] not in UPLOAD_ENDS
            and call.store.clock() > upload["expires_at"]):
        drop_parts(call.store, upload, "expired")
    return upload


def open_upload(call, upload_id):
    """An upload that has not ended."""
    upload = get_upload(call, upload_id)
    if upload["status"] in UPLOAD_ENDS:
        raise Refusal(409, f"The upload is {upload['status']} already.")
    return upload


def check_part(call, upload, number, content):
    """The number of a part is one of its upload, and its size that one's."""
    if not (number.isdigit() and 1 <= int(number) <= upload["total_chunks"]):
        raise bad("part_number",
                  f"must be from 1 to {upload['total_chunks']}")
    if content.size > upload["chunk_size"]:
        raise Refusal(413, f"The part exceeds {upload['chunk_size']} bytes.",
                      param="data")
    start = (int(number) - 1) * upload["chunk_size"]
    size = min(upload["bytes"] - start, upload["chunk_size"])
    if content.size != size:
        raise bad("data", f"part {number} must have {size} bytes,"
                  f" and has {content.size}")
    wanted = text_part(call.seen.parts, "sha256")
    digest = content.sha256()
    if wanted is not None and wanted.lower() != digest:
        raise bad("sha256", f"the part's is {digest}")
    return start, digest


def create_part(call, upload_id):
    """Put a part where it belongs; the same one again takes its place."""
    store, upload = call.store, open_upload(call, upload_id)
    if not call.seen.parts or "data" not in call.seen.parts:
        raise bad("data", "must be a part of a multipart/form-data body")
    number = text_part(call.seen.parts, "part_number") or ""
    content = call.seen.parts["data"].content
    start, digest = check_part(call, upload, number, content)
    for block in content:
        store.weights[upload_id].write_at(start, block)
        start += len(block)
    for part in store.parts.of(upload_id):
        if part["part_number"] == int(number):
            store.parts.delete(part["id"])
    part = store.parts.create(
        upload_id, upload_id=upload_id, part_number=int(number),
        size=content.size, sha256=digest)
    upload["status"] = "uploading"
    count_parts(store, upload)
    return part


def complete_upload(call, upload_id):
    store, upload = call.store, open_upload(call, upload_id)
    fields = check_fields(call.fields(), {"part_ids": TEXTS, "sha256": TEXT},
                          "part_ids")
    parts = count_parts(store, upload)
    if (len(parts) != upload["total_chunks"]
            or [part["id"] for part in parts] != fields["part_ids"]):
        raise bad("part_ids", f"must be all {upload['total_chunks']} parts"
                  f" in their order; {len(parts)} are there")
    digest = Content(store.weights[upload_id]).sha256()
    if (fields.get("sha256") or digest).lower() != digest:
        raise bad("sha256", f"the whole has {digest}")
    model = add_model(
        store, call.project, store.models.next_id(), upload["name"],
        upload["bytes"], format=upload["format"],
        description=upload["description"])
    store.models.owners[model["id"]] = call.project
    add_version(store, model, "1.0.0", is_latest=True)
    upload.update(status="completed", sha256=digest, model_id=model["id"])
    return upload


def resume_upload(call, upload_id):
    upload = open_upload(call, upload_id)
    parts = parts_of(call.store, upload)
    there = [part["part_number"] for part in parts]
    return {"object": "upload.resume", "upload_id": upload_id,
            "next_part": next(number for number in itertools.count(1)
                              if number not in there),
            "parts": [{name: part[name] for name in (
                "id", "part_number", "size", "sha256")} for part in parts]}


def cancel_upload(call, upload_id):
    upload = open_upload(call, upload_id)
    drop_parts(call.store, upload, "cancelled")
    return upload


def delete_upload(call, upload_id):
    upload = call.store.uploads.get(upload_id, call.project)
    if upload_id in call.store.weights:
        drop_parts(call.store, upload, "cancelled")
    return call.store.uploads.delete(upload_id)


# ---------------------------------------------------------------------------
# 12. Groups
# ---------------------------------------------------------------------------

# == embeddings, rerank and score

def check_model(fields):
    if not is_text(fields.get("model")):
        raise bad("model", "must be a text that is not empty")


def check_texts(texts, name):
    """A list of texts, at most so many, from a text or a list of them."""
    if is_text(texts):
        texts = [texts]
    if not (isinstance(texts, list) and texts):
        raise bad(name, "must be a text or a list that is not empty")
    if len(texts) > INPUT_LIMIT:
        raise bad(name, f"must be at most {INPUT_LIMIT}")
    return texts


def is_tokens(given):
    """Whether it is a text in the form of its tokens' numbers."""
    return (isinstance(given, list) and given != []
            and all(type(each) is int for each in given))


def vector_of(given, count):
    """So many numbers that float32 has too, of length 1 in all."""
    numbers = random.Random(zlib.crc32(as_json(given)))
    values = [numbers.random() * 2 - 1 for _ in range(count)]
    norm = math.sqrt(sum(value * value for value in values))
    form = f"<{count}f"
    return struct.unpack(form, struct.pack(
        form, *(value / norm for value in values)))


def as_vector(values, encoding):
    if encoding == "base64":
        data = struct.pack(f"<{len(values)}f", *values)
        return base64.b64encode(data).decode("ascii")
    return values


def create_embeddings(call):
    """A vector for each input, the same one for the same input."""
    fields = call.fields()
    check_model(fields)
    given = fields.get("input")
    texts = check_texts([given] if is_tokens(given) else given, "input")
    if not all(is_text(text) or is_tokens(text) for text in texts):
        raise bad("input", "must be texts that are not empty, or tokens")
    check_range(fields, "dimensions", int, 1, 4096)
    encoding = fields.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise bad("encoding_format", "must be float or base64")
    count = sum(len(text.split() if isinstance(text, str) else text)
                for text in texts)
    size = fields.get("dimensions") or 8
    return {"object": "list", "model": fields["model"],
            "data": [{"object": "embedding", "index": number,
                      "embedding": as_vector(vector_of(text, size),
                                             encoding)}
                     for number, text in enumerate(texts)],
            "usage": {"prompt_tokens": count, "total_tokens": count}}


def likeness(text, other):
    """From 0 to 1: how many of the words of a text the other has too.

    Where they are as many, the texts themselves tell them apart.
    """
    words = set(re.findall(r"\w+", text.lower()))
    shared = words & set(re.findall(r"\w+", other.lower()))
    share = len(shared) / max(len(words), 1)
    return round(0.05 + 0.9 * share
                 + zlib.crc32(as_json(other)) / 2 ** 32 / 20, 6)


def document_text(document):
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise bad("documents", "must be texts, or objects with a text")
    return text


def score_usage(*texts):
    count = sum(len(text.split()) for text in texts)
    return {"prompt_tokens": count, "total_tokens": count}


def without_id(value):
    """An answer that does not name its request, as those two do not."""
    return Answer(body=as_json(value), headers={"X-Request-ID": None})


def rerank(call):
    fields = call.fields()
    check_model(fields)
    if not is_text(fields.get("query")):
        raise bad("query", "must be a text that is not empty")
    given = check_texts(fields.get("documents"), "documents")
    texts = [document_text(document) for document in given]
    check_range(fields, "top_n", int, 1, math.inf)
    results = [{"index": number,
                "relevance_score": likeness(fields["query"], text)}
               for number, text in enumerate(texts)]
    results.sort(key=lambda result: -result["relevance_score"])
    if fields.get("return_documents"):
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    return without_id({
        "id": f"rerank-{next(call.store.numbers)}",
        "model": fields["model"], "results": results[:fields.get("top_n")],
        "usage": score_usage(fields["query"], *texts)})


def score(call):
    fields = call.fields()
    check_model(fields)
    if not is_text(fields.get("text_1")):
        raise bad("text_1", "must be a text that is not empty")
    texts = check_texts(fields.get("text_2"), "text_2")
    if not all(isinstance(text, str) for text in texts):
        raise bad("text_2", "must be texts")
    return without_id({
        "id": f"score-{next(call.store.numbers)}", "object": "list",
        "created": int(call.store.clock()), "model": fields["model"],
        "data": [{"index": number, "object": "score",
                  "score": likeness(fields["text_1"], text)}
                 for number, text in enumerate(texts)],
        "usage": score_usage(fields["text_1"], *texts)})


# == conversations

def read_items(items):
    if not isinstance(items, list) or len(items) > 20:
        raise bad("items", "must be a list of at most 20 items")
    return [as_item(item, f"items[{number}]")
            for number, item in enumerate(items)]


def create_conversation(call):
    fields = call.fields()
    items = read_items(fields.get("items") or [])
    conversation = call.store.conversations.create(
        call.project, metadata=check_metadata(fields))
    keep_items(call.store.conversation_items, items, conversation["id"])
    return conversation


def touch(call, conversation_id, **fields):
    return call.store.conversations.update(
        conversation_id, call.project, updated_at=int(call.store.clock()),
        **fields)


def update_conversation(call, conversation_id):
    return touch(call, conversation_id,
                 metadata=check_metadata(call.fields()))


def add_items(call, conversation_id):
    """Keep the items of a list, or the one that is the body itself."""
    call.store.conversations.get(conversation_id, call.project)
    fields = call.fields()
    is_list = "items" in fields
    items = (read_items(fields["items"]) if is_list
             else [as_item(fields, "item")])
    kept = keep_items(call.store.conversation_items, items, conversation_id)
    touch(call, conversation_id)
    if not is_list:
        return kept[0]
    return {"object": "list", "data": kept, "first_id": kept and kept[0]["id"],
            "last_id": kept and kept[-1]["id"], "has_more": False}


def delete_item(call, conversation_id, item_id):
    conversation = touch(call, conversation_id)
    call.store.conversation_items.delete(item_id, conversation_id)
    return conversation


# == workspaces

WORKSPACE_RULES = {
    "name": TEXT, "type": TEXT, "status": one_of("active", "archived"),
    "description": STRING, "settings": OBJECT,
}
WORKSPACE_DEFAULTS = {"name": None, "type": "general", "status": "active",
                      "description": None, "settings": {}}


def seed_workspaces(store):
    now = int(store.clock())
    for workspace_id, name in WORKSPACES.items():
        store.workspaces.keep(dict(
            {"id": workspace_id, "object": "workspace", "created_at": now},
            **dict(copy.deepcopy(WORKSPACE_DEFAULTS), name=name,
                   updated_at=now)))


def list_bound_agents(call, workspace_id):
    call.store.workspaces.get(workspace_id, call.project)
    bound = call.store.bindings.get(workspace_id, ())
    return call.store.agents.list(call.query, call.project,
                                  {"id": bound.__contains__})


def bind_agent(call, workspace_id):
    call.store.workspaces.get(workspace_id, call.project)
    fields = check_fields(call.fields(), {"agent_id": TEXT}, "agent_id")
    agent_id = call.store.agents.get(fields["agent_id"], call.project)["id"]
    bound = call.store.bindings.setdefault(workspace_id, [])
    if agent_id in bound:
        raise Refusal(409, "The agent is bound to the workspace already.")
    bound.append(agent_id)
    return made({"id": agent_id, "object": "workspace.agent",
                 "workspace_id": workspace_id, "agent_id": agent_id,
                 "created_at": int(call.store.clock())})


def unbind_agent(call, workspace_id, agent_id):
    call.store.workspaces.get(workspace_id, call.project)
    bound = call.store.bindings.get(workspace_id, [])
    if agent_id not in bound:
        raise Refusal(404, f"The agent '{agent_id}' is not bound to it.")
    bound.remove(agent_id)
    return {"id": agent_id, "object": "workspace.agent.deleted",
            "deleted": True}


# == chats

def add_chat(call, workspace_id, title, template_id=None, version=None):
    store, now = call.store, int(call.store.clock())
    chat_id = store.chats.next_id()
    return store.chats.keep({
        "id": chat_id, "object": "chat", "chat_id": chat_id,
        "url": f"/chats/{chat_id}", "title": title, "status": "active",
        "workspace_id": workspace_id, "template_id": template_id,
        "template_version": version, "created_at": now, "updated_at": now,
        "messages": []}, call.project)


def as_chat(chat):
    """A chat without its messages, of which the number is told."""
    shown = dict(chat, message_count=len(chat["messages"]))
    del shown["messages"]
    return shown


def list_messages(call, chat_id):
    messages = call.store.chats.get(chat_id, call.project)["messages"]
    is_desc = call.query.get("order") == "desc"
    return cursor_page(messages[::-1 if is_desc else 1], call.query)


def create_chat(call):
    fields = check_fields(call.fields(), {"workspace_id": TEXT,
                                          "title": TEXT}, "workspace_id")
    call.store.workspaces.get(fields["workspace_id"], call.project)
    return made(as_chat(add_chat(call, fields["workspace_id"],
                                 fields.get("title"))))


def touch_chat(call, chat_id, **fields):
    return call.store.chats.update(
        chat_id, call.project, updated_at=int(call.store.clock()), **fields)


def rename_chat(call, chat_id):
    call.store.chats.get(chat_id, call.project)
    return as_chat(touch_chat(call, chat_id, **check_fields(
        call.fields(), {"title": TEXT}, "title")))


def moves_chat(status):
    """The handler that archives a chat, or restores it."""
    def handler(call, chat_id):
        chat = call.store.chats.get(chat_id, call.project)
        if chat["status"] == status:
            raise Refusal(409, f"The chat is {status} already.")
        return as_chat(touch_chat(call, chat_id, status=status))
    return handler


def post_message(call, chat_id):
    chat = call.store.chats.get(chat_id, call.project)
    fields = call.fields()
    check_message(fields, "message")
    if chat["status"] != "active":
        raise Refusal(409, f"The chat is {chat['status']}.")
    message = {"id": f"msg_{next(call.store.numbers):024x}",
               "object": "chat.message", "role": fields["role"],
               "content": fields.get("content"),
               "created_at": int(call.store.clock())}
    touch_chat(call, chat_id)["messages"].append(message)
    return made(message)


def export_chat(call, chat_id):
    chat = call.store.chats.get(chat_id, call.project)
    form = call.query.get("format", "json")
    if form not in ("json", "md"):
        raise bad("format", "must be json or md")
    if form == "json":
        return {"object": "chat.export", "chat": as_chat(chat),
                "messages": chat["messages"]}
    blocks = [f"# {chat['title'] or chat['id']}"] + [
        f"## {message['role']}\n\n{text_of(message)}"
        for message in chat["messages"]]
    return Answer(body="\n\n".join(blocks + [""]).encode("utf-8", "replace"),
                  content_type="text/markdown; charset=utf-8")


# == chat templates

TEMPLATE_RULES = {
    "name": Rule("must be in kebab-case", lambda value: is_text(value)
                 and re.match(r"[a-z0-9]+(-[a-z0-9]+)*\Z", value)),
    "scope": one_of("platform", "project", "workspace"),
    "description": STRING, "system_prompt": TEXT, "allowed_tools": WORDS,
    "approval_policy": one_of("standard", "elevated", "restricted"),
    "applicable_workspace_types": WORDS, "metadata": OBJECT,
    "notes": STRING,
}
TEMPLATE_DEFAULTS = {
    "name": None, "scope": None, "description": None, "system_prompt": None,
    "allowed_tools": [], "approval_policy": "standard",
    "applicable_workspace_types": [], "metadata": {},
}


def keep_version(store, template, notes=None):
    """Keep a template as it is now, for whoever asks for this version."""
    version = template["version"]
    store.snapshots[template["id"], version] = dict(template)
    store.template_versions.keep({
        "id": f"{template['id']}:{version}",
        "object": "chat_template.version", "template_id": template["id"],
        "version": version, "notes": notes,
        "created_at": int(store.clock())}, template["id"])


def add_template(store, project, template_id, workspace_id, fields):
    now = int(store.clock())
    template = {"id": template_id, "object": "chat_template"}
    template.update(copy.deepcopy(TEMPLATE_DEFAULTS), **fields)
    template.update(version=1, workspace_id=workspace_id, created_at=now,
                    updated_at=now)
    return store.templates.keep(template, project)


def seed_templates(store):
    for template_id, name, scope, workspace_id, version in TEMPLATES:
        template = add_template(
            store, None, template_id, workspace_id,
            {"name": name, "scope": scope,
             "description": f"What to do to {name.replace('-', ' ')}",
             "system_prompt": "You work step by step, and say each step."})
        for number in range(1, version + 1):
            template["version"] = number
            keep_version(store, template)


def templates_in(call, workspace_id):
    call.store.workspaces.get(workspace_id, call.project)
    return [template for template in call.store.templates.of(call.project)
            if template["workspace_id"] == workspace_id]


def list_templates(call, workspace_id=None):
    if workspace_id is not None:
        # Two by two: a client that looks for a name must follow the pages.
        return cursor_page(templates_in(call, workspace_id), call.query,
                           fallback=2)
    scope = call.query.get("scope", "all")
    return call.store.templates.list(call.query, call.project, {
        "scope": lambda each: scope in ("all", each)})


def find_template(call, ids):
    """The template of a path, which may go through its workspace."""
    template = call.store.templates.get(ids[-1], call.project)
    if len(ids) == 2 and template not in templates_in(call, ids[0]):
        raise Refusal(404, f"No chat_template with the id '{ids[-1]}' here.")
    return template


def get_template(call, *ids):
    template = find_template(call, ids)
    version = as_count(call.query, "version", template["version"], 1)
    if (ids[-1], version) not in call.store.snapshots:
        raise Refusal(404, f"The template has no version {version}.")
    if version == template["version"]:
        return template
    return call.store.snapshots[ids[-1], version]


def check_name(call, name, workspace_id, but=None):
    for each in call.store.templates.of(call.project):
        if (each is not but and each["name"] == name
                and each["workspace_id"] == workspace_id):
            raise Refusal(409, f"There is a template '{name}' already.",
                          param="name")


def create_template(call, workspace_id=None):
    fields = check_fields(call.fields(), TEMPLATE_RULES, "name system_prompt")
    scope = "workspace" if workspace_id else "project"
    if fields.get("scope", scope) not in (
            [scope] if workspace_id else ["project", "platform"]):
        raise bad("scope", "does not go with the path")
    if workspace_id:
        call.store.workspaces.get(workspace_id, call.project)
    check_name(call, fields["name"], workspace_id)
    notes = fields.pop("notes", None)
    template = add_template(
        call.store, call.project, call.store.templates.next_id(),
        workspace_id, dict({"scope": scope}, **fields))
    keep_version(call.store, template, notes)
    return made(template)


def update_template(call, *ids):
    template = find_template(call, ids)
    fields = check_fields(call.fields(), TEMPLATE_RULES)
    if fields.get("scope", template["scope"]) != template["scope"]:
        raise bad("scope", "is changed by a promotion alone")
    check_name(call, fields.get("name"), template["workspace_id"], template)
    notes = fields.pop("notes", None)
    template.update(fields, version=template["version"] + 1,
                    updated_at=int(call.store.clock()))
    keep_version(call.store, template, notes)
    return template


def delete_template(call, *ids):
    return call.store.templates.delete(find_template(call, ids)["id"])


def list_template_versions(call, *ids):
    return call.store.template_versions.list(call.query,
                                             find_template(call, ids)["id"])


def promote_template(call, *ids):
    template = find_template(call, ids)
    fields = check_fields(call.fields(), {
        "scope": one_of("platform", "project")}, "scope")
    if template["scope"] == fields["scope"]:
        raise Refusal(409, f"The scope is {fields['scope']} already.")
    check_name(call, template["name"], None, template)
    template.update(fields, workspace_id=None,
                    updated_at=int(call.store.clock()))
    return template


def apply_template(call, workspace_id, template_id):
    call.store.workspaces.get(workspace_id, call.project)
    template = call.store.templates.get(template_id, call.project)
    if template["workspace_id"] not in (None, workspace_id):
        raise Refusal(404, f"No chat_template with the id '{template_id}'"
                      " here.")
    chat = add_chat(call, workspace_id, template["name"], template["id"],
                    template["version"])
    return made({name: chat[name] for name in (
        "chat_id", "url", "template_id", "template_version",
        "workspace_id")})


# == usage

USAGE_DAYS = 90         # before today that there is something to tell of
COUNTED = ("requests", "errors", "input_tokens", "output_tokens",
           "cached_tokens", "total_tokens")


def read_time(fields, name, fallback, is_end=False):
    """The seconds of a field; a date that ends something ends itself."""
    text = fields.get(name)
    if text is None:
        return fallback
    if not is_time(text):
        raise bad(name, "must be a date or time of ISO 8601")
    return as_seconds(text) + DAY * (is_end and len(text) == 10)


def read_period(call):
    now = int(call.store.clock())
    today = now - now % DAY
    start = read_time(call.query, "from", today - 29 * DAY)
    end = read_time(call.query, "to", today + DAY, is_end=True)
    if end <= start:
        raise bad("to", "must be after from")
    return start, end


def usage_of_day(day, endpoint):
    """What an endpoint did on a day: made up, but always the same."""
    chance = random.Random(zlib.crc32(f"{day} {endpoint['slug']}".encode()))
    requests = chance.randrange(20, 220)
    told = {"requests": requests, "errors": requests // 50,
            "input_tokens": requests * chance.randrange(80, 120),
            "output_tokens": requests * chance.randrange(150, 250),
            "cached_tokens": requests * chance.randrange(40)}
    told["total_tokens"] = told["input_tokens"] + told["output_tokens"]
    told["ttft_ms"] = chance.randrange(90, 300)
    told["latency_ms"] = told["ttft_ms"] + chance.randrange(800, 4000)
    return told


def usage_rows(store, project, period, slug=None, model=None):
    """(start of the day, endpoint, usage) for each day and endpoint."""
    start, end = period
    now = int(store.clock())
    first = max(start - start % DAY, now - now % DAY - USAGE_DAYS * DAY)
    for day in range(first, min(end, now + 1), DAY):
        for endpoint in store.endpoints.of(project):
            if (slug in (None, endpoint["slug"])
                    and model in (None, endpoint["model"])):
                yield day, endpoint, usage_of_day(day, endpoint)


def asked_usage(call):
    return usage_rows(call.store, call.project, read_period(call),
                      call.query.get("endpoint"), call.query.get("model"))


def sum_of(rows):
    """Usages as one: counts are added, times are averaged."""
    rows = list(rows)
    total = {name: sum(row[name] for row in rows) for name in COUNTED}
    for name in ("ttft_ms", "latency_ms"):
        total[name] = round(sum(row[name] for row in rows)
                            / max(len(rows), 1), 1)
    return total


def groups_usage(key):
    """The handler of a list with a row for each value of some fields."""
    def handler(call):
        groups = {}
        for day, endpoint, told in asked_usage(call):
            groups.setdefault(key(day, endpoint), []).append(told)
        return {"object": "list", "data": [
            dict(dict(fields), **sum_of(rows))
            for fields, rows in groups.items()]}
    return handler


def get_usage_summary(call):
    start, end = read_period(call)
    return dict({"object": "usage.summary", "from": as_iso(start),
                 "to": as_iso(end)},
                **sum_of(told for *_, told in asked_usage(call)))


def requests_of(rows):
    """A few requests for each day and endpoint, oldest first."""
    for day, endpoint, told in rows:
        for number in range(3):
            is_bad = number == 2 and told["errors"] > 2
            yield {"id": f"req_{day // DAY}_{endpoint['slug']}_{number}",
                   "created_at": as_iso(day + 3600 * (number + 1)),
                   "endpoint_slug": endpoint["slug"],
                   "model_name": endpoint["model"],
                   "status_code": 503 if is_bad else 200,
                   "input_tokens": 90 + number,
                   "output_tokens": 0 if is_bad else 200 + number,
                   "cached_tokens": 8 * number, "ttft_ms": told["ttft_ms"],
                   "latency_ms": told["latency_ms"]}


def list_usage_requests(call):
    return cursor_page(list(requests_of(asked_usage(call)))[::-1],
                       call.query)


# ---------------------------------------------------------------------------
# 13. Management
# ---------------------------------------------------------------------------

# == webhooks

FAMILIES = ("batch", "response", "file", "conversation", "exec", "agent",
            "join_key", "ox")
SAFE_URL = re.compile(
    r"https://[^/\s]+|http://(localhost|127\.0\.0\.1|\[::1\])[:/]")
WEBHOOK_RULES = {
    "url": Rule("must begin with https://", lambda value: is_text(value)
                and SAFE_URL.match(value)),
    "events": Rule("must be names of events", lambda value: is_texts(value)
                   and value and all(each.split(".")[0] in FAMILIES
                                     and "." in each for each in value)),
    "description": STRING, "active": FLAG, "secret": TEXT,
    "metadata": OBJECT,
}
WEBHOOK_DEFAULTS = {"url": None, "events": [], "active": True,
                    "description": None, "metadata": {}}
TESTS_AN_HOUR = 10


def create_webhook(call):
    fields = check_fields(call.fields(), WEBHOOK_RULES, "url events")
    secret = fields.pop("secret", None)
    webhook = create_record(call, "webhooks", WEBHOOK_DEFAULTS, fields)
    digest = hashlib.sha256(webhook["id"].encode()).hexdigest()
    return made(dict(webhook, secret=secret or f"whsec_{digest[:32]}"))


def update_webhook(call, webhook_id):
    call.store.webhooks.get(webhook_id, call.project)
    fields = check_fields(call.fields(), WEBHOOK_RULES)
    fields.pop("secret", None)
    return call.store.webhooks.update(
        webhook_id, updated_at=int(call.store.clock()), **fields)


def try_webhook(call, webhook_id):
    """Tell of a delivery, which is not made; "fail" in the URL fails it."""
    store, now = call.store, int(call.store.clock())
    webhook = store.webhooks.get(webhook_id, call.project)
    recent = [each for each in store.deliveries.of(webhook_id)
              if each["created_at"] > now - 3600]
    if len(recent) >= TESTS_AN_HOUR:
        wait = recent[0]["created_at"] + 3600 - now
        raise Refusal(429, "At most 10 tests in an hour.",
                      {"Retry-After": str(wait)}, retry_after=wait,
                      code="rate_limit_exceeded")
    is_bad = "fail" in webhook["url"]
    number = len(store.deliveries.records) + 1
    delivery = store.deliveries.create(
        webhook_id, webhook_id=webhook_id, event_id=f"evt_{number:024x}",
        event="webhook.test", status="exhausted" if is_bad else "delivered",
        attempts=6 if is_bad else 1, response_status=500 if is_bad else 200)
    return Answer(202, as_json(delivery))


# == keys

KEY_RULES = {
    "name": TEXT, "endpoint_id": TEXT,
    "scopes": Rule(f"must be some of {', '.join(DOC_SCOPES)}",
                   lambda value: is_texts(value) and value
                   and set(value) <= set(DOC_SCOPES)),
    "expires_at": Rule("must be a time", lambda value: is_time(value)
                       or COUNT.is_met(value)),
}


def is_network(text):
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


NETWORKS = Rule("must be a list of addresses or CIDRs",
                lambda value: is_texts(value) and all(map(is_network, value)))


def add_key(store, project, value, name, scopes, **more):
    """Keep the record of a key, and have its value lead to it."""
    prefix = "_".join(value.split("_")[:2]) + "_"
    record = store.keys.create(
        project, name=name, prefix=prefix, scopes=list(scopes), active=True,
        project_id=project, last_used_at=None, expires_at=None,
        endpoint_id=None, ip_filter=None, quota=None)
    record.update(more)
    store.values[value] = record["id"], None
    return record


def new_value(store, project):
    """The value of a key, such as no key has had."""
    number = len(store.values) + 1
    digest = hashlib.sha256(f"{project} {number}".encode()).hexdigest()
    return f"xero_{project.partition('_')[2] or project}_{digest[:32]}"


def check_endpoint(call, fields):
    endpoint_id = fields.get("endpoint_id")
    if endpoint_id is not None and not call.store.endpoints.has(
            endpoint_id, call.project):
        raise bad("endpoint_id", f"no endpoint has the id '{endpoint_id}'")


def create_key(call):
    fields = check_fields(call.fields(), KEY_RULES, "name scopes")
    if fields.get("endpoint_id"):
        check_endpoint(call, fields)
    value = new_value(call.store, call.project)
    return made(dict(add_key(call.store, call.project, value, **fields),
                     key=value))


def rotate_key(call, key_id):
    """Give a key another value; the one before works for a day."""
    store = call.store
    record = store.keys.get(key_id, call.project)
    if not record["active"]:
        raise Refusal(409, "The key is revoked.")
    until = int(store.clock()) + DAY
    for value, (each, end) in store.values.items():
        if each == key_id and end is None:
            store.values[value] = key_id, until
    value = new_value(store, call.project)
    store.values[value] = key_id, None
    return dict(record, key=value, previous_expires_at=until)


def revoke_key(call, key_id):
    record = call.store.keys.get(key_id, call.project)
    record["active"] = False
    return {"id": key_id, "object": "api_key.deleted", "deleted": True}


def sets_of_key(name, rules, needed=""):
    """The handler that puts a whole object in a field of a key."""
    def handler(call, key_id):
        call.store.keys.get(key_id, call.project)
        given = call.fields()
        if given.keys() == rules.keys() and not any(given.values()):
            return call.store.keys.update(key_id, **{name: None})
        fields = check_fields(given, rules, needed)
        whole = {each: fields.get(each, []) for each in rules}
        return call.store.keys.update(key_id, **{name: whole})
    return handler


# == agents and join keys

AGENT_RULES = {
    "name": TEXT,
    "region": Rule("must be 1 to 24 signs of ASCII", lambda value: is_text(
        value) and re.match(r"[!-~]{1,24}\Z", value)),
    "max_concurrent_requests": COUNT, "description": STRING,
    "supported_tiers": WORDS, "storage_limit_enabled": FLAG,
    "storage_limit_bytes": COUNT,
}
AGENT_DEFAULTS = {
    "name": None, "worker_id": None, "region": None, "status": "pending",
    "description": None, "max_concurrent_requests": 0,
    "supported_tiers": None, "storage_limit_enabled": None,
    "storage_limit_bytes": None, "exec_paused": False,
    "paused_workspaces": [], "last_seen_at": None,
}
IN_WORKSPACE = {"workspace_id": TEXT}


def note_event(store, agent, kind, message):
    store.agent_events.create(agent["id"], agent_id=agent["id"],
                              type=f"agent.{kind}", message=message)


def add_agent(store, project, **fields):
    agent = store.agents.create(project, **dict(
        copy.deepcopy(AGENT_DEFAULTS), updated_at=int(store.clock())))
    number = len(store.agents.records)
    agent.update(dict({"worker_id": f"worker-{number:02d}"}, **fields))
    note_event(store, agent, "created", f"The agent {agent['name']} is new")
    return agent


def create_agent(call):
    fields = check_fields(call.fields(), AGENT_RULES, "name")
    return made(add_agent(call.store, call.project, **fields))


def acts_on_agent(kind, rules, change):
    """The handler of an action, which leaves an event of this kind."""
    def handler(call, agent_id):
        agent = call.store.agents.get(agent_id, call.project)
        fields = check_fields(call.fields(is_needed=False), rules)
        message = change(call, agent, fields)
        agent["updated_at"] = int(call.store.clock())
        note_event(call.store, agent, kind, message)
        return agent
    return handler


def pause_exec(call, agent, fields):
    workspace_id = fields.get("workspace_id")
    if workspace_id is None:
        agent["exec_paused"] = True
        return "Execution is paused"
    call.store.workspaces.get(workspace_id, call.project)
    if workspace_id not in agent["paused_workspaces"]:
        agent["paused_workspaces"].append(workspace_id)
    return f"Execution is paused in {workspace_id}"


def resume_exec(call, agent, fields):
    workspace_id = fields.get("workspace_id")
    if workspace_id is None:
        agent["exec_paused"] = False
        return "Execution goes on"
    if workspace_id not in agent["paused_workspaces"]:
        raise Refusal(409, "Execution is not paused in that workspace.")
    agent["paused_workspaces"].remove(workspace_id)
    return f"Execution goes on in {workspace_id}"


def revoke_credentials(call, agent, fields):
    if agent["status"] == "revoked":
        raise Refusal(409, "The credentials are revoked already.")
    agent["status"] = "revoked"
    return "The credentials are revoked"


def rotate_curve(call, agent, fields):
    number = len(call.store.agent_events.records)
    agent["curve_public_key"] = hashlib.sha256(
        f"{agent['id']} {number}".encode()).hexdigest()[:40]
    agent["curve_rotated_at"] = int(call.store.clock())
    return f"The curve keys are new: {fields.get('reason') or 'no reason'}"


def decides_candidate(status):
    """The handler that approves a candidate, or rejects it."""
    def handler(call, candidate_id):
        candidate = call.store.candidates.get(candidate_id, call.project)
        check_fields(call.fields(is_needed=False), {"reason": STRING})
        if candidate["status"] != "pending":
            raise Refusal(409, f"It is {candidate['status']} already.")
        candidate["status"] = status
        if status == "approved":
            candidate["agent_id"] = add_agent(
                call.store, call.project, **{each: candidate[each] for each
                                             in ("name", "worker_id",
                                                 "region")})["id"]
        return candidate
    return handler


JOIN_KEY_RULES = {
    "name": TEXT, "region": AGENT_RULES["region"], "expires_in_hours": COUNT,
    "router_addr": Rule("must be as tcp://HOST:PORT", lambda value: is_text(
        value) and re.match(r"tcp://[^/\s]+:[0-9]{1,5}\Z", value)),
}


def create_join_key(call):
    fields = check_fields(call.fields(), JOIN_KEY_RULES,
                          "name region router_addr")
    hours = fields.pop("expires_in_hours", None) or 24
    record = call.store.join_keys.create(
        call.project, status="active",
        expires_at=int(call.store.clock()) + 3600 * hours, **fields)
    digest = hashlib.sha256(record["id"].encode()).hexdigest()
    return made(dict(record, key=f"xjk_{digest[:40]}"))


def revoke_join_key(call, key_id):
    record = call.store.join_keys.get(key_id, call.project)
    if record["status"] != "active":
        raise Refusal(409, f"The join key is {record['status']} already.")
    record["status"] = "revoked"
    return {"id": key_id, "object": "join_key.deleted", "deleted": True}


def seed_agents(store):
    now = int(store.clock())
    for name, region, status in (("gpu-a", "eu-central", "online"),
                                 ("gpu-b", "us-east", "offline")):
        add_agent(store, None, name=name, region=region, status=status,
                  supported_tiers=["self_hosted"], last_seen_at=now - 30)
    for name, region in (("gpu-c", "eu-central"), ("gpu-d", "us-east")):
        digest = hashlib.sha256(name.encode()).hexdigest()
        store.candidates.create(
            name=name, worker_id=f"worker-{name}", region=region,
            fingerprint=digest[:40], status="pending", agent_id=None)


# == objectives

SLO_LIMIT = 50
SLO_RULES = {
    "name": Rule("must be 1 to 128 printable signs of ASCII",
                 lambda value: is_text(value)
                 and re.match(r"[ -~]{1,128}\Z", value)),
    "description": Rule("must be a text of at most 512 signs",
                        lambda value: isinstance(value, str)
                        and len(value) <= 512),
    "metric": Rule("must be a name", lambda value: is_text(value)
                   and re.match(r"[a-z0-9_]+\Z", value)),
    "target": Rule("must be a number of more than 0",
                   lambda value: NUMBERS.is_met(value) and value > 0),
    "comparison": one_of("greater_than_or_equal", "less_than_or_equal"),
    "window_days": Rule("must be from 1 to 90", lambda value: COUNT.is_met(
        value) and 1 <= value <= 90),
    "endpoint_id": TEXT,
}


def measure(store, slo, at):
    """Find how far an objective is met: made up, but always the same."""
    number = len(store.measurements.of(slo["id"]))
    chance = random.Random(zlib.crc32(f"{slo['id']} {number}".encode()))
    compliance = round(0.91 + 0.09 * chance.random(), 4)
    is_least = slo["comparison"] == "greater_than_or_equal"
    side = compliance - 0.97 if is_least else 0.97 - compliance
    value = round(slo["target"] * (1 + side), 4)
    slo.update(
        status="met" if compliance >= 0.97
        else "at_risk" if compliance >= 0.94 else "breached",
        compliance=compliance, current_value=value,
        compliance_percentage=round(100 * compliance, 2),
        last_calculated_at=at)
    store.measurements.create(slo["id"], slo_id=slo["id"], created_at=at,
                              compliance=compliance, value=value)
    return slo


def create_slo(call):
    fields = check_fields(call.fields(), SLO_RULES,
                          "name metric target comparison window_days")
    check_endpoint(call, fields)
    if len(call.store.slos.of(call.project)) >= SLO_LIMIT:
        raise Refusal(400, f"At most {SLO_LIMIT} objectives in a project.")
    slo = create_record(call, "slos", dict.fromkeys(SLO_RULES), fields)
    return made(measure(call.store, slo, slo["created_at"]))


def update_slo(call, slo_id):
    call.store.slos.get(slo_id, call.project)
    fields = check_fields(call.fields(), SLO_RULES)
    check_endpoint(call, fields)
    return call.store.slos.update(
        slo_id, updated_at=int(call.store.clock()), **fields)


def calculate_slo(call, slo_id):
    slo = call.store.slos.get(slo_id, call.project)
    return measure(call.store, slo, int(call.store.clock()))


def summarize_slos(call):
    slos = call.store.slos.of(call.project)
    counts = collections.Counter(slo["status"] for slo in slos)
    compliance = (sum(slo["compliance"] for slo in slos) / len(slos)
                  if slos else 1.0)
    return {"object": "slo.summary", "total": len(slos),
            "met": counts["met"], "at_risk": counts["at_risk"],
            "breached": counts["breached"],
            "compliance": round(compliance, 4),
            "compliance_percentage": round(100 * compliance, 2)}


def list_endpoint_slos(call, endpoint_id):
    call.store.endpoints.get(endpoint_id, call.project)
    return call.store.slos.list(call.query, call.project, {
        "endpoint_id": (None, endpoint_id).__contains__})


def seed_slos(store):
    now = int(store.clock())
    for name, metric, target, comparison in (
            ("Availability", "availability", 99.9, "greater_than_or_equal"),
            ("Slowest answers", "latency_p99", 2500, "less_than_or_equal")):
        slo = store.slos.create(
            name=name, description=None, metric=metric, target=target,
            comparison=comparison, window_days=30, endpoint_id=None,
            updated_at=now)
        for day in reversed(range(7)):
            measure(store, slo, now - day * DAY)


# == endpoints

ENDPOINT_RULES = {
    "slug": Rule("must be of a-z, 0-9 and -", lambda value: is_text(value)
                 and re.match(r"[a-z0-9-]+\Z", value)),
    "model": TEXT, "name": TEXT, "tier": TEXT, "region": TEXT,
    "status": one_of("active", "inactive"), "task_mode": TEXT,
    "parameters": OBJECT,
}
ENDPOINT_DEFAULTS = {
    "slug": None, "name": None, "model": None, "tier": "gpu_nvidia_shared",
    "region": "eu-central", "status": "active", "task_mode": "chat",
    "parameters": {},
}


def seed_endpoints(store):
    for project, served in PROJECTS.items():
        for slug, model in served.items():
            store.endpoints.create(project, **dict(
                copy.deepcopy(ENDPOINT_DEFAULTS), slug=slug, name=slug,
                model=model, updated_at=int(store.clock())))


def get_endpoint(call, slug):
    return call.store.endpoint(call.project, slug)


def create_endpoint(call):
    fields = check_fields(call.fields(), ENDPOINT_RULES, "slug model")
    taken = [each["slug"] for each in call.store.endpoints.of(call.project)]
    if fields["slug"] in taken:
        raise Refusal(409, f"The slug {fields['slug']} is taken.",
                      param="slug")
    return made(create_record(
        call, "endpoints", dict(ENDPOINT_DEFAULTS, name=fields["slug"]),
        fields))


def update_endpoint(call, slug):
    """Change an endpoint; what has no field is one of its parameters."""
    endpoint = get_endpoint(call, slug)
    fields = call.fields()
    for name in ("id", "slug"):
        if name in fields:
            raise bad(name, "is never changed")
    known = {name: fields.pop(name) for name in list(fields)
             if name in ENDPOINT_RULES}
    known = check_fields(known, ENDPOINT_RULES)
    parameters = dict(endpoint["parameters"],
                      **dict(known.pop("parameters", {}), **fields))
    endpoint.update(known, parameters=parameters,
                    updated_at=int(call.store.clock()))
    return endpoint


def delete_endpoint(call, slug):
    endpoint = get_endpoint(call, slug)
    deleted = call.store.endpoints.delete(endpoint["id"])
    return dict(deleted, slug=slug)


# == maintenance

MAINTENANCE_RULES = {
    "title": TEXT, "description": STRING, "starts_at": TIME, "ends_at": TIME,
    "severity": one_of("info", "warning", "critical"),
}
MAINTENANCE_DEFAULTS = {
    "title": None, "description": None, "starts_at": None, "ends_at": None,
    "severity": "info", "status": "scheduled",
}


def check_window(window):
    if as_seconds(window["ends_at"]) <= as_seconds(window["starts_at"]):
        raise bad("ends_at", "must be after starts_at")


def schedule_maintenance(call):
    fields = check_fields(call.fields(), MAINTENANCE_RULES,
                          "title starts_at ends_at")
    check_window(fields)
    now = as_iso(call.store.clock())
    return made(create_record(
        call, "maintenance", MAINTENANCE_DEFAULTS,
        dict(fields, created_at=now), updated_at=now))


def open_window(call, window_id):
    """A window that has neither been completed nor cancelled."""
    window = call.store.maintenance.get(window_id, call.project)
    if window["status"] in ("completed", "cancelled"):
        raise Refusal(409, f"It is {window['status']} already.")
    return window


def update_maintenance(call, window_id):
    window = open_window(call, window_id)
    fields = check_fields(call.fields(), MAINTENANCE_RULES)
    check_window(dict(window, **fields))
    window.update(fields, updated_at=as_iso(call.store.clock()))
    return window


def ends_window(status):
    def handler(call, window_id):
        window = open_window(call, window_id)
        window.update(status=status, updated_at=as_iso(call.store.clock()))
        return window
    return handler


def purge_maintenance(call):
    fields = check_fields(call.fields(), {"before": TIME}, "before")
    windows = call.store.maintenance
    old = [each["id"] for each in windows.of(call.project)
           if each["status"] in ("completed", "cancelled")
           and as_seconds(each["ends_at"]) < as_seconds(fields["before"])]
    for window_id in old:
        windows.delete(window_id)
    return {"object": "maintenance.purge", "purged": len(old),
            "before": fields["before"]}


# == the project and its settings

ROLE_OF_MEMBER = one_of("owner", "member")
EMAIL = Rule("must be an address", lambda value: is_text(value)
             and re.match(r"[^@\s]+@[^@\s]+\Z", value))


def seed_project(store):
    now = int(store.clock())
    for project in PROJECTS:
        store.projects.keep({
            "id": project, "object": "project",
            "name": project.partition("_")[2], "description": None,
            "tier": "gpu_nvidia_shared", "owner": "ada@example.com",
            "created_at": MODEL_CREATED, "updated_at": now})
    for email, role in (("ada@example.com", "owner"),
                        ("grace@example.com", "member")):
        store.members.keep({
            "id": store.members.next_id(), "object": "project.member",
            "email": email, "role": role, "joined_at": MODEL_CREATED})


def get_project(call):
    return call.store.projects.get(call.project)


def update_project(call):
    fields = check_fields(call.fields(), {"name": TEXT,
                                          "description": STRING})
    return call.store.projects.update(
        call.project, updated_at=int(call.store.clock()), **fields)


def check_owners(call, member):
    """Somebody else owns the project too, if a member does."""
    owners = [each for each in call.store.members.of(call.project)
              if each["role"] == "owner"]
    if owners == [member]:
        raise Refusal(409, "The last owner must stay one.")


def set_role(call, member_id):
    member = call.store.members.get(member_id, call.project)
    fields = check_fields(call.fields(), {"role": ROLE_OF_MEMBER}, "role")
    if fields["role"] != "owner":
        check_owners(call, member)
    member.update(fields)
    return member


def remove_member(call, member_id):
    check_owners(call, call.store.members.get(member_id, call.project))
    return call.store.members.delete(member_id)


def invite(call):
    fields = check_fields(call.fields(), {"email": EMAIL,
                                          "role": ROLE_OF_MEMBER}, "email")
    known = (call.store.members.of(call.project)
             + call.store.invitations.of(call.project))
    if fields["email"] in [each["email"] for each in known]:
        raise Refusal(409, f"{fields['email']} is in it, or invited.",
                      param="email")
    return made(call.store.invitations.create(
        call.project, email=fields["email"], status="pending",
        role=fields.get("role") or "member",
        expires_at=int(call.store.clock()) + 7 * DAY))


SETTINGS = (
    ("default_model", "demo", "The model of what names none"),
    ("log_retention_days", 30, "How long requests are kept"),
    ("store_completions", True, "Whether completions are stored"),
    ("regions", ["eu-central", "us-east"], "Where endpoints may be"),
    ("budget", {"amount": 500, "currency": "EUR"}, "What a month may cost"),
)


def seed_settings(store):
    for key, value, description in SETTINGS:
        store.settings.keep({
            "id": key, "key": key, "object": "setting",
            "value": copy.deepcopy(value), "description": description,
            "updated_at": int(store.clock())})


def list_settings(call):
    return {"object": "list", "data": call.store.settings.of(call.project),
            "has_more": False}


def set_setting(call, key):
    setting = call.store.settings.get(key, call.project)
    fields = call.fields()
    if "value" not in fields:
        raise bad("value", "is missing")
    check_fields(fields, {"value": ANY})
    if type(fields["value"]) is not type(setting["value"]):
        raise bad("value", f"must be of the type that {key} has")
    setting.update(fields, updated_at=int(call.store.clock()))
    return setting


# == exports

EXPORT_KINDS = ("logs", "metrics", "usage", "executions")
EXPORT_DAYS = 90
EXPORT_RULES = {
    "start_date": TIME, "end_date": TIME,
    "format": one_of("csv", "json", "jsonl"), "filters": OBJECT,
}
FILTER_RULES = {
    "endpoint_ids": WORDS, "status_codes": of_type(list, "must be a list"),
    "model_name": TEXT, "min_latency_ms": NUMBERS, "max_latency_ms": NUMBERS,
    "region": TEXT,
}


def export_content(call, kind, period, filters):
    """Lines of JSON, whatever the format, as the real router has it."""
    rows = usage_rows(call.store, call.project, period,
                      model=filters.get("model_name"))
    if kind == "logs":
        rows = requests_of(rows)
    else:
        rows = (dict({"date": as_iso(day)[:10],
                      "endpoint_slug": endpoint["slug"],
                      "model_name": endpoint["model"]}, **told)
                for day, endpoint, told in rows)
    lines = [as_json(row) + b"\n" for row in rows]
    return len(lines), Content.of(b"".join(lines))


def check_export(fields):
    start = read_time(fields, "start_date", None)
    end = read_time(fields, "end_date", None, is_end=True)
    if end <= start:
        raise bad("end_date", "must be after start_date")
    if end - start > EXPORT_DAYS * DAY:
        raise Refusal(400, f"The range exceeds {EXPORT_DAYS} days.",
                      code=None)
    check_fields(fields.get("filters", {}), FILTER_RULES)
    return start, end


def create_export(call, kind):
    if kind not in EXPORT_KINDS:
        raise Refusal(404, f"There are no exports of {kind}.")
    fields = check_fields(call.fields(), EXPORT_RULES, "start_date end_date")
    period = check_export(fields)
    store, now = call.store, call.store.clock()
    record = store.exports.create(
        call.project, kind=kind, format=fields.get("format", "json"),
        status="pending", start_date=fields["start_date"],
        end_date=fields["end_date"], filters=fields.get("filters", {}),
        row_count=None, size_bytes=None, created_at=as_iso(now),
        completed_at=None, expires_at=as_iso(now + 7 * DAY))

    def enter(_):
        if record["status"] == "completed":
            count, content = export_content(call, kind, period,
                                            record["filters"])
            record.update(row_count=count, size_bytes=content.size,
                          completed_at=as_iso(store.clock()))
            store.contents[record["id"]] = new_etag(store), content
    polls = 0 if kind == "executions" else store.export_polls
    store.exports.start(record, course(polls, "pending", "processing",
                                       "completed"), enter)
    if kind == "executions":
        store.exports.step(record["id"])
    return Answer(202, as_json(record))


def download_export(call, export_id):
    record = call.store.exports.get(export_id, call.project)
    if record["status"] != "completed":
        raise Refusal(409, f"The export is {record['status']} yet.")
    return send_content(call, f"{record['kind']}-{export_id}.ndjson",
                        *call.store.contents[export_id],
                        content_type="application/x-ndjson")


# == health

def get_health(call):
    return {"status": "ok"}


def get_dashboard(call):
    endpoints = call.store.endpoints.of(call.project)
    agents = call.store.agents.of(call.project)
    return {
        "object": "health.dashboard", "status": "operational",
        "components": [
            {"name": name, "status": "operational", "latency_ms": latency}
            for name, latency in (("api", 12), ("inference", 85),
                                  ("storage", 7), ("execution", 31))],
        "endpoints": {"total": len(endpoints), "active": sum(
            each["status"] == "active" for each in endpoints)},
        "agents": {"total": len(agents), "online": sum(
            each["status"] == "online" for each in agents)},
        "updated_at": as_iso(call.store.clock())}


# ---------------------------------------------------------------------------
# 14. Execution
# ---------------------------------------------------------------------------

EXEC_ENDS = ("completed", "failed", "timeout", "cancelled", "rejected")
RISKS = ("read", "write", "destructive", "irreversible")


# == tools

def list_tools(call):
    return {"object": "list", "data": TOOLS, "has_more": False}


def list_workspace_tools(call, workspace_id):
    call.store.workspaces.get(workspace_id, call.project)
    return list_tools(call)


def find_tool(name, status=404):
    for tool in TOOLS + MORE_TOOLS:
        if tool["name"] == name:
            return tool
    raise Refusal(status, f"No agent that is online offers '{name}'.",
                  code="exec_tool_not_found")


def needs_approval(tool):
    return RISKS.index(tool["risk"]) >= RISKS.index("destructive")


def get_tool(call, name):
    tool = find_tool(name)
    return dict(tool, object="exec.tool", parameters=TOOL_PARAMETERS,
                requires_approval=needs_approval(tool))


# == invocations, which are executions once they run

def output_of(record):
    """What a tool printed."""
    args = json.dumps(record["args"], sort_keys=True)
    return (f"{record['tool']} {args}\nNAME        READY\n"
            "worker-07   True\n")


def note_end(record, now):
    record["completed_at"] = now
    if record["status"] == "completed":
        record["result"] = {"exit_code": 0, "output": output_of(record)}
    else:
        record["error"] = {"code": f"exec_{record['status']}",
                           "message": f"{record['tool']}:"
                           f" {record['status']}"}


def set_going(store, record):
    """Have an invocation run, and end after some GETs."""
    record["status"] = "queued"

    def enter(_):
        now = int(store.clock())
        record["started_at"] = record["started_at"] or now
        if record["status"] in EXEC_ENDS:
            note_end(record, now)
    store.invocations.start(record, course(
        store.exec_polls, "queued", "running", store.exec_end), enter)


WAITS = {"destructive": 900, "irreversible": 3600}      # seconds


def add_approval(store, project, invocation):
    wait = WAITS[invocation["risk"]]
    return store.approvals.create(
        project, invocation_id=invocation["id"], tool=invocation["tool"],
        workspace_id=invocation["workspace_id"], risk=invocation["risk"],
        status="pending", args=invocation["args"], agent_id="agt_1",
        requested_by="ada@example.com", note=None, reason=None,
        expires_at=int(store.clock()) + wait, decided_at=None)


def add_invocation(store, project, workspace_id, tool, args):
    record = store.invocations.create(
        project, workspace_id=workspace_id, tool=tool["name"], args=args,
        risk=tool["risk"], status="pending_approval", approval_id=None,
        result=None, error=None, started_at=None, completed_at=None)
    if needs_approval(tool):
        record["approval_id"] = add_approval(store, project, record)["id"]
    else:
        set_going(store, record)
    return record


def create_invocation(call):
    fields = call.fields()
    for name, kind in (("workspace_id", str), ("tool", str), ("args", dict)):
        if not isinstance(fields.get(name), kind):
            raise Refusal(400, f"{name}: is missing, or of another type",
                          code="invalid_body", param=name)
    call.store.workspaces.get(fields["workspace_id"], call.project)
    tool = find_tool(fields["tool"], status=400)
    record = add_invocation(call.store, call.project, fields["workspace_id"],
                            tool, fields["args"])
    return Answer(202, as_json(record))


def cancel_invocation(call, invocation_id):
    record = call.store.invocations.get(invocation_id, call.project)
    if record["status"] in EXEC_ENDS:
        raise Refusal(409, f"The invocation is {record['status']} already.")
    call.store.invocations.stop(record, "cancelled")
    record["completed_at"] = int(call.store.clock())
    return record


def as_execution(record, *more):
    ended = record["completed_at"]
    shown = {name: record[name] for name in (
        "id", "tool", "workspace_id", "status", "risk", "created_at",
        "completed_at") + more}
    return dict(shown, object="exec.execution",
                exit_code=(record["result"] or {}).get("exit_code"),
                duration_ms=ended and 1000 * (ended - record["created_at"])
                + 250)


def get_execution(call, record_id):
    return as_execution(call.store.invocations.get(record_id, call.project),
                        "args", "result", "error", "approval_id")


def get_raw_execution(call, record_id):
    record = call.store.invocations.get(record_id, call.project)
    if record["status"] not in EXEC_ENDS:
        raise Refusal(409, f"The execution is {record['status']} yet.")
    text = (record["result"] or {}).get("output", "")
    return Answer(body=text.encode("utf-8", "replace"),
                  content_type="text/plain; charset=utf-8")


# == approvals

def decide(call, approval_id, status, rules):
    """Decide a request that waits; returns it, and what it is about."""
    approval = call.store.approvals.get(approval_id, call.project)
    fields = check_fields(call.fields(is_needed=False), rules)
    if approval["status"] != "pending":
        raise Refusal(409, f"It is {approval['status']} already.")
    if fields.pop("confirm", None) not in (None, approval["tool"]):
        raise bad("confirm", "must be the name of the tool")
    approval.update(fields, status=status,
                    decided_at=int(call.store.clock()))
    return approval, call.store.invocations.get(approval["invocation_id"])


def approve(call, approval_id):
    approval, invocation = decide(call, approval_id, "approved",
                                  {"note": STRING, "confirm": STRING})
    if invocation["status"] == "pending_approval":
        set_going(call.store, invocation)
    return approval


def reject(call, approval_id):
    approval, invocation = decide(call, approval_id, "rejected",
                                  {"reason": STRING})
    if invocation["status"] == "pending_approval":
        call.store.invocations.stop(invocation, "rejected")
        invocation["completed_at"] = int(call.store.clock())
    return approval


DELEGATION_RULES = {"delegate_to": TEXT, "risk": one_of(*RISKS),
                    "workspace_id": TEXT, "expires_at": TIME}
DELEGATION_DEFAULTS = dict(dict.fromkeys(DELEGATION_RULES),
                           risk="destructive")


# == what is there from the start

LEARNINGS = (
    ("Drain a node before it is restarted.", 0.92, "tool"),
    ("The staging cluster has no spare node on Mondays.", 0.71, "chat"),
    ("Certificates are rotated by the operator alone.", None, "operator"),
)


def seed_execution(store):
    workspace_id = next(iter(WORKSPACES))
    for name, args in (("kubectl_get", {"kind": "nodes"}),
                       ("kubectl_drain", {"node": "worker-07"}),
                       ("kubectl_delete_namespace", {"name": "old"}),
                       ("kubectl_drain", {"node": "worker-08"})):
        invocation = add_invocation(store, None, workspace_id,
                                    find_tool(name), args)
        if name == "kubectl_get":
            store.invocations.stop(invocation, "completed")
            note_end(invocation, invocation["created_at"])
    now = int(store.clock())
    store.approvals.get(invocation["approval_id"]).update(
        status="rejected", reason="Not today", decided_at=now)
    invocation.update(status="rejected", completed_at=now)
    for content, score, source in LEARNINGS:
        store.learnings.create(
            content=content, workspace_id=workspace_id, score=score,
            source_type=source, created_at=as_iso(now))


SEEDS = (seed_models, seed_workspaces, seed_templates, seed_endpoints,
         seed_agents, seed_slos, seed_project, seed_settings)


@functools.lru_cache(maxsize=4)
def seeded(now):
    """What the seeds make at this second, pickled.

    Tests start thousands of routers, and to load it takes less than to
    make it.
    """
    store = Store(lambda: now, 0)
    for seed in SEEDS:
        seed(store)
    kept = [(name, {field: getattr(getattr(store, name), field)
                    for field in ("made", "records", "owners")})
            for name, *_ in COLLECTIONS]
    return pickle.dumps((store.snapshots, [
        (name, fields) for name, fields in kept if fields["records"]]))


def fill(store):
    """Give a new store what is there from the start."""
    store.snapshots, kept = pickle.loads(seeded(int(store.clock())))
    for name, fields in kept:
        vars(getattr(store, name)).update(fields)
    seed_execution(store)       # its records are on their way


# ---------------------------------------------------------------------------
# 15. Routes
# ---------------------------------------------------------------------------

# `needs` names the scopes that the key must have, none for a public route.
# In a pattern {} stands for one segment, which the handler is given.
Route = collections.namedtuple("Route", "method pattern forms needs handler")


def below(prefix, forms, needs, *rows):
    """Rows of (method, rest of the pattern, handler) as routes."""
    return [Route(method, prefix + rest, forms, needs, handler)
            for method, rest, handler in rows]


E, P, EITHER = (ENDPOINT,), (PROJECT,), (PROJECT, ENDPOINT)

ROUTES = tuple(itertools.chain(
    below("/healthz", (ROOT,), "", ("GET", "", get_health)),

    # On an endpoint
    below("/chat/completions", E, "inference",
          ("POST", "", create_completion),
          ("GET", "", list_completions),
          ("GET", "/{}", shows("completions")),
          ("POST", "/{}", update_completion),
          ("DELETE", "/{}", deletes("completions")),
          ("GET", "/{}/messages", lists("completion_messages", order="asc",
                                        inside="completions"))),
    below("/responses", E, "inference",
          ("POST", "", create_response),
          ("GET", "", lists("responses", "status")),
          ("GET", "/{}", steps("responses")),
          ("DELETE", "/{}", deletes("responses")),
          ("POST", "/{}/cancel", cancel_response),
          ("GET", "/{}/input_items", lists("response_items",
                                           inside="responses"))),
    below("", E, "inference",
          ("POST", "/embeddings", create_embeddings),
          ("POST", "/rerank", rerank),
          ("POST", "/score", score)),

    # On either
    below("/files", EITHER, "inference",
          ("POST", "", create_file),
          ("GET", "", list_files),
          ("GET", "/{}", shows("files")),
          ("GET", "/{}/content", get_content),
          ("DELETE", "/{}", delete_file)),
    below("/batches", EITHER, "inference",
          ("POST", "", create_batch),
          ("GET", "", lists("batches")),
          ("GET", "/{}", shows("batches")),
          ("POST", "/{}/cancel", cancel_batch)),
    below("/models", EITHER, "inference", ("GET", "", list_models)),

    # In a project
    below("/models/{}", P, "inference",
          ("GET", "", get_model),
          ("PATCH", "", update_model),
          ("DELETE", "", deletes("models")),
          ("POST", "/share", shares(True)),
          ("POST", "/unshare", shares(False)),
          ("POST", "/revalidate", revalidate_model),
          ("GET", "/catalog", get_catalog),
          ("GET", "/probe", probe_model),
          ("GET", "/versions", lists("versions", inside="models")),
          ("POST", "/versions", create_version),
          ("POST", "/versions/{}/promote", choose_version),
          ("POST", "/versions/{}/rollback", choose_version)),
    below("/models/{}/capabilities", P, "management",
          ("PATCH", "", set_capabilities)),
    below("/uploads", P, "inference",
          ("POST", "", create_upload),
          ("GET", "", lists("uploads", "status")),
          ("GET", "/{}", get_upload),
          ("DELETE", "/{}", delete_upload),
          ("POST", "/{}/parts", create_part),
          ("POST", "/{}/complete", complete_upload),
          ("POST", "/{}/resume", resume_upload),
          ("POST", "/{}/cancel", cancel_upload)),
    below("/conversations", P, "inference",
          ("POST", "", create_conversation),
          ("GET", "", lists("conversations")),
          ("GET", "/{}", shows("conversations")),
          ("POST", "/{}", update_conversation),
          ("DELETE", "/{}", deletes("conversations")),
          ("POST", "/{}/items", add_items),
          ("GET", "/{}/items", lists("conversation_items",
                                     inside="conversations")),
          ("GET", "/{}/items/{}", shows("conversation_items",
                                        inside="conversations")),
          ("DELETE", "/{}/items/{}", delete_item)),
    below("/workspaces", P, "inference",
          ("GET", "", lists("workspaces", "status", order="asc")),
          ("POST", "", creates("workspaces", WORKSPACE_RULES, "name",
                               WORKSPACE_DEFAULTS)),
          ("GET", "/{}", shows("workspaces")),
          ("PATCH", "/{}", updates("workspaces", WORKSPACE_RULES)),
          ("DELETE", "/{}", deletes("workspaces")),
          ("GET", "/{}/agents", list_bound_agents),
          ("POST", "/{}/agents", bind_agent),
          ("DELETE", "/{}/agents/{}", unbind_agent),
          ("GET", "/{}/tools", list_workspace_tools),
          ("GET", "/{}/recommended-models", recommend_models),
          ("POST", "/{}/chat-templates/{}/apply", apply_template)),
    *(routes for prefix in ("/chat-templates", "/workspaces/{}/chat-templates")
      for routes in (
          below(prefix, P, "inference",
                ("GET", "", list_templates),
                ("GET", "/{}", get_template),
                ("GET", "/{}/versions", list_template_versions)),
          below(prefix, P, "inference management",
                ("POST", "", create_template),
                ("PUT", "/{}", update_template),
                ("DELETE", "/{}", delete_template),
                ("POST", "/{}/promote", promote_template)))),
    below("/chats", P, "inference",
          ("GET", "", lists("chats", "workspace_id", "status",
                            shown=as_chat)),
          ("POST", "", create_chat),
          ("GET", "/{}", shows("chats", shown=as_chat)),
          ("PATCH", "/{}", rename_chat),
          ("DELETE", "/{}", deletes("chats")),
          ("POST", "/{}/archive", moves_chat("archived")),
          ("POST", "/{}/restore", moves_chat("active")),
          ("GET", "/{}/messages", list_messages),
          ("POST", "/{}/messages", post_message),
          ("GET", "/{}/export", export_chat)),
    below("/usage", P, "inference",
          ("GET", "/summary", get_usage_summary),
          ("GET", "/daily", groups_usage(lambda day, endpoint: (
              ("date", as_iso(day)[:10]),))),
          ("GET", "/endpoints", groups_usage(lambda day, endpoint: (
              ("endpoint_slug", endpoint["slug"]),
              ("model_name", endpoint["model"])))),
          ("GET", "/requests", list_usage_requests)),

    # For who manages it
    below("/webhooks", P, "management",
          ("GET", "", lists("webhooks")),
          ("POST", "", create_webhook),
          ("GET", "/{}", shows("webhooks")),
          ("PUT", "/{}", update_webhook),
          ("DELETE", "/{}", deletes("webhooks")),
          ("POST", "/{}/test", try_webhook),
          ("GET", "/{}/deliveries", lists("deliveries", inside="webhooks"))),
    below("/management/api-keys", P, "management",
          ("GET", "", lists("keys", order="asc")),
          ("POST", "", create_key),
          ("GET", "/{}", shows("keys")),
          ("DELETE", "/{}", revoke_key),
          ("POST", "/{}/rotate", rotate_key),
          ("PUT", "/{}/ip-filter", sets_of_key(
              "ip_filter", {"allow": NETWORKS, "block": NETWORKS})),
          ("PUT", "/{}/quota", sets_of_key(
              "quota", {"requests": COUNT, "window_seconds": COUNT},
              "requests window_seconds"))),
    below("/management/agents", P, "management",
          ("GET", "/candidates", lists("candidates", "status")),
          ("POST", "/candidates/{}/approve", decides_candidate("approved")),
          ("POST", "/candidates/{}/reject", decides_candidate("rejected")),
          ("GET", "", lists("agents", "status")),
          ("POST", "", create_agent),
          ("GET", "/{}", shows("agents")),
          ("PATCH", "/{}", updates("agents", AGENT_RULES)),
          ("DELETE", "/{}", deletes("agents")),
          ("GET", "/{}/events", lists("agent_events", inside="agents")),
          *(("POST", "/{}/" + path, acts_on_agent(kind, rules, change))
            for path, kind, rules, change in (
                ("pause-exec", "exec_paused", IN_WORKSPACE, pause_exec),
                ("resume-exec", "exec_resumed", IN_WORKSPACE, resume_exec),
                ("revoke-credentials", "credentials_revoked", {},
                 revoke_credentials),
                ("curve-rotate", "curve_rotated", {"reason": STRING},
                 rotate_curve)))),
    below("/management/join-keys", P, "management",
          ("GET", "", lists("join_keys", "status")),
          ("POST", "", create_join_key),
          ("GET", "/{}", shows("join_keys")),
          ("DELETE", "/{}", revoke_join_key)),
    below("/slos", P, "management",
          ("GET", "/summary", summarize_slos),
          ("GET", "", lists("slos")),
          ("POST", "", create_slo),
          ("GET", "/{}", shows("slos")),
          ("PUT", "/{}", update_slo),
          ("DELETE", "/{}", deletes("slos")),
          ("GET", "/{}/history", lists("measurements", inside="slos")),
          ("POST", "/{}/calculate", calculate_slo)),
    below("/endpoints", P, "management",
          ("GET", "", lists("endpoints", order="asc")),
          ("POST", "", create_endpoint),
          ("GET", "/{}", get_endpoint),
          ("PATCH", "/{}", update_endpoint),
          ("DELETE", "/{}", delete_endpoint),
          ("GET", "/{}/slos", list_endpoint_slos)),
    below("/management/maintenance", P, "management",
          ("GET", "", lists("maintenance", "status")),
          ("POST", "", schedule_maintenance),
          ("POST", "/purge", purge_maintenance),
          ("GET", "/{}", shows("maintenance")),
          ("PATCH", "/{}", update_maintenance),
          ("POST", "/{}/cancel", ends_window("cancelled")),
          ("POST", "/{}/complete", ends_window("completed"))),
    below("/management/project", P, "management",
          ("GET", "", get_project),
          ("PATCH", "", update_project),
          ("GET", "/members", lists("members", order="asc")),
          ("PATCH", "/members/{}", set_role),
          ("DELETE", "/members/{}", remove_member),
          ("GET", "/invitations", lists("invitations")),
          ("POST", "/invitations", invite),
          ("DELETE", "/invitations/{}", deletes("invitations"))),
    below("/settings", P, "management",
          ("GET", "", list_settings),
          ("GET", "/{}", shows("settings")),
          ("PUT", "/{}", set_setting)),
    below("/exports", P, "management",
          ("GET", "", lists("exports", "status", page=functools.partial(
              offset_page, fallback=20))),
          ("POST", "/{}", create_export),
          ("GET", "/{}", steps("exports")),
          ("GET", "/{}/download", download_export),
          ("DELETE", "/{}", deletes("exports"))),
    below("/health/dashboard", P, "management", ("GET", "", get_dashboard)),

    # For who works in it
    below("/exec", P, "execution",
          ("GET", "/tools", list_tools),
          ("GET", "/tools/{}", get_tool),
          ("GET", "/invocations", lists("invocations", "status",
                                        "workspace_id")),
          ("POST", "/invocations", create_invocation),
          ("GET", "/invocations/{}", steps("invocations")),
          ("POST", "/invocations/{}/cancel", cancel_invocation),
          ("GET", "/executions", lists("invocations", "status",
                                       "workspace_id", "tool",
                                       shown=as_execution)),
          ("GET", "/executions/{}", get_execution),
          ("GET", "/executions/{}/raw", get_raw_execution),
          ("GET", "/approvals/delegations", lists("delegations")),
          ("POST", "/approvals/delegations", creates(
              "delegations", DELEGATION_RULES, "delegate_to",
              DELEGATION_DEFAULTS)),
          ("DELETE", "/approvals/delegations/{}", deletes("delegations")),
          ("GET", "/approvals", lists("approvals", "risk", "workspace_id",
                                      "status", "agent_id")),
          ("GET", "/approvals/{}", shows("approvals")),
          ("POST", "/approvals/{}/approve", approve),
          ("POST", "/approvals/{}/reject", reject),
          ("GET", "/learnings", lists("learnings", "workspace_id")),
          ("GET", "/learnings/{}", shows("learnings"))),
))


def match(pattern, segments):
    """The segments that stand where the pattern has {}; None: no match."""
    parts = pattern.split("/")[1:]
    if len(parts) != len(segments):
        return None
    pairs = list(zip(parts, segments))
    if all(part == segment or (part == "{}" and segment)
           for part, segment in pairs):
        return [segment for part, segment in pairs if part == "{}"]
    return None


def shape(segments):
    """What a path and its pattern have in common, as no first one is {}."""
    return tuple(segments[:1]), len(segments)


# The routes by the shapes of their patterns: few are left to be matched.
SHAPES = {}
for _route in ROUTES:
    SHAPES.setdefault(shape(_route.pattern.split("/")[1:]), []).append(_route)


def is_served(route, form):
    """Whether a path of this form leads to the route; PLAIN leads to all."""
    return form in route.forms or (form == PLAIN and ROOT not in route.forms)


def find_route(call):
    """The row for a call, by path, then form, then method; HEAD is GET."""
    found = [route for route in SHAPES.get(shape(call.segments), ())
             if match(route.pattern, call.segments) is not None]
    served = [route for route in found if is_served(route, call.form)]
    if not served:
        other = f" It is {found[0].forms[0]}-scoped." if found else ""
        raise Refusal(404, f"No route {call.path} here.{other}")
    method = "GET" if call.seen.method == "HEAD" else call.seen.method
    for route in served:
        if route.method == method:
            return route
    methods = ", ".join(route.method for route in served)
    raise Refusal(405, f"{call.path} allows {methods}.", {"Allow": methods})


def dispatch(call):
    """The true answer to a call; whatever is refused is an answer too."""
    try:
        if call.form != ROOT:
            check_place(call)
        forget_files(call.store)
        route = find_route(call)
        if route.needs:
            check_scopes(call, route.needs)
        answer = route.handler(call, *match(route.pattern, call.segments))
    except Refusal as refusal:
        return refusal.answer
    except Exception as error:  # a fault of ours: the test shall see it
        return error_answer(500, message=f"The handler failed: {error!r}")
    return answer if isinstance(answer, Answer) else Answer(
        body=as_json(answer))


# ---------------------------------------------------------------------------
# 16. Faults
# ---------------------------------------------------------------------------

class Fault:
    """What happens to one exchange; the defaults change nothing."""

    # Another answer in place of the true one.  400 and above bring the
    # envelope, whose fields come from the five words after `status`; a
    # lower status is put on the true answer.
    status = None
    code = message = error_type = param = retry_strategy = None
    retry_after = None      # header and field; a str: the header only
    body = raw = None       # exactly these bytes
    html = False            # the page of a proxy
    odd = None              # a name in ODD: no answer, but 200
    redirect = None         # Location; the status is 307 unless given
    frames = None           # a stream of exactly these byte strings

    # Changes to the answer, whichever it is.
    content_type = None
    headers = ()            # a dict: added or replaced; None removes
    reason = None           # the reason phrase; may be empty
    lie = 0                 # Content-Length is this much off, then it ends
    no_chunked = False      # no length at all: the body ends by close

    # Time.
    delay = 0               # seconds before the status line
    hang = False            # no answer until the client or router leaves
    drip = False            # one byte per chunk, or per send
    drip_delay = 0          # seconds between those bytes
    gate = None             # (n, event): wait for it after n frames

    # The end.
    drop = None             # "before" the request is read, or "after"
    early = False           # answer before the body is read, then close
    cut = None              # close after this many bytes of the body
    reset = False           # with drop and cut: RST in place of FIN
    end = None              # a clean end after so many bytes of the body
    after_acting = False    # whatever is answered, if at all: it was done

    def __init__(self, **words):
        for word in words:
            if callable(getattr(Fault, word, len)):
                raise TypeError(f"no such fault: {word}")
        vars(self).update(words)

    def answer(self):
        """The answer that takes the place of the true one, or None."""
        if self.frames is not None:
            return Answer(frames=list(self.frames))
        if self.html:
            return Answer(body=PROXY_PAGE, content_type="text/html")
        if self.odd:
            kind, body = ODD[self.odd]
            return Answer(body=body, content_type=kind)
        if self.redirect:
            return Answer(307, headers={"Location": self.redirect})
        if self.raw is not None or self.body is not None:
            return Answer(body=self.body if self.raw is None else self.raw)
        if self.status and self.status >= 400:
            return error_answer(self.status, **self.error())
        return None

    def error(self):
        """The fields of the envelope that were given, None included."""
        given = {name: value for name, value in vars(self).items()
                 if name in ("message", "code", "param", "retry_strategy")}
        if "error_type" in vars(self):
            given["type"] = self.error_type
        if isinstance(self.retry_after, int):
            given["retry_after"] = self.retry_after
        return given

    def change(self, answer):
        """Give an answer the status and headers that were ordered."""
        answer.status = self.status or answer.status
        if self.content_type:
            answer.headers["Content-Type"] = self.content_type
        if self.retry_after is not None:
            answer.headers["Retry-After"] = str(self.retry_after)
        if answer.status in BODILESS:
            answer.pieces = []
        return answer


def is_match(seen, method, suffix):
    """Whether a request has this method, and a path that ends so."""
    return (method in ("*", seen.method)
            and (suffix == "*" or seen.path.endswith(suffix)))


class Order:
    """A fault for the next `times` requests that match; None: for all."""

    def __init__(self, match, times, when, fault):
        self.method, _, self.suffix = match.partition(" ")
        self.times = times
        self.when = when
        self.fault = fault


# ---------------------------------------------------------------------------
# 17. Connection
# ---------------------------------------------------------------------------

LENGTH, CHUNKED, UNTIL_CLOSE = "length", "chunked", "until close"
LONGEST_LINE = 1 << 16
TLS_HANDSHAKE = b"\x16"


class Gone(Exception):
    """The client has left, or the router stops: no more to do here."""


class Malformed(Exception):
    """What came is not a request of HTTP."""


class Seen:
    """One request as it was read; `path` keeps its percent-encoding."""

    def __init__(self, line):
        words = line.decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise Malformed(line)
        self.method, self.target, self.version = words
        # A client that takes us for its proxy sends the whole URL.
        target = self.target
        if not target.startswith("/"):
            target = urllib.parse.urlsplit(target)._replace(
                scheme="", netloc="").geturl()
        self.path, _, query = target.partition("?")
        self.query = urllib.parse.parse_qsl(query, keep_blank_values=True)
        self.headers = {}           # an email.message.Message, once read
        self.body = b""             # empty for a form that is big
        self.size = 0               # bytes of the body
        self.form = {}              # name: (file name or None, bytes)
        self.parts = {}             # the same, as Parts; None: no form
        self.request_id = None
        self.closed = threading.Event()     # its connection is no more

    def __repr__(self):
        return f"<Seen {self.method} {self.target}>"

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def take_form(self, spool):
        """Take a form apart; of one that is big, big parts are not kept."""
        content = Content(spool)
        if content.size <= BIG:
            self.body = content.read()
        try:
            self.parts = read_form(content, self.headers.get_boundary())
        except (ValueError, LookupError):
            self.parts = None
            return
        self.form = {name: (part.filename, part.content.read()
                            if part.content.size <= BIG else b"")
                     for name, part in self.parts.items()}

    @property
    def keeps_alive(self):
        wish = self.headers.get("Connection", "").lower()
        return self.version == "HTTP/1.1" and wish != "close"


def first_bytes(pieces, count):
    """The pieces as far as `count` bytes go.

    The piece after them is asked for too, so that a gate that stands
    exactly there is waited for.
    """
    for piece in pieces:
        if count <= 0:
            return
        yield piece[:count]
        count -= len(piece)


def choose_framing(seen, answer, fault):
    """How the client learns where the body ends (RFC 9112, 6.3)."""
    if fault.no_chunked:
        return UNTIL_CLOSE
    if fault.lie or not answer.is_stream:
        return LENGTH
    return CHUNKED if seen.version == "HTTP/1.1" else UNTIL_CLOSE


def framing_headers(framing, answer, fault):
    """The header that tells the framing: a cut is kept secret in it."""
    if framing == CHUNKED:
        return {"Transfer-Encoding": "chunked"}
    if framing == UNTIL_CLOSE:
        return {}
    length = answer.length
    if fault.end is not None:
        length = min(length, fault.end)
    return {"Content-Length": length + fault.lie}


def head_of(answer, fault, more):
    """The status line and the headers; one whose value is None is left out.

    `more` beats the answer's own headers, the fault's beat both.
    """
    reason = fault.reason
    if reason is None:
        reason = http.client.responses.get(answer.status, "")
    headers = dict(answer.headers, **more)
    headers.update(fault.headers)
    lines = [f"HTTP/1.1 {answer.status} {reason}"]
    lines += [f"{name}: {value}" for name, value in headers.items()
              if value is not None]
    return "\r\n".join(lines + ["", ""]).encode("latin-1")


class Hand(threading.Thread):
    """A thread that does one job after another, whichever router's.

    To make a thread takes longer than most of what these have to do.
    """

    idle = []

    def __init__(self):
        super().__init__(name="router hand", daemon=True)
        self.job = None
        self.given = threading.Lock()       # held while there is none
        self.given.acquire()
        self.start()

    def do(self, job):
        self.job = job
        self.given.release()

    def run(self):
        while True:
            self.given.acquire()
            job, self.job = self.job, None
            try:
                job.run()
                self.idle.append(self)      # after an error it is lost
            finally:
                job.going.release()


class Job:
    """What a hand does, for those who see it a thread with a `run`."""

    def __init__(self):
        self.going = threading.Lock()       # held while it is

    def start(self):
        self.going.acquire()
        try:
            hand = Hand.idle.pop()
        except IndexError:
            hand = Hand()
        hand.do(self)

    def is_alive(self):
        return self.going.locked()

    def join(self):
        with self.going:
            pass


class Connection(Job):
    """One client's socket, and what serves it."""

    def __init__(self, router, client):
        super().__init__()
        self.router = router
        self.socket = client
        self.reader = client.makefile("rb")
        self.seen = []

    def run(self):
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self.exchange():
                pass
        except Malformed:
            self.refuse()
        except (Gone, OSError):
            pass                    # clients leave as they please
        finally:
            self.close()

    def close(self):
        # Under the lock, since hang_up must not meet another's descriptor.
        with self.router.lock:
            self.reader.close()
            self.socket.close()
        for seen in self.seen:
            seen.closed.set()

    def hang_up(self):
        """Wake the thread, wherever it waits, with an end of input."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass                    # closed already

    def refuse(self):
        """Tell that this is no HTTP, which TLS clients understand too."""
        try:
            self.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n"
                                b"Connection: close\r\n\r\n")
        except OSError:
            pass

    # Reading

    def exchange(self):
        """Read one request and answer it; False: this was the last one."""
        seen = Seen(self.read_line())
        fault = self.router.take_fault(seen, is_read=False)
        if fault and fault.drop == "before":
            return self.break_off(reset=True)
        self.read_rest(seen, fault or Fault())
        fault = fault or self.router.take_fault(seen)
        self.seen.append(seen)
        self.router.record(seen)
        try:
            return self.react(seen, fault)
        finally:
            seen.parts = {}         # what nobody stored leaves the disk

    def react(self, seen, fault):
        if fault.after_acting and (fault.drop or fault.hang):
            self.router.answer(seen, fault)
        if fault.drop:
            return self.break_off(fault.reset or fault.drop == "before")
        if fault.hang:
            return self.hang()
        return self.deliver(seen, self.router.answer(seen, fault), fault)

    def read_line(self):
        """The request line, after any number of empty ones (RFC 9112)."""
        line = b"\r\n"
        while line in (b"\r\n", b"\n"):
            # TLS sends no newline; to wait for one would be to hang.
            if self.reader.peek(1)[:1] == TLS_HANDSHAKE:
                raise Malformed("TLS")
            line = self.reader.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise Gone
        return line

    def read_rest(self, seen, fault):
        """Read the headers, and the body unless the answer comes early."""
        try:
            seen.headers = http.client.parse_headers(self.reader)
            if not fault.early:
                self.read_body(seen)
        except (ValueError, http.client.HTTPException) as error:
            raise Malformed(error)

    def read_body(self, seen):
        """The body into memory; that of a form by way of a spool."""
        headers = seen.headers
        if headers.get("Expect", "").lower() == "100-continue":
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("Transfer-Encoding", "").lower() == "chunked":
            blocks = self.read_chunks()
        else:
            blocks = self.read_blocks(int(headers.get("Content-Length", "0")))
        if headers.get_content_type() != "multipart/form-data":
            seen.body = b"".join(blocks)
            seen.size = len(seen.body)
            return
        spool = Spool()
        for block in blocks:
            seen.size = spool.append(block)
        seen.take_form(spool)

    def read_chunks(self):
        while True:
            line = self.reader.readline(LONGEST_LINE)
            size = int(line.partition(b";")[0], 16)
            if not size:
                break
            yield from self.read_blocks(size)
            self.reader.readline(LONGEST_LINE)
        http.client.parse_headers(self.reader)      # the trailers

    def read_blocks(self, size):
        if size < 0:
            raise Malformed("a negative length")
        while size:
            block = self.reader.read(min(size, BLOCK))
            if not block:
                raise Gone
            size -= len(block)
            yield block

    # Waiting

    def wait(self, seconds):
        """Let time pass; end at once when the client or router leaves.

        A client that has closed its sending half counts as gone.
        """
        ready, _, _ = select.select([self.socket], [], [], seconds)
        if ready and not self.socket.recv(1, socket.MSG_PEEK):
            raise Gone

    def wait_for(self, event):
        while not event.wait(0.01):
            self.wait(0)

    def hang(self):
        while self.socket.recv(LONGEST_LINE):
            pass
        return False

    # Answering

    def deliver(self, seen, answer, fault):
        """Send an answer as the fault wants it; False ends the connection.

        What a fault breaks is not announced by `Connection: close`.
        """
        framing = choose_framing(seen, answer, fault)
        keeps_alive = seen.keeps_alive and framing != UNTIL_CLOSE
        more = framing_headers(framing, answer, fault)
        if "X-Request-ID" not in answer.headers:
            more["X-Request-ID"] = seen.request_id
        more["Connection"] = None if keeps_alive else "close"
        if fault.delay:
            self.wait(fault.delay)
        self.socket.sendall(head_of(answer, fault, more))
        if seen.method != "HEAD":
            self.send_body(framing, answer, fault)
        if fault.cut is not None:
            return self.break_off(fault.reset)
        return keeps_alive and not fault.lie and not fault.early

    def send_body(self, framing, answer, fault):
        # No piece may be empty: a chunk of no bytes is the end of them.
        for piece in filter(None, self.pieces(answer, fault)):
            if framing == CHUNKED:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            self.socket.sendall(piece)
        if framing == CHUNKED and fault.cut is None:
            self.socket.sendall(b"0\r\n\r\n")

    def pieces(self, answer, fault):
        """The body as a fault leaves it, in the pieces to be flushed."""
        pieces = self.paced(answer, fault)
        for limit in (fault.cut, fault.end):
            if limit is not None:
                pieces = first_bytes(pieces, limit)
        return self.dripped(pieces, fault.drip_delay) if fault.drip else pieces

    def paced(self, answer, fault):
        """The pieces at their pace, after an empty one for a gate at 0."""
        number, event = fault.gate or (None, None)
        for count, piece in enumerate(
                itertools.chain([b""], answer.pieces)):
            if count > 1 and answer.pace:
                self.wait(answer.pace)
            yield piece
            if count == number:     # asked for the next: this one is out
                self.wait_for(event)

    def dripped(self, pieces, seconds):
        for piece in pieces:
            for position in range(len(piece)):
                yield piece[position:position + 1]
                if seconds:
                    self.wait(seconds)

    def break_off(self, reset):
        """Have the socket closed with no more ado; `reset` sends an RST."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                   struct.pack("ii", 1, 0))
        return False


# ---------------------------------------------------------------------------
# 18. Work
# ---------------------------------------------------------------------------

class Results:
    """The lines of an output or error file, as they come."""

    def __init__(self):
        self.spool = Spool()
        self.places = []

    def add(self, line, times=1):
        start = self.spool.size
        self.places += [(start, self.spool.append(line) - start)] * times

    def shuffled(self, seed):
        """A content of the lines in another order, which the seed tells."""
        places = list(self.places)
        random.Random(seed).shuffle(places)
        target = Spool()
        for start, size in places:
            target.append(self.spool.read_at(start, size))
        return Content(target)


def sum_usage(total, usage):
    """Add a line's usage to that of its batch, which has other words."""
    for name, names in (
            ("input_tokens", ("prompt_tokens", "input_tokens")),
            ("output_tokens", ("completion_tokens", "output_tokens")),
            ("total_tokens", ("total_tokens",))):
        total[name] += sum(usage.get(each, 0) for each in names)


class Work(threading.Thread):
    """The work on one batch, whose record tells how far it came.

    Each line is a call to the router's own routes, which no order meets.
    The lock is held for one line at a time, so that others get answers.
    """

    def __init__(self, router, record, plan, project, base, authorization,
                 lasts=None):
        super().__init__(name=f"router {record['id']}", daemon=True)
        self.lasts = lasts      # seconds that its files are there
        self.router = router
        self.record = record
        self.plan = plan
        self.project = project
        self.base = base
        self.headers = {"Authorization": authorization}
        self.content = router.store.contents[record["input_file_id"]][1]
        # The thread has a dict of its own if the record shows none.
        self.counts = record.get("request_counts") or {
            "total": 0, "completed": 0, "failed": 0}
        self.usage = {"input_tokens": 0, "output_tokens": 0,
                      "total_tokens": 0}
        self.output, self.errors = Results(), Results()

    def run(self):
        try:
            self.hold("validating")
            if not self.is_cancelled and not self.validate():
                return
            self.enter("in_progress")
            ending = self.run_lines()
            if ending == "completed":
                self.enter("finalizing")
                self.hold("finalizing")
            if self.is_cancelled:
                self.hold("cancelling")
            self.finish(ending)
        except Gone:
            pass                    # the router stops

    @property
    def is_cancelled(self):
        return self.record["status"] == "cancelling"

    def enter(self, status):
        """Note a status and its time; a cancel that came first stays."""
        with self.router.lock:
            if not self.is_cancelled:
                self.note(status)

    def note(self, status):
        now = int(self.router.store.clock())
        self.record.update({"status": status, f"{status}_at": now})

    def hold(self, status):
        """Wait, if the plan says so, while the batch is in a status."""
        gate = self.plan.gate or threading.Event()
        while (self.plan.hold == status == self.record["status"]
               and not gate.is_set()):
            self.sleep(0.005)

    def sleep(self, seconds):
        if self.router.stopping.wait(seconds):
            raise Gone

    def validate(self):
        """Whether the input file is good; if it is not, the batch fails."""
        flaws = [dict(flaw(None, None), **given) for given in self.plan.fail]
        if not flaws:
            flaws = list(itertools.islice(
                input_flaws(self.content, self.record["endpoint"]),
                BATCH_ERRORS_SHOWN))
        total = sum(1 for _ in self.content.lines())
        with self.router.lock:
            if not flaws:
                self.counts["total"] = total
            elif not self.is_cancelled:
                self.record["errors"] = {"object": "list", "data": flaws}
                self.note("failed")
            return self.record["status"] != "failed"

    def run_lines(self):
        """Work line by line; returns the status that the batch ends with."""
        lines = self.content.lines()
        for count in itertools.count():
            if self.plan.after == count:
                self.hold("in_progress")
            if self.is_cancelled:
                return "cancelled"
            if self.plan.expire_after == count:
                self.expire(lines)
                return "expired"
            line = next(lines, None)
            if line is None:
                return "completed"
            self.sleep(self.plan.pace)
            time.sleep(0)           # a lock alone lets nobody else in
            self.run_line(count + 1, json.loads(line.decode("utf-8")))

    def run_line(self, number, line):
        answer = self.answer_to(line)
        text = b"".join(answer.pieces)
        body = json.loads(text.decode("utf-8"))
        response = {"status_code": answer.status,
                    "request_id": f"req_{self.record['id']}_{number}",
                    "body": body}
        with self.router.lock:
            if answer.status == 200:
                self.counts["completed"] += 1
                sum_usage(self.usage, body.get("usage") or {})
            else:
                self.counts["failed"] += 1
            self.record["model"] = (self.record["model"]
                                    or line["body"].get("model"))
        self.keep(line["custom_id"], response, body.get("error"))

    def answer_to(self, line):
        status = self.plan.fail_lines.get(line["custom_id"])
        if status:
            return error_answer(status)
        if line["body"].get("stream"):
            return error_answer(400, param="stream",
                                message="A batch has no streams.")
        seen = Seen(b"POST / HTTP/1.1")
        seen.path = self.base + self.record["endpoint"]
        seen.headers = self.headers
        seen.body = as_json(line["body"])
        with self.router.lock:
            return dispatch(Call(seen, self.router.store, self.router.openai))

    def keep(self, custom_id, response, error=None):
        """Put a line's result into the file where it belongs."""
        results = self.errors if error else self.output
        if custom_id in self.plan.lose:
            return
        if error:
            error = {name: error[name] for name in ("code", "message")}
        number = len(self.output.places) + len(self.errors.places) + 1
        batch_number = self.record["id"].rpartition("_")[2]
        results.add(as_json({
            "id": f"batch_req_{batch_number}_{number}",
            "custom_id": custom_id, "response": response,
            "error": error}) + b"\n", 1 + (custom_id in self.plan.repeat))

    def expire(self, lines):
        error = {"code": "batch_expired",
                 "message": "The batch expired before this was done."}
        for line in lines:
            self.keep(json.loads(line.decode("utf-8"))["custom_id"], None,
                      error)

    def finish(self, ending):
        """Store both files and tell the end, at once to all who ask."""
        for custom_id in self.plan.unknown:
            self.keep(custom_id, {"status_code": 200, "request_id": "req_0",
                                  "body": {"object": "unknown"}})
        contents = {"output": self.content_of("output", self.output),
                    "error": self.content_of("errors", self.errors)}
        with self.router.lock:
            for kind, content in contents.items():
                if content is not None:
                    self.record[f"{kind}_file_id"] = store_file(
                        self.router.store, self.project,
                        f"{self.record['id']}_{kind}.jsonl", content,
                        "batch_output", lasts=self.lasts)["id"]
            self.record["usage"] = self.usage
            self.note("cancelled" if self.is_cancelled else ending)

    def content_of(self, word, results):
        """What the plan says of a file, else the lines; None: no file."""
        exact = getattr(self.plan, word)
        if self.plan.no_files:
            return None
        if exact is not None:
            return Content.of(exact)
        if not results.places:
            return None
        return results.shuffled(self.record["id"])


# ---------------------------------------------------------------------------
# 19. Router
# ---------------------------------------------------------------------------

def listen(port):
    """A socket that listens on the loopback; port 0: the kernel chooses."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def of_store(name):
    """An attribute that the router shows of its store."""
    return property(lambda router: getattr(router.store, name),
                    lambda router, value: setattr(router.store, name, value))


class Acceptor(Job):
    """Takes in the clients of a router until it stops."""

    def __init__(self, router):
        super().__init__()
        self.router = router

    def run(self):
        while True:
            client, _ = self.router.listener.accept()
            if self.router.stopping.is_set():
                client.close()
                return
            self.router.serve(client)


class Router:
    """The router as a context manager; leaving it ends every connection.

    `pace` is the seconds between streamed tokens; with `openai` every
    route is served under plain /v1 too.  `completions`, `chats`, `files`,
    `batches`, `models` and `uploads` are the records that it keeps, by id.
    """

    def __init__(self, port=0, openai=False, pace=0, clock=time.time):
        self.port = port
        self.openai = openai
        self.lock = threading.RLock()   # guards all that follows
        self.store = Store(clock, pace)
        fill(self.store)
        self.completions = self.store.completions.records
        self.chats = self.store.chats.records
        self.files = self.store.files.records
        self.batches = self.store.batches.records
        self.models = self.store.models.records
        self.uploads = self.store.uploads.records
        self.store.start_batch = self.start_batch
        self.requests = []
        self.orders = []                # those that are not used up
        self.connections = []
        self.listener = None
        self.works = []
        self.stopping = threading.Event()
        self.key = self.add_key(DEMO_KEY, *DEMO_SCOPES)
        self.add_key(DOC_KEY, *DOC_SCOPES, project=DOC_PROJECT)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    # What a test uses

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self):
        return self.origin + ("/v1" if self.openai else
                              f"/{DEMO_PROJECT}/v1")

    def add_key(self, key, *scopes, project=DEMO_PROJECT):
        """Make a key valid in one project; returns the key."""
        with self.lock:
            number = len(self.store.keys.records) + 1
            add_key(self.store, project, key, f"key {number}", scopes)
        return key

    # What a test sets: see Store.

    file_limit = of_store("file_limit")
    batch_limit = of_store("batch_limit")
    chunk_size = of_store("chunk_size")
    lists_names = of_store("lists_names")
    response_polls = of_store("response_polls")
    revalidation_lag = of_store("revalidation_lag")
    revalidation_polls = of_store("revalidation_polls")
    revalidation_end = of_store("revalidation_end")
    export_polls = of_store("export_polls")
    exec_polls = of_store("exec_polls")
    exec_end = of_store("exec_end")

    def add_file(self, name, data, purpose="batch", relative_path=None,
                 project=DEMO_PROJECT):
        """Store a file as if it had been uploaded; returns its record."""
        with self.lock:
            return store_file(self.store, project, name, Content.of(data),
                              purpose, relative_path)

    def replace_file(self, file_id, data):
        """Give a file another content, and so another ETag."""
        with self.lock:
            put_content(self.store, self.files[file_id], Content.of(data))

    def file_bytes(self, file_id):
        """The content of a file, while the router runs."""
        with self.lock:
            return self.store.contents[file_id][1].read()

    def upload_bytes(self, upload_id):
        """What an upload of weights has so far, or had when it was done."""
        with self.lock:
            return Content(self.store.weights[upload_id]).read()

    def lose_part(self, upload_id, number):
        """Forget a part of an upload, as if it had never come."""
        with self.lock:
            upload = self.uploads[upload_id]
            for part in parts_of(self.store, upload):
                if part["part_number"] == number:
                    self.store.parts.delete(part["id"])
            count_parts(self.store, upload)

    def batch_plan(self, times=1, **words):
        """Plan, in the words of `Plan`, the next batches that are made.

        Plans are used up in the order in which they were given; a batch
        without one runs its course.
        """
        with self.lock:
            self.store.plans += [Plan(**words)] * times

    def order(self, match, times=1, when=None, **fault):
        """Order a fault, in the words of `Fault`, for "METHOD PATH-END".

        Orders are used up in the order in which they were given; "*"
        stands for any method or path, and times=None means for ever.
        `when` is asked about each such request, as Seen, and says whether
        it is meant.  It is shown the whole of it: to drop "before" and to
        be `early` is then only to break off, and to close.
        """
        with self.lock:
            self.orders.append(Order(match, times, when, Fault(**fault)))

    def seen(self, method, suffix):
        """The requests of this method whose path ends so, oldest first."""
        with self.lock:
            return [seen for seen in self.requests
                    if is_match(seen, method, suffix)]

    # What a connection uses

    def take_fault(self, seen, is_read=True):
        """The fault for a request; None: ask again once it is read."""
        with self.lock:
            for order in self.orders:
                if not is_match(seen, order.method, order.suffix):
                    continue
                if order.when and not is_read:
                    return None
                if not order.when or order.when(seen):
                    return self.use(order)
            return Fault()

    def use(self, order):
        if order.times is not None:
            order.times -= 1
        if order.times == 0:
            self.orders.remove(order)
        return order.fault

    def record(self, seen):
        with self.lock:
            self.requests.append(seen)
            seen.request_id = f"req_{len(self.requests)}"

    def answer(self, seen, fault):
        with self.lock:
            answer = fault.answer()
            if answer is None or fault.after_acting:
                true_answer = dispatch(Call(seen, self.store, self.openai))
                answer = answer or true_answer
        return fault.change(answer)

    def start_batch(self, *given):
        with self.lock:
            self.works = [work for work in self.works if work.is_alive()]
            self.works.append(Work(self, *given))
            self.works[-1].start()

    # Start and stop

    def start(self):
        self.listener = listen(self.port)
        self.port = self.listener.getsockname()[1]
        self.acceptor = Acceptor(self)
        self.acceptor.start()
        return self

    def serve(self, client):
        connection = Connection(self, client)
        with self.lock:
            self.connections = [each for each in self.connections
                                if each.is_alive()] + [connection]
            connection.start()

    def stop(self):
        """End all connections, held ones too, and wait for the threads."""
        if self.listener is None or self.stopping.is_set():
            return
        self.stopping.set()
        # To close a listener does not wake accept everywhere; a call does.
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.acceptor.join()
        self.listener.close()
        with self.lock:
            for connection in self.connections:
                connection.hang_up()
        for connection in self.connections:
            connection.join()
        for work in self.works:     # a last call may have begun one
            work.join()
        self.let_go()
        for _, content in self.store.contents.values():
            content.spool.close()
        for spool in self.store.weights.values():
            spool.close()

    def let_go(self):
        """Forget what refers to this router: nothing has to look for it."""
        self.acceptor = self.store.start_batch = None
        self.connections = []
        self.store.invocations.courses.clear()


# ---------------------------------------------------------------------------
# 20. Program
# ---------------------------------------------------------------------------

def settings_of(router):
    """The environment that points a client at the router."""
    settings = {"XEROTIER_BASE_URL": router.base_url,
                "XEROTIER_API_KEY": router.key}
    if router.openai:
        settings["XEROTIER_STYLE"] = "openai"
    return settings


def serve_until_signal(router):
    """Print the settings for a shell, then serve; Ctrl-C is the way out."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for name, value in settings_of(router).items():
            print(f"export {name}={value}", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        return 0


def run_command(router, command):
    """Run a command against the router; returns its exit code."""
    environ = {name: value for name, value in os.environ.items()
               if not name.startswith("XEROTIER_")}
    environ.update(settings_of(router))
    # Ctrl-C is the command's.  A handler is reset in the child, where
    # SIG_IGN would be inherited.
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        child = subprocess.Popen(command, env=environ)
    except OSError as error:
        # Not error.strerror: 3.6 adds the name to it.
        print(f"router: cannot run {command[0]}:"
              f" {os.strerror(error.errno)}", file=sys.stderr)
        return 127
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    code = child.wait()
    return 128 - code if code < 0 else code


def as_port(text):
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"no such port: {text}")
    return int(text)


def parse_options(argv):
    parser = argparse.ArgumentParser(
        description="Serve the reference router on the loopback.",
        usage="router.py [--port N] [--openai] [-- COMMAND ...]",
        epilog="With COMMAND: run it against the router, leave with its"
               " exit code. Without: print the settings, serve until"
               " Ctrl-C.", allow_abbrev=False)
    parser.add_argument("--port", type=as_port, default=0, metavar="N",
                        help="port to listen on (default: a free one)")
    parser.add_argument("--openai", action="store_true",
                        help="serve plain /v1 paths, as OpenAI does")
    return parser.parse_args(argv)


def main(argv):
    # argparse changed its mind about "--" more than once: split it here.
    split = argv.index("--") if "--" in argv else len(argv)
    options, command = parse_options(argv[:split]), argv[split + 1:]
    router = Router(port=options.port, openai=options.openai, pace=0.03)
    router.lists_names = False      # a person looks at more than names
    try:
        router.start()
    except OSError as error:
        print(f"router: cannot listen on port {options.port}:"
              f" {error.strerror}", file=sys.stderr)
        return 1
    try:
        return (run_command(router, command) if command
                else serve_until_signal(router))
    finally:
        router.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
