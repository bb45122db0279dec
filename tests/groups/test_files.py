"""files: what is uploaded, listed, shown, fetched and deleted.

What breaks off and is taken up again stands in test_transfers.py.
"""

import functools
import json
import os
import shutil
import stat
import tempfile
import threading

import pytest

from conftest import at_both_ends, from_system
from helpers import asked, caller, grow

NO_ROOT = 65534

files = caller("files")


@pytest.fixture
def unprivileged():
    """A folder of somebody who is not root, whom modes mean something to."""
    folder = tempfile.mkdtemp(prefix="xeroctl-")
    was_root = os.geteuid() == 0
    if was_root:
        os.chown(folder, NO_ROOT, -1)
        os.seteuid(NO_ROOT)
    yield folder
    if was_root:
        os.seteuid(0)
    for parent, names, _ in os.walk(folder):
        for name in names:  # those that it goes into next
            os.chmod(os.path.join(parent, name), 0o700)
    shutil.rmtree(folder)


@pytest.fixture
def folder(tmp_path):
    """folder({name: bytes}) makes files below data, "a/b" in folders."""
    return functools.partial(grow, tmp_path / "data")


def sent(router):
    """(purpose, relative path, file name, bytes) of each upload."""
    return [(seen.form["purpose"][1].decode(),
             seen.form.get("relative_path", (None, b""))[1].decode(),
             seen.form["file"][0], seen.form["file"][1])
            for seen in router.seen("POST", "/files")]


def stored(router):
    """{relative path: bytes} of all that the router has."""
    return {record["x_relative_path"]: router.file_bytes(file_id)
            for file_id, record in router.files.items()}


def fill(router, *paths, purpose="batch"):
    return [router.add_file(path.split("/")[-1], b"x" * 10, purpose, path)
            for path in paths]


# == list ====================================================================

def test_a_list_shows_what_there_is(files, router):
    router.add_file("in.jsonl", b"x" * 1500, "batch", "a/in.jsonl")
    router.add_file("größe 日本.txt", b"", "assistants")
    assert files() == (
        "ID                             Filename        Purpose     Size    "
        "Status     Created\n"
        "file-000000000000000000000002  größe 日本.txt  assistants  0 B     "
        "processed  2026-02-02 02:40 UTC\n"
        "file-000000000000000000000001  in.jsonl        batch       1.5 KB  "
        "processed  2026-02-02 02:40 UTC\n")
    assert asked(router) == ["GET /files"]


def test_a_wide_list_has_two_columns_more(files, router):
    fill(router, "a/b.txt")
    head, row = files("-o", "csv").splitlines()
    assert head == ("ID,Filename,Purpose,Size,Status,Created,Expires,"
                    "Relative path")
    assert row == ("file-000000000000000000000001,b.txt,batch,10,processed,"
                   "1770000000,,a/b.txt")


@pytest.mark.parametrize("words, target", [
    (["--purpose", "batch"], "/files?purpose=batch"),
    (["--purpose", "x&y=1"], "/files?purpose=x%26y%3D1"),
    (["--limit", "2", "--purpose", "batch"],
     "/files?limit=2&purpose=batch"),
    (["--after", "file-1"], "/files?after=file-1"),
])
def test_flags_of_a_list_are_sent(files, router, words, target):
    files(*words)
    path, _, query = asked(router)[0].partition("?")
    assert path == "GET /files"
    assert sorted(query.split("&")) == sorted(
        target.partition("?")[2].split("&"))


def test_a_purpose_leaves_the_others_out(files, router):
    fill(router, "a", purpose="batch")
    record, = fill(router, "b", purpose="assistants")
    assert files("--purpose", "assistants", "-o", "id") == (
        record["id"] + "\n")


@pytest.mark.parametrize("prefix, names", [
    ("exp/1", ["exp/1/a", "exp/1/b", "exp/10/c"]),
    ("exp/1/", ["exp/1/a", "exp/1/b"]),
    ("", ["exp/1/a", "exp/1/b", "exp/10/c", "other", None]),
    ("none", []),
    ("xp", []),
])
def test_a_prefix_is_looked_for_on_every_page(files, router, prefix, names):
    fill(router, "exp/1/a", "exp/1/b", "exp/10/c", "other")
    router.add_file("no-path", b"")
    fill(router, *(f"zz/{number}" for number in range(120)))
    wanted = {each["id"] for each in router.files.values()
              if each["x_relative_path"] in names or prefix == ""}
    shown = files("--prefix", prefix, "-o", "json")
    page = json.loads(shown)
    assert {each["id"] for each in page["data"]} == wanted
    assert page["has_more"] is False and len(router.requests) == 2


def test_a_prefix_goes_with_a_purpose(files, router):
    fill(router, "a/1", purpose="batch")
    record, = fill(router, "a/2", purpose="assistants")
    assert files("--prefix", "a/", "--purpose", "assistants",
                 "-o", "id") == record["id"] + "\n"
    assert asked(router) == ["GET /files?purpose=assistants&limit=100"]


