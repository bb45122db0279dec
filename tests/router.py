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
   4. Collections    records by id, and the two ways to page them
   5. Access         one routed call, its key and its project
   6. Completions    chat completions, whole, streamed and stored
   7. Files          uploads, and downloads of the whole or of a range
   8. Batches        their records, their files' checks, plans for them
   9. Groups         models, embeddings, conversations, chats, keys, tools
  10. Routes         the table, and the way from a path to its row
  11. Faults         what a test may order
  12. Connection     HTTP/1.1 on one socket
  13. Work           the thread that works a batch off
  14. Router         all of it behind one lock
  15. Program        the command line
"""

import argparse
import collections
import copy
import http.client
import itertools
import json
import math
import os
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

WORKSPACES = {
    "ws_kube_prod": (
        ("ctpl_01HDRAIN", "drain-kubernetes-node", 3),
        ("ctpl_01HRESTART", "restart-deployment", 1),
        ("ctpl_01HROTATE", "rotate-certificates", 7),
        ("ctpl_01HTWIN1", "duplicate-name", 1),
        ("ctpl_01HTWIN2", "duplicate-name", 2),
    ),
}
TOOLS = (
    {"name": "kubectl_get", "description": "Read cluster objects.",
     "risk": "read", "domain": "kubernetes", "timeout_seconds": 30},
    {"name": "kubectl_drain", "description": "Evict the pods of a node.",
     "risk": "destructive", "domain": "kubernetes", "timeout_seconds": 600},
)

# What a file may be uploaded for; the router itself adds batch_output.
PURPOSES = ("batch", "assistants", "fine-tune", "vision", "user_data",
            "evals")
FILE_LIMIT = 500000000
BATCH_LIMIT = 104857600
METADATA_LIMIT = 16384
BATCH_ENDPOINTS = ("/v1/chat/completions", "/v1/embeddings", "/v1/responses")
BATCH_ENDS = ("completed", "failed", "expired", "cancelled")
BATCH_ERRORS_SHOWN = 20
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


class Collection:
    """Records of one kind by id, in the order in which they were made.

    `id_form` is a format of one number, such as "conv_{:08x}"; `missing`
    is the code of the 404 for an id that is not there.  A record that has
    an owner is there for that project alone.
    """

    def __init__(self, kind, id_form, clock, missing="not_found"):
        self.kind = kind
        self.id_form = id_form
        self.clock = clock
        self.missing = missing
        self.numbers = itertools.count(1)
        self.records = {}
        self.owners = {}

    def next_id(self):
        return self.id_form.format(next(self.numbers))

    def keep(self, record):
        self.records[record["id"]] = record
        return record

    def create(self, **fields):
        record = {"id": self.next_id(), "object": self.kind,
                  "created_at": int(self.clock())}
        return self.keep(dict(record, **fields))

    def is_of(self, record_id, project):
        return project in (None, self.owners.get(record_id, project))

    def get(self, record_id, project=None):
        if record_id not in self.records or not self.is_of(record_id,
                                                           project):
            raise Refusal(404, f"No {self.kind} with the id '{record_id}'.",
                          code=self.missing)
        return self.records[record_id]

    def update(self, record_id, **fields):
        record = self.get(record_id)
        record.update(fields)
        return record

    def delete(self, record_id):
        del self.records[self.get(record_id)["id"]]
        return {"id": record_id, "object": f"{self.kind}.deleted",
                "deleted": True}

    def list(self, query, project=None, **wanted):
        """A cursor page, newest first unless `order=asc`.

        `wanted` names fields, and a test for the value of each.
        """
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise bad("order", "must be asc or desc")
        records = [record for record in self.records.values()
                   if self.is_of(record["id"], project)
                   and all(test(record[name])
                           for name, test in wanted.items())]
        return cursor_page(records[::1 if order == "asc" else -1], query)


class Store:
    """All that the router remembers of its projects."""

    def __init__(self, clock, pace):
        self.clock = clock
        self.pace = pace
        self.keys = {}
        self.chats = {}
        self.numbers = itertools.count(1)
        self.completions = Collection("chat.completion", "chatcmpl-{}",
                                      clock, "completion_not_found")
        self.conversations = Collection("conversation", "conv_{:024x}",
                                        clock)
        self.conversation_items = {}
        self.files = Collection("file", "file-{:024x}", clock)
        self.contents = {}      # file id: its ETag and Content
        self.file_limit = FILE_LIMIT
        self.batches = Collection("batch", "batch_{}", clock)
        self.batch_limit = BATCH_LIMIT
        self.plans = []         # for the batches that are not made yet
        self.start_batch = None     # the router's, since it has the threads


# The handlers of a collection's plain verbs, for the table of routes; the
# collection is named, not given, since each router has a store of its own.

def lists(name):
    return lambda call: getattr(call.store, name).list(call.query)


def shows(name):
    return lambda call, record_id: getattr(call.store, name).get(record_id)


def deletes(name):
    return lambda call, record_id: (
        getattr(call.store, name).delete(record_id))


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
        """The record of the key that came along, which must be known."""
        scheme, _, key = self.seen.headers.get(
            "Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or key not in self.store.keys:
            raise Refusal(401, "Missing or invalid API key.")
        return self.store.keys[key]

    def fields(self):
        """The members of the JSON object that is the request's body."""
        try:
            fields = json.loads(self.seen.body)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"The body is not JSON: {error}",
                          code="json_parse_error")
        if not isinstance(fields, dict):
            raise Refusal(400, "The body must be a JSON object.")
        return fields


