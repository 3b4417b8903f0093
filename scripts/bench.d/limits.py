"""What the machine and the network allow, measured or computed: no tool can be faster.

Run as a program it is the server of the TCP measurement: `limits.py ADDRESS FILE STREAMS` prints its port and sends
to each of the streams its part of the file.
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
        return [] if network.link else [("`cp -r` on this disk", local_copy(source, scratch))]
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
    address = "10.77.0.1" if servers.network.link else "127.0.0.1"
    best = None
    for _ in range(2):
        with subprocess.Popen([sys.executable, __file__, address, source, str(streams)], stdout=subprocess.PIPE, text=True,
                              preexec_fn=lambda: (end_with_parent(), enter(servers.server_namespace))) as server:
            port = server.stdout.readline().strip()
            # Of another process, too, because this one stays in its namespace.
            client = [sys.executable, "-c", f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
                      f"import limits; limits.receive({address!r}, {port}, {streams}, {str(scratch)!r})"]
            took = subprocess.run(client, stdout=subprocess.PIPE, text=True, check=True,
                                  preexec_fn=lambda: (end_with_parent(), enter(servers.namespace)))
        seconds = float(took.stdout)
        best = min(best or seconds, seconds)
    return best


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
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
