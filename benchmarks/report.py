"""What a report takes: seconds and megabytes, by number of trials, on drawn ledgers.

make bench-report                      # 24 and 1,000 trials, three times each
python benchmarks/report.py --trials 100 1000 5000 --rounds 1
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the drawn studies are the tests'

from tests.fakes.drawn_study import Drawing, draw_run  # noqa: E402


def seconds_of(run: Path) -> tuple[float, float]:
    """Of `thawline report`, the start of Python and all imports included: by the clock, and of processors."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "search.cli", "report", run], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[24, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("trials   seconds   of processors   megabytes    medians; all seconds")
    with tempfile.TemporaryDirectory() as folder:
        for trials in arguments.trials:
            run = draw_run(Path(folder) / str(trials), Drawing(trials=trials))
            clock, used = zip(*(seconds_of(run) for _ in range(arguments.rounds)), strict=True)
            size = (run / "report.html").stat().st_size / 1e6
            each = ", ".join(f"{one:.1f}" for one in clock)
            print(f"{trials:6} {statistics.median(clock):9.1f} {statistics.median(used):15.1f} {size:11.1f}    {each}")


if __name__ == "__main__":
    main()
