"""batches run: a whole job, in batches or line by line.

Whatever the server's files say, each custom_id stands once in the output or
among the errors; whatever moment a kill picks, the same command goes on, and
nothing is uploaded, created or sent twice.  Run as a program, this file
starts runs as forks of itself, which die at a moment that is counted in
events: files opened, renamed or removed, and bytes sent.
"""

import collections
import contextlib
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

import xeroctl
from conftest import (INTERPRETERS, ROOT, FakeClock, environment, sampled,
                      text_stream)
from helpers import answer_to, check_refused, most_bytes, until

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
SAY = "POST /chat/completions"
SPARE = {"in.jsonl", "out.jsonl"}
FINISHED = {"out.jsonl.errors.jsonl", "out.jsonl.state.json"}


# == a job and what has come of it ===========================================

def chat_line(custom_id, **more):
    body = dict({"model": "demo", "messages": [
        {"role": "user", "content": f"say {custom_id}"}]}, **more)
    return {"custom_id": custom_id, "method": "POST", "url": CHAT,
            "body": body}


def embedding_line(custom_id):
    return {"custom_id": custom_id, "method": "POST", "url": EMBEDDINGS,
            "body": {"model": "demo", "input": f"say {custom_id}"}}


def as_lines(values):
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def read_lines(path):
    """The decoded lines of a file; none if there is no such file."""
    if not os.path.exists(path):
        return []
    with open(path, "rb") as source:
        return [json.loads(line.decode()) for line in source]


def said(result):
    """What the model said in a result line."""
    choice, = result["response"]["body"]["choices"]
    return choice["message"]["content"]


class Job:
    """A folder with an input, and the command that works it off."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.input = self.path("in.jsonl")
        self.output = self.path("out.jsonl")
        self.errors = self.path("out.jsonl.errors.jsonl")
        self.state = self.path("out.jsonl.state.json")
        self.journal = self.path("out.jsonl.journal.jsonl")
        self.fill("abcd")

    def path(self, name):
        return os.path.join(self.folder, name)

    def fill(self, ids, line=chat_line):
        self.write(as_lines(map(line, ids)))

    def write(self, data, name="in.jsonl"):
        with open(self.path(name), "wb") as target:
            target.write(data)

    def read(self, name="out.jsonl"):
        with open(self.path(name), "rb") as source:
            return source.read()

    def argv(self, *more):
        return ("batches", "run", "--endpoint", "demo", "--input",
                self.input, "--output-file", self.output) + more

    def done(self):
        """The ids in the output, in their order."""
        return "".join(each["custom_id"] for each in read_lines(self.output))

    def failed(self):
        return "".join(each["custom_id"] or ""
                       for each in read_lines(self.errors))

    def spare(self):
        """(code, text) of each line that was kept, but was of no use."""
        return [(each["error"]["code"], each["error"]["line"])
                for each in read_lines(self.errors)
                if "line" in each["error"]]

    def answers(self):
        return [(each["custom_id"], said(each))
                for each in read_lines(self.output)]

    def names(self):
        return set(os.listdir(self.folder))


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


@contextlib.contextmanager
def meanwhile(act, *events):
    """Do something beside what stands in the block.

    Should it fail, the events are set that the block may wait for.
    """
    failures = []

    def guarded():
        try:
            act()
        except BaseException as failure:
            failures.append(failure)
        finally:
            for event in events:
                event.set()
    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join()
    assert not failures, failures


def uploads(router):
    """How many of the router's files bear each name that a run gave."""
    return collections.Counter(
        record["filename"] for record in router.files.values()
        if record["purpose"] == "batch")


def runs(router):
    """How many of the router's batches bear each name that a run gave."""
    return collections.Counter(record["metadata"]["xeroctl_run"]
                               for record in router.batches.values())


def check_made_once(router, parts):
    assert len(uploads(router)) == len(runs(router)) == parts
    assert set(uploads(router).values()) == {1}, uploads(router)
    assert set(runs(router).values()) == {1}, runs(router)


def lines_sent(router):
    """How often the line of each custom_id was sent in the direct form."""
    return collections.Counter(
        seen.json["messages"][-1]["content"].rpartition(" ")[2]
        for seen in router.seen("POST", "/chat/completions"))


def asks_for(custom_id):
    """Whether a request is the line of a custom_id."""
    wanted = f'"say {custom_id}"'.encode()
    return lambda seen: wanted in seen.body


def posted(router):
    return [seen for seen in router.requests if seen.method == "POST"]


# == the whole job ===========================================================

@pytest.mark.parametrize("direct", [[], ["--direct"]])
def test_the_output_has_the_order_of_the_input(run, router, job, direct):
    ids = "hgfedcbajihgfedcba"[:10]
    job.fill(ids)
    shown = run(*job.argv(*direct))
    assert shown.exit_status == 0, shown
    assert job.done() == ids
    for custom_id, text in job.answers():
        assert f'"say {custom_id}"' in text
    assert job.names() == SPARE


def test_the_router_itself_answers_in_another_order(run, router, job):
    job.fill("abcdefghij")
    run(*job.argv())
    batch, = router.batches.values()
    lines = router.file_bytes(batch["output_file_id"]).decode().splitlines()
    ids = [json.loads(line)["custom_id"] for line in lines]
    assert ids != sorted(ids) == list(job.done())
    assert sorted(lines) == sorted(job.read().decode().splitlines())


def test_the_summary_is_a_table(run, router, job):
    router.batch_plan(fail_lines={"b": 400})
    shown = run(*job.argv())
    assert shown.exit_status == 1
    labels = [line.partition(":")[0] for line in shown.splitlines()]
    assert labels == ["Requests", "Done", "Failed", "Tokens", "Time", "Rate",
                      "Output", "Errors"]
    rows = dict(line.split(None, 1) for line in shown.splitlines())
    assert (rows["Requests:"], rows["Done:"], rows["Failed:"]) == (
        "4", "3", "1")
    assert rows["Errors:"] == job.errors
    assert "error: 1 of 4 requests failed" in shown.stderr


def test_a_direct_run_says_how_many_failed_of_each_kind(run, router, job):
    router.order(SAY, when=asks_for("b"), status=400, message="too\nlong")
    router.order(SAY, times=None, status=500, message="out of memory")
    shown = run(*job.argv("--direct"))
    assert shown.exit_status == 1
    assert shown.stderr.splitlines()[-3:] == [
        "error: 4 of 4 requests failed", "  3 x HTTP 500 out of memory",
        r"  1 x HTTP 400 too\nlong"]


def test_a_batch_run_says_how_many_failed_of_each_kind(run, router, job):
    router.batch_plan(fail_lines={"a": 429, "c": 429}, lose="d")
    shown = run(*job.argv())
    kinds = [line for line in shown.stderr.splitlines() if " x " in line]
    assert kinds == ["  2 x HTTP 429 Slow down.",
                     "  1 x no result: batch_1 is completed"]


def test_many_kinds_of_failure_are_counted(run, router, job):
    """An id of its own in each message: the first 20 will do."""
    job.fill([str(number) for number in range(30)])
    router.batch_plan(output=b"", errors=as_lines(
        dict(bad(str(number)), error=f"request {number}")
        for number in range(30)))
    shown = run(*job.argv()).stderr
    assert shown.count(" x request ") == 20 and "and 10 more" in shown


@pytest.mark.parametrize("direct", [[], ["--direct"]])
def test_the_summary_is_an_object_as_json(run, router, job, direct):
    shown = run(*job.argv("-o", "json", *direct))
    summary = json.loads(shown)
    tokens = sum(each["response"]["body"]["usage"]["total_tokens"]
                 for each in read_lines(job.output))
    assert summary["seconds"] >= 0
    assert dict(summary, seconds=None, rate=None) == {
        "requests": 4, "done": 4, "failed": 0, "tokens": tokens,
        "seconds": None, "rate": None, "slowest_part": None,
        "output_file": job.output, "errors_file": None,
        "batches": [] if direct else list(router.batches), "problems": []}
    assert tokens > 0


@pytest.mark.parametrize("words, name", [
    ([], "out.jsonl.errors.jsonl"), (["--errors-file", "{}/e"], "e")])
@pytest.mark.parametrize("direct", [[], ["--direct"]])
def test_errors_go_to_a_file_of_their_own(run, router, job, words, name,
                                          direct):
    router.batch_plan(fail_lines={"c": 500, "b": 400})
    for custom_id, status in ("b", 400), ("c", 500):
        router.order(SAY, when=asks_for(custom_id), status=status)
    words = [word.format(job.folder) for word in words]
    shown = run(*job.argv(*words, *direct))
    assert shown.exit_status == 1
    assert job.done() == "ad"
    assert job.names() == SPARE | {name, "out.jsonl.state.json"}
    found = read_lines(job.path(name))
    assert [(each["custom_id"], each["response"]["status_code"])
            for each in found] == [("b", 400), ("c", 500)]
    assert all(each["error"]["message"] for each in found)


