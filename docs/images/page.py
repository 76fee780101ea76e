"""The picture of the page in the README, of the recorded runs: ``make picture``.

    python docs/images/page.py             # results/reference -> docs/images/page.png

It needs Chromium on the ``PATH`` and the extra ``test``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from recllm_bench.reporting.html import write_report
from recllm_bench.reporting.records import find_records
from recllm_bench.reporting.site.leaderboards import table_id
from recllm_bench.reporting.verification import whole_records

ROOT = Path(__file__).resolve().parents[2]
SIZE = {"width": 1280, "height": 1060}
TABLE = ("ml-100k", "latentcrs.one_turn")


def main() -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("error: no Chromium on the PATH; apt-get install chromium")
    records = sorted(whole_records(find_records(ROOT / "results" / "reference")), key=lambda each: each.created)
    table = next(each for each in records if (each.dataset["name"], each.protocol["name"]) == TABLE)
    output = Path(__file__).with_suffix(".png")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = write_report(records, Path(folder) / "report.html")
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = chromium.new_page(viewport=SIZE, color_scheme="light")
        page.goto(f"{path.as_uri()}#{table_id(table)}")
        shot = page.screenshot()
        chromium.close()
    Image.open(BytesIO(shot)).quantize(64).save(output, optimize=True)
    print(f"wrote {output.relative_to(ROOT)}, {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
