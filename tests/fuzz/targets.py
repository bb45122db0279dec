"""What must hold whatever comes: one function per target, fed with bytes.

Each raises AssertionError if the program breaks a promise.  The readers that
it is compared with are written here, as simply as their standards allow.
"""

import csv
import io
import json
import os
import re
import shlex
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [os.path.dirname(TESTS), TESTS, HERE]

import generate  # noqa: E402
import xeroctl  # noqa: E402

try:
    import tomllib
except ImportError:  # before 3.11
    tomllib = None

FORMS = "table", "wide", "json", "jsonl", "csv", "id"
SECRET = "SECRET_0123456789"


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.at = 0.0

    def now(self):
        return 1770000000 + self.at

    def monotonic(self):
        return self.at

    def sleep(self, seconds):
        self.at += seconds

    def jitter(self):
        return 0.0


class Shown:
    """The exit status of a run, and its two streams as text."""

    def __init__(self, status, stdout, stderr):
        self.status, self.out, self.err = status, stdout, stderr

    def __repr__(self):
        return (f"exit {self.status}, stdout {self.out[:300]!r},"
                f" stderr {self.err[:2000]!r}")


def run(argv, environ):
    """Run one command line in this process."""
    pipes = [io.BytesIO() for _ in range(3)]
    streams = xeroctl.Streams(*(io.TextIOWrapper(pipe, "utf-8", newline="")
                                for pipe in pipes))
    status = xeroctl.main(argv, environ, streams, Clock())
    return Shown(status, *(pipe.getvalue().decode("utf-8")
                           for pipe in pipes[1:]))


def put(path, data):
    """Fill a file; ext4 would sync one that had been cut to nothing."""
    number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(number, "r+b") as target:
        target.write(data)
        target.truncate()


def refuse(token):
    raise ValueError(token)


def strict(text):
    """Decode JSON as RFC 8259 has it; raise ValueError."""
    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("too deep")


def lenient(text):
    """Decode what a server sends: NaN and infinities are null, a control
    character in a text is one.

    1e999 is neither: it is a number, beyond all floats.
    """
    try:
        return json.loads(text, parse_constant=lambda name: None,
                          strict=False)
    except RecursionError:
        raise ValueError("too deep")


def as_written(value):
    """What is written of a JSON value: of 1e999, null."""
    return lenient(json.dumps(value))


def same(value, other):
    """Whether two JSON values are equal, order and types of all included."""
    return json.dumps(value) == json.dumps(other)


def csv_rows(text):
    """The rows of RFC 4180; before 3.11 the reader takes no NUL."""
    text = text.replace("\0", "0")
    return list(csv.reader(io.StringIO(text, newline="")))


def assert_envelope(text, shown):
    """The text is one JSON object that tells an error."""
    try:
        told = strict(text)
    except ValueError:
        raise AssertionError(shown)
    assert isinstance(told, dict), shown


# What the spec has before an error: that a list was cut, what is approved.
SAID_BEFORE = re.compile(
    r"\A(warning: the server's cursor does not move: .*\n|Tool: +.*\n"
    r"Risk: +.*\nArguments: +.*\nWorkspace: +.*\nAgent: +.*\n"
    r"Requested by: +.*\nExpires: +.*\n)")


def check_failure(shown, form):
    """A failure is told once, in the form that is due, and nothing else."""
    said = SAID_BEFORE.sub("", shown.err)
    assert "Traceback" not in shown.err, shown
    assert "internal error" not in shown.err, shown
    if shown.status == 0:
        assert "error:" not in shown.err.split("\n"), shown
    elif form in ("json", "jsonl"):
        assert_envelope(said, shown)
    else:
        first, *rest = said.rstrip("\n").split("\n")
        assert first.startswith("error: "), shown
        assert all(line.startswith("  ") for line in rest), shown


def check_form(shown, form):
    """What is on stdout after success is well-formed."""
    if form == "json":
        strict(shown.out)
    elif form == "jsonl":
        for line in shown.out.split("\n")[:-1]:
            strict(line)
        assert shown.out[-1:] in ("", "\n"), shown
    elif form == "csv":
        rows = csv_rows(shown.out)
        assert len(set(map(len, rows))) < 2, shown


# == answers =================================================================

SAMPLES = {"time": 1770000000, "age": 1769990000, "size": 4200000000,
           "percent": 0.995, "count": 7e9, "state": "completed",
           "list": ["a", "b"], "pairs": {"a": 1}, "keys": {"a": 1},
           "seconds": 12.5, "content": [{"type": "text", "text": "hi"}]}


def plant(tree, path, value):
    *parents, last = path.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            return
    tree.setdefault(last, value)


def record_for(columns):
    """A record with a value for each of some columns."""
    record = {"id": "item_1", "object": "item", "status": "completed"}
    for column in columns:
        column = xeroctl.as_column(column)
        plant(record, column.paths[0], SAMPLES.get(column.format, "text"))
    return record


def page_of(record):
    return {"object": "list", "data": [record, dict(record, id="item_2")],
            "has_more": False}


CHAT = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1770000000,
        "model": "m", "choices": [{"index": 0, "message": {
            "role": "assistant", "content": "hello", "tool_calls": [
                {"id": "c", "type": "function", "function": {
                    "name": "f", "arguments": "{}"}}]},
            "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3,
                  "total_tokens": 12}}
RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1770000000,
            "status": "completed", "model": "m", "error": None, "output": [
                {"type": "reasoning", "summary": [
                    {"type": "summary_text", "text": "hm"}]},
                {"type": "message", "role": "assistant", "content": [
                    {"type": "output_text", "text": "hello"}]},
                {"type": "function_call", "name": "f", "arguments": "{}"}],
            "usage": {"input_tokens": 9, "output_tokens": 3,
                      "total_tokens": 12}}
