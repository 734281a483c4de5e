"""How common letters are in the languages that tables are written in.

For each language its letters beyond ASCII (of other scripts: all, or the most frequent ones), the
most frequent first. Ranks are enough to tell a right reading of bytes from a wrong one. What else
tells a language: the commonest of its words that are plain ASCII, and its words of one letter.
"""

from __future__ import annotations

import functools

LANGUAGES = {
    "German": "üäöß",
    "French": "éèàêçùôîâûëïœ",
    "Spanish": "óíáéñúü¿¡",
    "Portuguese": "ãçáéíóêõúâôà",
    "Italian": "èàòùìé",
    "Catalan": "óàéèíçòúïü",
    "Danish": "åøæé",
    "Swedish": "äåöé",
    "Dutch": "ëéïöü",
    "Icelandic": "ðáíþóéöýúæ",
    "English": "éïñöèüçêáàó",
    "Polish": "łąężśóćńź",
    "Czech": "íáěéřšžčýůúňťď",
    "Slovak": "áíéýčžšúľťôňďäóŕĺ",
    "Hungarian": "áéöóőíüúű",
    "Romanian": "ăîâşţșț",
    "Croatian": "šžčćđ",
    "Turkish": "ıüşçğöiâûî",
    "Lithuanian": "ėųšįąžūčę",
    "Latvian": "āīēšūņļķģčž",
    "Estonian": "äõüöšž",
    "Vietnamese": (
        "đàáạảâấầêếôốồộơờớưừứăắãẹẻéèíìịóòọúùụýẫậệễểổỗỡợởữựửĩỉũủõẽỹỷằặ\u0300\u0301\u0303\u0309\u0323"
    ),
    "Russian": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё",
    "Ukrainian": "оанитіверслкудмпязьгбчхцжйшюїєщфґ",
    "Belarusian": "анілыртеоскдуявмпзцхьгбчйўшжюэёф",
    "Bulgarian": "аоиентврслдкпмязубъчгйжшцхфющь",
    "Serbian": "аоиенртсвјкудлмпгзбчљцњшхжћђфџѓќѕ",
    "Greek": "αοιετνσηυρπκμλςίόάωέήδγύχθώφβξζψϊϋΐΰ",
    "Hebrew": "יוהלאתרבמשנםעדכחקפטגצןזסךףץ",
    "Arabic": "اليمنورتبةعدسفهكقحأجشصىخطءإزضذثغئظآؤ\u064b\u064e\u064f\u0650\u0651\u0652",
    "Persian": "اینردمهوتسبشکگلزفخقحعجآچپصطژذغثضظئ\u200c",
    "Thai": "านรอกเง่มยลวดทสตั้ปบิีคหแจพชไขใะุโู็์ึืผำณซถภฟศธญษฐฉฎๆฝ",
    "Japanese": (
        "のいるにんたてしはとがをなでれかっらすもりこまきどけさつだくちよせおあわえみそめ"
        "ろやばうほじひぶべぐげへふごねずびぎぬむざーンスルトアイリクラッレドシフタマコテ"
        "ロメプサカニキジオエパグデチナミバ日本人大年一私品注文届配送返金来行気思出見時前"
        "今何分"
    ),
    "Chinese": (
        "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于"
        "着下自之年过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还"
        "进好小部其些主样理心她本前开但因只从想实请客服单收退款质量喜欢快很买"
    ),
    "Chinese (traditional)": (
        "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於"
        "著下自之年過發後作裡用道行所然家種事成方多經麼去法學如都同現當沒動面起看定天分還"
        "進好小部其些主樣理心她本前開但因只從想實請客服單收退款訂商品謝給很買"
    ),
    "Korean": (
        "이다는에을가의한고도지하사로은기를자어리서시아인나대정들해일그수주부스전장조구상"
        "제보라요여오있우연것만안세무게니원으소마습까신비물면않았문했경성"
    ),
}
# Words of each language without a letter beyond ASCII, such as most texts have some of.
COMMON_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "German": "der die das und ist nicht ein eine ich sie es zu in mit den von auf im wir hat",
        "French": "le la les et est de des un une pas que qui je il en pour vous sur dans ne",
        "Spanish": "el la los las de que no un una es en por para con se me mi su del al lo",
        "Portuguese": "o os as de que um uma em por para com se me do da no na dos ao mas eu",
        "Italian": "il lo la gli di che non un una in per con si mi del della sono ho ma le",
        "Catalan": "el la els les de que no un una en per amb es del al molt dels aquest ha i",
        "Danish": "og er det en at til ikke af jeg med den som har vi der men kan et fra for",
        "Swedish": "och det att en som inte jag den med har av till vi kan ett men om var de",
        "Dutch": "de het een en van is niet ik dat op te in met voor zijn die er maar aan wij",
        "Icelandic": "og er ekki en hann hefur sem um til af fyrir var vera eru vi ef",
        "English": (
            "the and to of a i you it is in that for on with was my this have not but be are at so "
            "we do if can just your me all no or they as what there when how from very will has "
            "he she his her our its an by out get would"
        ),
        "Polish": "nie jest do na w z i to jak za od po ale co mam dla tak o bardzo mnie",
        "Czech": "je na v se to a ne za od po ale jak pro jsem by do co tak mi ve",
        "Slovak": "je na v sa to a nie za od po ale ako pre som by do tak mi si vo",
        "Hungarian": "a az nem hogy egy van meg is de ez csak volt mint ha vagy nagyon lehet el",
        "Romanian": "nu de la este un o pe cu am mai din care foarte sunt dar au prin",
        "Croatian": "je u na da se ne i za od sam su kao ali do nije bi s iz koji po",
        "Turkish": "ve bir bu de da ne mi ile ama var yok daha gibi kadar ben sen iyi olarak",
        "Lithuanian": "ir yra ne tai kad su bet iki po kaip jis labai buvo man ar nuo",
        "Latvian": "un ir ar par no uz ka bet to es nav kas vai man pie lai tas",
        "Estonian": "ja on ei et see kui ma ka mis ta aga oma ole kes seda olen siis",
        "Vietnamese": "toi cho khi trong anh em hay nhau sao theo qua ra vui hai xin sau",
    }.items()
}
_ELIDED = (
    "l d c j m n s t qu jusqu lorsqu puisqu quelqu aujourd un dell nell all sull dall quest quell "
    "bell sant anch com dov o"
)
_BEFORE_CONTRACTION = "don didn doesn isn wasn aren weren won wouldn couldn shouldn hasn haven ain"
# What stands behind an apostrophe in English; before one in French, Italian, Catalan, and in names.
CONTRACTED = frozenset(["t", "s", "m", "d", "re", "ve", "ll"])
ELIDED = frozenset(_ELIDED.split())
KNOWN_WORDS = frozenset(_BEFORE_CONTRACTION.split()).union(*COMMON_WORDS.values())

