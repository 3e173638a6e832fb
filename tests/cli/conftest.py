"""A model, data and a recipe in a folder."""

from __future__ import annotations

import pytest

from tests.models import save_tiny_model, sentiment_rows


@pytest.fixture
def files(tmp_path):
    save_tiny_model(tmp_path / "model", num_labels=2)
    rows = sentiment_rows(40)
    lines = [f"{row['text']},{row['label']}\n" for row in rows]
    (tmp_path / "data.csv").write_text("text,label\n" + "".join(lines))
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{name: {tmp_path / 'model'}}}\n"
        "data: {train: data.csv, validation: data.csv, max_length: 32}\n"
        "objective: {name: adversarial, perturbation: {name: fgm, epsilon: 0.3}}\n"
        "training: {epochs: 1, batch_size: 8, precision: fp32}\n"
        "evaluation: {attacks: [deepwordbug], num_examples: 10, query_budget: 60}\n"
    )
    return tmp_path
