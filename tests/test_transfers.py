"""Transfers: whole or not at all, counted, and taken up where they broke.

Downloads and uploads of `files` stand for all that use the same engines.
"""

import functools
import gzip
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading

import pytest

import xeroctl
from conftest import (SCRIPT, FakeClock, at_both_ends, costly, environment,
                      every_case, sampled, text_stream, written)
from helpers import until
from test_terminal import screen

assert screen  # a fixture

DATA = bytes(range(256)) * 1200     # five blocks of the router, not even
LINES = b'{"custom_id":"a"}\n' * 2000
BLOCK = 65536
LIMIT_S = 10


@pytest.fixture
def record(router):
    return router.add_file("served", DATA)


@pytest.fixture
def fetch(run, record, tmp_path):
    """fetch(words…) downloads the file to tmp_path/out."""
    def runner(*words, to=None, **more):
        return run("files", record["id"], "--download",
                   str(to or tmp_path / "out"), *words, **more)
    return runner


@pytest.fixture
def fetch_bytes(run_bytes, record):
    """Download to standard output: (exit status, bytes, stderr)."""
    return functools.partial(run_bytes, "files", record["id"], "--download",
                             "-")


@pytest.fixture
def put(run, tmp_path):
    """put(data) uploads a file of these bytes, or a path."""
    def runner(data, *words, **more):
        path = data
        if isinstance(data, bytes):
            path = str(tmp_path / "in")
            with open(path, "wb") as target:
                target.write(data)
        return run("files", "--upload", path, *words, **more)
    return runner


def contents(router):
    """The requests for the content of a file."""
    return router.seen("GET", "/content")


def ranges(router):
    return [seen.headers.get("Range") for seen in contents(router)]


def conditions(router):
    return [seen.headers.get("If-Range") for seen in contents(router)]


def names(folder):
    return sorted(os.listdir(str(folder)))


def read(folder, name="out"):
    return (folder / name).read_bytes()


def ignore_range(seen):
    """As a `when`: make the router one that knows no ranges."""
    seen.asked_range = seen.headers["Range"]
    del seen.headers["Range"]
    return False


def tag_of(router, record):
    return router.store.contents[record["id"]][0]


def forget(router, record, **fault):
    """Have the file's object refused, so that nobody knows its size."""
    router.order("GET /files/" + record["id"], times=None,
                 **fault or {"status": 404})


def leave_part(tmp_path, url, data=DATA[:1000], **about):
    """What an interrupted download leaves beside tmp_path/out."""
    (tmp_path / "out.part").write_bytes(data)
    (tmp_path / "out.part.json").write_text(
        json.dumps(dict({"url": url, "version": None, "size": len(DATA)},
                        **about)))


def url_of(router, record):
    return f"{router.base_url}/files/{record['id']}/content"


# == a download that breaks off within one call ==============================

@pytest.mark.parametrize("fault", [
    {"cut": 100000}, {"cut": 100000, "reset": True}, {"cut": 1},
    {"cut": len(DATA) - 1}, {"cut": BLOCK}])
def test_what_breaks_off_is_taken_up_again(fetch, router, record, tmp_path,
                                           fault):
    router.order("GET /content", **fault)
    shown = fetch()
    assert shown.exit_status == 0 and shown.startswith(record["id"]), shown
    assert read(tmp_path) == DATA and names(tmp_path) == ["out"]
    first, second = contents(router)
    assert first.headers["Range"] is first.headers["If-Range"] is None
    got = int(second.headers["Range"][len("bytes="):-1])
    # A reset may take with it what has not been read.
    assert got == fault["cut"] or fault.get("reset") and got < fault["cut"]
    assert second.headers["If-Range"] == tag_of(router, record)
    assert len(shown.stderr.splitlines()) == 1


def test_a_remark_tells_of_each_wait_but_under_q(fetch, router, clock):
    router.order("GET /content", cut=1000, times=2)
    shown = fetch()
    assert ["attempt 2 of 3" in line for line in
            shown.stderr.splitlines()] == [True, True]
    assert clock.slept == [0.5, 0.5]
    router.order("GET /content", cut=1000)
    assert fetch("-q").stderr == ""


def test_progress_resets_the_count_of_retries(fetch, router, tmp_path):
    router.order("GET /content", cut=1000, times=7)
    shown = fetch("--retries", "1")
    assert shown.exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None] + [
        f"bytes={1000 * number}-" for number in range(1, 8)]


def test_without_progress_the_retries_run_out(fetch, router, tmp_path):
    router.order("GET /content", cut=1000)
    router.order("GET /content", cut=0, times=None)
    shown = fetch("--retries", "3")
    assert shown.exit_status == 5 and shown == ""
    assert ranges(router) == [None] + 3 * ["bytes=1000-"]
    assert "error: HTTP: " in shown.stderr
    assert names(tmp_path) == ["out.part", "out.part.json"]


@pytest.mark.parametrize("retries", [0, 1, 2])
@pytest.mark.parametrize("fault", [{"drop": "after"}, {"cut": 0}])
def test_retries_are_counted_once(fetch, router, clock, fault, retries):
    router.order("GET /content", times=None, **fault)
    shown = fetch("--retries", str(retries))
    assert shown.exit_status == 5 and shown == ""
    assert len(contents(router)) == 1 + retries
    assert clock.slept == [0.5, 1.0][:retries]


