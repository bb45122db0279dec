"""The files of ours are looked into before they are believed, or replaced.

What has the name of a work file of ours and is somebody else's is not
touched but by force.  A power cut leaves holes in a journal and a state that
is empty: what is not whole does not count, and is not lost without a word.
"""

import json
import os

import pytest

from conftest import FakeClock, every_case
from test_runs import (SAY, asks_for, finished_lines, job, lines_sent,
                       read_lines, stop_before_the_end, stopped, uploads)

DIRECT = "--direct", "--concurrency", "1"
assert job  # a fixture


# == work files of somebody else =============================================

COMMANDS = {
    "a file": ("files", "file-1", "--download", "{}/x"),
    "a folder": ("files", "file-1", "--download", "{}"),
    "results": ("batches", "batch_1", "--endpoint", "demo", "--download",
                "--output-file", "{}/x"),
    "an export": ("exports", "download", "exp_1", "--output-file", "{}/x"),
    "vectors": ("embeddings", "--endpoint", "demo", "--input", "a",
                "--output-file", "{}/x.jsonl"),
    "a run": ("batches", "run", "--endpoint", "demo", "--input",
              "{}/in.jsonl", "--output-file", "{}/x", "--direct"),
    "its errors": ("batches", "run", "--endpoint", "demo", "--input",
                   "{}/in.jsonl", "--output-file", "{}/y", "--errors-file",
                   "{}/x", "--direct"),
}
FOREIGN = {
    ".part": b"mine", ".part.json": b'{"url": "mine"}\n', "empty.part": b""}


@every_case
@pytest.mark.parametrize("end", FOREIGN)
@pytest.mark.parametrize("kind", COMMANDS)
def test_a_work_file_of_somebody_else_stays(run, router, job, kind, end):
    router.order("GET /file-1", times=None,
                 body=b'{"id": "file-1", "filename": "x"}')
    router.order("GET /batch_1", times=None, body=b'{"id": "batch_1", '
                 b'"status": "completed", "output_file_id": "file-1"}')
    for path in "GET /content", "GET /download":
        router.order(path, times=None, body=b"data\n")
    words = [word.format(job.folder) for word in COMMANDS[kind]]
    name = "x.jsonl" if kind == "vectors" else "x"
    name += end.replace("empty", "")
    job.write(FOREIGN[end], name)
    shown = run(*words)
    assert shown.exit_status == 2 and "--force" in shown.stderr, shown
    assert name in shown.stderr and job.read(name) == FOREIGN[end]
    assert job.names() == {"in.jsonl", name}
    assert not router.seen("POST", "*")
    assert run("--force", *words).exit_status == 0
    assert name not in job.names()


def test_a_link_under_our_name_leads_nowhere(run, router, job):
    """By force the link is replaced, not what it leads to."""
    job.write(b"precious", "mine")
    os.symlink("mine", job.path("x.part"))
    record = router.add_file("x", b"new")
    words = "files", record["id"], "--download", job.path("x")
    assert run(*words).exit_status == 2
    assert run(*words, "--force").exit_status == 0
    assert job.read("mine") == b"precious" and job.read("x") == b"new"


@pytest.mark.parametrize("data", [b"mine\n", b'{"mine": 1}\n', b"\0" * 99])
def test_a_journal_of_somebody_else_stays(run, router, job, data):
    job.write(data, "out.jsonl.journal.jsonl")
    shown = run(*job.argv(*DIRECT))
    assert shown.exit_status == 2 and "journal" in shown.stderr, shown
    assert job.read(job.journal) == data and router.requests == []
    assert run(*job.argv("--force", *DIRECT)).exit_status == 0


# == a journal with holes ====================================================

def holed(journal):
    """Of three records the second lost a block of its result."""
    head, first, second, third = journal.splitlines(True)
    at = second.index(b'"choices"')
    return b"".join([head, first, second[:at], b"\0" * 20, second[at + 20:],
                     third])