def test_where_nothing_fails_there_is_no_file_of_errors(run, job):
    job.write(b"", "e")
    assert run(*job.argv("--errors-file", job.path("f"))).exit_status == 0
    assert job.names() == SPARE | {"e"}


def test_a_batch_is_named_in_its_metadata(run, router, job):
    shown = run(*job.argv("--metadata", "a=1", "b=2", "--max-requests", "2",
                          "--split"))
    assert shown.exit_status == 0
    names = list(runs(router))
    assert len(names) == 2
    for name, batch in zip(names, router.batches.values()):
        assert batch["metadata"] == {"a": "1", "b": "2", "xeroctl_run": name}
        assert router.files[batch["input_file_id"]]["filename"] == (
            name + ".jsonl")
    assert len({name.rpartition("-")[0] for name in names}) == 1


def test_a_batch_may_call_another_endpoint(run, router, job):
    job.fill("abc", embedding_line)
    assert run(*job.argv()).exit_status == 2
    assert router.requests == []
    shown = run(*job.argv("--batch-endpoint", EMBEDDINGS))
    assert shown.exit_status == 0 and job.done() == "abc"
    batch, = router.batches.values()
    assert batch["endpoint"] == EMBEDDINGS


def test_the_input_may_come_from_stdin(run, job):
    data = job.read("in.jsonl")
    argv = [("-" if word == job.input else word) for word in job.argv()]
    shown = run(*argv, stdin=data)
    assert shown.exit_status == 0 and job.done() == "abcd"


@pytest.mark.parametrize("direct", [[], ["--direct"]])
@pytest.mark.parametrize("data, said", [
    (b"", "empty"),
    (b"oops\n", "line 1"),
    (as_lines([chat_line("a"), chat_line("a")]), "repeats line 1"),
    (as_lines([chat_line("a")]) + b"\n", "line 2"),
    (as_lines([dict(chat_line("a"), method="GET")]), "method"),
    (as_lines([dict(chat_line("a"), url="/x")]), "url"),
])
def test_a_wrong_input_is_refused_before_all(run, router, job, data, said,
                                             direct):
    job.write(data)
    check_refused(run(*job.argv(*direct)), router, said)
    assert job.names() == {"in.jsonl"}


# == parts ===================================================================

def parts_of(router):
    """The ids in each uploaded file, in the order of the uploads."""
    return ["".join(json.loads(line)["custom_id"] for line in
                    router.file_bytes(file_id).decode().splitlines())
            for file_id, record in router.files.items()
            if record["purpose"] == "batch"]


def test_an_input_is_split_by_count(run, router, job):
    job.fill("gfedcba")
    shown = run(*job.argv("--split", "--max-requests", "3"))
    assert shown.exit_status == 0, shown
    assert parts_of(router) == ["gfe", "dcb", "a"]
    assert job.done() == "gfedcba"
    check_made_once(router, 3)


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_over_a_limit_without_split_is_refused(run, router, job, more):
    shown = run(*job.argv("--max-requests", "3", *more))
    check_refused(shown, router, "--split")
    assert job.names() == {"in.jsonl"}


def test_as_many_as_the_limit_are_one_part(run, router, job):
    assert run(*job.argv("--max-requests", "4")).exit_status == 0
    assert parts_of(router) == ["abcd"]


def big_line(custom_id, size):
    """A line of so many bytes, its end included."""
    line = as_lines([chat_line(custom_id, user="")])
    return line.replace(b'"user": ""', b'"user": "%b"' % (
        b"x" * (size - len(line))))


@pytest.fixture
def patience(is_full):
    if not is_full:
        pytest.skip("reads 100 MB: --full")


@pytest.mark.usefixtures("patience")
def test_an_input_is_split_by_bytes_too(run, router, job):
    """100,000,000 bytes go into a part; one more does not."""
    with open(job.input, "wb") as target:
        for custom_id, size in ("a", 10 ** 8 - 300), ("b", 300), ("c", 200):
            target.write(big_line(custom_id, size))
    shown = run(*job.argv("--split", "--dry-run", "-o", "json"))
    assert shown.exit_status == 0 and router.requests == []
    assert [plan["url"].rpartition("/")[2] for plan in json.loads(shown)] == [
        "files", "batches"] * 2


@pytest.mark.usefixtures("patience")
def test_a_line_larger_than_a_part_is_refused(run, router, job):
    job.write(as_lines([chat_line("a")]) + big_line("b", 105 * 10 ** 6))
    check_refused(run(*job.argv()), router, "over the limit", "--split")
    check_refused(run(*job.argv("--split")), router, "line 2")
    assert job.names() == {"in.jsonl"}


# == once more for what failed ===============================================

def test_failed_lines_are_sent_again(run, router, job):
    router.batch_plan(fail_lines={"b": 500, "d": 429})
    router.batch_plan(fail_lines={"d": 500})
    shown = run(*job.argv("--retry-failed", "2"))
    assert shown.exit_status == 0, shown
    assert parts_of(router) == ["abcd", "bd", "d"]
    assert job.done() == "abcd" and job.names() == SPARE
    check_made_once(router, 3)


def test_what_fails_each_time_is_an_error_in_the_end(run, router, job):
    for _ in range(3):
        router.batch_plan(fail_lines={"b": 500})
    shown = run(*job.argv("--retry-failed", "2", "-o", "json"))
    assert shown.exit_status == 1
    assert json.loads(shown)["failed"] == 1
    assert parts_of(router) == ["abcd", "b", "b"]
    assert (job.done(), job.failed()) == ("acd", "b")


def test_without_failures_nothing_is_sent_again(run, router, job):
    assert run(*job.argv("--retry-failed", "5")).exit_status == 0
    assert parts_of(router) == ["abcd"]


def test_what_was_lost_is_sent_again_too(run, router, job):
    router.batch_plan(lose=["c"])
    shown = run(*job.argv("--retry-failed", "1"))
    assert parts_of(router) == ["abcd", "c"] and job.done() == "abcd"
    assert shown.exit_status == 0, shown


def test_what_is_sent_again_is_split_as_well(run, router, job):
    job.fill("abcdef")
    router.batch_plan(times=3, fail_lines=dict.fromkeys("abdf", 500))
    shown = run(*job.argv("--split", "--max-requests", "2",
                          "--retry-failed", "1"))
    assert shown.exit_status == 0
    assert parts_of(router) == ["ab", "cd", "ef", "ab", "df"]
    assert job.done() == "abcdef"


# == what is on disk on the way ==============================================

def stopped(run, router, job, *more):
    """A run that does not see the end of its batch before the gate opens."""
    gate = threading.Event()
    router.batch_plan(hold="in_progress", gate=gate)
    shown = run(*job.argv("--wait-timeout", "4", *more))
    assert shown.exit_status == 8, shown
    return gate


def test_the_state_is_private_and_knows_no_key(run, router, job):
    gate = stopped(run, router, job)
    assert job.names() == {"in.jsonl", "out.jsonl.state.json",
                           "out.jsonl.journal.jsonl"}
    assert stat.S_IMODE(os.stat(job.state).st_mode) == 0o600
    for name in job.names():
        assert router.key.encode() not in job.read(name)
    gate.set()
    assert run(*job.argv()).exit_status == 0
    assert job.names() == SPARE and job.done() == "abcd"
    check_made_once(router, 1)


def test_a_wait_that_ends_too_soon_says_how_to_go_on(run, router, job):
    router.batch_plan(hold="validating")
    shown = run(*job.argv("--wait-timeout", "4"))
    assert shown.exit_status == 8 and shown == ""
    assert "the same command goes on" in shown.stderr


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.errors.jsonl"])
@pytest.mark.parametrize("direct", [[], ["--direct"]])
def test_results_from_before_are_replaced_by_force_only(run, router, job,
                                                        name, direct):
    job.write(b"precious", name)
    check_refused(run(*job.argv(*direct)), router, name, "--force")
    assert job.read(name) == b"precious"
    assert job.names() == {"in.jsonl", name}
    assert run(*job.argv("--force", *direct)).exit_status == 0
    assert job.done() == "abcd" and job.failed() == ""


def other_input(job):
    job.fill("abce")
    return []


def same_size(job):
    data = job.read("in.jsonl")
    job.write(data.replace(b"say a", b"say e"))
    return []


