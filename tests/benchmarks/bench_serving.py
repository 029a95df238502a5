"""Measures the serving bars on this machine: every number beside its limit, ratios within one run.

python -m tests.benchmarks.bench_serving [latency|throughput|upload|overload|drain|memory ...] [--quick] [--out FILE]

Each bar starts its own `hark serve`; clients, decoding and network share the machine. `--quick` takes seconds and shows
only that the script runs. Without it all bars together take some fifteen minutes on two cores.
"""

import argparse
import sys
from dataclasses import asdict, fields
from pathlib import Path

from tests.benchmarks.bench_serving_bars import BARS, Finding, Sizes, with_sizes
from tests.benchmarks.timing import print_table, write_results


def main() -> int:
    """Measure the named bars, print the table, write the results; 1 where a limit is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bars", nargs="*", metavar="BAR", help=f"which: {', '.join(BARS)}; by default all")
    parser.add_argument("--quick", action="store_true", help="small sizes: a rehearsal")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/serving.json"))
    for field in fields(Sizes):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default))
    options = vars(parser.parse_args())
    names, out = options.pop("bars") or list(BARS), options.pop("out")
    if unknown := [name for name in names if name not in BARS]:
        parser.error(f"there is no bar {unknown[0]!r}; there are: {', '.join(BARS)}")
    sizes = with_sizes(**options)
    findings: list[Finding] = []
    for name in names:
        print(f"{name} ...", flush=True)
        findings += BARS[name](sizes)
    report(findings)
    write_results(out, {"sizes": asdict(sizes), "findings": [asdict(finding) for finding in findings]})
    return 0 if all(finding.passed for finding in findings) else 1


def report(findings: list[Finding]) -> None:
    """Print the table."""
    rows = [
        [
            finding.bar,
            finding.what,
            f"{finding.value:.3g}",
            f"{'at most' if finding.at_most else 'at least'} {finding.limit:g}",
            "yes" if finding.passed else "NO",
            finding.note,
        ]
        for finding in findings
    ]
    print_table(["bar", "what", "measured", "limit", "kept", "details"], rows)


if __name__ == "__main__":
    sys.exit(main())
