"""What the reference router says of what it keeps, and orders on it.

The client is the standard library's: nothing of xeroctl is used here.
"""

import base64
import hashlib
import http.client
import json
import struct
import threading
import time

import pytest

from conftest import every_case
from router import BATCH_ENDS, DOC_KEY, ODD, Router


def ask(router, method, path, body=None, base="/proj_demo/v1", **headers):
    """(status, headers, body) of one request on a connection of its own."""
    headers = {name.replace("_", "-"): value
               for name, value in headers.items()}
    headers.setdefault("Authorization", f"Bearer {router.key}")
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    client = http.client.HTTPConnection("127.0.0.1", router.port, timeout=20)
    try:
        client.request(method, base + path, body, headers)
        answer = client.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        client.close()


def upload(router, data, name="in.jsonl", base="/proj_demo/v1", **fields):
    parts = [f'--B\r\nContent-Disposition: form-data; name="{field}"'
             f"\r\n\r\n{value}\r\n".encode()
             for field, value in dict({"purpose": "batch"}, **fields).items()]
    head = ('--B\r\nContent-Disposition: form-data; name="file";'
            f' filename="{name}"\r\n\r\n')
    body = b"".join(parts + [head.encode(), data, b"\r\n--B--\r\n"])
    return ask(router, "POST", "/files", body, base,
               Content_Type="multipart/form-data; boundary=B")


def line(custom_id, **body):
    body = dict({"model": "demo",
                 "messages": [{"role": "user", "content": "hi"}]}, **body)
    return json.dumps({"custom_id": custom_id, "method": "POST",
                       "url": "/v1/chat/completions",
                       "body": body}).encode() + b"\n"


LINES = b"".join(map(line, ("a", "b", "c")))


def submit(router, data=LINES, **fields):
    """(status, what came) of a batch that is made of these lines."""
    record = router.add_file("in.jsonl", data)
    status, _, body = ask(router, "POST", "/batches", dict(
        {"input_file_id": record["id"], "endpoint": "/v1/chat/completions",
         "completion_window": "24h"}, **fields))
    return status, json.loads(body.decode())


def until(router, batch, *statuses):
    limit = time.monotonic() + 10
    record = router.batches[batch["id"]]
    while record["status"] not in statuses and time.monotonic() < limit:
        time.sleep(0.002)
    assert record["status"] in statuses
    return record


def ids_in(router, record, kind):
    file_id = record[f"{kind}_file_id"]
    return file_id and sorted(
        json.loads(each)["custom_id"]
        for each in router.file_bytes(file_id).decode().splitlines())


def run_batch(router, data=LINES, **plan):
    """(status, ids in the output, ids in the error file) of a batch."""
    router.batch_plan(**plan)
    record = until(router, submit(router, data)[1], *BATCH_ENDS)
    return (record["status"], ids_in(router, record, "output"),
            ids_in(router, record, "error"))


# -- Files

@pytest.mark.parametrize("base", ["/proj_demo/v1", "/proj_demo/demo/v1"])
def test_file_comes_back_as_it_went(router, base):
    data = b"\r\n--A\r\n\0\xff"
    status, _, body = upload(router, data, "\u00fc%22%41.bin", base,
                             relative_path="x/y")
    record = json.loads(body.decode())
    assert (status, record["filename"], record["bytes"]) == (
        201, '\u00fc"%41.bin', len(data))
    assert record["x_relative_path"] == "x/y"
    assert router.seen("POST", "/files")[0].form == {
        "purpose": (None, b"batch"), "relative_path": (None, b"x/y"),
        "file": ('\u00fc"%41.bin', data)}
    _, headers, content = ask(router, "GET", f"/files/{record['id']}/content")
    assert content == data == router.file_bytes(record["id"])
    assert headers["Content-Disposition"].endswith("''%C3%BC%22%2541.bin")