def test_a_server_that_is_busy_is_asked_again(fetch, router, tmp_path):
    router.order("GET /content", cut=1000)
    router.order("GET /content", status=503, retry_after=3)
    router.order("GET /content", status=502)
    assert fetch("--retries", "3").exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None] + 3 * ["bytes=1000-"]


@pytest.mark.parametrize("status, code, times", [
    (503, 6, 3), (500, 1, 3), (401, 3, 1), (403, 3, 1), (400, 1, 1)])
def test_an_error_has_its_exit_code(fetch, router, tmp_path, status, code,
                                    times):
    router.order("GET /content", status=status, times=None)
    shown = fetch()
    assert shown.exit_status == code and len(contents(router)) == times
    assert f"error: HTTP {status} " in shown.stderr
    assert not (tmp_path / "out").exists()


def test_an_error_in_the_middle_keeps_what_came(fetch, router, tmp_path):
    router.order("GET /content", cut=1000)
    router.order("GET /content", status=404)
    assert fetch().exit_status == 4
    assert names(tmp_path) == ["out.part", "out.part.json"]
    assert read(tmp_path, "out.part") == DATA[:1000]
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router)[-1] == "bytes=1000-"


def test_silence_is_broken_and_the_rest_asked_for(fetch, router, tmp_path):
    router.order("GET /content", gate=(1, threading.Event()))
    shown = fetch("--timeout", "0.05")
    assert shown.exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None, f"bytes={BLOCK}-"]
    assert "timeout" in shown.stderr


# == lengths that are not what was said ======================================

def test_a_length_that_is_too_great_is_not_believed(fetch, router, record,
                                                    tmp_path):
    forget(router, record)
    router.order("GET /content", lie=5)
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    # The rest is not there (416): what came belongs to another size.
    assert ranges(router) == [None, f"bytes={len(DATA)}-", None]


def test_a_length_that_is_always_too_great_is_an_error(fetch, router, record,
                                                       tmp_path):
    forget(router, record)
    router.order("GET /content", lie=5, times=None)
    shown = fetch()
    assert shown.exit_status == 5 and not (tmp_path / "out").exists()
    assert "broke off" in shown.stderr and len(contents(router)) < 9


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_body_of_no_length_is_taken(fetch, router, tmp_path, framing):
    router.order("GET /content", **{
        "chunked": {"frames": [DATA[:70000], DATA[70000:]]},
        "close": {"no_chunked": True}}[framing])
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert len(contents(router)) == 1


def test_a_chunked_body_that_is_cut_is_taken_up_again(fetch, router,
                                                      tmp_path):
    router.order("GET /content", frames=[DATA[:70000], DATA[70000:]],
                 cut=70000)
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None, "bytes=70000-"]


def test_a_range_may_come_without_a_length(fetch, router, tmp_path):
    router.order("GET /content", cut=1000)
    router.order("GET /content", no_chunked=True)
    assert fetch().exit_status == 0 and read(tmp_path) == DATA


def test_a_range_without_a_length_is_counted_by_its_range(fetch, router,
                                                          tmp_path):
    router.order("GET /content", cut=1000)
    router.order("GET /content", no_chunked=True, end=500)
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None, "bytes=1000-", "bytes=1500-"]


def test_a_range_may_be_shorter_than_what_was_asked(fetch, router, tmp_path):
    router.order("GET /content", cut=1000)
    router.order("GET /content", end=500, headers={
        "Content-Range": f"bytes 1000-1499/{len(DATA)}"})
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router)[-1] == "bytes=1500-"


def test_a_coding_that_was_not_asked_for_is_refused(fetch, router, tmp_path):
    router.order("GET /content", headers={"Content-Encoding": "br"})
    shown = fetch()
    assert shown.exit_status == 1 and "encoded as br" in shown.stderr
    assert not (tmp_path / "out").exists()
    asked = contents(router)[0].headers
    assert asked["Accept-Encoding"] in (None, "identity")


# == what comes in place of a file ===========================================

PAGE = (b'<?xml version="1.0"?>\n<!-- > -->\n <!DOCTYPE  html SYSTEM "x">'
        b"<html><head><title>Sign\nin</title>")
