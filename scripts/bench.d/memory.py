"""Keeps this machine's free memory warm.

A virtual machine often hands free memory back to its host, in pieces of some MiB. Who is given such a piece next pays
for it, here with one to three seconds of system time per GiB: in one run all, in the next nothing, by mere chance, and
tools that write in large steps more often. So all free memory is touched once, most of it is held, and of what is let
go one page in every few MiB stays: what lies between is too small to be handed back.
"""

import mmap
from contextlib import suppress

MIB = 1 << 20
# What the largest scenario has in the page cache: three copies of a gigabyte, and room to write.
LET_GO = 6 << 30
# Never taken.
SPARE = 1 << 30
# The pieces that Linux hands back are at least this large (the order of a page block, or more).
PIECE = 2 * MIB
MADV_POPULATE_WRITE = 23


def is_virtual():
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        return any(line.startswith("flags") and " hypervisor" in line for line in file)
    return False


def free_bytes():
    with suppress(OSError), open("/proc/meminfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("MemFree:"):
                return int(line.split()[1]) * 1024
    return 0


def warm():
    """Returns what has to be kept for as long as memory shall be warm."""
    size = (free_bytes() - SPARE) // PIECE * PIECE
    if not is_virtual() or size <= 0:
        return None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        held = mmap.mmap(-1, size, flags=flags)
        # Page by page: huge ones would not be given back in parts.
        held.madvise(mmap.MADV_NOHUGEPAGE)
        held.madvise(MADV_POPULATE_WRITE)
        for piece in range(0, min(LET_GO, size), PIECE):
            held.madvise(mmap.MADV_DONTNEED, piece + mmap.PAGESIZE, PIECE - mmap.PAGESIZE)
    except (OSError, ValueError):
        return None
    return held
