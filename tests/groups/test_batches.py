"""batches, but for its runs: files of requests sent, watched and fetched.

The router works its batches off in threads; the clock of these tests lets
them go on while the program sleeps, so that each poll meets what is meant.
"""

import json
import os
import re
import signal
import threading
import time

import pytest

from conftest import at_both_ends, costly, from_system
from helpers import asked_whole as asked, encoded, pretty
from router import flaw

E = "/proj_demo/demo/v1"
DEMO = "batches", "--endpoint", "demo"
INPUT = DEMO + ("--input", "requests.jsonl")
PREFIX = DEMO + ("--input-prefix", "exp/")
MOST_BYTES = 104857600
LIMIT_S = 10

# A plan shows the URL, which here has no port that changes.
ACME = {"XEROTIER_BASE_URL": "https://api.xerotier.ai/acme-prod/v1",
        "XEROTIER_API_KEY": "xero_acme-prod_0123456789abcdef"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, so that names of files are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request(custom_id="r1", **changes):
    """One line's request; a change to None leaves the field out."""
    line = {"custom_id": custom_id, "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "demo", "max_tokens": 8,
                     "messages": [{"role": "user", "content": "Hi"}]}}
    line.update(changes)
    return {name: value for name, value in line.items()
            if value is not None}


def jsonl(*requests):
    return b"".join(encoded(each) + b"\n" for each in requests)


def numbered(count):
    return jsonl(*(request(f"r{number}") for number in range(1, count + 1)))


def put(data, name="requests.jsonl"):
    with open(from_system(name), "wb") as target:
        target.write(data)


def content(name):
    with open(from_system(name), "rb") as source:
        return source.read()


def polls(router, batch_id="batch_1"):
    return len(router.seen("GET", f"{E}/batches/{batch_id}"))


def interrupt():
    """What Ctrl-C does to a step."""
    raise KeyboardInterrupt()


def end_all(router):
    for work in list(router.works):
        work.join(LIMIT_S)
        assert not work.is_alive()


def hold(router, clock, **plan):
    """The next batch stays in validation until the next sleep has passed."""
    gate = threading.Event()
    router.batch_plan(hold="validating", gate=gate, **plan)

    def go_on():
        gate.set()
        end_all(router)
    clock.steps.append(go_on)


@pytest.fixture
def made(run, router):
    """made(data, fail_lines={…}) is a batch that has ended: its record."""
    def maker(data=numbered(3), **plan):
        put(data, "made.jsonl")
        router.batch_plan(**plan)
        run(*DEMO, "--input", "made.jsonl", "--no-validate")
        end_all(router)
        del router.requests[:]
        return list(router.batches.values())[-1]
    return maker


@pytest.fixture
def running(run, router):
    """A batch that stays in validation: its record."""
    put(numbered(3))
    router.batch_plan(hold="validating")
    run(*INPUT)
    del router.requests[:]
    return router.batches["batch_1"]


# == made of a file ==========================================================

def test_a_file_is_uploaded_and_a_batch_made_of_it(run, router):
    put(numbered(3))
    router.batch_plan(hold="validating")
    shown = run(*INPUT)
    assert shown.exit_status == 0
    assert asked(router) == [f"POST {E}/files", f"POST {E}/batches"]
    upload, create = router.requests
    assert upload.form == {"purpose": (None, b"batch"),
                           "file": ("requests.jsonl", numbered(3))}
    assert upload.headers["Content-Length"] == str(upload.size)
    file_id = router.batches["batch_1"]["input_file_id"]
    assert create.body == encoded({
        "input_file_id": file_id, "endpoint": "/v1/chat/completions",
        "completion_window": "24h"}).replace(b": ", b":").replace(
            b", ", b",")
    assert re.search(r"^ID: +batch_1\nStatus: +validating\n", shown)
    assert shown.stderr == f"uploaded requests.jsonl -> {file_id}\n"


def test_a_file_in_another_folder_is_uploaded_by_its_own_name(run, router):
    os.mkdir("in put")
    put(numbered(1), 'in put/ré"q.jsonl')
    router.batch_plan(hold="validating")
    assert run(*DEMO, "--input", 'in put/ré"q.jsonl').exit_status == 0
    assert router.requests[0].form["file"][0].replace(
        "%22", '"') == 'ré"q.jsonl'


@pytest.mark.parametrize("form", ["json", "jsonl", "id", "csv"])
def test_what_was_made_in_the_other_forms(run, router, form):
    put(numbered(1))
    router.batch_plan(hold="validating")
    shown = run(*INPUT, "-q", "-o", form)
    batch = router.batches["batch_1"]
    assert (shown.stderr, shown.exit_status) == ("", 0)
    assert {"json": shown == pretty(batch), "id": shown == "batch_1\n",
            "jsonl": shown == json.dumps(batch, separators=(",", ":")) + "\n",
            "csv": shown.startswith("ID,Status,Endpoint,Input File ID,")
            and "\r\nbatch_1,validating," in shown}[form]


def test_a_file_that_changes_under_way_is_not_sent_again(run, router, clock):
    put(numbered(1))
    router.order("POST /files", status=503)
    clock.steps.append(lambda: put(numbered(2)))
    shown = run(*INPUT)
    assert shown.exit_status == 2 and len(router.files) == 0
    assert "requests.jsonl has changed" in shown.stderr
    assert router.seen("POST", "/batches") == []


@pytest.mark.parametrize("data", [
    numbered(2).replace(b"\n", b"\r\n"),
    numbered(2)[:-1],
    numbered(2)[:-1] + b" \t\r",
    b" \t" + numbered(2),
    jsonl(request("\u2028\u2029\x85\v\f\x1c")),
    json.dumps(request("\u2028\u2029\x85"), ensure_ascii=False).encode(),
    jsonl(request("\ud800"), request("\udfff"), request("a\ud83d")),
    jsonl(request("é"), request("e\u0301")),
    b'{"x": 1e999, "x": [12345678901234567890], ' + numbered(1)[1:],
], ids=["crlf", "no final newline", "spaces at the end", "spaces before",
        "escaped line ends", "line ends of Unicode", "lone surrogates",
        "two ways to write é", "other fields"])
@pytest.mark.parametrize("from_stdin", [False, True])
def test_odd_but_good_lines_are_sent_byte_for_byte(run, router, data,
                                                   from_stdin):
    put(data)
    router.batch_plan(hold="validating")
    shown = run(*DEMO, "--input", "-" if from_stdin else "requests.jsonl",
                stdin=data if from_stdin else b"not asked for")
    assert shown.exit_status == 0, shown
    name = "stdin.jsonl" if from_stdin else "requests.jsonl"
    assert router.requests[0].form["file"] == (name, data)


def test_an_input_may_be_a_pipe_with_a_name(run, router):
    os.mkfifo("pipe")
    writer = threading.Thread(target=put, args=(numbered(2), "pipe"))
    writer.start()
    router.batch_plan(hold="validating")
    assert run(*DEMO, "--input", "pipe").exit_status == 0
    writer.join(LIMIT_S)
    assert router.requests[0].form["file"] == ("pipe", numbered(2))


@pytest.mark.parametrize("name, said", [
    ("missing.jsonl", "cannot read missing.jsonl: No such file"),
    (".", "cannot read .: Is a directory"),
    ("a\0b", "cannot read a"),
])
def test_an_input_that_cannot_be_read_is_named(run, router, name, said):
    shown = run(*DEMO, "--input", name)
    assert shown.exit_status == 2 and said in shown.stderr
    assert router.requests == []


def test_the_endpoint_may_come_from_the_environment(run, router, running):
    shown = run("batches", "--input", "requests.jsonl",
                XEROTIER_ENDPOINT="my-endpoint")
    assert shown.exit_status == 0
    assert asked(router) == ["POST /proj_demo/my-endpoint/v1/files",
                             "POST /proj_demo/my-endpoint/v1/batches"]


def test_a_lost_answer_to_create_leads_to_no_second_batch(run, router):
    put(numbered(1))
    router.order("POST /batches", drop="after", after_acting=True)
    shown = run(*INPUT)
    file_id = router.batches["batch_1"]["input_file_id"]
    assert shown.exit_status == 5 and len(router.batches) == 1
    assert asked(router) == [f"POST {E}/files", f"POST {E}/batches"]
    assert f"file id: {file_id}" in shown.stderr


def test_a_router_that_is_busy_is_asked_again(run, router, clock):
    put(numbered(1))
    router.order("POST /files", status=503, retry_after=3)
    router.order("POST /batches", status=429, retry_after=4)
    router.batch_plan(hold="validating")
    assert run(*INPUT).exit_status == 0
    assert clock.slept == [3, 4]
    assert [seen.form.get("file") for seen in router.seen("POST", "/files")
            ] == [("requests.jsonl", numbered(1))] * 2
    assert len(router.batches) == 1


