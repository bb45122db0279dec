#!/usr/bin/env python3
"""What a large batch costs: checking it, sending it line by line, memory.

The check is held against a bare loop of json.loads over the same lines, a
direct run against a bare loop of urllib in as many threads, both for many
lines and for few, so that starting up does not count.  The server keeps
connections open for whoever wants that, as real ones do.  Peaks of memory
are those of whole processes.

    python3 tests/bench/jsonl.py [--runs N] [--large] [PYTHON …]

--large measures the memory at 1 GB too; it needs 3 GB of disk.
"""

import json
import os
import subprocess
import sys
import tempfile

from measure import (SCRIPT, TESTS, arguments, interleaved, peak_memory,
                     version)

MANY, FEW = 200000, 1000
SENT_MANY, SENT_FEW = 4000, 400
CONCURRENCY = 8

LOOP = """
import json, sys
for line in open(sys.argv[1], "rb"):
    json.loads(line)
"""

URLLIB = """
import json, queue, sys, threading, urllib.request
url, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
jobs, out, lock = queue.Queue(2 * count), open(path + ".out", "wb"), (
    threading.Lock())
def work():
    for line in iter(jobs.get, None):
        request = json.loads(line)
        body = json.dumps(request["body"]).encode()
        answer = urllib.request.urlopen(urllib.request.Request(
            url + request["url"], body,
            {"Content-Type": "application/json"}))
        result = {"custom_id": request["custom_id"], "response":
                  {"status_code": answer.status, "body": json.load(answer)}}
        with lock:
            out.write(json.dumps(result).encode() + b"\\n")
workers = [threading.Thread(target=work) for _ in range(count)]
for worker in workers:
    worker.start()
for line in open(path, "rb"):
    jobs.put(line)
for _ in workers:
    jobs.put(None)
for worker in workers:
    worker.join()
"""


def write_lines(path, count=None, size=None, words=24):
    """Write so many lines of a batch, or as many as fill so many bytes."""
    text, number, written = "some words " * words, 0, 0
    with open(path, "wb") as target:
        while number != count and (size is None or written < size):
            number += 1
            body = {"model": "my-model", "max_tokens": 64, "messages": [
                {"role": "system", "content": "Answer briefly."},
                {"role": "user", "content": f"{number}: {text}"}]}
            written += target.write(json.dumps({
                "custom_id": f"request-{number}", "method": "POST",
                "url": "/v1/chat/completions",
                "body": body}).encode() + b"\n")
    return path


def ours(python, *words):
    return [python, SCRIPT, "--quiet", *words]


def measure_check(python, folder, runs):
    """Print what the check of a line costs, against json.loads."""
    commands = {}
    for name, count in (("many", MANY), ("few", FEW)):
        path = write_lines(os.path.join(folder, name), count)
        commands["loop " + name] = [python, "-c", LOOP, path]
        commands["ours " + name] = ours(python, "batches", "check", path)
    costs = interleaved(commands, runs, {})
    loop, check = (
        (costs[name + " many"].cpu - costs[name + " few"].cpu)
        / (MANY - FEW) * 1e6 for name in ("loop", "ours"))
    print(f"  check: {check:.2f} µs a line, json.loads {loop:.2f} µs, ratio"
          f" {check / loop:.2f} ({MANY} lines, least of {runs})")


SERVER = """
import socket, sys, threading
body = (b'{"id":"x","choices":[{"index":0,"message":{"role":"assistant",'
        b'"content":"yes"},"finish_reason":"stop"}],'
        b'"usage":{"total_tokens":12}}')
answer = (b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\n"
          b"Content-Length: %d\\r\\n\\r\\n%b"
          % (len(body), body))
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(128)
print(listener.getsockname()[1], flush=True)
def serve():
    while True:
        client, _ = listener.accept()
        while answer_one(client):
            pass
        client.close()
def answer_one(client):
    asked = b""
    while b"\\r\\n\\r\\n" not in asked:
        block = client.recv(65536)
        if not block:
            return False
        asked += block
    head, _, rest = asked.partition(b"\\r\\n\\r\\n")
    head = head.lower()
    left = int(head.partition(b"content-length: ")[2].split()[0])
    while len(rest) < left:
        rest += client.recv(65536)
    client.sendall(answer)
    return b"connection: close" not in head
for _ in range(int(sys.argv[1])):
    threading.Thread(target=serve).start()
"""


def measure_direct(python, folder, runs):
    """Print the throughput of a direct run against urllib in threads."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(CONCURRENCY)],
        stdout=subprocess.PIPE)
    url = f"http://127.0.0.1:{int(server.stdout.readline())}"
    commands = {}
    for name, count in (("many", SENT_MANY), ("few", SENT_FEW)):
        path = write_lines(os.path.join(folder, "sent " + name), count)
        commands["loop " + name] = [python, "-c", URLLIB, url, path,
                                    str(CONCURRENCY)]
        commands["ours " + name] = ours(
            python, "--style", "openai", "--base-url", url + "/v1",
            "--force", "batches", "run", "--direct", "--concurrency",
            str(CONCURRENCY), "--input", path, "--output-file", path + "2")
    try:
        costs = interleaved(commands, runs, {})
    finally:
        server.kill()
        server.stdout.close()
        server.wait()
    loop, direct = (
        (SENT_MANY - SENT_FEW) / (costs[name + " many"].wall
                                  - costs[name + " few"].wall)
        for name in ("loop", "ours"))
    print(f"  direct: {direct:.0f} lines a second, urllib {loop:.0f}, ratio"
          f" {direct / loop:.2f} ({CONCURRENCY} workers, {SENT_MANY} lines,"
          f" least of {runs})")


def measure_memory(python, folder, size):
    """Print the peaks of checking, uploading and downloading so much."""
    sys.path.insert(0, TESTS)
    from router import Router
    path = write_lines(os.path.join(folder, "large"), size=size)
    with open(path, "rb") as source:
        lines = sum(1 for _ in source)
    with Router() as router:
        router.file_limit = router.batch_limit = 2 * size
        place = ["--base-url", router.base_url, "--api-key", router.key]
        peaks = {"start": peak_memory(ours(python, "--version"), {}),
                 "check": peak_memory(ours(
                     python, "batches", "check", "--split", path), {})}
        if size < 500 * 10 ** 6:  # the most that a file may have
            peaks["upload"] = peak_memory(ours(
                python, *place, "files", "--upload", path), {})
            file_id = next(iter(router.files))
        else:
            file_id = add_large(router, path)
        peaks["download"] = peak_memory(ours(
            python, *place, "files", file_id, "--download",
            path + ".back"), {})
    allowed = 40 * 10 ** 6 + 20 * lines
    print(f"  memory at {size / 1e6:.0f} MB, {lines} lines (aim"
          f" {allowed / 1e6:.0f} MB): " + ", ".join(
              f"{name} {peak / 1e6:.1f} MB" for name, peak in peaks.items()))


def add_large(router, path):
    """Have a router serve a file that is too large to be uploaded."""
    with open(path, "rb") as source:
        return router.add_file("large.jsonl", source.read())["id"]


def main():
    is_large = "--large" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--large"]
    args = arguments(__doc__.splitlines()[0], runs=5)
    for python in args.python:
        print(version(python))
        with tempfile.TemporaryDirectory() as folder:
            measure_check(python, folder, args.runs)
            measure_direct(python, folder, args.runs)
            for size in [10 ** 8] + [10 ** 9] * is_large:
                measure_memory(python, folder, size)


if __name__ == "__main__":
    sys.exit(main())