@pytest.mark.parametrize("asked, status, told, data", [
    ("bytes=2-", 206, "bytes 2-4/5", b"cde"),
    ("bytes=1-2", 206, "bytes 1-2/5", b"bc"),
    ("bytes=-2", 206, "bytes 3-4/5", b"de"),
    ("bytes=3-99", 206, "bytes 3-4/5", b"de"),
    ("bytes=2-1", 200, None, b"abcde"),
    ("bytes=0-0,2-2", 200, None, b"abcde"),
    ("bytes=5-", 416, "bytes */5", None),
    ("bytes=-0", 416, "bytes */5", None),
])
def test_range(router, asked, status, told, data):
    path = f"/files/{router.add_file('f', b'abcde')['id']}/content"
    got, headers, content = ask(router, "GET", path, Range=asked)
    assert (got, headers["Content-Range"]) == (status, told)
    assert data is None or content == data


def test_if_range_of_a_file_that_changed(router):
    file_id = router.add_file("f", b"abcde")["id"]
    path = f"/files/{file_id}/content"
    etag = ask(router, "GET", path)[1]["ETag"]
    asked = {"Range": "bytes=3-", "If_Range": etag}
    assert ask(router, "GET", path, **asked)[0] == 206
    router.replace_file(file_id, b"fghij")
    assert ask(router, "GET", path, **asked)[::2] == (200, b"fghij")


def test_big_file_is_kept_on_disk(router):
    data = bytes(range(256)) * (3 << 12)
    file_id = json.loads(upload(router, data)[2].decode())["id"]
    seen = router.requests[0]
    assert (seen.body, seen.form["file"]) == (b"", ("in.jsonl", b""))
    assert seen.closed.wait(20)
    assert seen.size > len(data) and seen.parts == {}
    path = f"/files/{file_id}/content"
    assert ask(router, "GET", path)[2] == data
    router.order("GET /content", cut=100000)
    with pytest.raises(http.client.IncompleteRead) as broken:
        ask(router, "GET", path)
    assert broken.value.partial == data[:100000]


def test_refused_uploads(router):
    assert b'"param":"purpose"' in upload(router, b"", purpose="x")[2]
    assert ask(router, "POST", "/files", b"--B\r\nx", Content_Type=(
        "multipart/form-data; boundary=B"))[0] == 400
    router.file_limit = 2
    assert upload(router, b"abc")[0] == 413
    assert router.files == {}


def test_list_and_delete(router):
    for name in ("p/1", "q/2", "p/3"):
        router.add_file("f", b"", "assistants", relative_path=name)
    router.add_file("g", b"")
    listed = json.loads(ask(
        router, "GET", "/files?purpose=assistants&prefix=p/&limit=1")[2]
        .decode())
    assert [each["x_relative_path"] for each in listed["data"]] == ["p/3"]
    assert listed["has_more"]
    path = f"/files/{listed['last_id']}"
    theirs = f"Bearer {DOC_KEY}"
    assert ask(router, "GET", path, base="/proj_ABC123/v1",
               Authorization=theirs)[0] == 404
    assert json.loads(ask(router, "DELETE", path)[2].decode()) == {
        "id": listed["last_id"], "object": "file", "deleted": True}
    assert ask(router, "GET", path)[0] == 404


# -- Batches

def test_batch_runs_its_course(router):
    bad = line("d", temperature=9)
    status, batch = submit(router, LINES + bad, metadata={"k": "v"})
    assert (status, batch["status"]) == (200, "validating")
    record = until(router, batch, *BATCH_ENDS)
    assert record["status"] == "completed"
    assert record["request_counts"] == {"total": 4, "completed": 3,
                                        "failed": 1}
    assert ids_in(router, record, "output") == ["a", "b", "c"]
    assert ids_in(router, record, "error") == ["d"]
    assert record["usage"]["total_tokens"] > 0


def test_batch_fails_its_validation(router):
    record = until(router, submit(router, LINES + b"\n" + line("a"))[1],
                   *BATCH_ENDS)
    assert record["status"] == "failed"
    assert [(each["line"], each["code"])
            for each in record["errors"]["data"]] == [
                (4, "blank_line"), (5, "duplicate_custom_id")]