BATCH = {"id": "batch_1", "object": "batch", "status": "completed",
         "endpoint": "/v1/chat/completions", "created_at": 1770000000,
         "input_file_id": "file-1", "output_file_id": "file-2",
         "error_file_id": None, "errors": {"object": "list", "data": [
             {"code": "c", "message": "bad", "param": None, "line": 3}]},
         "request_counts": {"total": 5, "completed": 4, "failed": 1},
         "metadata": {"a": "b"}}
EMBEDDINGS = {"object": "list", "model": "m", "data": [
    {"object": "embedding", "index": 0, "embedding": [0.1, -2, 3e-5]},
    {"object": "embedding", "index": 1, "embedding": [1, 2, 3]}],
    "usage": {"prompt_tokens": 4, "total_tokens": 4}}
RANKED = {"id": "r", "model": "m", "results": [
    {"index": 1, "relevance_score": 0.9, "document": {"text": "b"}},
    {"index": 0, "relevance_score": 0.1}], "usage": {"total_tokens": 7}}
SCORED = {"object": "list", "model": "m", "data": [
    {"index": 0, "object": "score", "score": 0.7},
    {"index": 1, "object": "score", "score": 0.1}],
    "usage": {"prompt_tokens": 4, "total_tokens": 4}}
ERROR = {"error": {"message": "no such thing", "type": "invalid_request",
                   "code": "bad", "param": "x", "retry_after": 2,
                   "retry_strategy": {"type": "exponential", "max_retries": 2,
                                      "initial_delay_ms": 100,
                                      "max_delay_ms": 500}},
         "detail": [{"loc": ["body", 0], "msg": "wrong"}]}

LIST, SHOW, OTHER = "list", "show", "other"

# (command line, the answer to it, what it does with that)
ROWS_BY_HAND = [
    ("chat --endpoint demo -m hi --show-usage", CHAT, OTHER),
    ("chat --endpoint demo -m hi --stream", CHAT, OTHER),
    ("responses create --endpoint demo -m hi --show-usage", RESPONSE, OTHER),
    ("responses resp_1 --endpoint demo", RESPONSE, SHOW),
    ("responses resp_1 --endpoint demo --wait --wait-timeout 5", RESPONSE,
     OTHER),
    ("batches --endpoint demo", page_of(BATCH), LIST),
    ("batches --endpoint demo --all", page_of(BATCH), OTHER),
    ("batches batch_1 --endpoint demo", BATCH, SHOW),
    ("batches batch_1 --endpoint demo --wait --wait-timeout 5", BATCH, OTHER),
    ("batches batch_1 --endpoint demo --download --output-file -", BATCH,
     "download"),
    ("batches batch_1 --endpoint demo --cancel", BATCH, OTHER),
    ("batches --endpoint demo --input-prefix a/ --wait --wait-timeout 5",
     page_of(dict(BATCH, x_relative_path="a/b")), OTHER),
    ("embeddings --endpoint demo --input a --input b", EMBEDDINGS, OTHER),
    ("rerank --endpoint demo --query q --documents a b", RANKED, OTHER),
    ("score --endpoint demo --text q --candidates a b", SCORED, OTHER),
    ("api /x", page_of(BATCH), OTHER),
    ("api /x --all", page_of(BATCH), OTHER),
    ("status", {"status": "ok"}, OTHER),
    ("health check", {"status": "ok"}, OTHER),
    ("usage daily", {"object": "list", "data": [
        {"date": "2026-01-01", "requests": 5, "errors": 0,
         "input_tokens": 3, "output_tokens": 4, "cost": 0.5}] * 2}, OTHER),
    ("files --tree", page_of({"id": "file-1", "filename": "a",
                              "bytes": 5, "x_relative_path": "a/b/c"}),
     OTHER),
    ("templates show triage", {"id": "t", "data": [
        {"id": "t", "name": "triage", "system_prompt": "x"}]}, OTHER),
    ("chat new --workspace ws_1 --template triage -m hi", {
        "id": "t", "role": "assistant", "content": "hi", "data": [
            {"id": "t", "name": "triage", "system_prompt": "x"}]}, OTHER),
    ("exec watch inv_1 --wait-timeout 5", {
        "id": "inv_1", "status": "completed", "tool": "t", "result": {
            "stdout": "x"}, "exit_code": 0}, OTHER),
    ("slos slo_1 --history", {"object": "list", "data": [
        {"timestamp": 1770000000, "compliance": 0.99, "value": 1.5}] * 2,
        "measurements": [{"timestamp": 1770000000, "value": 1}]}, OTHER),
    ("models model_1 --revalidate", {
        "id": "model_1", "status": "ready", "created_at": 1770000000},
     OTHER),
    ("models probe model_1", {"id": "model_1", "capabilities": ["chat"]},
     OTHER),
    ("models model_1", {"id": "model_1", "size_bytes": 5, "status": "ready",
                        "parameterCount": 7000000000, "created": 1}, OTHER),
    ("models model_1 --delete", {"id": "model_1", "deleted": True}, OTHER),
    ("models", page_of({"id": "m", "name": "n", "size_bytes": 5,
                        "status": "ready", "parameterCount": 7e9}), OTHER),
]
KINDS = {"run_list": LIST, "list_completions": LIST, "list_files": LIST,
         "run_show": SHOW, "run_write": OTHER,
         "run_update": OTHER, "show_overview": OTHER, "run_delete": OTHER,
         "rotate_key": OTHER, "create_export": OTHER}


