"""The page in a browser: sorting, filtering, links, themes, narrow windows; nothing hostile runs or is fetched."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recllm_bench.conversation.dialogue_loop import Dialogue, write_transcripts
from recllm_bench.reporting.html import write_report
from tests.conftest import planted_catalogue

pytestmark = pytest.mark.timeout(180)
HOSTILE = (
    '<script>window.hacked=1</script><img src=x onerror="window.hacked=1">',
    "</script><b>bold</b> \"quoted\" 'name' &amp; {{ 7 * 7 }}",
    "right to left \u202egnitset\u202c and \u2066more",
)
WIDTHS = (1280, 400)
SLACK = 2.0  # of machines that do other things meanwhile


def _missing(message: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{message}; .ci/run installs it")
    pytest.skip(message)


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        _missing("no Chromium on the PATH: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("the package playwright of the extra 'test' is not installed")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield chromium
        chromium.close()


def held(record, users: int, name: str, seed: int) -> None:
    """Write dialogues beside a record as the runner does; each fifth had a leak."""
    rng, catalogue = np.random.default_rng(seed), planted_catalogue()
    catalogue.titles[7] = HOSTILE[0]
    dialogues = []
    for user in range(1, users + 1):
        dialogue = Dialogue(user, rng.integers(1, 100, 6))
        dialogue.messages += [
            ("user", f"I want a comedy, number {user}. {name}"),
            ("assistant", f"You may like:\n1. {name}"),
        ]
        dialogue.shown += [7, int(rng.integers(8, 100))]
        dialogues.append(dialogue)
    outcomes = SimpleNamespace(
        users=np.arange(1, users + 1),
        targets=np.full(users, 7),
        turns=np.arange(users) % 3,
        leaked=np.arange(users) % 5 == 0,
        ended=["success" if user % 3 else "user left" for user in range(users)],
        n_match=np.arange(users),
        left=np.full((users, 5), -1),
        dialogues=dialogues,
    )
    write_transcripts(record.folder / "dialogues.jsonl", outcomes, catalogue)


@pytest.fixture
def many(make):
    """44 runs in three tables, under hostile names, with controls, seeds, dialogues and curves."""
    records, seed = [], 0
    for dataset, protocol, count in (("ml1m", "latentcrs.one_turn", 16), ("ml-100k", "relrec.full", 16)):
        for place in range(count):
            seed += 1
            block = "text" if place % 2 else "history"
            model = "words-fit" if place == 5 else "latentcrs" if block == "text" else "sasrec"
            name = HOSTILE[place] if place < 3 else f"Method {place} of {dataset}"
            curve = [[epoch, -1.0 / epoch if place == 7 else 0.1 * epoch] for epoch in range(1, 6)]
            turns = np.arange(60) % 3 if block == "text" else None
            record = make(
                name,
                0.5 + place / 5,
                model=model,
                block=block,
                seed=seed,
                turns=turns,
                dataset=dataset,
                protocol=protocol,
                users=120,
                options={"embedding_size": seed},
                curves={"train": curve},
                losses={"train": [[epoch, 3.0 / epoch] for epoch in range(1, 6)]},
                notes=[HOSTILE[0]],
                costs={"parameters": 1000.0 * seed, "peak_memory": 1e9},
            )
            if block == "text":
                held(record, 60, name, seed)
            records.append(record)
    for place in range(12):
        seed += 1
        setting = {"dataset": "planted data", "protocol": "cesrec.full", "users": 120}
        records.append(make(f"Seeded {place // 3}", 1 + place // 3, seed=seed, training_seed=place % 3, **setting))
    return records


@pytest.fixture
def page_of(browser):
    """``page_of(address, width)`` opens it; afterwards the console must be empty and nothing else fetched."""
    opened, said, fetched = [], [], []

    def build(address: str, width: int, scheme: str = "light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(address)
        opened.append((page, address))
        return page

    yield build
    for page, address in opened:
        assert page.evaluate("window.hacked") is None
        assert {url for url in fetched if not url.startswith(("data:", address))} == set()
        page.context.close()
    assert said == [], "the console is empty"


def fits(page) -> bool:
    """Whether nothing is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def arrives(page, heading: str) -> None:
    """Wait until the view with this heading is the one that is open."""
    page.wait_for_function("text => document.querySelector('main .view.open h2').textContent === text", arg=heading)