def test_refused_batches(router):
    assert submit(router, endpoint="/v1/x")[0] == 400
    assert submit(router, input_file_id="file-0")[0] == 400
    assert submit(router, metadata={"k": "v" * 16376})[0] == 200
    status, told = submit(router, metadata={"k": "v" * 16377})
    assert (status, told["error"]["message"]) == (
        400, "Metadata exceeds maximum size of 16KB")
    router.batch_limit = 1
    assert submit(router)[0] == 413


@pytest.mark.parametrize("plan, ending", [
    ({"expire_after": 1}, ("expired", ["a"], ["b", "c"])),
    ({"fail": [{"message": "no", "line": 2}]}, ("failed", None, None)),
    ({"fail_lines": {"b": 429}}, ("completed", ["a", "c"], ["b"])),
    ({"lose": ["a"], "repeat": ["b"], "unknown": ["x"]},
     ("completed", ["b", "b", "c", "x"], None)),
    ({"no_files": True}, ("completed", None, None)),
    ({"output": b"", "errors": b'{"custom_id": "q"}'},
     ("completed", [], ["q"])),
])
def test_plan(router, plan, ending):
    assert run_batch(router, **plan) == ending


def test_cancel_in_mid_work(router):
    router.batch_plan(hold="in_progress", after=2)
    batch = submit(router)[1]
    record = until(router, batch, "in_progress")
    while record["request_counts"]["completed"] < 2:
        time.sleep(0.002)
    path = f"/batches/{batch['id']}/cancel"
    assert b'"cancelling"' in ask(router, "POST", path)[2]
    until(router, batch, "cancelled")
    assert ids_in(router, record, "output") == ["a", "b"]
    assert record["error_file_id"] is None
    assert ask(router, "POST", path)[0] == 409


def test_stop_ends_a_held_batch():
    gate = threading.Event()
    with Router() as router:
        for status in ("validating", "in_progress", "finalizing"):
            router.batch_plan(hold=status, gate=gate)
            until(router, submit(router)[1], status)
        assert len(router.works) == 3
    assert not any(work.is_alive() for work in router.works)


# -- Orders

def test_answer_is_lost_after_the_act(router):
    router.order("POST /files", drop="after", after_acting=True)
    router.order("POST /files", status=502, after_acting=True)
    router.order("POST /files", drop="after")
    with pytest.raises(ConnectionError):
        upload(router, b"1")
    assert upload(router, b"2")[0] == 502
    with pytest.raises(ConnectionError):
        upload(router, b"3")
    assert [record["bytes"] for record in router.files.values()] == [1, 1]


@pytest.mark.parametrize("name", ODD)
def test_odd_answer_has_a_good_status_and_does_nothing(router, name):
    record = router.add_file("in.jsonl", LINES)
    router.order("DELETE *", odd=name)
    kind, body = ODD[name]
    status, headers, said = ask(router, "DELETE", "/files/" + record["id"])
    assert (status, headers["Content-Type"], said) == (200, kind, body)
    assert ask(router, "GET", "/files/" + record["id"])[0] == 200


def test_order_for_one_part_alone(router):
    router.order("POST /files", status=503,
                 when=lambda seen: seen.form["file"][1] == b"2")
    assert [upload(router, data)[0]
            for data in (b"1", b"2", b"2")] == [201, 503, 201]


# -- Models and uploads

MODEL = "/models/8b1f4c2d-9e7a-4f3b-bc11-2d8e6a4c5f01"
ENDPOINT = "/proj_demo/demo/v1"


def call(router, method, path, body=None, **more):
    """(status, what the JSON of the answer says)."""
    status, _, data = ask(router, method, path, body, **more)
    return status, json.loads(data.decode())


