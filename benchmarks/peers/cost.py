"""Measure the cost of work in the script of a peer, and print it as one line of JSON."""

import json
import resource
import statistics
import time
from pathlib import Path


def print_cost(work, repeats=1, each=1, more=None):
    """Run `work`; print median wall and CPU seconds of each of its pieces, peak memory in bytes, and `more`."""
    wall, cpu = [], []
    for _ in range(repeats):
        started, cpu_before = time.perf_counter(), cpu_seconds()
        work()
        wall.append((time.perf_counter() - started) / each)
        cpu.append((cpu_seconds() - cpu_before) / each)
    print(json.dumps({"wall": statistics.median(wall), "cpu": statistics.median(cpu), "memory": peak()} | (more or {})))


def cpu_seconds():
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, EVERYONE))


def peak():
    # VmHWM, since ru_maxrss counts the memory of the process that started this one
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return max(int(status["VmHWM"].split()[0]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024


EVERYONE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
