#!/usr/bin/env python3
"""What a streamed event costs, against the least that it can cost.

The least is a bare loop of json.loads, write and flush over the same bytes
from a file; ours gets them over a socket, chunked.  Both are measured for
many events and for few, and the difference is taken, so that starting up
does not count.  The peak of memory is that of the long stream.

    python3 tests/bench/stream.py [--runs N] [PYTHON …]
"""

import json
import os
import socket
import sys
import tempfile
import threading

from measure import (SCRIPT, arguments, interleaved, peak_memory,
                     version)

EVENTS, FEW = 50000, 100

LOOP = """
import json, sys
out = sys.stdout.buffer
for line in open(sys.argv[1], "rb"):
    if line.startswith(b"data: {"):
        delta = json.loads(line[6:])["choices"][0]["delta"]
        if delta.get("content"):
            out.write(delta["content"].encode())
            out.flush()
"""


def frames(count):
    """The stream of an answer with so many tokens, frame by frame."""
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk",
             "created": 1770000000, "model": "m", "service_tier": None,
             "system_fingerprint": None}

    def frame(delta, finish_reason=None):
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        data = json.dumps(dict(chunk, choices=[choice]))
        return b"data: " + data.encode() + b"\n\n"
    return ([frame({"content": f" word{n}"}) for n in range(count)]
            + [frame({}, "stop"), b"data: [DONE]\n\n"])


def serve(stream):
    """Serve a stream, each frame a chunk, to whoever asks; return the port.

    It is sent as one prepared block, so that the server costs nothing.
    """
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(8)
    answer = (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
              b"Transfer-Encoding: chunked\r\n\r\n"
              + b"".join(b"%x\r\n%s\r\n" % (len(f), f) for f in stream)
              + b"0\r\n\r\n")

    def answer_all():
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass  # closing on unread bytes would reset
    threading.Thread(target=answer_all, daemon=True).start()
    return listener.getsockname()[1]


def commands(python, folder):
    """Both loops over many events and over few."""
    found = {}
    for name, count in (("many", EVENTS), ("few", FEW)):
        stream = frames(count)
        path = os.path.join(folder, name)
        with open(path, "wb") as target:
            target.writelines(stream)
        url = f"http://127.0.0.1:{serve(stream)}/p/v1"
        found[f"loop {name}"] = [python, "-c", LOOP, path]
        found[f"ours {name}"] = [
            python, SCRIPT, "--base-url", url, "--api-key", "k", "chat",
            "--endpoint", "e", "-m", "x", "--stream", "--quiet"]
    return found


def per_event(costs, name):
    """Microseconds of CPU for one event."""
    more = costs[f"{name} many"].cpu - costs[f"{name} few"].cpu
    return more / (EVENTS - FEW) * 1e6


def main():
    args = arguments(__doc__.splitlines()[0], runs=7)
    with tempfile.TemporaryDirectory() as folder:
        for python in args.python:
            found = commands(python, folder)
            costs = interleaved(found, args.runs, {})
            peak = peak_memory(found["ours many"], {})
            loop, ours = per_event(costs, "loop"), per_event(costs, "ours")
            print(f"{version(python)}: {ours:.2f} µs an event, bare loop"
                  f" {loop:.2f} µs, ratio {ours / loop:.2f};"
                  f" peak {peak / 1e6:.1f} MB"
                  f" ({EVENTS} events, least of {args.runs} runs)")


if __name__ == "__main__":
    sys.exit(main())
