"""Files that do not say which encoding they are in: signs alone, accents, both; and by name."""

from __future__ import annotations

import pytest

import lora_core as lc
from lora_core.tasks.encodings import ENCODINGS, decode
from lora_core.tasks.own_table import inspect_table
from tests.cases.tables import examples, lines, rows, taken, write

WINDOWS = ("cp1252", "cp1250", "cp1254", "cp1257")
WESTERN = ("cp1252", "latin-1", "iso8859_15", "mac_roman", "cp850", "cp437")
CENTRAL = ("cp1250", "iso8859_2", "cp852", "mac_latin2")

# Nothing beyond ASCII but signs, as word processors put them; each alone in its file.
TYPOGRAPHY = {
    "apostrophe": "I don’t know {}",
    "genitive": "It’s John’s, number {}",
    "contractions": "we’re sure you’ll say they’ve gone {}",
    "quotes": "she said “yes” {} times",
    "single quotes": "the ‘best’ one of {}",
    "ellipsis": "wait… there are {}",
    "dash": "well – maybe {}",
    "long dash": "it is—as you say—{}",
    "pound": "it cost £20 on day {}",
    "euro": "it costs €5 on day {}",
    "euro behind": "5 € each, for {} of them",
    "half": "½ cup, {} times",
    "mixed number": "1½ cups of milk and {}",
    "times": "10 × 5 cm, number {}",
    "tolerance": "±5 degrees on day {}",
    "degrees": "at 20°C on day {}",
    "marks": "Windows® and Office™ in {}",
    "copyright": "© 2020 by us, page {}",
    "bullet": "• the point number {}",
    "hard space": "5\u00a0km away on day {}",
    "several": "I don’t know – “maybe” it’s £{}…",
}


def table(texts: list[str]) -> str:
    return lines([(text, "ab"[i % 2]) for i, text in enumerate(texts)], "text;label", ";")


def fits(text: str, page: str) -> bool:
    try:
        return not text.encode(page).isascii()
    except UnicodeEncodeError:
        return False


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        (kind, page)
        for kind, text in TYPOGRAPHY.items()
        for page in (*WESTERN, *WINDOWS[1:])
        if fits(text, page)
    ],
)
def test_english_with_nothing_but_signs_beyond_ascii(kind, page) -> None:
    for count in (2, 8, 200):
        texts = [TYPOGRAPHY[kind].format(i) for i in range(count)]
        for more in ([], ["a café that was good"]):
            text = table([*texts, *more])
            assert decode(text.encode(page)).text == text


@pytest.mark.parametrize("page", ["cp1252", "mac_roman"])
def test_english_with_every_kind_of_sign(page) -> None:
    kinds = [kind for kind in TYPOGRAPHY.values() if fits(kind, page)]
    text = table([kind.format(i) for i in range(20) for kind in kinds])
    assert decode(text.encode(page)).text == text


@pytest.mark.parametrize("name", ["São Paulo", "Zoë", "Málaga", "Köln", "Malmö", "Besançon"])
def test_one_name_that_comes_in_each_row_is_no_more_than_one(name) -> None:
    for count in (2, 8, 200):
        text = table([f"a flat in {name}, number {i}" for i in range(count)])
        assert decode(text.encode("cp1252")).text == text