@pytest.mark.parametrize("method", [
    "POST /files", "POST /batches"])
def test_an_answer_without_an_id_is_no_success(run, router, method):
    put(numbered(1))
    router.order(method, body=b'{"object":"batch"}')
    shown = run(*INPUT)
    assert shown.exit_status == 1 and shown == ""
    assert "the answer has no id" in shown.stderr


# == checked before a byte is sent ===========================================

WRONG = [
    (b"", ["a blank line"]),
    (b" \t\r", ["a blank line"]),
    (b"Hi", ["not JSON"]),
    (b'{"custom_id": "r9"', ["not JSON"]),
    (numbered(1)[:-1] + b"," + numbered(1)[:-1], ["not JSON"]),
    (b"[" * 100000, ["not JSON: nested too deeply"]),
    (b'{"a": NaN}', ["not JSON: NaN is no JSON"]),
    (b'{"a": "\xff"}', ["not UTF-8 at byte 8"]),
    (b'{"a": "\xed\xa0\x80"}', ["not UTF-8 at byte 8"]),
    (b'\xef\xbb\xbf{"a": 1}', ["begins with a byte order mark"]),
    (b"[1]", ["not a JSON object"]),
    (b'"r9"', ["not a JSON object"]),
    (b"null", ["not a JSON object"]),
    (request(None), ["custom_id is missing"]),
    (request(""), ['custom_id "" is not a text']),
    (request(7), ["custom_id 7 is not a text"]),
    (request(method=None), ["method is missing"]),
    (request(method="post"), ['method "post" is not "POST"']),
    (request(method="GET"), ['method "GET" is not "POST"']),
    (request(url=None), ["url is missing"]),
    (request(url=""), ['url ""']),
    (request(url=["/v1"]), ['url ["/v1"]']),
    (request(url="/v1/embeddings"), ['url "/v1/embeddings"',
                                     "the batch would fail",
                                     "--batch-endpoint"]),
    (request(body=None), ["body is missing"]),
    (request(body=[1]), ["body [1] is not an object"]),
    (request(body={"messages": []}), ["body.model is missing"]),
    (request(body={"model": "", "messages": []}), ['body.model ""']),
    (request(body={"model": 7, "messages": []}), ["body.model 7"]),
    (request(body={"model": None, "messages": []}), ["body.model null"]),
    (request(body={"model": "m"}), ["body.messages is missing"]),
    (request(body={"model": "m", "messages": "Hi"}),
     ['body.messages "Hi" is not a list of messages']),
]
WRONG = [(wrong if isinstance(wrong, bytes) else encoded(wrong), said)
         for wrong, said in WRONG]


@pytest.mark.parametrize("wrong, said", WRONG)
def test_a_wrong_line_is_named_and_nothing_is_sent(run, router, wrong, said):
    put(jsonl(request("first")) + wrong + b"\n" + jsonl(request("last")))
    shown = run(*INPUT)
    assert shown.exit_status == 2 and shown == "" and router.requests == []
    error, hint = shown.stderr.splitlines()
    assert error.startswith("error: requests.jsonl: line 2: " + said[0])
    assert all(text in error for text in said)
    assert hint == "  hint: --no-validate lets the server judge"


def test_a_repeated_id_is_named_with_both_lines(run, router):
    put(jsonl(request("req-1"), request("req-1")))
    shown = run(*INPUT)
    assert shown.exit_status == 2 and router.requests == []
    assert shown.stderr.startswith(
        'error: requests.jsonl: line 2: custom_id "req-1" repeats line 1\n')


def test_an_id_repeats_however_it_is_written(run, router):
    put(jsonl(request("a"), request("b")) +
        numbered(1).replace(b'"r1"', b'"\\u0061"') +
        jsonl(request("A"), request("a ")))
    shown = run(*INPUT)
    assert shown.exit_status == 2
    assert 'line 3: custom_id "a" repeats line 1\n' in shown.stderr


def test_an_id_with_half_a_surrogate_repeats_too(run, router):
    put(jsonl(request("\ud800x"), request("\ud800x")))
    shown = run(*INPUT)
    assert shown.exit_status == 2 and router.requests == []
    assert "repeats line 1\n" in shown.stderr


def test_an_id_repeats_also_on_a_line_that_is_wrong(run, router):
    put(jsonl(request("a"), request("a", method="GET")))
    shown = run(*INPUT)
    assert shown.exit_status == 2
    assert 'line 2: custom_id "a" repeats line 1\n' in shown.stderr
    assert 'line 2: method "GET" is not "POST"\n' in shown.stderr


def test_of_many_repeated_ids_the_first_20_are_shown(run, router):
    ids = [f"r{number}" for number in range(700)]
    put(jsonl(*map(request, ids + ids[::-1] + ["r5"])))
    shown = run(*INPUT)
    assert shown.exit_status == 2 and router.requests == []
    first, *lines = shown.stderr.splitlines()
    assert first == "error: requests.jsonl: 701 things are wrong, nothing" \
                    " was sent"
    assert lines == [
        f'  requests.jsonl: line {701 + number}: custom_id "r{699 - number}"'
        f" repeats line {700 - number}" for number in range(20)] + [
        "  and 681 more", "  hint: --no-validate lets the server judge"]


def test_all_that_is_wrong_is_told_in_the_order_of_the_lines(run, router):
    put(jsonl({"custom_id": "a", "body": {}}, request("b"), request("b"))
        + b"\n")
    shown = run(*INPUT)
    assert [line.partition("line ")[2] for line
            in shown.stderr.splitlines()[1:-1]] == [
        "1: body.model is missing", "1: method is missing",
        "1: url is missing", '3: custom_id "b" repeats line 2',
        "4: a blank line"]


@pytest.mark.parametrize("count, more", [
    (20, []), (21, ["  and 1 more"]), (60, ["  and 40 more"])])
def test_up_to_20_problems_are_shown_then_a_count(run, router, count, more):
    put(b"\n" * count)
    shown = run(*INPUT)
    lines = shown.stderr.splitlines()
    assert f"{count} things are wrong" in lines[0]
    assert lines[1:21] == [f"  requests.jsonl: line {number}: a blank line"
                           for number in range(1, 21)]
    assert lines[21:-1] == more and router.requests == []


@pytest.mark.parametrize("name", ["requests.jsonl", "-"])
def test_an_empty_file_is_refused(run, router, name):
    put(b"")
    shown = run(*DEMO, "--input", name)
    assert shown.exit_status == 2 and router.requests == []
    assert "line 1: the file is empty" in shown.stderr


def test_standard_input_is_checked_too(run, router):
    shown = run(*DEMO, "--input", "-", stdin=numbered(1) + b"x\n")
    assert shown.exit_status == 2 and router.requests == []
    assert "stdin.jsonl: line 2: not JSON" in shown.stderr


def test_the_check_also_stands_before_a_dry_run(run, router):
    put(b"\n")
    shown = run(*INPUT, "--dry-run")
    assert (shown, shown.exit_status) == ("", 2) and router.requests == []


def test_what_is_wrong_is_json_if_that_was_asked_for(run, router):
    put(b"\n\n")
    shown = run(*INPUT, "-o", "json")
    error = json.loads(shown.stderr)["error"]
    assert (shown, shown.exit_status) == ("", 2)
    assert error["details"] == [f"requests.jsonl: line {number}: a blank line"
                                for number in (1, 2)]


@pytest.mark.parametrize("words, size", [
    (INPUT, MOST_BYTES + 1),
    (("batches", "check", "requests.jsonl"), MOST_BYTES + 1),
    (("batches", "check", "requests.jsonl"), MOST_BYTES)])
def test_a_file_over_the_limit_is_refused_unread(run, router, words, size):
    put(b"")
    os.truncate("requests.jsonl", size)
    shown = run(*words)
    assert shown.exit_status == 2 and router.requests == []
    said = "Input file exceeds 100 MB" in shown.stderr
    assert said == (size > MOST_BYTES), shown
    assert not said or "run --split" in shown.stderr


# == left to the server ======================================================

def test_unchecked_lines_are_judged_by_the_server(run, router, clock):
    put(b"\n{}\n")
    hold(router, clock)
    shown = run(*INPUT, "--no-validate", "--wait")
    assert router.requests[0].form["file"] == ("requests.jsonl", b"\n{}\n")
    assert shown.exit_status == 1
    assert "  line 1: The line is blank. (blank_line)\n" in shown.stderr
    assert ("  line 2: The method must be POST. (invalid_method, method)\n"
            in shown.stderr)


