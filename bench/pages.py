"""Fetches memory for a virtual machine from its host before a run.

A virtual machine returns unused pages to its host, and getting a page again takes about ten times as long as clearing
it. That would distort runs that fill gigabytes: the first server of a round would be four times slower than the next
one, which gets the pages that the first one has freed.
"""

from __future__ import annotations

import os
import subprocess
import sys

_TOUCH = """
import mmap, sys
size = int(sys.argv[1])
memory = mmap.mmap(-1, size)
for place in range(0, size, mmap.PAGESIZE):
    memory[place] = 1
"""


def fetch_pages(size: int) -> int:
    """Make the host provide ``size`` bytes of memory, as far as available, and free them again.

    :return: the number of bytes.
    """
    size = min(size, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    subprocess.run([sys.executable, "-c", _TOUCH, str(size)], check=True)
    return size