NO_FILES = {
    "a page": (PAGE, "application/octet-stream", 'an HTML page ("Sign in")'),
    "behind a mark": (b"\xef\xbb\xbf\r\n\t" + PAGE, "application/json",
                      "an HTML page"),
    "in UTF-16": (PAGE.decode().encode("utf-16"), "", "an HTML page"),
    "a script": (b"<SCRIPT>location='/login'</SCRIPT>", "text/plain",
                 "an HTML page"),
    "a part of a page": (b"\n<center>Sign in</center>", "text/html",
                         "an HTML page"),
    "an error": (b'{"error": {"message": "no\xc3\xa9", "code": 7}}\n', "",
                 "an error: no\xe9"),
    "an error as a text": (b' {\n "error":\n "gone"}', "text/plain", "gone"),
    "an object that is an error": (
        b'{"object": "error", "message": "expired", "p": NaN}', "", "expired"),
}
FILES = {
    "JSON Lines": b'{"error": 1}\n{"error": 2}\n',
    "a line of a batch": b'{"custom_id": "a", "error": {"message": "no"}}',
    "an error that is none": b'{"error": null, "object": "list"}',
    "a list": b'[{"error": "one"}]',
    "XML": b'<?xml version="1.0"?><!DOCTYPE svg><svg><html/></svg>',
    "Markdown": b'<div align="center">\n\n# xeroctl\n',
    "a mark alone": b"\xef\xbb\xbf", "nothing": b"",
    "a comment without an end": b"<!-- " + b"-" * 99 + b"<?" * 9999,
    "a long object": b'{"error": "%s"}' % (b"x" * 199999),
}
FRAMINGS = {
    "length": lambda data: dict(body=data),
    "chunks": lambda data: dict(frames=[data[:9], data[9:]]),
    "close": lambda data: dict(body=data, no_chunked=True),
    "gzip": lambda data: dict(body=gzip.compress(data),
                              headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("kind", NO_FILES)
@sampled(*range(0, 32, 3))
def test_a_page_or_an_error_is_no_file(fetch, router, record, tmp_path, kind,
                                       framing):
    data, media, told = NO_FILES[kind]
    (tmp_path / "out").write_bytes(b"old")
    forget(router, record)
    router.order("GET /content", content_type=media,
                 **FRAMINGS[framing](data))
    shown = fetch()
    assert shown.exit_status == 1 and shown == "", shown
    assert f"answered with {told}" in shown.stderr.replace("an error: ", "", (
        told in ("gone", "expired"))), shown
    assert names(tmp_path) == ["out"] and read(tmp_path) == b"old"


@every_case
@pytest.mark.parametrize("kind", FILES)
def test_what_only_looks_like_it_is_a_file(fetch, router, record, tmp_path,
                                           kind):
    forget(router, record)
    router.order("GET /content", body=FILES[kind])
    assert fetch().exit_status == 0 and read(tmp_path) == FILES[kind]


@pytest.mark.parametrize("kind, name, to", [
    ("the target's", "x", "page.HTML"), ("the target's", "x", "page.htm"),
    ("the file's", "report.html", "out")])
def test_a_page_is_a_file_under_a_name_of_a_page(run, router, tmp_path, kind,
                                                 name, to):
    record = router.add_file(name, PAGE)
    router.order("GET /files/" + record["id"], body=json.dumps(
        {"id": record["id"], "filename": name}).encode())
    shown = run("files", record["id"], "--download", str(tmp_path / to))
    assert shown.exit_status == 0 and read(tmp_path, to) == PAGE


@pytest.mark.parametrize("kind", ["a page", "an error"])
def test_standard_output_gets_no_page_and_no_error(fetch_bytes, router,
                                                   record, kind):
    forget(router, record)
    router.order("GET /content", body=NO_FILES[kind][0])
    status, data, said = fetch_bytes()
    assert (status, data) == (1, b"") and NO_FILES[kind][2] in said


def test_standard_output_that_is_short_is_no_success(fetch_bytes, router):
    router.order("GET /content", no_chunked=True, end=1000)
    status, data, said = fetch_bytes()
    assert (status, data) == (1, DATA[:1000])
    assert f"1000 bytes of {len(DATA)}" in said and "goes on" not in said


def test_a_page_leaves_the_part_of_an_earlier_call(fetch, router, record,
                                                   tmp_path):
    forget(router, record)
    break_off(fetch, router)
    router.order("GET /content", body=PAGE)
    shown = fetch()
    assert shown.exit_status == 1 and "goes on there" in shown.stderr
    assert read(tmp_path, "out.part") == DATA[:1000]
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router)[-1] == "bytes=1000-"


# == the size that the file's own object tells ===============================

def test_the_file_is_asked_for_its_size_once(run, fetch, router, record,
                                             tmp_path):
    router.order("GET /content", cut=1000, times=2)
    assert fetch().exit_status == 0
    assert len(router.seen("GET", "/files/" + record["id"])) == 1
    run("files", record["id"], "--download", str(tmp_path))
    assert len(router.seen("GET", "/files/" + record["id"])) == 2
    assert read(tmp_path, "served") == DATA


@pytest.mark.parametrize("data", [PAGE, NO_FILES["an error"][0]])
def test_where_the_size_is_right_the_content_is_not_judged(run, router,
                                                           tmp_path, data):
    record = router.add_file("served", data)
    shown = run("files", record["id"], "--download", str(tmp_path / "out"))
    assert shown.exit_status == 0 and read(tmp_path) == data


@pytest.mark.parametrize("framing", ["length", "chunks", "gzip"])
@pytest.mark.parametrize("data", [PAGE, DATA[:-1], DATA + b"x", b""])
def test_another_size_than_the_files_own_is_refused(fetch, router, tmp_path,
                                                    data, framing):
    (tmp_path / "out").write_bytes(b"old")
    router.order("GET /content", **FRAMINGS[framing](data))
    shown = fetch()
    assert shown.exit_status == 1 and shown == ""
    told = {"an HTML page"} if data == PAGE else set()
    if data != PAGE or framing == "chunks":  # whose head may come in pieces
        told.add(f"{len(data)} bytes of {len(DATA)}")
    assert any(each in shown.stderr for each in told)
    assert names(tmp_path) == ["out"] and read(tmp_path) == b"old"


def test_a_body_that_ends_with_the_connection_may_go_on(fetch, router,
                                                        tmp_path):
    router.order("GET /content", no_chunked=True, end=1000)
    shown = fetch()
    assert shown.exit_status == 1 and shown == ""
    assert f"1000 bytes of {len(DATA)}" in shown.stderr
    assert "the same command goes on there" in shown.stderr
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None, "bytes=1000-"]


@pytest.mark.parametrize("data", [PAGE, DATA + b"x"])
def test_what_cannot_be_its_beginning_may_not(fetch, router, tmp_path, data):
    router.order("GET /content", no_chunked=True, body=data)
    assert fetch().exit_status == 1 and names(tmp_path) == []


