"""What the machine and the network allow, measured or computed: no tool can be faster.

Run as a program it is one end of the TCP measurement: `limits.py serve ADDRESS FILE STREAMS` prints its port and sends
each stream its part of the file; `limits.py receive ADDRESS PORT STREAMS FOLDER` takes them and prints the seconds.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from scenarios import CAP_CONNECTIONS, CAP_MBYTE, LINK_DELAY_MS, LINK_MBIT
from timed import end_with_parent, enter

# What of a 1500 byte packet is payload of TCP with timestamps.
PAYLOAD = 1448 / 1500


def of(scenario, servers, source, scratch):
    """Returns [(what, seconds)], the first of them the hard limit where there is one."""
    network = scenario.network
    if network.cap:
        rate = CAP_MBYTE * 1e6
        return [(f"{CAP_CONNECTIONS} connections of {CAP_MBYTE} MB/s", scenario.bytes / rate / CAP_CONNECTIONS),
                (f"one connection of {CAP_MBYTE} MB/s", scenario.bytes / rate)]
    if scenario.is_tree:
        return [] if network.link or scenario.sync else [("`cp -r` on this disk", local_copy(source, scratch))]
    if not network.link:
        return [("TCP over loopback to disk, unencrypted", tcp_copy(servers, source, scratch, 1))]
    wire = scenario.bytes * 8 / (LINK_MBIT * 1e6 * PAYLOAD) + LINK_DELAY_MS / 1000
    return [("the link's rate", wire),
            ("one TCP connection, unencrypted", tcp_copy(servers, source, scratch, 1)),
            ("eight TCP connections, unencrypted", tcp_copy(servers, source, scratch, 8))]


def local_copy(source, scratch):
    target = Path(scratch) / "copy"
    began = time.monotonic()
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    seconds = time.monotonic() - began
    shutil.rmtree(target)
    return seconds


def tcp_copy(servers, source, scratch, streams):
    """Moves the file over plain TCP connections to the disk, as simply as can be; the better of two times."""
    best = float("inf")
    for _ in range(2):
        with program(servers.server_namespace, "serve", servers.address, source, streams) as server:
            port = server.stdout.readline().strip()
            with program(servers.namespace, "receive", servers.address, port, streams, scratch) as client:
                best = min(best, float(client.stdout.read()))
    return best


def program(namespace, *args):
    """Starts one end as a process of its own, because this one stays in its namespace."""
    return subprocess.Popen(list(map(str, [sys.executable, __file__, *args])), stdout=subprocess.PIPE, text=True,
                            preexec_fn=lambda: (end_with_parent(), enter(namespace)))


def receive(address, port, streams, scratch):
    def one(file):
        buffer = bytearray(1 << 20)
        with socket.create_connection((address, port)) as connection:
            while length := connection.recv_into(buffer):
                file.write(memoryview(buffer)[:length])

    files = [tempfile.TemporaryFile(dir=scratch, buffering=0) for _ in range(streams)]
    threads = [threading.Thread(target=one, args=[file]) for file in files]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(time.monotonic() - began)


def serve(address, path, streams):
    part = -(-os.path.getsize(path) // streams)

    def one(connection, number):
        with connection, open(path, "rb") as file:
            connection.sendfile(file, number * part, part)

    with socket.create_server((address, 0)) as server:
        print(server.getsockname()[1], flush=True)
        threads = [threading.Thread(target=one, args=[server.accept()[0], number]) for number in range(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        receive(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
