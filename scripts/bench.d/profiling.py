"""Where haul's own time goes: one more run under perf, its samples sorted into a few kinds of work."""

import re
import shutil
import subprocess
from collections import Counter

# The first pattern that is found anywhere in a sample's stack, the innermost function first, names its kind. Kernel
# functions say what the system call was for.
KINDS = [
    ("network", r"\b(tcp|inet6?|ip|sock|skb|net_rx|loopback|tun|unix_stream)_|__sys_(recv|send|connect|socket)"),
    ("disk", r"\b(ext4|xfs|btrfs|shmem|filemap|vfs|jbd2|dentry|do_filp|path_|fallocate|generic_perform_write)|_(rename|unlink|openat|statx)"),
    ("waiting and waking", r"futex|epoll|eventfd|schedule|nanosleep|timerfd"),
    ("memory", r"page_fault|madvise|munmap|mmap|mprotect|\b(malloc|cfree|realloc|calloc|_int_\w+|unlink_chunk)|memmove|memcpy|memset"),
    ("digest", r"blake3"),
    ("cipher", r"aes|gcm|chacha|poly1305|ghash|gmult"),
]
KERNEL_REST, OWN = "rest of the kernel", "haul's code and libraries"
ORDER = [kind for kind, _ in KINDS] + [KERNEL_REST, OWN]
PATTERNS = [(kind, re.compile(pattern)) for kind, pattern in KINDS]
# Samples a second: not a divisor of what timers do.
RATE = 1999


def available():
    return shutil.which("perf") is not None


def wrap(command, data):
    return ["perf", "record", "--quiet", "-g", "-F", str(RATE), "-o", str(data), "--", *map(str, command)]


def shares(data):
    """Returns the share of each kind of work in the samples, and how many there were."""
    script = ["perf", "script", "-i", str(data), "-F", "comm,ip,sym"]
    said = subprocess.run(script, capture_output=True, text=True, check=False, errors="replace").stdout
    counted = Counter(kind_of(sample.splitlines()[1:]) for sample in said.split("\n\n") if sample.count("\n") > 0)
    total = sum(counted.values())
    return {kind: counted[kind] / total for kind in ORDER if counted[kind]} if total else {}


def kind_of(stack):
    lines = [line.split(None, 1) for line in stack if line.strip()]
    names = [line[1] for line in lines if len(line) == 2]
    in_kernel = bool(lines) and lines[0][0].startswith("ffff")
    # Of a sample in haul itself only the innermost function counts: its callers are tasks of all kinds.
    looked_at = names if in_kernel else names[:1]
    for kind, pattern in PATTERNS:
        if any(pattern.search(name) for name in looked_at):
            return kind
    return KERNEL_REST if in_kernel else OWN