def test_the_path_may_bear_either_name(files, router):
    router.order("GET /files", body=json.dumps({"data": [
        {"id": "f1", "relative_path": "a/b"},
        {"id": "f2", "x_relative_path": "a/c"},
        {"id": "f3", "x_relative_path": None, "relative_path": "a/d"},
        {"id": "f4", "relative_path": 5}, {"id": "f5"}]}).encode())
    assert files("--prefix", "a/", "-o", "id") == "f1\nf2\nf3\n"


# == tree ====================================================================

def tree_of(files, router, *rows):
    """What --tree shows of (relative path, file name, bytes) rows."""
    router.order("GET /files", body=json.dumps({"data": [
        {"id": f"f{number}", "x_relative_path": path, "filename": name,
         "bytes": size} for number, (path, name, size) in enumerate(rows)
    ]}).encode())
    shown = files("--tree")
    assert shown.exit_status == 0 and shown.stderr == "", shown
    return shown


def test_a_tree_shows_folders_first_and_sizes(files, router):
    assert tree_of(
        files, router, ("b/2.txt", "2.txt", 1500), ("b/1.txt", "1.txt", 5),
        ("b/c/3.txt", "3.txt", 0), ("a.txt", "a.txt", 1),
        (None, "loose.txt", 2500000)) == (
            "├── b/\n"
            "│   ├── c/\n"
            "│   │   └── 3.txt  0 B\n"
            "│   ├── 1.txt  5 B\n"
            "│   └── 2.txt  1.5 KB\n"
            "├── a.txt  1 B\n"
            "└── loose.txt  2.5 MB\n")


@pytest.mark.parametrize("path, name, text", [
    ("a//b", "", "└── a/\n    └── b  1 B\n"),
    ("/a/b/", "", "└── a/\n    └── b  1 B\n"),
    ("../../etc/x", "", "└── ../\n    └── ../\n        └── etc/\n"
                        "            └── x  1 B\n"),
    ("a\nb/c\td", "", "└── a\\nb/\n    └── c\\td  1 B\n"),
    ("größe/日本 x", "", "└── größe/\n    └── 日本 x  1 B\n"),
    ("/", "", "└── /  1 B\n"),
    ("", "x", "└── x  1 B\n"),
    (None, "a/b", "└── a/\n    └── b  1 B\n"),
    (None, "", "└──   1 B\n"),
    (None, None, "└── -  1 B\n"),
    (["a"], {"b": 1}, '└── {"b":1}  1 B\n'),
])
def test_a_tree_takes_odd_names(files, router, path, name, text):
    assert tree_of(files, router, (path, name, 1)) == text


@pytest.mark.parametrize("size, text", [
    (None, "-"), ("5", "5"), (1.5, "1.5 B"), (10 ** 12, "1.0 TB")])
def test_a_tree_takes_odd_sizes(files, router, size, text):
    assert tree_of(files, router, ("a", "a", size)) == f"└── a  {text}\n"


def test_a_file_and_a_folder_of_one_name_are_two(files, router):
    assert tree_of(files, router, ("a", "a", 1), ("a/b", "b", 2)) == (
        "├── a/\n│   └── b  2 B\n└── a  1 B\n")


def test_two_files_of_one_path_are_both_in_the_tree(files, router):
    shown = tree_of(files, router, ("d/a", "a", 1), ("d/a", "a", 2))
    assert sorted(shown.splitlines()) == [
        "    └── a  2 B", "    ├── a  1 B", "└── d/"]


def test_a_tree_may_be_deep(files, router):
    """Its hundredth level has what is left of a path."""
    path = "a/" * 1500 + "b"
    *_, last = lines = tree_of(files, router, (path, "b", 1)).splitlines()
    assert len(lines) == 100
    assert last.split() == ["└──", "a/" * 1401 + "b", "1", "B"]


def test_a_tree_follows_every_page(files, router):
    fill(router, *(f"d/{number:03}" for number in range(150)))
    assert len(files("--tree").splitlines()) == 151
    assert len(router.requests) == 2


@pytest.mark.parametrize("words", [["--prefix", "d/"], ["--tree"]])
def test_a_limit_is_one_of_what_is_shown(files, router, words):
    fill(router, *(f"d/{number:03}" for number in range(150)))
    fill(router, *(f"e/{number:03}" for number in range(101)))
    shown = files(*words, "--limit", "2", "-o", "id")
    first, last = shown.split()
    assert shown.stderr == (f"more exist: --after {last} continues, --all"
                            " shows everything\n")
    page = json.loads(files(*words, "--limit", "2", "-o", "json"))
    assert [each["id"] for each in page["data"]] == [first, last]
    assert (page["has_more"], page["last_id"]) == (True, last)
    rest = files(*words, "--after", last, "-o", "id")
    assert files(*words, "-o", "id") == shown + rest
    every = files(*words, "--all", "--limit", "90", "-o", "id")
    assert every == shown + rest and every.stderr == ""


def test_a_limit_that_all_fit_in_cuts_nothing(files, router):
    fill(router, "d/1", "d/2", "e/1")
    shown = files("--prefix", "d/", "--limit", "2", "-o", "json")
    page = json.loads(shown)
    assert len(page["data"]) == 2 and page["has_more"] is False
    assert shown.stderr == ""


def test_a_tree_may_be_cut(files, router):
    fill(router, "d/1", "d/2", "e/1")
    assert files("--tree", "--limit", "1") == "└── e/\n    └── 1  10 B\n"


