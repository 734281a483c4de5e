"""What the answers of the catalogue name in braces: formulas, as MathML, and papers."""

from __future__ import annotations


def _math(body: str) -> str:
    return f'<math display="block"><mrow>{body}</mrow></math>'


def _cite(arxiv: str, text: str) -> str:
    return f'<a href="https://arxiv.org/abs/{arxiv}" target="_blank" rel="noopener">{text}</a>'


_HU = _cite("2106.09685", "Hu et al. 2021")
_UPDATE = _math(
    "<mi>y</mi><mo>=</mo>"
    '<mrow class="frozen-ink"><mi>x</mi><msup><mi>W</mi><mi>T</mi></msup></mrow>'
    "<mo>+</mo><mfrac><mi>α</mi><mi>r</mi></mfrac>"
    '<mrow class="trainable-ink"><mi>x</mi><mi>A</mi><mi>B</mi></mrow>'
)
_SLOPES = _math(
    "<mfrac><mrow><mo>∂</mo><mi>L</mi></mrow><mrow><mo>∂</mo><mi>B</mi></mrow></mfrac>"
    "<mo>=</mo><mfrac><mi>α</mi><mi>r</mi></mfrac>"
    "<msup><mrow><mo>(</mo><mi>x</mi><mi>A</mi><mo>)</mo></mrow><mi>T</mi></msup><mi>g</mi>"
    '<mspace width="2em"></mspace>'
    "<mfrac><mrow><mo>∂</mo><mi>L</mi></mrow><mrow><mo>∂</mo><mi>A</mi></mrow></mfrac>"
    "<mo>=</mo><mfrac><mi>α</mi><mi>r</mi></mfrac>"
    "<msup><mi>x</mi><mi>T</mi></msup><mi>g</mi><msup><mi>B</mi><mi>T</mi></msup>"
    "<mo>=</mo><mn>0</mn>"
)
_COST = _math(
    '<mrow class="trainable-ink"><mi>r</mi><mo>(</mo><msub><mi>n</mi><mtext>in</mtext></msub>'
    "<mo>+</mo><msub><mi>n</mi><mtext>out</mtext></msub><mo>)</mo></mrow>"
    '<mspace width="1em"></mspace><mtext>instead of</mtext><mspace width="1em"></mspace>'
    '<mrow class="frozen-ink"><msub><mi>n</mi><mtext>in</mtext></msub><mo>·</mo>'
    "<msub><mi>n</mi><mtext>out</mtext></msub></mrow>"
)
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


def _paper(arxiv: str, authors: str, title: str) -> str:
    return f"{authors}, <cite>{title}</cite>, {_cite(arxiv, f'arXiv:{arxiv}')}"


PLACES = {
    "update": _UPDATE,
    "slopes": _SLOPES,
    "cost": _COST,
    "hu": _HU,
    "rslora": _cite("2312.03732", "Kalajdzievski 2023"),
    "biderman": _cite("2405.09673", "Biderman et al. 2024"),
    "strength": _STRENGTH,
    "weight": _WEIGHT,
    "ratio": _RATIO,
    "directions": _RANK,
    "ilharco": _paper("2212.04089", "Ilharco et al. 2023", "Editing Models with Task Arithmetic"),
    "zeiler": _paper(
        "1311.2901",
        "Zeiler &amp; Fergus 2014",
        "Visualizing and Understanding Convolutional Networks",
    ),
    "li": _paper(
        "1612.08220",
        "Li, Monroe &amp; Jurafsky 2016",
        "Understanding Neural Networks through Representation Erasure",
    ),
    "robnik": "Robnik-Šikonja &amp; Kononenko 2008, <cite>Explaining Classifications For "
    "Individual Instances</cite>, IEEE TKDE 20:589",
    "roy": "Roy &amp; Vetterli 2007, <cite>The Effective Rank: A Measure of Effective "
    "Dimensionality</cite>, EUSIPCO",
    "aghajanyan": _paper(
        "2012.13255",
        "Aghajanyan, Gupta &amp; Zettlemoyer 2021",
        "Intrinsic Dimensionality Explains the Effectiveness of Language Model Fine-Tuning",
    ),
}