DIFFERENCES = {
    "input": other_input,
    "sha256": same_size,
    "endpoint": lambda job: ["--endpoint", "my-endpoint"],
    "batch_endpoint": lambda job: ["--direct"],
    "base_url": lambda job: ["--base-url", "http://127.0.0.1:9/p/v1",
                             "--api-key", "k"],
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_state_of_another_run_is_refused(run, router, job, name):
    stopped(run, router, job)
    before, count = job.read(job.state), len(router.requests)
    more = DIFFERENCES[name](job)
    shown = run(*job.argv(*more, "--max-time", "9"))
    assert shown.exit_status == 2 and "--force" in shown.stderr
    assert job.state in shown.stderr
    assert len(router.requests) == count
    assert job.read(job.state) == before


@pytest.mark.parametrize("direct", [[], ["--direct"]])
def test_force_begins_anew(run, router, job, direct):
    stopped(run, router, job)
    job.fill("xyz")
    shown = run(*job.argv("--force", *direct))
    assert shown.exit_status == 0, shown
    assert len(uploads(router)) == len(runs(router)) == 2 - len(direct)
    assert job.done() == "xyz" and job.names() == SPARE


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b"\xff",
                                  b'{"version": 2}', b"[" * 9999])
def test_a_state_that_is_none_is_refused(run, router, job, data):
    job.write(data, "out.jsonl.state.json")
    check_refused(run(*job.argv()), router, "out.jsonl.state.json")
    assert job.read("out.jsonl.state.json") == data


def test_input_and_output_are_not_one_file(run, router, job):
    data = job.read("in.jsonl")
    os.symlink(job.input, job.path("link"))
    os.symlink(job.folder, job.path("here"))
    for name in "in.jsonl", "link", "here/in.jsonl":
        for flag in "--output-file", "--errors-file":
            check_refused(run(*job.argv(flag, job.path(name), "--force")),
                          router, "cannot be both")
    assert job.read("in.jsonl") == data
    assert job.names() == {"in.jsonl", "link", "here"}


@pytest.mark.parametrize("words", [
    ["--errors-file", "out.jsonl"],
    ["--errors-file", "out.jsonl.state.json"],
    ["--errors-file", "out.jsonl.journal.jsonl"],
    ["--errors-file", "out.jsonl.part"],
    ["--errors-file", "-"],
    ["--output-file", "-"],
    ["--output-file", "in.jsonl", "--errors-file", "e"],
])
def test_no_two_files_of_a_run_are_one(run, router, job, words):
    words = [word if word[0] == "-" else job.path(word) for word in words]
    check_refused(run(*job.argv(*words)), router)
    assert job.names() == {"in.jsonl"}


@pytest.mark.parametrize("output", ["x", "x.jsonl"])
def test_an_input_is_never_what_a_run_writes_on_the_way(run, router, job,
                                                        output):
    for end in ".part", ".state.json", ".journal.jsonl", ".errors.jsonl":
        os.rename(job.input, job.path(output + end))
        job.input = job.path(output + end)
        data = job.read(output + end)
        check_refused(run(*job.argv("--output-file", job.path(output),
                                    "--force")), router)
        assert job.read(output + end) == data


def test_at_the_end_what_kills_have_left_is_removed_and_nothing_else(
        run, job, tmp_path):
    """Beside it another run may be writing, whose OUT begins the same."""
    other = tmp_path / "errors"
    other.mkdir()
    names = ("out.jsonl.2.state.json.0a0b0c0d.tmp", "out.jsonl.mine.json",
             "out.jsonl.state.json.0a0b0c0d.tmp",
             "out.jsonl.part.json.0a0b0c0d.tmp")
    for name in names:
        job.write(b"", name)
    (other / "e.part.json.0a0b0c0d.tmp").write_bytes(b"")
    shown = run(*job.argv("--errors-file", str(other / "e")))
    assert shown.exit_status == 0
    assert job.names() == {"in.jsonl", "out.jsonl", "errors", *names[:2]}
    assert os.listdir(str(other)) == []


def folders_that_cannot_be(job):
    """Paths at which no file can be written."""
    job.write(b"", "file")
    os.mkdir(job.path("folder"))
    return [job.path(name) for name in ("none/x", "file/x", "folder")]


@pytest.mark.parametrize("flag", ["--output-file", "--errors-file"])
@pytest.mark.parametrize("direct", [[], ["--direct"]])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_what_cannot_be_written_is_told_before_all(run, router, job, flag,
                                                   direct, force):
    for path in folders_that_cannot_be(job):
        check_refused(run(*job.argv(flag, path, *direct, *force)), router,
                      path)
    assert job.names() == {"in.jsonl", "file", "folder"}


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0,
                    reason="root may write everywhere")
def test_a_folder_of_others_is_told_before_all(run, router, job):
    os.mkdir(job.path("shut"), 0o500)
    for flag in "--output-file", "--errors-file":
        check_refused(run(*job.argv(flag, job.path("shut/x"))), router,
                      "shut/x")


@pytest.mark.parametrize("direct", [[], ["--direct"]])
@pytest.mark.parametrize("size", [0, 300, 2000, 4000])
def test_a_full_disk_stops_a_run_that_can_go_on(run, router, job, direct,
                                                size):
    job.fill("abcdefgh")
    with most_bytes(size):
        shown = run(*job.argv(*direct))
    assert shown.exit_status in (1, 2) and shown == "", shown
    assert "cannot write" in shown.stderr
    assert "internal error" not in shown.stderr
    assert not os.path.exists(job.output)
    shown = run(*job.argv(*direct))
    assert shown.exit_status == 0, shown
    assert job.done() == "abcdefgh" and job.names() == SPARE
    if not direct:
        check_made_once(router, 1)


@pytest.mark.parametrize("direct", [[], ["--direct"]])
def test_a_second_run_on_one_output_is_refused(run, router, job, direct):
    gate, found = threading.Event(), []
    router.order("POST /files", gate=(0, gate))
    router.order(SAY, times=None, gate=(0, gate))

    def second():
        until(lambda: posted(router))
        until(lambda: len(posted(router)) == (4 if direct else 1))
        found.append(run(*job.argv(*direct)))
        found.append(run(*job.argv("--force", *direct)))
        found.append(len(posted(router)))
        gate.set()
    with meanwhile(second, gate):
        first = run(*job.argv(*direct))
    assert first.exit_status == 0, first
    assert found.pop() == (4 if direct else 1)
    for shown in found:
        assert shown.exit_status == 2 and "another run" in shown.stderr
    assert job.done() == "abcd" and job.names() == SPARE


@pytest.mark.parametrize("direct", [[], ["--direct", "--concurrency", "1"]])
def test_an_input_that_changes_meanwhile_stops_the_run(run, router, job,
                                                       direct):
    """Whoever writes the file in place gets no mixture of two inputs."""
    job.fill("abcdefgh", lambda each: chat_line(each, user="x" * 99999))
    gate = threading.Event()
    router.order(SAY if direct else "POST /files", gate=(0, gate))

    def change():
        until(lambda: posted(router))
        job.fill("stuvwxyz", lambda each: chat_line(each, user="y" * 99999))
        gate.set()
    with meanwhile(change, gate):
        shown = run(*job.argv("--split", "--max-requests", "4", *direct))
    assert shown.exit_status == 2 and "changed" in shown.stderr, shown
    assert not os.path.exists(job.output)
    assert not set(lines_sent(router)) & set("stuvwxyz")


# == how batches end =========================================================

def test_a_batch_that_fails_tells_lines_of_the_input(run, router, job):
    job.fill("abcdef")
    router.batch_plan()
    router.batch_plan(fail=[
        {"code": "invalid_url", "message": "No such url.", "param": "url",
         "line": 2},
        {"code": "other", "message": "Nowhere."}])
    shown = run(*job.argv("--split", "--max-requests", "3", "-o", "json"))
    assert shown.exit_status == 1
    first, second = json.loads(shown)["problems"]
    assert first.startswith("line 5: No such url.") and "invalid_url" in first
    assert "Nowhere." in second
    assert "line 5" in shown.stderr
    assert (job.done(), job.failed()) == ("abc", "def")
    assert all("failed" in each["error"]["code"]
               for each in read_lines(job.errors))


def test_lines_of_a_second_round_are_those_of_the_input(run, router, job):
    router.batch_plan(fail_lines={"b": 500, "d": 500})
    router.batch_plan(fail=[{"code": "c", "message": "Oh.", "line": 2}])
    shown = run(*job.argv("--retry-failed", "1"))
    assert "line 4: Oh." in shown.stderr and shown.exit_status == 1
    assert (job.done(), job.failed()) == ("ac", "bd")


def test_an_expired_batch_keeps_what_it_has(run, router, job):
    router.batch_plan(expire_after=2)
    shown = run(*job.argv())
    assert shown.exit_status == 1
    assert (job.done(), job.failed()) == ("ab", "cd")
    assert {each["error"]["code"] for each in read_lines(job.errors)} == {
        "batch_expired"}


def test_an_expired_batch_can_be_taken_up_by_another(run, router, job):
    router.batch_plan(expire_after=2)
    shown = run(*job.argv("--retry-failed", "1"))
    assert shown.exit_status == 0, shown
    assert parts_of(router) == ["abcd", "cd"] and job.done() == "abcd"


