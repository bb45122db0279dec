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
sys.path[:0] = [os.path.dirname(TESTS), TESTS]

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


def check_failure(shown, form):
    """A failure is told once, in the form that is due, and nothing else."""
    assert "Traceback" not in shown.err, shown
    assert "internal error" not in shown.err, shown
    if shown.status == 0:
        assert "error:" not in shown.err.split("\n"), shown
    elif form in ("json", "jsonl"):
        assert_envelope(shown.err, shown)
    else:
        first, *rest = shown.err.rstrip("\n").split("\n")
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
        rest = column.partition("=")[2]
        paths, _, kind = rest.partition(":")
        plant(record, paths.split("|")[0], SAMPLES.get(kind, "text"))
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
         "run_show": SHOW, "show_all_fields": OTHER, "run_create": OTHER,
         "run_update": OTHER, "run_action": OTHER, "run_delete": OTHER,
         "rotated": OTHER, "apply_template": OTHER, "create_export": OTHER,
         "approve": OTHER, "set_capabilities": OTHER}


def rows():
    """[(words, answer, kind)]: by hand, and each row of the tables."""
    found = [(shlex.split(line), tree, kind)
             for line, tree, kind in ROWS_BY_HAND]
    for group in xeroctl.GROUPS:
        for verb in group.verbs:
            kind = KINDS.get(verb.run.__name__)
            if not kind or "--file" in xeroctl.sample_call(group, verb):
                continue
            if "triage" in xeroctl.sample_call(group, verb):
                kind = OTHER    # a name is looked up first
            columns = verb.columns or group.columns
            record = record_for(tuple(columns) + tuple(group.fields))
            if verb.once:
                record[verb.once] = "secret"
            words = shlex.split(xeroctl.sample_call(group, verb))[1:]
            words = [{"url": "http://localhost/"}.get(word, word)
                     for word in words]
            found.append((words, page_of(record) if kind == LIST else record,
                          kind))
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
        value.get("error") and not is_record)


def has_id(value):
    found = value.get("id") if isinstance(value, dict) else None
    return isinstance(found, str) and found != ""


def check_list(shown, form, value):
    records = records_in(value)
    if is_error(value) or records is None and not isinstance(value, dict):
        assert shown.status == 1, shown
        return
    if records is None or form == "id" and not all(map(has_id, records)):
        assert shown.status in (0, 1), shown  # under another name, perhaps
        return
    assert shown.status == 0, shown
    lines = shown.out.split("\n")[:-1]
    if form == "json":
        assert same(strict(shown.out), value), shown
    elif form == "jsonl":
        assert same(list(map(strict, lines)), records), shown
    elif form == "csv":
        found = csv_rows(shown.out)
        assert len(found) == len(records) + 1, shown
    elif form == "id" or records:
        assert len(lines) == len(records) + (form != "id"), shown


def check_show(shown, form, value):
    if is_error(value) or not isinstance(value, dict):
        assert (shown.status, shown.out) == (1, ""), shown
    if shown.status == 1 and not has_id(value):
        return  # kinds without an id need something that is shown
    assert shown.status == 0, shown
    if form == "json":
        assert same(strict(shown.out), value), shown
    elif form == "jsonl":
        assert same(strict(shown.out), value), shown
        assert shown.out.count("\n") == 1, shown
    elif form == "id":
        assert shown.out.count("\n") == 1, shown


def check_answer(router, number, form, status, body):
    """A row of the command map is given this answer to all that it asks."""
    words, _, kind = ROWS[number]
    match = "GET /batch_1" if kind == "download" else "* *"
    router.orders[:] = []
    router.order(match, times=None, body=body, status=status)
    if kind == "download":
        router.order("* *", times=None, body=b"{}\n")
    argv = words + ["-o", form, "-q", "--force", "--max-time", "30"]
    shown = run(argv, environment(router))
    try:
        check_answered(shown, words, kind, form, status, body)
    except AssertionError as problem:
        raise AssertionError(f"{' '.join(argv)}: {problem}: status {status},"
                             f" {body[:2000]!r}")


def check_answered(shown, words, kind, form, status, body):
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
        value = strict(text)
    except ValueError:
        assert shown.status == 1, shown
        return
    if is_deep(text):
        assert shown.status in (0, 1), shown
    elif kind == LIST:
        check_list(shown, form, value)
    else:
        check_show(shown, form, value)


# == streams =================================================================

def whatwg_events(body):
    """(event, data) after WHATWG HTML 9.2.6, but the last event counts."""
    text = body.decode("utf-8", "replace")
    if text[:1] == "\ufeff":
        text = text[1:]
    lines = re.split("\r\n|\n|\r", text)
    found, name, data = [], "", None
    for line in lines + [""]:
        field, colon, value = line.partition(":")
        value = value[1:] if value[:1] == " " else value
        if line == "":
            if data is not None:
                found.append((name, data))
            name, data = "", None
        elif field == "data":
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
        if not data:
            continue
        try:
            value = strict(data)
            json.dumps(value)
        except (ValueError, RecursionError):
            break
        if not isinstance(value, dict):
            continue
        kind = name if name not in ("", "message") else (
            value.get("type") or value.get("object"))
        if value.get("error") or kind == "error":
            break
        found.append(value)
        if kind in ENDS:
            break
    return found, kind