def test_a_page_that_breaks_off_is_no_beginning(fetch, router, tmp_path):
    router.order("GET /content", frames=[PAGE, PAGE], cut=len(PAGE))
    assert fetch("--retries", "0").exit_status == 5
    assert names(tmp_path) == []


@pytest.mark.parametrize("said", [
    {"status": 500}, {"status": 429, "retry_after": 50}, {"body": PAGE},
    {"drop": "after"}, {"body": b"null"}, {"body": b'{"bytes": "9"}'},
    {"body": b'{"bytes": 0}'}, {"body": b'{"bytes": 1e400}'}],
    ids=str)
def test_without_a_size_a_download_goes_on(fetch, router, record, clock,
                                           tmp_path, said):
    forget(router, record, **said)
    shown = fetch()
    assert shown.exit_status == 0 and read(tmp_path) == DATA
    assert (shown.stderr, clock.slept) == ("", [])


@pytest.mark.parametrize("fault", [{}, {"frames": [LINES]}], ids=len)
def test_lines_of_no_known_size_are_taken_up_again(run, router, tmp_path,
                                                   fault):
    """What may be a page or an error is held back, and not lost."""
    record = router.add_file("served", LINES)
    forget(router, record)
    router.order("GET /content", cut=20000, **fault)
    shown = run("files", record["id"], "--download", str(tmp_path / "out"))
    assert shown.exit_status == 0 and read(tmp_path) == LINES
    assert ranges(router) == [None, "bytes=20000-"]


def test_a_part_of_another_size_is_fetched_whole(fetch, router, record,
                                                 tmp_path):
    """It is as long as was said, but the file is longer."""
    leave_part(tmp_path, url_of(router, record), size=1000)
    router.order("GET /content", status=416, headers={
        "Content-Range": "bytes */1000"})
    assert fetch().exit_status == 0 and read(tmp_path) == DATA


# == answers to a range ======================================================

def test_a_whole_answer_to_a_range_begins_anew(fetch, router, tmp_path):
    router.order("GET /content", cut=1000)
    router.order("GET /content", when=ignore_range)
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert contents(router)[1].asked_range == "bytes=1000-"
    assert len(contents(router)) == 2


@pytest.mark.parametrize("told", [
    f"bytes 0-{len(DATA) - 1}/{len(DATA)}",
    f"bytes 999-{len(DATA) - 1}/{len(DATA)}",
    f"bytes 1000-{len(DATA) - 1}/{len(DATA) + 1}",
    "bytes */5", "bytes", "", None, f"bytes 1000-{len(DATA) - 1}/{'9' * 5000}",
    f"bytes {'0' * 5000}1000-9/*",
    f"chars 1000-{len(DATA) - 1}/{len(DATA)}"])
def test_another_range_than_that_asked_for_is_not_taken(fetch, router,
                                                        tmp_path, told):
    router.order("GET /content", cut=1000)
    router.order("GET /content", headers={"Content-Range": told})
    shown = fetch()
    assert shown.exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None, "bytes=1000-", None]


@pytest.mark.parametrize("size", ["*", len(DATA)])
def test_a_range_need_not_tell_the_whole_size(fetch, router, tmp_path, size):
    router.order("GET /content", cut=1000)
    router.order("GET /content", headers={
        "Content-Range": f"bytes 1000-{len(DATA) - 1}/{size}"})
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None, "bytes=1000-"]


def test_a_range_of_another_version_is_not_taken(fetch, router, tmp_path):
    router.order("GET /content", cut=1000)
    router.order("GET /content", headers={"ETag": '"other"'})
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None, "bytes=1000-", None]


@pytest.mark.parametrize("told", [None, f"bytes 0-{len(DATA) - 1}/{len(DATA)}",
                                  "bytes 7-8/9"])
def test_a_range_nobody_asked_for_is_refused(fetch, router, tmp_path, told):
    router.order("GET /content", status=206, times=None,
                 headers={"Content-Range": told})
    shown = fetch()
    assert shown.exit_status == 1 and "range" in shown.stderr
    assert not (tmp_path / "out").exists() and len(contents(router)) == 1


@pytest.mark.parametrize("new", [b"new", DATA[::-1], DATA + b"more"])
def test_a_file_that_changed_meanwhile_comes_whole(fetch, router, record,
                                                   tmp_path, new):
    """If it has another size, at the next call."""
    router.order("GET /content", cut=1000)

    def replace(seen):
        if seen.headers["Range"] and not router.file_bytes(
                record["id"]) == new:
            router.replace_file(record["id"], new)
        return False
    router.order("GET /content", when=replace, times=None)
    is_other = len(new) != len(DATA)
    assert fetch().exit_status == is_other
    assert ranges(router) == [None, "bytes=1000-"]
    assert conditions(router)[1] != tag_of(router, record)
    assert fetch().exit_status == 0 and read(tmp_path) == new
    assert names(tmp_path) == ["out"]


def test_a_weak_tag_is_no_condition(fetch, router, tmp_path):
    router.order("GET /content", cut=1000, headers={"ETag": 'W/"v1"'})
    router.order("GET /content", headers={"ETag": 'W/"v1"'})
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert conditions(router) == [None, None]