def rows():
    """[(words, answer, kind, where -o id finds ids)].

    By hand, and each row of the tables.
    """
    found = [(shlex.split(line), tree, kind, "id")
             for line, tree, kind in ROWS_BY_HAND]
    for group in xeroctl.GROUPS:
        for verb in group.verbs:
            kind = KINDS.get(verb.run.__name__)
            call = xeroctl.examples_of(group, verb)[0]
            if not kind or "--file" in call:
                continue
            if "triage" in call:
                kind = OTHER    # a name is looked up first
            columns = verb.columns or group.columns
            record = record_for(tuple(columns) + tuple(group.fields))
            if verb.once:
                record[verb.once] = "secret"
            words = shlex.split(call)[1:]
            words = [{"url": "http://localhost/"}.get(word, word)
                     for word in words]
            found.append((words, page_of(record) if kind == LIST else record,
                          kind, verb.id_path or group.id_path))
    return found


ROWS = rows()
STATUSES = {400: 1, 401: 3, 403: 3, 404: 4, 409: 1, 413: 1, 422: 1, 429: 6,
            500: 1, 502: 1, 503: 6}


def environment(router):
    return {"XEROTIER_BASE_URL": router.base_url,
            "XEROTIER_API_KEY": router.key}


def answer_text(body):
    """The text of an answer, as it is said to be read."""
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", "replace")
    return body.decode("utf-8-sig", "replace")


def is_deep(text):
    """Whether it may be nested more deeply than some interpreter can go."""
    return text.count("[") + text.count("{") > 200


def records_in(value):
    """The records of a list answer, or None if it holds no list."""
    if isinstance(value, list):
        return value
    for name in ("data", "models", "items", "results"):
        if isinstance(value, dict) and isinstance(value.get(name), list):
            return value[name]
    return None


def is_error(value):
    """Whether it stands in place of an answer."""
    if not isinstance(value, dict):
        return value is None
    is_record = value.get("status") and has_id(value)
    return value.get("object") == "error" or bool(
        value.get("error") and not is_record
        or value.get("success") is False and not has_id(value))


def has_id(value, places="id"):
    """Whether a record has a text for an id, in one of some places."""
    found = [value.get(name) for name in places.split("|")
             ] if isinstance(value, dict) else []
    return any(isinstance(each, str) and each != "" for each in found)


def check_list(shown, form, value, id_path):
    records = records_in(value)
    if is_error(value) or records is None and not isinstance(value, dict):
        assert shown.status == 1, shown
        return
    if records is None or form == "id" and not all(
            has_id(each, id_path) for each in records):
        assert shown.status in (0, 1), shown  # under another name, perhaps
        return
    assert shown.status == 0, shown
    lines = shown.out.split("\n")[:-1]
    if form == "json":
        assert same(strict(shown.out), as_written(value)), shown
    elif form == "jsonl":
        assert same(list(map(strict, lines)), as_written(records)), shown
    elif form == "csv":
        found = csv_rows(shown.out)
        assert len(found) == len(records) + 1, shown
    elif form == "tree":                # it has no head, but folders
        assert len(lines) >= len(records), shown
    elif form == "id" or records:
        assert len(lines) == len(records) + (form != "id"), shown


def check_show(shown, form, value, id_path):
    if is_error(value) or not isinstance(value, dict):
        assert (shown.status, shown.out) == (1, ""), shown
        return
    if shown.status == 1 and not (has_id(value) and (
            form != "id" or has_id(value, id_path))):
        return  # kinds without an id need something that is shown
    assert shown.status == 0, shown
    if form == "json":
        assert same(strict(shown.out), as_written(value)), shown
    elif form == "jsonl":
        assert same(strict(shown.out), as_written(value)), shown
        assert shown.out.count("\n") == 1, shown
    elif form == "id":
        assert shown.out.count("\n") == 1, shown


def check_answer(router, number, form, status, body):
    """A row of the command map is given this answer to all that it asks."""
    words, _, kind, id_path = ROWS[number]
    match = "GET /batch_1" if kind == "download" else "* *"
    router.orders[:] = []
    router.order(match, times=None, body=body, status=status)
    if kind == "download":
        router.order("* *", times=None, body=b"{}\n")
    argv = words + ["-o", form, "-q", "--force", "--max-time", "30"]
    shown = run(argv, environment(router))
    try:
        check_answered(shown, words, kind, id_path, form, status, body)
    except AssertionError as problem:
        raise AssertionError(f"{' '.join(argv)}: {problem}: status {status},"
                             f" {body[:2000]!r}")


def check_answered(shown, words, kind, id_path, form, status, body):
    assert shown.status in (0, 1, 3, 4, 5, 6, 7, 8) or (
        shown.status == 2 and words[0] in ("templates", "chat")), shown
    is_shown_anyway = words[0] in ("status", "health") or (
        "--wait" in words or "--delete" in words or "--revalidate" in words
        or "watch" in words)
    if kind != "download" and not (
            is_shown_anyway and shown.status and shown.out):
        check_failure(shown, form)
    assert "internal error" not in shown.err, shown
    assert "Traceback" not in shown.err, shown
    if kind == "download":
        return
    if shown.status == 0 and not (words[0] == "api" and not body):
        check_form(shown, form)
    elif form == "json" and not is_shown_anyway:
        assert shown.out == "", shown
    if status >= 400 and not is_shown_anyway and not is_deep(
            answer_text(body)):
        # A server may ask for waits that are longer than --max-time.
        assert shown.status in (STATUSES[status], 5), shown
        assert shown.status != 5 or "--max-time" in shown.err, shown
    if status >= 400 or is_shown_anyway or kind == OTHER:
        return
    text = answer_text(body) if body.strip() else "{}"
    try:
        value = lenient(text)
    except ValueError:
        assert shown.status == 1, shown
        return
    if is_deep(text):
        assert shown.status in (0, 1), shown
    elif kind == LIST:
        is_tree = "--tree" in words and form in ("table", "wide")
        check_list(shown, "tree" if is_tree else form, value, id_path)
    else:
        check_show(shown, form, value, id_path)