def check_place(call):
    """The project is there, the key belongs to it, and the slug is its."""
    key = call.key()
    if call.project not in PROJECTS:
        raise Refusal(404, f"Project '{call.project}' not found.",
                      code="project_not_found")
    if key["project_id"] != call.project:
        raise Refusal(403, "The API key belongs to another project.",
                      code="cross_project_access")
    if call.slug is not None and call.slug not in PROJECTS[call.project]:
        raise Refusal(404, f"Endpoint '{call.slug}' not found.",
                      code="endpoint_not_found")


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
# 6. Completions
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
        raise bad(name, f"must be from {low} to {high}")


def check_completion(fields):
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


def make_completion(call, fields, tokens, finish_reason):
    message = {"role": "assistant", "content": "".join(tokens),
               "refusal": None}
    return {"id": call.store.completions.next_id(),
            "object": "chat.completion",
            "created": int(call.store.clock()), "model": fields["model"],
            "service_tier": None, "system_fingerprint": None,
            "choices": [{"index": 0, "message": message, "logprobs": None,
                         "finish_reason": finish_reason}],
            "usage": usage_of(fields["messages"], len(tokens))}


def make_chunk(completion, choices, **more):
    names = ("id", "object", "created", "model", "service_tier",
             "system_fingerprint")
    chunk = {name: completion[name] for name in names}
    return dict(chunk, object="chat.completion.chunk", choices=choices,
                **more)


def delta_frame(completion, delta, finish_reason=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return as_frame(make_chunk(completion, [choice]))


def vendor_frame(kind, **fields):
    return as_frame(dict({"type": kind}, **fields), event=kind)


def completion_frames(completion, tokens, has_usage, has_events):
    """The frames of a streamed completion, from the role to [DONE]."""
    yield delta_frame(completion, {"role": "assistant", "content": ""})
    if has_events:
        yield vendor_frame("x_research.progress", step=1,
                           message="Reading the question")
    for token in tokens:
        yield delta_frame(completion, {"content": token})
    if has_events:
        yield vendor_frame("x_research.progress", step=2,
                           message="Writing it down")
        yield vendor_frame("x_artifact.created", artifact_id="cart_1",
                           title="What was said")
    finish_reason = completion["choices"][0]["finish_reason"]
    yield delta_frame(completion, {}, finish_reason)
    if has_usage:
        yield as_frame(make_chunk(completion, [], usage=completion["usage"]))
    yield b"data: [DONE]\n\n"


def create_completion(call):
    fields = call.fields()
    check_completion(fields)
    model = fields["model"]
    if call.form == PLAIN and model != OPENAI_MODEL:
        raise Refusal(404, f"The model '{model}' does not exist.",
                      code="model_not_found", param="model")
    words = reply_tokens(fields["messages"], call.slug or model)
    limit = (fields.get("max_completion_tokens")
             or fields.get("max_tokens") or len(words))
    tokens = words[:limit]
    finish_reason = "stop" if tokens == words else "length"
    completion = make_completion(call, fields, tokens, finish_reason)
    if fields.get("store"):
        store_completion(call.store, completion, fields)
    if not fields.get("stream"):
        return completion
    return stream_completion(call, completion, tokens, fields)


def store_completion(store, completion, fields):
    """Keep a completion with the parameters and metadata of its request."""
    record = dict(completion, metadata=fields.get("metadata") or {})
    for name, *_ in COMPLETION_RANGES:
        if name in fields:
            record[name] = fields[name]
    store.completions.keep(record)


def stream_completion(call, completion, tokens, fields):
    has_usage = (fields.get("stream_options") or {}).get("include_usage")
    has_events = call.seen.headers.get("X-Xerotier-Vendor-Events") == "1"
    frames = completion_frames(completion, tokens, has_usage, has_events)
    return Answer(frames=list(frames), pace=call.store.pace)


# ---------------------------------------------------------------------------
# 7. Files
# ---------------------------------------------------------------------------

def store_file(store, project, name, content, purpose, relative_path=None):
    record = store.files.create(
        bytes=content.size, filename=name, purpose=purpose,
        status="processed", expires_at=None, x_relative_path=relative_path)
    store.files.owners[record["id"]] = project
    put_content(store, record, content)
    return record


def put_content(store, record, content):
    """Give a file its content, and with it an ETag that none had yet."""
    record["bytes"] = content.size
    store.contents[record["id"]] = (f'"v{next(store.numbers)}"', content)


def text_part(parts, name):
    if name not in parts:
        return None
    return parts[name].content.read().decode("utf-8", "replace")


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
                        text_part(parts, "relative_path"))
    return Answer(200 if call.form == PLAIN else 201, as_json(record))


