"""List the benches: what each measures, and how long it takes.

python -m bench
python -m bench.NAME --help      what one of them can be asked
"""

import sys

from bench.lab.commands import benches


def main() -> None:
    for bench in benches():
        takes = f"\n    takes: {bench.takes.rstrip('.')}" if bench.takes else ""
        sys.stdout.write(f"python -m bench.{bench.name}\n    {bench.purpose}{takes}\n")


if __name__ == "__main__":
    main()