def visible_names(board) -> list[str]:
    return [row.inner_text() for row in board.locator("tbody:visible tr:first-child th > a bdi").all()]


def test_people_can_browse_forty_runs(many, page_of, tmp_path: Path):
    start = time.perf_counter()
    path = write_report(many, tmp_path / "report.html")
    assert time.perf_counter() - start < 10 * SLACK
    assert len(many) >= 40
    address = path.as_uri()
    for width in WIDTHS:
        page = page_of(address, width)
        opened = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        assert 0 < opened < 2000 * SLACK
        browse_overview(page)
        browse_leaderboard(page, width)
        browse_run_and_dialogue(page)
        browse_users(page)
        switch_themes(page)
        draw_charts(page)


def browse_overview(page) -> None:
    assert page.locator("main .view:visible").count() == 1
    assert page.locator("#overview .ranks").count() >= 2 and fits(page)
    if not page.locator("nav li a").first.is_visible():
        page.locator("#contents summary").click()
    page.locator("nav li a", has_text="ml1m, latentcrs.one_turn").click()
    arrives(page, "ml1m · latentcrs.one_turn · 120 users")
    assert fits(page)


def browse_leaderboard(page, width: int) -> None:
    board = page.locator("main .view:visible [data-board]").first

    def values(metric: str) -> list[float]:
        cells = board.locator(f"tbody:visible td[data-label='{metric}'][data-v]")
        return [float(cell.get_attribute("data-v")) for cell in cells.all()]

    before = values("NDCG@20")
    assert before == sorted(before, reverse=True) and len(before) == 8
    if width > 700:
        header = board.locator("thead button", has_text="NDCG@20")
        header.focus()
        page.keyboard.press("Enter")  # the keyboard sorts, too
        assert values("NDCG@20") == sorted(before)
        assert header.locator("xpath=..").get_attribute("aria-sort") == "ascending"
    else:
        board.locator("[data-order]").select_option(label="Recall@5")
        assert values("Recall@5") == sorted(values("Recall@5"), reverse=True)
    board.locator("[data-search]").fill("METHOD 8")
    assert visible_names(board) == ["Method 8 of ml1m"] and "1 of 8" in board.locator("[data-count]").inner_text()
    board.locator("[data-search]").fill("<script>")
    assert visible_names(board) == [HOSTILE[0]], "hostile names are found as they are written"
    board.locator("[data-search]").fill("")
    board.locator("select[data-kind]").select_option("control")
    assert visible_names(board) == []
    board.locator("select[data-kind]").select_option("")
    cost = board.locator("tbody td[data-label='latency']").first
    assert not cost.is_visible()
    board.locator(".choose summary").click()
    board.locator(".choose label", has_text="latency").click()
    assert cost.is_visible() and fits(page)
    board.locator(".choose summary").click()


def browse_run_and_dialogue(page) -> None:
    board = page.locator("main .view:visible [data-board]").nth(1)
    link = board.locator("tbody th a").filter(has=page.get_by_text(HOSTILE[1], exact=True))
    link.click()
    run = page.locator("main .view:visible")
    arrives(page, HOSTILE[1])
    assert run.locator(".command pre").inner_text().startswith("recllm-bench run --alone --recipe")
    for summary in run.locator("details > summary").all():
        summary.click()
    assert "embedding_size" in run.inner_text() and "peak_memory_gib" in run.inner_text() and fits(page)
    run.locator("a", has_text="dialogues").click()
    listed = page.locator("#dialogue-list .dialogue")
    listed.first.wait_for()
    assert listed.count() == 20 and "60 of 60" in page.locator("#dialogue-count").inner_text()
    page.locator("#dialogue-more").click()
    assert listed.count() == 40
    page.locator("#dialogue-outcome").select_option("leaked")
    assert listed.count() == 12 and page.locator(".dialogue .tag.bad").count() == 12
    page.locator("#dialogue-search").fill("number 11.")
    assert listed.count() == 1 and HOSTILE[1] in listed.first.inner_text()
    assert HOSTILE[0] in listed.first.locator("mark").inner_text()
    page.locator("#dialogue-search").fill("")
    page.locator("#dialogue-outcome").select_option("")
    listed.nth(3).locator("header a").first.click()
    page.wait_for_function("document.querySelector('#dialogue-list .dialogue header a').textContent === 'user 4'")
    assert fits(page)
    page.go_back()
    page.go_back()
    arrives(page, HOSTILE[1])


