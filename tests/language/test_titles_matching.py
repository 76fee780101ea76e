"""Free answers: which item a written line means, and what becomes of the lines that mean none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from recllm_bench.errors import BenchError
from recllm_bench.language.titles.counters import fallback_rate
from recllm_bench.language.titles.grounding import ground, parse_lines, write_lists_freely
from recllm_bench.language.titles.matching import TitleMatcher, common_subsequence, plain_key, short_key

TITLES = [
    "",
    "The Cat Returns",
    "Dog Days",
    "Once Upon a Time in the West (1968)",
    "Rock & Roll High School",
    "Blade Runner (Director's Cut)",
    "Dog Days",
    "",
    "Schindler's List",
    "Amélie",
    "Apollo 13",
]


class Bag:
    """Stands in for a text encoder: counts of letters."""

    encoded = 0

    def encode(self, texts, label=""):
        self.encoded += len(texts)
        vectors = np.full((len(texts), 27), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for letter in text.lower():
                vectors[row, ord(letter) - 96 if "a" <= letter <= "z" else 0] += 1
        return vectors


@pytest.fixture
def matcher() -> TitleMatcher:
    return TitleMatcher(TITLES, encoder=None)


@pytest.mark.parametrize(
    ("line", "items", "way"),
    [
        ("The Cat Returns", [1], "exact"),
        ("the cat RETURNS", [1], "exact"),
        ("The  Cat: Returns!", [1], "exact"),
        ("Ｔｈｅ Cat Returns", [1], "exact"),
        ("Dog Days", [2, 6], "exact"),
        ("Rock and Roll High School", [4], "exact"),
        ("Schindlers List", [8], "exact"),
        ("Once upon a time in the West", [3], "exact"),
        ("The Cat Returns (2002)", [1], "exact"),
        ("Blade Runner", [5], "exact"),
        ("The Cat Returns - Special Edition", [1], "exact"),
        ("The Cat Retruns", [1], "fuzzy"),
        ("Cat Returns, The", [1], "fuzzy"),
        ("Amelie", [9], "exact"),
        ("Apollo 13", [10], "exact"),
        ("Completely Different", [], "none"),
        ("???", [], "none"),
        ("", [], "none"),
    ],
)
def test_a_line_is_matched_by_the_first_way_that_finds_it(matcher, line, items, way):
    assert matcher.match([line, "The Cat Returns", line]) == [(items, way), ([1], "exact"), (items, way)]


def test_keys_leave_something():
    assert plain_key("???") == "???"
    assert short_key("(1984)") == plain_key("(1984)") == "1984"
    assert short_key("Special Edition") == "special edition"
    assert short_key("Heat (1995) [Blu-ray]") == "heat"


def test_the_nearest_vector_counts_from_a_cosine_on():
    encoder = Bag()
    matcher = TitleMatcher(TITLES, encoder=encoder, least_cosine=0.8)
    assert matcher.match(["Dog Days"]) == [([2, 6], "exact")] and encoder.encoded == 0
    assert matcher.match(["days of a dog, sad"]) == [([2, 6], "embed")]
    assert matcher.match(["zzzz"]) == [([], "none")]
    lines = ["13 for Apollo", "zzzz", "lists of schindler's"]
    vectors, known = Bag().encode(lines), [title for title in dict.fromkeys(TITLES) if title]
    table = Bag().encode(known)
    cosines = (vectors @ table.T) / np.linalg.norm(vectors, axis=1)[:, None] / np.linalg.norm(table, axis=1)
    expected = [
        [item for item, title in enumerate(TITLES) if title == known[best]] if row[best] >= 0.8 else []
        for row, best in zip(cosines, cosines.argmax(1), strict=True)
    ]
    found = matcher.match(lines)
    assert [items for items, _ in found] == expected
    assert matcher.match(["The Cat Retruns"]) == [([1], "fuzzy")]


@pytest.mark.shared
def test_sentence_vectors_find_another_wording(models_folder, tmp_path):
    from recllm_bench.artifacts import ArtifactStore
    from recllm_bench.language.encoders import load_text_encoder

    try:
        load_text_encoder("minilm").encode(["x"])
    except BenchError as error:
        pytest.skip(str(error))
    titles = ["", "A Story of Space Travel", "Cooking with Vegetables", "The History of Rome"]
    matcher = TitleMatcher(titles, store=ArtifactStore(tmp_path))
    assert matcher.match(["astronauts travelling through space"]) == [([1], "embed")]
    assert matcher.match(["quarterly tax declaration"])[0] == ([], "none")


@pytest.mark.parametrize(
    ("text", "titles", "strange"),
    [
        ("1. Heat\n2. Alien\n", ["Heat", "Alien"], 0),
        (
            "Sure! Here is the list:\n\n1) \"Heat\".\n(2) 'Alien',\n3 - **Brazil**\n\nEnjoy.",
            ["Heat", "Alien", "Brazil"],
            2,
        ),
        ("Heat\nAlien", ["Heat", "Alien"], 0),
        ("- Heat\n* Alien;\n", ["Heat", "Alien"], 0),
        ("```\n1. Apollo 13\n2. 12 Monkeys\n```", ["Apollo 13", "12 Monkeys"], 0),
        ("12 Monkeys\n", ["12 Monkeys"], 0),
        ("1. \n2. Alien", ["Alien"], 1),
        ("", [], 0),
    ],
)
def test_lists_are_read_without_numbers_quotes_and_talk(text, titles, strange):
    lines, other = parse_lines(text)
    assert [line.title for line in lines] == titles and other == strange


def test_edits_are_read_with_their_numbers():
    lines, strange = parse_lines('I would change:\n3 -> Heat\n2. => "Alien"\nLine 10 → Brazil.\n4. Heat', "edits")
    assert [(line.number, line.title) for line in lines] == [(3, "Heat"), (2, "Alien"), (10, "Brazil")]
    assert strange == 2


def test_a_common_subsequence_is_as_long_as_any():
    rng = np.random.default_rng(0)
    for _ in range(200):
        one, other = (rng.integers(0, 5, rng.integers(0, 7)).tolist() for _ in range(2))
        pairs = common_subsequence(one, other)
        assert all(one[i] == other[j] != 0 for i, j in pairs)
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))
        subsequences = [
            {
                tuple(row[i] for i in chosen)
                for size in range(len(row) + 1)
                for chosen in itertools.combinations(range(len(row)), size)
                if all(row[i] for i in chosen)
            }
            for row in (one, other)
        ]
        assert len(pairs) == max(map(len, subsequences[0] & subsequences[1]))


def counted(written, **expected):
    names = ("n_exact", "n_fuzzy", "n_embed", "n_kept", "n_dropped")
    assert {name: written.counters[name] for name in expected} == expected
    assert sum(written.counters[name] for name in names) == written.counters["n_lines"]


def test_each_line_takes_its_place(matcher):
    text = "1. the cat returns\n2. Amelie\n3. Apolo 13\n4. Completely Different\n"
    written = ground([text], [[1, 2, 3, 4]], matcher)
    assert written.lists == [[1, 9, 10, 4]]
    counted(written, n_lines=4, n_exact=2, n_fuzzy=1, n_kept=1, n_changed_positions=2, n_len_mismatch=0, n_unchanged=0)
    assert fallback_rate(written.counters) == 0.5


def test_an_answer_that_repeats_the_list_changes_nothing(matcher):
    before = [[1, 2, 3], [6, 4]]
    texts = ["\n".join(f"{n}. {TITLES[item]}" for n, item in enumerate(row, 1)) for row in before]
    written = ground(texts, before, matcher)
    assert written.lists == before  # item 6, not 2, which has its title
    counted(written, n_lines=5, n_exact=5, n_unchanged=2, n_changed_positions=0, n_ambiguous=0)


def test_too_many_lines_are_cut_and_too_few_laid_along_the_list(matcher):
    written = ground(["Dog Days\nAmélie\nApollo 13"], [[1, 3]], matcher)
    assert written.lists == [[2, 9]]
    counted(written, n_lines=2, n_len_mismatch=1, n_ambiguous=1)
    # Item 1 was left out; a new one came after item 3.
    written = ground(["Once Upon a Time in the West\nAmélie\nApollo 13"], [[1, 3, 4, 10]], matcher)
    assert written.lists == [[1, 3, 9, 10]]
    counted(written, n_lines=3, n_exact=3, n_len_mismatch=1, n_changed_positions=1)
    # Two new lines where one place is open: the second is dropped.
    written = ground(["The Cat Returns\nAmélie\nSchindler's List\nApollo 13"], [[2, 5, 1, 3, 10]], matcher)
    assert written.lists == [[2, 5, 1, 9, 10]]
    counted(written, n_lines=4, n_exact=3, n_dropped=1)
    written = ground(["nothing like it\nApollo 13"], [[1, 3, 10]], matcher)
    assert written.lists == [[1, 3, 10]]
    counted(written, n_lines=2, n_exact=1, n_kept=1)


def test_an_empty_answer_keeps_the_list(matcher):
    written = ground(["", "I cannot do that."], [[1, 3], [2]], matcher)
    assert written.lists == [[1, 3], [2]]
    counted(written, n_unparsable=1, n_len_mismatch=1, n_kept=1, n_lines=1)
    assert ground([], [], matcher).lists == []
    assert ground(["x"], [[]], matcher).lists == [[]]


def test_a_title_is_not_written_twice(matcher):
    written = ground(["Amélie\nAmélie\nApollo 13"], [[1, 3, 4]], matcher)
    assert written.lists == [[9, 3, 10]]
    counted(written, n_exact=2, n_kept=1)
    # A list shifted by one is taken as it is written; what was there twice may be there twice.
    assert ground(["Once upon a time in the West\nRock & Roll High School\nAmélie"], [[1, 3, 4]], matcher).lists == [
        [3, 4, 9]
    ]
    assert ground(["The Cat Returns\nApollo 13\nThe Cat Returns"], [[1, 3, 1]], matcher).lists == [[1, 10, 1]]
    # A place whose line means nothing keeps its item, which no other line takes away from it.
    written = ground(["Once upon a time in the West\nnothing like it"], [[1, 3]], matcher)
    assert written.lists == [[1, 3]]
    counted(written, n_exact=0, n_kept=2)
    # An item that has moved forward is not at its old place too.
    written = ground(["Once upon a time in the West\nonce upon a time in the west"], [[1, 3]], matcher)
    assert written.lists == [[3, 0]]
    counted(written, n_exact=1, n_dropped=1)


def test_a_masked_place_is_filled_or_empty(matcher):
    written = ground(["The Cat Returns\nAmélie", "The Cat Returns\n(masked)"], [[1, 0], [1, 0]], matcher)
    assert written.lists == [[1, 9], [1, 0]]
    counted(written, n_lines=4, n_exact=3, n_dropped=1)


def test_edits_change_their_lines_only(matcher):
    text = "2 -> Amelie\n9 -> Apollo 13\n3 -> The Cat Returns\n2 -> Apollo 13\n1 -> not known at all"
    written = ground([text, "none"], [[1, 3, 4], [2]], matcher, mode="edits")
    assert written.lists == [[1, 9, 4], [2]]
    counted(written, n_lines=4, n_exact=1, n_kept=2, n_dropped=1, n_unparsable=2, n_changed_positions=1, n_unchanged=1)


def test_forbidden_items_are_not_new_and_popular_ones_are_meant():
    popularity = np.zeros(len(TITLES))
    popularity[6] = 5
    matcher = TitleMatcher(TITLES, encoder=None, popularity=popularity)
    texts, before = ["Dog Days\nAmélie"] * 3, [[1, 3]] * 3
    written = ground(texts, before, matcher, forbid=[[], [6], [6, 2, 9, 1]])
    assert written.lists == [[6, 9], [2, 9], [1, 3]]
    assert ground(["Dog Days"], [[2]], matcher, forbid=[[2]]).lists == [[2]]


class Told:
    name = "told"

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def complete(self, conversations, *, max_tokens, temperature=0.0, seed=0):
        self.asked.append((list(conversations), max_tokens, temperature, seed))
        return self.answers


def test_a_chat_model_is_asked_once_for_all(matcher):
    chat = Told(["1. Amélie", "1 -> Dog Days"])
    conversations = [[{"role": "user", "content": str(number)}] for number in range(2)]
    written = write_lists_freely(chat, conversations, [[1], [3]], matcher, max_tokens=50, seed=3)
    assert chat.asked == [(conversations, 50, 0.0, 3)]
    assert written.lists[0] == [9] and written.tokens == {} and written.seconds > 0


def test_mistakes_are_named(matcher):
    cases = [
        (lambda: ground(["x"], [], matcher), "1 answers for 0 lists"),
        (lambda: ground(["x"], [[1]], matcher, mode="other"), "mode 'other'"),
        (lambda: ground(["x"], [[1]], matcher, forbid=[]), "0 rows of forbidden items for 1 lists"),
        (lambda: TitleMatcher(["", ""]), "has no titles"),
        (lambda: TitleMatcher(TITLES, popularity=np.zeros(2)), "popularity of 2 ids"),
    ]
    for call, message in cases:
        with pytest.raises(BenchError, match=message):
            call()
