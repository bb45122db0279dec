"""Puts the program on a PATH as the README does, with bytecode that is kept.

The lines are those of the README itself, for its tests and the benchmarks.
"""

import os
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as source:
    LINES, IMAGE = [text for text in re.findall(
        r"```(?:sh|dockerfile)\n(.*?)```", source.read(), re.S)
        if "compileall" in text]


def install(home, python, folder=ROOT):
    """Run the lines in a folder, as one whose python3 this is.

    Return the command that they make.
    """
    tools = os.path.join(home, "tools")
    os.makedirs(tools)
    with open(os.path.join(tools, "python3"), "w") as target:
        target.write(f'#!/bin/sh\nexec {python} "$@"\n')
        os.chmod(target.fileno(), 0o755)
    subprocess.check_call(
        ["sh", "-eu", "-c", LINES], cwd=folder,
        env={"HOME": home, "PATH": tools + ":/usr/bin:/bin"})
    return os.path.join(home, ".local", "bin", "xeroctl")