def between(journal):
    """A hole from one record into the next."""
    head, first, second, third = journal.splitlines(True)
    return b"".join([head, first[:-30] + b"\0" * 60 + second[30:], third])


def record(**members):
    """A record of the second line with other members, at the end."""
    def change(journal):
        raw = dict({"line": b"2", "ok": b"true", "round": b"0",
                    "tokens": b"0", "result": b"{}"}, **members)
        return journal.replace(b'{"line":2,', b'{"lost":2,') + (
            b'{"line":%(line)b,"ok":%(ok)b,"round":%(round)b,'
            b'"tokens":%(tokens)b,"result":%(result)b}\n' % {
                name.encode(): value for name, value in raw.items()})
    return change


HUGE = b"9" * 5000


@every_case
@pytest.mark.parametrize("change, lost", [
    (holed, "b"), (between, "ab"),
    (record(result=b"oops"), "b"), (record(result=b"7"), "b"),
    (record(result=b"[]"), "b"), (record(result=b"null"), "b"),
    (record(result=HUGE), "b"), (record(result=b'{"a":}'), "b"),
    (record(result=b"\0" * 40), "b"), (record(result=b'{"a":"\xff"}'), "b"),
    (record(line=HUGE), "b"), (record(tokens=HUGE), "b"),
    (record(round=HUGE), "b"), (record(round=b"254"), "b"),
    (record(ok=b"null"), "b"), (record(line=b'"2"'), "b")])
def test_a_record_counts_only_if_it_is_whole(run, router, job, change, lost):
    stop_before_the_end(run, router, job)
    job.write(change(job.read(job.journal)), job.journal)
    shown = run(*job.argv(*DIRECT))
    assert shown.exit_status == 0, shown
    assert job.done() == "abcd"
    assert dict(lines_sent(router)) == {
        each: 1 + (each in lost + "d") for each in "abcd"}


def test_tokens_beyond_all_floats_are_none(run, router, job):
    router.order(SAY, when=asks_for("a"), body=b'{"choices":[{"message":'
                 b'{"content":"x"}}],"usage":{"total_tokens":1%b}}'
                 % (b"0" * 290))
    stop_before_the_end(run, router, job)
    assert run(*job.argv(*DIRECT)).exit_status == 0
    assert dict(lines_sent(router), d=1) == dict.fromkeys("abcd", 1)


class Ticking(FakeClock):
    """A second goes by whenever somebody looks."""

    def monotonic(self):
        self.at += 1
        return self.at


@pytest.fixture
def clock():
    return Ticking()


def test_a_journal_is_synced_every_few_seconds(run, router, job, clock,
                                               monkeypatch):
    """What is on disk then is what a power cut cannot take."""
    synced = []

    def fsync(number):
        place = os.readlink(f"/proc/self/fd/{number}")
        if place == job.journal:
            synced.append((clock.at, os.fstat(number).st_size))
    monkeypatch.setattr(os, "fsync", fsync)
    job.fill([str(number) for number in range(40)])
    assert run(*job.argv(*DIRECT)).exit_status == 0
    assert len(synced) > 5
    assert all(later[0] - sooner[0] < 20 and later[1] >= sooner[1]
               for sooner, later in zip(synced, synced[1:]))


# == a state that is broken ==================================================

def without(name):
    def change(state):
        del state[name]
    return change


def having(**members):
    return lambda state: state.update(members)


def of_part(**members):
    return lambda state: state["parts"][0].update(members)


GARBLED = [b"", b"\0" * 4096, b"{", b'{"version": 1, "run"', b"[]", b"null",
           b"\xff", b"[" * 9999]
ODD = [without("run"), without("parts"), without("started"),
       having(run=5), having(run="../../x"), having(run=None),
       having(parts={}), having(parts=[5]), having(started="now"),
       having(started=10 ** 400)]
