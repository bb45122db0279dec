"""upload and uploads: models on their way to the server, part by part.

The router checks the SHA-256 of each part and of the whole; here it takes
parts of 1000 bytes.  What was stored is opened again, folders as a tar.
"""

import functools
import hashlib
import io
import json
import os
import re
import shlex
import signal
import tarfile

import pytest

import xeroctl
from conftest import at_both_ends, environment, from_system, text_stream
from helpers import asked, grow, labelled, until
from router import Router
from test_terminal import screen

assert screen  # a fixture

NOW = 1770000000
LIMIT_S = 10
DATA = bytes(range(256)) * 10       # 2560 bytes: parts of 1000, 1000, 560
FIRST = "00000001-0000-4000-8003-000000000001"
LABELS = ["ID", "Status", "Filename", "Size", "Type", "Chunk Size",
          "Total Chunks", "Uploaded Chunks", "Progress", "Created",
          "Expires"]


@pytest.fixture
def router():
    """A router of small parts, whose clock stands still."""
    with Router(clock=lambda: NOW) as router:
        router.chunk_size = 1000
        yield router


@pytest.fixture
def model(tmp_path):
    """model(bytes) is the path of a file with them."""
    def writer(data=DATA, name="model.bin"):
        path = tmp_path / from_system(name)
        path.write_bytes(data)
        return str(path)
    return writer


@pytest.fixture
def folder(tmp_path):
    """folder({"a/b": bytes, …}) makes files below my-model; its path."""
    return functools.partial(grow, tmp_path / "my-model")


@pytest.fixture
def upload(run):
    """upload(path, …) under the name m."""
    def runner(path, *words, **more):
        return run("upload", str(path), "m", *words, **more)
    return runner


def numbers(router, start=0):
    """The numbers of the parts that were sent, from a request on."""
    return [int(seen.form["part_number"][1])
            for seen in router.requests[start:]
            if seen.path.endswith("/parts")]


def has_number(number):
    """A test for the request that brings a part."""
    return lambda seen: int(seen.form["part_number"][1]) == number


def digest(data):
    return hashlib.sha256(data).hexdigest()


def stop_at(upload, router, path, number):
    """An upload that fails at a part for good; leaves those before it."""
    router.order("POST /parts", times=None, status=400,
                 when=has_number(number))
    shown = upload(path)
    assert shown.exit_status == 1
    router.orders.clear()
    return shown


# == a file ==================================================================

def test_a_file_is_sent_in_parts(upload, router, model):
    shown = upload(model())
    assert shown.exit_status == 0
    assert asked(router) == ["POST /uploads"] + [
        f"POST /uploads/{FIRST}/parts"] * 3 + [
        f"POST /uploads/{FIRST}/complete"]
    assert router.requests[0].json == {
        "purpose": "model", "filename": "model.bin", "bytes": 2560,
        "mime_type": "application/octet-stream", "name": "m"}
    assert router.upload_bytes(FIRST) == DATA


def test_each_part_bears_its_hash(upload, router, model):
    upload(model())
    forms = [seen.form for seen in router.seen("POST", "/parts")]
    assert numbers(router) == [1, 2, 3]
    for form, start in zip(forms, (0, 1000, 2000)):
        part = DATA[start:start + 1000]
        assert sorted(form) == ["data", "part_number", "sha256"]
        assert form["data"][1] == part and form["data"][0]
        assert form["sha256"][1].decode() == digest(part)


def test_the_whole_is_completed_with_its_hash(upload, router, model):
    upload(model())
    assert router.requests[-1].json == {
        "part_ids": [f"part_{number:024x}" for number in (1, 2, 3)],
        "sha256": digest(DATA)}
    assert router.uploads[FIRST]["sha256"] == digest(DATA)