def test_a_file_too_large_for_the_server_is_refused_in_its_words(run, router):
    put(numbered(1))
    router.batch_limit = 10
    shown = run(*INPUT)
    assert shown.exit_status == 1 and shown == ""
    assert "error: HTTP 413 Input file exceeds 100 MB\n" in shown.stderr
    assert f"file id: {list(router.files)[0]}" in shown.stderr


def test_large_metadata_goes_unchecked_to_the_server_too(run, router):
    put(numbered(1))
    shown = run(*INPUT, "--no-validate", "--metadata", "k=" + "x" * 16384)
    assert shown.exit_status == 1 and len(router.seen("POST", "")) == 2
    assert ("error: HTTP 400 Metadata exceeds maximum size of 16KB\n"
            in shown.stderr)


def test_a_size_over_the_limit_goes_unchecked_too(run, router):
    put(b"")
    os.truncate("requests.jsonl", MOST_BYTES + 1)
    shown = run(*INPUT, "--no-validate", "--dry-run")
    assert shown.exit_status == 0 and "/files\n" in shown


# == other targets than chat =================================================

def test_lines_for_another_endpoint_make_a_batch_of_that(run, router):
    put(jsonl(request(url="/v1/embeddings",
                      body={"model": "m", "input": "Hi"})))
    router.batch_plan(hold="validating")
    shown = run(*INPUT, "--batch-endpoint", "/v1/embeddings")
    assert shown.exit_status == 0
    assert router.requests[1].json["endpoint"] == "/v1/embeddings"
    assert router.batches["batch_1"]["endpoint"] == "/v1/embeddings"


def test_with_another_endpoint_chat_lines_would_fail(run, router):
    put(numbered(1))
    shown = run(*INPUT, "--batch-endpoint", "/v1/embeddings")
    assert shown.exit_status == 2 and router.requests == []
    assert 'line 1: url "/v1/chat/completions"' in shown.stderr


# == metadata ================================================================

@pytest.mark.parametrize("words, metadata", [
    (["--metadata", "a=1"], {"a": "1"}),
    (["--metadata=a=1"], {"a": "1"}),
    (["--metadata", "a=1", "--metadata", "b=2"], {"a": "1", "b": "2"}),
    (["--metadata", "a=1", "b=2", "c=3"], {"a": "1", "b": "2", "c": "3"}),
    (["--metadata", "a=1", "b=2", "--metadata", "c=3"],
     {"a": "1", "b": "2", "c": "3"}),
    (["--metadata", "a=1", "-q", "--metadata", "b="], {"a": "1", "b": ""}),
    (["--metadata", "a=b=c", "d=--wait"], {"a": "b=c", "d": "--wait"}),
    (["--metadata", "a=1", "a=2"], {"a": "2"}),
    (["--metadata", "z=1", "é=ü \n"], {"z": "1", "é": "ü \n"}),
    (["--metadata", "a=\udcff"], {"a": "\ufffd"}),
    ([], None),
])
@pytest.mark.parametrize("order", [1, -1])
def test_metadata_in_all_its_spellings(run, router, words, metadata, order):
    put(numbered(1))
    router.batch_plan(hold="validating")
    pieces = [words, ["--input", "requests.jsonl"]][::order]
    shown = run(*DEMO, *pieces[0], *pieces[1])
    assert shown.exit_status == 0, shown
    assert router.requests[1].json.get("metadata") == metadata
    assert ("metadata" in router.requests[1].json) == bool(metadata)


@pytest.mark.parametrize("words, said", [
    (["--metadata", "a"], "--metadata"),
    (["--metadata", "=1"], "--metadata"),
    (["--metadata"], "--metadata"),
    (["--metadata", "--wait"], "--metadata"),
    (["--metadata", "a=1", "batch_7"], "batch_7"),
])
def test_metadata_that_is_no_pair_is_refused(run, router, words, said):
    put(numbered(1))
    shown = run(*INPUT, *words)
    assert shown.exit_status == 2 and said in shown.stderr
    assert router.requests == []


@pytest.mark.parametrize("value, is_taken", [
    ("x" * (16384 - 8), True), ("x" * (16384 - 7), False),
    ("é" * (8192 - 4), True), ("é" * 8192, False)])
@pytest.mark.parametrize("words", [INPUT, PREFIX])
def test_metadata_may_have_16_kb(run, router, words, value, is_taken):
    put(numbered(1))
    router.add_file("a", numbered(1), relative_path="exp/a")
    router.batch_plan(hold="validating")
    shown = run(*words, "--metadata", "k=" + value)
    if is_taken:
        assert shown.exit_status == 0
        assert router.batches["batch_1"]["metadata"] == {"k": value}
    else:
        assert shown.exit_status == 2 and router.requests == []
        assert "Metadata exceeds maximum size of 16KB" in shown.stderr


# == waited for ==============================================================

def test_a_wait_polls_every_2_s_and_shows_the_end(run, router, clock):
    put(numbered(3))
    hold(router, clock, fail_lines={"r2": 400})
    clock.steps.insert(0, lambda: None)
    shown = run(*INPUT, "--wait")
    assert shown.exit_status == 0
    assert clock.slept == [2, 2] and polls(router) == 3
    batch = router.batches["batch_1"]
    assert shown == (
        "ID:             batch_1\n"
        "Status:         completed\n"
        "Total:          3\n"
        "Completed:      2\n"
        "Failed:         1\n"
        f"Output File ID: {batch['output_file_id']}\n"
        f"Error File ID:  {batch['error_file_id']}\n")
    assert shown.stderr == (
        f"uploaded requests.jsonl -> {batch['input_file_id']}\n"
        "2026-02-02T02:40:00Z batch_1 validating\n")


def test_a_wait_may_be_for_a_batch_that_is_there(run, router, made):
    batch = made()
    shown = run(*DEMO, "batch_1", "--wait", "-o", "json")
    assert asked(router) == [f"GET {E}/batches/batch_1"]
    assert (shown, shown.exit_status) == (pretty(batch), 0)


def test_of_a_long_wait_a_pipe_gets_a_line_each_30_s(run, clock, made):
    batch = made()
    batch.update(status="validating", request_counts=None)

    def count():
        batch["status"] = "in_progress" if clock.at < 60 else "completed"
        batch["request_counts"] = {"total": 100, "failed": 1,
                                   "completed": int(clock.at)}
    clock.steps += [count] * 40
    shown = run(*DEMO, "batch_1", "--wait")
    assert shown.stderr.splitlines() == [
        "2026-02-02T02:40:00Z batch_1 validating",
        "2026-02-02T02:40:30Z batch_1 in_progress 31/100, 1 failed, 1.0/s,"
        " 69 s left, 27 tokens",
        "2026-02-02T02:41:00Z batch_1 completed 61/100, 1 failed, 1.0/s,"
        " 39 s left"]
    assert run(*DEMO, "batch_1", "--wait", "-q").stderr == ""


ENDS = [
    ({}, "completed", 0),
    ({"fail_lines": {"r1": 400, "r2": 400, "r3": 400}}, "completed", 0),
    ({"no_files": True}, "completed", 0),
    ({"fail": [{"message": "No."}]}, "failed", 1),
    ({"expire_after": 1}, "expired", 1),
]


@pytest.mark.parametrize("form", ["table", "json", "id"])
@pytest.mark.parametrize("plan, status, exit_status", ENDS)
def test_how_a_batch_ends_is_the_exit_status(run, router, clock, plan,
                                             status, exit_status, form):
    put(numbered(3))
    hold(router, clock, **plan)
    shown = run(*INPUT, "--wait", "-o", form, "-q")
    assert shown.exit_status == exit_status
    batch = router.batches["batch_1"]
    assert batch["status"] == status
    assert {"table": f"Status:         {status}\n" in shown,
            "json": shown == pretty(batch), "id": shown == "batch_1\n"}[form]
    if exit_status == 0:
        assert shown.stderr == ""
    else:
        assert f"batch batch_1 {status}" in shown.stderr


def test_a_batch_cancelled_meanwhile_has_ended_badly(run, router, clock):
    put(numbered(3))
    router.batch_plan(hold="in_progress", after=2)

    def cancel():
        deadline = time.monotonic() + LIMIT_S
        while (router.batches["batch_1"]["request_counts"]["completed"] < 2
               and time.monotonic() < deadline):
            time.sleep(0.001)
        run(*DEMO, "batch_1", "--cancel", "--force")
        end_all(router)
    clock.steps.append(cancel)
    shown = run(*INPUT, "--wait")
    assert shown.exit_status == 1
    assert "Status:         cancelled\n" in shown
    assert "Completed:      2\n" in shown and "file-" in shown
    assert "error: batch batch_1 cancelled\n" in shown.stderr