def test_a_tree_below_a_prefix(files, router):
    fill(router, "a/1", "b/2")
    assert files("--tree", "--prefix", "b") == "└── b/\n    └── 2  10 B\n"
    shown = files("--tree", "--prefix", "c")
    assert shown == "" and shown.stderr == "No files found.\n"


@pytest.mark.parametrize("form", ["json", "jsonl", "id", "csv"])
def test_a_tree_is_for_people(files, router, form):
    fill(router, "a/1", "b/2")
    assert files("--tree", "-o", form) == files("--all", "-o", form)


# == show ====================================================================

def test_one_file_in_full(files, router):
    record, = fill(router, "a/b.txt", purpose="vision")
    assert files(record["id"]) == (
        "ID:            file-000000000000000000000001\n"
        "Filename:      b.txt\n"
        "Purpose:       vision\n"
        "Status:        processed\n"
        "Size:          10 B\n"
        "Created:       2026-02-02 02:40 UTC\n"
        "Expires:       -\n"
        "Relative path: a/b.txt\n")
    assert json.loads(files(record["id"], "-o", "json")) == record


# == upload of one file ======================================================

@pytest.mark.parametrize("words, purpose, relative", [
    ([], "assistants", ""),
    (["--purpose", "batch"], "batch", ""),
    (["--relative-path", "exp/1/größe x.txt"], "assistants",
     "exp/1/größe x.txt"),
    (["--relative-path", 'a\r\n"b"'], "assistants", 'a\r\n"b"'),
    (["--relative-path=--x"], "assistants", "--x"),
])
def test_a_file_is_uploaded(files, router, tmp_path, words, purpose,
                            relative):
    (tmp_path / "a.txt").write_bytes(b"\0\xff\r\n--\n")
    shown = files("--upload", tmp_path / "a.txt", *words)
    assert shown.exit_status == 0 and shown.stderr == "", shown
    assert sent(router) == [(purpose, relative, "a.txt", b"\0\xff\r\n--\n")]
    assert shown.startswith("ID:            file-000000000000000000000001\n"
                            "Filename:      a.txt\n")
    assert asked(router) == ["POST /files"]


