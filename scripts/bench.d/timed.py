"""Runs one command and tells what it took: wall time, CPU time and memory of the whole process tree.

A program of its own: the job comes as JSON on stdin, the result goes as JSON to stdout. As the "subreaper" of all that
the command starts it counts processes, too, that the command itself never waits for, such as the ssh of lftp.
"""

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

SAMPLE_SECONDS = 0.025
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, CLONE_NEWNET = 1, 36, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace):
    """Moves this process into a network namespace that has a name; stays for None."""
    if namespace:
        with open(f"/run/netns/{namespace}", "rb") as file:
            if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"the namespace {namespace}")


def end_with_parent():
    """Has the kernel send SIGTERM to this process when the one that started it dies."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def tree(pid):
    """Returns a process and everything below it."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with suppress(OSError), open(f"/proc/{parent}/task/{task}/children", encoding="ascii") as file:
                    found += map(int, file.read().split())
    return found


def peak_kib(pid):
    """Returns the most memory that a process has had resident so far."""
    with suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def end(everything_below):
    """Ends what is still there: politely, then not."""
    for kind, seconds in ((signal.SIGTERM, 1.0), (signal.SIGKILL, 5.0)):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            left = tree(everything_below)[1:]
            if not left:
                return
            for pid in left:
                with suppress(OSError):
                    os.kill(pid, kind)
            reap()
            time.sleep(0.01)


def reap():
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def run(job):
    enter(job["namespace"])
    with open(job["log"], "wb") as log:
        began = time.monotonic()
        child = subprocess.Popen(job["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=job["env"],
                                 start_new_session=True)
    ended = select.poll()
    ended.register(os.pidfd_open(child.pid), select.POLLIN)
    peak, late = 0, False
    while not ended.poll(SAMPLE_SECONDS * 1000):
        peak = max(peak, sum(map(peak_kib, tree(child.pid))))
        if time.monotonic() - began > job["patience"]:
            late = True
            break
    wall = time.monotonic() - began
    status = None if late else child.wait()
    end(os.getpid())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak_mib": (peak or used.ru_maxrss) / 1024,
            "status": status}


def main():
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    end_with_parent()
    # Not ignored: what is ignored stays so in the command. The parent sees the Ctrl-C and ends this process.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        json.dump(run(json.load(sys.stdin)), sys.stdout)
    finally:
        end(os.getpid())


if __name__ == "__main__":
    main()