FLAWS = [flaw("duplicate_custom_id", "The id 'r1' is not unique.",
              "custom_id", 3),
         flaw("too_many", "There are too many lines.")]
FLAW_LINES = ["line 3: The id 'r1' is not unique."
              " (duplicate_custom_id, custom_id)",
              "There are too many lines. (too_many)"]


def test_why_a_batch_failed_is_told_with_line_numbers(run, router, clock):
    put(numbered(3))
    hold(router, clock, fail=FLAWS)
    shown = run(*INPUT, "--wait")
    assert shown.stderr.splitlines()[-3:] == [
        "error: batch batch_1 failed"] + ["  " + line for line in FLAW_LINES]


def test_why_a_batch_failed_is_in_the_envelope_too(run, made):
    made(fail=FLAWS)
    shown = run(*DEMO, "batch_1", "--wait", "-o", "json", "-q")
    assert json.loads(shown)["errors"]["data"] == FLAWS
    error = json.loads(shown.stderr)["error"]
    assert error["message"] == "batch batch_1 failed"
    assert error["details"] == FLAW_LINES


def test_of_many_reasons_none_is_dropped_without_a_word(run, made):
    made(fail=[flaw("bad", f"No {number}.") for number in range(25)])
    shown = run(*DEMO, "batch_1", "--wait")
    assert "  No 0. (bad)\n" in shown.stderr
    assert "  No 19. (bad)\n" in shown.stderr
    assert "No 24." in shown.stderr or "and 5 more" in shown.stderr


@pytest.mark.parametrize("errors", [
    None, [], {"data": None}, {"data": "x"}, {"data": [None, 7, {}]}, "x"])
def test_a_failed_batch_may_say_anything_of_why(run, router, made, errors):
    made(fail=FLAWS)["errors"] = errors
    for words in (["--wait"], []):
        shown = run(*DEMO, "batch_1", *words)
        assert shown.exit_status == bool(words)
        assert "failed\n" in shown and "nternal" not in shown.stderr


def test_a_batch_that_tells_no_counts_is_waited_for(run, router, clock):
    put(numbered(3))
    hold(router, clock, no_counts=True)
    shown = run(*INPUT, "--wait")
    assert shown.exit_status == 0
    assert "Total:          -\nCompleted:      -\nFailed:         -\n" in shown


def test_a_status_that_nobody_knows_is_no_end(run, clock, made):
    batch = made()
    batch["status"] = "rescheduling"
    clock.steps += [lambda: None] * 4 + [
        lambda: batch.update(status="completed")]
    shown = run(*DEMO, "batch_1", "--wait")
    assert shown.exit_status == 0 and clock.slept == [2] * 5


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"status": null}'])
def test_what_is_no_batch_is_not_waited_for(run, router, clock, body):
    router.order("GET /batches/batch_1", times=None, body=body)
    clock.steps += [lambda: None] * 10 + [interrupt]
    shown = run(*DEMO, "batch_1", "--wait")
    assert shown.exit_status == 1 and shown.stderr.startswith("error: ")


@pytest.mark.parametrize("fault", [
    {"status": 500}, {"status": 502, "html": True}, {"status": 503},
    {"status": 504}, {"status": 429}, {"drop": "after"}, {"drop": "before"},
    {"drop": "after", "reset": True}, {"cut": 20}, {"lie": 50}])
def test_a_wait_survives_what_passes(run, router, clock, fault):
    put(numbered(1))
    hold(router, clock)
    clock.steps[:0] = [lambda: None] * 20
    router.order("GET /batches/batch_1", times=12, **fault)
    shown = run(*INPUT, "--wait")
    assert shown.exit_status == 0 and "completed" in shown
    assert router.orders == [] and len(clock.slept) == 21
    assert len(router.seen("POST", "/batches")) == 1


@pytest.mark.parametrize("fault, exit_status", [
    ({"status": 502}, 1), pytest.param({"status": 503}, 6, marks=costly),
    pytest.param({"drop": "after"}, 5, marks=costly)])
def test_what_lasts_5_minutes_ends_a_wait(run, router, clock, running, fault,
                                          exit_status):
    router.order("GET /batches/batch_1", times=None, **fault)
    shown = run(*DEMO, "batch_1", "--wait")
    assert shown.exit_status == exit_status and shown == ""
    assert 300 <= clock.at < 330


@pytest.mark.parametrize("status, exit_status", [
    (400, 1), (401, 3), (403, 3), (404, 4)])
def test_what_does_not_pass_ends_a_wait_at_once(run, router, clock, running,
                                                status, exit_status):
    router.order("GET /batches/batch_1", status=status)
    shown = run(*DEMO, "batch_1", "--wait")
    assert shown.exit_status == exit_status and clock.slept == []
    assert f"error: HTTP {status}" in shown.stderr


@pytest.mark.parametrize("words", [INPUT, DEMO + ("batch_1",)])
def test_a_wait_is_over_when_its_time_is(run, router, clock, running, words):
    router.batch_plan(hold="validating")
    shown = run(*words, "--wait", "--wait-timeout", "10")
    batch_id = "batch_2" if words == INPUT else "batch_1"
    assert (shown, shown.exit_status) == ("", 8)
    assert clock.slept == [2] * 5 and polls(router, batch_id) == 6
    assert f"not over after 10 s: {batch_id} validating\n" in shown.stderr
    assert (f"xeroctl batches {batch_id} --endpoint demo --wait"
            in shown.stderr)


def test_a_wait_of_3_s_does_not_take_4(run, clock, running):
    shown = run(*DEMO, "batch_1", "--wait", "--wait-timeout", "3")
    assert shown.exit_status == 8 and sum(clock.slept) <= 3


def test_a_wait_that_got_no_answer_in_time_says_so(run, router, clock,
                                                   running):
    router.order("GET /batches/batch_1", times=None, status=502)
    shown = run(*DEMO, "batch_1", "--wait", "--wait-timeout", "20")
    assert shown.exit_status == 8 and clock.at < 30
    assert "HTTP 502" in shown.stderr and "resumes the wait" in shown.stderr


def test_ctrl_c_tells_how_to_take_the_wait_up_again(run, router, clock):
    put(numbered(1))
    router.batch_plan(hold="validating")
    clock.steps.append(interrupt)
    shown = run(*INPUT, "--wait")
    assert (shown, shown.exit_status) == ("", 130)
    assert ("xeroctl batches batch_1 --endpoint demo --wait"
            in shown.stderr)
    assert router.seen("POST", "/cancel") == []


@at_both_ends
def test_ctrl_c_ends_the_wait_of_a_process(start, router, folder):
    put(numbered(1))
    router.batch_plan(hold="validating")
    polled, before = threading.Event(), signal.signal(
        signal.SIGINT, signal.default_int_handler)
    router.order("GET /batches/batch_1",
                 when=lambda seen: polled.set() and False)
    process = start(*DEMO, "--input", str(folder / "requests.jsonl"),
                    "--wait")
    signal.signal(signal.SIGINT, before)
    assert polled.wait(LIMIT_S)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130 and time.monotonic() - begun < 1
    assert stdout == b"" and b"Traceback" not in stderr
    assert (b"xeroctl batches batch_1 --endpoint demo --wait" in stderr)


# == made of what has been uploaded ==========================================

def staged(router, *paths, data=numbered(1), **options):
    return [router.add_file(os.path.basename(path), data, relative_path=path,
                            **options)["id"] for path in paths]


def test_each_file_below_a_path_becomes_a_batch(run, router):
    ids = staged(router, "exp/b.jsonl", "exp/a/x.jsonl", "expo/c.jsonl")
    staged(router, "exp/notes.txt", purpose="assistants")
    router.add_file("no-path.jsonl", numbered(1))
    shown = run(*PREFIX, "--metadata", "run_id=may")
    assert shown.exit_status == 0 and shown.stderr == ""
    assert shown == ("[OK] exp/a/x.jsonl -> batch_1\n"
                     "[OK] exp/b.jsonl -> batch_2\n")
    assert asked(router) == [
        f"GET {E}/files?purpose=batch&limit=100", f"POST {E}/batches",
        f"POST {E}/batches"]
    assert [seen.json for seen in router.seen("POST", "/batches")] == [
        {"input_file_id": file_id, "endpoint": "/v1/chat/completions",
         "completion_window": "24h", "metadata": {"run_id": "may"}}
        for file_id in (ids[1], ids[0])]


