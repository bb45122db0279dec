"""Every file that the program writes: old or new, never torn.

A scene is a command that writes a file.  Its calls of the file system are
counted; at each of them the process is killed, before it or with half of a
block written, or meets the error of a disk that is full, failing or shut.
Then the file is the old one or the new one, whole, and the same command does
the rest.  Run as a program, this file starts commands as forks of itself.
"""

import contextlib
import errno
import fnmatch
import functools
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile

import pytest

import xeroctl
from conftest import (IS_FULL, ROOT, SCRIPT, FakeClock, Result, costly,
                      environment, text_stream, written)
from helpers import most_bytes
from router import Router

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX files")

DATA = bytes(range(256)) * 800          # four blocks of the router
OLD = b"what was there before\n"
SAY = "POST /chat/completions"
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


# == the scenes ==============================================================

class Scene:
    """A command that writes a file, which has an old content or none.

    {at} in its words is the folder, {file} and {export} are ids.  shape()
    of a content is what one run has in common with the next; codes are the
    exit codes of a failure, again that of the command when it was done.
    """

    def __init__(self, argv, name, old, codes, again=0, typed=None,
                 shape=bytes, is_private=False):
        self.argv, self.name, self.old = argv.split(), name, old
        self.codes, self.again, self.typed = codes, again, typed
        self.shape, self.is_private = shape, is_private


def ids_of(data):
    """The ids of result lines, each of which is whole."""
    assert not data or data.endswith(b"\n")
    return [json.loads(line.decode())["custom_id"]
            for line in data.splitlines()]


def entries(data):
    """The messages of a history; a line that was torn is none."""
    found = []
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            found.append(json.loads(line.decode()))
    return found


KEYED = b"""\
# mine
current = "prod"

[deployment.prod]
base_url = "http://127.0.0.1:1/p/v1"
api_key = "xero_p_0000"
endpoint = "demo"   # kept

[deployment.dev]
base_url = "http://127.0.0.1:1/d/v1"
api_key_env = "KEY"
"""
ADD = ("config add next --base-url http://127.0.0.1:1/p/v1 --api-key"
       " xero_p_1111 --force")
SESSION = "chat send --endpoint demo --interactive"
EMBED = "embeddings --endpoint demo --input-file {at}/in.txt --output-file "
RUN = ("batches run --endpoint demo --input {at}/in.jsonl --output-file"
       " {at}/out.jsonl --force")
LINES = b"".join(b'"%d"\n' % number for number in range(1000))
RESULT = b'{"custom_id":"old"}\n'


def config(argv, old=KEYED, **more):
    return Scene(argv, "config.toml", old, {3}, is_private=True, **more)


SCENES = {
    "first": config(ADD, None),
    "add": config(ADD),
    "set": config("config set prod endpoint other"),
    "unset": config("config unset prod endpoint", again=2),
    "use": config("config use dev"),
    "remove": config("config remove dev -y", again=3),
    "save": Scene(SESSION + " --no-history", "chat.json", OLD, {0},
                  typed=["one", "/save! {at}/chat.json"], is_private=True),
    "trim": Scene(SESSION, "xeroctl/history", LINES, (), typed=["one"],
                  shape=entries, is_private=True),
    "npy": Scene(EMBED + "{at}/out.npy", "out.npy", OLD, {1, 2}),
    "jsonl": Scene(EMBED + "{at}/out.jsonl", "out.jsonl", OLD, {1, 2}),
    "file": Scene("files {file} --download {at}/out", "out", OLD, {1, 2}),
    "export": Scene("exports download {export} --output-file {at}/out",
                    "out", None, {1, 2}),
    "batches": Scene(RUN, "out.jsonl", RESULT, {1, 2}, shape=ids_of),
    "direct": Scene(RUN + " --direct --concurrency 2", "out.jsonl", RESULT,
                    {1, 2}, shape=ids_of),
}


class Typist:
    """A terminal in the place of stdin, and who sits at it."""

    def __init__(self, lines):
        self.lines = list(lines)

    def isatty(self):
        return True

    def readline(self):
        line = self.lines.pop(0) + "\n" if self.lines else ""
        return line.encode("utf-8", "surrogateescape")