_WORDS_OF_ONE_LETTER = {
    "French": "àô", "Spanish": "óáé", "Portuguese": "àéóôá", "Italian": "èòà", "Catalan": "àéò",
    "Danish": "åøæ", "Swedish": "åö", "Icelandic": "áíúóæ", "Hungarian": "őóéö",
    "Lithuanian": "įų", "Romanian": "î", "Vietnamese": "àởýờôồăểầừơảổạẻâê",
    "Russian": "иявскуоаэ", "Ukrainian": "іивузйєяоа", "Belarusian": "ізуаяўо",
    "Bulgarian": "исвяаеоѝ", "Serbian": "иујасок", "Greek": "οηόήωά",
    "Arabic": "و", "Persian": "و",
}  # fmt: skip

_PLAIN_SIGNS = "’‘“”„–—…€£§©°®™•\u00a0、。！？，：；（）「」『』～…"
_RARE_SIGNS = "«»¿¡ºª·½¼¾×±÷²³µ‚‹›†¢¥"
_APOSTROPHES = {"French": 0.1, "Italian": 0.1, "Catalan": 0.1, "Dutch": 0.04}
# English has few letters beyond ASCII, so nearly all that it has there are signs.
_ENGLISH_SIGNS = {"’": 0.3, "‘": 0.06, "£": 0.06, "€": 0.08} | dict.fromkeys("“”–—…", 0.1)
_ENGLISH_SIGNS |= dict.fromkeys("°½¼¾×±®™©•²³µ·÷¢\u00a0", 0.04)
_UNKNOWN = 1e-3  # probability of a letter that the language does not have
BROKEN = 1e-6  # of a byte that the page does not define


# Of scripts with thousands of characters: an encoding whose first bytes sort them by how common
# they are, and where the rare ones begin.
_COMMON = {
    "Japanese": ("shift_jis", 0x98),
    "Chinese": ("gb2312", 0xD8),
    "Chinese (traditional)": ("big5", 0xC9),
    "Korean": ("euc_kr", 0xC9),
}


@functools.cache
def _weights(language: str) -> dict[str, float]:
    """Probability of each letter: it falls with its rank, steeply where there are few."""
    letters = LANGUAGES[language]
    fall = 1 - min(0.25, 2.5 / len(letters))
    ranked = {letter: fall**rank for rank, letter in enumerate(letters)}
    share = 0.55 if language in _COMMON else 0.15 if language == "English" else 0.9
    scale = share / sum(ranked.values())
    signs = dict.fromkeys(_PLAIN_SIGNS, 0.02) | dict.fromkeys(_RARE_SIGNS, 0.005)
    signs["’"] = _APOSTROPHES.get(language, signs["’"])
    if language == "English":
        signs |= _ENGLISH_SIGNS
    return signs | {letter: weight * scale for letter, weight in ranked.items()}


def is_word(language: str, letter: str) -> bool:
    """Whether a letter beyond ASCII, in its small form, is a word by itself in a language."""
    return letter in _WORDS_OF_ONE_LETTER.get(language, "")


def probability(language: str, character: str) -> float:
    """How probable a character beyond ASCII, small where it has two forms, is in a language."""
    weight = _weights(language).get(character)
    if weight is not None:
        return weight
    if character == "\ufffd" or "\x80" <= character <= "\x9f":
        return BROKEN
    if language not in _COMMON:
        return _UNKNOWN if character.isalpha() else _UNKNOWN / 5
    page, rare = _COMMON[language]
    try:
        first = character.encode(page)[0]
    except UnicodeEncodeError:
        return 1e-5
    if "\uff61" <= character <= "\uff9f" or character < "\u3000":  # half-width kana; Cyrillic
        return 1e-5
    return 3e-4 if first < rare else 2e-5