def list_files(call):
    wanted = {}
    if "purpose" in call.query:
        wanted["purpose"] = call.query["purpose"].__eq__
    if "prefix" in call.query:
        wanted["x_relative_path"] = lambda path: (path or "").startswith(
            call.query["prefix"])
    return call.store.files.list(call.query, call.project, **wanted)


def get_file(call, file_id):
    return call.store.files.get(file_id, call.project)


def delete_file(call, file_id):
    get_file(call, file_id)
    call.store.files.delete(file_id)
    del call.store.contents[file_id]
    return {"id": file_id, "object": "file", "deleted": True}


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


def get_content(call, file_id):
    record = get_file(call, file_id)
    etag, content = call.store.contents[file_id]
    headers = {"ETag": etag, "Accept-Ranges": "bytes",
               "Content-Disposition": disposition(record["filename"])}
    found = asked_range(call, etag, content.size)
    status = 206 if found else 200
    if found:
        start, size = found
        headers["Content-Range"] = (
            f"bytes {start}-{start + size - 1}/{content.size}")
        content = content.slice(start, size)
    return Answer(status, content, headers,
                  content_type="application/octet-stream")


# ---------------------------------------------------------------------------
# 8. Batches
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
    if file_id not in files.records or not files.is_of(file_id, call.project):
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
    return f"/{call.project}/{call.slug or next(iter(PROJECTS[call.project]))}"


def create_batch(call):
    fields = call.fields()
    check_batch(call, fields)
    check_input(call, fields["input_file_id"])
    store = call.store
    plan = store.plans.pop(0) if store.plans else Plan()
    record = store.batches.create(
        endpoint=fields["endpoint"], model=None, errors=None,
        input_file_id=fields["input_file_id"],
        completion_window=fields["completion_window"], status="validating",
        output_file_id=None, error_file_id=None, in_progress_at=None,
        expires_at=int(store.clock()) + DAY, finalizing_at=None,
        completed_at=None, failed_at=None, expired_at=None,
        cancelling_at=None, cancelled_at=None,
        request_counts={"total": 0, "completed": 0, "failed": 0},
        usage=None, metadata=fields.get("metadata"))
    if plan.no_counts:
        del record["request_counts"]
    store.batches.owners[record["id"]] = call.project
    store.start_batch(record, plan, call.project, lines_base(call),
                      call.seen.headers["Authorization"])
    return record


def list_batches(call):
    return call.store.batches.list(call.query, call.project)


def get_batch(call, batch_id):
    return call.store.batches.get(batch_id, call.project)


def cancel_batch(call, batch_id):
    record = get_batch(call, batch_id)
    if record["status"] in BATCH_ENDS:
        raise Refusal(409, f"The batch is {record['status']} already.")
    if record["status"] != "cancelling":
        record.update(status="cancelling",
                      cancelling_at=int(call.store.clock()))
    return record


# ---------------------------------------------------------------------------
# 9. Groups
# ---------------------------------------------------------------------------

def get_health(call):
    return {"status": "ok"}


# == models

