"""Starts the program as a module, whose bytecode Python keeps.

xeroctl.py itself is compiled at each start.  The tests of test_main.py start
it as a user does, and with --full all of them do; the others are about what
it does then.
"""

import os
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import xeroctl  # noqa: E402

if __name__ == "__main__":
    xeroctl.console()
