"""What the tests of the groups share: a still clock, and a terminal."""

import os

import pytest

import xeroctl
from conftest import environment, text_stream, written
from router import Router

NOW = 1770000000

try:
    import pty
except ImportError:  # Windows
    pty = None


@pytest.fixture
def router():
    """A router whose clock stands still: what it tells is always the same."""
    with Router(clock=lambda: NOW) as router:
        yield router


@pytest.fixture
def refused(run, router, request):
    """Run what is refused before anything is sent; return its error.

    The words stand behind those of the file's GROUP.
    """
    def runner(*words, **more):
        shown = run(*request.module.GROUP, *words, **more)
        assert shown.exit_status == 2 and shown == ""
        assert router.requests == []
        return shown.stderr
    return runner


@pytest.fixture
def answer(router, clock):
    """Run on a terminal, with an answer typed; return (status, stderr)."""
    def runner(*argv, typed):
        far, near = pty.openpty()
        os.write(far, typed)
        streams = xeroctl.Streams(os.fdopen(near), text_stream(),
                                  text_stream())
        try:
            return (xeroctl.main(argv, environment(router), streams, clock),
                    written(streams.stderr))
        finally:
            streams.stdin.close()
            os.close(far)
    return runner