def test_the_id_comes_first_and_the_record_last(upload, router, model):
    shown = upload(model())
    assert shown.stderr == f"upload {FIRST}\n"
    found = labelled(shown)
    assert list(found) == LABELS + ["Model ID"]
    assert (found["ID"], found["Status"], found["Size"]) == (
        FIRST, "completed", "2.6 KB")
    assert found["Model ID"] == router.uploads[FIRST]["model_id"]
    assert (found["Total Chunks"], found["Uploaded Chunks"]) == ("3", "3")


def test_the_model_is_there_afterwards(run, upload, model):
    upload(model(), "--format", "gguf", "--description", "d")
    model_id = json.loads(run("uploads", FIRST, "-o", "json"))["model_id"]
    found = json.loads(run("models", model_id, "-o", "json"))
    assert (found["name"], found["format"], found["description"],
            found["size_bytes"]) == ("m", "gguf", "d", 2560)


def test_json_is_the_upload_alone(upload, router, model):
    shown = upload(model(), "-o", "json")
    assert json.loads(shown) == router.uploads[FIRST]


def test_quiet_says_nothing_but_the_result(upload, model):
    shown = upload(model(), "-q", "-o", "id")
    assert shown == FIRST + "\n" and shown.stderr == ""


@pytest.mark.parametrize("size, sizes", [
    (1, [1]), (999, [999]), (1000, [1000]), (1001, [1000, 1]),
    (2000, [1000, 1000])])
def test_the_last_part_has_the_rest(upload, router, model, size, sizes):
    assert upload(model(DATA[:size])).exit_status == 0
    assert [len(seen.form["data"][1]) for seen in router.seen(
        "POST", "/parts")] == sizes


def test_a_server_that_names_no_size_gets_one_part(upload, router, model):
    router.order("POST /uploads", status=201,
                 body=b'{"id": "u", "object": "upload"}')
    router.order("POST /uploads/u/parts", status=201, body=b'{"id": "p"}')
    router.order("POST /uploads/u/complete", body=b'{"id": "u"}')
    assert upload(model()).exit_status == 0
    assert [len(seen.form["data"][1]) for seen in router.seen(
        "POST", "/parts")] == [2560]
    assert router.requests[-1].json == {"part_ids": ["p"],
                                        "sha256": digest(DATA)}


def test_standard_input_is_sent_too(upload, router):
    assert upload("-", stdin=DATA).exit_status == 0
    assert router.upload_bytes(FIRST) == DATA


@pytest.mark.parametrize("path", ["größe 日本.bin", 'a"b;c.bin', "-x.bin"])
def test_a_file_may_have_any_name(run, router, model, path):
    shown = run("upload", "--", model(name=path), "-name")
    assert shown.exit_status == 0
    body = router.requests[0].json
    assert (body["filename"], body["name"]) == (path, "-name")


def test_an_empty_file_is_refused(upload, router, model):
    shown = upload(model(b""))
    assert shown.exit_status == 2 and "is empty" in shown.stderr
    assert router.requests == []


@pytest.mark.parametrize("words", [
    ["/no/such/file", "m"], ["/no/such/file"], [], ["/dev/null", "m"],
    ["", "m"]])
def test_what_cannot_be_sent_is_refused(run, router, words):
    shown = run("upload", *words)
    assert shown.exit_status == 2 and shown == ""
    assert "internal" not in shown.stderr and router.requests == []


def test_a_quota_that_is_full_is_told(upload, router, model):
    router.order("POST /uploads", status=403, message="Quota exceeded")
    shown = upload(model())
    assert shown.exit_status == 3 and "Quota exceeded" in shown.stderr
    assert "--resume" not in shown.stderr and len(router.requests) == 1


def test_a_plan_shows_each_request(upload, router, model):
    plans = json.loads(upload(model(), "--dry-run", "-o", "json"))
    paths = [plan["url"][len(router.base_url):] for plan in plans]
    assert paths[0] == "/uploads"
    assert paths[1].endswith("/parts") and paths[-1].endswith("/complete")
    assert plans[0]["body"]["bytes"] == 2560 and router.requests == []


