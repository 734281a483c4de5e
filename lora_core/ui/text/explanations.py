"""Folds for the curious under steps 3 and 4: formulas as MathML, and the papers behind them."""

from __future__ import annotations


def _paper(authors: str, title: str, where: str) -> str:
    if where.startswith("arXiv:"):
        address = f"https://arxiv.org/abs/{where.removeprefix('arXiv:')}"
        where = f'<a href="{address}" target="_blank" rel="noopener">{where}</a>'
    return f"{authors}, <cite>{title}</cite>, {where}"


_STRENGTH = (
    '<math display="block"><mrow><mi>y</mi><mo>=</mo><mrow class="frozen-ink"><mi>x</mi>'
    "<msup><mi>W</mi><mi>T</mi></msup></mrow><mo>+</mo><mi>s</mi><mo>·</mo>"
    '<mfrac><mi>α</mi><mi>r</mi></mfrac><mrow class="trainable-ink"><mi>x</mi><mi>A</mi>'
    "<mi>B</mi></mrow></mrow></math>"
)
_LOGIT = (
    "<mi>log</mi><mfrac><mrow><mi>p</mi></mrow><mrow><mn>1</mn><mo>−</mo><mi>p</mi></mrow></mfrac>"
)
_WEIGHT = (
    f'<math display="block"><mi>weight</mi><mo>=</mo>{_LOGIT}<mo>−</mo>'
    f"{_LOGIT.replace('<mi>p</mi>', '<msub><mi>p</mi><mi>without</mi></msub>')}</math>"
)
_RATIO = (
    '<math display="block"><mfrac><msub><mrow><mo>‖</mo><mi>Δ</mi><mi>W</mi><mo>‖</mo></mrow>'
    "<mi>F</mi></msub><msub><mrow><mo>‖</mo><mi>W</mi><mo>‖</mo></mrow><mi>F</mi></msub></mfrac>"
    "<mo>,</mo><mspace width='1em'/><msub><mrow><mo>‖</mo><mi>M</mi><mo>‖</mo></mrow><mi>F</mi>"
    "</msub><mo>=</mo><msqrt><mrow><munder><mo>∑</mo><mrow><mi>i</mi><mi>j</mi></mrow></munder>"
    "<msubsup><mi>m</mi><mrow><mi>i</mi><mi>j</mi></mrow><mn>2</mn></msubsup></mrow></msqrt></math>"
)
_RANK = (
    '<math display="block"><mi>directions in use</mi><mo>=</mo><mi>exp</mi><mo>(</mo><mo>−</mo>'
    "<munder><mo>∑</mo><mi>i</mi></munder><msub><mi>p</mi><mi>i</mi></msub><mi>log</mi>"
    "<msub><mi>p</mi><mi>i</mi></msub><mo>)</mo><mo>,</mo><mspace width='1em'/>"
    "<msub><mi>p</mi><mi>i</mi></msub><mo>=</mo><mfrac><msub><mi>σ</mi><mi>i</mi></msub>"
    "<mrow><munder><mo>∑</mo><mi>k</mi></munder><msub><mi>σ</mi><mi>k</mi></msub></mrow></mfrac></math>"
)


def _fold(name: str, summary: str, *paragraphs: str) -> str:
    body = "".join(p if p.startswith("<math") else f"<p>{p}</p>" for p in paragraphs)
    return (
        f'<details class="fold question curious" id="{name}"><summary>{summary}</summary>'
        f'<div class="answer">{body}</div></details>'
    )


CLASSIFY = _fold(
    "about-strength",
    "What the strength does, and how a word is weighed",
    "The adapter is a term that is added, so it can be turned down and up after training. With "
    "<i>s</i> = 0 only the frozen W is left, with <i>s</i> = 1 the model is as it was trained "
    "(α / r is the scale of step 1):",
    _STRENGTH,
    "The classification head, trained in full, moves on the straight line between its random "
    "start and its last value. That such a line leads through useful models is shown by "
    + _paper("Ilharco et al. 2023", "Editing Models with Task Arithmetic", "arXiv:2212.04089")
    + ".",
    "A word is weighed by taking it out and asking again. Its weight is the change of the "
    "answer’s log-odds. Unlike a difference of probabilities it does not vanish where the model "
    "is nearly certain:",
    _WEIGHT,
    "This is occlusion: "
    + _paper(
        "Zeiler &amp; Fergus 2014",
        "Visualizing and Understanding Convolutional Networks",
        "arXiv:1311.2901",
    )
    + "; for words "
    + _paper(
        "Li, Monroe &amp; Jurafsky 2016",
        "Understanding Neural Networks through Representation Erasure",
        "arXiv:1612.08220",
    )
    + "; the log-odds after "
    + _paper(
        "Robnik-Šikonja &amp; Kononenko 2008",
        "Explaining Classifications For Individual Instances",
        "IEEE TKDE 20:589",
    )
    + ". It sees one word at a time: where either of two words is enough, neither seems to "
    "matter. Each number can be checked: delete the word above and read the new answer.",
)

INSIDE = _fold(
    "about-inside",
    "How these are measured",
    "The size of a change is measured against the size of what it is added to, by the Frobenius "
    "norm:",
    _RATIO,
    "Every matrix is a sum of independent directions, each with a strength, its singular value σ. "
    "A·B has at most <i>r</i> of them: that is what a low rank means. They are found without ever "
    "forming ΔW, from A and B alone (QR of both, then the singular values of a core of <i>r</i> × "
    "<i>r</i>). How many are really in use is read from how evenly they share the work:",
    _RANK,
    "This is the effective rank of "
    + _paper(
        "Roy &amp; Vetterli 2007",
        "The Effective Rank: A Measure of Effective Dimensionality",
        "EUSIPCO",
    )
    + ". Why a small one can be enough: "
    + _paper(
        "Aghajanyan, Gupta &amp; Zettlemoyer 2021",
        "Intrinsic Dimensionality Explains the Effectiveness of Language Model Fine-Tuning",
        "arXiv:2012.13255",
    )
    + ", and section 7 of "
    + _paper(
        "Hu et al. 2021", "LoRA: Low-Rank Adaptation of Large Language Models", "arXiv:2106.09685"
    )
    + ".",
    "SHA-256 turns any number of bytes into 64 digits. If one bit of the frozen weights had "
    "changed, about half of the digits’ bits would differ. The first digest was taken when the "
    "server loaded the model, the second one now, from the very weights under your adapter.",
)
