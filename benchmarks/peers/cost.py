"""What work costs, as the peers' scripts print it: one line of JSON."""

import json
import resource
import statistics
import time


def print_cost(work, repeats=1, each=1, more=None):
    """Do `work` and print wall and CPU seconds (medians) of each of its pieces, peak memory (bytes), and `more`."""
    wall, cpu = [], []
    for _ in range(repeats):
        started, cpu_before = time.perf_counter(), cpu_seconds()
        work()
        wall.append((time.perf_counter() - started) / each)
        cpu.append((cpu_seconds() - cpu_before) / each)
    peak = max(resource.getrusage(who).ru_maxrss for who in EVERYONE) * 1024
    print(json.dumps({"wall": statistics.median(wall), "cpu": statistics.median(cpu), "memory": peak} | (more or {})))


def cpu_seconds():
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, EVERYONE))


EVERYONE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