def test_a_cancelled_batch_keeps_what_it_has(run, router, job):
    router.batch_plan(hold="in_progress", after=3)

    def cancel():
        until(lambda: any(batch["request_counts"]["completed"] == 3
                          for batch in router.batches.values()))
        assert run("batches", "batch_1", "--endpoint", "demo", "--cancel",
                   "--force").exit_status == 0
    with meanwhile(cancel):
        shown = run(*job.argv())
    assert shown.exit_status == 1
    assert (job.done(), job.failed()) == ("abc", "d")
    error, = read_lines(job.errors)
    assert error["error"]["code"] == "batch_cancelled"


@pytest.mark.parametrize("plan, done, failed", [
    ({"no_counts": True}, "abcd", ""),
    ({"no_counts": True, "fail_lines": {"b": 500}}, "acd", "b"),
    ({"no_files": True}, "", "abcd"),
    ({"fail_lines": dict.fromkeys("abcd", 500)}, "", "abcd"),
    ({"output": b"", "errors": b""}, "", "abcd"),
    ({"lose": "abcd"}, "", "abcd"),
])
def test_what_a_batch_does_not_tell_is_borne(run, router, job, plan, done,
                                             failed):
    router.batch_plan(**plan)
    shown = run(*job.argv())
    assert shown.exit_status == (1 if failed else 0), shown
    assert "internal error" not in shown.stderr
    assert (job.done(), job.failed()) == (done, failed)
    assert os.path.exists(job.output)


def test_a_file_that_is_not_there_yet_is_waited_for(run, router, job, clock):
    router.order("GET /content", times=2, status=404)
    shown = run(*job.argv())
    assert shown.exit_status == 0, shown
    assert job.done() == "abcd" and clock.slept.count(2) >= 2


def test_a_file_that_never_is_there_ends_in_404(run, router, job):
    router.order("GET /content", times=None, status=404)
    shown = run(*job.argv())
    assert shown.exit_status == 4 and os.path.exists(job.state)
    router.orders.clear()
    assert run(*job.argv()).exit_status == 0
    assert job.done() == "abcd"
    check_made_once(router, 1)


@pytest.mark.parametrize("fault", [{"status": 502}, {"drop": "after"},
                                   {"status": 429, "retry_after": 1}])
def test_a_poll_that_fails_is_no_end(run, router, job, fault):
    router.order("GET /batches/batch_1", times=5, **fault)
    assert run(*job.argv()).exit_status == 0
    assert job.done() == "abcd"


@pytest.mark.parametrize("path, status, exit_status", [
    ("POST /files", 401, 3), ("POST /batches", 403, 3),
    ("POST /files", 413, 1), ("POST /batches", 400, 1)])
def test_a_refusal_ends_the_run_until_the_next(run, router, job, path,
                                               status, exit_status):
    router.order(path, status=status)
    assert run(*job.argv()).exit_status == exit_status
    assert run(*job.argv()).exit_status == 0
    assert job.done() == "abcd"
    check_made_once(router, 1)


@pytest.mark.parametrize("path", ["POST /files", "POST /batches"])
@pytest.mark.parametrize("fault", [
    {"drop": "after"}, {"drop": "after", "after_acting": True},
    {"drop": "after", "after_acting": True, "reset": True},
    {"status": 502, "after_acting": True}, {"status": 500},
    {"cut": 5, "after_acting": True}, {"status": 503},
    {"times": 2, "drop": "after", "after_acting": True},
    {"times": 2, "status": 502}])
def test_a_lost_answer_makes_nothing_twice(run, router, job, path, fault):
    router.order(path, **fault)
    shown = run(*job.argv("--split", "--max-requests", "2"))
    assert shown.exit_status == 0, shown
    check_made_once(router, 2)
    assert job.done() == "abcd"


@pytest.mark.parametrize("path", ["POST /files", "POST /batches"])
def test_answers_that_stay_lost_are_looked_up_later(run, router, job, path):
    router.order(path, drop="after", after_acting=True)
    router.order("GET /files", times=None, status=500)
    router.order("GET /batches", times=None, status=500)
    shown = run(*job.argv())
    assert shown.exit_status in (1, 5), shown
    router.orders.clear()
    assert run(*job.argv()).exit_status == 0
    check_made_once(router, 1)


@pytest.mark.parametrize("path", ["POST /files", "POST /batches"])
@pytest.mark.parametrize("body", [b"{}", b'{"id": ""}', b"[]", b"<html>"])
def test_an_answer_without_an_id_makes_nothing_twice(run, router, job, path,
                                                     body):
    router.order(path, body=body, after_acting=True)
    shown = run(*job.argv())
    assert shown.exit_status == 1 and "internal" not in shown.stderr
    assert run(*job.argv()).exit_status == 0
    check_made_once(router, 1)


# == accounts ================================================================

def good(custom_id, text="fine"):
    return {"id": "r", "custom_id": custom_id, "error": None, "response": {
        "status_code": 200, "request_id": "q", "body": {"choices": [
            {"message": {"content": text}}], "usage": {"total_tokens": 3}}}}


def bad(custom_id):
    return {"id": "r", "custom_id": custom_id, "response": None,
            "error": {"code": "bad", "message": "It was bad."}}


def refused(custom_id):
    return {"id": "r", "custom_id": custom_id, "error": None, "response": {
        "status_code": 400, "body": {"error": {"message": "no"}}}}


ABC = as_lines(map(good, "abc"))
A, B, C = (as_lines([good(each)]) for each in "abc")

# Kind: the output, the errors, the ids in OUT, and what is told of them.
LIES = {
    "missing": (A + B, None, "ab", "1 x no result"),
    "all missing": (b"", None, "", "3 x no result"),
    "unknown": (ABC + as_lines([good("z")]), None, "abc",
                "custom_id 'z'"),
    "unknown in errors": (ABC, as_lines([bad("z")]), "abc",
                          "custom_id 'z'"),
    "repeated": (ABC + B, None, "abc", "custom_id 'b'"),
    "repeated, first bad": (as_lines([bad("b")]) + ABC, None, "ac",
                            "custom_id 'b'"),
    "repeated in both": (ABC, as_lines([bad("b")]), "abc",
                         "custom_id 'b'"),
    "repeated in errors": (A + B, as_lines([bad("c"), bad("c")]), "ab",
                           "custom_id 'c'"),
    "torn": (A + B + C[:-20], None, "ab", "line 3: "),
    "torn between": (A + B[:30] + b"\n" + C, None, "ac",
                     "line 2: "),
    "two in a line": (A + B[:-1] + C, None, "a", "line 2: "),
    "no JSON": (ABC + b"oops\n", None, "abc", "line 4: "),
    "HTML": (b"<html>\n" + ABC, None, "abc", "line 1: "),
    "too deep": (b"[" * 99999 + b"\n" + ABC, None, "abc",
                 "line 1: "),
    "not UTF-8": (ABC + C.replace(b"fine", b"\xff"), None, "abc",
                  "line 4: "),
    "NUL": (b"\0\0\0\n" + ABC, None, "abc", "line 1: "),
    "a list": (ABC + b"[1]\n", None, "abc", "custom_id None"),
    "a text": (ABC + b'"a"\n', None, "abc", "custom_id None"),
    "null": (ABC + b"null\n", None, "abc", "custom_id None"),
    "a number": (b"7\n" + ABC, None, "abc", "custom_id None"),
    "id a number": (ABC + as_lines([good(7)]), None, "abc",
                    "custom_id None"),
    "id a list": (A + B + as_lines([good(["c"])]), None, "ab",
                  "custom_id None"),
    "id an object": (A + B + as_lines([good({"c": 1})]), None, "ab",
                     "custom_id None"),
    "id null": (A + B + as_lines([good(None)]), None, "ab", "custom_id None"),
    "no id": (A + B + b"{}\n", None, "ab", "1 x no result"),
    "id in capitals": (A + B + as_lines([good("C")]), None, "ab",
                       "custom_id 'C'"),
}


@pytest.mark.parametrize("kind", LIES)
def test_a_lie_in_the_files_is_told(run, router, job, kind):
    job.fill("abc")
    output, errors, done, told = LIES[kind]
    router.batch_plan(output=output, errors=errors)
    shown = run(*job.argv("-o", "json"))
    assert shown.exit_status == 1, shown
    assert job.done() == done
    assert job.failed() == "".join(sorted(set("abc") - set(done)))
    assert told in shown.stderr
    summary = json.loads(shown)
    assert summary["done"] == len(done)
    assert summary["failed"] == 3 - len(done)
    assert job.names() == SPARE | FINISHED