def browse_users(page) -> None:
    page.locator("main .view:visible a", has_text="Look at users").click()
    people = page.locator("#users-list .person")
    people.first.wait_for()
    assert page.locator("#users-a option:checked").text_content() == HOSTILE[1]
    page.locator("#users-b").select_option(label=HOSTILE[0])
    page.locator("#users-order").select_option("a")
    places = [each.split()[-1].replace(",", "") for each in people.first.locator("dd").all_inner_texts()[1:3]]
    assert float(places[0]) < float(places[1]), "A places the target higher"
    page.locator("#users-order").select_option("user")
    assert "user 1" in people.first.inner_text() and "not in the cache" in page.locator("#users-about").inner_text()
    person = people.first
    person.locator("a", has_text="Read the dialogue").first.click()
    page.wait_for_function("document.querySelector('#dialogue-list .dialogue header a').textContent === 'user 1'")
    page.locator("#dialogue-list .dialogue").first.locator("a", has_text="In every method").click()
    page.wait_for_function("document.querySelector('#users-list .person strong').textContent === 'user 1'")
    page.locator("#users-search").fill("user 107")
    assert people.count() == 1 and fits(page)


def switch_themes(page) -> None:
    button, paper = page.locator("#theme"), "getComputedStyle(document.body).backgroundColor"
    seen = [page.evaluate(paper)]
    for _ in range(3):
        button.focus()
        page.keyboard.press("Enter")
        seen.append(page.evaluate(paper))
    assert seen[0] == seen[1] == seen[3] != seen[2], "as the system (light), light, dark, as the system"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(paper) == seen[2]
    page.emulate_media(color_scheme="light")


def draw_charts(page) -> None:
    if not page.locator("nav li a").first.is_visible():
        page.locator("#contents summary").click()
    page.locator("nav li a", has_text="ml1m, latentcrs.one_turn").click()
    arrives(page, "ml1m · latentcrs.one_turn · 120 users")
    view = page.locator("main .view:visible")
    for place in range(view.locator(".charts").count()):
        view.locator(".charts").nth(place).scroll_into_view_if_needed()
        view.locator(".charts").nth(place).locator(".main-svg").first.wait_for()
    drawn = "[...document.querySelectorAll('.open .plot text')].map(each => each.textContent)"
    page.wait_for_function(f"{drawn}.some(text => text.startsWith('<script>window.hack'))")  # names are text
    titles = view.locator(".charts h3").all_inner_texts()
    assert {"All rows", "Differences", "Accuracy against cost", "By turn", "While training"} <= set(titles)
    training = view.locator(".charts", has=page.locator("h3", has_text="While training"))
    options = training.locator("[data-charts] option").all_inner_texts()
    assert any(text.startswith("-loss") for text in options) and any(text.startswith("metric") for text in options)
    assert options[-1].startswith("training loss of"), "a loss stands on an axis of its own"
    training.locator("[data-charts]").select_option(options[-1])
    training.locator("figure:visible .main-svg").first.wait_for()
    assert fits(page)


def test_a_served_folder_shows_what_is_new(make, page_of):
    import threading

    from recllm_bench.reporting.serving import ReportServer

    folder = make("First", 1.0, seed=1).folder.parent
    with ReportServer(folder, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = page_of(server.address, 1280)
        assert page.locator("#runs tbody").count() == 1 and not page.locator("#reload").is_visible()
        make("Second", 2.0, seed=2)
        page.locator("#reload").wait_for()
        page.locator("#reload").click()
        page.wait_for_function("document.querySelectorAll('#runs tbody').length === 2")
        page.goto("about:blank")
        server.shutdown()