def test_a_resumed_upload_can_be_planned(upload, router, model):
    stop_at(upload, router, model(), 2)
    count = len(numbers(router))
    shown = upload(model(), "--resume", FIRST, "--dry-run")
    assert f"POST {router.base_url}/uploads/{FIRST}/parts" in shown
    assert len(numbers(router)) == count
    assert router.uploads[FIRST]["status"] == "uploading"


# == what goes wrong on the way ==============================================

def test_a_part_whose_answer_is_lost_is_not_sent_again(upload, router, model):
    router.order("POST /parts", drop="after", after_acting=True,
                 when=has_number(2))
    shown = upload(model())
    assert shown.exit_status == 0 and numbers(router) == [1, 2, 3]
    assert asked(router).count(f"POST /uploads/{FIRST}/resume") == 1
    assert router.upload_bytes(FIRST) == DATA


@pytest.mark.parametrize("fault", [
    {"drop": "after"}, {"drop": "before"}, {"status": 500}, {"status": 502},
    {"status": 503}, {"status": 429, "retry_after": 1}])
def test_a_part_that_was_lost_is_sent_again(upload, router, model, fault):
    router.order("POST /parts", when=has_number(2), **fault)
    shown = upload(model())
    assert shown.exit_status == 0 and numbers(router) == [1, 2, 2, 3]
    assert router.upload_bytes(FIRST) == DATA


@pytest.mark.parametrize("fault", [
    {"drop": "after"}, {"status": 500}, {"status": 502}])
def test_a_completion_whose_answer_is_lost_is_looked_up(upload, router,
                                                        model, fault):
    router.order("POST /complete", after_acting=True, **fault)
    shown = upload(model())
    assert shown.exit_status == 0
    assert labelled(shown)["Status"] == "completed"
    assert len(router.seen("POST", "/complete")) == 1
    assert asked(router)[-1] == f"GET /uploads/{FIRST}"


def test_a_completion_that_was_lost_is_sent_again(upload, router, model):
    router.order("POST /complete", drop="after")
    assert upload(model()).exit_status == 0
    assert len(router.seen("POST", "/complete")) == 2
    assert router.uploads[FIRST]["status"] == "completed"


def test_a_failure_that_stays_says_how_to_go_on(upload, router, model):
    router.order("POST /parts", status=500, times=None, when=has_number(2))
    path = model()
    shown = upload(path)
    assert shown.exit_status == 1 and shown == ""
    assert f"xeroctl upload {path} m --resume {FIRST}" in shown.stderr
    assert numbers(router) == [1, 2, 2, 2]


@pytest.mark.parametrize("status, code", [(400, 1), (401, 3), (404, 4),
                                          (413, 1)])
def test_a_refusal_is_not_repeated(upload, router, model, status, code):
    router.order("POST /parts", status=status, times=None)
    assert upload(model()).exit_status == code
    assert numbers(router) == [1]


def test_a_look_up_that_fails_is_made_again(upload, router, model):
    router.order("POST /parts", drop="after", after_acting=True,
                 when=has_number(2))
    router.order("POST /resume", drop="after")
    shown = upload(model())
    assert shown.exit_status == 0 and numbers(router)[-1] == 3
    assert router.upload_bytes(FIRST) == DATA


def test_no_retries_means_none(upload, router, model):
    router.order("POST /parts", status=500)
    assert upload(model(), "--retries", "0").exit_status == 1
    assert numbers(router) == [1]


def test_a_part_that_the_server_loses_fails_the_whole(upload, router, model):
    path = model()

    def lose(seen):
        router.lose_part(FIRST, 2)
        return False
    router.order("POST /complete", when=lose)
    shown = upload(path)
    assert shown.exit_status == 1 and "--resume " + FIRST in shown.stderr
    assert "part_ids" in shown.stderr
    router.orders.clear()
    again = upload(path, "--resume", FIRST)
    assert again.exit_status == 0 and numbers(router) == [1, 2, 3, 2]


