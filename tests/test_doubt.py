"""A run in batches bears a server that is slow, odd, or gone for good.

What may have been made is looked up, whatever status said that it was not;
what has vanished fails its own lines; an end that contradicts itself is
looked at again; and one part's failure leaves no other part's results where
they are.
"""

import json

import pytest

from conftest import IS_FULL, costly, every_case
from test_runs import (EXPECTED, PARTS, Job, check_answers, check_made_once,
                       check_undisturbed, forks, go_on, job, kills, parts_of,
                       plan_for_kills, read_lines, runs, step, uploads)

TWO = "--split", "--max-requests", "2"
STATUSES = (400, 404, 408, 429, 500, 502, 503, 529) + IS_FULL * (
    401, 403, 405, 409, 410, 413, 418, 422, 425, 499, 501, 504, 507, 520)
PASSING = 408, 429
MADE = "POST /files", "POST /batches"
assert forks and job and step  # fixtures


def codes(job):
    return [(each["custom_id"], each["error"]["code"])
            for each in read_lines(job.errors)]


def vanish(router, batch_id="batch_1"):
    """From the first poll on a batch is not there, nor in any list."""
    def forget(seen):
        router.batches.pop(batch_id, None)
        return False
    router.order(f"GET /batches/{batch_id}", times=None, when=forget)


# == whether it was made =====================================================

@pytest.mark.parametrize("path", MADE)
def test_no_status_says_that_nothing_was_made(run, router, tmp_path, path):
    for status in STATUSES:
        (tmp_path / str(status)).mkdir()
        job = Job(tmp_path / str(status))
        router.files.clear()
        router.batches.clear()
        router.order(path, status=status, after_acting=True)
        shown = run(*job.argv())
        if status in PASSING or status >= 500 and status != 501:
            assert shown.exit_status == 0, (status, shown)
        else:
            assert shown.exit_status in (1, 3, 4), (status, shown)
            assert run(*job.argv()).exit_status == 0
        assert job.done() == "abcd"
        check_made_once(router, 1)


@pytest.mark.parametrize("path", MADE)
def test_a_quota_is_not_waited_for(run, router, job, clock, path):
    router.order(path, times=None, status=429, code="insufficient_quota")
    assert run(*job.argv()).exit_status == 6
    assert clock.slept == [] and len(router.seen(*path.split())) == 1


@pytest.mark.parametrize("status", [404, 405, 501])
@pytest.mark.parametrize("path", MADE)
def test_without_a_list_there_is_a_choice(run, router, job, path, status):
    router.order(path, status=503, after_acting=True)
    router.order(path.replace("POST", "GET"), times=None, status=status)
    for _ in range(2):
        shown = run(*job.argv())
        assert shown.exit_status == 1 and "no list" in shown.stderr, shown
        assert "--assume-lost makes it again" in shown.stderr
        assert len(router.seen(*path.split())) == 1
    assert run(*job.argv("--assume-lost")).exit_status == 0
    assert len(router.seen(*path.split())) == 2 and job.done() == "abcd"


def test_what_has_a_list_is_looked_up_all_the_same(run, router, job):
    router.order("POST /files", status=503, after_acting=True)
    assert run(*job.argv("--assume-lost")).exit_status == 0
    check_made_once(router, 1)


@costly
def test_a_list_without_end_is_not_followed(run, router, job):
    router.order("POST /files", status=503)
    for number in range(1100):
        router.order("GET /files", body=json.dumps(
            {"data": [{"id": f"file-{number}x"}], "has_more": True}).encode())
    shown = run(*job.argv())
    assert shown.exit_status == 1 and "1000 pages" in shown.stderr, shown
    assert "--assume-lost" in shown.stderr
    assert len(router.seen("GET", "/files")) == 1000


# == a file that create refuses ==============================================

def lose_file(router):
    file_id, = router.files
    router.store.files.delete(file_id)