ODD_PARTS = [of_part(lines=5), of_part(lines=[5]), of_part(lines=[[1]]),
             of_part(lines=[[0, 4]]), of_part(lines=[[1, 10 ** 30]]),
             of_part(lines=[["1", 4]]), of_part(name="../x"),
             of_part(name=None), of_part(round=-1), of_part(round=254),
             of_part(batch=5), of_part(file=[]), of_part(making={}),
             of_part(is_done=None), of_part(problems=None),
             of_part(problems=[5])]


def broken_by(job, change):
    if isinstance(change, bytes):
        return job.write(change, job.state)
    with open(job.state) as source:
        state = json.load(source)
    change(state)
    job.write(json.dumps(state).encode(), job.state)


def check_told(shown, job):
    assert shown.exit_status == 2 and shown == "", shown
    assert "out.jsonl.state.json is broken" in shown.stderr
    assert "--force begins anew: what the journal has is kept" in shown.stderr


@every_case
@pytest.mark.parametrize("change", GARBLED + ODD)
def test_a_broken_state_costs_no_answer(run, router, job, change):
    stop_before_the_end(run, router, job)
    broken_by(job, change)
    before, kept = job.read(job.state), job.read(job.journal)
    check_told(run(*job.argv(*DIRECT)), job)
    assert (job.read(job.state), job.read(job.journal)) == (before, kept)
    assert run(*job.argv("--force", *DIRECT)).exit_status == 0
    assert dict(lines_sent(router)) == {"a": 1, "b": 1, "c": 1, "d": 2}
    assert job.done() == "abcd"


@every_case
@pytest.mark.parametrize("change", ODD_PARTS)
def test_an_odd_part_is_told_alike(run, router, job, change):
    stopped(run, router, job).set()
    broken_by(job, change)
    check_told(run(*job.argv()), job)
    assert run(*job.argv("--force")).exit_status == 0
    assert job.done() == "abcd" and len(uploads(router)) == 2


def test_what_batches_have_brought_is_kept_too(run, router, job):
    router.batch_plan()
    stopped(run, router, job, "--split", "--max-requests", "2").set()
    assert len(read_lines(job.journal)) == 3
    broken_by(job, b"")
    shown = run(*job.argv("--force"))
    assert shown.exit_status == 0 and job.done() == "abcd", shown
    assert len(uploads(router)) == 3
    assert [seen.json["metadata"]["xeroctl_run"][-2:]
            for seen in router.seen("POST", "/batches")] == ["-1", "-2", "-1"]


@pytest.mark.parametrize("words", [["--endpoint", "my-endpoint"], []])
def test_a_journal_of_something_else_is_not_taken(run, router, job, words):
    stop_before_the_end(run, router, job)
    broken_by(job, b"")
    if not words:
        job.fill("abce")
    assert run(*job.argv("--force", *DIRECT, *words)).exit_status == 0
    assert lines_sent(router)["a"] == 2
    assert job.done() == ("abcd" if words else "abce")


def test_a_state_that_tells_something_else_costs_no_answer(run, router, job):
    """Whose journal it is says its own head."""
    stop_before_the_end(run, router, job)
    broken_by(job, having(endpoint=None))
    assert "of another run" in run(*job.argv(*DIRECT)).stderr
    assert run(*job.argv("--force", *DIRECT)).exit_status == 0
    assert dict(lines_sent(router), d=1) == dict.fromkeys("abcd", 1)


def test_a_run_begun_by_force_goes_on_without(run, router, job):
    """The journal that was taken over is that of the new run by then."""
    stop_before_the_end(run, router, job)
    broken_by(job, b"")
    router.order(SAY, when=asks_for("d"), status=401)
    assert run(*job.argv("--force", *DIRECT)).exit_status == 3
    assert finished_lines(job) == list("abc")
    assert run(*job.argv(*DIRECT)).exit_status == 0
    assert dict(lines_sent(router)) == {"a": 1, "b": 1, "c": 1, "d": 3}