LANGUAGES = {
    "German": (
        "Der Käse schmeckt mäßig, für fünf Euro",
        "Die Lieferung kam später als geplant, schöne Grüße",
        "Ich wünsche mir, dass die Größe stimmt",
    ),
    "French": (
        "Le café à Orléans est très cher, ça coûte trop",
        "J'ai été déçue par la qualité de cet hôtel",
        "La pièce était sale et le petit-déjeuner froid",
    ),
    "Spanish": (
        "Mañana llegará el pedido que hicimos allí",
        "El avión salió tarde y nadie nos dijo por qué",
        "No sé cuándo podré ir al médico, está cerrado",
    ),
    "Portuguese": (
        "Não recebi a encomenda, vocês são péssimos",
        "A reunião é amanhã às três da tarde, está bem",
        "O avião atrasou e ninguém deu informações",
    ),
    "Italian": (
        "La qualità è buona ma il caffè è freddo",
        "Perché non è ancora arrivato, così non va più",
        "La città è bella, però costa già troppo",
    ),
    "Catalan": (
        "El menjar és molt bo però el servei és lent",
        "La comanda no arribarà fins dimarts que ve, això és massa",
        "Què passa amb la meva habitació, no està neta",
    ),
    "Danish": (
        "Maden på hotellet var rigtig god, men støjen var værre",
        "Jeg får ikke svar på mine spørgsmål",
        "Det er også en dårlig løsning for børn",
    ),
    "Swedish": (
        "Maten på hotellet var bra men rummet var för litet",
        "Jag får inget svar på mina frågor, det är dåligt",
        "Vi måste vänta på nästa tåg till Malmö",
    ),
    "Dutch": (
        "De coördinatie was slecht en de ideeën waren beperkt",
        "Eén kamer was vies, de tweede was één grote puinhoop",
        "Het hotel is geïnspireerd door de zeeën",
    ),
}  # fmt: skip
CENTRAL_LANGUAGES = {
    "Polish": (
        "Dzień dobry, moja paczka jeszcze nie dotarła",
        "Proszę o zwrot pieniędzy, jakość jest bardzo zła",
        "Nie mogę się zalogować, ktoś zmienił moje hasło",
    ),
    "Czech": (
        "Dobrý den, moje zásilka ještě nepřišla",
        "Žádám o vrácení peněz, zboží bylo poškozené",
        "Kdy přijede příští vlak do Kroměříže",
    ),
    "Hungarian": (
        "Jó napot, a csomagom még nem érkezett meg",
        "A szálloda gyönyörű, de az étel nem volt jó",
        "Kérem vissza a pénzemet, őszintén köszönöm",
    ),
    "Romanian": (
        "Bună ziua, pachetul meu nu a ajuns încă",
        "Mâncarea a fost foarte bună, dar camera rece",
        "Vreau banii înapoi, calitatea este proastă, mulţumesc",
    ),
    "Croatian": (
        "Moja pošiljka još nije stigla, kada će doći",
        "Želim natrag svoj novac, kvaliteta je loša",
        "Soba je bila čista, ali večera je bila hladna",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("language", "page"),
    [(name, page) for name in LANGUAGES for page in WESTERN]
    + [(name, page) for name in CENTRAL_LANGUAGES for page in CENTRAL],
)
def test_languages_with_accents_with_and_without_typography(language, page) -> None:
    sentences = (LANGUAGES | CENTRAL_LANGUAGES)[language]
    for sign in ("", " – yes", " …"):
        if sign and not fits(sign, page):
            continue
        for count in (3, 60):
            text = table([f"{sentences[i % 3]}{sign}" for i in range(count)])
            if fits(text, page):
                assert decode(text.encode(page)).text == text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("cp720", "مرحبا، طلبي لم يصل بعد وأريد استرداد المبلغ من فضلكم".replace("،", "")),
        ("iso8859_6", "مرحبا، طلبي لم يصل بعد وأريد استرداد المبلغ من فضلكم"),
        ("cp855", "Здравствуйте, мой заказ ещё не пришёл, верните деньги"),
        ("cp1258", "Xin cha\u0300o, đơn ha\u0300ng cu\u0309a tôi vâ\u0303n chưa tơ\u0301i"),
    ],
)
def test_pages_that_were_not_guessed_before(page, text) -> None:
    data = table([f"{text} {i}" for i in range(20)]).encode(page)
    assert decode(data).encoding == page


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        *[
            ("utf-8-sig", "été"),
            ("ascii", "plain"),
            ("iso-8859-9", "şimdi"),
            ("windows-1252", "“a”"),
        ],
        *[
            ("gbk", "你好"),
            ("gb2312", "你好"),
            ("hz", "你好"),
            ("cp950", "您好"),
            ("big5hkscs", "您好"),
        ],
        *[
            ("shift_jis", "こんにちは"),
            ("euc_kr", "안녕"),
            ("johab", "안녕"),
            ("mac_iceland", "það"),
        ],
        *[("cp865", "blåbær"), ("cp861", "það"), ("mac_croatian", "čist"), ("iso8859_8", "שלום")],
        *[
            ("koi8_t", "мой"),
            ("ptcp154", "мой"),
            ("cp1006", "plain"),
            ("utf_7", "été"),
            ("UTF8", "é"),
        ],
    ],
)
def test_every_encoding_of_text_that_python_knows_can_be_named(tmp_path, encoding, text) -> None:
    data = [(f"{text} {t}", c) for t, c in rows()]
    path = write(tmp_path, "a.csv", lines(data).encode(encoding))
    assert examples(taken(path, encoding=encoding)) == set(data)


@pytest.mark.parametrize("encoding", ["zip", "rot13", "unicode_escape", "idna", "undefined", "x"])
def test_what_is_no_encoding_of_text_is_a_sentence(tmp_path, encoding) -> None:
    path = write(tmp_path, "a.csv", lines(rows()))
    with pytest.raises(lc.TaskError, match=f"no encoding '{encoding}'"):
        lc.read_task(path, encoding=encoding)


def test_what_is_guessed_is_on_the_menu() -> None:
    text = table([f"Здравствуйте, мой заказ ещё не пришёл {i}" for i in range(20)])
    for page in ("cp1251", "cp855", "koi8_r"):
        assert decode(text.encode(page)).encoding in ENCODINGS


@pytest.mark.parametrize("sign", ["\x01", "\x1f"])
@pytest.mark.parametrize("named", [True, False])
def test_separators_that_are_control_characters(tmp_path, sign, named) -> None:
    """As Hive exports, without names; and older programs."""
    data = [(str(i), *row) for i, row in enumerate(rows())]
    content = lines(data, f"id{sign}text{sign}label", sign)
    path = write(tmp_path, "a.txt", content if named else content.split("\n", 1)[1])
    assert inspect_table(path).reading.separator == sign
    assert examples(taken(path)) == set(rows())


def test_control_characters_that_separate_nothing_are_no_text(tmp_path) -> None:
    texts = ["a" * i + "\x02" + "x\x01" * (i % 5) for i in range(60)]
    content = "".join(f"{i}\x01{text}\n" for i, text in enumerate(texts))
    with pytest.raises(lc.TaskError, match="does not hold text"):
        lc.read_task(write(tmp_path, "a.csv", content))
