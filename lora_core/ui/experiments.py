"""The answers of the step *Experiments*, for the page and for the web API: figures and a sentence.

An answer is plain JSON: `question`, `state` ("done", "waiting", "failed", "none"), `sentence` with
the figures in words, `note` with how they were measured, `figure` for a drawing, and the numbers
themselves. Arithmetic is `lora_core.explain`'s; what takes seconds is a `Computation`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lora_core.base.checkpoint import Base
from lora_core.classifier import Classifier
from lora_core.explain.chance import difference_of_shares, sign_test, wilson
from lora_core.explain.changes import layer_changes
from lora_core.explain.exam import MAX_ROWS, Exam, ExperimentError
from lora_core.explain.forgetting import AtStrength, Passage, forgetting, general_text, passage
from lora_core.explain.knife import Cut, Knife, cuts, enough
from lora_core.explain.knockout import Knockout, Switchboard, correlation, knockouts, parts_of
from lora_core.explain.memorising import memorising
from lora_core.explain.merging import MergeCheck, check_merging
from lora_core.explain.voting import Vote, against_best, ballots, check_voters, count_votes
from lora_core.preparation import train_sample_rows
from lora_core.serving.computations import Computation, Computations, Make, share_of_core
from lora_core.serving.executors import available_cores
from lora_core.serving.plans import Plans
from lora_core.serving.run import Run
from lora_core.ui.context import Lab
from lora_core.ui.drawing.answer_figures import Answer, lines, pc, points, series, signed
from lora_core.ui.forgetting import forgot
from lora_core.ui.names import layer_name, long_name
from lora_core.ui.text.catalogue import say

QUESTIONS = ("luck", "rate", "forgot", "knife", "layers", "vote", "memorised", "merging")
OF_A_RUN = ("forgot", "knife", "layers", "memorised", "merging")  # ask about one run


@dataclass(eq=False)
class Experiments:
    """The server's experiments: one of them in the process. Safe to call from any thread."""

    lab: Lab
    plans: Plans
    computations: Computations = field(init=False)
    _passages: weakref.WeakKeyDictionary[Any, Passage] = field(
        default_factory=weakref.WeakKeyDictionary
    )

    _ballots: weakref.WeakKeyDictionary[Classifier, tuple[int, Tensor]] = field(
        default_factory=weakref.WeakKeyDictionary
    )

    def __post_init__(self) -> None:
        registry, cores = self.lab.registry, available_cores()
        self.computations = Computations(
            lambda: share_of_core(registry.counts().get("running", 0), cores)
        )
        registry.when_closed(self.computations.close)

    def begin(self, visitor: str, question: str, run: Run) -> Computation:
        """Begin, or find, what a question about one run needs. Raises `LabError`s, in words."""
        classifier = trained(run)
        begun = self.computations.known(classifier, question)
        if begun is not None:  # nothing is prepared again for each who asks
            return begun
        make: Make
        if question == "knife":
            knife, exam = Knife(classifier), Exam.of(classifier, run.task)
            make = lambda: cuts(knife, exam)  # noqa: E731
        elif question == "layers":
            board = Switchboard(classifier)
            exam = Exam.of(classifier, run.task, rows_without(classifier))
            make = lambda: knockouts(board, exam)  # noqa: E731
        elif question == "merging":
            exam = Exam.of(classifier, run.task)
            make = lambda: check_merging(classifier, exam)  # noqa: E731
        elif question == "forgot":
            base = self._base_of(run)
            make = lambda: forgetting(classifier, base, self._passage(base))  # noqa: E731
        else:
            raise ExperimentError(f"There is no question called '{question}' about a run.")
        return self.computations.ask(visitor, classifier, question, make)

    def answer(self, question: str, run: Run, computation: Computation) -> Answer:
        """What is known so far, as JSON."""
        answer: Answer = {
            "question": question,
            "about": long_name(run),
            "state": "waiting" if computation.state == "dropped" else computation.state,
            "sentence": "",
            "note": "",
            "figure": None,
        }
        if computation.state == "failed":
            return answer | {"sentence": computation.reason}
        if computation.value is not None:
            answer |= _SAID[question](run, computation.value, computation.is_over)
        return answer | self.waits(computation)

    def waits(self, computation: Computation) -> Answer:
        """Why an answer takes long, in `waits`; nothing of one that is there."""
        if computation.is_over or self.computations.share() == 1.0:
            return {}
        return {"waits": say("experiments.computing_beside")}

    def without(self, visitor: str, run: Run, off: Sequence[str]) -> Computation:
        """Without some parts together: how many test texts are right, of how many."""
        classifier = trained(run)
        begun = self.computations.known(classifier, ("off", frozenset(off)))
        if begun is not None:
            return begun
        board = Switchboard(classifier)
        exam = Exam.of(classifier, run.task, rows_without(classifier))
        switched = board.without(off)  # raises for a part that is not there

        def make() -> Any:
            return (yield from exam.right(switched)), exam.rows

        return self.computations.ask(visitor, classifier, ("off", frozenset(off)), make)

    def vote(self, visitor: str, runs: Sequence[Run]) -> Computation:
        """The accuracy of several runs that vote."""
        voters = [trained(run) for run in runs]
        check_voters(voters)
        task = next((run.task for run in runs if run.task is not None), None)
        exam = Exam.of(voters[0], task)

        def make() -> Any:
            cast = yield from ballots(voters, exam, self._ballots)
            singles = [exam.correct(p) / exam.rows for p in cast]
            return count_votes(cast, exam), exam.rows, singles, against_best(cast, exam)

        key = ("vote", tuple(run.id for run in runs))
        return self.computations.ask(visitor, voters[0], key, make)

    def _base_of(self, run: Run) -> Base:
        base = run.base or self.lab.bases.loaded(trained(run).base_name)
        if base is None:
            raise ExperimentError("The base of this adapter is not loaded here.")
        return base

    def _passage(self, base: Base) -> Passage:
        if base.model not in self._passages:
            made = passage(base.tokenizer, general_text(), base.config.context_length)
            self._passages[base.model] = made
        return self._passages[base.model]