# Kind: the output, and each line that is kept: its id, its code, its text.
KEPT = {
    "torn": (A + B[:60] + b"\n" + C, [("b", "unreadable", B[:60])]),
    "torn at the end": (A + B + C[:-20], [("c", "unreadable", C[:-20])]),
    "torn, then whole": (A + B[:60] + b"\n" + B + C,
                         [(None, "unreadable", B[:60])]),
    "torn twice": (A + 2 * (B[:60] + b"\n") + C, [
        ("b", "unreadable", B[:60]), (None, "unreadable", B[:60])]),
    "torn before the id": (A + b'{"id": "r", "cus\n' + C, [
        ("b", "missing", None),
        (None, "unreadable", b'{"id": "r", "cus')]),
    "torn, of nobody": (ABC + b'{"custom_id" :"z","re\n', [
        (None, "unreadable", b'{"custom_id" :"z","re')]),
    "no UTF-8": (A + B + C.replace(b"fine", b"\xff\r"),
                 [("c", "unreadable", C[:-1].replace(b"fine", b"\\xff\r"))]),
    "twice the same": (ABC + b"oops\noops\r\n", 2 * [
        (None, "unreadable", b"oops")]),
    "unknown": (ABC + as_lines([good("z")]), [
        (None, "unexpected", as_lines([good("z")])[:-1])]),
    "repeated": (ABC + as_lines([good("b", "more")]), [
        (None, "unexpected", as_lines([good("b", "more")])[:-1])]),
}


@pytest.mark.parametrize("kind", KEPT)
def test_what_was_paid_for_is_kept(run, router, job, kind):
    """Word for word; an id stands once, in the output or the errors."""
    job.fill("abc")
    output, kept = KEPT[kind]
    router.batch_plan(output=output)
    shown = run(*job.argv("-o", "json"))
    assert shown.exit_status == 1, shown
    assert sorted(job.done() + job.failed()) == list("abc")
    assert [(each["custom_id"], each["error"]["code"],
             each["error"].get("line", "").encode("utf-8") or None)
            for each in read_lines(job.errors)] == kept
    assert json.loads(shown)["errors_file"] == job.errors
    assert all(each["response"] is None for each in read_lines(job.errors))
    assert shown.stderr.count(" output file, line ") == sum(
        text is not None for *_, text in kept)


@pytest.mark.parametrize("lost", ["the last step", "the journal"])
def test_what_is_kept_is_there_once_after_a_kill(run, router, job, lost):
    """The batch that has ended is accounted for twice."""
    router.batch_plan(output=A + B + C[:-30] + b"\noops\n" + B)
    argv = job.argv("--split", "--max-requests", "3")
    gate = stopped(run, router, job, *argv[-3:])
    until(lambda: next(iter(router.batches.values()))["status"] == "completed")
    assert run(*argv, "--wait-timeout", "4").exit_status == 8
    with open(job.state) as source:
        state = json.load(source)
    assert [part["is_done"] for part in state["parts"]] == [True, False]
    if lost == "the journal":
        os.unlink(job.journal)
    state["parts"][0]["is_done"] = False
    del state["seal"]
    state["seal"] = xeroctl.digest_of(state)
    job.write(json.dumps(state).encode(), "out.jsonl.state.json")
    gate.set()
    assert run(*argv).exit_status == 1
    assert (job.done(), job.failed()) == ("abd", "c")
    assert job.spare() == [
        ("unreadable", C[:-30].decode()), ("unreadable", "oops"),
        ("unexpected", B[:-1].decode())]


@pytest.mark.parametrize("data", [
    b"<!DOCTYPE html><title>Sign in</title>", b'{"error": "expired"}'])
def test_a_page_or_an_error_is_no_result(run, router, job, data):
    router.order("GET /content", body=data)
    shown = run(*job.argv())
    assert shown.exit_status == 1 and "answered with an " in shown.stderr
    assert job.names() == {"in.jsonl", "out.jsonl.state.json",
                           "out.jsonl.journal.jsonl"}
    assert run(*job.argv()).exit_status == 0 and job.done() == "abcd"
    check_made_once(router, 1)


def test_a_byte_order_mark_is_borne(run, router, job):
    job.fill("abc")
    router.batch_plan(output=b"\xef\xbb\xbf" + ABC)
    assert run(*job.argv()).exit_status == 0
    assert job.read() == ABC


def test_a_number_that_is_no_json_costs_no_answer(run, router, job):
    """It stands as null; the other lines stay as they were."""
    job.fill("abc")
    odd = B.replace(b'"usage"', b'"logprobs": [NaN, -Infinity], "usage"')
    router.batch_plan(output=A + odd + C)
    assert json.loads(run(*job.argv("-o", "json")))["tokens"] == 9
    first, second, third = job.read().splitlines(True)
    assert (first, third) == (A, C)
    assert json.loads(second.decode())["response"]["body"]["logprobs"] == [
        None, None]


def test_a_body_that_is_a_text_tells_of_its_tokens(run, router, job):
    job.fill("ab")
    text = good("a")
    text["response"]["body"] = json.dumps(text["response"]["body"])
    torn = good("b")
    torn["response"]["body"] = '{"usage": '
    router.batch_plan(output=as_lines([text, torn]))
    assert json.loads(run(*job.argv("-o", "json")))["tokens"] == 3


@pytest.mark.parametrize("about, told", [
    ({"errors": {"object": "list", "data": [{"message": "bad", "line": 2}]}},
     "line 2: bad"),
    ({"errors": [{"message": "bad", "code": "c"}, "worse"]}, "bad (c)"),
    ({"errors": ["bad", {"error": {"message": "worse"}}]}, "worse"),
    ({"errors": "bad"}, "bad"), ({"errors": {"message": "bad"}}, "bad"),
    ({"error": {"message": "bad", "code": "c"}}, "bad (c)"),
    ({"error": "bad"}, "bad"),
    ({"errors": {"object": "list", "data": []}, "error": "bad"}, "bad")])
def test_a_batch_says_why_it_failed_wherever_it_does(run, router, job, about,
                                                     told):
    router.order("GET /batches/batch_1", times=None, body=json.dumps(dict(
        {"id": "batch_1", "status": "failed"}, **about)).encode())
    for shown in run(*job.argv()), run("batches", "batch_1", "--endpoint",
                                       "demo", "--wait"):
        assert shown.exit_status == 1
        assert f"  {told}\n" in shown.stderr, shown
    assert f"  {told}\n" in run("batches", "batch_1", "--endpoint", "demo")


# What is odd, but no lie: the output, the errors and the ids in OUT.
ODD = {
    "errors among the output": (A + as_lines([bad("b")]) + C, None, "ac"),
    "a refusal without an error": (A + as_lines([refused("b")]) + C, None,
                                   "ac"),
    "success among the errors": (A + C, B, "ac"),
    "errors alone": (None, as_lines(map(bad, "bca")), ""),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_error_is_one_wherever_it_stands(run, router, job, kind):
    job.fill("abc")
    output, errors, done = ODD[kind]
    router.batch_plan(output=output or b"", errors=errors or b"")
    shown = run(*job.argv("-o", "json"))
    assert shown.exit_status == 1
    assert job.done() == done
    assert job.failed() == "".join(sorted(set("abc") - set(done)))
    assert json.loads(shown)["problems"] == []


@pytest.mark.parametrize("output", [
    A + B + C[:-1], ABC.replace(b"\n", b"\r\n"),
    as_lines(map(good, "cab")), ABC.replace(b": ", b" \t: "),
    b"  " + ABC, ABC.replace(b'"custom_id"', b'"custom\\u005fid"')])
def test_what_only_looks_odd_is_no_lie(run, router, job, output):
    job.fill("abc")
    router.batch_plan(output=output)
    shown = run(*job.argv())
    assert shown.exit_status == 0, shown
    assert job.done() == "abc"
    assert job.read().count(b"\n") == 3 and b"\r" not in job.read()


def test_results_come_out_as_they_were(run, router, job):
    """Key order, numbers, escapes and unknown fields are the server's."""
    line = (b'{"z":1.10,"custom_id":"a","big":12345678901234567890123,'
            b'"text":"\\u00e9 \\ud800 \xc3\xa9","response":{"status_code":'
            b'200,"body":{"choices":[{"message":{"content":"a"}}]}},'
            b'"result":{"line":1}}')
    job.fill("a")
    router.batch_plan(output=line + b"\n")
    assert run(*job.argv()).exit_status == 0
    assert job.read() == line + b"\n"


def test_lies_of_each_batch_are_told_with_its_name(run, router, job):
    router.batch_plan(output=A)
    router.batch_plan(output=B + C)
    shown = run(*job.argv("--split", "--max-requests", "2"))
    assert shown.exit_status == 1
    assert "1 x no result: batch_1 is completed" in shown.stderr
    assert "1 x no result: batch_2 is completed" in shown.stderr
    assert ("1 x batch_2, output file, line 1: nobody waits for custom_id"
            " 'b'") in shown.stderr
    assert (job.done(), job.failed()) == ("ac", "bd")


def test_odd_ids_are_told_apart(run, router, job):
    ids = ["é", "e\u0301", " a", "a", "a ", "\n", "1", "0" * 600]
    job.fill(ids)
    assert run(*job.argv()).exit_status == 0
    found = [each["custom_id"] for each in read_lines(job.output)]
    assert found == ids


@pytest.mark.parametrize("direct", [[], ["--direct"]])
def test_an_id_may_hold_what_utf8_lacks(run, router, job, direct):
    """It is told in the state and in the errors, and breaks neither."""
    job.fill(["a", "\ud800"])
    router.batch_plan(output=A)
    router.order(SAY, when=lambda seen: b"say a" not in seen.body,
                 status=400)
    shown = run(*job.argv(*direct))
    assert shown.exit_status == 1 and "internal" not in shown.stderr
    assert job.done() == "a" and len(read_lines(job.errors)) == 1


def test_a_control_character_in_an_id_is_shown_in_a_report(run, router, job):
    job.fill("abc")
    router.batch_plan(output=ABC + as_lines([good("\n\x1b[31m")]))
    shown = run(*job.argv())
    line, = [line for line in shown.stderr.splitlines() if "waits" in line]
    assert "\\n" in line


# == a run that is killed ====================================================

EVENTS = ("http.client.send", "os.rename", "os.remove", "open")


def die_at(moment, folder):
    """Have this process killed at a moment, counted in events."""
    left = [moment]

    def hook(event, args):
        if event in EVENTS and (event != "open"
                                or folder in str(args[0])):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)