def list_models(call):
    """The model an endpoint serves, or a page of those of the project."""
    if call.form == ENDPOINT:
        names = [PROJECTS[call.project][call.slug]]
    else:
        names = [OPENAI_MODEL] if call.form == PLAIN else PROJECT_MODELS
    models = [{"id": name, "object": "model", "created": MODEL_CREATED,
               "owned_by": call.project} for name in names]
    if call.form == PROJECT:
        return offset_page(models, call.query)
    return {"object": "list", "data": models}


# == embeddings

def create_embeddings(call):
    """Four numbers for each input, the same ones for the same input."""
    fields = call.fields()
    if not (isinstance(fields.get("model"), str) and fields["model"]):
        raise bad("model", "must be a text that is not empty")
    given = fields.get("input")
    if isinstance(given, str) or (given and isinstance(given, list)
                                  and isinstance(given[0], int)):
        given = [given]
    if not (isinstance(given, list) and given):
        raise bad("input", "must be a text or a list that is not empty")
    count = sum(len(each.split() if isinstance(each, str) else each)
                for each in given)
    return {"object": "list", "model": fields["model"],
            "data": [{"object": "embedding", "index": number,
                      "embedding": [byte / 256 for byte in struct.pack(
                          ">I", zlib.crc32(as_json(each)))]}
                     for number, each in enumerate(given)],
            "usage": {"prompt_tokens": count, "total_tokens": count}}


# == conversations

def create_conversation(call):
    fields = call.fields()
    items = fields.get("items") or []
    if not isinstance(items, list) or len(items) > 20:
        raise bad("items", "must be a list of at most 20 items")
    conversation = call.store.conversations.create(
        metadata=check_metadata(fields))
    call.store.conversation_items[conversation["id"]] = items
    return conversation


def update_conversation(call, conversation_id):
    return call.store.conversations.update(
        conversation_id, metadata=check_metadata(call.fields()),
        updated_at=int(call.store.clock()))


# == chat templates and chats

def templates_of(workspace_id):
    if workspace_id not in WORKSPACES:
        raise Refusal(404, f"Workspace '{workspace_id}' not found.")
    return [{"id": template_id, "object": "chat_template", "name": name,
             "version": version, "scope": "workspace",
             "workspace_id": workspace_id}
            for template_id, name, version in WORKSPACES[workspace_id]]


def list_templates(call, workspace_id):
    # Two by two: a client that looks for a name must follow the pages.
    return cursor_page(templates_of(workspace_id), call.query, fallback=2)


def apply_template(call, workspace_id, template_id):
    for template in templates_of(workspace_id):
        if template["id"] == template_id:
            return Answer(201, as_json(create_chat(call.store, template)))
    raise Refusal(404, f"Chat template '{template_id}' not found.")


def create_chat(store, template):
    """Keep a new chat, and return what the router tells of it."""
    chat_id = f"chat_01H{next(store.numbers):022d}"
    chat = {"chat_id": chat_id, "url": f"/chats/{chat_id}",
            "template_id": template["id"],
            "template_version": template["version"],
            "workspace_id": template["workspace_id"]}
    store.chats[chat_id] = dict(chat, messages=[])
    return chat


def post_message(call, chat_id):
    if chat_id not in call.store.chats:
        raise Refusal(404, f"Chat '{chat_id}' not found.")
    fields = call.fields()
    check_message(fields, "message")
    message = {"id": f"msg_{next(call.store.numbers):024x}",
               "object": "chat.message", "role": fields["role"],
               "content": fields.get("content"),
               "created_at": int(call.store.clock())}
    call.store.chats[chat_id]["messages"].append(message)
    return Answer(201, as_json(message))


# == keys and tools

def list_keys(call):
    """The keys of the project; a whole key is never shown again."""
    return cursor_page([record for record in call.store.keys.values()
                        if record["project_id"] == call.project], call.query)


def list_tools(call):
    return {"object": "list", "data": TOOLS, "has_more": False}


# ---------------------------------------------------------------------------
# 10. Routes
# ---------------------------------------------------------------------------

# `needs` names the scopes that the key must have, none for a public route.
# In a pattern {} stands for one segment, which the handler is given.
Route = collections.namedtuple("Route", "method pattern forms needs handler")

