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

It stores what it is given, pages its lists, and refuses a missing key, a
wrong scope and a wrong path.  It answers the same request with the same
bytes, but for ids, which count up, and times, which come from its clock.
Read from top to bottom: a name uses only names that stand above it.

   1. Constants      projects, models, templates, error texts
   2. Answers        what goes back to a client, errors included
   3. Collections    records by id, and the two ways to page them
   4. Access         one routed call, its key and its project
   5. Completions    chat completions, whole, streamed and stored
   6. Groups         models, conversations, chats, keys, tools
   7. Routes         the table, and the way from a path to its row
   8. Faults         what a test may order
   9. Connection     HTTP/1.1 on one socket
  10. Router         all of it behind one lock
  11. Program        the command line
"""

import argparse
import collections
import http.client
import itertools
import json
import math
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse


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
# 2. Answers
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

    A stream has many pieces, the frames; any other answer has one.
    """

    def __init__(self, status=200, body=b"", headers=(), frames=None,
                 content_type="application/json", pace=0):
        self.status = status
        self.is_stream = frames is not None
        self.pieces = frames if self.is_stream else [body]
        self.pace = pace
        self.headers = {"Content-Type": content_type}
        if self.is_stream:
            self.headers = {"Content-Type": "text/event-stream",
                            "Cache-Control": "no-cache"}
        self.headers.update(headers)


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
# 3. Collections
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
    is the code of the 404 for an id that is not there.
    """

    def __init__(self, kind, id_form, clock, missing="not_found"):
        self.kind = kind
        self.id_form = id_form
        self.clock = clock
        self.missing = missing
        self.numbers = itertools.count(1)
        self.records = {}

    def next_id(self):
        return self.id_form.format(next(self.numbers))

    def keep(self, record):
        self.records[record["id"]] = record
        return record

    def create(self, **fields):
        record = {"id": self.next_id(), "object": self.kind,
                  "created_at": int(self.clock())}
        return self.keep(dict(record, **fields))

    def get(self, record_id):
        if record_id not in self.records:
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

    def list(self, query):
        """A cursor page, newest first unless `order=asc`."""
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise bad("order", "must be asc or desc")
        records = list(self.records.values())
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
# 4. Access
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
# 5. Completions
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
# 6. Groups
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
# 7. Routes
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
# 8. Faults
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

    def __init__(self, match, times, fault):
        self.method, _, self.suffix = match.partition(" ")
        self.times = times
        self.fault = fault


# ---------------------------------------------------------------------------
# 9. Connection
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
        self.body = b""
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
    length = sum(map(len, answer.pieces))
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
        fault = self.router.take_fault(seen)
        if fault.drop == "before":
            return self.break_off(reset=True)
        self.read_rest(seen, fault)
        self.seen.append(seen)
        self.router.record(seen)
        if fault.drop == "after":
            return self.break_off(fault.reset)
        if fault.hang:
            return self.hang()
        answer = self.router.answer(seen, fault)
        return self.deliver(seen, answer, fault)

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
                seen.body = self.read_body(seen.headers)
        except (ValueError, http.client.HTTPException) as error:
            raise Malformed(error)

    def read_body(self, headers):
        if headers.get("Expect", "").lower() == "100-continue":
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self.read_chunks())
        return self.read_exactly(int(headers.get("Content-Length", "0")))

    def read_chunks(self):
        while True:
            line = self.reader.readline(LONGEST_LINE)
            size = int(line.partition(b";")[0], 16)
            if not size:
                break
            yield self.read_exactly(size)
            self.reader.readline(LONGEST_LINE)
        http.client.parse_headers(self.reader)      # the trailers

    def read_exactly(self, size):
        if size < 0:
            raise Malformed("a negative length")
        body = self.reader.read(size)
        if len(body) < size:
            raise Gone
        return body

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
        for count, piece in enumerate([b""] + answer.pieces):
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
# 10. Router
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
    route is served under plain /v1 too.
    """

    def __init__(self, port=0, openai=False, pace=0, clock=time.time):
        self.port = port
        self.openai = openai
        self.lock = threading.RLock()   # guards all that follows
        self.store = Store(clock, pace)
        self.completions = self.store.completions.records
        self.chats = self.store.chats
        self.requests = []
        self.orders = []                # those that are not used up
        self.connections = []
        self.listener = None
        self.is_stopping = False
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

    def order(self, match, times=1, **fault):
        """Order a fault, in the words of `Fault`, for "METHOD PATH-END".

        Orders are used up in the order in which they were given; "*"
        stands for any method or path, and times=None means for ever.
        """
        with self.lock:
            self.orders.append(Order(match, times, Fault(**fault)))

    def seen(self, method, suffix):
        """The requests of this method whose path ends so, oldest first."""
        with self.lock:
            return [seen for seen in self.requests
                    if is_match(seen, method, suffix)]

    # What a connection uses

    def take_fault(self, seen):
        with self.lock:
            for order in self.orders:
                if is_match(seen, order.method, order.suffix):
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
            answer = fault.answer() or dispatch(
                Call(seen, self.store, self.openai))
        return fault.change(answer)

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
            if self.is_stopping:
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
        if self.listener is None or self.is_stopping:
            return
        self.is_stopping = True
        # To close a listener does not wake accept everywhere; a call does.
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.acceptor.join()
        self.listener.close()
        with self.lock:
            for connection in self.connections:
                connection.hang_up()
        for connection in self.connections:
            connection.join()


# ---------------------------------------------------------------------------
# 11. Program
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
