"""Shared by the Python clients: names, test records, reporting. Knows no client library."""

import os
import signal
import subprocess
import sys
import time
import traceback
import uuid

STEP_SECONDS = 20

MIB = 1 << 20

# Any fixed moment will do; in the past, so that it differs from the time of arrival.
START_MS = 1_700_000_000_000

# (key, value, headers, timestamp in ms): the shapes in which clients and brokers differ.
SHAPES = [
    (b"key", b"value", [], START_MS),
    (None, b"no key", [], START_MS + 1),
    (b"tombstone", None, [], START_MS + 2),
    (b"", b"", [], START_MS + 3),
    (b"\x00\xff\n", bytes(range(256)), [("twice", b"one"), ("twice", b"two"), ("empty", b"")], START_MS + 4),
]


def address():
    """The broker named on the command line."""
    return sys.argv[1]


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def expect(what, actual, expected):
    assert actual == expected, f"{what} is {actual!r}, expected {expected!r}"


def until(what, probe, seconds=STEP_SECONDS):
    """Asks `probe` until it gives something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)


def collect(count, poll, seconds=STEP_SECONDS):
    """Calls `poll`, which waits a little and returns a list of records, until there are `count`."""
    found = []
    deadline = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} records within {seconds} s"
        found += poll()
    expect("count of records", len(found), count)
    return found


ADD_PARTITIONS_TO_TXN = 24


class NotServed(Exception):
    """The broker does not serve what the check is about."""


def needs_api(key):
    """Leaves the check out, and says so, when the broker does not serve this API."""
    if str(key) not in os.environ["SERVED_APIS"].split():
        raise NotServed


class Checks:
    """Collects checks and runs them in order; one that fails does not stop the others."""

    def __init__(self):
        self.checks = []

    def __call__(self, name, *arguments):
        """Decorator: registers the function as check `name`, called with `arguments`. May be stacked."""

        def register(function):
            self.checks.append((name, function, arguments))
            return function

        return register

    def run(self, call=lambda function, arguments: function(*arguments)):
        """Runs all, or those whose names contain CHECK from the environment; the process ends with the verdict."""
        wanted = os.environ.get("CHECK", "")
        failed = False
        for name, function, arguments in reversed_stacks(self.checks):
            if wanted not in name:
                continue
            signal.signal(signal.SIGALRM, out_of_time)
            signal.alarm(45)
            try:
                call(function, arguments)
                print(f"ok {name}", flush=True)
            except NotServed:
                print(f"skip {name}: not served", flush=True)
            except BaseException as error:  # a client may raise anything, and the others still count
                why = " ".join(str(error).split()) or type(error).__name__
                print(f"FAIL {name}: {type(error).__name__}: {why[:300]}", flush=True)
                if os.environ.get("VERBOSE"):
                    traceback.print_exc()
                failed = True
            finally:
                signal.alarm(0)
        sys.stdout.flush()
        os._exit(1 if failed else 0)  # threads of a failed check may never end


def reversed_stacks(checks):
    """Stacked decorators register bottom up; put each stack back into reading order."""
    result, stack = [], []
    for check in checks:
        if stack and stack[-1][1] is not check[1]:
            result += reversed(stack)
            stack = []
        stack.append(check)
    return result + list(reversed(stack))


def out_of_time(_signal, _frame):
    raise TimeoutError("not done after 45 s")


class Member:
    """A group member in a process of its own, so that it can die without saying goodbye.

    The script runs itself as `script ADDRESS member TOPIC GROUP COUNT`: it reads COUNT records, commits, prints
    `committed` and goes on polling.
    """

    def __init__(self, topic, group, count):
        command = [sys.executable, sys.argv[0], address(), "member", topic, group, str(count)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.strip() == "committed":
                return
        self.process.wait()
        raise AssertionError("the member process ended before it had committed")

    def kill(self):
        self.process.kill()
        self.process.wait()


def member_arguments():
    """(topic, group, count) if this process is to be a member, else None."""
    if len(sys.argv) == 6 and sys.argv[2] == "member":
        return sys.argv[3], sys.argv[4], int(sys.argv[5])
    return None