ROUTES = tuple(Route(*row) for row in (
    ("GET", "/healthz", (ROOT,), "", get_health),

    ("POST", "/chat/completions", (ENDPOINT,), "inference",
     create_completion),
    ("GET", "/chat/completions", (ENDPOINT,), "inference",
     lists("completions")),
    ("GET", "/chat/completions/{}", (ENDPOINT,), "inference",
     shows("completions")),
    ("DELETE", "/chat/completions/{}", (ENDPOINT,), "inference",
     deletes("completions")),

    ("GET", "/models", (ENDPOINT, PROJECT), "inference", list_models),
    ("POST", "/embeddings", (ENDPOINT,), "inference", create_embeddings),

    ("POST", "/files", (PROJECT, ENDPOINT), "inference", create_file),
    ("GET", "/files", (PROJECT, ENDPOINT), "inference", list_files),
    ("GET", "/files/{}", (PROJECT, ENDPOINT), "inference", get_file),
    ("GET", "/files/{}/content", (PROJECT, ENDPOINT), "inference",
     get_content),
    ("DELETE", "/files/{}", (PROJECT, ENDPOINT), "inference", delete_file),

    ("POST", "/batches", (PROJECT, ENDPOINT), "inference", create_batch),
    ("GET", "/batches", (PROJECT, ENDPOINT), "inference", list_batches),
    ("GET", "/batches/{}", (PROJECT, ENDPOINT), "inference", get_batch),
    ("POST", "/batches/{}/cancel", (PROJECT, ENDPOINT), "inference",
     cancel_batch),

    ("POST", "/conversations", (PROJECT,), "inference", create_conversation),
    ("GET", "/conversations", (PROJECT,), "inference",
     lists("conversations")),
    ("GET", "/conversations/{}", (PROJECT,), "inference",
     shows("conversations")),
    ("POST", "/conversations/{}", (PROJECT,), "inference",
     update_conversation),
    ("DELETE", "/conversations/{}", (PROJECT,), "inference",
     deletes("conversations")),

    ("GET", "/workspaces/{}/chat-templates", (PROJECT,), "inference",
     list_templates),
    ("POST", "/workspaces/{}/chat-templates/{}/apply", (PROJECT,),
     "inference", apply_template),
    ("POST", "/chats/{}/messages", (PROJECT,), "inference", post_message),

    ("GET", "/management/api-keys", (PROJECT,), "management", list_keys),
    ("GET", "/exec/tools", (PROJECT,), "execution", list_tools),
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


def is_served(route, form):
    """Whether a path of this form leads to the route; PLAIN leads to all."""
    return form in route.forms or (form == PLAIN and ROOT not in route.forms)


def find_route(call):
    """The row for a call, by path, then form, then method; HEAD is GET."""
    found = [route for route in ROUTES
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
# 11. Faults
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
# 12. Connection
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


class Connection(threading.Thread):
    """One client's socket, and the thread that serves it."""

    def __init__(self, router, client):
        super().__init__(name="router connection", daemon=True)
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
# 13. Work
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

    def __init__(self, router, record, plan, project, base, authorization):
        super().__init__(name=f"router {record['id']}", daemon=True)
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
                        "batch_output")["id"]
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
# 14. Router
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


class Router:
    """The router as a context manager; leaving it ends every connection.

    `pace` is the seconds between streamed tokens; with `openai` every
    route is served under plain /v1 too.  `completions`, `chats`, `files`
    and `batches` are the records that it keeps, by id.
    """

    def __init__(self, port=0, openai=False, pace=0, clock=time.time):
        self.port = port
        self.openai = openai
        self.lock = threading.RLock()   # guards all that follows
        self.store = Store(clock, pace)
        self.completions = self.store.completions.records
        self.chats = self.store.chats
        self.files = self.store.files.records
        self.batches = self.store.batches.records
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
            number = len(self.store.keys) + 1
            prefix = "_".join(key.split("_")[:2]) + "_"
            self.store.keys[key] = {
                "id": f"key_{number}", "object": "api_key",
                "name": f"key {number}", "prefix": prefix,
                "scopes": list(scopes), "active": True,
                "project_id": project,
                "created_at": int(self.store.clock()),
                "last_used_at": None, "expires_at": None}
        return key

    # The most bytes that a file may have: when it is uploaded, and when a
    # batch is made of it.

    @property
    def file_limit(self):
        return self.store.file_limit

    @file_limit.setter
    def file_limit(self, size):
        self.store.file_limit = size

    @property
    def batch_limit(self):
        return self.store.batch_limit

    @batch_limit.setter
    def batch_limit(self, size):
        self.store.batch_limit = size

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
        self.acceptor = threading.Thread(target=self.accept, daemon=True,
                                         name="router acceptor")
        self.acceptor.start()
        return self

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            if self.stopping.is_set():
                client.close()
                return
            self.serve(client)

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
        for _, content in self.store.contents.values():
            content.spool.close()


# ---------------------------------------------------------------------------
# 15. Program
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
