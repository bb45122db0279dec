"""What an answer is, is judged once: whatever way it comes.

The same JSON is done, or is none, as the answer to a single call, where a
stream was asked for, as a line of a direct run and as a line of a batch's
output; what a stream brings in pieces is judged alike.  Shown and created
objects, lists, deletions and actions have their judge in tests/test_rows.py
and tests/test_output.py.
"""

import json

import pytest

from test_runs import Job, as_lines, chat_line, embedding_line, read_lines

MESSAGE = {"role": "assistant", "content": "Half an ans"}
ASK = "chat", "--endpoint", "demo", "-m", "hi"
TOLD = {"message": "the provider died", "code": 502}


def completion(**choice):
    return {"object": "chat.completion", "choices": [
        dict({"index": 0, "message": MESSAGE, "finish_reason": "stop"},
             **choice)]}


def ended(*reasons):
    return {f"ends with {reason}": completion(finish_reason=reason)
            for reason in reasons}


# name: JSON with status 200 that answers no question.
NO_ANSWERS = dict({
    "an error": {"error": TOLD},
    "an error text": {"error": "the provider died"},
    "an error object": {"object": "error", "message": "the provider died"},
    "an error beside a choice": dict(completion(), error=TOLD),
    "an error in a choice": completion(error=TOLD),
    "no choices": {"object": "chat.completion"},
    "choices that are null": {"choices": None},
    "choices that are empty": {"choices": []},
    "a choice that is null": {"choices": [None]},
    "a message that is null": completion(message=None),
    "a message that is empty": completion(message={}),
    "the second choice broken": {"choices": completion()["choices"]
                                 + completion(error=TOLD)["choices"]},
    "another kind": {"object": "list", "data": []},
    "an empty object": {},
}, **ended("error", "abort", "aborted", "cancelled", "failed", "ERROR",
           "network_error", "insufficient_system_resource",
           "malformed_function_call"))

# name: JSON that is an answer, odd as it may look.
ANSWERS = dict({
    "an error that is null": dict(completion(), error=None),
    "an error that is empty": dict(completion(), error={}),
    "a choice whose error is null": completion(error=None),
    "a text in place of a message": {"choices": [{"text": "Half an ans"}]},
    "a call": completion(message={"role": "assistant", "tool_calls": [
        {"id": "c", "function": {"name": "f", "arguments": "{}"}}]}),
    "a refusal": completion(message={"refusal": "No."}),
}, **ended("stop", "length", "tool_calls", "function_call",
           "content_filter", "eos_token", None, "", "null"))


def batch_of(router, job, body):
    """The exit code of a batch run whose one line is answered so."""
    router.batch_plan(output=as_lines([{
        "id": "r", "custom_id": "a", "error": None,
        "response": {"status_code": 200, "body": body}}]))
    return job.argv()


def direct_of(router, job, body):
    router.order("POST /chat/completions", raw=json.dumps(body).encode())
    return job.argv("--direct")


def single_of(router, job, body):
    router.order("POST /chat/completions", raw=json.dumps(body).encode())
    return ASK


def stream_of(router, job, body):
    return single_of(router, job, body) + ("--stream",)


@pytest.mark.parametrize("way", [single_of, stream_of, direct_of, batch_of])
def test_what_is_no_answer_is_none_in_whatever_way(run, router, job_of,
                                                   way):
    for number, (name, body) in enumerate(NO_ANSWERS.items()):
        job = job_of()
        shown = run(*way(router, job, body))
        assert shown.exit_status == 1, (name, shown)
        assert "Half" not in shown and "Traceback" not in shown.stderr, name
        assert job.done() == "", name
        if way in (direct_of, batch_of):
            line, = read_lines(job.errors)
            assert line["error"]["message"], (name, line)
            assert line["response"]["body"] == body, (name, line)


@pytest.mark.parametrize("way", [single_of, stream_of, direct_of, batch_of])
def test_what_is_an_answer_is_one_in_whatever_way(run, router, job_of,
                                                  way):
    for number, (name, body) in enumerate(ANSWERS.items()):
        job = job_of()
        shown = run(*way(router, job, body))
        assert shown.exit_status == 0, (name, shown)
        if way in (direct_of, batch_of):
            assert (job.done(), job.failed()) == ("a", ""), name


