"""What is measured: the data and the network of each scenario."""

import os
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
LINK_MBIT, LINK_DELAY_MS = 1000, 25
CAP_MBYTE, CAP_CONNECTIONS = 10, 8
SMALL = 4096
# When the files of a sync were changed last: before anything that a tool could take for "just now".
LONG_AGO = 1_700_000_000


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
    """One file of `mib` MiB, or a tree of `count` small files in `folders` folders; a sync finds it there already, but
    for one file in `stale_every`, which is of an older time and has other bytes."""

    letter: str
    network: Network
    mib: int = 0
    count: int = 0
    folders: int = 1
    sync: bool = False
    stale_every: int = 0
    protocols: tuple = ("SFTP", "FTP", "FTPS")
    directions: tuple = ("get", "put")

    @property
    def is_tree(self):
        return self.count > 0

    @property
    def work(self):
        if not self.is_tree:
            return f"one file of {self.mib} MiB"
        many = f"{self.count} files of 4 KiB in {self.folders} folders"
        if not self.sync:
            return many
        return f"sync of {many}, {f'1 in {self.stale_every}' if self.stale_every else 'nothing'} changed"

    @property
    def title(self):
        return f"({self.letter}) {self.work}, {self.network.text}"

    @property
    def bytes(self):
        if self.sync:
            return len(self.stale) * SMALL
        return self.count * SMALL if self.is_tree else self.mib * MIB

    @property
    def stale(self):
        """The numbers of the files that a sync finds changed."""
        return range(0, self.count, self.stale_every) if self.stale_every else ()

    def file(self, tree, number):
        return tree / f"folder-{number % self.folders:02}" / f"file-{number:05}"

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
            file = self.file(path, number)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(SMALL))
            os.utime(file, (LONG_AGO, LONG_AGO))
        return path

    def make_stale(self, tree):
        """Puts the target of a sync back to what it was before."""
        for number in self.stale:
            file = self.file(tree, number)
            file.write_bytes(bytes(SMALL))
            os.utime(file, (LONG_AGO - 100_000, LONG_AGO - 100_000))


FULL = [
    Scenario("a", LOOPBACK, mib=1024),
    Scenario("b", LOOPBACK, count=5000, folders=50),
    Scenario("c", LINK, mib=256),
    Scenario("d", LINK, count=1000, folders=10),
    Scenario("e", LOSSY, mib=256),
    Scenario("f", CAPPED, mib=256),
    Scenario("g", LOOPBACK, count=10_000, folders=100, sync=True),
    Scenario("h", LOOPBACK, count=10_000, folders=100, sync=True, stale_every=100),
    Scenario("i", LINK, count=10_000, folders=100, sync=True, protocols=("SFTP", "FTP")),
    Scenario("j", LINK, count=10_000, folders=100, sync=True, stale_every=100, protocols=("SFTP", "FTP")),
]
# Everything once, but not in every combination.
QUICK = [
    Scenario("a", LOOPBACK, mib=128),
    Scenario("b", LOOPBACK, count=250, folders=5),
    Scenario("c", LINK, mib=16, protocols=("SFTP", "FTP")),
    Scenario("d", LINK, count=40, folders=4, protocols=("SFTP", "FTP")),
    Scenario("e", LOSSY, mib=8, protocols=("SFTP",), directions=("get",)),
    Scenario("f", CAPPED, mib=12, protocols=("SFTP", "FTP"), directions=("get",)),
    Scenario("h", LOOPBACK, count=500, folders=10, sync=True, stale_every=100, protocols=("SFTP", "FTP")),
    Scenario("j", LINK, count=500, folders=10, sync=True, stale_every=100, protocols=("SFTP",)),
]