def forked(argv, environ, folder, moment):
    """A whole run, in a process that is a fork; return its exit status."""
    if moment:
        die_at(moment, folder)
    streams = xeroctl.Streams(text_stream(), text_stream(), text_stream())
    return xeroctl.main(argv, environ, streams, FakeClock())


def serve_forks():
    """Start runs as they are asked for; tell their pids and their ends."""
    for order in map(json.loads, sys.stdin):
        child = os.fork()
        if not child:
            os._exit(forked(**order))
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


class Forks:
    """Runs in processes that start fast, with a clock that leaps."""

    def __init__(self, process):
        self.process = process

    def start(self, router, job, *more, moment=None):
        order = {"argv": job.argv(*more), "environ": environment(router),
                 "folder": job.folder, "moment": moment}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self):
        """The exit status of the run; minus the signal that killed it."""
        status = int(self.process.stdout.readline())
        return (-os.WTERMSIG(status) if os.WIFSIGNALED(status)
                else os.WEXITSTATUS(status))

    def run(self, *given, **more):
        self.start(*given, **more)
        return self.wait()


@pytest.fixture(scope="module")
def forks():
    if not hasattr(os, "fork") or not hasattr(sys, "addaudithook"):
        pytest.skip("needs fork and audit hooks")
    process = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, universal_newlines=True,
        env={"PYTHONPATH": ROOT})
    yield Forks(process)
    process.stdin.close()
    process.wait()
    process.stdout.close()


def check_answers(job, moment=None):
    assert job.answers() == [(each, answer_to("say " + each))
                             for each in EXPECTED], moment


def check_undisturbed(job, moment=None):
    check_answers(job, moment)
    assert job.names() == SPARE, moment


PARTS = "--split", "--max-requests", "3", "--retry-failed", "1"
ONE_BY_ONE = "--direct", "--concurrency", "1", "--retry-failed", "1"


def plan_for_kills(router):
    """Two batches, the first of which has two failures to send again."""
    del router.store.plans[:]
    router.batch_plan(fail_lines=dict.fromkeys(
        ["b", "c", "row-2", "row-3"], 500))


def go_on(forks, router, job, words, moment):
    """The same command again; of a run that had ended nothing is left."""
    had_ended = os.path.exists(job.output) and not os.path.exists(job.state)
    count = len(router.requests)
    assert forks.run(router, job, *words) == 2 * had_ended, moment
    assert not had_ended or len(router.requests) == count


EXPECTED = "abcde"


def kills(tmp_path, kind, first, step):
    """A fresh job for each of the moments at which a run is killed."""
    for moment in itertools.count(first, step):
        folder = tmp_path / str(moment)
        folder.mkdir()
        yield moment, kind(folder)


@pytest.fixture
def step(is_full):
    """Of so many moments one is taken."""
    return 1 if is_full else 40


def finished_lines(job):
    """The ids of the lines whose results a killed run has kept."""
    if not os.path.exists(job.journal):
        return []
    records = [line for line in job.read(job.journal).splitlines(True)[1:]
               if line.endswith(b"\n")]
    return [json.loads(record.decode())["result"]["custom_id"]
            for record in records]


def test_a_run_may_be_killed_again_and_again(forks, router, job):
    plan_for_kills(router)
    job.fill(EXPECTED)
    for moment in itertools.count(12, 2):
        had_ended = (os.path.exists(job.output)
                     and not os.path.exists(job.state))
        status = forks.run(router, job, *PARTS, moment=moment)
        if status != -signal.SIGKILL:
            break
    assert status == 2 * had_ended
    check_undisturbed(job)
    check_made_once(router, 3)


def die_in_request(forks, router, job, match, *words, when=None, **fault):
    """Kill a run while the router keeps it waiting for an answer."""
    router.order(match, when=when, hang=True, **fault)
    child = forks.start(router, job, *words)
    try:
        until(lambda: not router.orders)
        method, _, suffix = match.partition(" ")
        until(lambda: router.seen(method, suffix))
    finally:
        os.kill(child, signal.SIGKILL)
    assert forks.wait() == -signal.SIGKILL


def test_a_download_that_was_killed_goes_on_where_it_was(forks, router, job):
    output = as_lines(good(each, "x" * 100000) for each in "bca")
    job.fill("abc")
    router.batch_plan(output=output)
    router.order("GET /content", gate=(2, threading.Event()))
    child = forks.start(router, job)
    try:
        until(lambda: any(name.endswith(".part") and os.path.getsize(
            job.path(name)) >= 1 << 16 for name in job.names()
            if "xeroctl-" in name))
    finally:
        os.kill(child, signal.SIGKILL)
    assert forks.wait() == -signal.SIGKILL
    assert forks.run(router, job) == 0
    seen = router.seen("GET", "/content")
    assert seen[-1].headers["Range"].startswith("bytes=")
    assert seen[-1].headers["Range"] != "bytes=0-"
    assert [text for _, text in job.answers()] == ["x" * 100000] * 3
    assert job.done() == "abc" and job.names() == SPARE


@pytest.mark.parametrize("acting", [False, True])
def test_a_direct_run_may_be_killed_in_a_request(forks, router, job, acting):
    ids = "abcdef"
    job.fill(ids)
    router.order(SAY, when=asks_for("c"), hang=True, after_acting=acting)
    child = forks.start(router, job, "--direct", "--concurrency", "3")
    try:
        until(lambda: set(finished_lines(job)) == set("abdef"))
    finally:
        os.kill(child, signal.SIGKILL)
    assert forks.wait() == -signal.SIGKILL
    assert forks.run(router, job, "--direct", "--concurrency", "3") == 0
    assert dict(lines_sent(router)) == dict(dict.fromkeys(ids, 1), c=2)
    assert job.done() == ids and job.names() == SPARE


def kept(job):
    """What a run has on disk beside its input.

    It may be about to put a file in the place of another: look again.
    """
    while True:
        with contextlib.suppress(FileNotFoundError):
            return {name: job.read(name)
                    for name in job.names() - {"in.jsonl"}}


def stop_before_the_end(run, router, job):
    """A direct run that is refused its last line; what it leaves."""
    router.order(SAY, when=asks_for("d"), status=401)
    shown = run(*job.argv("--direct", "--concurrency", "1"))
    assert shown.exit_status == 3
    assert finished_lines(job) == list("abc")


@pytest.mark.parametrize("cut", [1, 2, 30, 200])
def test_a_torn_last_line_of_the_journal_is_sent_again(run, router, job,
                                                       cut):
    stop_before_the_end(run, router, job)
    job.write(job.read(job.journal)[:-cut], job.journal)
    stop_before_the_end(run, router, job)
    shown = run(*job.argv("--direct"))
    assert shown.exit_status == 0, shown
    assert dict(lines_sent(router)) == {"a": 1, "b": 1, "c": 2, "d": 3}
    assert job.done() == "abcd" and job.names() == SPARE


@pytest.mark.parametrize("more", [b"\0" * 4096, b'{"line":', b"oops\n",
                                  b'{"line":99,"ok":true,"round":0,'
                                  b'"tokens":0,"result":{}}\n'])