def test_a_file_that_changes_on_the_way_is_refused(upload, router, tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(DATA)

    def change(seen):
        path.write_bytes(DATA[::-1] + b"more")
        return False
    router.order("POST /parts", when=change)
    shown = upload(path)
    assert shown.exit_status in (1, 2) and "internal" not in shown.stderr
    assert router.uploads[FIRST]["status"] != "completed"


@pytest.mark.parametrize("body", [b"5", b"{}", b'{"id": 5}', b"[]", b"null"])
@pytest.mark.parametrize("where", ["/uploads", "/parts"])
def test_an_answer_without_an_id_is_an_error(upload, router, model, where,
                                             body):
    router.order("POST " + where, status=201, body=body)
    shown = upload(model())
    assert shown.exit_status == 1 and "internal" not in shown.stderr


# == resume ==================================================================

def test_only_what_is_missing_is_sent(upload, router, model):
    path = model()
    stop_at(upload, router, path, 2)
    start = len(router.requests)
    shown = upload(path, "--resume", FIRST)
    assert shown.exit_status == 0 and numbers(router, start) == [2, 3]
    assert asked(router)[start:start + 2] == [
        f"GET /uploads/{FIRST}", f"POST /uploads/{FIRST}/resume"]
    assert router.requests[-1].json["sha256"] == digest(DATA)
    assert router.upload_bytes(FIRST) == DATA
    assert len(router.uploads) == 1


def test_a_hole_is_filled(upload, router, model):
    path = model(DATA * 2)
    stop_at(upload, router, path, 6)
    router.lose_part(FIRST, 2)
    router.lose_part(FIRST, 4)
    start = len(router.requests)
    assert upload(path, "--resume", FIRST).exit_status == 0
    assert numbers(router, start) == [2, 4, 6]
    assert router.upload_bytes(FIRST) == DATA * 2


def test_what_lacks_only_its_end_is_completed(upload, router, model):
    path = model()
    router.order("POST /complete", status=400)
    assert upload(path).exit_status == 1
    start = len(router.requests)
    assert upload(path, "--resume", FIRST).exit_status == 0
    assert numbers(router, start) == []
    assert router.uploads[FIRST]["status"] == "completed"


def test_the_size_of_parts_is_that_of_the_upload(upload, router, model):
    path = model()
    stop_at(upload, router, path, 2)
    router.chunk_size = 700
    assert upload(path, "--resume", FIRST).exit_status == 0
    assert router.upload_bytes(FIRST) == DATA


@pytest.mark.parametrize("data", [DATA[1:], DATA + b"x", b"x"])
def test_a_file_of_another_size_is_refused(upload, router, model, data):
    stop_at(upload, router, model(), 2)
    start = len(router.requests)
    shown = upload(model(data), "--resume", FIRST)
    assert shown.exit_status == 2
    assert "2560" in shown.stderr and str(len(data)) in shown.stderr
    assert asked(router)[start:] == [f"GET /uploads/{FIRST}"]


def test_a_file_with_other_bytes_never_becomes_a_model(upload, router, model):
    stop_at(upload, router, model(), 2)
    count = len(router.models)
    shown = upload(model(DATA[::-1]), "--resume", FIRST)
    assert shown.exit_status in (1, 2) or (
        router.upload_bytes(FIRST) == DATA[::-1])
    assert len(router.models) == count + (shown.exit_status == 0)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled",
                                    "expired"])
def test_what_has_ended_cannot_go_on(upload, router, model, status):
    stop_at(upload, router, model(), 2)
    router.uploads[FIRST]["status"] = status
    start = len(router.requests)
    shown = upload(model(), "--resume", FIRST)
    assert shown.exit_status == 1 and status in shown.stderr
    assert asked(router)[start:] == [f"GET /uploads/{FIRST}"]


@pytest.mark.parametrize("status", ["failed", "expired", "cancelled"])
@pytest.mark.parametrize("about", [
    {"error": {"message": "no room\nleft"}}, {"message": "no room\nleft"}])
