"""How common letters are in the languages that tables are written in.

For each language its letters beyond ASCII (of other scripts: all, or the most frequent ones), the
most frequent first. Ranks are enough to tell a right reading of bytes from a wrong one.
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
    "English": "éïñö",
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
TYPOGRAPHY = "’‘“”„–—…«»€£§©°®™•·¿¡ºª\u00a0、。！？，：；（）「」『』～…"
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
    scale = (0.55 if language in _COMMON else 0.9) / sum(ranked.values())
    signs = {sign: 0.005 if sign in "«»¿¡ºª·•" else 0.02 for sign in TYPOGRAPHY}
    return signs | {letter: weight * scale for letter, weight in ranked.items()}


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