def test_all_pages_of_files_are_gone_through(run, router):
    staged(router, *(f"{'exp' if number % 50 == 0 else 'old'}/{number}.jsonl"
                     for number in range(250)))
    shown = run(*PREFIX)
    assert shown.splitlines() == [
        f"[OK] exp/{number}.jsonl -> batch_{count}" for count, number
        in enumerate((0, 100, 150, 200, 50), 1)]
    first, *rest = router.seen("GET", "/files")
    assert dict(first.query) == {"purpose": "batch", "limit": "100"}
    assert [sorted(dict(seen.query)) for seen in rest] == [
        ["after", "limit", "purpose"]] * 2


def test_a_path_may_go_by_either_name(run, router):
    ids = staged(router, "a", "b")
    files = [{"id": ids[0], "relative_path": "exp/a"},
             {"id": ids[1], "x_relative_path": "exp/b"},
             {"id": "file-3", "relative_path": None}, {"id": "file-4"},
             {"id": "file-5", "x_relative_path": 7}]
    router.order("GET /files", body=encoded({"data": files}))
    assert run(*PREFIX) == "[OK] exp/a -> batch_1\n[OK] exp/b -> batch_2\n"


@pytest.mark.parametrize("files", [[], ["other/a.jsonl"]])
def test_a_path_without_files_is_a_failure(run, router, files):
    staged(router, *files)
    shown = run(*PREFIX)
    assert shown == "[FAIL] exp/ (no files found for prefix)\n"
    assert shown.exit_status == 1
    assert asked(router) == [f"GET {E}/files?purpose=batch&limit=100"]


def test_a_path_without_files_is_named_under_json_too(run, router):
    shown = run(*PREFIX, "-o", "json")
    assert shown.exit_status == 1
    assert "no files found for prefix" in shown + shown.stderr
    json.loads(shown.stderr)


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_an_empty_path_is_refused_and_nothing_is_sent(run, router, more):
    staged(router, "exp/a.jsonl")
    shown = run(*DEMO, "--input-prefix", "", *more)
    assert (shown, shown.exit_status, router.requests) == ("", 2, [])
    assert "--input-prefix: the text is empty" in shown.stderr


def test_a_plan_names_each_file(run, router):
    paths = ["exp/a.jsonl", "exp/b\x1b.jsonl"]
    ids = staged(router, *paths)
    shown = run(*PREFIX, "--dry-run", "-q")
    assert re.findall("# (.*)\nPOST ", shown) == paths
    plan = json.loads(run(*PREFIX, "--dry-run", "-o", "json"))
    assert [(each["about"], each["body"]["input_file_id"])
            for each in plan] == list(zip(paths, ids))
    assert router.batches == {}


def test_after_a_failure_the_rest_is_submitted(run, router):
    ids = staged(router, "exp/a", "exp/b", "exp/c")
    router.order("POST /batches", status=400, message="No\nway.",
                 when=lambda seen: seen.json["input_file_id"] == ids[1])
    shown = run(*PREFIX)
    assert shown == ("[OK] exp/a -> batch_1\n"
                     "[FAIL] exp/b (HTTP 400 No\\nway.)\n"
                     "[OK] exp/c -> batch_2\n")
    assert shown.exit_status == 1
    assert shown.stderr == "error: 2 of 3 submitted\n"


@pytest.mark.parametrize("fault", [
    {"drop": "after"}, {"body": b"{}"}, {"status": 502, "html": True}])
def test_whatever_fails_is_sent_once_and_told(run, router, fault):
    staged(router, "exp/a", "exp/b")
    router.order("POST /batches", **fault)
    shown = run(*PREFIX)
    assert shown.exit_status == 1
    failed, good = shown.splitlines()
    assert re.match(r"\[FAIL\] exp/a \(.+\)$", failed)
    assert good == "[OK] exp/b -> batch_1"
    assert len(router.seen("POST", "/batches")) == 2


def test_a_bulk_result_in_json(run, router):
    ids = staged(router, "exp/a", "exp/b")
    router.order("POST /batches", status=400, message="No.")
    shown = run(*PREFIX, "-o", "json")
    assert shown.exit_status == 1
    result = json.loads(shown)
    assert list(result) == ["object", "data"] and result["object"] == "list"
    assert [{name: each[name] for name in ("id", "ok", "error", "file_id")}
            for each in result["data"]] == [
        {"id": None, "ok": False, "error": "HTTP 400 No.",
         "file_id": ids[0]},
        {"id": "batch_1", "ok": True, "error": None, "file_id": ids[1]}]
    assert "1 of 2 submitted" in json.loads(shown.stderr)["error"]["message"]


def test_the_ids_of_a_bulk_are_those_that_are_there(run, router):
    staged(router, "exp/a", "exp/b", "exp/c")
    router.order("POST /batches", status=400)
    assert run(*PREFIX, "-o", "id") == "batch_1\nbatch_2\n"


def test_a_bulk_in_csv_and_json_lines(run, router):
    staged(router, "exp/a", "exp/b")
    assert run(*PREFIX, "-o", "csv").splitlines() == [
        "ID,OK,Error", "batch_1,true,", "batch_2,true,"]
    lines = run(*PREFIX, "-o", "jsonl").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["batch_3",
                                                          "batch_4"]


def test_a_bulk_is_waited_for_batch_by_batch(run, router, clock):
    staged(router, "exp/a", "exp/b", "exp/c")
    gate = threading.Event()
    router.batch_plan(hold="validating", gate=gate)
    router.batch_plan(expire_after=0)

    def end_others():
        for work in list(router.works)[1:]:
            work.join(LIMIT_S)
    clock.steps += [end_others, lambda: None, gate.set,
                    lambda: end_all(router)]
    shown = run(*PREFIX, "--wait")
    assert shown.startswith("[OK] exp/a -> batch_1\n[OK] exp/b -> batch_2\n"
                            "[OK] exp/c -> batch_3\n")
    assert shown.exit_status == 1
    assert "error: batch batch_2 expired\n" in shown.stderr
    assert polls(router, "batch_1") in (4, 5)
    assert polls(router, "batch_2") in (1, 2)
    assert polls(router, "batch_3") in (1, 2)


def test_a_bulk_that_ends_well_exits_0(run, router, clock):
    staged(router, "exp/a", "exp/b")
    hold(router, clock)
    shown = run(*PREFIX, "--wait", "-o", "json")
    assert shown.exit_status == 0
    assert [each["ok"] for each in json.loads(shown)["data"]] == [True, True]


def test_what_was_made_is_waited_for_beside_a_failure(run, router, clock):
    staged(router, "exp/a", "exp/b")
    router.order("POST /batches", status=400)
    hold(router, clock)
    shown = run(*PREFIX, "--wait")
    assert shown.exit_status == 1 and polls(router) == 2
    assert "1 of 2 submitted" in shown.stderr


def test_how_each_of_a_bulk_has_ended_is_shown(run, router, clock):
    staged(router, "exp/a", "exp/b")
    hold(router, clock)
    shown = run(*PREFIX, "--wait")
    outputs = [batch["output_file_id"] for batch in router.batches.values()]
    assert shown.count("completed") == 2
    assert all(file_id in shown for file_id in outputs)


def test_the_time_of_a_wait_is_that_of_the_whole_bulk(run, router, clock):
    staged(router, "exp/a", "exp/b")
    gate = threading.Event()
    router.batch_plan(hold="validating", gate=gate)
    router.batch_plan(hold="validating")

    def end_first():
        gate.set()
        router.works[0].join(LIMIT_S)
    clock.steps += [lambda: None] * 3 + [end_first]
    shown = run(*PREFIX, "--wait", "--wait-timeout", "10")
    assert shown.exit_status == 8 and clock.at <= 10


def test_ctrl_c_in_a_bulk_tells_of_every_batch_left(run, router, clock):
    staged(router, "exp/a", "exp/b")
    router.batch_plan(times=2, hold="validating")
    clock.steps.append(interrupt)
    shown = run(*PREFIX, "--wait")
    assert shown.exit_status == 130
    assert "batch_1" in shown.stderr and "batch_2" in shown.stderr


# == listed ==================================================================

@pytest.fixture
def three(run, router):
    """Three batches, of which the second has ended."""
    put(numbered(2))
    for plan in ({"hold": "validating"}, {}, {"hold": "validating"}):
        router.batch_plan(**plan)
        run(*INPUT)
        if not plan:
            router.works[-1].join(LIMIT_S)
    router.batches["batch_2"].update(
        status="completed", output_file_id="file-o", error_file_id="file-e",
        request_counts={"total": 1234, "completed": 1230, "failed": 4})
    del router.requests[:]
    return router.batches


HEADS = "ID       Status      Total requests  Completed  Failed  Created\n"