def test_what_is_no_record_of_the_journal_is_passed_over(run, router, job,
                                                         more):
    stop_before_the_end(run, router, job)
    job.write(job.read(job.journal) + more, job.journal)
    assert run(*job.argv("--direct")).exit_status == 0
    assert dict(lines_sent(router)) == {"a": 1, "b": 1, "c": 1, "d": 2}
    assert [each for each, _ in job.answers()] == list("abcd")


@pytest.mark.parametrize("data", [None, b"", b"\0" * 99, b'{"run":"x"}\n'])
def test_a_journal_that_is_lost_is_written_anew(run, router, job, data):
    stop_before_the_end(run, router, job)
    os.unlink(job.journal)
    if data is not None:
        job.write(data, job.journal)
    assert run(*job.argv("--direct")).exit_status == 0
    assert job.done() == "abcd" and job.names() == SPARE


@pytest.mark.parametrize("data", [None, b"", b'{"run":"x"}\n'])
def test_a_lost_journal_makes_no_batch_twice(run, router, job, data):
    gate = stopped(run, router, job)
    gate.set()
    os.unlink(job.journal)
    if data is not None:
        job.write(data, job.journal)
    assert run(*job.argv()).exit_status == 0
    assert job.done() == "abcd" and job.names() == SPARE
    check_made_once(router, 1)


def test_a_journal_whose_state_is_lost_is_gone_on_with(run, router, job):
    """What was answered is paid for, and of the same requests."""
    stop_before_the_end(run, router, job)
    os.unlink(job.state)
    del router.requests[:]
    assert run(*job.argv("--direct")).exit_status == 0
    assert dict(lines_sent(router)) == {"d": 1}
    assert job.done() == "abcd" and job.names() == SPARE


@pytest.mark.parametrize("direct", [[], ["--direct"]])
def test_a_kill_between_the_last_two_steps_does_no_harm(run, router, job,
                                                        direct):
    """Output there, state not yet gone: the same command ends it."""
    job.fill("abc")
    left, gate = {}, threading.Event()
    router.batch_plan(output=ABC)
    router.order("GET /content" if not direct else SAY, gate=(0, gate),
                 when=None if not direct else asks_for("c"))

    def keep():
        until(lambda: router.seen("GET", "/content") or
              len(finished_lines(job)) == 2)
        left.update(kept(job))
        gate.set()
    with meanwhile(keep, gate):
        assert run(*job.argv(*direct)).exit_status == 0
    before, count = job.read(), len(posted(router))
    for name in "out.jsonl.state.json", "out.jsonl.journal.jsonl":
        job.write(left[name], name)
    assert run(*job.argv(*direct)).exit_status == 0
    assert len(posted(router)) == count + len(direct)
    assert len(job.read().splitlines()) == len(before.splitlines())
    assert job.done() == "abc" and job.names() == SPARE


def test_tokens_of_a_resumed_run_are_those_of_an_undisturbed_one(run, router,
                                                                 job):
    job.fill("abc")
    router.batch_plan(output=A + B, errors=as_lines([bad("c")]))
    errors = []
    router.order("GET /content", status=403,
                 when=lambda seen: errors.append(seen) or len(errors) == 2)
    assert run(*job.argv()).exit_status == 3
    shown = run(*job.argv("-o", "json"))
    assert json.loads(shown)["tokens"] == 6
    check_made_once(router, 1)


@sampled(0, 1)
@pytest.mark.parametrize("python, number, status", [
    (INTERPRETERS[0], signal.SIGINT, 130),
    (INTERPRETERS[-1], signal.SIGKILL, -signal.SIGKILL),
    (INTERPRETERS[-1], signal.SIGTERM, 143)],
    ids=["SIGINT", "SIGKILL", "SIGTERM"], indirect=["python"])
def test_a_direct_run_is_left_by_a_signal_and_goes_on(start, router, job,
                                                      number, status):
    router.order(SAY, when=asks_for("b"), hang=True)
    process = start(*job.argv("--direct", "--concurrency", "2"))
    until(lambda: len(finished_lines(job)) == 3 and lines_sent(router)["b"])
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=10)
    assert process.returncode == status and stdout == b""
    assert b"Traceback" not in stderr and b"internal" not in stderr
    again = start(*job.argv("--direct"))
    again.communicate(timeout=10)
    assert again.returncode == 0 and job.done() == "abcd"
    assert dict(lines_sent(router)) == {"a": 1, "b": 2, "c": 1, "d": 1}
    assert job.names() == SPARE


# == line by line ============================================================

@pytest.mark.parametrize("words, count", [
    ([], 8), (["--concurrency", "1"], 1), (["--concurrency", "3"], 3),
    (["--concurrency", "99"], 20)])
def test_so_many_requests_are_under_way_at_once(run, router, job, words,
                                                count):
    job.fill("abcdefghijklmnopqrst")
    gate, most = threading.Event(), []
    router.order(SAY, times=None, gate=(0, gate))

    def look():
        until(lambda: len(posted(router)) == count)
        time.sleep(0.02)
        most.append(len(posted(router)))
        gate.set()
    with meanwhile(look, gate):
        shown = run(*job.argv("--direct", *words))
    assert shown.exit_status == 0 and most == [count]
    assert len(posted(router)) == 20 and job.done() == "abcdefghijklmnopqrst"


class HeldClock(FakeClock):
    """Time stands still while it is held, and sleepers are counted."""

    def __init__(self):
        super().__init__()
        self.sleepers, self.released = set(), threading.Event()

    def sleep(self, seconds):
        self.sleepers.add(threading.current_thread())
        assert self.released.wait(10)
        super().sleep(seconds)


class TestPace:
    """All workers are slowed by what one of them is told."""

    @pytest.fixture
    def clock(self):
        return HeldClock()

    @pytest.mark.parametrize("fault", [
        {"status": 429, "retry_after": 20},
        {"status": 503, "retry_after": 20},
        {"status": 503, "retry_after": "20"}])
    def test_all_wait_as_long_as_the_server_asks(self, run, router, job,
                                                 clock, fault):
        job.fill("abcdefghi")
        at, told, gate = [], threading.Event(), threading.Event()
        router.order(SAY, times=None,
                     when=lambda seen: at.append(clock.at) and False)
        router.order(SAY, gate=(0, told), **fault)
        router.order(SAY, times=3, gate=(0, gate))

        def let_them_come():
            until(lambda: len(at) == 4)
            told.set()
            until(lambda: clock.sleepers)
            gate.set()
            until(lambda: len(clock.sleepers) == 4)
            assert len(at) == 4
            clock.released.set()
        with meanwhile(let_them_come, told, gate, clock.released):
            shown = run(*job.argv("--direct", "--concurrency", "4"))
        assert shown.exit_status == 0, shown
        assert at[:4] == [0] * 4 and len(at) == 10
        assert all(moment >= 20 for moment in at[4:])
        assert "all wait 20" in shown.stderr
        assert max(lines_sent(router).values()) == 2

    def test_a_wait_of_hours_is_not_slept_through(self, run, router, job,
                                                  clock):
        clock.released.set()
        router.order(SAY, times=None, status=429, retry_after=3600)
        shown = run(*job.argv("--direct"))
        assert shown.exit_status == 6 and os.path.exists(job.state)
        assert clock.at == 0


def test_a_refused_pace_is_slowed_more_each_time(run, router, job, clock):
    router.order(SAY, times=4, status=429)
    assert run(*job.argv("--direct", "--concurrency",
                         "1")).exit_status == 0
    assert 0.5 + 1 + 2 + 4 <= clock.at < 10
    assert job.done() == "abcd"


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_stays_busy_ends_the_run(run, router, job, clock,
                                               status):
    router.order(SAY, times=None, status=status)
    shown = run(*job.argv("--direct", "--concurrency", "2"))
    assert shown.exit_status == 6 and 200 < clock.at < 2000
    router.orders.clear()
    assert run(*job.argv("--direct")).exit_status == 0
    assert job.done() == "abcd" and job.names() == SPARE


ENDINGS = [
    ({"status": 429, "code": "quota_exceeded"}, 6),
    ({"status": 429, "code": "insufficient_quota"}, 6),
    ({"status": 401}, 3),
    ({"status": 403}, 3),
    ({"status": 404, "code": "endpoint_not_found"}, 4),
]


@pytest.mark.parametrize("fault, exit_status", ENDINGS)
def test_what_every_line_would_meet_ends_the_run(run, router, job, clock,
                                                 fault, exit_status):
    router.order(SAY, when=asks_for("c"), **fault)
    shown = run(*job.argv("--direct", "--concurrency", "1"))
    assert shown.exit_status == exit_status and shown == "", shown
    assert clock.at == 0
    assert finished_lines(job)[:2] == ["a", "b"]
    assert not os.path.exists(job.output)
    assert run(*job.argv("--direct")).exit_status == 0
    sent = lines_sent(router)
    assert sent["a"] == sent["b"] == 1 and sent["c"] == 2
    assert job.done() == "abcd" and job.names() == SPARE


