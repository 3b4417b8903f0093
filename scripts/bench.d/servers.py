"""The servers of one network: started by the lab of the tests, behind the slow link or the cap where that is asked."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

from scenarios import CAP_CONNECTIONS, CAP_MBYTE, LINK_DELAY_MS, LINK_MBIT
from timed import end_with_parent

HERE = Path(__file__).resolve().parent.parent.parent
LAB = HERE / "tests/support/lab"
SERVERS = {"SFTP": "openssh", "FTP": "vsftpd", "FTPS": "vsftpd_tls"}


class Missing(Exception):
    """Why something can't be measured here."""


@dataclass(frozen=True)
class Server:
    """What a client needs to know."""

    protocol: str
    scheme: str
    host: str
    port: str
    login: str
    password: str
    # Its folder on the disk, and how the server calls it.
    root: Path
    start: str
    ca: str
    known_hosts: str
    identity: str
    password_file: str


class Servers:
    """Servers and what lies before them, for as long as the `with` lasts."""

    def __init__(self, network, scratch, wanlink, congestion=None):
        self.network, self.scratch, self.wanlink = network, Path(scratch) / network.name, wanlink
        self.name = f"bm{os.getpid()}"[:9]
        self.namespace = f"{self.name}-b" if network.link else None
        self.server_namespace = f"{self.name}-a" if network.link else None
        self.congestion = congestion
        self.address = "10.77.0.1" if network.link else "127.0.0.1"
        self.running, self.servers, self.statistics = [], {}, {}

    def __enter__(self):
        self.scratch.mkdir(mode=0o755)
        try:
            if self.network.link:
                self.start_link()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        subprocess.run([LAB / "stop"], env=self.env(), check=False)
        for process in reversed(self.running):
            process.terminate()
            process.wait()
        if self.running and self.network.link:
            self.read_statistics()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def env(self):
        lab = {"HAUL_LAB": str(self.scratch / "lab"), "HAUL_LAB_ADDRESS": self.address}
        if self.network.cap:
            lab |= {"HAUL_LAB_RATE": str(CAP_MBYTE * 1_000_000), "HAUL_LAB_CLIENTS": str(CAP_CONNECTIONS)}
        return os.environ | lab

    def start_link(self):
        if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
            raise Missing("the slow link needs root and /dev/net/tun")
        if not shutil.which("ip"):
            raise Missing("the slow link needs `ip` (package iproute2)")
        link = ["run", "--name", self.name, "--delay-ms", LINK_DELAY_MS, "--rate-mbit", LINK_MBIT]
        self.run(*link, "--loss-percent", self.network.loss_percent, "--seed", 7)
        if self.congestion:
            for side in ("a", "b"):
                write = f"echo {self.congestion} >/proc/sys/net/ipv4/tcp_congestion_control"
                done = subprocess.run([*self.on(side), "sh", "-c", write], capture_output=True, check=False)
                if done.returncode != 0:
                    raise Missing(f"this kernel doesn't allow {self.congestion} in a network namespace")

    def on(self, side):
        """Returns what a command begins with to run on that side."""
        return [str(self.wanlink), "exec", "--name", self.name, "--side", side, "--"]

    def run(self, *args):
        """Runs wanlink until the end, and returns what it says when it is ready."""
        ready, log = self.scratch / "ready", self.scratch / "link.log"
        ready.unlink(missing_ok=True)
        command = [self.wanlink, *args, "--ready-file", ready]
        with open(log, "wb") as file:
            # A session of its own: a Ctrl-C ends the clients first.
            process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                       start_new_session=True, preexec_fn=end_with_parent)
        self.running.append(process)
        until = time.monotonic() + 10
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise Missing(f"the link doesn't start: {log.read_text().strip()}")
            time.sleep(0.01)
        return ready.read_text().strip()

    def read_statistics(self):
        """Takes what the link says at its end: {"a->b": {"packets": 12, ...}, ...}."""
        for line in (self.scratch / "link.log").read_text().splitlines():
            words = line.split()
            if len(words) > 2 and "->" in words[1]:
                figures = (word.split("=") for word in words[2:])
                self.statistics[words[1]] = {key: int(number) for key, number in figures}

    def late_part(self):
        """Returns which part of the packets came late, because this machine had no time for the link."""
        packets = sum(one["packets"] for one in self.statistics.values())
        return sum(one["late"] for one in self.statistics.values()) / packets if packets else 0

    def get(self, protocol):
        """Returns the server, started if need be."""
        if protocol not in self.servers:
            self.servers[protocol] = self.start(protocol)
        return self.servers[protocol]

    def start(self, protocol):
        command = [LAB / "start", SERVERS[protocol], os.getpid()]
        if self.server_namespace:
            command = [*self.on("a"), *command]
        answer = subprocess.run(list(map(str, command)), env=self.env(), capture_output=True, text=True, check=False)
        values = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
        if "PORT" not in values:
            raise Missing(f"no {SERVERS[protocol]}: {values.get('MISSING', answer.stderr[-300:])}")
        server = Server(protocol, *(values[key] for key in ("SCHEME", "HOST", "PORT", "LOGIN", "PASSWORD")),
                        Path(values["ROOT"]), values["START"], values["CA"], values["KNOWN_HOSTS"], values["IDENTITY"],
                        str(self.scratch / "lab/keys/password"))
        if self.network.cap and protocol == "SFTP":
            # An address that the server's known_hosts has, so that the port may stay.
            there, here = f"{server.host}:{server.port}", f"127.0.0.2:{server.port}"
            self.run("cap", "--quiet", "--listen", here, "--to", there, "--mbyte-per-s", CAP_MBYTE,
                     "--max-connections", CAP_CONNECTIONS)
            server = replace(server, host="127.0.0.2")
        return server