def test_a_list_has_the_columns_of_the_page(run, router, three):
    shown = run(*DEMO)
    assert asked(router) == [f"GET {E}/batches"]
    assert shown == HEADS + (
        "batch_3  validating  0               0          0       "
        "2026-02-02 02:40 UTC\n"
        "batch_2  completed   1234            1230       4       "
        "2026-02-02 02:40 UTC\n"
        "batch_1  validating  0               0          0       "
        "2026-02-02 02:40 UTC\n")
    assert shown.stderr == ""


def test_a_wide_list_has_the_files_too(run, three):
    head, _, second, _ = run(*DEMO, "-o", "wide").splitlines()
    assert re.split("  +", head)[5:] == [
        "Created", "Endpoint", "Input File ID", "Output File ID",
        "Error File ID"]
    assert re.split("  +", second)[6:] == [
        "/v1/chat/completions", three["batch_2"]["input_file_id"], "file-o",
        "file-e"]


# == shown ===================================================================

def test_one_batch_is_shown_with_all_labels(run, router, made):
    batch = made(fail_lines={"r1": 400})
    batch.update(metadata={"env": "prod", "n": "1"}, cancelled_at=1.5,
                 expires_at="2026-05-27T14:03:00Z")
    shown = run(*DEMO, "batch_1")
    assert asked(router) == [f"GET {E}/batches/batch_1"]
    lines = [re.split(": +", line) for line in shown.splitlines()]
    assert lines == [
        ["ID", "batch_1"], ["Status", "completed"],
        ["Endpoint", "/v1/chat/completions"],
        ["Input File ID", batch["input_file_id"]],
        ["Output File ID", batch["output_file_id"]],
        ["Error File ID", batch["error_file_id"]],
        ["Completion Window", "24h"], ["Total", "3"], ["Completed", "2"],
        ["Failed", "1"], ["Created", "2026-02-02 02:40 UTC"],
        ["Started At", "2026-02-02 02:40 UTC"],
        ["Expires", "2026-05-27 14:03 UTC"],
        ["Completed At", "2026-02-02 02:40 UTC"],
        ["Cancelled At", "1970-01-01 00:00 UTC"],
        ["Metadata", "env=prod, n=1"]]


def test_a_failed_batch_is_shown_with_its_reasons(run, made):
    made(fail=FLAWS)
    shown = run(*DEMO, "batch_1")
    assert shown.exit_status == 0
    assert shown.splitlines()[-2:] == ["  " + line for line in FLAW_LINES]


def test_a_batch_of_which_little_is_known_is_shown(run, router):
    router.order("GET /batches/b", body=b'{"id": "b", "status": "new"}')
    shown = run(*DEMO, "b")
    assert shown.exit_status == 0
    assert "Total:             -\n" in shown
    assert "Expires:           -\n" in shown


# == cancelled ===============================================================

CANCEL = DEMO + ("batch_1", "--cancel")


def test_what_has_ended_cannot_be_cancelled(run, made):
    made()
    shown = run(*CANCEL, "--force")
    assert shown.exit_status == 1 and shown == ""
    assert ("error: HTTP 409 The batch is completed already.\n"
            in shown.stderr)


# == downloaded ==============================================================

BOTH = {"output": "--download", "error": "--errors"}
NAMES = {"output": "batch_1-output.jsonl", "error": "batch_1-errors.jsonl"}


@pytest.fixture
def ended(made):
    """A batch with an output file and an error file."""
    return made(fail_lines={"r2": 400})


@pytest.mark.parametrize("kind", sorted(BOTH))
def test_results_go_to_a_file_named_by_the_batch(run, router, ended, kind):
    shown = run(*DEMO, "batch_1", BOTH[kind])
    file_id = ended[kind + "_file_id"]
    data = router.file_bytes(file_id)
    assert data.count(b"\n") == {"output": 2, "error": 1}[kind]
    assert content(NAMES[kind]) == data
    assert sorted(os.listdir()) == sorted(["made.jsonl", NAMES[kind]])
    assert asked(router) == [f"GET {E}/batches/batch_1",
                             f"GET {E}/files/{file_id}",
                             f"GET {E}/files/{file_id}/content"]
    size = (f"{len(data)} B" if len(data) < 1000
            else f"{len(data) / 1000:.1f} KB")
    assert shown == f"{file_id} -> {NAMES[kind]} ({size})\n"
    assert (shown.stderr, shown.exit_status) == ("", 0)


@pytest.mark.parametrize("kind", sorted(BOTH))
def test_results_go_where_they_are_wanted(run, router, ended, kind):
    os.mkdir("out")
    run(*DEMO, "batch_1", BOTH[kind], "--output-file", "out/é.jsonl")
    assert content("out/é.jsonl") == router.file_bytes(
        ended[kind + "_file_id"])
    assert os.listdir("out") == [from_system("é.jsonl")]


@pytest.mark.parametrize("form", ["table", "json", "id"])
@pytest.mark.parametrize("kind", sorted(BOTH))
def test_results_alone_go_to_standard_output(run, router, ended, kind, form):
    shown = run(*DEMO, "batch_1", BOTH[kind], "--output-file", "-",
                "-o", form)
    assert shown.encode() == router.file_bytes(ended[kind + "_file_id"])
    assert shown.exit_status == 0 and os.listdir() == ["made.jsonl"]
    assert ended[kind + "_file_id"] in shown.stderr


@pytest.mark.parametrize("kind", sorted(BOTH))
def test_a_page_is_no_result(run, router, ended, kind):
    router.order("GET /content", html=True)
    shown = run(*DEMO, "batch_1", BOTH[kind])
    assert shown.exit_status == 1 and "an HTML page" in shown.stderr
    assert os.listdir() == ["made.jsonl"]


def test_bytes_come_as_they_are(run, router, made):
    data = b'{"a": "\xe2\x80\xa8"}\r\n\xff\xfe\x00\x1b[31m'
    made(output=data)
    run(*DEMO, "batch_1", "--download")
    assert content("batch_1-output.jsonl") == data


def test_a_download_in_the_other_forms(run, router, ended):
    file_id = ended["output_file_id"]
    size = len(router.file_bytes(file_id))
    words = DEMO + ("batch_1", "--download", "-o")
    assert json.loads(run(*words, "json")) == {
        "id": file_id, "path": "batch_1-output.jsonl", "bytes": size}
    assert run(*words, "id") == file_id + "\n"


def test_an_existing_target_is_replaced_whole(run, router, ended):
    put(b"x" * 100000, "batch_1-output.jsonl")
    os.chmod("batch_1-output.jsonl", 0o644)
    before = os.stat("batch_1-output.jsonl").st_ino
    assert run(*DEMO, "batch_1", "--download").exit_status == 0
    assert content("batch_1-output.jsonl") == router.file_bytes(
        ended["output_file_id"])
    assert os.stat("batch_1-output.jsonl").st_ino != before


def test_a_failed_download_leaves_the_target_alone(run, router, ended):
    put(b"before", "batch_1-output.jsonl")
    router.order("GET /content", status=403)
    assert run(*DEMO, "batch_1", "--download").exit_status == 3
    assert content("batch_1-output.jsonl") == b"before"


def test_a_file_that_cannot_be_read_yet_is_asked_for_again(
        run, router, clock, ended):
    router.order("GET /content", times=2, status=404)
    assert run(*DEMO, "batch_1", "--download").exit_status == 0
    assert content("batch_1-output.jsonl") == router.file_bytes(
        ended["output_file_id"])
    assert 0 < clock.at < 20


def test_a_file_that_stays_away_is_exit_4(run, router, clock, ended):
    router.order("GET /content", times=None, status=404)
    shown = run(*DEMO, "batch_1", "--download")
    assert shown.exit_status == 4 and 0 < clock.at < 20
    assert not os.path.exists("batch_1-output.jsonl")


def test_a_broken_download_is_taken_up_where_it_broke(run, router, ended):
    router.order("GET /content", cut=100)
    assert run(*DEMO, "batch_1", "--download").exit_status == 0
    data = router.file_bytes(ended["output_file_id"])
    assert content("batch_1-output.jsonl") == data
    first, second = router.seen("GET", "/content")
    assert second.headers["Range"] == "bytes=100-"
    assert sorted(os.listdir()) == ["batch_1-output.jsonl", "made.jsonl"]


NOT_YET = [
    ("--download", {"hold": "validating"}, "validating"),
    ("--download", {"fail_lines": {"r1": 400, "r2": 400, "r3": 400}},
     "completed"),
    ("--download", {"no_files": True}, "completed"),
    ("--download", {"fail": FLAWS}, "failed"),
]


