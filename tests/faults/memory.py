"""How much memory a piece of work takes, in a process of its own."""

import subprocess
import sys
from pathlib import Path

GIB = 2**30
ROOT = Path(__file__).parent.parent.parent

# Not getrusage: its peak goes over from the parent to the child, and this parent has loaded torch.
_PEAK = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"


def peak_memory(code: str, *arguments: Path) -> int:
    """Run Python code, which finds `arguments` in sys.argv[1:], and return its peak memory in bytes."""
    command = [sys.executable, "-c", f"{code}\n{_PEAK}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) * 1024