# == streams =================================================================

def is_own(data):
    """Whether data needs no blank line: a comment, or JSON of its own."""
    try:
        return data[:1] == ":" or [lenient(data)]
    except ValueError:
        return False


SPACE = " \t\n\r\v\f"  # of bytes


def whatwg_events(body):
    """(event, data) after WHATWG HTML 9.2.6, but the last event counts.

    And where servers leave blank lines out, the next field begins an event;
    a field of the name error is an event of that name.
    """
    text = body.decode("utf-8", "replace")
    if text[:1] == "\ufeff":
        text = text[1:]
    lines = re.split("\r\n|\n|\r", text)
    found, name, data = [], "", None
    for line in lines + [""]:
        field, colon, value = line.partition(":")
        begins = data and (field == "event" or field == "error" and colon
                           or field == "data" and (
                               value.strip()[:1] in tuple("{[:")))
        value = value[1:] if value[:1] == " " else value
        if line == "" or begins and is_own(data):
            if data is not None:
                found.append((name, data))
            name, data = "", None
        if field == "error":
            name, field, value = "error", "data", value.strip(SPACE)
        if field == "data":
            data = value if data is None else data + "\n" + value
        elif field == "event":
            name = value
    return found


def check_sse(body, pieces):
    """The events are those of the standard, however the bytes are split."""
    wanted = whatwg_events(body)
    found = list(xeroctl.sse_events(iter(pieces)))
    assert [each[:2] for each in found] == wanted, (body, pieces, found)
    assert all(is_whole for _, _, is_whole in found[:-1]), (body, pieces)
    lines = list(xeroctl.sse_lines(iter(pieces)))
    text = b"".join(re.sub(b"\r\n|\r", b"\n", line) for line in lines)
    assert text == re.sub(b"\r\n|\r", b"\n", body), (body, pieces, lines)
    assert len(lines) == len(re.findall(
        b"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", body)), (body, pieces, lines)


def chunk(delta, finish=None, **more):
    return dict({"id": "c", "object": "chat.completion.chunk", "created": 1,
                 "model": "m", "choices": [{
                     "index": 0, "delta": delta, "finish_reason": finish}]},
                **more)


CALLS = [{"index": 0, "id": "c", "type": "function",
          "function": {"name": "f", "arguments": "{\"a\""}}]
