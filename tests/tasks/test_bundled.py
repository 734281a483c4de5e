"""The bundled tasks as data: size, balance, variety, no copies, nobody's number or address."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest

import lora_core as lc
from lora_core.tasks.bundled import BUNDLED_TASKS
from lora_core.tasks.task import normalise

SIZES = {"sms-spam": 2000, "sentiment": 2000, "support-topic": 2000, "prompt-injection": 1500}
CLASSES = {"sms-spam": 2, "sentiment": 2, "support-topic": 8, "prompt-injection": 2}


@pytest.fixture(params=SIZES, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def rows(name: str) -> list[tuple[str, str]]:
    with (BUNDLED_TASKS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.casefold())


def test_size_classes_balance_and_card(name: str) -> None:
    counts = Counter(label for _, label in rows(name))
    assert sum(counts.values()) >= SIZES[name] and len(counts) == CLASSES[name]
    assert min(counts.values()) >= 0.8 * sum(counts.values()) / len(counts)
    card = (BUNDLED_TASKS / f"{name}.md").read_text(encoding="utf-8")
    assert f"{len(rows(name)):,}" in card and "Limits" in card
    assert all(label in card for label in counts)


def test_lengths_vary_from_two_words_to_sixty(name: str) -> None:
    lengths = sorted(len(text.split()) for text, _ in rows(name))
    assert lengths[0] <= 3 and 45 <= lengths[-1] <= 80
    assert lengths[len(lengths) // 10] * 2 <= lengths[9 * len(lengths) // 10]


def test_no_two_messages_share_more_than_half_of_their_word_4_grams(name: str) -> None:
    texts = [words(text) for text, _ in rows(name)]
    assert len({" ".join(text) for text in texts}) == len(texts)
    grams = [{tuple(text[i : i + 4]) for i in range(len(text) - 3)} for text in texts]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, group in enumerate(grams):
        for gram in group:
            holders[gram].append(number)
    shared = Counter(pair for group in holders.values() for pair in combinations(group, 2))
    alike = [
        (texts[a], texts[b])
        for (a, b), count in shared.items()
        if count > 0.5 * min(len(grams[a]), len(grams[b]))
    ]
    assert not alike


def test_splits_are_fixed_stratified_and_disjoint(name: str) -> None:
    task, again = lc.load_task(name), lc.load_task(name)
    parts = (task.train, task.validation, task.test)
    assert parts == (again.train, again.validation, again.test)
    texts = [{normalise(example.text) for example in part} for part in parts]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
    assert sum(map(len, texts)) == len(rows(name))
    whole = Counter(label for _, label in rows(name))
    for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True):
        counts = Counter(task.labels[example.label] for example in part)
        assert all(abs(counts[label] - share * whole[label]) <= 1 for label in whole)


DOMAIN = re.compile(
    r"(?:https?://|www\.)\S+|\b[\w-]+(?:\.[\w-]+)*\.(?:com|net|org|co|uk|info|io)\b"
)
RESERVED = re.compile(r"example\.(?:com|net|org)\b|\.(?:example|test|invalid)\b", re.IGNORECASE)


def test_addresses_are_reserved_ones(name: str) -> None:
    domains = [m for text, _ in rows(name) for m in DOMAIN.findall(text)]
    assert not [domain for domain in domains if not RESERVED.search(domain)]


NUMBER = re.compile(r"(?<![\w.,£$€#-])\+?\d[\d ()-]{8,14}\d(?![\w,-])")
FICTION = re.compile(
    r"^(?:44|0)?(?:7700900\d{3}|2079460\d{3}|1632960\d{3}|8081570\d{3}|909879\d{4}|80815700?\d+)$"
    r"|555?01\d\d$|^(?:61|0)?491570\d{3}$|^(?:353|0)?2091\d{5}$"
)


def test_telephone_numbers_are_reserved_for_fiction() -> None:
    """In the task that is full of them; ten digits or more, starting like a telephone number."""
    numbers = [re.sub(r"\D", "", m) for text, _ in rows("sms-spam") for m in NUMBER.findall(text)]
    called = [n for n in numbers if n.startswith(("0", "44", "1")) and 10 <= len(n) <= 12]
    assert len(called) > 100
    assert not [number for number in called if not FICTION.search(number)]


def test_a_bag_of_words_does_not_solve_it(name: str) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    task = lc.load_task(name)
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10, max_iter=1000)
    )
    train = task.train + task.validation
    model.fit([e.text for e in train], [e.label for e in train])
    accuracy = model.score([e.text for e in task.test], [e.label for e in task.test])
    assert 1 / len(task.labels) + 0.2 < accuracy <= 0.97


def test_the_names_there_are() -> None:
    with pytest.raises(lc.TaskError, match="prompt-injection, sentiment, sms-spam, support-topic"):
        lc.load_task("poetry")


def test_cards_are_beside_their_tables() -> None:
    stems = {Path(p).stem for p in BUNDLED_TASKS.glob("*.csv")}
    assert stems == {Path(p).stem for p in BUNDLED_TASKS.glob("*.md")} == set(SIZES)
