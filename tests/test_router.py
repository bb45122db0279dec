"""What the reference router says of files and batches, and orders on them.

The client is the standard library's: nothing of xeroctl is used here.
"""

import http.client
import json
import threading
import time

import pytest

from router import BATCH_ENDS, DOC_KEY, Router


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


def test_order_for_one_part_alone(router):
    router.order("POST /files", status=503,
                 when=lambda seen: seen.form["file"][1] == b"2")
    assert [upload(router, data)[0]
            for data in (b"1", b"2", b"2")] == [201, 503, 201]