def test_an_end_that_is_bad_is_a_failure(upload, router, model, status,
                                         about):
    router.order("POST /complete", body=json.dumps(
        dict({"id": FIRST, "status": status}, **about)).encode())
    shown = upload(model())
    assert shown.exit_status == 1 and shown == ""
    assert (f"error: upload {FIRST} is {status}: no room\\nleft"
            in shown.stderr)
    assert "goes on" not in shown.stderr


def test_a_bad_end_is_found_where_the_answer_was_lost(upload, router, model):
    def act(seen):
        router.uploads[FIRST]["status"] = "failed"
        return True
    router.order("POST /complete", status=502, when=act)
    shown = upload(model())
    assert shown.exit_status == 1
    assert f"error: upload {FIRST} is failed" in shown.stderr


# == style openai ============================================================

def test_any_server_is_sent_the_fields_of_openai(upload, openai_router,
                                                 tmp_path):
    path = tmp_path / "in.jsonl"
    path.touch()
    os.truncate(str(path), 2 ** 26 + 1)
    begun, *parts, done = json.loads(upload(
        path, "--style", "openai", "--dry-run", "-o", "json",
        against=openai_router))
    assert set(begun["body"]) == {"purpose", "filename", "bytes",
                                  "mime_type"}
    assert begun["body"]["filename"] == "m"
    assert [list(part["body"]) for part in parts] == [["data"]] * 2
    assert list(done["body"]) == ["part_ids"]


@pytest.mark.parametrize("words", [["--format", "gguf"],
                                   ["--description", "d"]])
def test_what_only_the_platform_takes_is_refused(upload, openai_router, model,
                                                 words):
    shown = upload(model(), *words, "--style", "openai",
                   against=openai_router)
    assert shown.exit_status == 2 and openai_router.requests == []
    assert f"{words[0]} is Xerotier's" in shown.stderr


def test_an_upload_that_is_not_there_cannot_go_on(upload, model):
    shown = upload(model(), "--resume", "nope")
    assert shown.exit_status == 4
    assert "--resume nope" not in shown.stderr


def test_the_command_that_goes_on_can_be_pasted(run, router, model):
    path = model(name="my model's.bin")
    router.order("POST /parts", status=400)
    told = run("upload", path, "my; name").stderr
    line, = [line for line in told.splitlines() if "--resume" in line]
    words = shlex.split(line[line.index("xeroctl"):])
    assert words[:6] == ["xeroctl", "upload", path, "my; name", "--resume",
                         FIRST]


@at_both_ends
def test_a_killed_upload_goes_on_where_it_was(start, run_process, router,
                                              model):
    words = ("upload", model(), "m")
    router.order("POST /parts", hang=True, when=has_number(3))
    process = start(*words)
    until(lambda: numbers(router) == [1, 2, 3] and not router.orders)
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT_S)
    assert run_process(*words, "--resume", FIRST).exit_status == 0
    assert numbers(router) == [1, 2, 3, 3]
    assert router.upload_bytes(FIRST) == DATA


# == a folder ================================================================

FILES = {"b.txt": b"b" * 700, "a/z.bin": b"z" * 1500, "a.txt": b"",
         "a/y/größe 日本.txt": b"y", "a-b": b"x" * 512}


def stored(router, upload_id=FIRST):
    """The members of the tar that was stored, and the bytes of each."""
    source = io.BytesIO(router.upload_bytes(upload_id))
    with tarfile.open(fileobj=source, mode="r:") as tar:
        members = tar.getmembers()
        return members, {each.name: tar.extractfile(each).read()
                         for each in members if each.isfile()}


def test_a_folder_is_sent_as_a_tar(upload, router, folder):
    shown = upload(folder(FILES))
    assert shown.exit_status == 0
    members, found = stored(router)
    assert found == {"my-model/" + name: data
                     for name, data in FILES.items()}
    assert all(each.isfile() for each in members)
    body = router.requests[0].json
    assert body["filename"] == "my-model.tar"
    assert body["bytes"] == len(router.upload_bytes(FIRST))
    assert body["bytes"] % 512 == 0
    assert body["mime_type"] == "application/x-tar"