def mark_file(status):
    def mark(router):
        for record in router.files.values():
            record["status"] = status
    return mark


@pytest.mark.parametrize("lose, status", [
    (lose_file, 400), (lose_file, 404), (mark_file("error"), 400),
    (mark_file("expired"), 422), (mark_file("deleted"), 409)])
def test_a_file_that_create_refuses_is_uploaded_again(run, router, job, lose,
                                                      status):
    router.order("POST /batches", status=status,
                 when=lambda seen: lose(router) or True)
    shown = run(*job.argv())
    assert shown.exit_status == 0, shown
    assert len(router.seen("POST", "/files")) == 2
    assert job.done() == "abcd" and len(runs(router)) == 1


def test_it_is_uploaded_again_once(run, router, job):
    router.order("POST /batches", times=None, status=400,
                 when=lambda seen: mark_file("error")(router) or True)
    for count in 2, 2:
        assert run(*job.argv()).exit_status == 1
        assert len(router.seen("POST", "/files")) == count


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_a_refusal_of_a_file_does_not_say_that_nothing_was_made(
        run, router, job, status):
    router.order("POST /batches", status=status, after_acting=True,
                 param="input_file_id")
    shown = run(*job.argv())
    assert shown.exit_status == 0, shown
    assert len(router.seen("POST", "/batches")) == 1
    assert job.done() == "abcd" and len(runs(router)) == 1


def test_a_refusal_of_something_else_uploads_nothing(run, router, job):
    router.order("POST /batches", status=400, message="Bad metadata.")
    assert run(*job.argv()).exit_status == 1
    assert len(router.seen("POST", "/files")) == 1


# == what has vanished =======================================================

def test_the_lines_of_a_batch_that_is_gone_have_failed(run, router, job):
    vanish(router)
    shown = run(*job.argv(*TWO))
    assert shown.exit_status == 1, shown
    assert "2 x no result: batch_1 is gone" in shown.stderr
    assert job.done() == "cd"
    assert codes(job) == [("a", "batch_gone"), ("b", "batch_gone")]


def test_a_server_without_a_list_is_believed(run, router, job):
    vanish(router)
    router.order("GET /batches", times=None, status=405)
    assert run(*job.argv(*TWO)).exit_status == 1
    assert job.done() == "cd" and job.failed() == "ab"


def test_what_is_gone_can_be_sent_again(run, router, job):
    vanish(router)
    shown = run(*job.argv(*TWO, "--retry-failed", "1"))
    assert shown.exit_status == 0, shown
    assert parts_of(router) == ["ab", "cd", "ab"] and job.done() == "abcd"


@pytest.mark.parametrize("times", [2, 9, None])
def test_a_batch_that_a_list_has_is_not_gone(run, router, job, times):
    router.order("GET /batches/batch_1", times=times, status=404)
    shown = run(*job.argv())
    assert shown.exit_status == 0, shown
    assert job.done() == "abcd"


@pytest.mark.parametrize("name, done, failed", [
    ("output", "", [("a", "400"), ("b", "batch_gone"), ("c", "batch_gone"),
                    ("d", "batch_gone")]),
    ("error", "bcd", [("a", "batch_gone")])])
def test_a_result_file_that_is_gone_fails_its_lines(run, router, job, name,
                                                    done, failed):
    router.batch_plan(fail_lines={"a": 400})

    def forget(seen):
        file_id = router.batches["batch_1"][name + "_file_id"]
        if file_id in router.files:
            router.store.files.delete(file_id)
        return False
    router.order("GET /content", times=None, when=forget)
    shown = run(*job.argv())
    assert shown.exit_status == 1, shown
    assert (job.done(), [each for each, _ in codes(job)]) == (
        done, [each for each, _ in failed])
    assert [code for _, code in codes(job)][1:] == [
        code for _, code in failed][1:]
    assert "is gone" in shown.stderr


# == an end that is none yet =================================================