@pytest.mark.parametrize("flag", ["--download", "--errors"])
def test_of_a_batch_without_files_its_problems_are_told(run, router, flag):
    """Neither flag names the other: there is nothing to be had by it."""
    router.order("GET /batches/batch_1", body=json.dumps({
        "id": "batch_1", "status": "failed", "errors": {"data": [
            {"line": 3, "message": "no model"}]}}).encode())
    shown = run(*DEMO, "batch_1", flag)
    assert (shown, shown.exit_status) == ("", 1)
    assert "line 3: no model" in shown.stderr and "hint" not in shown.stderr


@pytest.mark.parametrize("flag, plan, status", NOT_YET)
def test_without_an_output_file_the_status_is_told(run, router, flag, plan,
                                                   status):
    put(numbered(3))
    router.batch_plan(**plan)
    run(*INPUT)
    if "hold" not in plan:
        end_all(router)
    shown = run(*DEMO, "batch_1", flag)
    assert (shown, shown.exit_status) == ("", 1)
    error = shown.stderr.splitlines()[0]
    assert error.startswith("error: Output file not yet available")
    assert status in error
    assert router.seen("GET", "/content") == []
    assert os.listdir() == ["requests.jsonl"]


@pytest.mark.parametrize("plan", [
    {"fail": FLAWS}, {"expire_after": 3, "no_files": True}])
def test_without_an_error_file_the_status_is_told(run, router, made, plan):
    batch = made(**plan)
    shown = run(*DEMO, "batch_1", "--errors")
    assert (shown, shown.exit_status) == ("", 1)
    assert "rror file" in shown.stderr and batch["status"] in shown.stderr
    assert os.listdir() == ["made.jsonl"]


def test_a_batch_without_failures_has_no_errors_to_fetch(run, made):
    made()
    shown = run(*DEMO, "batch_1", "--errors")
    assert (shown, shown.exit_status) == ("no request failed\n", 0)
    for words in ("--output-file", "-"), ("-o", "json"), ("-o", "id"):
        shown = run(*DEMO, "batch_1", "--errors", *words)
        assert (shown, shown.exit_status) == ("", 0)
        assert shown.stderr == "no request failed\n"
    assert os.listdir() == ["made.jsonl"]


def test_failures_that_are_counted_and_in_no_file_are_not_denied(run, made):
    made()["request_counts"].update(completed=2, failed=1)
    shown = run(*DEMO, "batch_1", "--errors")
    assert shown.exit_status == 1 and "no request" not in shown.stderr


@pytest.mark.parametrize("flag", sorted(BOTH.values()))
def test_nobody_is_sent_to_wait_for_what_has_ended(run, made, flag):
    made(no_files=True)
    assert "--wait" not in run(*DEMO, "batch_1", flag).stderr


@pytest.mark.parametrize("flag", sorted(BOTH.values()))
def test_expired_batches_have_results_too(run, made, flag):
    made(expire_after=1)
    assert run(*DEMO, "batch_1", flag).exit_status == 0


@pytest.mark.parametrize("batch_id, name", [
    ("../x", "_x-output.jsonl"), ("a/b\\c", "a_b_c-output.jsonl"),
    ("..x", "x-output.jsonl")])
def test_a_default_name_stays_in_the_folder(run, router, made, batch_id,
                                            name):
    batch = made()
    router.order("GET *", body=encoded(dict(batch, id=batch_id)))
    run(*DEMO, batch_id, "--download")
    assert sorted(os.listdir()) == sorted(["made.jsonl", name])


@pytest.mark.parametrize("path", ["no/such/folder.jsonl", "."])
def test_a_target_that_cannot_be_is_named(run, router, ended, path):
    shown = run(*DEMO, "batch_1", "--download", "--output-file", path)
    assert shown.exit_status == 2
    assert "cannot write" in shown.stderr and path in shown.stderr
    assert router.seen("GET", "/content") == []


# == flags that do not go together ===========================================

NOT_WITH_PREFIX = ("--input-prefix cannot be combined with --input / --cancel"
                   " / --download / --errors")
TWO = [
    (PREFIX + ("--input", "requests.jsonl"), NOT_WITH_PREFIX),
    (PREFIX + ("--cancel",), NOT_WITH_PREFIX),
    (PREFIX + ("--download",), NOT_WITH_PREFIX),
    (PREFIX + ("--errors",), NOT_WITH_PREFIX),
    (DEMO + ("batch_1", "--cancel") + PREFIX[3:], NOT_WITH_PREFIX),
    (PREFIX + ("batch_1",), "--input-prefix cannot be combined with a"
                            " positional batch ID"),
    (INPUT + ("batch_1",), "--input cannot be combined with a positional"
                           " batch ID"),
]
WORDS = [
    (INPUT + ("--cancel",), "--input --cancel"),
    (INPUT + ("--download",), "--input --download"),
    (INPUT + ("--errors",), "--input --errors"),
    (DEMO + ("batch_1", "--cancel", "--download"), "--cancel --download"),
    (DEMO + ("batch_1", "--download", "--errors"), "--download --errors"),
    (DEMO + ("batch_1", "--wait", "--download"), "--wait --download"),
    (DEMO + ("batch_1", "--wait", "--errors"), "--wait --errors"),
    (DEMO + ("batch_1", "--wait", "--cancel"), "--wait --cancel"),
    (DEMO + ("--cancel",), "--cancel ID"),
    (DEMO + ("--download",), "--download ID"),
    (DEMO + ("--errors",), "--errors ID"),
    (DEMO + ("--wait",), "--wait ID"),
    (DEMO + ("batch_1", "--output-file", "x"),
     "--output-file --download --errors"),
    (INPUT + ("--output-file", "x"), "--output-file --download --errors"),
    (DEMO + ("--output-file", "x"), "--output-file --download --errors"),
    (DEMO + ("batch_1", "--metadata", "a=b"),
     "--metadata --input --input-prefix"),
    (DEMO + ("--metadata", "a=b", "batch_1"),
     "--metadata --input --input-prefix"),
    (DEMO + ("--metadata", "a=b"), "--metadata --input --input-prefix"),
    (DEMO + ("--no-validate",), "--no-validate --input"),
    (PREFIX + ("--no-validate",), "--no-validate --input"),
    (DEMO + ("batch_1", "--wait-timeout", "5"), "--wait-timeout --wait"),
    (INPUT + ("--wait-timeout", "5"), "--wait-timeout --wait"),
    (PREFIX + ("--wait-timeout", "5"), "--wait-timeout --wait"),
    (DEMO + ("batch_1", "--limit", "5"), "--limit"),
    (INPUT + ("--limit", "5"), "--limit"),
    (DEMO + ("batch_1", "--after", "x"), "--after"),
    (DEMO + ("batch_1", "--wait", "--all"), "--all"),
    (DEMO + ("batch_1", "batch_2"), "batch_2"),
    (DEMO + ("batch_1", "batch_2", "--cancel"), "batch_2"),
    (INPUT + ("--wait", "--wait-timeout", "0"), "--wait-timeout"),
    (INPUT + ("--wait", "--wait-timeout", "soon"), "--wait-timeout"),
    (DEMO + ("--input", "-", "--api-key", "-"), "--input --api-key"),
    (DEMO + ("--inputs", "requests.jsonl"), "--inputs --input"),
    (DEMO + ("--input",), "--input"),
    (DEMO + ("--input", "--wait"), "--input"),
    (DEMO + ("--direct",), "--direct"),
]


@pytest.mark.parametrize("words, said", TWO)
def test_two_actions_are_refused_in_the_words_of_the_page(run, router, words,
                                                          said):
    put(numbered(1))
    shown = run(*words)
    assert (shown, shown.exit_status) == ("", 2) and router.requests == []
    assert shown.stderr.startswith("error: " + said)


@pytest.mark.parametrize("words, named", WORDS)
def test_flags_that_do_not_go_together_are_named(run, router, words, named):
    put(numbered(1))
    shown = run(*words, stdin=numbered(1))
    assert (shown, shown.exit_status) == ("", 2) and router.requests == []
    for name in named.split():
        assert re.search(rf"{name}\b", shown.stderr), shown


# == plans ===================================================================

def test_a_dry_run_shows_both_requests_and_sends_none(run, router):
    put(numbered(1))
    shown = run(*INPUT, "--metadata", "a=1", "--wait", "--dry-run", "-o",
                "json")
    assert router.requests == [] and shown.exit_status == 0
    upload, create = json.loads(shown)
    assert (upload["method"], upload["url"]) == (
        "POST", f"{router.origin}{E}/files")
    assert upload["body"] == {"purpose": "batch", "file": "@requests.jsonl"}
    assert (create["method"], create["url"]) == (
        "POST", f"{router.origin}{E}/batches")
    assert create["body"] == {
        "input_file_id": "<file id>", "endpoint": "/v1/chat/completions",
        "completion_window": "24h", "metadata": {"a": "1"}}
    assert router.key not in shown and shown.stderr == ""