def test_a_date_is_a_condition_where_there_is_no_tag(fetch, router,
                                                     tmp_path):
    date = "Mon, 02 Feb 2026 02:40:00 GMT"
    headers = {"ETag": None, "Last-Modified": date}

    def accept_date(seen):
        seen.asked = seen.headers["If-Range"]
        del seen.headers["If-Range"]
        return True
    router.order("GET /content", cut=1000, headers=headers)
    router.order("GET /content", when=accept_date, headers=headers)
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert contents(router)[1].asked == date


# == a download that an earlier call began ===================================

def break_off(fetch, router, count=1000):
    router.order("GET /content", cut=count)
    assert fetch("--retries", "0").exit_status == 5


def test_a_part_grows_beside_the_target(fetch, router, record, tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    break_off(fetch, router)
    assert names(tmp_path) == ["out", "out.part", "out.part.json"]
    assert read(tmp_path) == b"old"
    assert read(tmp_path, "out.part") == DATA[:1000]
    about = json.loads((tmp_path / "out.part.json").read_text())
    assert about == {"url": url_of(router, record), "size": len(DATA),
                     "version": tag_of(router, record)}
    assert router.key not in (tmp_path / "out.part.json").read_text()


def test_the_next_call_goes_on(fetch, router, record, tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    break_off(fetch, router)
    shown = fetch()
    assert shown.exit_status == 0 and read(tmp_path) == DATA
    assert names(tmp_path) == ["out"]
    assert ranges(router) == [None, "bytes=1000-"]
    assert conditions(router) == [None, tag_of(router, record)]
    # The whole file is told, not only what came now.
    assert f"({xeroctl.as_size(len(DATA))})" in shown


def test_the_target_stays_until_the_new_one_is_whole(fetch, router,
                                                     tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    gate, olds = threading.Event(), []

    def look(_):
        olds.append(read(tmp_path))
        return False
    router.order("GET /content", gate=(2, gate))
    reader = threading.Thread(target=fetch)
    reader.start()
    until(lambda: (tmp_path / "out.part").exists()
          and (tmp_path / "out.part").stat().st_size > 0)
    look(None)
    gate.set()
    reader.join(LIMIT_S)
    assert olds == [b"old"] and read(tmp_path) == DATA


def test_what_changed_since_is_fetched_whole(fetch, router, record,
                                             tmp_path):
    break_off(fetch, router)
    router.replace_file(record["id"], DATA[::-1])
    assert fetch().exit_status == 0 and read(tmp_path) == DATA[::-1]
    assert ranges(router) == [None, "bytes=1000-"]


def test_what_shrank_since_is_fetched_whole(fetch, router, record, tmp_path):
    break_off(fetch, router)
    router.replace_file(record["id"], b"tiny")
    assert fetch().exit_status == 0 and read(tmp_path) == b"tiny"


def test_a_part_that_is_complete_only_takes_its_place(fetch, router, record,
                                                      tmp_path):
    leave_part(tmp_path, url_of(router, record), DATA,
               version=tag_of(router, record))
    shown = fetch()
    assert shown.exit_status == 0 and read(tmp_path) == DATA
    assert names(tmp_path) == ["out"] and shown.stderr == ""
    assert ranges(router) == [f"bytes={len(DATA) - 1}-"]


@pytest.mark.parametrize("new", [b"tiny", DATA[::-1], DATA + b"x"])
def test_a_complete_part_of_what_changed_is_fetched_whole(
        fetch, router, record, tmp_path, new):
    leave_part(tmp_path, url_of(router, record), DATA,
               version=tag_of(router, record))
    router.replace_file(record["id"], new)
    assert fetch().exit_status == 0 and read(tmp_path) == new


@pytest.mark.parametrize("new", [b"tiny", DATA[:500]])
def test_what_shrank_is_known_by_its_size_where_no_tag_is(
        fetch, router, record, tmp_path, new):
    leave_part(tmp_path, url_of(router, record), DATA, version=None)
    router.replace_file(record["id"], new)
    router.order("GET /content", times=None, headers={"ETag": None})
    assert fetch().exit_status == 0 and read(tmp_path) == new


def test_a_part_longer_than_the_file_is_thrown_away(fetch, router, record,
                                                    tmp_path):
    leave_part(tmp_path, url_of(router, record), DATA + b"junk",
               version=tag_of(router, record))
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [f"bytes={len(DATA) + 4}-", None]


def test_416_to_the_whole_is_an_error(fetch, router, tmp_path):
    router.order("GET /content", status=416, times=None)
    shown = fetch()
    assert shown.exit_status == 1 and "416" in shown.stderr
    assert len(contents(router)) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("about", [
    None, b"", b"{", b"[]", b"null", b"\xff\xfe", b'"x"', b'{"url": 5}',
    b'{"url": null}', b'{"version": "v1"}', b"[" * 100000])
def test_a_part_of_unknown_origin_is_not_trusted(fetch, router, tmp_path,
                                                 about):
    (tmp_path / "out.part").write_bytes(b"of another program")
    if about is not None:
        (tmp_path / "out.part.json").write_bytes(about)
    shown = fetch()
    assert shown.exit_status == 2 and "--force" in shown.stderr, shown
    assert read(tmp_path, "out.part") == b"of another program"
    assert router.requests == []
    assert fetch("--force").exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None] and names(tmp_path) == ["out"]


@pytest.mark.parametrize("change", [
    lambda url: url.replace("file-", "file-1"),
    lambda url: url.replace("127.0.0.1", "127.0.0.2"),
    lambda url: url + "?x", lambda url: url.upper()])
def test_a_part_of_another_url_is_not_trusted(fetch, router, record,
                                              tmp_path, change):
    leave_part(tmp_path, change(url_of(router, record)), b"y" * 1000,
               version=tag_of(router, record))
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None]


@pytest.mark.parametrize("about", [
    {"version": 5}, {"version": True}, {"size": "many"}, {"size": -1},
    {"size": None, "version": None},
    {"version": ["a"]},
    {"version": '"a"\r\nX-Evil: 1'},
    {"version": "größe 日本"}])
def test_a_part_of_odd_words_does_no_harm(fetch, router, record, tmp_path,
                                          about):
    leave_part(tmp_path, url_of(router, record), **about)
    shown = fetch()
    is_ours = not about.get("version")
    assert shown.exit_status == (0 if is_ours else 2), shown
    assert is_ours or "--force" in shown.stderr and router.requests == []
    assert fetch("--force").exit_status == 0 and read(tmp_path) == DATA
    assert all(seen.headers["X-Evil"] is None for seen in contents(router))


def test_an_empty_part_asks_for_the_whole(fetch, router, record, tmp_path):
    leave_part(tmp_path, url_of(router, record), b"",
               version=tag_of(router, record))
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None]