def test_an_upload_shows_what_the_router_made(files, router, tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    assert files("--upload", tmp_path / "a", "-o", "id") == (
        "file-000000000000000000000001\n")
    assert json.loads(files("--upload", tmp_path / "a", "-o", "json")) == (
        router.files["file-000000000000000000000002"])


@pytest.mark.parametrize("data", [b"", b"a\n", b"x" * 200000])
def test_stdin_is_uploaded(files, router, data):
    assert files("--upload", "-", stdin=data).exit_status == 0
    file_id, = router.files
    assert router.file_bytes(file_id) == data
    assert router.files[file_id]["filename"].startswith("stdin")


@pytest.mark.parametrize("name, arrives", [
    ("a b.txt", "a b.txt"),
    ('say "hi".txt', 'say "hi".txt'),
    ("a\nb\r.txt", "a\nb\r.txt"),
    ("größe 日本.txt", "größe 日本.txt"),
    (b"\xff\xc3\xa9".decode("utf-8", "surrogateescape"), "\ufffdé"),
    ("a'b;c=d,e.txt", "a'b;c=d,e.txt"),
    ("-rf", "-rf"),
    ("%41.txt", "%41.txt"),
    ("x" * 250, "x" * 250),
])
def test_a_name_arrives_as_it_is(files, router, tmp_path, name, arrives):
    path = str(tmp_path / from_system(name))
    with open(path, "wb") as target:
        target.write(b"x")
    shown = files("--upload", path)
    assert shown.exit_status == 0, shown
    assert sent(router) == [("assistants", "", arrives, b"x")]


@pytest.mark.parametrize("words, said", [
    (["--upload", "{}/missing"], "missing"),
    (["--upload", "{}"], "--recursive"),
    (["--upload", "{}/missing", "-r"], "missing"),
    (["--upload", "-", "--api-key", "-"], "--api-key"),
])
def test_what_cannot_be_read_is_not_sent(files, router, tmp_path, words,
                                         said):
    shown = files(*(word.format(tmp_path) for word in words), stdin=b"x")
    assert shown.exit_status == 2 and said in shown.stderr, shown
    assert router.requests == []


def test_a_refused_purpose_is_the_routers_word(files, tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    shown = files("--upload", tmp_path / "a", "--purpose", "fun")
    assert shown.exit_status == 1 and shown == ""
    assert shown.stderr.startswith("error: HTTP 400 purpose: must be one of")


def test_what_is_too_large_is_refused_before_sending(files, router,
                                                     tmp_path):
    with open(str(tmp_path / "big"), "wb") as target:
        target.truncate(500 * 1024 * 1024 + 1)      # takes no room
    shown = files("--upload", tmp_path / "big")
    assert shown.exit_status == 2 and shown == ""
    assert shown.stderr.startswith("error: ") and "500 MB" in shown.stderr
    assert router.requests == []


def test_a_smaller_limit_is_the_routers(files, router, tmp_path):
    router.file_limit = 9
    (tmp_path / "a").write_bytes(b"x" * 10)
    shown = files("--upload", tmp_path / "a")
    assert shown.exit_status == 1
    assert shown.stderr.startswith(
        "error: HTTP 413 The file exceeds 9 bytes.")


def test_a_file_that_has_no_size_is_read_to_its_end(files, router):
    # What /proc tells has a size of 0, and is not empty.
    assert files("--upload", "/proc/self/status").exit_status == 0
    (*_, data), = sent(router)
    assert data.startswith(b"Name:")


def test_a_pipe_with_a_name_is_uploaded(files, router, tmp_path):
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    # Open at both ends, so that nobody waits; what is in it stays.
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    os.write(writer, b"x" * 100)
    closer = threading.Timer(0.05, os.close, [writer])
    closer.start()
    shown = files("--upload", path)
    closer.join()
    os.close(reader)
    assert shown.exit_status == 0
    assert sent(router) == [("assistants", "", "pipe", b"x" * 100)]


# == upload of a folder ======================================================

def test_a_folder_keeps_its_paths(files, router, folder):
    root = folder({"b.txt": b"b", "a.txt": b"a", "sub/deep/c.txt": b"c",
                   "sub/empty.txt": b""})
    shown = files("--upload", root, "-r", "--purpose", "batch")
    assert shown.exit_status == 0 and shown.stderr == "", shown
    assert stored(router) == {
        "data/a.txt": b"a", "data/b.txt": b"b", "data/sub/deep/c.txt": b"c",
        "data/sub/empty.txt": b""}
    ids = {record["x_relative_path"]: file_id
           for file_id, record in router.files.items()}
    assert sorted(shown.splitlines()) == sorted(
        f"[OK] {path} -> {file_id}" for path, file_id in ids.items())
    assert {purpose for purpose, *_ in sent(router)} == {"batch"}
    assert sent(router)[0][2] == "a.txt"


@pytest.mark.parametrize("written_as", ["{}", "{}/", "{}/sub/..", "{}/."])
def test_a_folder_has_its_own_name(files, router, folder, written_as):
    root = folder({"a": b"x", "sub/b": b"y"})
    files("--upload", written_as.format(root), "-r")
    assert set(stored(router)) == {"data/a", "data/sub/b"}


@pytest.mark.parametrize("top, path", [
    ("exp/1", "exp/1/a"), ("exp/1/", "exp/1/a"), ("/", "/a"),
    ("", "a")])
def test_a_folder_may_be_put_elsewhere(files, router, folder, top, path):
    files("--upload", folder({"a": b"x"}), "-r", "--relative-path", top)
    assert set(stored(router)) == {path}


ODD_NAMES = ("a b", 'say "hi"', "größe 日本", "-o", "a'b;c", "%41", "x\\y",
             "tab\there", "line\nend")


def test_odd_names_in_a_folder_arrive(files, router, folder):
    root = folder({f"{name}/{name}": b"x" for name in ODD_NAMES})
    shown = files("--upload", root, "-r")
    assert shown.exit_status == 0 and shown.stderr == "", shown
    assert set(stored(router)) == {f"data/{name}/{name}"
                                   for name in ODD_NAMES}
    assert len(shown.splitlines()) == len(ODD_NAMES)
    assert "[OK] data/line\\nend/line\\nend -> file-" in shown


def test_a_name_that_is_no_text_arrives_as_far_as_it_goes(files, router,
                                                          folder):
    root = folder({})
    with open(os.fsencode(str(root)) + b"/a\xff", "wb") as target:
        target.write(b"x")
    shown = files("--upload", root, "-r")
    assert shown.exit_status == 0
    assert sent(router) == [("assistants", "data/a\ufffd", "a\ufffd", b"x")]
    assert shown.startswith("[OK] data/a\ufffd -> file-"), shown
    assert json.loads(files("--upload", root, "-r", "-o", "json"))["data"]


def lines_of(shown, word):
    return sorted(line for line in shown.splitlines() if word in line)


def test_hidden_files_are_skipped_and_named(files, router, folder):
    root = folder({".env": b"KEY", ".git/config": b"x", "a": b"x",
                   "sub/.hidden/b": b"x", "sub/..c": b"x"})
    shown = files("--upload", root, "-r")
    assert shown.exit_status == 0 and set(stored(router)) == {"data/a"}
    assert lines_of(shown.stderr, "skipped") == sorted(
        f"skipped {root}/{name} (hidden)"
        for name in (".env", ".git", "sub/.hidden", "sub/..c"))


def test_what_was_skipped_is_no_result(files, folder):
    root = folder({".env": b"KEY", "a": b"x"})
    shown = files("--upload", root, "-r", "-q")
    assert shown.stderr == "" and ".env" not in shown
    shown = files("--upload", root, "-r", "-o", "json")
    assert [each["relative_path"] for each in json.loads(shown)["data"]] == [
        "data/a"]
    assert "skipped" in shown.stderr


def test_links_inside_are_followed_and_links_outside_are_not(
        files, router, folder, tmp_path):
    root = folder({"a": b"inside", "sub/b": b"x"})
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "data2").mkdir()
    (tmp_path / "data2" / "near").write_bytes(b"outside")
    for name, target in (
            ("in", "a"), ("sub/up", "../a"), ("absolute", root / "a"),
            ("out", "../secret"), ("etc", "/etc/hostname"),
            ("sibling", "../data2/near"), ("folder-out", tmp_path),
            ("twice", "out"), ("dangling", "nowhere"),
            ("sub/above", "../..")):
        os.symlink(str(target), str(root / name))
    shown = files("--upload", root, "-r", "-q")
    assert shown.exit_status == 2 and router.requests == []
    for name in ("out", "etc", "sibling", "folder-out", "twice", "dangling",
                 "sub/above"):
        assert name in shown.stderr
    shown = files("--upload", root, "-r", "--skip-links")
    assert shown.exit_status == 0, shown
    assert stored(router) == {
        "data/a": b"inside", "data/in": b"inside", "data/sub/b": b"x",
        "data/sub/up": b"inside", "data/absolute": b"inside"}
    for name in ("out", "etc", "sibling", "folder-out", "twice", "sub/above"):
        assert (f"skipped {root}/{name} (a link that leaves the folder)"
                in shown.stderr)
    assert f"skipped {root}/dangling (" in shown.stderr


def test_loops_of_links_end(files, router, folder):
    root = folder({"a": b"x", "sub/b": b"y"})
    for name, target in (("me", "me"), ("sub/loop", "."), ("one", "two"),
                         ("two", "one"), ("sub/top", ".."),
                         ("also", "sub")):
        os.symlink(target, str(root / name))
    shown = files("--upload", root, "-r", "--skip-links")
    assert shown.exit_status == 0
    assert set(stored(router)) == {"data/a", "data/sub/b"}
    assert len(lines_of(shown.stderr, "skipped")) == 6


def test_links_outside_can_be_followed(files, router, folder, tmp_path):
    root = folder({"a": b"x"})
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_bytes(b"weights")
    os.symlink("../blobs", str(root / "sub"))
    os.symlink("../data", str(tmp_path / "blobs" / "back"))
    shown = files("--upload", root, "-r", "--follow-links")
    assert shown.exit_status == 0
    assert stored(router) == {"data/a": b"x", "data/sub/1": b"weights"}


def test_any_server_finds_the_path_in_the_name(files, openai_router, folder):
    root = folder({"a": b"x", "sub/b": b"y"})
    openai = {"against": openai_router, "XEROTIER_STYLE": "openai"}
    assert files("--upload", root, "-r", **openai).exit_status == 0
    assert [seen.form["file"][0] for seen in openai_router.requests] == [
        "data/a", "data/sub/b"]
    assert not any("relative_path" in seen.form
                   for seen in openai_router.requests)
    assert files("--upload", root / "a", **openai).exit_status == 0
    assert openai_router.requests[-1].form["file"][0] == "a"


def test_any_server_is_asked_for_paths_in_names(files, openai_router):
    openai_router.order("GET /files", body=json.dumps({"data": [
        {"id": "file-1", "filename": "data/a"},
        {"id": "file-2", "filename": "data"}]}).encode())
    shown = files("--prefix", "data", "-o", "id", against=openai_router,
                  XEROTIER_STYLE="openai")
    assert shown.splitlines() == ["file-1"]


@pytest.mark.parametrize("more", [[], ["-r"]])
def test_any_server_has_no_relative_path(files, openai_router, folder, more):
    root = folder({"a": b"x"})
    shown = files("--upload", root if more else root / "a", *more,
                  "--relative-path", "b", "--style", "openai",
                  against=openai_router)
    assert shown.exit_status == 2 and openai_router.requests == []
    assert "--relative-path is Xerotier's" in shown.stderr


def test_a_link_to_a_folder_is_a_folder_when_it_is_named(files, router,
                                                         folder, tmp_path):
    folder({"a": b"x"})
    os.symlink("data", str(tmp_path / "link"))
    assert files("--upload", tmp_path / "link", "-r").exit_status == 0
    assert set(stored(router)) == {"link/a"}


def test_what_is_no_file_is_skipped_and_named(files, router, folder):
    root = folder({"a": b"x"})
    os.mkfifo(str(root / "pipe"))
    shown = files("--upload", root, "-r")
    assert shown.exit_status == 0 and set(stored(router)) == {"data/a"}
    assert f"skipped {root}/pipe (no regular file)" in shown.stderr


@pytest.mark.parametrize("inside", [{}, {".hidden": b"x"}])
def test_an_empty_folder_is_told(files, router, folder, inside):
    root = folder(inside)
    (root / "sub").mkdir()
    shown = files("--upload", root, "-r")
    assert shown.exit_status == 2 and router.requests == []
    assert f"there are no files in {root}" in shown.stderr


def test_a_failure_does_not_stop_the_others(files, router, folder):
    root = folder({"a": b"x", "b": b"y", "c": b"z"})
    router.order("POST /files", status=400, message="not\nthis one",
                 when=lambda seen: seen.form["file"][0] == "b")
    shown = files("--upload", root, "-r")
    assert shown.exit_status == 1
    assert shown.splitlines() == [
        "[OK] data/a -> file-000000000000000000000001",
        "[FAIL] data/b (HTTP 400 not\\nthis one)",
        "[OK] data/c -> file-000000000000000000000002"]
    assert shown.stderr.startswith("error: 2 of 3 files uploaded\n")


def test_a_bulk_result_is_one_document(files, router, folder):
    root = folder({"a": b"x", "b": b"y"})
    router.order("POST /files", status=400, message="no",
                 when=lambda seen: seen.form["file"][0] == "b")
    shown = files("--upload", root, "-r", "-o", "json")
    assert shown.exit_status == 1
    assert json.loads(shown) == {"object": "list", "data": [
        {"id": "file-000000000000000000000001", "ok": True, "error": None,
         "relative_path": "data/a"},
        {"id": None, "ok": False, "error": "HTTP 400 no",
         "relative_path": "data/b"}]}


def test_a_bulk_result_in_other_forms(files, folder):
    root = folder({"a": b"x", "b": b"y"})
    assert len(files("--upload", root, "-r", "-o", "id").split()) == 2
    assert [json.loads(line)["ok"] for line in files(
        "--upload", root, "-r", "-o", "jsonl").splitlines()] == [True, True]


def test_a_large_file_in_a_folder_fails_alone(files, router, folder):
    root = folder({"a": b"x", "z": b""})
    with open(str(root / "z"), "wb") as target:
        target.truncate(500 * 1024 * 1024 + 1)
    shown = files("--upload", root, "-r")
    assert shown.exit_status == 1 and set(stored(router)) == {"data/a"}
    assert "\n[FAIL] data/z (" in shown and "500 MB" in shown


def test_an_unreadable_file_fails_alone(files, router, unprivileged):
    for name in "abc":
        with open(os.path.join(unprivileged, name), "wb") as target:
            target.write(b"x")
    files()
    os.chmod(os.path.join(unprivileged, "b"), 0)
    shown = files("--upload", unprivileged, "-r")
    assert shown.exit_status == 1 and len(stored(router)) == 2
    assert len(lines_of(shown, "[OK]")) == 2
    assert "Permission denied" in lines_of(shown, "[FAIL]")[0]


def test_an_unreadable_folder_is_told_before_sending(files, router,
                                                     unprivileged):
    os.mkdir(os.path.join(unprivileged, "sub"))
    with open(os.path.join(unprivileged, "a"), "wb") as target:
        target.write(b"x")
    files()
    os.chmod(os.path.join(unprivileged, "sub"), 0)
    shown = files("--upload", unprivileged, "-r")
    assert shown.exit_status == 2 and stored(router) == {}
    assert "/sub: Permission denied" in shown.stderr


@pytest.mark.parametrize("status, code, times", [(401, 3, 1), (403, 1, 2)])
def test_a_refused_key_ends_all(files, router, folder, status, code, times):
    root = folder({"a": b"x", "b": b"y"})
    router.order("POST /files", status=status, times=None)
    assert files("--upload", root, "-r").exit_status == code
    assert len(router.requests) == times


def test_without_a_deployment_no_file_is_tried(files, folder):
    root = folder({"a": b"x", "b": b"y"})
    shown = files("--upload", root, "-r", against=None)
    assert shown.exit_status == 3 and shown == ""
    assert "[FAIL]" not in shown


# == delete ==================================================================

def test_delete_as_json(files, router):
    record, = fill(router, "a")
    assert json.loads(files(record["id"], "--delete", "-y", "-o", "json")) == {
        "id": record["id"], "object": "file", "deleted": True}


# == dry runs and curl =======================================================

def test_a_dry_run_of_an_upload(files, router, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x")
    shown = files("--upload", tmp_path / "a.txt", "--dry-run", "-o", "json",
                  "--relative-path", "p/a.txt")
    assert shown.exit_status == 0 and router.requests == []
    plan = json.loads(shown)
    assert (plan["method"], plan["url"]) == ("POST",
                                             router.base_url + "/files")
    assert plan["body"]["purpose"] == "assistants"
    assert plan["body"]["relative_path"] == "p/a.txt"
    assert plan["body"]["file"].endswith("a.txt")


def test_a_dry_run_of_a_folder_shows_each_upload(files, router, folder):
    root = folder({"a": b"x", "b": b"y"})
    shown = files("--upload", root, "-r", "--dry-run", "-o", "json")
    assert shown.exit_status == 0 and router.requests == []
    assert [plan["body"]["relative_path"] for plan in json.loads(shown)] == [
        "data/a", "data/b"]
    assert "[OK]" not in files("--upload", root, "-r", "--dry-run")


def test_a_dry_run_refuses_what_would_fail(files, router, tmp_path):
    with open(str(tmp_path / "big"), "wb") as target:
        target.truncate(500 * 1024 * 1024 + 1)
    shown = files("--upload", tmp_path / "big", "--dry-run")
    assert shown.exit_status == 2 and shown == ""


@pytest.mark.parametrize("how", ["--dry-run", "--curl"])
@pytest.mark.parametrize("place", ["-", "{}/x", "{}"])
def test_a_planned_download_writes_nothing(files, router, tmp_path, how,
                                           place):
    record = router.add_file("served", b"data")
    shown = files(record["id"], "--download", place.format(tmp_path), how)
    assert shown.exit_status == 0 and os.listdir(str(tmp_path)) == []
    assert f"{router.base_url}/files/{record['id']}/content" in shown
    assert router.seen("GET", "/content") == []


def test_curl_shows_a_command_that_works(files, router, tmp_path):
    """The file is named by its path, and nothing in a text is a file."""
    (tmp_path / "a b.txt").write_bytes(b"x")
    shown = files("--upload", tmp_path / "a b.txt", "--curl",
                  "--relative-path", "@/etc/passwd")
    assert router.requests == [] and "$XEROTIER_API_KEY" in shown
    assert router.key not in shown
    assert f'file=@"{tmp_path}/a b.txt";filename="a b.txt"' in shown
    assert "--form-string relative_path=@/etc/passwd" in shown


# == download ================================================================

DATA = bytes(range(256)) * 300


def test_a_file_is_downloaded_to_a_path(files, router, tmp_path):
    record = router.add_file("served", DATA)
    target = tmp_path / "out file"
    shown = files(record["id"], "--download", target)
    assert shown == f"{record['id']} -> {target} (76.8 KB)\n"
    assert shown.stderr == "" and shown.exit_status == 0
    assert target.read_bytes() == DATA
    assert os.listdir(str(tmp_path)) == ["out file"]
    assert asked(router) == [f"GET /files/{record['id']}",
                             f"GET /files/{record['id']}/content"]


def test_a_download_is_told_as_json(files, router, tmp_path):
    record = router.add_file("served", b"abc")
    shown = files(record["id"], "--download", tmp_path / "x", "-o", "json")
    assert json.loads(shown) == {"id": record["id"], "bytes": 3,
                                 "path": str(tmp_path / "x")}


@pytest.mark.parametrize("form", ["table", "json", "id"])
def test_stdout_gets_the_bytes_alone(run_bytes, router, form):
    record = router.add_file("served", DATA)
    words = "files", record["id"], "--download", "-"
    assert run_bytes(*words, "-o", form) == (
        0, DATA, f"{record['id']} -> - (76.8 KB)\n")
    assert run_bytes(*words, "-q") == (0, DATA, "")


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537])
def test_any_size_is_downloaded(files, router, tmp_path, size):
    record = router.add_file("served", b"x" * size)
    files(record["id"], "--download", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"x" * size


def test_an_existing_file_that_is_named_is_replaced(files, router, tmp_path):
    record = router.add_file("served", b"new")
    (tmp_path / "x").write_bytes(b"old, and longer")
    assert files(record["id"], "--download", tmp_path / "x").exit_status == 0
    assert (tmp_path / "x").read_bytes() == b"new"


SERVED_NAMES = [
    ("plain.txt", "plain.txt"),
    ("größe 日本.txt", "größe 日本.txt"),
    ("../../up.txt", None),
    ("..", None),
    (".", None),
    ("...", None),
    ("/etc/passwd", None),
    ("C:\\x.txt", None),
    ("..\\up", None),
    ("a/b", None),
    ("a\nb\x1b[2J\0.txt", None),
    ("safe\u202egpj.exe", None),
    ("", None),
    (" ", None),
    (".bashrc", None),
    (" .bashrc", None),
    ("\u00a0.bashrc", None),
    ("/.bashrc", None),
    ("x" * 300 + ".txt", None),
    ("日" * 200, None),
    ("y" * 199 + " z", None),
    ("\ud800x", None),
    (None, None),
    (5, None),
    (["a"], None),
    ({"../x": 1}, None),
]


@pytest.mark.parametrize("name, exactly", SERVED_NAMES)
def test_a_served_name_stays_in_the_folder(files, router, tmp_path, name,
                                           exactly):
    record = router.add_file("x", b"data")
    file_id = record["id"]
    router.files[file_id]["filename"] = "x"
    router.order(f"GET /files/{file_id}", body=json.dumps(
        dict(record, filename=name)).encode())
    inside = tmp_path / "in"
    inside.mkdir()
    shown = files(file_id, "--download", inside)
    assert shown.exit_status == 0, shown
    made, = os.listdir(str(inside))
    assert (inside / made).read_bytes() == b"data"
    assert made == (exactly or made)
    assert not made.startswith(".") and made == made.strip()
    assert not set(made) & set("/\\:\n\t\0\x1b\u202e")
    assert len(os.fsencode(made)) <= 255 - len(".part.json")
    assert os.listdir(str(tmp_path)) == ["in"]


def test_a_nameless_file_is_named_by_its_id(files, router, tmp_path):
    record = router.add_file("", b"data")
    files(record["id"], "--download", tmp_path)
    assert os.listdir(str(tmp_path)) == [record["id"]]


def test_a_served_name_replaces_nothing(files, router, tmp_path):
    record = router.add_file("x", b"new")
    (tmp_path / "x").write_bytes(b"mine")
    shown = files(record["id"], "--download", tmp_path)
    assert shown.exit_status == 2 and "--force" in shown.stderr
    assert (tmp_path / "x").read_bytes() == b"mine"
    assert router.seen("GET", "/content") == []
    shown = files(record["id"], "--download", tmp_path, "--force")
    assert shown.exit_status == 0
    assert (tmp_path / "x").read_bytes() == b"new"


def test_a_served_name_replaces_nothing_that_came_meanwhile(files, router,
                                                            tmp_path):
    record = router.add_file("x", b"new")

    def make_one(_):
        (tmp_path / "x").write_bytes(b"mine")
        return False
    router.order("GET /content", when=make_one)
    shown = files(record["id"], "--download", tmp_path)
    assert (tmp_path / "x").read_bytes() == b"mine"
    assert shown.exit_status == 2


def test_a_served_name_does_not_go_through_a_dangling_link(files, router,
                                                           tmp_path):
    record = router.add_file("x", b"new")
    inside = tmp_path / "in"
    inside.mkdir()
    os.symlink("../elsewhere", str(inside / "x"))
    shown = files(record["id"], "--download", inside)
    assert shown.exit_status == 2 and not (tmp_path / "elsewhere").exists()


def test_a_served_name_spares_a_part_of_somebody_else(files, router,
                                                      tmp_path):
    record = router.add_file("x", b"new")
    (tmp_path / "x.part").write_bytes(b"mine, of another program")
    files(record["id"], "--download", tmp_path)
    assert (tmp_path / "x.part").read_bytes() == b"mine, of another program"


def test_a_served_name_that_is_a_folder_is_refused(files, router, tmp_path):
    record = router.add_file("x", b"new")
    (tmp_path / "x").mkdir()
    for words in ([], ["--force"]):
        shown = files(record["id"], "--download", tmp_path, *words)
        assert shown.exit_status == 2 and os.listdir(str(tmp_path)) == ["x"]


def test_a_file_that_is_not_there_writes_nothing(files, router, tmp_path):
    for place in (tmp_path, tmp_path / "x"):
        shown = files("file-none", "--download", place)
        assert shown.exit_status == 4 and shown == ""
        assert os.listdir(str(tmp_path)) == []


def test_a_link_to_a_folder_is_that_folder(files, router, tmp_path):
    record = router.add_file("x", b"new")
    (tmp_path / "real").mkdir()
    os.symlink("real", str(tmp_path / "link"))
    files(record["id"], "--download", tmp_path / "link")
    assert (tmp_path / "real" / "x").read_bytes() == b"new"


@pytest.mark.parametrize("through_link", [False, True])
def test_a_device_stays_a_device(files, router, tmp_path, device,
                                 through_link):
    record, node = router.add_file("x", DATA), device("null")
    path = str(tmp_path / "link") if through_link else node
    if through_link:
        os.symlink(node, path)
    before = os.listdir(str(tmp_path))
    shown = files(record["id"], "--download", path)
    assert shown.exit_status == 0 and "76.8 KB" in shown
    assert stat.S_ISCHR(os.stat(node).st_mode)
    assert os.path.islink(path) == through_link
    assert os.listdir(str(tmp_path)) == before


def test_stdout_may_be_two_things_that_say_dash(files, router):
    record = router.add_file("x", b"abc")
    shown = files(record["id"], "--download", "-", "--api-key", "-",
                  stdin=router.key.encode(), XEROTIER_API_KEY=None)
    assert shown == "abc" and shown.exit_status == 0


# == from beginning to end ===================================================

def test_what_goes_up_comes_down_and_goes_away(files, router, folder,
                                               tmp_path):
    root = folder({"a.bin": DATA, "sub/größe.txt": b"x"})
    shown = files("--upload", root, "-r", "-o", "json")
    ids = {each["relative_path"]: each["id"]
           for each in json.loads(shown)["data"]}
    assert files("--tree") == (
        "└── data/\n    ├── sub/\n    │   └── größe.txt  1 B\n"
        "    └── a.bin  76.8 KB\n")
    (tmp_path / "back").mkdir()
    for file_id in ids.values():
        assert files(file_id, "--download",
                     tmp_path / "back").exit_status == 0
    assert (tmp_path / "back" / "a.bin").read_bytes() == DATA
    there = tmp_path / "back" / from_system("größe.txt")
    assert there.read_bytes() == b"x"
    for file_id in ids.values():
        assert files(file_id, "--delete", "-y").exit_status == 0
    assert files("-o", "id") == ""


@at_both_ends
def test_names_are_utf_8_in_any_locale(run_process, router, tmp_path):
    record = router.add_file("größe.out", b"abc")
    name = os.path.join(os.fsencode(str(tmp_path)), "größe".encode())
    os.mkdir(name)
    with open(name + "/ö.txt".encode(), "wb") as target:
        target.write(b"x")
    path = f"{tmp_path}/größe"
    shown = run_process("files", "--upload", path, "-r", LC_ALL="C")
    assert shown.startswith("[OK] größe/ö.txt -> "), shown
    assert run_process("files", "--upload", path + "/ö.txt",
                       LC_ALL="C").exit_status == 0
    assert [row[1:3] for row in sent(router)] == [
        ("größe/ö.txt", "ö.txt"), ("", "ö.txt")]
    for place in (path, path + "/ä"):
        shown = run_process("files", record["id"], "--download", place,
                            LC_ALL="C")
        assert shown.exit_status == 0 and "größe" in shown, shown
    assert sorted(os.listdir(name)) == sorted(
        word.encode() for word in ("ä", "ö.txt", "größe.out"))
