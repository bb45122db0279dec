"""Runs tests under every other Python from 3.6 on that the machine has.

    python3 tests/everywhere.py TEST…

makes a virtual environment for each, in a folder that goes away, installs
pytest there and runs the tests, with nothing in the environment but PATH and
HOME.  A line for each says what came of it; a Python that cannot make such an
environment at all (no venv or ensurepip) is told, too, and is no failure.
"""

import functools
import glob
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMIT_S = 300

ABOUT = "import sys; print(sys.version_info[:3]); print(repr(sys.version))"
TLS = "import ssl; print(ssl.OPENSSL_VERSION)"

# Python 3.6's own pip takes no index of today.
PACKAGES = "pip==21.3.1; python_version < '3.7'", "pytest"


@functools.lru_cache(maxsize=None)
def about(python):
    """((major, minor, micro), sys.version), or None if it does not run."""
    try:
        release, build = subprocess.check_output(
            [python, "-c", ABOUT], stderr=subprocess.DEVNULL,
            timeout=60).decode().splitlines()
        return tuple(map(int, release.strip("()").split(","))), build
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def places():
    """Where an interpreter may be: pyenv's, then PATH and the system's own.

    The shims of pyenv only choose among its own, and are slow.
    """
    yield from sorted(glob.glob(os.path.expanduser(
        "~/.pyenv/versions/*/bin/python3")))
    names = ["python3"] + [f"python3.{minor}" for minor in range(6, 30)]
    for folder in os.get_exec_path() + ["/usr/local/bin", "/usr/bin"]:
        if os.path.basename(folder) != "shims":
            yield from (os.path.join(folder, name) for name in names)
    yield "/usr/libexec/platform-python"


def interpreters():
    """One interpreter for each build from 3.6 on, the oldest first.

    The one that runs this is the one for its build.
    """
    found = {about(sys.executable): sys.executable}
    for python in filter(os.path.exists, places()):
        build = about(python)
        if build and build[0] >= (3, 6):
            found.setdefault(build, python)
    return [found[build] for build in sorted(found)]


def said(command, **more):
    """(exit code, what it said)."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          **more) as process:
        try:
            text = process.communicate(timeout=LIMIT_S)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            text = process.communicate()[0] + b"\n(took too long)"
    return process.returncode, text.decode("utf-8", "replace").strip()


def attempt(python, folder, tests):
    """(whether that is well, what came of it in a line, all that was said)."""
    code, text = said([python, "-m", "venv", folder])
    if code:
        return True, "NOT RUN, it makes no virtual environment", text
    inner = os.path.join(folder, "bin", "python")
    for package in PACKAGES:
        code, text = said([inner, "-m", "pip", "install", "-q", package])
        if code:
            return False, f"FAILED, no {package}", text
    code, text = said([inner, "-m", "pytest", "-p", "no:cacheprovider"]
                      + tests, env={name: os.environ[name] for name in
                                    ("PATH", "HOME") if name in os.environ})
    result = text.splitlines()[-1] if text else "it said nothing"
    return not code, result if not code else f"FAILED, {result}", text


def main(tests):
    own, is_well = about(sys.executable), True
    for python in interpreters():
        if about(python) == own:
            continue
        started = time.time()
        with tempfile.TemporaryDirectory() as folder:
            is_good, result, text = attempt(python, folder, tests)
        code, tls = said([python, "-c", TLS])
        if "NOT RUN" in result or not is_good:
            print(text)
        print(f"{'.'.join(map(str, about(python)[0]))} ({python},"
              f" {'no ssl' if code else tls}): {result}"
              f" [{time.time() - started:.0f} s in all]", flush=True)
        is_well = is_well and is_good
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