def early(**more):
    return dict({"id": "batch_1", "status": "completed", "request_counts": {
        "total": 4, "completed": 4, "failed": 0}, "output_file_id": None},
        **more)


@every_case
@pytest.mark.parametrize("first", [
    early(), early(request_counts=None), early(output_file_id=""),
    early(status="expired"),
    early(error_file_id="file-9", request_counts={"completed": 1}),
    early(output_file_id="file-9", request_counts={"failed": 1}),
    [early(), early(status="in_progress")]])
def test_an_end_that_contradicts_itself_is_none(run, router, job, first):
    for each in first if isinstance(first, list) else [first]:
        router.order("GET /batches/batch_1", times=5,
                     body=json.dumps(each).encode())
    shown = run(*job.argv())
    assert shown.exit_status == 0, shown
    assert job.done() == "abcd"


def test_after_a_minute_it_is_an_end(run, router, job, clock):
    router.order("GET /batches/batch_1", times=None,
                 body=json.dumps(early()).encode())
    assert run(*job.argv()).exit_status == 1
    assert 40 <= clock.at <= 60 and job.failed() == "abcd"


# == one part and the others =================================================

def test_others_are_fetched_before_a_failure_ends_the_run(run, router, job):
    router.order("GET /content", times=None, status=403, when=lambda seen: (
        router.batches["batch_1"]["output_file_id"] in seen.path))
    shown = run(*job.argv(*TWO))
    assert shown.exit_status == 3, shown
    assert "batch: batch_1\n" in shown.stderr
    assert len(read_lines(job.journal)) == 3  # its head, and two results
    del router.orders[:]
    count = len(router.seen("GET", "/content"))
    assert run(*job.argv(*TWO)).exit_status == 0
    assert len(router.seen("GET", "/content")) == count + 1
    assert job.done() == "abcd"
    check_made_once(router, 2)


@pytest.mark.parametrize("fault, code", [
    ({"status": 502}, 1), ({"drop": "after"}, 5),
    ({"odd": "a login page"}, 1)])
def test_others_are_fetched_whatever_the_failure(run, router, job, fault,
                                                 code):
    router.order("GET /batches/batch_1", times=None, **fault)
    shown = run(*job.argv(*TWO))
    assert shown.exit_status == code, shown
    assert len(read_lines(job.journal)) == 3
    assert "batch: batch_1" in shown.stderr


@pytest.mark.parametrize("path", MADE)
def test_what_has_begun_is_fetched_before_a_refusal_ends_it(run, router, job,
                                                            path):
    count = []
    router.order(path, times=None, status=429, code="insufficient_quota",
                 when=lambda seen: count.append(0) or len(count) > 1)
    shown = run(*job.argv(*TWO))
    assert shown.exit_status == 6 and "part: xeroctl-" in shown.stderr, shown
    assert len(read_lines(job.journal)) == 3
    del router.orders[:]
    assert run(*job.argv(*TWO)).exit_status == 0
    assert job.done() == "abcd"
    check_made_once(router, 2)


# == and a kill ==============================================================

def lose_answers(router):
    for path, status in zip(MADE * 2, (503, 429, 500, 529)):
        router.order(path, status=status, after_acting=True)


@pytest.mark.parametrize("worse", [lose_answers, vanish])
def test_a_kill_and_a_server_of_this_kind(forks, router, tmp_path, step,
                                          worse):
    for moment, job in kills(tmp_path, Job, 30, 2 * step):
        job.fill(EXPECTED)
        router.files.clear()
        router.batches.clear()
        router.store.batches.made = 0
        del router.orders[:]
        plan_for_kills(router)
        worse(router)
        if forks.run(router, job, *PARTS, moment=moment) == 0:
            break
        go_on(forks, router, job, PARTS, moment)
        check_answers(job, moment)
        assert set(uploads(router).values()) == {1}, moment
        assert set(runs(router).values()) == {1}, moment
    check_undisturbed(job)
    assert moment > 40