def test_a_dry_run_of_a_path_asks_for_the_files_only(run, router):
    ids = staged(router, "exp/a", "exp/b")
    shown = run(*PREFIX, "--wait", "--dry-run", "-o", "json")
    assert asked(router) == [f"GET {E}/files?purpose=batch&limit=100"]
    assert [each["body"]["input_file_id"] for each in json.loads(shown)
            ] == ids
    text = run(*PREFIX, "--dry-run")
    assert text.count("POST ") == 2 and "[OK]" not in text


def test_a_plan_of_one_request_is_one_object(run, running):
    plan = json.loads(run(*CANCEL, "--dry-run", "-o", "json"))
    assert plan["method"] == "POST" and not plan["body"]


@pytest.mark.parametrize("words", [
    INPUT + ("--metadata", "a=it's"), INPUT + ("--wait",), PREFIX, CANCEL])
@pytest.mark.parametrize("form", ["table", "json"])
def test_curl_commands_show_what_would_be_sent(run, router, words, form):
    put(numbered(1))
    shown = run(*words, "--curl", "-o", form)
    assert router.requests == [] and shown.exit_status == 0
    assert "curl " in shown and "$XEROTIER_API_KEY" in shown
    assert router.key not in shown


def test_the_curl_of_a_create_uploads_and_creates(run, router):
    put(numbered(1))
    upload, create = run(*INPUT, "--metadata", "a=it's", "--curl").split(
        "\n\n")
    assert f"{router.origin}{E}/files" in upload
    assert "--form-string purpose=batch" in upload
    assert 'file=@"requests.jsonl"' in upload
    assert f"{router.origin}{E}/batches" in create
    assert '"input_file_id":"<file id>"' in create
    assert "it'\"'\"'s" in create


def test_a_curl_command_finds_the_file(run):
    os.mkdir("in")
    put(numbered(1), "in/requests.jsonl")
    shown = run(*DEMO, "--input", "in/requests.jsonl", "--curl")
    assert 'file=@"in/requests.jsonl"' in shown


@pytest.mark.parametrize("flag", sorted(BOTH.values()))
def test_a_download_is_planned_too(run, router, ended, flag):
    shown = run(*DEMO, "batch_1", flag, "--curl")
    assert shown.exit_status == 0 and router.requests == []
    assert f"{E}/batches/batch_1" in shown and "/content" in shown
    assert os.listdir() == ["made.jsonl"]


# == other servers ===========================================================

OPENAI = "batches", "--style", "openai"


def test_style_openai_needs_no_endpoint(run, openai_router):
    put(numbered(2))
    shown = run(*OPENAI, "--input", "requests.jsonl", "--metadata", "a=1",
                against=openai_router)
    assert shown.exit_status == 0
    assert asked(openai_router) == ["POST /v1/files", "POST /v1/batches"]
    end_all(openai_router)
    assert run(*OPENAI, "--wait", "batch_1", against=openai_router,
               ).exit_status == 0
    assert run(*OPENAI, "batch_1", "--download", against=openai_router,
               ).exit_status == 0
    assert content("batch_1-output.jsonl").count(b"\n") == 2
    assert run(*OPENAI, "-o", "id", against=openai_router) == "batch_1\n"


def test_style_openai_puts_no_endpoint_into_a_path(run, openai_router):
    staged(openai_router, "exp/a")
    shown = run(*OPENAI, "--endpoint", "demo", "--input-prefix", "exp/",
                against=openai_router)
    assert shown == "[OK] exp/a -> batch_1\n"
    assert asked(openai_router) == [
        "GET /v1/files?purpose=batch&limit=100", "POST /v1/batches"]


def test_style_openai_resumes_a_wait_without_an_endpoint(run, clock,
                                                         openai_router):
    put(numbered(1))
    openai_router.batch_plan(hold="validating")
    shown = run(*OPENAI, "--input", "requests.jsonl", "--wait",
                "--wait-timeout", "2", against=openai_router)
    assert shown.exit_status == 8
    assert "xeroctl batches batch_1 --wait" in shown.stderr


# == checked offline =========================================================

CHECK = "batches", "check", "requests.jsonl"


def test_a_check_needs_neither_config_nor_network(run, router):
    lines = [request(str(number), body=dict(body, messages=[]))
             for number, body in enumerate([
        {"model": "b", "max_tokens": 5},
        {"model": "a", "max_completion_tokens": 7}, {"model": "b"},
        {"model": "b", "max_tokens": "9"}, {"model": "b", "max_tokens": None}
    ])]
    put(jsonl(*lines))
    shown = run(*CHECK, "-o", "json", against=None)
    assert json.loads(shown) == {
        "file": "requests.jsonl", "lines": 5, "bytes": len(jsonl(*lines)),
        "models": ["a", "b"], "max_tokens": 12}
    assert (shown.stderr, shown.exit_status) == ("", 0)


def test_a_check_adds_up_numbers_only(run):
    put(jsonl(request(body={"model": "b", "max_tokens": True,
                            "messages": []})))
    assert json.loads(run(*CHECK, "-o", "json"))["max_tokens"] == 0


def test_a_check_shows_its_figures(run):
    put(numbered(20))
    assert run(*CHECK, against=None) == (
        "File:              requests.jsonl\n"
        "Lines:             20\n"
        f"Bytes:             {len(numbered(20)) / 1000:.1f} KB\n"
        "Models:            demo\n"
        "Sum of max_tokens: 160\n")


def test_a_check_may_read_standard_input(run):
    shown = run("batches", "check", "-", stdin=numbered(2), against=None)
    assert shown.exit_status == 0 and "Lines:             2\n" in shown


@pytest.mark.parametrize("wrong, said", WRONG[::4])
def test_a_check_finds_what_a_create_would(run, wrong, said):
    put(numbered(1) + wrong + b"\n")
    shown = run(*CHECK, against=None)
    assert (shown, shown.exit_status) == ("", 2)
    assert "requests.jsonl: line 2: " + said[0] in shown.stderr


def test_a_check_of_another_endpoint(run):
    put(jsonl(request(url="/v1/responses")))
    assert run(*CHECK, against=None).exit_status == 2
    assert run(*CHECK, "--batch-endpoint", "/v1/responses",
               against=None).exit_status == 0


@pytest.mark.parametrize("words", [
    ["batches", "check"], ["batches", "check", "missing.jsonl"],
    ["batches", "check", "requests.jsonl", "other"]])
def test_a_check_needs_one_file(run, words):
    put(numbered(1))
    assert run(*words, against=None).exit_status == 2


# == what a person sees ======================================================

def see_created(router, clock):
    hold(router, clock, fail_lines={"r2": 400})


def see_failed(router, clock):
    hold(router, clock, fail=FLAWS)


def see_listed(router, clock):
    staged(router, "exp/2026-05/a.jsonl", "exp/2026-05/b.jsonl")
    router.order("POST /batches", status=400, message="No.", code=None)


SEEN = {
    "batches-create-wait": (see_created, INPUT + (
        "--metadata", "project=finance", "run_id=7", "--wait")),
    "batches-failed": (see_failed, INPUT + ("--wait",)),
    "batches-prefix": (see_listed, DEMO + ("--input-prefix",
                                           "exp/2026-05/")),
    "batches-none-found": (None, PREFIX),
}


@pytest.mark.parametrize("name", sorted(SEEN))
def test_what_a_person_sees(run, router, clock, golden, name):
    put(numbered(3))
    prepare, argv = SEEN[name]
    if prepare:
        prepare(router, clock)
    golden(name, argv, run(*argv))


def test_what_a_person_sees_of_wrong_lines(run, golden):
    put(jsonl(request("req-1"), request("req-1"),
              request("req-3", url="/v1/embeddings"),
              request("req-4", method="GET", body={})) + b"\n" * 18)
    golden("batches-wrong-lines", INPUT, run(*INPUT))


@pytest.mark.parametrize("name, words", [
    ("batches-show", ["batch_1"]), ("batches-list", []),
    ("batches-download", ["batch_1", "--download"]),
    ("batches-no-errors", ["batch_1", "--errors"])])
def test_what_a_person_sees_of_a_batch(run, made, golden, name, words):
    made()["metadata"] = {"project": "finance", "run_id": "7"}
    golden(name, DEMO + tuple(words), run(*DEMO, *words))


@pytest.mark.parametrize("name, words", [
    ("batches-dry-run", ["--dry-run"]), ("batches-curl", ["--curl"])])
def test_what_a_person_sees_of_a_plan(run, golden, name, words):
    put(numbered(3))
    argv = INPUT + ("--metadata", "project=finance", "--wait", *words)
    golden(name, argv, run(*argv, **ACME))
