"""Two runners with one surface, and the router that they talk to.

`run` calls main() in this process, with streams, environment and clock of its
own; `run_process` starts the copied file as a user does.  Both return a
Result.  Nothing in xeroctl.py is patched, and no environment is inherited.
"""

import collections
import gc
import io
import itertools
import os
import signal
import socket
import stat
import subprocess
import sys
from shlex import quote

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "golden")
ROOT = os.path.dirname(HERE)
SCRIPT = os.path.join(ROOT, "xeroctl.py")
IS_FULL = "--full" in sys.argv
STARTED = SCRIPT if IS_FULL else os.path.join(HERE, "started.py")
sys.path[:0] = [ROOT, HERE]

import xeroctl  # noqa: E402
from everywhere import about, interpreters  # noqa: E402
from halves import pytest_runtestloop  # noqa: E402,F401
from router import Router  # noqa: E402


# What only a loss of power shows, no test can see: no disk is waited for.
# Those that are about os.fsync() put one of their own in its place.
if not IS_FULL:
    os.fsync = lambda descriptor: None

# The thread of a router and the one that waits for its answer take turns.
sys.setswitchinterval(0.0005)

# What is imported and collected stays: no look at it is worth its time.
gc.disable()


# The children of a job in the background ignore Ctrl-C unless it is handed on,
# those of nohup the loss of the terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish():
    """Look for garbage from here on, seldom: thousands of tests keep much."""
    if hasattr(gc, "freeze"):  # 3.7
        gc.freeze()
    if hasattr(gc, "set_threshold"):  # PyPy has none
        gc.set_threshold(100000, 50, 50)
    gc.enable()


class Result(str):
    """Standard output, with .stderr and .exit_status beside it."""

    def __new__(cls, stdout, stderr, exit_status):
        self = super().__new__(cls, stdout)
        self.stderr, self.exit_status = stderr, exit_status
        return self

    def __repr__(self):
        return (f"exit {self.exit_status}\n--- stdout\n{self}"
                f"\n--- stderr\n{self.stderr}")


class FakeClock:
    """Time that passes only while somebody sleeps; jitter is none.

    While somebody sleeps, the next of the steps is done.
    """

    def __init__(self):
        self.slept, self.at, self.steps = [], 0.0, []

    def now(self):
        return 1770000000 + self.at

    def monotonic(self):
        return self.at

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.at += seconds
        if self.steps:
            self.steps.pop(0)()

    def jitter(self):
        return 0.0


def text_stream(data=b""):
    """A text stream over bytes, as the standard streams are."""
    return io.TextIOWrapper(io.BytesIO(data), encoding="ascii", newline="")


def written(stream):
    stream.flush()
    return stream.buffer.getvalue().decode("utf-8")


def environment(router=None, **more):
    """An environment of nothing but what is named here."""
    environ = {}
    if router is not None:
        environ = {"XEROTIER_BASE_URL": router.base_url,
                   "XEROTIER_API_KEY": router.key}
    environ.update((k, v) for k, v in more.items() if v is not None)
    return environ


def from_system(text):
    """Text as Python gets it from the system: a word, a variable, a name.

    In Python 3.6 and a locale without UTF-8 those are smuggled bytes.
    """
    if not isinstance(text, str):
        return text
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


NUMBERS = itertools.count(1)


@pytest.fixture
def tmp_path(tmp_path_factory):
    """A new folder; pytest's own costs a look at all those before it."""
    name = "{}-{}".format(os.getpid(), next(NUMBERS))
    path = tmp_path_factory.getbasetemp() / name
    path.mkdir(0o700)
    return path


@pytest.fixture
def router():
    with Router() as router:
        yield router


@pytest.fixture
def other():
    """One more router, to which another address leads."""
    with Router() as router:
        yield router


@pytest.fixture
def openai_router():
    with Router(openai=True) as router:
        yield router