def test_a_tar_is_sorted_and_owned_by_nobody(upload, router, folder):
    upload(folder(FILES))
    members, _ = stored(router)
    names = [each.name for each in members]
    assert names == sorted(names)
    assert {(each.uid, each.gid, each.uname, each.gname)
            for each in members} == {(0, 0, "", "")}


def test_a_tar_keeps_times_and_who_may_run_it(upload, router, folder):
    root = folder({"run.sh": b"#!", "data": b"x"})
    os.chmod(str(root / "run.sh"), 0o700)
    os.chmod(str(root / "data"), 0o600)
    os.utime(str(root / "data"), (NOW, NOW))
    upload(root)
    members = {each.name: each for each in stored(router)[0]}
    assert members["my-model/run.sh"].mode == 0o755
    assert members["my-model/data"].mode == 0o644
    assert members["my-model/data"].mtime == NOW


def test_the_same_folder_gives_the_same_bytes(upload, router, folder):
    root = folder(FILES)
    upload(root)
    upload(str(root) + os.sep)
    one, other = map(router.upload_bytes, router.uploads)
    assert one == other and one.endswith(bytes(1024))


@pytest.mark.parametrize("chunk", [397, 511, 512, 513, 5000, 100000])
def test_parts_may_end_anywhere_in_a_tar(upload, router, folder, chunk):
    router.chunk_size = chunk
    assert upload(folder(FILES)).exit_status == 0
    assert stored(router)[1] == {"my-model/" + name: data
                                 for name, data in FILES.items()}


def test_long_names_are_kept(upload, router, folder):
    name = "/".join(["d" * 90, "e" * 90, "f" * 200])
    upload(folder({name: b"x"}))
    assert stored(router)[1] == {"my-model/" + name: b"x"}


def test_hidden_files_are_left_out_and_named(upload, router, folder):
    shown = upload(folder({"a": b"a", ".git/config": b"x", ".env": b"x"}))
    assert set(stored(router)[1]) == {"my-model/a"}
    skipped = [line for line in shown.stderr.splitlines()
               if line.startswith("skipped ")]
    assert len(skipped) == 2
    assert any(".git (hidden)" in line for line in skipped)
    assert any(".env (hidden)" in line for line in skipped)


@pytest.fixture
def linked(folder, tmp_path):
    """A folder of links: inside, out of it, to nothing, in a circle."""
    root = folder({"a": b"a", "d/b": b"b"})
    (tmp_path / "blobs/more").mkdir(parents=True)
    (tmp_path / "blobs/1").write_bytes(b"weights")
    (tmp_path / "blobs/more/2").write_bytes(b"more")
    (tmp_path / "blobs/more/back").symlink_to("../../my-model/d")
    for name, target in (("inside", "d/b"), ("same", "d"), ("loop", "."),
                         ("w.bin", "../blobs/1"), ("more", "../blobs/more"),
                         ("d/up", "../more")):
        (root / name).symlink_to(target)
    return root


INSIDE = {"my-model/a": b"a", "my-model/d/b": b"b", "my-model/inside": b"b"}


@pytest.mark.parametrize("more", [[], ["-q"], ["--dry-run"]])
def test_links_that_leave_the_folder_are_refused(upload, router, linked,
                                                 more):
    shown = upload(linked, *more)
    assert shown.exit_status == 2 and router.requests == []
    assert "links lead out of" in shown.stderr and shown == ""
    for name in "w.bin", "more", "d/up":
        assert name in shown.stderr


def test_links_that_leave_the_folder_can_be_left_out(upload, router, linked):
    shown = upload(linked, "--skip-links")
    assert shown.exit_status == 0 and stored(router)[1] == INSIDE
    for name in "w.bin", "more", "d/up":
        assert f"{name} (a link that leaves the folder)" in shown.stderr