def frames(*choices):
    return [b"data: " + json.dumps({
        "object": "chat.completion.chunk",
        "choices": [dict({"index": 0, "delta": {}}, **choice)]}).encode()
        + b"\n\n" for choice in choices] + [b"data: [DONE]\n\n"]


@pytest.mark.parametrize("end", [
    {"finish_reason": "abort"}, {"error": TOLD}, {"finish_reason": "Error"},
    {"finish_reason": "error", "delta": {"content": "wer"}}])
def test_a_choice_that_breaks_off_in_a_stream_is_told(run, router, end):
    begin = {"delta": {"content": "Half an ans"}}
    router.order("POST /chat/completions", frames=frames(begin, end))
    shown = run(*ASK, "--stream")
    assert shown.exit_status == 7 and shown.startswith("Half an ans")
    assert "the server broke off the stream" in shown.stderr
    router.order("POST /chat/completions", frames=frames(begin, end))
    shown = run(*ASK, "--stream", "-o", "json")
    assert (shown.exit_status, shown) == (7, "")


def test_embeddings_are_judged_as_embeddings(run, router, job_of):
    vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
    for data, code in (([vector], 0), ([], 1), ([vector] * 2, 1), (None, 1),
                       ([{"index": 0}], 1)):
        job = job_of(embedding_line)
        router.batch_plan(output=as_lines([{
            "custom_id": "a", "response": {
                "status_code": 200, "body": {"data": data}}}]))
        shown = run(*job.argv("--batch-endpoint", "/v1/embeddings"))
        assert shown.exit_status == code, (data, shown)


def test_a_response_in_a_batch_has_to_be_completed(run, router, job_of):
    def line(custom_id):
        return dict(chat_line(custom_id), url="/v1/responses",
                    body={"model": "m", "input": "hi"})
    for status, code in (("completed", 0), ("incomplete", 0), ("failed", 1),
                         ("cancelled", 1), ("in_progress", 1)):
        job = job_of(line)
        router.batch_plan(output=as_lines([{
            "custom_id": "a", "response": {"status_code": 200, "body": {
                "object": "response", "id": "r", "status": status,
                "output": []}}}]))
        shown = run(*job.argv("--batch-endpoint", "/v1/responses"))
        assert shown.exit_status == code, (status, shown)


@pytest.fixture
def job_of(tmp_path):
    """job_of(line): a fresh job whose input is one line, of the id a."""
    numbers = iter(range(100))

    def made(line=chat_line):
        folder = tmp_path / f"job{next(numbers)}"
        folder.mkdir()
        job = Job(folder)
        job.fill("a", line)
        return job
    return made


def test_a_deletion_that_was_refused_is_none(run, router):
    router.order("DELETE", raw=b'{"id":"file-1","deleted":false}')
    shown = run("files", "file-1", "--delete", "--force")
    assert (shown.exit_status, shown) == (1, "")
    assert "refusal" in shown.stderr


def test_models_that_are_not_deleted_fail_one_by_one(run, router):
    router.order("DELETE", raw=b'{"error":"in use"}')
    shown = run("models", "a", "b", "--delete", "--force")
    assert shown.exit_status == 1 and "[FAIL] a" in shown


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ok":true}'])
def test_after_an_action_the_id_is_that_acted_on(run, router, body):
    router.order("POST", raw=body, times=2)
    shown = run("responses", "resp_1", "--endpoint", "demo", "--cancel",
                "-o", "id")
    assert (shown.exit_status, shown) == (0, "resp_1\n")
    shown = run("responses", "resp_1", "--endpoint", "demo", "--cancel")
    assert shown.exit_status == 0 and "resp_1" in shown


@pytest.mark.parametrize("body", [b"{}", b'{"object":"x"}', b'[]', b'"a"'])
def test_a_created_object_has_an_id(run, router, body):
    router.order("POST", raw=body, times=2)
    for form in ("table", "id"):
        shown = run("webhooks", "--create", "--url", "https://a.example",
                    "--events", "x", "-o", form)
        assert (shown.exit_status, shown) == (1, ""), shown