def test_an_origin_without_its_part_asks_for_the_whole(fetch, router, record,
                                                       tmp_path):
    leave_part(tmp_path, url_of(router, record))
    (tmp_path / "out.part").unlink()
    assert fetch().exit_status == 0 and read(tmp_path) == DATA
    assert ranges(router) == [None] and names(tmp_path) == ["out"]


@pytest.mark.parametrize("place", ["folder", "link"])
def test_a_part_in_a_folder_and_behind_a_link_is_found_again(
        fetch, router, record, tmp_path, place):
    (tmp_path / "real").mkdir()
    to, target = tmp_path / "real", tmp_path / "real" / "served"
    if place == "link":
        os.symlink("real/served", str(tmp_path / "out"))
        to = tmp_path / "out"
    router.order("GET /content", cut=1000)
    assert fetch("--retries", "0", to=to).exit_status == 5
    assert names(tmp_path / "real") == ["served.part", "served.part.json"]
    assert fetch(to=to).exit_status == 0
    assert target.read_bytes() == DATA
    assert ranges(router) == [None, "bytes=1000-"]
    assert os.path.islink(str(tmp_path / "out")) == (place == "link")


def test_two_files_to_one_target_do_not_mix(run, fetch, router, tmp_path):
    other = router.add_file("other", b"z" * 2000)
    break_off(fetch, router)
    shown = run("files", other["id"], "--download", str(tmp_path / "out"))
    assert shown.exit_status == 0 and read(tmp_path) == b"z" * 2000
    assert ranges(router) == [None, None]


@at_both_ends
def test_a_killed_download_goes_on(start, run_process, router, record,
                                   tmp_path):
    gate, words = threading.Event(), (
        "files", record["id"], "--download", str(tmp_path / "out"))
    router.order("GET /content", gate=(2, gate))
    (tmp_path / "out").write_bytes(b"old")
    process = start(*words)
    until(lambda: (tmp_path / "out.part").exists()
          and (tmp_path / "out.part").stat().st_size >= BLOCK)
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT_S)
    gate.set()
    assert read(tmp_path) == b"old"
    part = read(tmp_path, "out.part")
    assert part == DATA[:len(part)]
    assert run_process(*words).exit_status == 0
    assert read(tmp_path) == DATA and names(tmp_path) == ["out"]
    assert ranges(router) == [None, f"bytes={len(part)}-"]


# == where nothing can be written ============================================

def test_two_downloads_to_one_target_are_not_mixed(fetch, router, tmp_path):
    gate, shown = threading.Event(), []
    router.order("GET /content", gate=(2, gate))
    first = threading.Thread(target=lambda: shown.append(fetch()))
    first.start()
    until(lambda: (tmp_path / "out.part").exists()
          and (tmp_path / "out.part").stat().st_size > 0)
    second = fetch()
    gate.set()
    first.join(LIMIT_S)
    assert second.exit_status == 2 and "another run" in second.stderr
    assert shown[0].exit_status == 0 and read(tmp_path) == DATA
    assert len(contents(router)) == 1


@pytest.mark.parametrize("data", [DATA, b"x"])
def test_a_full_disk_is_told(run, router, device, data):
    record, path = router.add_file("x", data), device("full")
    shown = run("files", record["id"], "--download", path)
    assert shown.exit_status == 1 and shown == ""
    assert "No space left on device" in shown.stderr
    assert stat.S_ISCHR(os.stat(path).st_mode)


@pytest.mark.parametrize("place, said", [
    ("none/out", "No such file or directory"),
    ("file/out", "Not a directory"),
    ("x" * 300, "File name too long"),
])
def test_a_place_that_cannot_be_is_refused_before_asking(
        fetch, router, tmp_path, place, said):
    (tmp_path / "file").write_bytes(b"x")
    shown = fetch(to=tmp_path / place)
    assert shown.exit_status == 2 and shown == ""
    assert shown.stderr.startswith("error: cannot write ")
    assert said in shown.stderr and place[:200] in shown.stderr
    assert router.requests == []


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes somebody else")
def test_a_folder_that_is_not_ours_is_refused_before_asking(run, router,
                                                            record):
    run("files")
    del router.requests[:]
    os.seteuid(65534)
    try:
        shown = run("files", record["id"], "--download", "/etc/xeroctl-out")
    finally:
        os.seteuid(0)
    assert shown.exit_status == 2 and "Permission denied" in shown.stderr
    assert router.requests == []