@pytest.mark.parametrize("end", ["", "/"])
def test_links_can_be_followed_and_circles_end(upload, router, linked, end):
    shown = upload(str(linked) + end, "--follow-links")
    assert shown.exit_status == 0
    assert stored(router)[1] == dict(INSIDE, **{
        "my-model/" + name: data for name, data in (
            ("w.bin", b"weights"), ("same/b", b"b"), ("more/2", b"more"),
            ("more/back/b", b"b"), ("d/up/2", b"more"),
            ("same/up/2", b"more"))})
    assert "loop (it is in itself)" in shown.stderr


def test_a_folder_of_links_goes_on_with_the_same_links(run, upload, router,
                                                       linked):
    router.order("POST /parts", status=400)
    shown = upload(linked, "--follow-links")
    assert shown.exit_status == 1
    line, = [line for line in shown.stderr.splitlines() if "goes on" in line]
    words = shlex.split(line)[1:-3]
    assert words[-1] == "--follow-links"
    assert run(*words).exit_status == 0
    assert stored(router)[1]["my-model/w.bin"] == b"weights"


@pytest.mark.parametrize("more", [[], ["--follow-links"]])
def test_a_link_to_nothing_is_refused(upload, router, folder, more):
    root = folder({"a": b"a"})
    (root / "w.bin").symlink_to(".git/annex/w.bin")
    shown = upload(root, "-q", *more)
    assert shown.exit_status == 2 and "w.bin" in shown.stderr
    assert router.requests == []
    assert upload(root, "--skip-links", *more).exit_status == 0


@pytest.mark.parametrize("files", [{}, {".hidden": b"x"}])
def test_a_folder_without_files_is_refused(upload, router, folder, tmp_path,
                                           files):
    (tmp_path / "my-model").mkdir()
    shown = upload(folder(files))
    assert shown.exit_status == 2 and "no files" in shown.stderr
    assert router.requests == []


def test_a_folder_goes_on_where_it_was(upload, router, folder):
    root = folder(FILES)
    stop_at(upload, router, root, 3)
    start = len(router.requests)
    assert upload(root, "--resume", FIRST).exit_status == 0
    assert numbers(router, start)[0] == 3
    assert stored(router)[1]["my-model/a/z.bin"] == FILES["a/z.bin"]


@pytest.mark.parametrize("change", [
    lambda path: path.unlink(),
    lambda path: path.write_bytes(b"longer than before" * 100),
    lambda path: path.write_bytes(b""),
    lambda path: os.utime(str(path), (1, 1)),
    lambda path: os.utime(str(path), ns=(0, path.stat().st_mtime_ns ^ 1))])
def test_a_folder_that_changes_on_the_way_is_refused(upload, router, folder,
                                                     change):
    root = folder({"a": b"a" * 3000, "b": b"b"})

    def act(seen):
        change(root / "b")
        return False
    router.order("POST /uploads", when=act)
    shown = upload(root)
    assert shown.exit_status == 2 and "--resume" in shown.stderr
    assert re.search("my-model/b(:| has changed)", shown.stderr)
    assert router.uploads[FIRST]["status"] != "completed"


def test_a_folder_can_be_planned(upload, router, folder):
    shown = upload(folder(FILES), "--dry-run")
    assert '"filename": "my-model.tar"' in shown and router.requests == []


# == uploads =================================================================

@pytest.fixture
def waiting(upload, router, model):
    """An upload that has two of its three parts."""
    stop_at(upload, router, model(), 3)
    del router.requests[:]
    return FIRST


def test_uploads_are_listed(run, router, waiting):
    head, row = run("uploads").splitlines()
    assert head.split() == ["ID", "Filename", "Size", "Status", "Progress",
                            "Created"]
    assert row.split() == [FIRST, "model.bin", "2.6", "KB", "uploading",
                           "78.1%", "2026-02-02", "02:40", "UTC"]
    assert asked(router) == ["GET /uploads"]