def streams_of(typed):
    stdin = text_stream() if typed is None else Typist(typed)
    return xeroctl.Streams(stdin, text_stream(), text_stream())


def request_line(custom_id):
    return json.dumps({
        "custom_id": custom_id, "method": "POST",
        "url": "/v1/chat/completions", "body": {
            "model": "demo", "messages": [
                {"role": "user", "content": "say " + custom_id}]}}) + "\n"


class Stage:
    """A folder of its own for a scene, with what the command finds there."""

    def __init__(self, scene, folder, router, ids):
        self.scene, self.folder, self.router = scene, str(folder), router
        self.words = Words(self.folder, ids)
        self.path = os.path.join(self.folder, scene.name)
        os.makedirs(os.path.dirname(self.path))
        self.write("in.txt", b"".join(b"%d\n" % n for n in range(300)))
        self.write("in.jsonl", "".join(map(request_line, "abc")).encode())
        if scene.old is not None:
            self.write(scene.name, scene.old)
            os.chmod(self.path, 0o600)

    def write(self, name, data):
        with open(os.path.join(self.folder, name), "wb") as target:
            target.write(data)

    def order(self):
        """What main() is called with: (argv, environment, typed lines)."""
        def fill(lines):
            return [line.format_map(self.words) for line in lines]
        typed = self.scene.typed
        return (fill(self.scene.argv), environment(
            self.router, XEROTIER_CONFIG=self.folder + "/config.toml",
            XDG_STATE_HOME=self.folder),
            None if typed is None else fill(typed))

    def run(self):
        argv, environ, typed = self.order()
        streams = streams_of(typed)
        status = xeroctl.main(argv, environ, streams, FakeClock())
        return Result(written(streams.stdout), written(streams.stderr),
                      status)

    def content(self):
        """The shape of what stands in the place now; None for nothing."""
        if not os.path.lexists(self.path):
            return None
        with open(self.path, "rb") as source:
            return self.scene.shape(source.read())

    def old(self):
        old = self.scene.old
        return None if old is None else self.scene.shape(old)

    def names(self):
        """All files in the folder, those of temporary names left out."""
        return {name for name in self.all_names()
                if not fnmatch.fnmatch(name, "*.tmp")}

    def all_names(self):
        return {os.path.relpath(os.path.join(parent, name), self.folder)
                for parent, _, names in os.walk(self.folder)
                for name in names}


@pytest.fixture
def router():
    """A router at the time of FakeClock."""
    with Router(clock=FakeClock().now) as router:
        yield router


class Words(dict):
    """What the words of a scene stand for; ids are made as they are used."""

    def __init__(self, at, make):
        super().__init__(at=at)
        self.make = make

    def __missing__(self, name):
        return self.make[name]()


@pytest.fixture
def ids(router, run):
    """{name: function} of the ids that the words of scenes name."""
    @functools.lru_cache(maxsize=None)
    def file():
        return router.add_file("served", DATA)["id"]

    @functools.lru_cache(maxsize=None)
    def export():
        run("chat", "--endpoint", "demo", "-m", "hi")
        return run("exports", "create", "usage", "--from", "2d", "--wait",
                   "-o", "id").strip()
    return {"file": file, "export": export}


@pytest.fixture
def stage(router, ids, tmp_path):
    """stage(scene) is a fresh folder with what the scene begins with."""
    count = [0]

    def maker(scene, folder=tmp_path):
        count[0] += 1
        return Stage(scene, os.path.join(str(folder), str(count[0])),
                     router, ids)
    return maker


# == the file system =========================================================