def trained(run: Run) -> Classifier:
    """A run's classifier. Raises `ExperimentError` where there is none."""
    if run.classifier is None:
        raise ExperimentError("This run has nothing to ask: it is not over, or it failed early.")
    return run.classifier


def rows_without(classifier: Classifier) -> int:
    """How many test texts are asked without each layer: fewer for a base with more layers."""
    return max(32, MAX_ROWS // max(1, classifier.model.config.n_layers // 2))


# What each computation says ------------------------------------------------------------------


def _knife(run: Run, curve: Sequence[Cut], over: bool) -> Answer:
    rows = curve[0].rows
    rank = max(cut.rank for cut in curve)
    answer: Answer = {
        "rank": rank,
        "cuts": [{"rank": c.rank, "right": c.right, "accuracy": c.accuracy} for c in curve],
        "note": say("experiments.knife_note", rows=rows),
        "figure": lines(
            [series("", [(c.rank, c.accuracy) for c in curve])],
            say("experiments.knife_axis"),
            say("experiments.accuracy"),
        ),
    }
    if over:
        least = enough(curve)
        key = (
            "experiments.knife_all"
            if least.rank == rank
            else "experiments.knife_result"
            if least.rank
            else "experiments.knife_none"
        )
        whole = next(cut for cut in curve if cut.rank == rank)
        answer["enough"] = least.rank
        mark = {"x": least.rank, "label": say("experiments.knife_enough")}
        answer["figure"]["marks"] = [mark]
        answer["sentence"] = say(
            key, n=least.rank, r=rank, cut=pc(least.accuracy), whole=pc(whole.accuracy)
        )
    return answer


def _layers(run: Run, knockout: Knockout, over: bool) -> Answer:
    rows = knockout.rows
    whole = None if knockout.whole is None else knockout.whole / rows
    norms = {change.name: change.change for change in layer_changes(trained(run))}
    parts = []
    for part in knockout.parts:
        lost = (knockout.whole or 0) - part.right
        parts.append(
            {
                "name": part.part,
                "title": layer_name(part.part),
                "accuracy": part.right / rows,
                "lost": lost / rows,
                "change": norms.get(part.part),
                "words": _lost_words(lost / rows),
            }
        )
    known = {part["name"] for part in parts}
    answer: Answer = {
        "whole": whole,
        "rows": rows,
        "adapter_off": None if knockout.adapter_off is None else knockout.adapter_off / rows,
        "parts": parts + [_unknown(name) for name in parts_of(trained(run)) if name not in known],
        "note": say("experiments.layers_note", rows=rows),
        "figure": {"kind": "parts"},
    }
    if over and whole is not None:
        answer |= _layers_said(knockout, parts, whole)
    return answer


def _unknown(name: str) -> Answer:
    title = layer_name(name)
    return {"name": name, "title": title, "accuracy": None, "lost": 0, "words": "…"}


def _layers_said(knockout: Knockout, parts: list[Answer], whole: float) -> Answer:
    layers = [part for part in parts if part["name"] != "head"]
    pairs = [(p["lost"], p["change"]) for p in layers if p["change"] is not None]
    r = correlation([lost for lost, _ in pairs], [change for _, change in pairs])
    most = max(layers, key=lambda part: part["lost"], default=None)
    said = []
    if most and most["lost"] > 0.01:
        ties = sum(part["lost"] == most["lost"] for part in layers)
        said.append(
            say(
                "experiments.layers_result" if ties == 1 else "experiments.layers_ties",
                count=ties,
                part=most["title"],
                without=pc(most["accuracy"]),
                whole=pc(whole),
                texts=round(most["lost"] * knockout.rows),
                rows=knockout.rows,
            )
        )
    else:
        said.append(say("experiments.layers_nothing", whole=pc(whole)))
    headless = next((part["accuracy"] for part in parts if part["name"] == "head"), None)
    if knockout.adapter_off is not None and headless is not None:
        alone = knockout.adapter_off / knockout.rows
        said.append(say("experiments.layers_who", alone=pc(alone), headless=pc(headless)))
    if r is not None:
        largest = max(layers, key=lambda part: part["change"] or 0.0)
        places = {"part": largest["title"], "without": pc(largest["accuracy"])}
        said.append(say("experiments.layers_correlation", r=f"{r:.2f}".replace("-", "−"), **places))
    return {"sentence": " ".join(said), "correlation": r}


def _lost_words(lost: float) -> str:
    if abs(lost) < 5e-5:
        return say("experiments.same")
    return say("experiments.lost" if lost > 0 else "experiments.gained", points=points(abs(lost)))


def _forgot(run: Run, curve: Sequence[AtStrength], over: bool) -> Answer:
    return forgot([(run, curve)])


def _merging(run: Run, check: MergeCheck, over: bool) -> Answer:
    key = "experiments.merging_changes" if check.changed else "experiments.merging_free"
    return {
        "largest": check.largest,
        "typical": check.typical,
        "changed": check.changed,
        "rows": check.rows,
        "note": say("experiments.merging_note"),
        "sentence": say(
            key,
            rows=check.rows,
            changed=check.changed,
            largest=f"{check.largest:.1e}",
            typical=f"{check.typical:.2g}",
        ),
    }


_SAID: dict[str, Callable[[Run, Any, bool], Answer]] = {
    "knife": _knife,
    "layers": _layers,
    "forgot": _forgot,
    "merging": _merging,
}


def memorised(run: Run) -> Answer:
    """Learned or memorised, from the run's own curve."""
    memory = memorising(run.curve())
    if memory is None:
        raise ExperimentError(say("experiments.not_trained"))
    train, validation = memory.train_accuracy[-1], memory.validation_accuracy[-1]
    said = [_gap_words(run, train, validation)]
    if memory.turn is None:
        said.append(say("experiments.memorised_not"))
    else:
        low, last = min(memory.validation_loss), memory.validation_loss[-1]
        said.append(
            say(
                "experiments.memorised_turn", step=memory.turn, low=f"{low:.2f}", last=f"{last:.2f}"
            )
        )
    test = test_words(run)
    if test:
        said.append(say("experiments.memorised_test", share=test["words"]))
    marks = [{"x": memory.best_step, "label": say("experiments.memorised_best")}]
    if memory.turn is not None:
        marks.append({"x": memory.turn, "label": say("experiments.memorised_from")})
    figure = lines(
        [
            series(
                say("experiments.memorised_train"),
                list(zip(memory.steps, memory.train_accuracy, strict=True)),
                colour="muted",
            ),
            series(
                say("experiments.memorised_validation"),
                list(zip(memory.steps, memory.validation_accuracy, strict=True)),
                colour="trainable",
            ),
        ],
        say("experiments.memorised_axis"),
        say("experiments.accuracy_any"),
    )
    if test:
        measured = {key: test[key] for key in ("low", "high")} | {"y": test["accuracy"]}
        figure["points"] = [
            measured | {"x": memory.best_step, "label": say("experiments.memorised_point")}
        ]
    return {
        "question": "memorised",
        "about": long_name(run),
        "state": "done",
        "sentence": " ".join(said),
        "note": say("experiments.memorised_note", best=memory.best_step),
        "figure": figure
        | {"marks": marks, "gap": say("experiments.memorised_shade"), "from": memory.turn},
        "steps": list(memory.steps),
        "train_accuracy": list(memory.train_accuracy),
        "validation_accuracy": list(memory.validation_accuracy),
        "gap": list(memory.gap),
        "best_step": memory.best_step,
        "memorises_from": memory.turn,
        "test": test,
    }


def _gap_words(run: Run, train: float, validation: float) -> str:
    """The gap between the texts that were trained on and the others, and whether it may be luck."""
    places = {"train": pc(train), "validation": pc(validation)}
    gap = points(train - validation).replace("-", "−")
    if run.task is None or run.train_config is None:
        return say("experiments.memorised_gap_only", gap=gap, **places)
    seen = train_sample_rows(len(run.task.train), run.train_config)
    unseen = min(len(run.task.validation), run.train_config.evaluation_rows)
    shares = (round(train * seen), seen), (round(validation * unseen), unseen)
    between = difference_of_shares(*shares)
    return say(
        "experiments.memorised_gap" if between.told_apart else "experiments.memorised_gap_luck",
        **places,
        gap=gap,
        seen=seen,
        unseen=unseen,
        low=signed(between.low),
        high=signed(between.high),
    )


def test_words(run: Run) -> Answer | None:
    """A run's test accuracy with Wilson's interval and its rows; None without test texts."""
    score = run.test_score
    if score is None:
        return None
    low, high = wilson(round(score.accuracy * score.rows), score.rows)
    said = say(
        "experiments.share",
        accuracy=pc(score.accuracy),
        low=pc(low),
        high=pc(high),
        rows=score.rows,
    )
    return {
        "accuracy": score.accuracy,
        "low": low,
        "high": high,
        "rows": score.rows,
        "words": said,
    }


def votes(computation: Computation) -> Answer:
    """What the voters reach together, as JSON."""
    answer: Answer = {
        "question": "vote",
        "state": "waiting" if computation.state == "dropped" else computation.state,
        "sentence": computation.reason,
        "note": "",
        "figure": None,
    }
    if computation.state != "done":
        return answer
    counted: list[Vote]
    counted, rows, singles, (won, lost) = computation.value
    one, all_of_them = counted[0], counted[-1]
    said = say(
        "experiments.vote_result" if one.low < one.high else "experiments.vote_equal",
        n=all_of_them.voters,
        all=pc(all_of_them.mean),
        low=pc(one.low),
        high=pc(one.high),
        mean=pc(one.mean),
    )
    p = sign_test(won, lost)
    luck = "experiments.vote_luck" if p > 0.05 else "experiments.vote_no_luck"
    said += " " + say(luck, won=won, lost=lost, p=f"{p:.2g}")
    return answer | {
        "votes": [
            {"voters": v.voters, "mean": v.mean, "low": v.low, "high": v.high} for v in counted
        ],
        "sentence": said,
        "singles": singles,
        "against_best": {"won": won, "lost": lost, "p": p},
        "note": say("experiments.vote_note", rows=rows),
        "figure": lines(
            [
                {
                    **series("", [(v.voters, v.mean) for v in counted]),
                    "low": [v.low for v in counted],
                    "high": [v.high for v in counted],
                    "spots": [[1, share] for share in singles],
                }
            ],
            say("experiments.vote_axis"),
            say("experiments.accuracy"),
        ),
    }
