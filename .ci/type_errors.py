"""Count mypy's errors by package and fail where there are more than allowed.

A number below may only fall: lower it when you mend something, and take the line out when it is 0. What is not listed
must have no error.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

ALLOWED: dict[str, int] = {}
ERROR = re.compile(r"^recllm_bench[/\\](\w+)\b.*?: error: ", re.MULTILINE)


def main() -> int:
    """Run mypy; 0 when no package has more errors than it may."""
    done = subprocess.run([sys.executable, "-m", "mypy"], capture_output=True, text=True)
    found = Counter(ERROR.findall(done.stdout))
    if done.returncode not in (0, 1) or (done.returncode == 1 and not found):
        print(done.stdout + done.stderr, file=sys.stderr)
        return 2
    over = [package for package, count in found.items() if count > ALLOWED.get(package, 0)]
    for line in done.stdout.splitlines():
        if (error := ERROR.match(line)) and error[1] in over:
            print(line)
    for package in over:
        print(f"mypy: {found[package]} errors in {package}, at most {ALLOWED.get(package, 0)} are allowed")
    fewer = [f"{package}: {found[package]}" for package, most in ALLOWED.items() if found[package] < most]
    if fewer:
        print(f"mypy: fewer errors than allowed; write {', '.join(fewer)} into {__file__}")
    print(f"mypy: {found.total()} errors, {sum(ALLOWED.values())} allowed")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