@pytest.mark.parametrize("told, shown", [
    ({"progress": None}, "50.0%"), ({}, "50.0%"), ({"progress": 0.5}, "50.0%"),
    ({"progress": 0.4, "uploaded_chunks": 1, "total_chunks": 250}, "0.4%"),
    ({"progress": 100}, "100.0%"), ({"progress": 41.7}, "41.7%"),
    ({"progress": None, "total_chunks": 0}, "-"),
    ({"progress": 0.5, "total_chunks": None}, "50.0%"),
    ({"progress": "half", "total_chunks": None}, "half"),
    ({"uploaded_chunks": 9999, "total_chunks": 10000}, "99.99%")])
def test_progress_is_told_in_per_cent(run, router, told, shown):
    upload = dict({"id": "u", "uploaded_chunks": 2, "total_chunks": 4}, **told)
    router.order("GET /uploads", body=json.dumps({"data": [upload]}).encode())
    router.order("GET /uploads/u", body=json.dumps(upload).encode())
    assert run("uploads").splitlines()[1].split()[-2] == shown
    assert labelled(run("uploads", "u"))["Progress"] == shown


@pytest.mark.parametrize("status", ["pending", "uploading", "completed",
                                    "failed", "cancelled", "expired"])
def test_uploads_of_a_status_are_asked_for(run, router, waiting, status):
    shown = run("uploads", "--status", status, "-o", "id")
    assert asked(router) == [f"GET /uploads?status={status}"]
    assert shown.split() == [FIRST] * (status == "uploading")


def test_an_upload_is_shown(run, router, waiting):
    found = labelled(run("uploads", FIRST))
    assert list(found) == LABELS
    assert [found[label] for label in LABELS] == [
        FIRST, "uploading", "model.bin", "2.6 KB",
        "application/octet-stream", "1.0 KB", "3", "2", "78.1%",
        "2026-02-02 02:40 UTC", "2026-02-03 02:40 UTC"]
    assert asked(router) == [f"GET /uploads/{FIRST}"]


def test_an_upload_is_cancelled(run, router, waiting):
    shown = run("uploads", FIRST, "--cancel", "--force")
    assert shown.exit_status == 0
    assert asked(router) == [f"POST /uploads/{FIRST}/cancel"]
    assert router.uploads[FIRST]["status"] == "cancelled"
    again = run("uploads", FIRST, "--cancel", "--force")
    assert again.exit_status == 1 and "HTTP 409" in again.stderr


def test_an_upload_is_deleted(run, router, waiting):
    shown = run("uploads", FIRST, "--delete", "--force")
    assert shown == f"deleted {FIRST}\n"
    assert asked(router) == [f"DELETE /uploads/{FIRST}"]
    assert FIRST not in router.uploads
    assert run("uploads", FIRST).exit_status == 4


# == progress ================================================================

@pytest.fixture
def bar(router, clock, screen):
    """bar(path) uploads it before a terminal of 80 columns; what it shows."""
    def runner(path):
        terminal = screen()
        streams = xeroctl.Streams(text_stream(), text_stream(),
                                  terminal.stream())
        assert xeroctl.main(("upload", path, "m"), environment(router),
                            streams, clock) == 0
        return terminal.shown()
    return runner


def pass_time(router, clock):
    """Let time pass with each part, or no bar would be drawn anew."""
    def act(seen):
        clock.sleep(1)
        return False
    router.order("POST /parts", when=act)


def test_a_bar_is_for_terminals(bar, router, clock, model, monkeypatch):
    monkeypatch.chdir(os.path.dirname(model(DATA * 4)))
    pass_time(router, clock)
    shown = bar("model.bin")
    assert "uploading model.bin [##" in shown


def test_a_long_path_leaves_room_for_the_figures(bar, router, clock,
                                                 tmp_path):
    path = tmp_path / ("d" * 100) / "model.bin"
    path.parent.mkdir()
    path.write_bytes(DATA * 4)
    pass_time(router, clock)
    assert re.search(r"uploading model.bin \[#+\.*\] .*/", bar(str(path)))