def test_models_by_name_or_whole(router):
    rows = call(router, "GET", "/models")[1]["data"]
    assert len(rows) == 7 and "size_bytes" not in rows[0]
    router.lists_names = False
    rows = call(router, "GET", "/models")[1]["data"]
    assert MODEL.endswith(rows[0]["id"]) and "quantization" not in rows[0]
    rows = call(router, "GET", "/models?extended=true")[1]["data"]
    assert rows[0]["quantization"] == "awq"


def test_revalidation_takes_its_time(router):
    router.revalidation_lag, router.revalidation_polls = 1, 2
    router.revalidation_end = "failed"
    assert ask(router, "POST", MODEL + "/revalidate")[0] == 202
    assert [call(router, "GET", MODEL)[1]["status"] for _ in range(5)] == [
        "validated", "validating", "validating", "failed", "failed"]


def test_latest_version_moves(router):
    path = MODEL + "/versions"
    for version, status in (("2.0", 400), ("2.0.0", 201), ("2.0.0", 409)):
        assert ask(router, "POST", path, {"version": version})[0] == status
    for last, status in (("2.0.0/promote", 200), ("2.0.0/promote", 409),
                         ("1.0.0/rollback", 200), ("9.9.9/promote", 404)):
        assert ask(router, "POST", f"{path}/{last}")[0] == status
    latest = [row["version"] for row in call(router, "GET", path)[1]["data"]
              if row["is_latest"]]
    assert latest == [call(router, "GET", MODEL)[1]["version"]] == ["1.0.0"]


def test_capabilities_need_management(router):
    body = {"capabilities": ["chat"]}
    key = router.add_key("xero_demo_weak", "inference")
    assert ask(router, "PATCH", MODEL + "/capabilities", body,
               Authorization=f"Bearer {key}")[0] == 403
    assert call(router, "PATCH", MODEL + "/capabilities", body)[1][
        "capabilities"] == ["chat"]


def put_part(router, path, number, data, digest=None):
    digest = digest or hashlib.sha256(data).hexdigest()
    parts = [f'--B\r\nContent-Disposition: form-data; name="{name}"'
             f"\r\n\r\n{value}\r\n".encode()
             for name, value in (("part_number", number), ("sha256", digest))]
    head = b'--B\r\nContent-Disposition: form-data; name="data"\r\n\r\n'
    return call(router, "POST", path + "/parts", b"".join(
        parts + [head, data, b"\r\n--B--\r\n"]),
        Content_Type="multipart/form-data; boundary=B")


def test_upload_in_parts_becomes_a_model(router):
    router.chunk_size = 4
    upload = call(router, "POST", "/uploads", {
        "purpose": "model", "filename": "w.tar", "bytes": 10,
        "name": "mine"})[1]
    path = "/uploads/" + upload["id"]
    for number, data, digest, status in (
            (1, b"abcd", "0" * 64, 400), (1, b"abc", None, 400),
            (1, b"abcde", None, 413), (4, b"x", None, 400)):
        assert put_part(router, path, number, data, digest)[0] == status
    ids = [put_part(router, path, number, data)[1]["id"]
           for number, data in ((1, b"abcd"), (2, b"efgh"), (3, b"ij"))]
    router.lose_part(upload["id"], 2)
    resumed = call(router, "POST", path + "/resume")[1]
    assert resumed["next_part"] == 2 and len(resumed["parts"]) == 2
    ids[1] = put_part(router, path, 2, b"efgh")[1]["id"]
    whole = hashlib.sha256(b"abcdefghij").hexdigest()
    for body, status in (({"part_ids": ids[::-1]}, 400),
                         ({"part_ids": ids, "sha256": "0"}, 400),
                         ({"part_ids": ids, "sha256": whole}, 200),
                         ({"part_ids": ids}, 409)):
        assert ask(router, "POST", path + "/complete", body)[0] == status
    model_id = router.uploads[upload["id"]]["model_id"]
    assert router.upload_bytes(upload["id"]) == b"abcdefghij"
    assert call(router, "GET", "/models")[1]["data"][-1]["id"] == model_id


