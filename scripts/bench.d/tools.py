"""haul and its peers: what each can do, and its command line for that."""

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from servers import Server

# The Debian packages of the peers.
PACKAGES = {"sftp": "openssh-client", "scp": "openssh-client", "rsync": "rsync", "lftp": "lftp", "lftp pget": "lftp",
            "rclone": "rclone", "curl": "curl", "aria2c": "aria2"}
ALL = ["haul", *PACKAGES]
# The fastest of them somewhere.
QUICK_TOOLS = ["haul", "sftp", "rsync", "lftp", "lftp pget", "curl"]
# Those that make two trees equal.
SYNCS = ["haul", "rsync", "lftp", "rclone"]
STREAMS = 8
CIPHER = "aes128-gcm@openssh.com"


def program(tool):
    return tool.split()[0]


@dataclass(frozen=True)
class Cell:
    """One piece of work: `source` to `target`, both paths of this disk; one of them lies below the server's root."""

    haul: str
    server: Server
    direction: str
    is_tree: bool
    is_sync: bool
    source: Path
    target: Path
    scratch: Path
    env: dict = field(default_factory=dict)

    @property
    def get(self):
        return self.direction == "get"

    def remote(self, path):
        """Returns how the server calls a path of this disk."""
        return f"{self.server.start.rstrip('/')}/{path.relative_to(self.server.root)}"

    @property
    def remote_path(self):
        return self.remote(self.source if self.get else self.target)

    @property
    def address(self):
        return f"{self.server.host}:{self.server.port}"

    @property
    def sftp(self):
        return self.server.protocol == "SFTP"

    def write(self, name, text):
        path = self.scratch / name
        path.write_text(text)
        path.chmod(0o600)
        return path


def commands(cell):
    """Returns {tool: command} of everything that can do this work; programs that aren't there are left out."""
    makers = {"haul": haul, "sftp": sftp, "scp": scp, "rsync": rsync, "lftp": lftp, "lftp pget": lftp_pget,
              "rclone": rclone, "curl": curl, "aria2c": aria2c}
    found = {}
    for tool, make in makers.items():
        if (tool == "haul" or shutil.which(program(tool))) and (tool in SYNCS or not cell.is_sync):
            command = make(cell)
            if command:
                found[tool] = list(map(str, command))
    return found


def haul(cell):
    server = cell.server
    login = ["--known-hosts", server.known_hosts, "-i", server.identity] if cell.sftp else [
        "--password-file", server.password_file]
    login += ["--tls-ca", server.ca] if server.protocol == "FTPS" else []
    recursive = ["-r"] if cell.is_tree else []
    url = f"{server.scheme}://{server.login}@{cell.address}{cell.remote_path}"
    if cell.is_sync:
        return [cell.haul, "sync", "-q", "--delete", *login, *([url, cell.target] if cell.get else [cell.source, url])]
    ends = [url, f"{cell.target.parent}/"] if cell.get else [cell.source, f"{url.rsplit('/', 1)[0]}/"]
    return [cell.haul, cell.direction, "-q", *recursive, *login, *ends]


def ssh_options(cell):
    options = {"UserKnownHostsFile": cell.server.known_hosts, "IdentityFile": cell.server.identity, "Ciphers": CIPHER,
               "BatchMode": "yes", "IdentitiesOnly": "yes"}
    return ["-F/dev/null", *(f"-o{key}={value}" for key, value in options.items())]


def sftp(cell):
    if not cell.sftp:
        return None
    recursive = "-r " if cell.is_tree else ""
    line = f"get {recursive}{cell.remote_path} {cell.target.parent}/" if cell.get else \
        f"put {recursive}{cell.source} {cell.remote_path.rsplit('/', 1)[0]}/"
    batch = cell.write("batch", line + "\n")
    return ["sftp", "-q", *ssh_options(cell), "-P", cell.server.port, "-b", batch,
            f"{cell.server.login}@{cell.server.host}"]


def scp(cell):
    if not cell.sftp:
        return None
    remote = f"{cell.server.login}@{cell.server.host}:{cell.remote_path}"
    ends = [remote, f"{cell.target.parent}/"] if cell.get else [cell.source, f"{remote.rsplit('/', 1)[0]}/"]
    return ["scp", "-q", *(["-r"] if cell.is_tree else []), *ssh_options(cell), "-P", cell.server.port, *ends]