@sampled(0, 4)
@pytest.mark.parametrize("fault, exit_status", ENDINGS)
def test_what_is_answered_while_a_run_ends_is_kept(run, router, job, fault,
                                                   exit_status):
    """It was paid for, so the next call does not send it again."""
    job.fill("abcdefgh")
    router.order(SAY, when=asks_for("c"), **fault)
    router.order(SAY, times=3, delay=0.05, when=lambda seen: any(
        asks_for(each)(seen) for each in "abd"))
    shown = run(*job.argv("--direct", "--concurrency", "4"))
    assert shown.exit_status == exit_status
    assert run(*job.argv("--direct")).exit_status == 0
    assert dict(lines_sent(router), c=1) == dict.fromkeys("abcdefgh", 1)


LINE_FAILURES = [
    ({"status": 500}, 500),
    ({"status": 502}, 502),
    ({"status": 400, "message": "No.", "code": "bad"}, 400),
    ({"status": 404, "code": "model_not_found"}, 404),
    ({"status": 422}, 422),
    ({"drop": "after"}, None),
    ({"drop": "after", "after_acting": True, "reset": True}, None),
    ({"cut": 20}, None),
    ({"html": True}, None),
    ({"body": b"no JSON"}, None),
    ({"body": b""}, None),
    ({"body": b"[" * 99999}, None),
    ({"status": 500, "html": True}, 500),
    ({"redirect": "/elsewhere"}, None),
]


@pytest.mark.parametrize("fault, status", LINE_FAILURES)
def test_a_line_that_fails_is_sent_once_and_told(run, router, job, fault,
                                                 status):
    router.order(SAY, when=asks_for("b"), **fault)
    shown = run(*job.argv("--direct"))
    assert shown.exit_status == 1, shown
    assert dict(lines_sent(router)) == dict.fromkeys("abcd", 1)
    assert (job.done(), job.failed()) == ("acd", "b")
    result, = read_lines(job.errors)
    assert result["error"]["code"] and result["error"]["message"]
    assert (result["response"] or {}).get("status_code") == status
    assert set(result) == {"id", "custom_id", "response", "error"}


@pytest.mark.parametrize("fault", [{"status": 500}, {"drop": "after"},
                                   {"html": True}])
def test_only_what_failed_is_sent_again(run, router, job, fault):
    for custom_id, times in ("b", 1), ("d", 2):
        router.order(SAY, when=asks_for(custom_id), times=times, **fault)
    shown = run(*job.argv("--direct", "--retry-failed", "2"))
    assert shown.exit_status == 0, shown
    assert dict(lines_sent(router)) == {"a": 1, "b": 2, "c": 1, "d": 3}
    assert job.done() == "abcd" and job.names() == SPARE


def test_a_server_that_is_not_there_ends_the_run(run, job):
    shown = run(*job.argv("--direct", "--base-url", "http://127.0.0.1:9/p/v1",
                          "--api-key", "k"))
    assert shown.exit_status == 5 and os.path.exists(job.state)
    assert not os.path.exists(job.output)


def test_results_have_the_format_of_the_batch_api(run, router, job):
    run(*job.argv("--direct"))
    for custom_id, result in zip("abcd", read_lines(job.output)):
        assert list(result) == ["id", "custom_id", "response", "error"]
        assert result["custom_id"] == custom_id and result["error"] is None
        assert list(result["response"]) == ["status_code", "request_id",
                                            "body"]
        assert result["response"]["status_code"] == 200
        assert result["response"]["body"]["object"] == "chat.completion"
    told = {each["response"]["request_id"]
            for each in read_lines(job.output)}
    assert told == {seen.request_id for seen in posted(router)}


def test_a_body_is_sent_as_it_stands_in_the_input(run, router, job):
    line = chat_line("a", temperature=0.10, x={"ü": [None, 12345678901234]})
    job.write(as_lines([line]))
    run(*job.argv("--direct", "--metadata", "k=v"))
    seen, = router.requests
    assert seen.json == line["body"]
    assert list(seen.json) == list(line["body"])
    assert seen.path == "/proj_demo/demo/v1/chat/completions"


@pytest.mark.parametrize("value", [True, 1, "yes"])
def test_a_stream_is_asked_for_as_a_whole(run, router, job, value):
    job.fill("ab", lambda each: chat_line(each, stream=value))
    assert run(*job.argv("--direct")).exit_status == 0
    assert [seen.json["stream"] for seen in posted(router)] == [False] * 2
    assert job.done() == "ab" and all(text for _, text in job.answers())


@pytest.mark.parametrize("stream", [
    {"stream": True}, {"stream": False}, {"stream": None}, {}])
def test_what_goes_with_a_stream_goes_with_it(run, router, job, stream):
    job.fill("a", lambda each: chat_line(each, stream_options={
        "include_usage": True}, **stream))
    assert run(*job.argv("--direct")).exit_status == 0
    seen, = posted(router)
    assert "stream_options" not in seen.json
    assert seen.json.get("stream", "-") == (
        False if stream.get("stream") else stream.get("stream", "-"))


def test_each_line_goes_to_its_own_url(run, router, job):
    job.write(as_lines([chat_line("a"), embedding_line("b"),
                        dict(chat_line("c"), url="/v1/none/such")]))
    shown = run(*job.argv("--direct"))
    assert shown.exit_status == 1
    assert (job.done(), job.failed()) == ("ab", "c")
    assert {seen.path for seen in posted(router)} == {
        "/proj_demo/demo" + url for url in
        (CHAT, EMBEDDINGS, "/v1/none/such")}
    first, second = read_lines(job.output)
    assert second["response"]["body"]["data"][0]["embedding"]


@pytest.mark.parametrize("url", [
    "http://127.0.0.1:9/v1/chat/completions", "//127.0.0.1:9/v1/x", "v1/x",
    "/v2/chat/completions", "/v1/../../../other/v1/chat/completions",
    "/v1/x\r\nHost: y", "/v1/x y", "/v1/x?a=b", "/v1/x#y", "/v1/é", "/v1/"])
def test_no_url_leaves_the_endpoint(run, router, job, url):
    job.write(as_lines([dict(chat_line("a"), url=url)]))
    shown = run(*job.argv("--direct"))
    assert shown.exit_status in (1, 2) and shown.count("Done:     1") == 0
    assert "internal error" not in shown.stderr
    for seen in router.requests:
        assert seen.path.startswith("/proj_demo/demo/v1/")
        assert ".." not in seen.path


def test_a_server_of_another_style_has_no_endpoint_in_its_paths(
        run, openai_router, job):
    argv = [word for word in job.argv("--direct", "--style", "openai")
            if word not in ("--endpoint", "demo")]
    shown = run(*argv, against=openai_router)
    assert shown.exit_status == 0, shown
    assert {seen.path for seen in openai_router.requests} == {CHAT}
    assert job.done() == "abcd"


def test_batches_run_with_another_style_too(run, openai_router, job):
    argv = [word for word in job.argv("--style", "openai")
            if word not in ("--endpoint", "demo")]
    assert run(*argv, against=openai_router).exit_status == 0
    assert openai_router.seen("POST", "/v1/files")
    assert all("demo" not in seen.path for seen in openai_router.requests)
    assert job.done() == "abcd"


@pytest.mark.parametrize("direct", [[], ["--direct"]])
def test_quiet_is_quiet(run, router, job, direct):
    router.order(SAY, status=503)
    router.order("GET /batches/batch_1", status=503)
    shown = run(*job.argv("-q", *direct))
    assert shown.exit_status == 0 and shown.stderr == ""


@pytest.mark.parametrize("direct", [[], ["--direct"]])
@pytest.mark.parametrize("flag", ["--dry-run", "--curl"])
def test_a_dry_run_writes_nothing_and_sends_nothing(run, router, job, direct,
                                                    flag):
    shown = run(*job.argv(flag, *direct))
    assert shown.exit_status == 0, shown
    assert router.requests == [] and job.names() == {"in.jsonl"}
    assert router.key not in shown + shown.stderr
    assert shown.count("/chat/completions") >= 1
    assert ("/proj_demo/demo/v1/files" in shown) != bool(direct)


@pytest.mark.parametrize("direct", [[], ["--direct"]])
def test_a_dry_run_refuses_what_a_run_would(run, router, job, direct):
    job.write(b"oops\n")
    check_refused(run(*job.argv("--dry-run", *direct)), router, "line 1")


def test_concurrency_is_a_word_of_the_direct_form(run, router, job):
    check_refused(run(*job.argv("--concurrency", "2")), router, "--direct")
    for count in "0", "-1", "x", "1.5":
        check_refused(run(*job.argv("--direct", "--concurrency", count)),
                      router, "--concurrency")


if __name__ == "__main__":
    serve_forks()