def has_ended(body):
    """Whether a stream tells its end, in any of the ways there are."""
    for name, data in whatwg_events(body):
        try:
            value = strict(data)
        except ValueError:
            value = None
        value = value if isinstance(value, dict) else {}
        choices = value.get("choices")
        choices = choices if isinstance(choices, list) else []
        if data.strip() == "[DONE]" or name in ENDS or (
                str(value.get("type")) in ENDS) or any(
                isinstance(choice, dict) and choice.get("finish_reason")
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
        assert same(lines, wanted), (shown, wanted)


def check_told_once(shown, form):
    if form in ("json", "jsonl"):
        assert_envelope(shown.err[shown.err.index("{\n"):], shown)
    else:
        told = re.findall(r"^error: ", shown.err, re.M)
        assert len(told) == 1, shown


# == TOML ====================================================================

NOT_OURS = ("arrays", "inline tables", "dates and times",
            "arrays of tables")


def line_of(problem, text):
    """The line that an error names, which must be one of the text."""
    found = re.match(r"line (\d+): .", str(problem), re.S)
    assert found, (problem, text)
    assert 1 <= int(found.group(1)) <= text.count("\n") + 1, (problem, text)
    return int(found.group(1))


def toml_value(read, text):
    """(the tree, None), or (None, the error)."""
    try:
        return read(text), None
    except xeroctl.TomlError as problem:
        assert SECRET not in str(problem), (problem, text)
        line_of(problem, text)
        return None, str(problem)


def reference(text):
    """What tomllib reads; (None, False) if it refuses."""
    try:
        return tomllib.loads(text), True
    except (ValueError, RecursionError):
        return None, False


def check_toml(data):
    """It is read as tomllib reads it, or refused with a line."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    tree, problem = toml_value(xeroctl.parse_toml, text)
    if not tomllib:
        return
    wanted, is_toml = reference(text)
    if problem is None:
        assert is_toml and repr(tree) == repr(wanted), (text, tree, wanted)
    elif is_toml:
        assert any(f": {each} are not supported here" in problem
                   for each in NOT_OURS), (text, problem)
    read, refusal = toml_value(xeroctl.read_toml, text)
    if is_toml:
        assert repr(read) == repr(wanted), (text, read)
    else:
        assert refusal, text


def read_tree(text):
    return tomllib.loads(text) if tomllib else xeroctl.parse_toml(text)


def pruned(tree):
    """The tree without empty tables: they have no line to stand on."""
    if not isinstance(tree, dict):
        return tree
    kept = {name: pruned(value) for name, value in tree.items()}
    return {name: kept[name] for name in kept if kept[name] != {}}


def holder(tree, table, makes):
    """The table at a path, made if it may be; None if a value is there."""
    for name in table:
        if makes:
            tree = tree.setdefault(name, {})
        else:
            tree = tree.get(name, {})
        if not isinstance(tree, dict):
            return None
    return tree


def check_between(text, edited):
    """One span of the text is another: what is before and behind stays."""
    size = min(len(text), len(edited))
    head = next((n for n in range(size) if text[n] != edited[n]), size)
    tail = next((n for n in range(size - head)
                 if text[-1 - n] != edited[-1 - n]), size - head)
    return text[head:len(text) - tail], edited[head:len(edited) - tail]


def check_edit(data, table, key, value):
    """An edit changes what it says in the tree, and one span of the text."""
    try:
        text = data.decode("utf-8")
        tree = xeroctl.parse_toml(text)
    except (UnicodeDecodeError, xeroctl.TomlError):
        return
    about = text, table, key, value
    wanted = read_tree(text)
    place = holder(wanted, table, value is not None)
    try:
        edited = xeroctl.edit_toml(text, table, key, value)
    except xeroctl.TomlError as problem:
        assert SECRET not in str(problem), about
        assert place is None or isinstance(place.get(key), dict), (
            problem, about)
        return
    if value is None:
        if place is not None and not isinstance(place.get(key), dict):
            place.pop(key, None)
    else:
        assert place is not None and not isinstance(
            place.get(key), dict), (about, edited)
        place[key] = value
    assert repr(sorted_tree(read_tree(edited))) == repr(
        sorted_tree(wanted)), (about, edited)
    gone, new = check_between(text, edited)
    if repr(tree) == repr(wanted):
        assert gone == "" and new == "", (about, edited)
    if value is None:
        assert new == "" and gone.count("=") < 9, (about, edited)
    assert xeroctl.edit_toml(edited, table, key, value) == edited, about


def sorted_tree(tree):
    """The tree without empty tables and without an order of names."""
    if not isinstance(tree, dict):
        return tree
    kept = pruned(tree)
    return [(name, sorted_tree(kept[name])) for name in sorted(kept)]


def check_drop(data, table):
    """A table that is dropped takes nothing else along."""
    try:
        text = data.decode("utf-8")
        xeroctl.parse_toml(text)
    except (UnicodeDecodeError, xeroctl.TomlError):
        return
    wanted = read_tree(text)
    place = holder(wanted, table[:-1], False)
    dropped = xeroctl.drop_toml_table(text, table)
    about = text, table, dropped
    if isinstance((place or {}).get(table[-1]), dict):
        del place[table[-1]]
    else:
        assert dropped == text, about
    assert repr(sorted_tree(read_tree(dropped))) == repr(
        sorted_tree(wanted)), about
    left = iter(text.splitlines())
    assert all(line in left for line in dropped.splitlines() if line), about


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
            + (not isinstance(body, dict) or not is_text(body.get("model"))))
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