def rsync(cell):
    if not cell.sftp:
        return None
    remote = f"{cell.server.login}@{cell.server.host}:{cell.remote_path}"
    ends = [remote, f"{cell.target.parent}/"] if cell.get else [cell.source, f"{remote.rsplit('/', 1)[0]}/"]
    shell = " ".join(["ssh", *ssh_options(cell), "-p", cell.server.port])
    if cell.is_sync:
        ends = [f"{remote}/", f"{cell.target}/"] if cell.get else [f"{cell.source}/", f"{remote}/"]
        return ["rsync", "-rt", "--delete", "-e", shell, *ends]
    return ["rsync", "-rt", "-e", shell, *ends]


def lftp(cell):
    mirror = f"mirror --parallel={STREAMS}{' --delete' if cell.is_sync else ''}"
    if cell.is_tree:
        return lftp_with(cell, f"{mirror} {cell.remote_path} {cell.target}" if cell.get else
                         f"{mirror} -R {cell.source} {cell.remote_path}")
    return lftp_with(cell, f"get {cell.remote_path} -o {cell.target}" if cell.get else
                     f"put {cell.source} -o {cell.remote_path}")


def lftp_pget(cell):
    if cell.is_tree or not cell.get:
        return None
    return lftp_with(cell, f"pget -n {STREAMS} {cell.remote_path} -o {cell.target}")


def lftp_with(cell, command):
    server = cell.server
    settings = ["cmd:move-background no", "net:max-retries 3", "net:reconnect-interval-base 1"]
    if cell.sftp:
        settings.append(f"sftp:connect-program 'ssh -a -x {' '.join(ssh_options(cell))}'")
    elif server.protocol == "FTPS":
        settings += [f"ssl:ca-file {server.ca}", "ftp:ssl-force yes", "ftp:ssl-protect-data yes"]
    else:
        settings.append("ftp:ssl-allow no")
    script = "".join(f"set {setting}; " for setting in settings)
    address = f"{'sftp' if cell.sftp else 'ftp'}://{cell.address}"
    return ["lftp", "-u", f"{server.login},{server.password}", "-e", f"{script}{command}; bye", address]


def rclone(cell):
    server = cell.server
    kind = "sftp" if cell.sftp else "ftp"
    options = {"host": server.host, "port": server.port, "user": server.login}
    flags = []
    if cell.sftp:
        options |= {"key-file": server.identity, "known-hosts-file": server.known_hosts}
        # Sizes only, as the others. Its cipher is Go's first choice: the same one.
        flags.append("--sftp-disable-hashcheck")
    else:
        secret = subprocess.run(["rclone", "obscure", server.password], capture_output=True, text=True, check=True)
        options["pass"] = secret.stdout.strip()
        if server.protocol == "FTPS":
            # Its TLS 1.3 doesn't resume sessions in a way that vsftpd takes.
            flags += ["--ftp-explicit-tls", "--ftp-disable-tls13"]
            cell.env["rclone"] = {"SSL_CERT_FILE": server.ca}
    for key, value in options.items():
        flags += [f"--{kind}-{key}", value]
    if cell.is_tree:
        work = ["sync" if cell.is_sync else "copy", "--transfers", 16, "--checkers", 16]
    else:
        # With several streams over FTP it delivered wrong bytes from vsftpd, and called it a success (1.60.1).
        work = ["copyto", "--multi-thread-streams", STREAMS if cell.sftp else 0, "--multi-thread-cutoff", "8M"]
    remote = f":{kind}:{cell.remote_path}"
    ends = [remote, cell.target] if cell.get else [cell.source, remote]
    return ["rclone", *work, "--config=", *flags, *ends]


def curl(cell):
    if cell.is_tree:
        return None
    server = cell.server
    if cell.sftp:
        login = ["--user", f"{server.login}:", "--key", server.identity, "--pubkey", f"{server.identity}.pub"]
    else:
        login = ["--user", f"{server.login}:{server.password}"]
    login += ["--ssl-reqd", "--cacert", server.ca] if server.protocol == "FTPS" else []
    move = ["-o", cell.target] if cell.get else ["-T", cell.source]
    return ["curl", "-sS", *login, *move, f"{'sftp' if cell.sftp else 'ftp'}://{cell.address}{cell.remote_path}"]


def aria2c(cell):
    if cell.is_tree or not cell.get or cell.server.protocol == "FTPS":
        return None
    server = cell.server
    url = f"{'sftp' if cell.sftp else 'ftp'}://{cell.address}{cell.remote_path}"
    return ["aria2c", "-q", "--no-conf", "-x4", "-s4", "-k1M", "--file-allocation=none", f"--ftp-user={server.login}",
            f"--ftp-passwd={server.password}", "-d", cell.target.parent, "-o", cell.target.name, url]