# -- Choices, as OpenAI has them

HI = [{"role": "user", "content": "hi, as JSON"}]
LOOK_UP = {"type": "function", "function": {"name": "look_up", "parameters": {
    "type": "object", "properties": {"what": {"type": "string"}}}}}
OTHER = {"type": "function", "function": {"name": "other"}}
NAMED = {"type": "function", "function": {"name": "look_up"}}
SHAPE = {"type": "object", "properties": {
    "a": {"$ref": "#/$defs/a"}, "b": {"type": "array", "minItems": 2, "items": {
        "enum": [3]}}, "c": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
    "$defs": {"a": {"type": "string"}}}
LONGEST = 30 * 24 * 3600


def shaped(schema, **more):
    return dict({"type": "json_schema",
                 "json_schema": {"name": "x", "schema": schema}}, **more)


def complete(router, **body):
    """What came of a completion: its status, and the error or the choices."""
    status, said = call(router, "POST", "/chat/completions", dict(
        {"model": "demo", "messages": HI}, **body), base="/v1")
    return status, said.get("error") or said["choices"]


def streamed(router, **body):
    """[content, arguments of the tool, reason] of each streamed choice."""
    data = ask(router, "POST", "/chat/completions", dict(
        {"model": "demo", "messages": HI, "stream": True}, **body),
        base="/v1")[2].decode()
    choices = [["", "", None] for _ in range(body.get("n", 1))]
    for line in data.split("\n\n")[:-2]:
        for each in json.loads(line[6:])["choices"]:
            kept, delta = choices[each["index"]], each["delta"]
            kept[0] += delta.get("content") or ""
            for tool in delta.get("tool_calls", ()):
                kept[1] += tool["function"]["arguments"]
            kept[2] = each["finish_reason"]
    return choices


@every_case
@pytest.mark.parametrize("body, text, arguments, reason", [
    ({"stop": ["zzz", " as"]}, 'Hello! You said: "hi,', None, "stop"),
    ({"stop": " said"}, "Hello! You", None, "stop"),
    ({"stop": " said", "max_tokens": 1}, "Hello!", None, "length"),
    ({"response_format": {"type": "json_object"}},
     '{"said": "hi, as JSON"}', None, "stop"),
    ({"response_format": shaped(SHAPE)},
     '{"a": "hi, as JSON", "b": [3, 3], "c": null}', None, "stop"),
    ({"tool_choice": "required"}, None, '{"what": "hi, as JSON"}',
     "tool_calls"),
    ({"tool_choice": NAMED}, None, '{"what": "hi, as JSON"}', "stop")])
def test_what_is_asked_of_a_choice_is_done(openai_router, body, text,
                                           arguments, reason):
    if "tool_choice" in body:
        body = dict(body, tools=[LOOK_UP, OTHER])
    status, (choice,) = complete(openai_router, **body)
    called = choice["message"].get("tool_calls")
    assert (status, choice["message"]["content"], choice["finish_reason"]) == (
        200, text, reason)
    assert (called and called[0]["function"]) == (arguments and {
        "name": "look_up", "arguments": arguments})
    assert streamed(openai_router, **body) == [
        [text or "", arguments or "", reason]]


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_a_tool_need_not_be_called(openai_router, choice):
    status, (said,) = complete(openai_router, tools=[OTHER],
                               tool_choice=choice)
    assert status == 200 and "tool_calls" not in said["message"]


def test_there_are_n_choices_and_each_is_another(openai_router):
    status, choices = complete(openai_router, n=3)
    texts = [each["message"]["content"] for each in choices]
    assert status == 200 and len(set(texts)) == 3
    assert [each["index"] for each in choices] == [0, 1, 2]
    assert streamed(openai_router, n=3) == [[text, "", "stop"]
                                            for text in texts]


@every_case
@pytest.mark.parametrize("param, body", [
    ("n", {"n": 0}), ("n", {"n": 129}), ("n", {"n": True}),
    ("stop", {"stop": list("abcde")}), ("stop", {"stop": ""}),
    ("stop", {"stop": [5]}), ("response_format", {"response_format": "json"}),
    ("response_format", {"response_format": {"type": "xml"}}),
    ("messages", {"response_format": {"type": "json_object"},
                  "messages": [{"role": "user", "content": "hi"}]}),
    ("response_format.json_schema.name",
     {"response_format": shaped({}, json_schema={})}),
    ("response_format.json_schema.schema",
     {"response_format": shaped({"allOf": []})}),
    ("response_format.json_schema.schema",
     {"response_format": shaped({"$ref": "#"})}),
    ("tools", {"tools": []}), ("tools[1]", {"tools": [OTHER, {}]}),
    ("tool_choice", {"tool_choice": "auto"}),
    ("tool_choice", {"tool_choice": "any", "tools": [OTHER]}),
    ("tool_choice", {"tool_choice": NAMED, "tools": [OTHER]})])
def test_what_cannot_be_done_is_refused_by_name(openai_router, param, body):
    status, error = complete(openai_router, **body)
    assert (status, error["param"]) == (400, param), error


def respond(router, **body):
    """What came of a response: its status, and the error or the output."""
    status, said = call(router, "POST", "/responses", dict(
        {"model": "demo", "input": "hi, as JSON"}, **body), base="/v1")
    return status, said.get("error") or said["output"]


def flat(tool):
    """A tool, or the choice of one, as the Responses API has it."""
    return dict(tool["function"], type="function")


@pytest.mark.parametrize("choice", ["required", flat(NAMED)])
def test_a_response_calls_the_tool_it_has_to(openai_router, choice):
    status, (item,) = respond(openai_router, tool_choice=choice,
                              tools=[flat(LOOK_UP), flat(OTHER)])
    assert (status, item["type"], item["name"], item["arguments"]) == (
        200, "function_call", "look_up", '{"what": "hi, as JSON"}')


@pytest.mark.parametrize("form, text", [
    ({"type": "json_object"}, '{"said": "hi, as JSON"}'),
    ({"type": "json_schema", "name": "x", "schema": SHAPE},
     '{"a": "hi, as JSON", "b": [3, 3], "c": null}')])
def test_a_response_has_the_form_that_is_asked_for(openai_router, form, text):
    status, (item,) = respond(openai_router, text={"format": form})
    assert (status, item["content"][0]["text"]) == (200, text)


@pytest.mark.parametrize("param, body", [
    ("text.format", {"text": {"format": {"type": "xml"}}}),
    ("text.format.name", {"text": {"format": {"type": "json_schema"}}}),
    ("tools[0]", {"tools": [{"type": "function"}]}),
    ("tool_choice", {"tool_choice": "any", "tools": [flat(OTHER)]}),
    ("tool_choice", {"tool_choice": flat(NAMED), "tools": [flat(OTHER)]})])
def test_a_response_is_refused_by_name(openai_router, param, body):
    status, error = respond(openai_router, **body)
    assert (status, error["param"]) == (400, param), error


def test_a_file_is_there_until_it_expires(clock):
    with Router(openai=True, clock=clock.now) as router:
        for word, seconds, status in (
                ("now", 3600, 400), ("created_at", "x", 400),
                ("created_at", 3599, 400), ("created_at", LONGEST + 1, 400),
                ("created_at", 3600, 200)):
            got, _, data = upload(router, LINES, base="/v1", **{
                "expires_after[anchor]": word,
                "expires_after[seconds]": seconds})
            assert got == status, data
        record = json.loads(data.decode())
        assert record["expires_at"] == record["created_at"] + 3600
        for seconds, status in ((3599, 200), (1, 404)):
            clock.sleep(seconds)
            assert ask(router, "GET", "/files/" + record["id"],
                       base="/v1")[0] == status


def test_so_is_a_file_of_results(router):
    lasts = {"anchor": "created_at", "seconds": 7200}
    status, said = submit(router, output_expires_after=dict(lasts, seconds=1))
    assert (status, said["error"]["param"]) == (
        400, "output_expires_after.seconds")
    batch = until(router, submit(router, output_expires_after=lasts)[1],
                  *BATCH_ENDS)
    record = router.files[batch["output_file_id"]]
    assert record["expires_at"] == record["created_at"] + 7200


# -- Responses

def test_stream_of_a_response(router):
    data = ask(router, "POST", "/responses", {
        "input": "think first", "stream": True}, ENDPOINT)[2].decode()
    events = [json.loads(line[6:]) for line in data.splitlines()
              if line.startswith("data: ")]
    assert [event["sequence_number"] for event in events] == list(
        range(len(events)))
    final = events[-1]["response"]
    assert events[-1]["type"] == "response.completed"
    assert [item["type"] for item in final["output"]] == ["reasoning",
                                                          "message"]
    assert "".join(event["delta"] for event in events if event["type"]
                   == "response.output_text.delta") == final["output"][1][
                       "content"][0]["text"]


@pytest.mark.parametrize("text, status, kinds", [
    ("hi", "completed", ["message"]),
    ("call the tool", "completed", ["function_call"]),
    ("fail now", "failed", []), ("be cut", "incomplete", ["message"])])
def test_shapes_of_a_response(router, text, status, kinds):
    for stream in (False, True):
        body = {"input": text, "stream": stream}
        data = ask(router, "POST", "/responses", body, ENDPOINT)[2]
        last = json.loads(data.decode().split("data: ")[-1])
        last = last.get("response", last)
        assert last["status"] == status
        assert [item["type"] for item in last["output"]] == kinds


def test_chain_and_background(router):
    first = call(router, "POST", "/responses", {"input": "a"}, base=ENDPOINT)
    second = call(router, "POST", "/responses", {
        "input": "b", "previous_response_id": first[1]["id"],
        "background": True}, base=ENDPOINT)[1]
    path = "/responses/" + second["id"]
    seen = [call(router, "GET", path, base=ENDPOINT)[1] for _ in range(3)]
    assert [each["status"] for each in seen] == [
        "queued", "in_progress", "completed"]
    assert "I know 1 turns" in seen[2]["output"][0]["content"][0]["text"]
    assert ask(router, "POST", path + "/cancel", base=ENDPOINT)[0] == 409


# -- Groups

def test_vectors_are_the_same_in_both_encodings(router):
    body = {"model": "m", "input": ["a", "b"], "dimensions": 3}
    floats = call(router, "POST", "/embeddings", body, base=ENDPOINT)[1]
    packed = call(router, "POST", "/embeddings", dict(
        body, encoding_format="base64"), base=ENDPOINT)[1]
    assert [list(struct.unpack("<3f", base64.b64decode(each["embedding"])))
            for each in packed["data"]] == [each["embedding"]
                                            for each in floats["data"]]
    body["input"] = ["a"] * 257
    assert ask(router, "POST", "/embeddings", body, ENDPOINT)[0] == 400


def test_rerank_sorts_and_score_does_not(router):
    texts = ["nothing", "a capital city", "capital of France"]
    body = {"model": "m", "query": "capital of France", "documents": texts}
    results = call(router, "POST", "/rerank", body, base=ENDPOINT)[1][
        "results"]
    assert [each["index"] for each in results] == [2, 1, 0]
    body = {"model": "m", "text_1": "capital of France", "text_2": texts}
    data = call(router, "POST", "/score", body, base=ENDPOINT)[1]["data"]
    assert [each["index"] for each in data] == [0, 1, 2]


# -- Management and execution

def test_value_of_a_key_works_until_it_is_revoked(router):
    path = "/management/api-keys"
    made = call(router, "POST", path, {"name": "n",
                                       "scopes": ["inference"]})[1]
    one = f"{path}/{made['id']}"
    rotated = call(router, "POST", one + "/rotate")[1]
    assert "key" not in call(router, "GET", one)[1]

    def use(value):
        return ask(router, "GET", "/models", Authorization="Bearer " + value)
    assert [use(each["key"])[0] for each in (made, rotated)] == [200, 200]
    ask(router, "PUT", one + "/quota", {"requests": 1, "window_seconds": 60})
    assert [use(made["key"])[0] for _ in range(2)] == [200, 429]
    ask(router, "PUT", one + "/ip-filter", {"block": ["127.0.0.0/8"]})
    assert use(made["key"])[0] == 403
    assert ask(router, "DELETE", one)[0] == 200
    assert [use(each["key"])[0] for each in (made, rotated)] == [401, 401]


def test_new_endpoint_serves_at_once(router):
    call(router, "POST", "/endpoints", {"slug": "new", "model": "m"})
    base = "/proj_demo/new/v1"
    assert call(router, "GET", "/models", base=base)[1]["data"][0]["id"] == (
        "m")
    call(router, "PATCH", "/endpoints/new", {"status": "inactive"})
    assert ask(router, "GET", "/models", base=base)[0] == 503
    call(router, "DELETE", "/endpoints/new")
    assert ask(router, "GET", "/models", base=base)[0] == 404


def test_export_is_made_by_and_by(router):
    body = {"start_date": "2026-01-01", "end_date": "2026-03-31"}
    status, export = call(router, "POST", "/exports/usage", body)
    path = "/exports/" + export["id"]
    assert status == 202 and ask(router, "GET", path + "/download")[0] == 409
    assert [call(router, "GET", path)[1]["status"] for _ in range(3)] == [
        "pending", "processing", "completed"]
    assert ask(router, "GET", path + "/download")[0] == 200
    body["end_date"] = "2026-04-01"
    assert ask(router, "POST", "/exports/usage", body)[0] == 400


def test_approval_sets_an_invocation_going(router):
    body = {"workspace_id": "ws_kube_prod", "tool": "kubectl_drain",
            "args": {}}
    for verb, ends in (("approve", ["queued", "running", "completed"]),
                       ("reject", ["rejected"] * 3)):
        made = call(router, "POST", "/exec/invocations", body)[1]
        assert made["status"] == "pending_approval"
        path = f"/exec/approvals/{made['approval_id']}/{verb}"
        assert ask(router, "POST", path)[0] == 200
        assert ask(router, "POST", path)[0] == 409
        path = "/exec/invocations/" + made["id"]
        assert [call(router, "GET", path)[1]["status"]
                for _ in range(3)] == ends


def test_each_change_of_a_template_is_a_version(router):
    made = call(router, "POST", "/chat-templates", {
        "name": "a-b", "system_prompt": "x"})[1]
    path = "/chat-templates/" + made["id"]
    assert call(router, "PUT", path, {"system_prompt": "y"})[1][
        "version"] == 2
    assert call(router, "GET", path + "?version=1")[1][
        "system_prompt"] == "x"
    assert len(call(router, "GET", path + "/versions")[1]["data"]) == 2
    chat = call(router, "POST", "/workspaces/ws_kube_prod" + path
                + "/apply")[1]
    assert (chat["template_version"], list(router.chats)) == (
        2, [chat["chat_id"]])


LISTED = (
    "/conversations", "/uploads", "/workspaces", "/chats", "/chat-templates",
    "/webhooks", "/management/api-keys", "/management/agents",
    "/management/agents/candidates", "/management/join-keys", "/slos",
    "/endpoints", "/management/maintenance", "/management/project/members",
    "/management/project/invitations", "/settings", "/usage/daily",
    "/usage/endpoints", "/usage/requests", "/exports", "/exec/invocations",
    "/exec/executions", "/exec/approvals", "/exec/approvals/delegations",
    "/exec/learnings")


def test_every_list_is_one(router):
    for path in LISTED:
        status, page = call(router, "GET", path)
        assert (status, page["object"]) == (200, "list"), path
        assert ask(router, "GET", path, Authorization="Bearer x")[0] == 401
