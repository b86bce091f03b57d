"""Memory that a virtual machine has at hand.

A virtual machine gives pages that it doesn't use back to its host, and getting one again takes about ten times as long
as clearing it. A run that fills gigabytes would then be measured for that: the first server of a round four times
slower than the next one, which gets the pages that the first has left.
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
    """Have the host give the machine so many bytes of memory, as far as it has them; nothing of them is kept.

    :return: how many it were.
    """
    size = min(size, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    subprocess.run([sys.executable, "-c", _TOUCH, str(size)], check=True)
    return size