@pytest.fixture
def closed_port():
    """A port of the loopback where nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def device(tmp_path):
    """device(name) is a /dev/name to write to.

    For root it is a node of our own: a client that puts a file in its
    place shall not take the machine's.
    """
    def maker(name):
        path = "/dev/" + name
        if os.geteuid() != 0:
            return path         # may be written, not replaced
        number = os.stat(path).st_rdev
        path = str(tmp_path / name)
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, number)
            open(path, "wb").close()
        except OSError:
            pytest.skip("no devices can be made here")
        return path
    return maker


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory):
    """A world (world.py) of the file; `world` is put back for each test."""
    import world
    with world.Remembering() as router:
        yield world.World(router, tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(shared_world, monkeypatch):
    monkeypatch.chdir(shared_world.folder)
    return shared_world


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def run(router, clock):
    """run("chat", "-m", "hi", stdin=b"", XEROTIER_OUTPUT="json") in process.

    groups= hands a table of groups in; tables of commands are data.
    """
    def runner(*argv, stdin=b"", groups=None, against=router, **environ):
        streams = xeroctl.Streams(text_stream(stdin), text_stream(),
                                  text_stream())
        more = {} if groups is None else {"groups": groups}
        status = xeroctl.main(argv, environment(against, **environ), streams,
                              clock, **more)
        return Result(written(streams.stdout), written(streams.stderr),
                      status)
    return runner


@pytest.fixture
def run_bytes(router, clock):
    """As run, with bytes in and out: (exit status, stdout, stderr)."""
    def runner(*argv, stdin=b""):
        pipes = io.BytesIO(stdin), io.BytesIO(), io.BytesIO()
        streams = xeroctl.Streams(*map(io.TextIOWrapper, pipes))
        status = xeroctl.main(argv, environment(router), streams, clock)
        return (status, pipes[1].getvalue(), pipes[2].getvalue().decode())
    return runner


INTERPRETERS = interpreters()


def version_of(python):
    """(major, minor) of an interpreter."""
    return about(python)[0][:2]


def python_name(python):
    return "py" + ".".join(map(str, about(python)[0]))


ENDS = [INTERPRETERS[0], INTERPRETERS[-1]] if IS_FULL else INTERPRETERS[:1]

# For what costs much and has been seen alike under all of them: the oldest
# interpreter, with --full the newest, too.
at_both_ends = pytest.mark.parametrize("python", ENDS, ids=python_name,
                                       indirect=True)


# For what takes long, and fails together with something that does not.
costly = pytest.mark.skipif(not IS_FULL, reason="takes long: --full runs it")


MOST_CASES = 5


def sampled(*numbers):
    """Mark a test of many cases: the plain command runs those numbered so.

    They count from 0 in the order in which pytest shows them.
    """
    return pytest.mark.sampled(numbers)


# For tests whose cases are few enough, or chosen already.
every_case = pytest.mark.sampled(None)


def chosen_of(mark, count):
    """The numbers of the cases that the plain command runs."""
    if mark:
        return range(count) if mark.args[0] is None else mark.args[0]
    if count <= MOST_CASES:
        return range(count)
    return [number * (count - 1) // (MOST_CASES - 1)
            for number in range(MOST_CASES)]


def pytest_collection_modifyitems(config, items):
    """Leave to --full what is like what is run: most cases of a test."""
    families = collections.OrderedDict()
    for item in items:
        families.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept, left = [], []
    for family in families.values():
        mark = family[0].get_closest_marker("sampled")
        chosen = range(len(family)) if IS_FULL else chosen_of(mark,
                                                              len(family))
        for number, item in enumerate(family):
            (kept if number in chosen else left).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)


def is_parametrized(function, name):
    """Whether a test chooses the values of a fixture itself."""
    return any(name in mark.args[0].split(", ")
               for mark in function.iter_markers("parametrize"))


def pytest_generate_tests(metafunc):
    """Run the tests that start processes under the oldest interpreter.

    It lacks the most; what runs in this process has a newer one.
    """
    if "python" in metafunc.fixturenames and not is_parametrized(
            metafunc.definition, "python"):
        pythons = INTERPRETERS if IS_FULL else INTERPRETERS[:1]
        metafunc.parametrize("python", pythons, ids=python_name,
                             indirect=True)


@pytest.fixture
def python(request):
    """The interpreters in turn: the oldest, or all of them."""
    return request.param


@pytest.fixture
def start(router, python):
    """Start the program as a process: start("chat", …) is a Popen."""
    started = []

    def starter(*argv, options=(), against=router, script=STARTED,
                **environ):
        process = subprocess.Popen(
            [python, *options, script, *map(from_system, argv)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(against, **environ))
        started.append(process)
        return process
    yield starter
    for process in started:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        process.wait()


@pytest.fixture
def run_process(start):
    """As run, but in a process of its own, under each interpreter."""
    def runner(*argv, stdin=b"", timeout=20, **options):
        process = start(*argv, **options)
        stdout, stderr = process.communicate(stdin, timeout)
        return Result(stdout.decode("utf-8"), stderr.decode("utf-8"),
                      process.returncode)
    return runner


@pytest.fixture
def spawn(router):
    """Start a command; it does not outlive the test, nor do its children.

    Its own session keeps /dev/tty, where a person may sit, out of reach.
    """
    started = []

    def spawner(*command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, cwd=None, against=router, **environ):
        process = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd,
            start_new_session=True, env=environment(against, **environ))
        started.append(process)
        return process
    yield spawner
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in filter(None, (process.stdout, process.stderr)):
            stream.close()


def pytest_addoption(parser):
    parser.addoption("--rewrite-golden", action="store_true",
                     help="write tests/golden/*.txt anew, for review")
    parser.addoption("--full", action="store_true",
                     help="every interpreter, and every moment of a kill")


@pytest.fixture
def is_full():
    """Whether the tests may take their time."""
    return IS_FULL


def session(argv, shown):
    """A command line and all that came of it, for a golden file.

    Where the last line of a stream lacks its end, the next line says so.
    """
    def ended(text):
        return text if text[-1:] in ("", "\n") else text + "\n\\ no newline\n"
    stderr = f"--- stderr\n{ended(shown.stderr)}" if shown.stderr else ""
    return (f"$ xeroctl {' '.join(map(quote, argv))}\n{ended(shown)}{stderr}"
            f"--- exit {shown.exit_status}\n")


@pytest.fixture
def golden(request, run):
    """golden("chat-send", "chat", …): run it; what a person sees is on file.
    """
    def compare(name, *argv, **more):
        path = os.path.join(GOLDEN, name + ".txt")
        shown = run(*argv, **more)
        text = session(argv, shown)
        if request.config.getoption("--rewrite-golden"):
            with open(path, "wb") as target:
                target.write(text.encode("utf-8"))
        with open(path, "rb") as source:
            assert text == source.read().decode("utf-8")
        return shown
    return compare