@pytest.mark.parametrize("fault", [
    {"status": 404}, {"status": 401}, {"drop": "after", "times": None},
    {"redirect": "http://127.0.0.2:1/x"}])
def test_what_never_began_leaves_nothing(fetch, router, tmp_path, fault):
    router.order("GET /content", **fault)
    assert fetch().exit_status in (1, 3, 4, 5)
    assert names(tmp_path) == []


# == downloads to standard output ============================================

def test_stdout_goes_on_where_it_stopped(fetch_bytes, router):
    router.order("GET /content", cut=100000)
    router.order("GET /content", cut=50000)
    status, stdout, stderr = fetch_bytes()
    assert status == 0 and stdout == DATA
    assert ranges(router) == [None, "bytes=100000-", "bytes=150000-"]
    assert None not in conditions(router)[1:]


def test_stdout_that_cannot_go_on_is_a_broken_stream(fetch_bytes, router):
    router.order("GET /content", cut=1000)
    router.order("GET /content", when=ignore_range)
    status, stdout, stderr = fetch_bytes()
    assert status == 7 and stdout == DATA[:1000]
    assert "1000 bytes" in stderr and "hint: " in stderr


def test_stdout_of_a_file_that_changed_is_a_broken_stream(
        fetch_bytes, router, record):
    router.order("GET /content", cut=1000)

    def replace(seen):
        if seen.headers["Range"]:
            router.replace_file(record["id"], DATA[::-1])
        return False
    router.order("GET /content", when=replace)
    status, stdout, stderr = fetch_bytes()
    assert status == 7 and stdout == DATA[:1000]


def test_stdout_that_breaks_off_for_good_is_a_broken_stream(fetch_bytes,
                                                            router):
    router.order("GET /content", cut=1000)
    router.order("GET /content", drop="after", times=None)
    status, stdout, stderr = fetch_bytes()
    assert status == 7 and stdout == DATA[:1000]


def test_stdout_that_never_began_is_no_broken_stream(fetch_bytes, router):
    router.order("GET /content", cut=0, times=None)
    status, stdout, stderr = fetch_bytes()
    assert status == 5 and stdout == b""


def test_a_device_that_is_written_is_no_file_to_go_on(fetch, router, device):
    router.order("GET /content", cut=1000)
    router.order("GET /content", when=ignore_range)
    assert fetch(to=device("null")).exit_status == 7


@at_both_ends
def test_a_reader_that_leaves_ends_the_download_in_silence(start, router):
    record = router.add_file("big", DATA * 10)
    process = start("files", record["id"], "--download", "-")
    assert process.stdout.read(10) == DATA[:10]
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(LIMIT_S) == 141


# == uploads: bodies =========================================================

@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200000])
def test_a_body_is_as_long_as_it_says(put, router, size):
    data = bytes(size % 251 for size in range(size))
    assert put(data).exit_status == 0
    seen, = router.seen("POST", "/files")
    assert seen.headers.get_all("Content-Length") == [str(seen.size)]
    assert seen.headers["Transfer-Encoding"] is None
    assert seen.form["file"] == ("in", data)
    assert seen.headers.get_content_type() == "multipart/form-data"


def test_each_body_has_a_boundary_of_its_own(put, router):
    put(b"x")
    put(b"x")
    first, second = router.seen("POST", "/files")
    assert (first.headers.get_boundary() != second.headers.get_boundary())


@pytest.mark.parametrize("name, header", [
    ("a.txt", 'filename="a.txt"'),
    ('say "hi"', 'filename="say %22hi%22"'),
    ("a\r\nX: 1", 'filename="a%0D%0AX: 1"'),
    ("back\\slash", 'filename="back\\slash"'),
    ("größe 日本", 'filename="größe 日本"'),
    ("a;b=c", 'filename="a;b=c"'),
])
def test_a_name_is_quoted_as_browsers_do(run, router, tmp_path, name,
                                         header):
    (tmp_path / name).write_bytes(b"x")
    run("files", "--upload", str(tmp_path / name))
    head = router.seen("POST", "/files")[0].body.decode("utf-8")
    line, = [line for line in head.split("\r\n") if "filename" in line]
    assert line == f'Content-Disposition: form-data; name="file"; {header}'


# == uploads that go wrong ===================================================

@pytest.mark.parametrize("fault", [
    {"status": 503}, {"status": 429, "retry_after": 2},
    {"status": 503, "early": True}])
def test_a_busy_router_gets_the_whole_body_again(put, router, clock, fault):
    router.order("POST /files", times=2, **fault)
    assert put(DATA).exit_status == 0
    *_, last = router.seen("POST", "/files")
    assert last.form["file"] == ("in", DATA) and len(clock.slept) == 2
    assert [router.file_bytes(each) for each in router.files] == [DATA]
    assert len(router.seen("POST", "/files")) == 3


def test_what_came_from_stdin_is_sent_again_too(put, router):
    router.order("POST /files", status=503)
    assert put("-", stdin=DATA).exit_status == 0
    assert [seen.form["file"][1]
            for seen in router.seen("POST", "/files")] == [DATA, DATA]


def test_a_file_that_changes_between_two_attempts_is_refused(put, router,
                                                             tmp_path):
    def change(_):
        (tmp_path / "in").write_bytes(b"x" * len(DATA))
        os.utime(str(tmp_path / "in"), (1, 1))
        return True
    router.order("POST /files", status=503, when=change)
    shown = put(DATA)
    assert shown.exit_status == 2 and "has changed" in shown.stderr
    assert len(router.seen("POST", "/files")) == 1


