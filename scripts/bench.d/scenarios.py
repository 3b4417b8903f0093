"""What is measured: the data and the network of each scenario."""

import os
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
LINK_MBIT, LINK_DELAY_MS = 1000, 25
CAP_MBYTE, CAP_CONNECTIONS = 10, 8
SMALL = 4096


@dataclass(frozen=True)
class Network:
    """What lies between the client and the server."""

    name: str
    text: str
    link: bool = False
    loss_percent: float = 0
    cap: bool = False


LOOPBACK = Network("loopback", "loopback")
LINK = Network("link", f"{2 * LINK_DELAY_MS} ms round trip, {LINK_MBIT} Mbit/s", link=True)
LOSSY = Network("lossy", f"{2 * LINK_DELAY_MS} ms round trip, {LINK_MBIT} Mbit/s, 0.1 % loss", link=True,
                loss_percent=0.1)
CAPPED = Network("capped", f"the server allows {CAP_MBYTE} MB/s per connection, {CAP_CONNECTIONS} connections",
                 cap=True)


@dataclass(frozen=True)
class Scenario:
    """One file of `mib` MiB, or a tree of `count` small files in `folders` folders."""

    letter: str
    network: Network
    mib: int = 0
    count: int = 0
    folders: int = 1
    protocols: tuple = ("SFTP", "FTP", "FTPS")
    directions: tuple = ("get", "put")

    @property
    def is_tree(self):
        return self.count > 0

    @property
    def work(self):
        many, one = f"{self.count} files of 4 KiB in {self.folders} folders", f"one file of {self.mib} MiB"
        return many if self.is_tree else one

    @property
    def title(self):
        return f"({self.letter}) {self.work}, {self.network.text}"

    @property
    def bytes(self):
        return self.count * SMALL if self.is_tree else self.mib * MIB

    @property
    def name(self):
        """The name of the file or of the folder."""
        return "tree" if self.is_tree else "file"

    def make(self, folder):
        """Makes the data, and returns the path of the file or of the folder."""
        path = Path(folder) / self.letter / self.name
        path.parent.mkdir(parents=True)
        if not self.is_tree:
            with open(path, "wb") as file:
                for _ in range(self.mib):
                    file.write(os.urandom(MIB))
            return path
        for number in range(self.count):
            file = path / f"folder-{number % self.folders:02}" / f"file-{number:05}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(SMALL))
        return path


FULL = [
    Scenario("a", LOOPBACK, mib=1024),
    Scenario("b", LOOPBACK, count=5000, folders=50),
    Scenario("c", LINK, mib=256),
    Scenario("d", LINK, count=1000, folders=10),
    Scenario("e", LOSSY, mib=256),
    Scenario("f", CAPPED, mib=256),
]
# Everything once, but not in every combination.
QUICK = [
    Scenario("a", LOOPBACK, mib=128),
    Scenario("b", LOOPBACK, count=250, folders=5),
    Scenario("c", LINK, mib=16, protocols=("SFTP", "FTP")),
    Scenario("d", LINK, count=40, folders=4, protocols=("SFTP", "FTP")),
    Scenario("e", LOSSY, mib=8, protocols=("SFTP",), directions=("get",)),
    Scenario("f", CAPPED, mib=12, protocols=("SFTP", "FTP"), directions=("get",)),
]
