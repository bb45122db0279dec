#!/usr/bin/env python3
"""What a streamed event costs, and how soon the first token is out.

The least is a bare loop of json.loads, write and flush over the same bytes
from a file; ours gets them over a socket, chunked.  Both are measured for
many events and for few, and the difference is taken, so that starting up
does not count.  The peak of memory is that of the long stream.

The latency is that of the first token: from the moment that the server has
its delta to write to the moment that a reader of the pipe has it, with the
connection open and the head long there.  Two ways of the bytes, no more than
a recv and a write, are in it: a bare client with nothing but these two shows
how much that is.

    python3 tests/bench/stream.py [--runs N] [PYTHON …]
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from measure import (SCRIPT, arguments, interleaved, peak_memory, verdict,
                     version)

EVENTS, FEW = 50000, 100
STREAM_AIM, LATENCY_AIM_MS = 1.5, 1
STREAMS, SETTLED_S = 30, 0.15

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


HEAD = (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n")


def as_chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def serve(stream):
    """Serve a stream, each frame a chunk, to whoever asks; return the port.

    It is sent as one prepared block, so that the server costs nothing.
    """
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(8)
    answer = HEAD + b"".join(map(as_chunk, stream)) + b"0\r\n\r\n"

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


def ours(python, url):
    return [python, SCRIPT, "--base-url", url, "--api-key", "k", "chat",
            "--endpoint", "e", "-m", "x", "--stream", "--quiet"]


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
        found[f"ours {name}"] = ours(python, url)
    return found


def per_event(costs, name):
    """Microseconds of CPU for one event."""
    more = costs[f"{name} many"].cpu - costs[f"{name} few"].cpu
    return more / (EVENTS - FEW) * 1e6


def measure_events(python, runs):
    """Print what an event costs, and the peak of a long stream."""
    with tempfile.TemporaryDirectory() as folder:
        found = commands(python, folder)
        costs = interleaved(found, runs, {})
    peak = peak_memory(found["ours many"], {})
    loop, event = per_event(costs, "loop"), per_event(costs, "ours")
    print(f"  an event: {event:.2f} µs, bare loop {loop:.2f} µs, ratio"
          f" {event / loop:.2f}, {verdict(event / loop, at_most=STREAM_AIM)};"
          f" peak {peak / 1e6:.1f} MB"
          f" ({EVENTS} events, least of {runs} runs)")


BARE = """
import os, socket, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
head = client.recv(65536)
while True:
    block = client.recv(65536)
    if not block:
        break
    os.write(1, block)
"""


def first_token_ms(listener, command):
    """Have a command stream, and time its first token, in milliseconds."""
    first, *rest = frames(1)
    process = subprocess.Popen(command, env={}, stdout=subprocess.PIPE)
    with process, process.stdout:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.recv(65536)
            connection.sendall(HEAD)
            time.sleep(SETTLED_S)
            started = time.perf_counter()
            connection.sendall(as_chunk(first))
            os.read(process.stdout.fileno(), 1)
            took = time.perf_counter() - started
            connection.sendall(b"".join(map(as_chunk, rest))
                               + b"0\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            process.stdout.read()
            connection.recv(65536)
    return took * 1000


def measure_latency(python):
    """Print the least and the median latency, ours and that of no work."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        port = listener.getsockname()[1]
        clients = [ours(python, f"http://127.0.0.1:{port}/p/v1"),
                   [python, "-c", BARE, str(port)]]
        took = [[first_token_ms(listener, client) for client in clients]
                for _ in range(STREAMS)]
    (least, median), (bare, bare_median) = (
        (min(times), statistics.median(times)) for times in zip(*took))
    print(f"  first token: {least:.2f} ms at the least, median"
          f" {median:.2f} ms; recv and write alone {bare:.2f} ms, median"
          f" {bare_median:.2f} ms;"
          f" {verdict(least, at_most=LATENCY_AIM_MS)} ({STREAMS} streams)")


def main():
    args = arguments(__doc__.splitlines()[0], runs=7)
    for python in args.python:
        print(version(python))
        measure_events(python, args.runs)
        measure_latency(python)


if __name__ == "__main__":
    sys.exit(main())