CHUNKS = [
    chunk({"role": "assistant", "content": ""}), chunk({"content": "he"}),
    chunk({"content": "llo \u2028"}), chunk({"reasoning_content": "hm"}),
    {"type": "x_research.progress", "step": 1}, chunk({"content": "!"}),
    chunk({"tool_calls": CALLS}), chunk({}, "stop"),
    {"object": "chat.completion.chunk", "choices": [], "usage": {
        "prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}}]
ITEM = {"item_id": "i", "output_index": 0, "content_index": 0}
EVENTS = [
    {"type": "response.created", "response": dict(
        RESPONSE, status="in_progress", output=[])},
    {"type": "response.output_item.added", "output_index": 0,
     "item": {"type": "message", "role": "assistant", "content": []}},
    dict(ITEM, type="response.output_text.delta", delta="he"),
    dict(ITEM, type="response.output_text.delta", delta="llo"),
    dict(ITEM, type="response.refusal.delta", delta="no"),
    dict(ITEM, type="response.output_text.done", text="hello"),
    {"type": "x_note", "step": 1},
    {"type": "response.output_item.done", "output_index": 1, "item": {
        "type": "function_call", "name": "f", "arguments": "{}"}},
    {"type": "response.completed", "response": RESPONSE}]
STREAMS = [
    (["chat", "--endpoint", "demo", "-m", "hi", "--stream", "--show-usage"],
     CHUNKS, False),
    (["responses", "create", "--endpoint", "demo", "-m", "hi", "--stream",
      "--show-usage"], EVENTS, True),
]
ENDS = ("response.completed", "response.failed", "response.incomplete",
        "response.cancelled")


def payloads_in(body):
    """The JSON objects of a stream up to its end, or to the first error.

    And the kind of the last of them.
    """
    found, kind = [], None
    for name, data in whatwg_events(body):
        if data.strip() == "[DONE]":
            break
        if data[:1] in ("", ":"):
            continue  # a comment, in a frame of its own
        try:
            value = lenient(data)
            as_written(value)
        except (ValueError, RecursionError):
            if "{" in data or name in ("", "message", "error") or (
                    name.startswith("response.")):
                break
            continue  # a word of whoever is in between
        if not isinstance(value, dict):
            continue
        kind = name if name not in ("", "message") else (
            value.get("type") or value.get("object"))
        error = value.get("error")
        if "error" in (kind, value.get("object")) or error and (
                not isinstance(error, dict) or any(error.values())):
            break
        found.append(value)
        if kind in ENDS:
            break
    return found, kind


def has_ended(body):
    """Whether a stream tells its end, in any of the ways there are."""
    for name, data in whatwg_events(body):
        if data.strip() == "[DONE]":
            return True
        try:
            value = lenient(data)
        except ValueError:
            continue
        if not isinstance(value, dict):
            continue
        choices = value.get("choices")
        choices = choices if isinstance(choices, list) else []
        if name in ENDS or str(value.get("type")) in ENDS or any(
                isinstance(choice, dict)
                and (choice.get("finish_reason") or "null") != "null"
                for choice in choices):
            return True
    return False


def check_stream(router, number, form, body, pieces):
    """A streamed answer of these bytes; whole, it says the same."""
    words = STREAMS[number][0] + ["-o", form, "--max-time", "30", "-q"]
    shown = []
    for frames in (pieces, [body]):
        router.orders[:] = []
        router.order("* *", times=None, frames=frames)
        shown.append(run(words, environment(router)))
    try:
        check_streamed(shown[0], form, body)
        first, second = (re.sub("req_[0-9]+", "", each.err)
                         for each in shown)
        assert (shown[0].status, shown[0].out, first) == (
            shown[1].status, shown[1].out, second), shown
    except AssertionError as problem:
        raise AssertionError(f"{' '.join(words)}: {problem}: {pieces!r}")


def check_streamed(shown, form, body):
    assert shown.status in (0, 1, 5, 7), shown
    assert "internal error" not in shown.err, shown
    assert "Traceback" not in shown.err, shown
    if shown.status == 0:
        check_form(shown, form)
    elif form in ("json", "id", "csv"):
        assert shown.out == "", shown
        check_told_once(shown, form)
    else:
        check_told_once(shown, form)
    if form in ("table", "wide") and shown.status in (1, 5):
        assert shown.out == "", shown
    if body.lstrip()[:1] in (b"{", b"[", b"<"):
        return
    assert shown.status or has_ended(body), shown
    wanted, kind = payloads_in(body)
    if (kind == EVENTS[-1]["type"] and wanted[-1] == EVENTS[-1]
            and not is_deep(re.sub(r"\[\]|\{\}", "", body.decode(
                "utf-8", "replace")))):
        assert shown.status == 0, shown
    if form == "jsonl":
        lines = list(map(strict, shown.out.split("\n")[:-1]))
        if shown.status:
            wanted = wanted[:len(lines)]
        assert same(lines, as_written(wanted)), (shown, wanted)


def check_told_once(shown, form):
    if form in ("json", "jsonl"):
        assert_envelope(shown.err[shown.err.index("{\n"):], shown)
    else:
        told = re.findall(r"^error: ", shown.err, re.M)
        assert len(told) == 1, shown


# == TOML ====================================================================

def read_toml(text):
    """(the tree, None), or (None, the error)."""
    try:
        tables = xeroctl.read_toml(text, "c.toml")
    except xeroctl.NotConfigured as problem:
        assert SECRET not in str(problem), (problem, text)
        found = re.match(r"c\.toml: line (\d+): .", str(problem), re.S)
        assert found, (problem, text)
        assert 1 <= int(found.group(1)) <= text.count("\n") + 1, (
            problem, text)
        return None, str(problem)
    return tree_of(tables), None


def tree_of(tables):
    """Tables as tomllib nests them."""
    return dict(tables[()], deployment={
        path[1]: table for path, table in tables.items() if path})


def reference(text):
    """What tomllib reads; None if it refuses, or there is none."""
    try:
        return tomllib.loads(text) if tomllib else None
    except (ValueError, RecursionError):
        return None


def is_ours(key, value):
    """Whether a value of tomllib's may be that of a key of ours."""
    return isinstance(value, (int, float) if key == "timeout" else str)


def holds_more(tree):
    """Whether a tree of tomllib's has in a place of ours what is not read."""
    tables = tree.get("deployment", {})
    return not is_ours("current", tree.get("current", "")) or not isinstance(
        tables, dict) or not all(
            isinstance(table, dict) and all(
                is_ours(key, table[key]) for key in table
                if key in xeroctl.DEPLOYMENT_KEYS)
            for table in tables.values())


def ours_of(tree):
    """Of a tree what xeroctl reads, in an order that does not count."""
    tables = tree.get("deployment", {})
    return repr((tree.get("current"), [
        (name, sorted((key, repr(value)) for key, value
                      in tables[name].items()
                      if key in xeroctl.DEPLOYMENT_KEYS))
        for name in sorted(tables)]))


def ours_alone(text):
    """The statements of a text that are about what is ours."""
    return "".join(
        text[one.start:one.end] for one in xeroctl.toml_statements(text)
        if one.path[:1] in (("current",), ("deployment",))
        and one.value is not None
        and len(one.path) < (3 if one.value == {} else 4))


def utf8_of(data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def check_toml(data):
    """What is ours is read as by tomllib, or refused with a line.

    In what is not ours xeroctl reads on where tomllib refuses, and it bears
    control characters.
    """
    text = utf8_of(data)
    if text is None:
        return
    tree, problem = read_toml(text)
    wanted = reference(text)
    if re.search(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)", text):
        return
    if problem is None and tomllib:
        alone = reference(ours_alone(text))
        assert alone is not None, (text, tree)
        if wanted is None:
            tree = read_toml(ours_alone(text))[0]
            wanted = alone
        assert not holds_more(wanted), (text, tree)
        assert ours_of(tree) == ours_of(wanted), (text, tree, wanted)
    elif wanted is not None:
        assert holds_more(wanted) or re.search(
            r"=[ \t]*\{|has to be a table|timeout has",
            text + problem), (text, problem)


def changed(tree, path, value):
    """What an edit shall make of a tree."""
    place, *parents, key = tree, *path
    for name in parents:
        place = (place.get(name, {}) if value is None
                 else place.setdefault(name, {}))
    place.pop(key, None)
    if value is not None:
        place[key] = value
    return tree


def ordered(tree):
    """The tree in an order that does not count; no table is {}."""
    return repr(tree) if not isinstance(tree, dict) else [
        (key, ordered(tree[key])) for key in sorted(tree)
        if key != "deployment" or tree[key] != {}]


def rest_of(text, path):
    """The key of a path as (before, behind) its value; all other lines."""
    key, rest, end = None, [], 0
    for one in xeroctl.toml_statements(text):
        rest += text[end:one.start].split("\n")
        end = one.end
        if one.path[:len(path)] != path:
            rest.append(text[one.start:end])
        elif one.path == path:
            key = text[one.start:one.place[0]], text[one.place[1]:end]
    rest += text[end:].split("\n")
    return key, [line for line in rest if line]


def is_in_order(lines, among):
    """Whether the lines are all among others, in their order."""
    left = iter(line.rstrip("\r\n") for line in among)
    return all(line.rstrip("\r\n") in left for line in lines)


def with_value(tables, path, value):
    """The tables of read_toml with a key set, or without what is there."""
    tables = {name: dict(table) for name, table in tables.items()}
    if value is not None:
        tables.setdefault(path[:-1], {})[path[-1]] = value
    elif path in tables:
        del tables[path]
    else:
        tables.get(path[:-1], {}).pop(path[-1], None)
    return tables


def check_edit(data, path, value):
    """An edit changes what it says in the tree, and no other line."""
    text = utf8_of(data)
    if text is None or read_toml(text)[1]:
        return
    about = text, path, value
    tables = with_value(xeroctl.read_toml(text, ""), path, value)
    edited = xeroctl.edit_toml(text, tables, "")
    assert xeroctl.read_toml(edited, "") == tables, (about, edited)
    wanted = reference(text)
    if wanted is not None:
        assert ordered(reference(edited)) == ordered(
            changed(wanted, path, value)), (about, edited)
    assert xeroctl.edit_toml(edited, tables, "") == edited, about
    (old, before), (new, after) = (
        rest_of(each, path) for each in (text, edited))
    assert is_in_order(before, after), (about, edited)
    if value is None or old:
        assert (new, after) == (None if value is None else old,
                                before), (about, edited)
    assert len(after) <= len(before) + 2, (about, edited)


# == the config, as its verbs change it ======================================

class Model:
    """A config file as a list of blocks, and what is to be read of it.

    A block is [path, header, before, source, behind, value]: a statement,
    whose value is source, or, with no path, comments and blank lines.
    """

    def __init__(self, blocks):
        self.blocks = blocks
        self.tables = {(): {}}
        for path, header, _, _, _, value in blocks:
            self.note(path, value)

    def note(self, path, value):
        """Take note of what a statement says, if it is about what is ours."""
        if path == ("current",):
            self.tables[()]["current"] = value
        elif path[:1] == ("deployment",) and path[1:]:
            table = self.tables.setdefault(path[:2], {})
            if path[2:]:
                table[path[2]] = None if path[3:] else value

    def text(self):
        return "".join("".join(block[2:5]) for block in self.blocks)

    @property
    def end(self):
        return "\r\n" if "\r\n" in self.text() else "\n"

    def cut(self, path):
        self.blocks = [block for block in self.blocks
                       if block[0][:len(path)] != path or not block[0]]
        self.tables.pop(path, None)
        self.tables.get(path[:-1], {}).pop(path[-1], None)

    def set(self, path, value):
        source = json.dumps(value, ensure_ascii=False)
        header, name = path[:-1], path[-1]
        same = [block for block in self.blocks if block[0] == path]
        own = [index for index, block in enumerate(self.blocks)
               if block[0] and block[1] == header]
        if same and same[0][5] != value:
            same[0][3], same[0][5] = source, value
        elif same:
            pass
        else:
            self.insert(own, header, [path, header, f"{name} = ", source,
                                      self.end, value])
        self.tables.setdefault(header, {})[name] = value

    def insert(self, own, header, block):
        blank = [(), (), self.end * bool(self.text()), "", "", None]
        if own:
            self.finish(own[-1])
            self.blocks.insert(own[-1] + 1, block)
        elif not header:
            self.blocks[:0] = [block, blank]
        else:
            self.finish(len(self.blocks) - 1)
            names = ".".join(name if re.fullmatch("[A-Za-z0-9_-]+", name)
                             else json.dumps(name, ensure_ascii=False)
                             for name in header)
            self.blocks += [blank, [header, header, f"[{names}]", "",
                                    self.end, {}], block]

    def finish(self, index):
        """End a block with its line, if it does not yet."""
        if self.blocks and not "".join(self.blocks[index][2:5]).endswith(
                "\n") and "".join(self.blocks[index][2:5]):
            self.blocks[index][4] += self.end

    # The verbs, on a model that has what they are about.

    def use(self, name):
        self.set(("current",), name)

    def put(self, name, values):
        path = "deployment", name
        for key in set(self.tables.get(path, {})) - set(values):
            self.cut(path + (key,))
        self.tables.pop(path, None)
        for key, value in values.items():
            self.set(path + (key,), value)
        if "current" not in self.tables[()]:
            self.use(name)

    def change(self, name, key, value):
        path = "deployment", name
        for source in SOURCES if key in SOURCES else ():
            if source != key:
                self.cut(path + (source,))
        self.set(path + (key,), value)

    def drop(self, name):
        self.cut(("deployment", name))
        if self.tables[()].get("current") == name:
            self.cut(("current",))


SOURCES = ("api_key", "api_key_env", "api_key_file", "api_key_command",
           "api_key_keychain")


def verb_words(verb, name, key, value):
    """The words of a config command."""
    if verb == "put":
        flags = ["--" + each.replace("_", "-") + "=" + text
                 for each, text in value.items()]
        return ["add", *flags, "-y", "--", name]
    return {"use": ["use", "--", name], "drop": ["remove", "-y", "--", name],
            "change": ["set", "--", name, key, str(value)],
            "unset": ["unset", "--", name, key]}[verb]


def check_config_edits(model, changes, path):
    """A sequence of verbs: each changes the model and the file alike.

    With a path it is the verbs themselves that run, on a file there.
    """
    (blocks, mark), text = model, None
    model = Model(blocks)
    for verb, name, key, value in changes:
        text = model.text()
        assert xeroctl.read_toml(text, "") == model.tables, text
        if verb != "put" and ("deployment", name) not in model.tables or (
                verb == "unset" and key not in model.tables[
                    "deployment", name]):
            continue
        if path:
            put(path, (mark + text).encode("utf-8"))
            shown = run(["config"] + verb_words(verb, name, key, value),
                        {"XEROTIER_CONFIG": path})
            assert shown.status == 0, (text, verb, name, key, value, shown)
        if verb == "unset":
            model.cut(("deployment", name, key))
        else:
            getattr(model, verb)(*{"change": (name, key, value),
                                   "put": (name, value)}.get(verb, (name,)))
        about = text, verb, name, key, value
        if path:
            with open(path, encoding="utf-8", newline="") as source:
                edited = source.read()
            assert edited[:len(mark)] == mark, about
            edited = edited[len(mark):]
        else:
            edited = xeroctl.edit_toml(text, model.tables, "")
        assert edited == model.text(), (about, edited, model.text())
        if tomllib:
            assert ours_of(tomllib.loads(edited)) == ours_of(
                tree_of(model.tables)), (about, edited)


COMMANDS = (["config", "list"], ["config", "show"],
            ["api", "/x", "--dry-run", "--field", "a=1"])


def check_config(data, number, form, path):
    """Any config file is read, or refused by an error of its own."""
    put(path, data)
    argv = COMMANDS[number] + ["-o", form]
    shown = run(argv, {"XEROTIER_CONFIG": path})
    assert shown.status in (0, 2, 3), (data, argv, shown)
    if not re.search(rb"^(?!\s*api_key\s*=).*" + SECRET.encode(), data, re.M):
        assert SECRET not in shown.out + shown.err, (data, argv, shown)
    if "key_file" in shown.err or "warning" in shown.err:
        return
    check_failure(shown, form)
    if shown.status == 0:
        check_form(shown, form)
    elif form == "json":
        assert shown.out == "", (data, argv, shown)


# == JSON Lines ==============================================================

SCALAR = (r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*"'
          r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
          r"|true|false|null")


def is_json(text):
    """Whether a text is JSON (RFC 8259), told by folding it up.

    s is a string, v any other value; what holds only values is a value.
    """
    def folded(found):
        return "s" if found.group()[0] == '"' else "v"
    pieces = re.split(f"({SCALAR})", text)
    outside = "".join(pieces[::2])
    if re.search(r"[^][{}:, \t\r\n]", outside):
        return False
    marks = "".join(re.sub(SCALAR, folded, piece) if odd else re.sub(
        "[ \t\r\n]", "_", piece) for piece, odd in zip(
            pieces, [False, True] * len(pieces)))
    if re.search("[sv][sv]", marks):
        return False
    marks, before = marks.replace("_", ""), None
    while marks != before:
        before = marks
        marks = re.sub(r"\[(?:[sv](?:,[sv])*)?\]", "v", marks)
        marks = re.sub(r"\{(?:s:[sv](?:,s:[sv])*)?\}", "v", marks)
    return marks in ("s", "v")


def is_beyond(text):
    """Whether JSON may be more than an interpreter takes."""
    return is_deep(text) or bool(re.search("[0-9]{4301}", text))


def is_text(value):
    return isinstance(value, str) and value != ""


def wrong_lines(data):
    """The number of each line once for each thing that is wrong with it.

    None where that depends on the interpreter.
    """
    lines = data.split(b"\n")
    lines = lines[:-1] if lines[-1] == b"" else lines
    wrong, ids = [] if lines else [1], set()
    for number, raw in enumerate(lines, 1):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            wrong.append(number)
            continue
        if is_beyond(text):
            return None
        value = json.loads(text) if is_json(text) else None
        if not isinstance(value, dict):
            wrong.append(number)
            continue
        body, custom_id = value.get("body"), value.get("custom_id")
        wrong += [number] * (
            (not is_text(custom_id)) + (value.get("method") != "POST")
            + (value.get("url") != "/v1/chat/completions")
            + (not isinstance(body, dict) or not is_text(body.get("model")))
            + (isinstance(body, dict)
               and value.get("url") == "/v1/chat/completions"
               and not isinstance(body.get("messages"), list)))
        if is_text(custom_id):
            wrong += [number] * (custom_id in ids)
            ids.add(custom_id)
    return sorted(wrong)


def check_lines(data, path, form):
    """A batch input is refused for what is wrong, line by line."""
    put(path, data)
    shown = run(["batches", "check", path, "-o", form], {})
    assert shown.status in (0, 2), (data, shown)
    check_failure(shown, form)
    if shown.status == 0:
        check_form(shown, form)
    else:
        assert shown.out == "", (data, shown)
    wanted = wrong_lines(data)
    if wanted is None:
        return
    assert shown.status == (2 if wanted else 0), (data, wanted, shown)
    if form == "json" and not wanted:
        about = strict(shown.out)
        assert about["lines"] == len(re.findall(b"[^\n]+", data)), (
            data, shown)
        assert about["bytes"] == len(data), (data, shown)
    if form != "table" or not wanted:
        return
    assert re.findall(r": line (\d+): ", shown.err)[:20] == list(map(
        str, wanted))[:20], (data, wanted, shown)
    count = re.search(r": (\d+) things are wrong", shown.err)
    assert int(count.group(1) if count else 1) == len(wanted), (data, shown)


# == secrets =================================================================

UNESCAPED = re.compile(r"%([0-9a-fA-F]{2})|\\u00([0-9a-fA-F]{2})|\\(.)")


def readings(text):
    """The text as it is, and as somebody would read it who undoes escapes."""
    yield text
    yield UNESCAPED.sub(lambda c: c.group(3) or chr(
        int(c.group(1) or c.group(2), 16)), text)


def leaks(text, key):
    """What of a key can be read in a text, or None."""
    part = generate.secret_part(key)
    part = key if len(part) < 8 else part
    size = min(len(part), 12)
    for read in readings(text):
        for at in range(len(part) - size + 1):
            if part[at:at + size] in read:
                return part[at:at + size]
    return None


SECRET_CALLS = ("models", "models m", "api /x", "files", "models --all",
                "responses resp_1 --endpoint demo")


def texts_of(value):
    """Every text in a JSON value but those of ids."""
    if isinstance(value, str):
        yield value
    for item in value if isinstance(value, list) else ():
        yield from texts_of(item)
    for name, item in value.items() if isinstance(value, dict) else ():
        if name != "id":
            yield from texts_of(item)


def check_secret(router, case, call, form, status, is_text, more):
    """A server quotes our key: nobody is shown it, and nothing else changes.

    Nor is what a short key has in common with a text taken for a key.
    """
    words, key = call.split(), case["key"]
    page = '{"object":"list","data":[%s],"has_more":false}'
    is_list = words[-1] in ("models", "files", "--all")
    body = case["error"] if status >= 400 else (
        page if is_list else "%s") % case["record"]
    headers = {}
    if is_text and status >= 400:
        body, headers = case["text"], {"Content-Type": "text/plain"}
    router.orders[:] = []
    router.order("* *", times=None, body=body.encode(), status=status,
                 headers=headers)
    shown = run(words + ["-o", form, "--retries", "0"] + more, {
        "XEROTIER_BASE_URL": router.base_url, "XEROTIER_API_KEY": key})
    try:
        check_hidden(shown, case, form, status, is_text)
    except AssertionError as problem:
        raise AssertionError(f"{words} {more} {status} {case}: {problem}")


def check_hidden(shown, case, form, status, is_text):
    key, is_short = case["key"], len(case["key"]) < 8
    assert "internal error" not in shown.err, shown
    assert shown.status in ((0, 1) if status < 400 else (STATUSES[status],))
    if not is_short:
        # A key may be a word of the program's own, or of the answer.
        is_own = key in ("completed", "1770000000") or key[:2] in ('"i', '{"')
        assert is_own or not leaks(shown.out, key), (leaks(shown.out, key),
                                                     shown)
        assert is_own or not leaks(shown.err, key), (leaks(shown.err, key),
                                                     shown)
    bearer = re.compile(r"Bearer " + re.escape(key) + r"(?![\w-])")
    assert not bearer.search(shown.out + shown.err) or key == "Bearer", shown
    if form in ("json", "jsonl") and shown.status == 0:
        told = strict(shown.out)
        assert told == strict(shown.out), shown
        assert json.loads(case["name"]) in shown.out or is_short, shown
        record = told["data"][0] if "data" in told else told
        assert record["id"] == json.loads(case["name"]), shown
        assert record["count"] == 1770000000 and record["status"] == "ready"
        assert not is_short or key not in texts_of(
            {"note": record["note"]}), shown
    elif form in ("json", "jsonl") and not is_text and (
            shown.err[:1] == "{"):
        assert_envelope(shown.err, shown)
    if shown.status == 0 and form == "id":
        assert shown.out.rstrip("\r\n") == json.loads(case["name"]), shown
    if is_short and case["before"] == "no " and status >= 400:
        said = f"no {key} here"
        assert said in shown.err.replace(r'\"', '"').replace("\\\\", "\\"), (
            shown)


# == rows ====================================================================

ADDED = ["answer", "finish_reason", "error", "tokens"]


def read_rows(path, delimiter):
    with open(path, "rb") as source:
        text = source.read().decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text, newline=""), strict=True,
                           delimiter=delimiter))


def check_rows(router, path, columns, rows, data, delimiter, is_direct):
    """Cells and ids of a table come back as they were, and are sent once."""
    put(path, data)
    form = {",": "csv", "\t": "tsv"}[delimiter]
    output = f"{path}-out.{form}"
    router.requests[:], router.orders[:] = [], []
    argv = ["batches", "run", "--endpoint", "demo", "--input", path,
            "--input-format", form, "--template", "<{a}|{b}>{{}}",
            "--output-file", output, "--force", "-q"]
    shown = run(argv + ["--direct"] * is_direct, environment(router))
    assert (shown.status, shown.err) == (0, ""), (data, shown)
    head, *found = read_rows(output, delimiter)
    assert head == columns + ADDED, (data, head)
    assert [row[:-4] for row in found] == rows, (data, found)
    for row in found:
        cells = dict(zip(columns, row))
        prompt = f"<{cells['a']}|{cells['b']}>{{}}"
        assert f'You said: "{prompt}".' in row[-4], (data, row)
        assert row[-3:-1] == ["stop", ""] and int(row[-1]), (data, row)
    if is_direct:
        sent = router.seen("POST", "/chat/completions")
        assert len(sent) == len(rows), (data, len(sent))
    with open(output, "rb") as source:
        assert source.read(3) == data[:3] or data[:1] != b"\xef", data
