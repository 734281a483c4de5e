"""What the teacher reads aloud: many short, different texts in one well-mixed order.

    python -m lora_core.pretraining.reading --corpus FILE... --wordnet DIR --out reading.txt

A text is one line. Texts that will be classified are short and begin at position 0, so these do
too: lines and sentences of the corpus, glosses and examples of WordNet, single words, pairs of
words, phrases such as a visitor types, put together from the lists in `phrases.py` and
`kinds.toml`, and texts that were written for this list (`written.txt`), each in three forms. None
has a label; what each means is the teacher's business. Of the longer texts,
which take most of the teacher's time, a part is left out. The order is one random permutation:
whatever part of the list has been read, it is a balanced part.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lora_core.pretraining import PretrainingError
from lora_core.pretraining.corpus import documents
from lora_core.pretraining.kinds import all_phrases
from lora_core.pretraining.phrases import dressed, phrases
from lora_core.pretraining.program import exit_status

LONGEST = 400  # characters of a text; it is cut at a space
_SENTENCE = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Za-z0-9])")
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
# Documents that judge something are worth more of their lines.
_OPINION = re.compile(
    r"\b(films?|movies?|plot|acting|actors?|camera|battery|product|quality|easy to use|worth|"
    r"disappoint\w*|excellent|terrible|awful|great|love[ds]?|hate[ds]?|recommend\w*|boring|"
    r"side effects?|cheap|poor|perfect|worst|best)\b",
    re.IGNORECASE,
)


def spans(document: str, order: random.Random, share: float) -> Iterator[str]:
    """Some of a document's lines, long ones as one to three sentences in a row.

    `share` is how many to expect from a document of one line; long documents give more, with the
    square root of their length, and those that do little but judge give all they have.
    """
    lines = [line.strip() for line in document.split("\n") if line.strip()]
    pieces = [p for line in lines for p in sentences(line, order)]
    opinions = len(_OPINION.findall(document[:4000]))
    if opinions * 200 > len(document[:4000]):
        yield from pieces
        return
    wanted = share * len(pieces) ** 0.5
    count = min(len(pieces), int(wanted) + (order.random() < wanted % 1))
    yield from order.sample(pieces, count)


def sentences(line: str, order: random.Random) -> list[str]:
    """A line as it is if it is short, or cut into runs of one to three sentences."""
    if len(line) <= 120:
        return [line]
    parts = _SENTENCE.split(line)
    runs, start = [], 0
    while start < len(parts):
        size = order.choice((1, 1, 2, 3))
        runs.append(" ".join(parts[start : start + size]))
        start += size
    return runs


def wordnet(folder: Path) -> tuple[list[str], list[str]]:
    """(glosses with their words in front, example sentences) of WordNet's `data.*` files."""
    glosses, examples = [], []
    for path in sorted(folder.glob("data.*")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):
                continue  # the licence, at the head of each file
            fields, _, note = line.partition(" | ")
            parts = fields.split(" ")
            words = [w.split("(")[0].replace("_", " ") for w in parts[4::2][: int(parts[3], 16)]]
            meaning = note.split('; "')[0].strip()
            glosses.append(f"{', '.join(words[:3])}: {meaning}")
            examples += [e.strip() for e in re.findall(r'"([^"]+)"', note)]
    if not glosses:
        raise PretrainingError(f"{folder} holds no WordNet files (data.noun and its like).")
    return glosses, examples


def words_and_pairs(texts: Iterable[str], words: int, pairs: int) -> list[str]:
    """The most frequent words of the texts, and the most frequent pairs beside one another."""
    single: Counter[str] = Counter()
    double: Counter[str] = Counter()
    for text in texts:
        lowered = [w.lower() for w in _WORD.findall(text)]
        single.update(lowered)
        double.update(f"{a} {b}" for a, b in itertools.pairwise(lowered))
    common = [w for w, n in single.most_common(words) if n > 1]
    return common + [p for p, n in double.most_common(pairs) if n > 1]


def written(order: random.Random) -> list[str]:
    """The texts of `written.txt`: as they are, in small letters without their last mark, and
    `dressed` from there.
    """
    lines = Path(__file__).with_name("written.txt").read_text(encoding="utf-8").splitlines()
    plainer = [stripped for line in lines if (stripped := line.lower().rstrip(".!? "))]
    return [*lines, *plainer, *(dressed(text, order) for text in plainer)]


def clip(text: str) -> str:
    """One line without doubled spaces, cut at a space after `LONGEST` characters."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0]


def kept(characters: int) -> float:
    """The share of texts of this length that is read."""
    return 1.0 if characters <= 60 else 0.8 if characters <= 160 else 0.5


def plain(text: str) -> str:
    """Letters and digits in lower case: what two texts share that differ in marks alone."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def column(path: Path) -> list[str]:
    """The column `text` of a CSV table."""
    with path.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def reading_list(
    corpus: Sequence[Path],
    folder: Path | None,
    seed: int,
    share: float,
    without: frozenset[str] = frozenset(),
) -> list[str]:
    """The texts, each once, shuffled; none that is `plain`ly one of `without`."""
    order = random.Random(seed)
    taken = [
        clip(span)
        for path in corpus
        for document in documents(path)
        for span in spans(document, order, share)
    ]
    texts = list(taken)
    if folder is not None:
        glosses, examples = wordnet(folder)
        texts += examples + order.sample(glosses, len(glosses) * 2 // 3)
        texts += words_and_pairs([*taken, *examples], 24_000, 12_000)
    texts += phrases(order) + all_phrases(order)
    texts += written(order)
    texts = [t for t in dict.fromkeys(clip(t) for t in texts) if len(t) > 1]
    texts = [t for t in texts if plain(t) not in without and order.random() < kept(len(t))]
    order.shuffle(texts)
    return texts


def main(arguments: list[str] | None = None) -> int:
    """The program; an exit status."""
    parser = argparse.ArgumentParser(prog="python -m lora_core.pretraining.reading")
    parser.add_argument("--corpus", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--wordnet", type=Path, metavar="DIR", help="has data.noun and its like")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--share", type=float, default=1.0, help="of each document (1)")
    add_without = "tables (columns text, label) whose texts must not be read"
    parser.add_argument("--without", nargs="*", type=Path, default=[], help=add_without)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    def write() -> None:
        without = frozenset(plain(t) for path in options.without for t in column(path))
        texts = reading_list(options.corpus, options.wordnet, options.seed, options.share, without)
        options.out.write_text("\n".join(texts) + "\n", encoding="utf-8")
        print(f"{len(texts):,} texts, {sum(map(len, texts)):,} characters")

    return exit_status(write)


if __name__ == "__main__":
    sys.exit(main())
