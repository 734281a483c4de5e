"""Stores that older versions wrote, statement by statement: what was in them is there, and goes on.

Written out, not made with today's code: a name that changes there must not change here.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import lora_core as lc
from lora_core.preparation import build_model, trained_weights
from lora_core.serving.registry import Registry
from lora_core.serving.store import Store
from tests.serving.registry import adapter, same, wait

ANN = "visitor number 1 of the old version"

FIRST = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, visitor TEXT NOT NULL,
    state TEXT NOT NULL, record TEXT NOT NULL, weights TEXT NOT NULL DEFAULT '',
    bytes INTEGER NOT NULL DEFAULT 0);
CREATE INDEX by_visitor ON runs (visitor);
CREATE TABLE events (
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, first INTEGER NOT NULL,
    records TEXT NOT NULL, PRIMARY KEY (run, first));
CREATE TABLE tables (digest TEXT PRIMARY KEY, record TEXT NOT NULL);

INSERT INTO tables VALUES ('c226519976dc',
'{"name": "words", "labels": ["no", "yes"],
"train": [["see you 0", 0], ["win cash 1", 1], ["see you 2", 0], ["win cash 3", 1],
["see you 4", 0], ["win cash 5", 1], ["see you 6", 0], ["win cash 7", 1]],
"validation": [["see you 24", 0], ["win cash 25", 1]],
"test": [["see you 32", 0], ["win cash 33", 1]], "title": "", "warnings": []}');

INSERT INTO runs VALUES (1, '2oyeoRyKsoCA_iNX4jGEjA', 'visitor number 1 of the old version',
'finished',
'{"name": "first", "share": "", "base": "tiny", "base_digest": "BASE", "task": null,
"table": "c226519976dc", "lora": {"rank": 1, "alpha": 16.0, "targets": ["query", "key", "value",
"attention.output", "mlp.up", "mlp.down", "token_embedding"], "scaling": "alpha/rank",
"dropout": 0.1, "head": "train"}, "train": {"steps": 2, "batch_size": 4, "learning_rate": null,
"head_learning_rate": null, "method": "lora", "seed": 0, "weight_decay": 0.01, "warmup": 0.06,
"max_grad_norm": 1.0, "evaluations": 1, "evaluation_rows": 256}, "reason": "", "lost": "",
"test": {"accuracy": 0.5, "rows": 2, "confusion": [[1, 0], [1, 0]]},
"times": [0.25, 0.5, 6.5], "step": 2, "first_step": 0, "best_step": 2,
"scores": {"validation_accuracy": 0.5, "validation_loss": 0.6948, "temperature": 1.0093},
"has_weights": true}', 'e72b41419f7fe132003179b05a677f32.safetensors', 70480);
INSERT INTO events VALUES ('2oyeoRyKsoCA_iNX4jGEjA', 0,
'[{"kind": "Started", "steps": 2, "batch_size": 4, "learning_rate": 0.002, "method": "lora",
"parameters": [17010, 286130, {"token_embedding": [16400, 262144], "head": [34, 0]}],
"device": ["cpu", "bfloat16", "No GPU."], "train_rows": 8, "validation_rows": 2, "epochs": 1.0,
"step": 0}, {"kind": "Evaluated", "step": 0, "train_loss": 0.6954, "train_accuracy": 0.5,
"validation_loss": 0.6956, "validation_accuracy": 0.5, "best": true, "seconds": 0.33}]');
INSERT INTO events VALUES ('2oyeoRyKsoCA_iNX4jGEjA', 2,
'[{"kind": "Step", "step": 1, "loss": 0.696, "learning_rate": 0.002, "tokens_per_second": 155.2,
"seconds": 0.52}, {"kind": "Watched", "step": 1, "probabilities": [[0.25, 0.75]]},
{"kind": "Step", "step": 2, "loss": 0.7028, "learning_rate": 0.001, "tokens_per_second": 282.5,
"seconds": 0.54}, {"kind": "Evaluated", "step": 2, "train_loss": 0.6952, "train_accuracy": 0.5,
"validation_loss": 0.6948, "validation_accuracy": 0.5, "best": true, "seconds": 0.55}]');
INSERT INTO events VALUES ('2oyeoRyKsoCA_iNX4jGEjA', 6,
'[{"kind": "Finished", "step": 2, "outcome": "completed", "best_step": 2,
"validation_accuracy": 0.5, "seconds": 0.67, "classifier": null}]');

INSERT INTO runs VALUES (7, '0iGpIvMrzcGsk0HDgFIGXQ', 'visitor number 1 of the old version',
'running',
'{"name": "", "share": "", "base": "tiny", "base_digest": "BASE", "task": null,
"table": "c226519976dc", "lora": {"rank": 1, "alpha": 16.0, "targets": ["query", "key", "value",
"attention.output", "mlp.up", "mlp.down", "token_embedding"], "scaling": "alpha/rank",
"dropout": 0.1, "head": "train"}, "train": {"steps": 6, "batch_size": 4, "learning_rate": null,
"head_learning_rate": null, "method": "lora", "seed": 0, "weight_decay": 0.01, "warmup": 0.0,
"max_grad_norm": 1.0, "evaluations": 3, "evaluation_rows": 256}, "reason": "", "lost": "",
"test": null, "times": [6.5, 6.75, null], "step": 2, "first_step": 0, "best_step": 2,
"scores": {"validation_accuracy": 1.0, "validation_loss": 0.5}, "has_weights": true}',
'a434bd30398355f5d5e2282e49ea3552.safetensors', 138392);
INSERT INTO events VALUES ('0iGpIvMrzcGsk0HDgFIGXQ', 0,
'[{"kind": "Started", "steps": 6, "batch_size": 4, "learning_rate": 0.002, "method": "lora",
"parameters": [17010, 286130, {"token_embedding": [16400, 262144], "head": [34, 0]}],
"device": ["cpu", "bfloat16", "No GPU."], "train_rows": 8, "validation_rows": 2, "epochs": 3.0,
"step": 0}, {"kind": "Evaluated", "step": 0, "train_loss": 0.6954, "train_accuracy": 0.5,
"validation_loss": 0.6956, "validation_accuracy": 0.5, "best": true, "seconds": 0.05}]');
INSERT INTO events VALUES ('0iGpIvMrzcGsk0HDgFIGXQ', 2,
'[{"kind": "Step", "step": 1, "loss": 0.695, "learning_rate": 0.002, "tokens_per_second": 4383.1,
"seconds": 0.1}, {"kind": "Step", "step": 2, "loss": 0.6444, "learning_rate": 0.002,
"tokens_per_second": 959.2, "seconds": 0.14}, {"kind": "Evaluated", "step": 2,
"train_loss": 0.6, "train_accuracy": 0.5, "validation_loss": 0.5, "validation_accuracy": 1.0,
"best": true, "seconds": 0.15}]');

INSERT INTO runs VALUES (9, 'AEBKEzxgWIWcM5NcdVOu-A', 'visitor number 1 of the old version',
'waiting',
'{"name": "", "share": "", "base": "tiny", "base_digest": "BASE", "task": null,
"table": "c226519976dc", "lora": {"rank": 2, "alpha": 16.0, "targets": ["query", "key", "value",
"attention.output", "mlp.up", "mlp.down", "token_embedding"], "scaling": "alpha/rank",
"dropout": 0.1, "head": "train"}, "train": {"steps": 3, "batch_size": 4, "learning_rate": null,
"head_learning_rate": null, "method": "lora", "seed": 0, "weight_decay": 0.01, "warmup": 0.06,
"max_grad_norm": 1.0, "evaluations": 1, "evaluation_rows": 256}, "reason": "", "lost": "",
"test": null, "times": [6.9, null, null], "step": 0, "first_step": 0, "best_step": 0,
"scores": {}, "has_weights": false}', '', 0);

PRAGMA application_id = 1282363969;
PRAGMA user_version = 1;
"""
SECOND = """
ALTER TABLE runs ADD COLUMN used REAL NOT NULL DEFAULT 0;
CREATE TABLE own_tables (
    visitor TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL REFERENCES tables (digest),
    PRIMARY KEY (visitor, name));
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);

UPDATE runs SET used = 6.5;
INSERT INTO own_tables VALUES ('visitor number 1 of the old version', 'words', 'c226519976dc');
INSERT INTO facts VALUES ('clock', '7.0');

-- The rest of a run that was interrupted, from step 4 on, which waits: its events end before the
-- evaluation of step 4.
INSERT INTO runs VALUES (11, 'bC1tqYw0Qm2xkq0mJm8n3w', 'visitor number 1 of the old version',
'waiting',
'{"name": "", "share": "", "base": "tiny", "base_digest": "BASE", "task": null,
"table": "c226519976dc", "lora": {"rank": 1, "alpha": 16.0, "targets": ["query", "key", "value",
"attention.output", "mlp.up", "mlp.down", "token_embedding"], "scaling": "alpha/rank",
"dropout": 0.1, "head": "train"}, "train": {"steps": 6, "batch_size": 4, "learning_rate": null,
"head_learning_rate": null, "method": "lora", "seed": 0, "weight_decay": 0.01, "warmup": 0.0,
"max_grad_norm": 1.0, "evaluations": 3, "evaluation_rows": 256}, "reason": "", "lost": "",
"test": null, "times": [6.9, null, null], "step": 4, "first_step": 4, "best_step": 2,
"scores": {"validation_accuracy": 0.5, "validation_loss": 0.6}, "has_weights": true}',
'0cc175b9c0f1b6a831c399e269772661.safetensors', 138392, 6.9);
INSERT INTO events VALUES ('bC1tqYw0Qm2xkq0mJm8n3w', 0,
'[{"kind": "Started", "steps": 6, "batch_size": 4, "learning_rate": 0.002, "method": "lora",
"parameters": [17010, 286130, {"token_embedding": [16400, 262144], "head": [34, 0]}],
"device": ["cpu", "bfloat16", "No GPU."], "train_rows": 8, "validation_rows": 2, "epochs": 3.0,
"step": 0}, {"kind": "Evaluated", "step": 0, "train_loss": 0.6954, "train_accuracy": 0.5,
"validation_loss": 0.6956, "validation_accuracy": 0.5, "best": true, "seconds": 0.05},
{"kind": "Step", "step": 1, "loss": 0.695, "learning_rate": 0.002, "tokens_per_second": 4383.1,
"seconds": 0.1}, {"kind": "Step", "step": 2, "loss": 0.6444, "learning_rate": 0.002,
"tokens_per_second": 959.2, "seconds": 0.14}, {"kind": "Evaluated", "step": 2,
"train_loss": 0.6, "train_accuracy": 0.5, "validation_loss": 0.6, "validation_accuracy": 0.5,
"best": true, "seconds": 0.15}, {"kind": "Step", "step": 3, "loss": 0.6, "learning_rate": 0.001,
"tokens_per_second": 959.2, "seconds": 0.2}, {"kind": "Step", "step": 4, "loss": 0.6,
"learning_rate": 0.001, "tokens_per_second": 959.2, "seconds": 0.25}]');

PRAGMA user_version = 2;
"""
FILES = (
    "e72b41419f7fe132003179b05a677f32",
    "a434bd30398355f5d5e2282e49ea3552",
    "0cc175b9c0f1b6a831c399e269772661",
)


