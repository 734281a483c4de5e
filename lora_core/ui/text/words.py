"""What the page says: numbers in words, a sentence and a fold for each step, the five questions."""

from __future__ import annotations

from lora_core.config import Method, Scaling

METHODS: dict[Method, str] = {"lora": "LoRA", "full": "Full", "head": "Head only"}
SCALINGS: dict[Scaling, str] = {
    "alpha/rank": "α / r",
    "alpha/sqrt(rank)": "α / √r",
    "alpha": "α",
}


def number(value: float, digits: int = 3) -> str:
    """At most so many significant digits, without a trailing zero: 2, 0.5, 5.66, 0.0312."""
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def count(value: int) -> str:
    """A whole number with thousands separated."""
    return f"{value:,}"


def percent(value: float) -> str:
    """Three significant digits: 100 %, 2.61 %, 0.0312 %."""
    return f"{number(value)} %" if value < 99.95 or value == 100 else f"{value:.1f} %"


def megabytes(size: int) -> str:
    """Bytes in the unit that fits (a kB is 1,000 bytes)."""
    if size < 1_000:
        return f"{size} bytes"
    if size < 999_500:
        return f"{number(size / 1e3)} kB"
    if size < 999_500_000:
        return f"{number(size / 1e6)} MB"
    return f"{number(size / 1e9)} GB"


def duration(seconds: float) -> str:
    """12 s, 1 min 5 s, 2 h 3 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def scale_formula(rank: int, alpha: float, scaling: Scaling, scale: float) -> str:
    """`α / r = 16 / 8 = 2`."""
    a = number(alpha, 6)
    parts = {
        "alpha/rank": f"α / r = {a} / {rank} = {number(scale)}",
        "alpha/sqrt(rank)": f"α / √r = {a} / √{rank} = {number(scale)}",
        "alpha": f"α = {a}, whatever the rank",
    }
    return parts[scaling]


def scale_sentence(rank: int, alpha: float, scaling: Scaling, scale: float) -> str:
    """The effective scale, in words."""
    formula = scale_formula(rank, alpha, scaling, scale)
    if scale == 1:
        return f"{formula}: the learned change A·B is added to W as it is."
    if scale > 1:
        return f"{formula}: the learned change A·B is added to W {number(scale)} times over."
    return f"{formula}: only {percent(100 * scale)} of the learned change A·B is added to W."


METHOD_NAMES: dict[Method, str] = {
    "lora": "LoRA",
    "full": "full fine-tuning",
    "head": "head only",
}

# (number of the step, title, the sentence for the hurried)
STEPS = {
    "adapt": ("1", "Adapt", "Freeze the model. Beside each of its layers, add two thin matrices."),
    "finetune": ("2", "Fine-tune", "Show it labelled texts. Only the thin matrices learn."),
    "compare": ("", "Runs compared", "How little has to be trained? Each dot is one run."),
    "classify": ("3", "Classify", "Type a text and read what the adapted model makes of it."),
    "inside": ("4", "Look inside", "What the adapter did to each layer, and what it left alone."),
    "take": ("5", "Take it along", "The trained part is a small file. Use it anywhere."),
}


def heading(step: str) -> str:
    """The title of a step with its sentence, as HTML."""
    mark, title, sentence = STEPS[step]
    badge = f'<span class="step-number" aria-hidden="true">{mark}</span>' if mark else ""
    return (
        f'<div class="step-head">{badge}<h2 id="step-{step}">{title}</h2>'
        f'<p class="lead">{sentence}</p></div>'
    )


def fold(step: str) -> str:
    """The questions that belong to a step, each a fold with its answer, as HTML."""
    return "".join(
        f'<details class="fold question"><summary>{question}</summary>'
        f'<div class="answer">{answer}</div></details>'
        for question, answer in QUESTIONS.get(step, ())
    )


DESCRIPTION = (
    "See and feel what LoRA fine-tuning does: freeze a GPT, train a sliver of it, watch it learn."
)


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

# step -> (question, answer as HTML)
QUESTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "adapt": (
        (
            "What is frozen?",
            "<p>All that the base model learned before: its word pieces, its attention, its MLPs. "
            "Frozen is blue on this page. Training reads those numbers and never writes them, and "
            "step 4 shows a checksum that proves it.</p>"
            "<p>Trained is what is orange: A and B beside every layer you choose, and the "
            "classification head. The head is new, because the base has never heard of your "
            "labels, so it starts random.</p>",
        ),
        (
            "What do rank and alpha each do?",
            f"{_UPDATE}"
            "<p><b>Rank</b> r is the width of A and B. The change that they make to W, their "
            "product, can point in r independent directions and no more. A larger rank is more "
            "room to learn, and costs parameters in proportion.</p>"
            "<p><b>Alpha</b> α is a volume. The product is multiplied by α / r before it is added. "
            "Twice the alpha is twice the change, with not one parameter more: it acts much like a "
            "larger learning rate for A and B. Move the rank with alpha fixed and the volume "
            f"changes too, which is why both are on screen ({_HU}, section 4.1). Dividing by √r "
            "instead keeps large ranks learning "
            f"({_cite('2312.03732', 'Kalajdzievski 2023')}).</p>",
        ),
        (
            "Can a table of word pieces have an adapter?",
            "<p>Yes. Looking up a row is multiplying by a vector that is all zeros but for a one, "
            "so the table is a W like the others. Row by row, A says where a word piece moves "
            "along the directions in B. Here it is A that starts at zero, and a row of it learns "
            "only when its word piece is seen in training.</p>"
            "<p>A plain LoRA leaves this table alone, as the book does. Untick <i>word pieces</i> "
            "under <i>More settings</i>, run again, and compare: words that decide a task can be "
            "told apart at once when their own rows may move.</p>",
        ),
    ),
    "finetune": (
        (
            "Why does step 0 equal the base?",
            "<p>B starts at zero (for word pieces it is A). So A·B is zero, and the adapted model "
            "gives the base's answers to the last bit: the first dot of each curve is the frozen "
            "base under a head that has learned nothing yet.</p>"
            f"{_SLOPES}"
            "<p>A starts random (of word pieces, B). With B = 0 only B has a slope at first (g is "
            "the slope at the layer's output); once B has moved, A moves too. Were both zero, "
            "neither would ever "
            f"start ({_HU}, section 4.1).</p>",
        ),
    ),
    "compare": (
        (
            "What does a bigger rank cost, and what does it buy?",
            "<p><b>It costs</b> parameters: one adapted layer trains</p>"
            f"{_COST}"
            "<p>numbers, so twice the rank is twice the file and twice the memory for gradients "
            "and optimiser. Once merged into W the adapter costs nothing when the model is "
            "used.</p>"
            "<p><b>It buys</b> room. Small tasks need few directions, so accuracy often stops "
            "rising at a low rank: run the sweep and look where the dots stop climbing "
            f"({_HU}, section 7.2). With much more to learn, a low rank falls behind full "
            f"fine-tuning ({_cite('2405.09673', 'Biderman et al. 2024')}).</p>",
        ),
    ),
    "take": (
        (
            "What is in the file that I download?",
            "<p>A and B of every adapted layer, the classification head, and a short text file "
            "that says the rank, the alpha and which layers they belong to. Not the base: whoever "
            "loads the file needs the same base beside it. That is why it is so small; step 1 says "
            "how small.</p>",
        ),
    ),
}


def banner(title: str) -> str:
    """The top of the page: what this is, in one sentence."""
    return (
        f"<h1>{title}</h1>"
        "<p>Teach a frozen language model something new by training a sliver of it.</p>"
    )
