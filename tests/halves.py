"""Runs the tests in two processes, where there are two cores.

Most of a test is one client and one server that take turns, so one process
keeps one core busy.  The second process is a fork after the collection; both
take whole files from one list, for the fixtures that a file shares, and what
the second finds out is told by the first, file by file.
"""

import ast
import itertools
import os
import signal
import tempfile

MANY = 500                      # below, to share takes longer than it saves


def files_of(items):
    """The tests, file by file, in their order."""
    return [list(group) for _, group in
            itertools.groupby(items, lambda item: item.location[0])]


def claimed(files, claims):
    """Those of the files that this process takes, one after another.

    `claims` is a pipe with one byte for each file; who reads it has it.
    """
    for byte in iter(lambda: os.read(claims, 1), b""):
        yield files[byte[0]]


def run_file(session, items):
    for item, following in zip(items, items[1:] + [None]):
        session.config.hook.pytest_runtest_protocol(item=item,
                                                    nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)


class Teller:
    """Keeps what a file of the second process comes to, and notes it down.

    Notes are a file, for who writes to a pipe has to wait for its reader.
    """

    def __init__(self, config, notes):
        self.config, self.notes, self.reports = config, notes, []

    def pytest_runtest_logreport(self, report):
        self.reports.append(self.config.hook.pytest_report_to_serializable(
            config=self.config, report=report))

    def write(self):
        os.write(self.notes, ascii(self.reports).encode() + b"\n")
        del self.reports[:]


class Colours:
    """Stands for the plugin that prints, where nothing is printed."""

    def __init__(self, writer):
        self._tw = writer


def run_second(session, files, claims, notes):
    """Run what the first process leaves; it is silent itself."""
    plugins = session.config.pluginmanager
    reporter = plugins.unregister(name="terminalreporter")
    # What a failure looks like asks it for its colours still.
    plugins.register(Colours(reporter._tw), "terminalreporter")
    capture = plugins.getplugin("capturemanager")
    capture.stop_global_capturing()     # its files are those of the first
    capture.start_global_capturing()
    capture.suspend_global_capture()
    teller = Teller(session.config, notes)
    plugins.register(teller)
    for items in claimed(files, claims):
        run_file(session, items)
        teller.write()


def second(session, files, claims, notes):
    """Start the second process; returns its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        run_second(session, files, claims, notes)
        status = 0
    finally:
        os._exit(status)


def tell(session, notes):
    """Take what is noted down since the last time as if it had run here."""
    hook = session.config.hook
    for line in iter(notes.readline, b""):
        if not line.endswith(b"\n"):
            notes.seek(-len(line), os.SEEK_CUR)
            return                      # it is being written
        for data in ast.literal_eval(line.decode()):
            report = hook.pytest_report_from_serializable(
                config=session.config, data=data)
            if report.when == "setup":
                hook.pytest_runtest_logstart(nodeid=report.nodeid,
                                             location=report.location)
            hook.pytest_runtest_logreport(report=report)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)


def run_first(session, files, claims, notes):
    for items in claimed(files, claims):
        run_file(session, items)
        tell(session, notes)


def pytest_runtestloop(session):
    """Share many tests between two processes; few are left to pytest."""
    if (len(session.items) < MANY or session.testsfailed
            or session.config.getoption("usepdb")
            or not hasattr(os, "fork") or os.cpu_count() < 2):
        return None
    files = files_of(session.items)
    claims, writer = os.pipe()
    os.write(writer, bytes(range(len(files))))
    os.close(writer)
    with tempfile.NamedTemporaryFile() as target:
        with open(target.name, "rb") as notes:
            child = second(session, files, claims, target.fileno())
            try:
                run_first(session, files, claims, notes)
                status = os.waitpid(child, 0)[1]
            except BaseException:
                os.kill(child, signal.SIGKILL)
                raise
            tell(session, notes)
    assert status == 0, "the second process ended before its tests did"
    return True