class SlowReader(threading.Thread):
    """A server that reads a little of a body, waits, and reads the rest.

    Its buffers are small, so that the client cannot be done before.
    """

    def __init__(self, meanwhile):
        super().__init__()
        self.meanwhile, self.got = meanwhile, b""
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1)
        self.listener.settimeout(LIMIT_S)
        self.url = (f"http://127.0.0.1:{self.listener.getsockname()[1]}"
                    "/p/v1")

    def run(self):
        with self.listener, self.listener.accept()[0] as client:
            client.settimeout(LIMIT_S)
            while len(self.got) < 4096:
                self.got += client.recv(4096)
            self.meanwhile()
            while not self.is_whole():
                block = client.recv(1 << 20)
                if not block:
                    return
                self.got += block
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n"
                           b'{"id": "f"}')

    def is_whole(self):
        head, _, body = self.got.partition(b"\r\n\r\n")
        length = [line for line in head.split(b"\r\n")
                  if line.startswith(b"Content-Length: ")]
        return bool(length) and len(body) >= int(length[0].split()[1])


def grow(path):
    with open(path, "ab") as target:
        target.write(b"more")


def shrink(path):
    with open(path, "r+b") as target:
        target.truncate(2000000)


def rewrite(path):
    with open(path, "r+b") as target:
        target.write(b"other")
    os.utime(path, (1, 1))


@pytest.mark.parametrize("change, said", [
    (grow, "has changed"),
    (shrink, "has become shorter"),
    (rewrite, "has changed")])
def test_a_file_that_changes_while_it_is_sent_never_arrives(
        run, tmp_path, change, said):
    path = str(tmp_path / "in")
    with open(path, "wb") as target:
        target.truncate(8000000)        # more than the socket holds
    server = SlowReader(lambda: change(path))
    server.start()
    shown = run("files", "--upload", path, XEROTIER_BASE_URL=server.url)
    server.join(LIMIT_S)
    assert shown.exit_status == 2 and said in shown.stderr, shown
    assert path in shown.stderr and not server.is_whole()


# == progress ================================================================

class Ticking(FakeClock):
    """A clock on which each look takes a quarter of a second."""

    def monotonic(self):
        self.at += 0.25
        return self.at


@pytest.fixture
def on_terminal(router, screen):
    """Run with stderr on a terminal; return what that showed."""
    def runner(*argv):
        terminal, stdout = screen(0), text_stream()
        streams = xeroctl.Streams(text_stream(), stdout, terminal.stream())
        status = xeroctl.main(argv, environment(router), streams, Ticking())
        shown = terminal.shown()
        assert status == 0, shown
        return shown, written(stdout)
    return runner


def test_a_bar_is_for_terminals(on_terminal, router, record, tmp_path):
    path = str(tmp_path / "out")
    stderr, stdout = on_terminal("files", record["id"], "--download", path)
    whole = rf" \[#+\] {xeroctl.as_size(len(DATA))}/"
    assert re.search(f"downloading {record['id']}{whole}", stderr)
    assert "[" not in stdout and "\x1b" not in stdout
    stderr, stdout = on_terminal("files", "--upload", path)
    assert re.search(f"uploading out{whole}", stderr) and "[" not in stdout


@pytest.mark.parametrize("words", [["-q"], ["-q", "-o", "json"]])
def test_quiet_shows_no_bar(on_terminal, record, tmp_path, words):
    stderr, _ = on_terminal("files", record["id"], "--download",
                            str(tmp_path / "out"), *words)
    assert stderr == ""


def test_a_bar_goes_on_where_the_file_does(on_terminal, router, record,
                                           tmp_path):
    leave_part(tmp_path, url_of(router, record), DATA[:300000],
               version=tag_of(router, record))
    stderr, _ = on_terminal("files", record["id"], "--download",
                            str(tmp_path / "out"))
    bars = re.findall(r"\[([#.]+)\]", stderr)
    assert bars and min(bar.count("#") / len(bar) for bar in bars) > 0.9


def test_a_pipe_shows_no_bar(fetch, put):
    assert fetch().stderr == "" and put(DATA).stderr == ""


# == memory ==================================================================

PEAK = ("import os, sys\n"
        "pid = os.spawnv(os.P_NOWAIT, sys.executable,"
        " [sys.executable] + sys.argv[1:])\n"
        "_, status, usage = os.wait4(pid, 0)\n"
        "print(status, usage.ru_maxrss)\n")


def peak_of(router, *words):
    """The most memory, in KB, that a run has had."""
    said = subprocess.check_output(
        [sys.executable, "-c", PEAK, SCRIPT, *words], timeout=60,
        env=environment(router), stderr=subprocess.STDOUT)
    status, peak = said.split()[-2:]
    assert int(status) == 0, said
    return int(peak) // (1024 if sys.platform == "darwin" else 1)


@costly
def test_large_files_do_not_fill_the_memory(router, tmp_path):
    # Most of the peak is Python, which compiles the script: that differs
    # from version to version, and is taken off.
    path, most = str(tmp_path / "big"), peak_of(router, "files") + 4000
    with open(path, "wb") as target:
        target.truncate(100000000)
    assert peak_of(router, "files", "--upload", path, "-o", "id") < most
    file_id, = router.files
    os.unlink(path)
    assert peak_of(router, "files", file_id, "--download", path) < most
    assert os.stat(path).st_size == 100000000
    os.unlink(path)