def write(folder: Path, script: str, base: lc.Base) -> dict[str, torch.Tensor]:
    """Such a store; the weights that all of its runs of rank 1 have."""
    db = sqlite3.connect(folder / "runs.sqlite")
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(script.replace("BASE", base.digest()))
    db.close()
    generator = torch.Generator().manual_seed(7)
    weights = trained_weights(build_model(base, 2, lc.LoRAConfig(rank=1), "lora", generator))
    weights = {n: t.normal_(std=0.1, generator=generator) for n, t in weights.items()}
    (folder / "weights").mkdir()
    for name in FILES:
        save_file(weights, folder / "weights" / f"{name}.safetensors")
    return weights


@pytest.mark.parametrize("script", [FIRST, FIRST + SECOND], ids=["version 1", "version 2"])
def test_a_store_of_an_older_version_is_read_and_goes_on(tmp_path, tiny, script) -> None:
    weights = write(tmp_path, script, tiny)
    store = Store(tmp_path)
    assert store.notes == []
    with Registry(workers=1, store=store, bases=lambda *_: tiny) as registry:
        done, broken, waited, *continued = registry.runs(ANN)
        assert done.state == "finished" and done.name == "first" and same(adapter(done), weights)
        assert [type(e).__name__ for e in done.events] == [
            "Started", "Evaluated", "Step", "Watched", "Step", "Evaluated", "Finished"
        ]  # fmt: skip
        assert done.processor_seconds == 0.0  # not known
        assert done.test_score.accuracy == 0.5 and done.task.train[1].text == "win cash 1"
        assert done.classifier.scores["temperature"] == 1.0093

        assert broken.interrupted and "after step 2" in broken.reason
        assert "those of step 2" in broken.reason and same(adapter(broken), weights)
        going = registry.go_on(ANN, broken.id)
        assert going.first_step == 2
        wait(waited, going, *continued)
        assert [run.state for run in (waited, going, *continued)] == ["finished"] * (
            2 + len(continued)
        )
        for run in (going, *continued):
            steps = [e.step for e in run.events if isinstance(e, lc.Step)]
            assert steps == [1, 2, 3, 4, 5, 6]
        assert [table.name for table in registry.tasks(ANN)] == ["words"] * len(continued)
        ids = [run.id for run in registry.runs(ANN)]
    with Registry(workers=1, store=Store(tmp_path), bases=lambda *_: tiny) as registry:
        again = registry.runs(ANN)
        assert [run.id for run in again] == ids
        assert all(run.classifier is not None for run in again)