class Raw(io.FileIO):
    """A file whose writes are counted, under the buffer of Python."""

    def __init__(self, disk, number, mode):
        super().__init__(number, mode)
        self.disk = disk

    def write(self, block):
        then = self.disk.step("write")
        if not then:
            return super().write(block)
        count = super().write(bytes(block)[:(len(block) + 1) // 2])
        then()
        return count

    def truncate(self, size=None):
        self.disk.step("truncate")
        return super().truncate(size)

    def close(self):
        is_news = not self.closed
        super().close()
        if is_news:
            self.disk.step("close")


class Disk:
    """Counts what a process does to the files of a folder.

    act(number, kind) is asked before each step (after it, if it is a close)
    and may kill or raise.  Where it returns a function, a write takes only
    half of its block, and then calls it.
    """

    def __init__(self, folder, act=None):
        self.folder, self.act = folder, act
        self.steps, self.placed, self.numbers = [], set(), set()

    def step(self, kind):
        self.steps.append(kind)
        return self.act and self.act(len(self.steps), kind)

    def is_ours(self, path):
        return isinstance(path, str) and path.startswith(self.folder)

    def open(self, path, flags, mode=0o777, **more):
        is_ours = self.is_ours(path) and flags & os.O_CREAT
        if is_ours:
            self.step("open")
        number = self.real["open"](path, flags, mode, **more)
        self.numbers.discard(number)
        if is_ours:
            self.numbers.add(number)
        return number

    def fdopen(self, number, mode="r", *more, **named):
        if number not in self.numbers:
            return self.real["fdopen"](number, mode, *more, **named)
        buffer = io.BufferedRandom if "+" in mode else io.BufferedWriter
        return buffer(Raw(self, number, mode))

    def fsync(self, number):
        if number in self.numbers:
            self.step("fsync")
        self.real["fsync"](number)

    def mkdir(self, path, *more, **named):
        if self.is_ours(path):
            self.step("mkdir")
        self.real["mkdir"](path, *more, **named)

    def replace(self, source, target, **more):
        if self.is_ours(source):
            self.step("replace")
        self.real["replace"](source, target, **more)
        self.placed.add(target)

    def unlink(self, path, **more):
        if self.is_ours(path):
            self.step("unlink")
        self.real["unlink"](path, **more)

    CALLS = "open", "fdopen", "fsync", "mkdir", "replace", "unlink"

    def __enter__(self):
        self.real = {name: getattr(os, name) for name in self.CALLS}
        for name in self.CALLS:
            setattr(os, name, getattr(self, name))
        return self

    def __exit__(self, *_):
        for name, call in self.real.items():
            setattr(os, name, call)


class Dies:
    """Has this process killed before a step, or with half of it done."""

    def __init__(self, moment, is_half):
        self.moment, self.is_half = moment, is_half

    def __call__(self, number, kind):
        if number == self.moment:
            return self.die if self.is_half else self.die()
        return None

    @staticmethod
    def die():
        os.kill(os.getpid(), signal.SIGKILL)


# What a call of each kind may meet.
ERRORS = {
    "open": "ENOSPC EDQUOT EACCES EROFS EIO EMFILE",
    "mkdir": "ENOSPC EACCES EROFS",
    "write": "ENOSPC EDQUOT EIO EFBIG",
    "truncate": "EIO",
    "fsync": "EIO ENOSPC EDQUOT",
    "close": "EIO EDQUOT",
    "replace": "ENOSPC EACCES EROFS EIO EXDEV",
    "unlink": "EACCES EROFS EIO",
}
LASTING = "ENOSPC", "EDQUOT", "EROFS"


class Fails:
    """Has a step fail; where a disk is full or shut, what follows, too.

    A write takes half of its block, and what is left of it meets the error.
    """

    def __init__(self, moment, name):
        self.moment, self.name, self.kinds = moment, name, ()

    def __call__(self, number, kind):
        if number == self.moment:
            if kind == "write":
                return self.begin
            self.kinds = [kind]
        if kind in self.kinds:
            self.begin(self.name in LASTING)
            code = getattr(errno, self.name)
            raise OSError(code, os.strerror(code))
        return None

    def begin(self, goes_on=None):
        """Choose which steps fail from now on."""
        self.kinds = ["write"] if goes_on is None else [
            kind for kind in ERRORS
            if goes_on and self.name in ERRORS[kind].split()]


def check_synced(steps):
    """What takes a place is on the disk by then, if the power fails."""
    for number, kind in enumerate(steps):
        if kind == "replace":
            since = steps[:number][::-1]
            assert "fsync" in since[:since.index("write")], steps


def steps_of(stage, scene):
    """The steps of a whole run, what it leaves, and the new content."""
    one = stage(scene)
    with Disk(one.folder) as disk:
        shown = one.run()
    assert shown.exit_status == 0, shown
    assert one.content() and one.content() != one.old()
    assert not fnmatch.filter(one.all_names(), "*.tmp")
    check_synced(disk.steps)
    return disk.steps, one.names(), one.content()


def sample(scene, found, count):
    """Some of the cases of a scene, always the same ones; or all."""
    chance = random.Random(scene)
    return found if IS_FULL else chance.sample(found, min(count, len(found)))


def plain_sample(*names, of=SCENES, name="scene"):
    """Every scene; the plain command runs those that are named."""
    return pytest.mark.parametrize(name, [
        pytest.param(each, marks=[] if each in names else [costly])
        for each in of])


def check_whole(one, new, case):
    """Old or new, and for its owner only where that is promised."""
    content = one.content()
    assert content in (one.old(), new), case
    if one.scene.is_private:
        for name in one.all_names() - {"in.txt", "in.jsonl"}:
            mode = os.stat(os.path.join(one.folder, name)).st_mode
            assert stat.S_IMODE(mode) == 0o600, (case, name)


def check_again(one, names, new, case):
    """The same command does the rest, or finds that all was done."""
    was_done = one.content() == new
    shown = one.run()
    assert shown.exit_status == (one.scene.again if was_done else 0), (
        case, shown)
    content = one.content()
    if one.scene.name.endswith("history"):
        assert content[-1] == "one" and len(content) >= 999, case
    else:
        assert content == new, case
    assert one.names() == names, case


# == a process that is killed ================================================

def forked(order, folder, moment, is_half):
    argv, environ, typed = order
    with Disk(folder, Dies(moment, is_half)):
        return xeroctl.main(argv, environ, streams_of(typed), FakeClock())


def serve_forks():
    """Start commands as they are asked for; tell how each of them ended."""
    for order in map(json.loads, sys.stdin):
        child = os.fork()
        if not child:
            os._exit(forked(*order))
        print(os.waitpid(child, 0)[1], flush=True)


@pytest.fixture(scope="module")
def kill():
    """kill(stage, step, is_half): run, be killed there; the wait status."""
    process = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, universal_newlines=True,
        env={"PYTHONPATH": ROOT})

    def killer(one, moment, is_half):
        process.stdin.write(json.dumps(
            (one.order(), one.folder, moment, is_half)) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())
    yield killer
    process.stdin.close()
    process.wait()
    process.stdout.close()


@plain_sample("add", "trim", "npy", "file", "batches", "direct")
def test_a_kill_leaves_the_old_file_or_the_new_one(stage, kill, scene):
    steps, names, new = steps_of(stage, SCENES[scene])
    cases = [(number, is_half) for number, kind in enumerate(steps, 1)
             for is_half in (False, True)[:1 + (kind == "write")]]
    statuses = set()
    for number, is_half in sample("kill " + scene, cases, 2):
        case = scene, number, steps[number - 1], is_half
        one = stage(SCENES[scene])
        statuses.add(kill(one, number, is_half))
        if scene != "trim":
            check_whole(one, new, case)
        check_again(one, names, new, case)
    # What comes over a network comes in more pieces or in fewer.
    assert signal.SIGKILL in statuses <= {signal.SIGKILL, 0}


# == a disk that is full, failing, or shut ===================================

def check_told(one, shown, disk, name, new, case):
    """One error, with the reason and the code; or no harm was done."""
    assert "internal error" not in shown.stderr, (case, shown)
    assert "Traceback" not in shown.stderr, (case, shown)
    told = [line for line in shown.stderr.splitlines() if "error: " in line]
    if shown.exit_status == 0 and not told:
        assert one.content() == new or not one.scene.codes, case
        return
    assert shown.exit_status in one.scene.codes, (case, shown)
    line, = told
    assert "error: cannot write " + one.folder in line, (case, shown)
    assert os.strerror(getattr(errno, name)) in line, (case, shown)
    assert shown == "" or one.scene.typed, (case, shown)
    if one.path not in disk.placed:
        assert one.content() == one.old(), case


def fail_once(stage, scene, number, name):
    """Run a scene with an error at a step; (stage, Disk, Result)."""
    one = stage(SCENES[scene])
    with Disk(one.folder, Fails(number, name)) as disk:
        shown = one.run()
    return one, disk, shown


def check_error(stage, scene, number, name, names, new):
    """One error at one step: told, no harm done, and mended by a rerun."""
    one, disk, shown = fail_once(stage, scene, number, name)
    kind = disk.steps[number - 1] if number <= len(disk.steps) else None
    case = scene, number, kind, name
    check_told(one, shown, disk, name, new, case)
    if scene != "trim":
        check_whole(one, new, case)
    if name != "EROFS" and kind != "unlink":
        assert not fnmatch.filter(one.all_names(), "*.tmp"), case
        assert scene not in ("npy", "jsonl") or not os.path.exists(
            one.path + ".part"), case
    check_again(one, names, new, case)


@plain_sample("add", "save", "npy", "file", "batches", "direct")
def test_an_error_leaves_the_old_file_and_is_told(stage, scene):
    steps, names, new = steps_of(stage, SCENES[scene])
    cases = [(number, name) for number, kind in enumerate(steps, 1)
             for name in ERRORS[kind].split()]
    for number, name in sample("error " + scene, cases, 3):
        check_error(stage, scene, number, name, names, new)


# == real file systems =======================================================

@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 pages."""
    folder = str(tmp_path / "small")
    os.mkdir(folder)
    if not IS_ROOT or not sys.platform.startswith("linux"):
        pytest.skip("only root can mount a small disk here")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder]
    if subprocess.call(mount, stderr=subprocess.DEVNULL):
        pytest.skip("no small disk can be mounted here")
    yield folder
    subprocess.check_call(["umount", "-l", folder])


def fill(folder, pages):
    """Leave so many pages of 4096 bytes free."""
    name = os.path.join(folder, "filler")
    with contextlib.suppress(OSError), open(name, "wb", 0) as target:
        while target.write(bytes(4096)) == 4096:
            pass
    os.truncate(name, max(0, os.path.getsize(name) - 4096 * pages))
    return name


def check_unharmed(one, shown, reason):
    """An error with its reason and code; the old file, and no other."""
    assert shown.exit_status in one.scene.codes, shown
    assert "internal error" not in shown.stderr, shown
    line, = [line for line in shown.stderr.splitlines() if "error: " in line]
    assert "cannot write" in line and os.strerror(reason) in line, shown
    assert shown == "" or one.scene.typed, shown
    assert one.content() == one.old()
    assert not fnmatch.filter(one.all_names(), "*.tmp")


@plain_sample("add", "npy", "batches")
@pytest.mark.parametrize("pages", [0, pytest.param(1, marks=costly)])
def test_a_full_disk_keeps_the_old_file(stage, small_disk, scene, pages):
    if scene == "trim" or pages and SCENES[scene].is_private:
        pytest.skip("a page is enough for it, or it does without")
    one = stage(SCENES[scene], small_disk)
    filler = fill(small_disk, pages)
    shown = one.run()
    if pages and shown.exit_status == 0:
        pytest.skip("a page is enough for it")
    check_unharmed(one, shown, errno.ENOSPC)
    os.unlink(filler)
    if scene not in ("file", "jsonl"):      # larger than this disk
        assert one.run().exit_status == 0
        assert one.content() not in (None, one.old())


@plain_sample("set", "file")
def test_a_read_only_disk_keeps_the_old_file(stage, small_disk, scene):
    one = stage(SCENES[scene], small_disk)
    before = one.all_names()
    one.order()     # what it makes on the router
    subprocess.check_call(["mount", "-o", "remount,ro", small_disk])
    count = len(one.router.requests)
    shown = one.run()
    assert one.all_names() == before
    if scene == "trim":
        assert shown.exit_status == 0 and "error" not in shown.stderr
        return
    check_unharmed(one, shown, errno.EROFS)
    if scene != "save":
        assert len(one.router.requests) == count, "told before it is asked"


@plain_sample("add")
def test_where_no_inode_is_left_the_old_file_stays(stage, small_disk, scene):
    subprocess.check_call(["mount", "-o", "remount,nr_inodes=30",
                           small_disk])
    one = stage(SCENES[scene], small_disk)
    with pytest.raises(OSError):
        for number in range(99):
            one.write(f"spare{number}", b"")
    shown = one.run()
    if scene == "trim":
        assert shown.exit_status == 0 and "error" not in shown.stderr
    else:
        check_unharmed(one, shown, errno.ENOSPC)


# == odd places ==============================================================

def fifo(path):
    os.mkfifo(path)


def null(path):
    """A /dev/null of our own: the machine's shall not be put at risk."""
    if not IS_ROOT:
        pytest.skip("only root makes devices")
    with contextlib.suppress(OSError):
        os.mknod(path, 0o666 | stat.S_IFCHR, os.stat("/dev/null").st_rdev)
        open(path, "wb").close()
        return
    pytest.skip("no devices can be made here")


def loop(path):
    os.symlink(os.path.basename(path), path)


PLACES = {"folder": os.mkdir, "fifo": fifo, "null": null, "loop": loop}


def kind_of(path):
    return stat.S_IFMT(os.lstat(path).st_mode)


@plain_sample("fifo", "null", of=PLACES, name="place")
@pytest.mark.parametrize("scene", ["first", "save", "npy", "batches"])
def test_what_is_no_file_is_not_replaced_by_one(stage, scene, place):
    if (scene, place) == ("first", "fifo"):
        pytest.skip("whoever names a pipe there is waited for")
    one = stage(SCENES[scene])
    if os.path.lexists(one.path):
        os.unlink(one.path)
    PLACES[place](one.path)
    before = kind_of(one.path), one.all_names()
    shown = one.run()
    assert shown.exit_status in one.scene.codes, shown
    assert "internal error" not in shown.stderr
    assert "error: cannot " in shown.stderr and one.path in shown.stderr
    assert (kind_of(one.path), one.all_names()) == before


@plain_sample("null", of=PLACES, name="place")
@pytest.mark.parametrize("name", [
    "out.jsonl.errors.jsonl", "out.jsonl.part", "out.jsonl.journal.jsonl",
    "out.jsonl.errors.jsonl.part", "out.jsonl.part.json"])
def test_nor_is_what_stands_where_a_run_writes(stage, name, place):
    """--errors-file /dev/null: a way to lose the errors, not the device."""
    one = stage(SCENES["direct"])
    path = os.path.join(one.folder, name)
    PLACES[place](path)
    before = kind_of(path), one.all_names()
    shown = one.run()
    assert shown.exit_status == 2 and shown == "", shown
    assert "error: cannot write " in shown.stderr and name in shown.stderr
    assert (kind_of(path), one.all_names()) == before
    assert one.content() == one.old() and not one.router.seen("POST",
                                                              "/completions")


@plain_sample("npy", of=["npy", "file", "export"])
@plain_sample("fifo", of=PLACES, name="place")
def test_a_part_that_is_no_file_is_told(stage, scene, place):
    one = stage(SCENES[scene])
    PLACES[place](one.path + ".part")
    shown = one.run()
    assert shown.exit_status == 2 and "internal" not in shown.stderr, shown
    assert f"error: cannot write {one.path}" in shown.stderr
    assert kind_of(one.path + ".part") != stat.S_IFREG
    assert one.content() == one.old()


@plain_sample("save", "npy", of=["save", "npy", "file", "batches"])
@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_link_stays_and_leads_to_the_new_file(stage, scene, is_dangling):
    one = stage(SCENES[scene])
    os.mkdir(one.folder + "/real")
    os.rename(one.path, one.folder + "/real/file")
    if is_dangling:
        os.unlink(one.folder + "/real/file")
    os.symlink("real/file", one.path)
    shown = one.run()
    assert shown.exit_status == 0, shown
    assert os.readlink(one.path) == "real/file"
    assert one.content() not in (None, one.old())
    assert os.listdir(one.folder + "/real") == ["file"]


@plain_sample("save", "file", of=["save", "npy", "file", "batches"])
def test_a_link_to_nowhere_is_told(stage, scene):
    one = stage(SCENES[scene])
    os.unlink(one.path)
    os.symlink("none/file", one.path)
    before = one.all_names()
    shown = one.run()
    assert shown.exit_status in one.scene.codes, shown
    line, = [line for line in shown.stderr.splitlines() if "error: " in line]
    assert "cannot write" in line and os.strerror(errno.ENOENT) in line
    assert one.all_names() == before and os.path.islink(one.path)


# == what somebody else does meanwhile =======================================

ASKED = {"npy": "POST /embeddings", "file": "GET /content",
         "export": "GET /download", "batches": "POST /files", "direct": SAY}


def remove_all(one):
    shutil.rmtree(one.folder)


def remove_part(one):
    os.unlink(one.path + ".part")


def put_folder(one):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(one.path)
    os.mkdir(one.path)


@pytest.mark.parametrize("change", [remove_all, remove_part, put_folder])
@plain_sample("npy", "file", "batches", of=ASKED)
def test_a_place_that_vanishes_meanwhile_is_told(stage, router, scene,
                                                 change):
    one = stage(SCENES[scene])
    router.order(ASKED[scene], when=lambda _: change(one) or True)
    shown = one.run()
    assert shown.exit_status in one.scene.codes and shown == "", shown
    assert "internal error" not in shown.stderr, shown
    assert "error: cannot write " + one.folder in shown.stderr
    assert change != put_folder or os.path.isdir(one.path)
    assert change != remove_part or one.content() == one.old()


@plain_sample("file", of=["npy", "file", "export"])
def test_what_the_server_said_is_told_though_the_place_is_gone(
        stage, router, scene):
    one = stage(SCENES[scene])
    router.order(ASKED[scene], status=403,
                 when=lambda _: remove_all(one) or True)
    shown = one.run()
    assert shown.exit_status == 3, shown
    assert shown.stderr.startswith("error: HTTP 403 ")


@plain_sample("npy", of=["npy", "jsonl", "file", "export"])
def test_a_new_file_is_as_private_as_the_old_one(stage, scene):
    one = stage(SCENES[scene])
    one.write(one.scene.name, OLD)
    os.chmod(one.path, 0o600)
    assert one.run().exit_status == 0
    assert stat.S_IMODE(os.stat(one.path).st_mode) == 0o600


@plain_sample("file", of=["npy", "file", "export"])
def test_a_part_is_as_private_as_the_file_it_replaces(stage, router, scene):
    one, modes = stage(SCENES[scene]), []
    one.write(one.scene.name, OLD)
    os.chmod(one.path, 0o600)
    one.order()
    router.order(ASKED[scene], when=lambda _: modes.append(
        stat.S_IMODE(os.stat(one.path + ".part").st_mode)))
    assert one.run().exit_status == 0
    assert set(modes) == {0o600}


# == the history =============================================================

@pytest.mark.parametrize("torn", [b'"tw', b'"two"', b'"two\xff'])
def test_a_torn_line_does_not_swallow_the_next_message(stage, torn):
    one = stage(SCENES["trim"])
    one.write(one.scene.name, b'"first"\n' + torn)
    assert one.run().exit_status == 0
    assert one.content()[0] == "first" and one.content()[-1] == "one"


def test_a_history_behind_a_link_is_trimmed_there(stage):
    one = stage(SCENES["trim"])
    os.rename(one.path, one.folder + "/dotfile")
    os.symlink("../dotfile", one.path)
    assert one.run().exit_status == 0
    assert os.readlink(one.path) == "../dotfile"
    assert one.content()[-1] == "one" and len(one.content()) == 1000


@pytest.mark.parametrize("place", ["folder", "null", "loop"])
def test_a_history_that_is_no_file_is_done_without(stage, place):
    one = stage(SCENES["trim"])
    os.unlink(one.path)
    PLACES[place](one.path)
    before = kind_of(one.path)
    shown = one.run()
    assert shown.exit_status == 0 and "error" not in shown.stderr, shown
    assert kind_of(one.path) == before


# == standard input on its way to a temporary file ===========================

@pytest.mark.parametrize("argv", [
    "files --upload -", "files --upload {at}",
    "batches run --endpoint demo --input - --output-file {at}.out --direct",
    "batches --endpoint demo --input -"])
@pytest.mark.parametrize("size", [100, 300000])
def test_a_full_folder_of_temporary_files_is_told(run, router, tmp_path, argv,
                                                  size):
    path = str(tmp_path / "in")
    words = argv.format(at=path).split()
    if path in words:
        os.mkfifo(path)
        feeder = subprocess.Popen(
            [sys.executable, "-SIc",
             f"open({path!r}, 'w').write('x' * {size})"],
            stderr=subprocess.DEVNULL)
    with most_bytes(10):
        shown = run(*words, stdin=b"x" * size)
    if path in words:
        feeder.wait()
    check_no_room(shown, router)
    assert os.listdir(str(tmp_path)) in ([], ["in"])


def test_a_full_folder_of_temporary_files_is_all_that_is_told(spawn):
    """What is left to be written is no second error at the end.

    By themselves Pythons from 3.13 on tell it, from 3.8 on with -X dev.
    """
    process = spawn("/bin/sh", "-c", 'ulimit -f 1; exec "$0" "$@"',
                    sys.executable, "-B", "-X", "dev", SCRIPT, "files",
                    "--upload", "-", stdin=subprocess.PIPE)
    _, stderr = process.communicate(b"x" * 5000, 20)
    assert process.returncode == 1 and stderr.count(b"\n") == 1, stderr
    assert stderr.startswith(b"error: cannot write"), stderr


def test_nor_is_it_told_in_place_of_ctrl_c():
    def typed():
        yield b"x" * 500
        raise KeyboardInterrupt
    with most_bytes(10), pytest.raises(KeyboardInterrupt):
        xeroctl.spooled(typed())


def check_no_room(shown, router):
    assert shown.exit_status in (1, 2) and shown == "", shown
    assert shown.stderr.startswith("error: cannot write"), shown
    assert "temporary" in shown.stderr and not router.seen("POST", "*")


def test_no_folder_for_temporary_files_is_told(run, router, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    with most_bytes(0):
        shown = run("files", "--upload", "-", stdin=b"x" * 100)
    check_no_room(shown, router)


# == standard output =========================================================

ROWS = ("models", "exports get {export}", "files {file}", "api /models",
        "files {file} --download -", "config list", "config path", "help",
        "chat --endpoint demo -m hi", "chat --endpoint demo -m hi --stream",
        "embeddings --endpoint demo --input hi", "help environment",
        "responses create --endpoint demo -m hi", "models --all",
        "exports download {export} --output-file -", "commands", "status",
        "shell-completion bash", "models --dry-run", "models --curl")
FORMS = "table", "wide", "json", "jsonl", "csv", "id"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@plain_sample("models", "files {file} --download -", "help", of=ROWS,
              name="row")
def test_a_full_disk_behind_stdout_is_an_error(stage, row):
    one = stage(SCENES["set"])
    argv = row.format_map(one.words).split()
    for form in sample(row, FORMS, 1):
        streams = streams_of(None)
        full = io.TextIOWrapper(open("/dev/full", "wb"))
        shown = xeroctl.main(
            argv + ["-o", form], one.order()[1],
            xeroctl.Streams(streams.stdin, full, streams.stderr),
            FakeClock())
        told = written(streams.stderr)
        with contextlib.suppress(OSError):
            full.close()
        assert shown == 1, (row, form, told)
        assert os.strerror(errno.ENOSPC) in told, (row, form, told)
        assert "internal error" not in told, (row, form, told)
        if form in ("json", "jsonl"):       # below a footer on usage
            assert json.loads(told[told.index("{"):])["error"]


if __name__ == "__main__":
    serve_forks()
